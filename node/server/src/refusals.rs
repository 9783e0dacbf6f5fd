//! How each protocol says why something was not done: one exhaustive match for each.

use mailraft_imap::StoreFailure;
use mailraft_mailbox::{Refusal, Refused};

/// As the IMAP engine hears it.
pub fn to_imap(refused: &Refused) -> StoreFailure {
    match refused {
        Refused::Mailbox(refusal) => StoreFailure::Refused(refusal.clone()),
        Refused::NoQuorum | Refused::Unknown | Refused::BodyLost | Refused::Expired { .. } => StoreFailure::Unavailable,
        Refused::Overloaded => StoreFailure::Overloaded,
        Refused::NoSuchMailbox => StoreFailure::NoSuchMailbox,
        Refused::Corrupt => StoreFailure::Refused(Refusal::Corrupt),
    }
}
