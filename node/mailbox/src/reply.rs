//! What a mailbox's owner replies to its sessions. It travels between nodes: variants are only ever added at the end.

use std::sync::Arc;

use mailraft_owner::Detached;
use mailraft_storage::{CommandId, Index};
use serde::{Deserialize, Serialize};

use crate::api::{Answer, Event, Refusal};
use crate::notice::Notice;

/// Why a command has no answer. Nothing is recorded under its id: what the mailbox decides, and a refusal is that too,
/// is an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum CommandError {
    /// It may have been done; nobody here can say.
    #[error("the outcome is not known")]
    Unknown,
    /// Too much is waiting, and nothing was done.
    #[error("too much is waiting")]
    Overloaded,
    /// The uploaded body is gone and nothing was done: it is to be uploaded again.
    #[error("the message's body is gone")]
    BodyLost,
    /// A row could not be read or opened, and nothing was done.
    #[error("part of this mailbox is damaged")]
    Corrupt,
    /// The id of this first attempt is older than any whose result is kept, and nothing was done: whoever never
    /// sent it before takes one above the floor.
    #[error("the command's id is too old")]
    Expired {
        /// The floor.
        floor: CommandId,
    },
    /// The owner's node does not know commands of this kind, and nothing was done: it is older than the one that asks.
    #[error("the command is of a kind that is not known there")]
    Unsupported,
    /// Other regions have not confirmed for long, and nothing was done.
    #[error("the backup region has not confirmed for long")]
    NotConfirmed,
}

/// What an owner tells a session, in the order of the log.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// What the mailbox answers to a command.
    Answer {
        /// The command.
        id: CommandId,
        /// The answer, or the refusal that was decided.
        result: Result<Answer, Refusal>,
        /// The position of the change, or of the memory that was read.
        at: Index,
    },
    /// A command has no answer.
    Failed {
        /// The command.
        id: CommandId,
        /// The reason.
        error: CommandError,
    },
    /// Something changed in the open folder. However many sessions have it open, it is in memory once.
    Event(Arc<Event>),
    /// The link is over.
    Detached(Detached),
    /// Something changed in a folder that is not open, or in the list of folders.
    Notice(Notice),
}
