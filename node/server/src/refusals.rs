//! How each protocol says why something was not done: one exhaustive match for each.

use mailraft_imap::StoreFailure;
use mailraft_mailbox::{Finished, NotDone, Refusal};
use mailraft_storage::CommandId;

/// As the IMAP engine hears how a command ended.
///
/// # Errors
/// Why it was not done, or may not have been.
pub fn to_imap<T>(id: CommandId, finished: Finished<T>) -> Result<T, StoreFailure> {
    let why = match finished {
        Finished::Done(done) => return Ok(done),
        Finished::Unknown => {
            tracing::debug!(command = %id, "it is not known whether a command was carried out");
            return Err(StoreFailure::Unavailable);
        }
        Finished::NotDone(why) => why,
    };
    tracing::debug!(command = %id, %why, "a command was not carried out");
    Err(match why {
        NotDone::Refused(refusal) => StoreFailure::Refused(refusal),
        NotDone::NoQuorum | NotDone::BodyLost | NotDone::Expired | NotDone::Unsupported => StoreFailure::Unavailable,
        NotDone::Overloaded => StoreFailure::Overloaded,
        NotDone::NoSuchMailbox => StoreFailure::NoSuchMailbox,
        NotDone::Corrupt => StoreFailure::Refused(Refusal::Corrupt),
    })
}
