//! What is known of who hands a message over, and what came of its check.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::arc::Arc;
use crate::dkim::Dkim;
use crate::dmarc::{Dmarc, DmarcResult, Policy};
use crate::domain::Domain;
use crate::iprev::Iprev;
use crate::spf::SpfResult;

/// Who hands a message over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The client's address.
    pub address: IpAddr,
    /// What it called itself.
    pub helo: String,
    /// The reverse-path's local part and domain; None for the null one.
    pub reverse_path: Option<(String, String)>,
}

/// What came of a message's check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the client's address and its name name each other.
    pub iprev: Iprev,
    /// Whether the reverse-path's domain sends from there, or that of HELO for the null reverse-path.
    pub spf: SpfResult,
    /// The domain that was asked about, if there is one.
    pub spf_domain: Option<Domain>,
    /// The signatures that were checked.
    pub dkim: Vec<Dkim>,
    /// The chain of who passed it on.
    pub arc: Arc,
    /// What the domain in From wants done.
    pub dmarc: Dmarc,
}

/// How much of what DMARC asks for is done here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enforcement {
    /// It is told in the header.
    Mark,
    /// And what a domain wants quarantined or rejected goes to Junk.
    Quarantine,
    /// And what it wants rejected is.
    Reject,
}

/// What is done with a message. Kept in records: variants are only ever added at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Disposition {
    /// It goes where it is addressed to.
    Deliver,
    /// It goes to Junk.
    Quarantine,
    /// It is refused.
    Reject,
}

impl Verdict {
    /// What is done with the message. What the DNS did not answer refuses nothing.
    pub fn disposition(&self, enforcement: Enforcement) -> Disposition {
        let unclear = self.dmarc.result == DmarcResult::PermError;
        match (enforcement, self.dmarc.wanted) {
            (Enforcement::Mark, _) => Disposition::Deliver,
            // Whoever hides who writes is in no policy.
            (Enforcement::Quarantine | Enforcement::Reject, Policy::None) if unclear => Disposition::Quarantine,
            (Enforcement::Quarantine | Enforcement::Reject, Policy::None) => Disposition::Deliver,
            (Enforcement::Quarantine, Policy::Quarantine | Policy::Reject)
            | (Enforcement::Reject, Policy::Quarantine) => Disposition::Quarantine,
            (Enforcement::Reject, Policy::Reject) => Disposition::Reject,
        }
    }
}
