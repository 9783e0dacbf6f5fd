//! Bounds on what one message may ask of the check.

/// DKIM signatures of a message that are checked, the uppermost first; more are not looked at.
pub const SIGNATURES_MAX: usize = 10;
/// ARC sets of a chain (RFC 8617, section 4.2.1).
pub const ARC_SETS_MAX: usize = 50;
/// Fields that a signature may name as signed.
pub const SIGNED_FIELDS_MAX: usize = 512;
/// The longest signature field, in bytes.
pub const SIGNATURE_FIELD_MAX_BYTES: usize = 16 << 10;
/// RSA keys below this many bits prove nothing (RFC 8301, section 3.2).
pub const RSA_MIN_BITS: usize = 1_024;
/// RSA keys above this many bits are not computed with (RFC 8301, section 3.2).
pub const RSA_MAX_BITS: usize = 4_096;
/// Questions to the DNS for one message by SPF, ARC and iprev together, and as many by DKIM and DMARC.
pub const QUESTIONS_MAX: usize = 150;
/// Terms of SPF records that ask the DNS (RFC 7208, section 4.6.4).
pub const SPF_TERMS_MAX: usize = 10;
/// Of those, such as find nothing (RFC 7208, section 4.6.4).
pub const SPF_VOID_MAX: usize = 2;
/// Names of a host, or hosts of a domain, that SPF asks about (RFC 7208, section 4.6.4).
pub const SPF_NAMES_MAX: usize = 10;
/// The longest SPF record, in bytes: what does not fit a UDP answer is nobody's.
pub const SPF_RECORD_MAX_BYTES: usize = 4 << 10;
/// The longest key record or DMARC record, in bytes.
pub const RECORD_MAX_BYTES: usize = 8 << 10;
/// Domains in a message's From field that DMARC is asked about.
pub const AUTHOR_DOMAINS_MAX: usize = 4;
/// Addresses in a message's From field that are looked at.
pub const AUTHORS_MAX: usize = 64;
/// Names of an address that are asked for their addresses (RFC 8601, section 2.7.3).
pub const IPREV_NAMES_MAX: usize = 10;
/// The longest address that is told in Authentication-Results, in bytes: of a longer one only the domain.
pub const TOLD_ADDRESS_MAX_BYTES: usize = 320;
/// Fields of one name that a signature of ours covers: a message that is sent has one of most.
pub const SAME_FIELDS_SIGNED_MAX: usize = 8;
