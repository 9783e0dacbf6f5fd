//! What is told of a run: who asked what, how it ended, what sessions saw, what replicas hold, what was broken
//! when. The language between whoever drives a cluster and the checks.

use mailraft_mailbox::api::{Answer, Event, FolderId, Refusal, Resumed, Selected, StoreMode};
use mailraft_mailbox::{Flags, UidSet};
use mailraft_storage::{CommandId, MailboxId};
use serde::{Deserialize, Serialize};

/// The observer's time in microseconds; virtual time in a simulation.
pub type Micros = u64;

/// A place in a log. Ordered within one partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct At {
    /// The partition.
    pub partition: u32,
    /// The number of its incarnation.
    pub incarnation: u32,
    /// The index in its log.
    pub index: u64,
}

impl std::fmt::Display for At {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.partition, self.incarnation, self.index)
    }
}

/// What a client asked. A `marker` names a message's content: unique for each message that a client made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Op {
    /// A delivery to INBOX.
    Deliver {
        /// The message.
        marker: u64,
        /// Whether a repeat within a day (same marker, another id) must be stored once, whoever heard of the first. Else it
        /// is a submission, see [`Op::is_once`].
        deduplicate: bool,
    },
    /// APPEND
    Append {
        /// The folder's name.
        folder: String,
        /// The message.
        marker: u64,
        /// Its flags.
        flags: Flags,
        /// The date that the client gave it, in Unix seconds: with another one it is another message.
        date: Option<i64>,
    },
    /// STORE
    Store {
        /// The folder.
        folder: FolderId,
        /// Which messages.
        uids: UidSet,
        /// What is done with the flags.
        mode: StoreMode,
        /// Which flags.
        flags: Flags,
        /// CONDSTORE's UNCHANGEDSINCE.
        unchanged_since: Option<u64>,
    },
    /// COPY
    Copy {
        /// From this folder.
        folder: FolderId,
        /// Which messages.
        uids: UidSet,
        /// To the folder of this name.
        to: String,
    },
    /// MOVE
    Move {
        /// From this folder.
        folder: FolderId,
        /// Which messages.
        uids: UidSet,
        /// To the folder of this name.
        to: String,
    },
    /// EXPUNGE, UID EXPUNGE
    Expunge {
        /// The folder.
        folder: FolderId,
        /// Only among these.
        uids: Option<UidSet>,
    },
    /// CREATE
    Create {
        /// The name.
        name: String,
    },
    /// DELETE
    Delete {
        /// The name.
        name: String,
    },
    /// RENAME
    Rename {
        /// The name.
        from: String,
        /// The new name.
        to: String,
    },
    /// SUBSCRIBE, UNSUBSCRIBE
    Subscribe {
        /// The name.
        name: String,
        /// Whether to subscribe.
        on: bool,
    },
    /// NOOP
    Sync,
    /// LIST
    List,
    /// STATUS
    Status {
        /// The folder's name.
        folder: String,
    },
    /// SELECT, EXAMINE: the session's open folder is closed, whatever comes of it.
    Select {
        /// The folder's name.
        folder: String,
    },
    /// FETCH of headers and flags; answered by [`Reply::Fetched`].
    Fetch {
        /// The folder.
        folder: FolderId,
        /// Which messages.
        uids: UidSet,
    },
    /// UNSELECT
    Unselect,
    /// Reads a whole body; answered by [`Reply::Body`] or [`Reply::BodyDamaged`].
    ReadBody {
        /// The folder.
        folder: FolderId,
        /// The message.
        uid: u32,
    },
    /// A POP3 login: INBOX as a maildrop. What its session asks from then on is refused once another one has it.
    Maildrop,
    /// UIDL
    UniqueIds {
        /// The folder.
        folder: FolderId,
        /// Which messages.
        uids: UidSet,
    },
    /// POP3's QUIT after DELE: messages go whatever their flags.
    Remove {
        /// The folder.
        folder: FolderId,
        /// Which messages.
        uids: UidSet,
    },
}

impl Op {
    /// Whether the same, asked again under another id, must be done once as long as nobody has heard the first one's
    /// answer.
    pub fn is_once(&self) -> bool {
        matches!(self, Op::Append { .. } | Op::Copy { .. } | Op::Deliver { deduplicate: false, .. })
    }

    /// Whether it changes nothing.
    pub fn is_read(&self) -> bool {
        match self {
            Op::Sync
            | Op::List
            | Op::Status { .. }
            | Op::Select { .. }
            | Op::Fetch { .. }
            | Op::Unselect
            | Op::ReadBody { .. }
            | Op::Maildrop
            | Op::UniqueIds { .. } => true,
            Op::Deliver { .. }
            | Op::Append { .. }
            | Op::Store { .. }
            | Op::Copy { .. }
            | Op::Move { .. }
            | Op::Expunge { .. }
            | Op::Create { .. }
            | Op::Delete { .. }
            | Op::Rename { .. }
            | Op::Subscribe { .. }
            | Op::Remove { .. } => false,
        }
    }
}

