//! Why something was not done: one closed list, mapped to each protocol in one exhaustive match.

use mailraft_imap::StoreFailure;
use mailraft_mailbox::Refusal;
use serde::{Deserialize, Serialize};

/// A reason outside the mailbox: nothing was decided, or nobody here knows what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refused {
    /// The mailbox decided so; final.
    #[error(transparent)]
    Mailbox(#[from] Refusal),
    /// No leader answered within the time that a client is kept waiting.
    #[error("no majority of the servers can be reached; try again")]
    NoQuorum,
    /// It may have been done; retries were used up before anyone could say.
    #[error("the outcome is not known yet; try again")]
    Unknown,
    /// Too much is waiting.
    #[error("too busy; try again later")]
    Overloaded,
    /// There is no such mailbox, as a read barrier of the control group says.
    #[error("no such mailbox")]
    NoSuchMailbox,
    /// The uploaded body is gone and nothing was done: upload it again.
    #[error("the message's body was lost on its way; try again")]
    BodyLost,
    /// A row could not be read or opened.
    #[error("part of this mailbox is damaged and being repaired")]
    Corrupt,
}

impl Refused {
    /// As the IMAP engine hears it.
    pub fn to_imap(&self) -> StoreFailure {
        match self {
            Refused::Mailbox(refusal) => StoreFailure::Refused(refusal.clone()),
            Refused::NoQuorum | Refused::Unknown | Refused::BodyLost => StoreFailure::Unavailable,
            Refused::Overloaded => StoreFailure::Overloaded,
            Refused::NoSuchMailbox => StoreFailure::NoSuchMailbox,
            Refused::Corrupt => StoreFailure::Refused(Refusal::Corrupt),
        }
    }
}
