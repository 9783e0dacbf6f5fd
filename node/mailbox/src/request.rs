//! What a client wants of its mailbox, and how that ends.

use mailraft_storage::body::BodyId;
use mailraft_storage::{Index, PartitionId};
use serde::{Deserialize, Serialize};

use crate::accepted::{AcceptedEnvelope, QueueOrigin, Told};
use crate::api::{Answer, AppendedMessage, Command, FolderId, NewMessage, Once, Refusal, ZonedTime};
use crate::flags::Flags;

/// Where in the logs of the cluster something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The partition.
    pub partition: PartitionId,
    /// The incarnation's number.
    pub incarnation: u32,
    /// The index.
    pub index: Index,
}

impl std::fmt::Display for Position {
    /// `<partition>.<incarnation>.<index>`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.partition, self.incarnation, self.index)
    }
}

/// What a client wants of its mailbox.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // One for each session, while it is busy.
pub enum Request {
    /// A command that is whole as it is.
    Command(Command),
    /// A message is put into the mailbox. It is sealed anew for each attempt.
    Store {
        /// How.
        kind: MessageKind,
        /// Where it is not to be stored again if it repeats what nobody heard the answer to.
        once: Option<Once>,
    },
}

/// How a message is put into a mailbox.
#[derive(Clone, Debug)]
pub enum MessageKind {
    /// A delivery.
    Deliver {
        /// The reverse-path, empty for null.
        reverse_path: String,
        /// The `+detail` of the recipient's address.
        detail: Option<String>,
        /// Whether a repeat is recognised.
        deduplicate: bool,
        /// When it arrived.
        received: ZonedTime,
    },
    /// IMAP APPEND.
    Append {
        /// The folder's name.
        folder: String,
        /// The message's flags.
        flags: Flags,
        /// Its INTERNALDATE.
        internal_date: ZonedTime,
    },
    /// IMAP APPEND of several messages (RFC 3502).
    AppendMany {
        /// The folder's name.
        folder: String,
        /// Of each message its flags and its INTERNALDATE.
        each: Vec<(Flags, ZonedTime)>,
    },
    /// Into a queue mailbox, for several others.
    Accept {
        /// Whom it is from and for.
        accepted: AcceptedEnvelope,
        /// When it arrived.
        received: ZonedTime,
    },
    /// Into a queue mailbox: what the sender of an item of its is told.
    Report {
        /// Of what, and of whom.
        told: Told,
        /// Whom it is for.
        accepted: AcceptedEnvelope,
        /// When it was made.
        received: ZonedTime,
    },
    /// From a queue mailbox.
    Queued {
        /// Where it comes from.
        origin: QueueOrigin,
        /// The id under which its body was sealed.
        sealed_as: BodyId,
        /// The reverse-path, empty for null.
        reverse_path: String,
        /// The `+detail` of the recipient's address.
        detail: Option<String>,
        /// Whether a sender's repeat is recognised.
        deduplicate: bool,
        /// When it arrived.
        received: ZonedTime,
    },
    /// IMAP REPLACE.
    Replace {
        /// The folder of the message that goes.
        folder: FolderId,
        /// Its UID.
        uid: u32,
        /// The name of the folder that the new one comes to.
        to: String,
        /// The new one's flags.
        flags: Flags,
        /// Its INTERNALDATE.
        internal_date: ZonedTime,
    },
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Finished<T = (Answer, Position)> {
    /// It was done, and is durable on a majority.
    Done(T),
    /// It was not done, and never will be under any id that it had.
    NotDone(NotDone),
    /// It may have been done, or may still be: retries were used up before anyone could say.
    Unknown,
}

/// Why a command was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotDone {
    /// The mailbox decided so; final.
    #[error(transparent)]
    Refused(Refusal),
    /// There is no such mailbox, as a read barrier of the control group says.
    #[error("no such mailbox")]
    NoSuchMailbox,
    /// No leader took it within the time that a client is kept waiting.
    #[error("no majority of the servers can be reached; try again")]
    NoQuorum,
    /// Too much is waiting where the mailbox is.
    #[error("too busy; try again later")]
    Overloaded,
    /// Rows of the mailbox can't be read where it is, and nobody else took over in time.
    #[error("part of this mailbox is damaged and being repaired")]
    Corrupt,
    /// Each time its body was uploaded, the upload was swept before the command used it.
    #[error("the message's body was lost on its way; try again")]
    BodyLost,
    /// The owner's node is too old to know such a command, and no newer one took over in time.
    #[error("not every server knows this command yet; try again later")]
    Unsupported,
    /// A backup region has not confirmed for so long that nothing more is begun.
    #[error("the backup region has not confirmed what came before; try again later")]
    NotConfirmed,
    /// Its id was too old, and so was each that it went on under.
    #[error("the command's id is too old; try again")]
    Expired,
}

impl MessageKind {
    /// The command that puts these messages into the mailbox.
    ///
    /// # Panics
    /// If they are not as many as it is about.
    pub(crate) fn command(self, mut messages: Vec<NewMessage>) -> Command {
        if let MessageKind::AppendMany { folder, each } = self {
            assert_eq!(messages.len(), each.len(), "each message has flags and a date");
            let of = |(new_message, (flags, internal_date))| AppendedMessage { new_message, flags, internal_date };
            return Command::AppendMany { folder, messages: messages.into_iter().zip(each).map(of).collect() };
        }
        let (Some(new_message), true) = (messages.pop(), messages.is_empty()) else { panic!("one message is stored") };
        match self {
            MessageKind::Deliver { reverse_path, detail, deduplicate, received } => {
                Command::Deliver { new_message, reverse_path, detail, deduplicate, received }
            }
            MessageKind::Accept { accepted, received } => Command::Accept { new_message, accepted, received },
            MessageKind::Report { told, accepted, received } => {
                Command::Report { told, new_message, accepted, received }
            }
            MessageKind::Queued { origin, sealed_as, reverse_path, detail, deduplicate, received } => {
                Command::DeliverQueued { origin, new_message, sealed_as, reverse_path, detail, deduplicate, received }
            }
            MessageKind::Replace { folder, uid, to, flags, internal_date } => {
                Command::Replace { folder, uid, to, new_message, flags, internal_date }
            }
            MessageKind::Append { folder, flags, internal_date } => {
                Command::Append { folder, new_message, flags, internal_date }
            }
            MessageKind::AppendMany { .. } => unreachable!("it is of several messages"),
        }
    }
}

impl Request {
    /// Whether it changes nothing.
    pub(crate) fn is_read(&self) -> bool {
        match self {
            Request::Command(command) => command.is_read(),
            Request::Store { .. } => false,
        }
    }
}