/// What a client got.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// In the words of the mailbox. For [`Op::Fetch`], [`Reply::Fetched`] tells more.
    Answer(Answer),
    /// UID, the marker read from the header, flags, MODSEQ; UIDs rising.
    Fetched(Vec<(u32, u64, Flags, u64)>),
    /// The marker read from the whole opened body. None: the message is no more.
    Body(Option<u64>),
    /// A chunk of the body is missing or does not open.
    BodyDamaged,
}

/// How an operation ended for the client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Ended {
    /// OK, 250.
    Done(Reply),
    /// A final NO by the mailbox: a result like answers.
    Refused(Refusal),
    /// A temporary refusal that promises that nothing was done (overloaded, never sent).
    NotDone,
    /// Never for a mailbox that exists.
    NoSuchMailbox,
    /// No answer: it may have been carried out, at most once.
    Unknown,
}

/// One line of the history. Lines are told in the order in which the observer saw them; their times never fall.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Record {
    /// A mailbox exists from here on.
    Mailbox {
        /// Its id.
        mailbox: MailboxId,
        /// Its partition.
        partition: u32,
    },
    /// A client asks.
    Asked {
        /// The observer's time.
        at: Micros,
        /// Which session: it has one command at a time.
        session: u64,
        /// Of which mailbox.
        mailbox: MailboxId,
        /// The command's id, kept through retries.
        id: CommandId,
        /// The operation.
        op: Op,
    },
    /// A command takes along that its client has heard the answers to these.
    Hears {
        /// The observer's time.
        at: Micros,
        /// The command. One of its own names no other operation: then nobody knows whether it arrived.
        id: CommandId,
        /// The commands whose answers were heard.
        commands: Vec<CommandId>,
    },
    /// The client's answer, or that none will come.
    Ended {
        /// The observer's time.
        at: Micros,
        /// The command.
        id: CommandId,
        /// What became of it.
        ended: Ended,
        /// Of its entry, or of the state that was read.
        position: Option<At>,
    },
    /// A session opened a folder. It has one open at a time.
    Opened {
        /// The observer's time.
        at: Micros,
        /// The session.
        session: u64,
        /// Of which mailbox.
        mailbox: MailboxId,
        /// What it saw.
        selected: Selected,
    },
    /// A session was told of a change.
    Event {
        /// The observer's time.
        at: Micros,
        /// The session.
        session: u64,
        /// The change.
        event: Event,
    },
    /// A session attached again to its open folder after a failover.
    Resumed {
        /// The observer's time.
        at: Micros,
        /// The session.
        session: u64,
        /// The folder.
        folder: FolderId,
        /// The MODSEQ that it knew.
        since: u64,
        /// What it was told.
        resumed: Resumed,
    },
    /// A session closed its folder, or is gone.
    Closed {
        /// The observer's time.
        at: Micros,
        /// The session.
        session: u64,
    },
    /// After the end: what the table of commands says of an id. Not told if it was evicted.
    Resolved {
        /// The command.
        id: CommandId,
        /// None: not carried out.
        outcome: Option<(At, Result<Answer, Refusal>)>,
    },
    /// The hashes of one replica.
    Replica {
        /// The observer's time.
        at: Micros,
        /// The node.
        node: u64,
        /// The partition.
        partition: u32,
        /// The last applied index.
        applied: u64,
        /// How many entries the hash chain holds.
        count: u64,
        /// The hash chain over them.
        hash: [u8; 32],
        /// The hash of all rows, where it was taken.
        state_hash: Option<[u8; 32]>,
    },
    /// Another region has taken a partition over. What stands behind the fork in the log of an earlier incarnation is lost:
    /// whoever was answered by it has no answer, and nothing of it was carried out.
    TakenOver {
        /// The observer's time.
        at: Micros,
        /// The partition.
        partition: u32,
        /// The number of the incarnation that begins.
        incarnation: u32,
        /// The last index of the earlier ones that is left.
        fork: u64,
        /// When the first answer was given that is lost, if one was. What sessions saw before is not.
        lost_since: Option<Micros>,
    },
    /// Something is broken from here on, until [`Record::Healed`].
    Fault {
        /// The observer's time.
        at: Micros,
        /// The kind of fault.
        name: String,
    },
    /// All faults end.
    Healed {
        /// The observer's time.
        at: Micros,
    },
}
