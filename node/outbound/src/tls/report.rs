//! What a report of TLS says of a connection (RFC 8460). Counting and reporting are `mailraft_feedback`'s.

use serde::{Deserialize, Serialize};

/// What a connection was to be like (RFC 8460, section 4.4). Kept in records: variants are only ever added at the end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum AppliedPolicy {
    /// DANE, with the host below whose name the records stand, and the records.
    Tlsa {
        /// The host.
        base: String,
        /// Records as they stand in a zone.
        records: Vec<String>,
    },
    /// MTA-STS.
    Sts {
        /// The policy's lines.
        lines: Vec<String>,
        /// Its patterns of hosts.
        patterns: Vec<String>,
    },
    /// Neither.
    NoPolicy,
}

/// Why a connection was not as it was to be (RFC 8460, section 4.3). Kept in records: variants are only ever added at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum FailureKind {
    /// The server offers no STARTTLS.
    StarttlsNotSupported,
    /// The certificate is not for this host.
    CertificateHostMismatch,
    /// The certificate is over, or not yet valid.
    CertificateExpired,
    /// Nobody who is trusted signed the certificate.
    CertificateNotTrusted,
    /// Anything else.
    ValidationFailure,
    /// None of the TLSA records can be used.
    TlsaInvalid,
    /// The DNS gave no answer with signatures that are right.
    DnssecInvalid,
    /// No policy could be fetched.
    StsPolicyFetchError,
    /// What was fetched is no policy.
    StsPolicyInvalid,
    /// The certificate of the policy's host is not right.
    StsWebpkiInvalid,
    /// The operator wants DANE, and there are no records that could be believed.
    DaneRequired,
}

impl FailureKind {
    /// Its name in a report.
    pub fn name(self) -> &'static str {
        match self {
            FailureKind::StarttlsNotSupported => "starttls-not-supported",
            FailureKind::CertificateHostMismatch => "certificate-host-mismatch",
            FailureKind::CertificateExpired => "certificate-expired",
            FailureKind::CertificateNotTrusted => "certificate-not-trusted",
            FailureKind::ValidationFailure => "validation-failure",
            FailureKind::TlsaInvalid => "tlsa-invalid",
            FailureKind::DnssecInvalid => "dnssec-invalid",
            FailureKind::StsPolicyFetchError => "sts-policy-fetch-error",
            FailureKind::StsPolicyInvalid => "sts-policy-invalid",
            FailureKind::StsWebpkiInvalid => "sts-webpki-invalid",
            FailureKind::DaneRequired => "dane-required",
        }
    }
}
