//! What a mailbox's owner replies to its sessions. It travels between nodes: variants are only ever added at the end.

use mailraft_owner::Detached;
use mailraft_storage::{CommandId, Index};
use serde::{Deserialize, Serialize};

use crate::api::{Answer, Event, Refusal};

/// A reason outside the mailbox: nothing was decided, or nobody here knows what. One closed list, mapped to each
/// protocol in one exhaustive match.
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
    /// The id of this first attempt is older than any whose result is kept, and nothing was done: whoever never
    /// sent it before takes one above the floor.
    #[error("the command's id is too old; try again")]
    Expired {
        /// The floor.
        floor: CommandId,
    },
    /// The owner's node does not know commands of this kind, and nothing was done: it is older than the one that asks.
    #[error("not every server knows this command yet; try again later")]
    Unsupported,
}

/// What an owner tells a session, in the order of the log.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// The answer to a command.
    Answer {
        /// The command.
        id: CommandId,
        /// The answer.
        result: Result<Answer, Refused>,
        /// The position of the change, or of the memory that was read.
        at: Index,
    },
    /// Something changed in the open folder.
    Event(Event),
    /// The link is over.
    Detached(Detached),
}
