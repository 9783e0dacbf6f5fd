//! Checks who sent a message that another server hands over: iprev (RFC 8601), SPF (RFC 7208), DKIM (RFC 6376, 8301, 8463),
//! ARC (RFC 8617) and DMARC (RFC 7489), and tells it in one Authentication-Results field (RFC 8601).
//!
//! And it signs what goes to other servers, and seals what is forwarded ([`Signing`]), with a domain's [`SigningKey`]s.
//!
//! Pure: what the DNS says comes by [`Dns`], the time is handed in. A [`Reader`] reads the message once, which computes; what
//! it [`Claims`] is small, and [`check`] asks about it.

mod arc;
mod canonical;
mod check;
mod claims;
mod dkim;
mod dmarc;
mod dns;
mod domain;
mod head;
mod iprev;
mod keys;
pub mod limits;
mod results;
mod seal;
mod sign;
mod signature;
mod signing_key;
mod spf;
mod tags;
#[cfg(test)]
mod vectors;
mod verdict;
#[cfg(test)]
mod zone;

pub use arc::Arc;
pub use check::check;
pub use claims::{Claims, Reader};
pub use dkim::{Dkim, DkimResult};
pub use dmarc::{Basis, Dmarc, DmarcRecord, DmarcRecordFlaw, DmarcResult, Policy, dmarc_record_name};
pub use dns::{Dns, NoAnswer, Question, Record};
pub use domain::Domain;
pub use iprev::Iprev;
pub use keys::Algorithm;
pub use seal::Arrived;
pub use sign::{OVERSIGNED, SIGNED, SignRefusal, Signer, Signing, Times};
pub use signing_key::{KeyError, SigningKey};
pub use spf::{SpfFlaw, SpfResult, spf_names_mx};
pub use verdict::{Disposition, Enforcement, Envelope, Verdict};
