//! Why what another node says is not heard.

use mailraft_storage::{Index, ReplicaId, Term};
use raft::eraftpb::MessageType;

/// Why a message of another node is not heard.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerRefusal {
    /// It belongs to another cluster.
    #[error("it speaks of another cluster")]
    Cluster,
    /// Its clock shows what none can.
    #[error("its clock shows {0} ms since 1970")]
    Clock(u64),
    /// It leads more than there can be.
    #[error("it says that it leads {0} partitions")]
    Leads(usize),
    /// It hears more nodes than there can be.
    #[error("it says that it hears {0} nodes")]
    Nodes(usize),
    /// It is heard by more nodes than it hears.
    #[error("it says that it has {0} links, more than nodes that it hears")]
    Links(u32),
    /// No replica sends this kind to another.
    #[error("no replica sends {0:?} to another")]
    Kind(MessageType),
    /// It speaks for another replica, or to one.
    #[error("it is from replica {from} to replica {to} by its own words")]
    Address {
        /// Who sent it, by Raft's part of the message.
        from: ReplicaId,
        /// To whom.
        to: ReplicaId,
    },
    /// A term that cannot have come about.
    #[error("it is of term {term}, and here it is {own}")]
    Term {
        /// The message's.
        term: Term,
        /// The term of this replica.
        own: Term,
    },
    /// A takeover that cannot have come about.
    #[error("it tells of a takeover as incarnation {0} that can't be")]
    Incarnation(u32),
    /// An index that no log reaches.
    #[error("it speaks of index {0}")]
    Number(u64),
    /// A context that is too long.
    #[error("its context has {0} bytes")]
    Context(usize),
    /// A question for a read barrier, or an answer to one, that is none.
    #[error("its read barrier is not one question of the replica that asks")]
    Read,
    /// Entries that do not follow each other, or are of terms that cannot be.
    #[error("its entry {0} does not follow the one before it")]
    Entries(Index),
    /// An entry that cannot be read.
    #[error("its entry {index} can't be applied: {error}")]
    Entry {
        /// The entry's.
        index: Index,
        /// What is wrong with it.
        error: String,
    },
    /// An entry of a later version. The connection goes on, for the sake of other partitions.
    #[error("its entry {index} needs a later version of mailraft: run that here too ({error})")]
    Newer {
        /// The entry's.
        index: Index,
        /// What is not known.
        error: String,
    },
    /// A change of the configuration that cannot be made.
    #[error("its entry {index} is a change of Raft's configuration that can't be made: {error}")]
    Change {
        /// The entry's.
        index: Index,
        /// Why not.
        error: String,
    },
    /// It contradicts what is committed here.
    #[error("it has entry {index} of term {term}, and another is committed here")]
    Committed {
        /// The entry before its first.
        index: Index,
        /// The term that it has for that.
        term: Term,
    },
    /// It counts entries as durable here that are not.
    #[error(
        "it counts entries up to {commit} as durable here, where the log ends at {last}: that node is wrong, or this one's log has lost what it had acknowledged, and then it is to be restored as a new node; it does not vote for now"
    )]
    Commit {
        /// The entry up to which it counts.
        commit: Index,
        /// The last entry here.
        last: Index,
    },
    /// It acknowledges entries that the leader does not have.
    #[error("it acknowledges entries up to {index}, and the leader's log ends at {last}")]
    Answer {
        /// The entry that it names.
        index: Index,
        /// The last entry here.
        last: Index,
    },
    /// Another replica leads in this term. The connection goes on: which of the two is right is not known here.
    #[error("it leads in a term in which replica {0} leads")]
    SecondLeader(ReplicaId),
    /// A snapshot that cannot be.
    #[error("its snapshot {0}")]
    Snapshot(&'static str),
}

impl PeerRefusal {
    /// Whether the connection over which it came is to end: no honest node says it.
    pub fn ends_connection(&self) -> bool {
        !matches!(self, PeerRefusal::Newer { .. } | PeerRefusal::SecondLeader(_))
    }

    /// A word for a metric's label.
    pub fn label(&self) -> &'static str {
        match self {
            PeerRefusal::Cluster => "cluster",
            PeerRefusal::Clock(_) => "clock",
            PeerRefusal::Leads(_) => "leads",
            PeerRefusal::Nodes(_) => "nodes",
            PeerRefusal::Links(_) => "links",
            PeerRefusal::Kind(_) => "kind",
            PeerRefusal::Address { .. } => "address",
            PeerRefusal::Term { .. } => "term",
            PeerRefusal::Incarnation(_) => "incarnation",
            PeerRefusal::Number(_) => "number",
            PeerRefusal::Context(_) => "context",
            PeerRefusal::Read => "read",
            PeerRefusal::Entries(_) => "entries",
            PeerRefusal::Entry { .. } => "entry",
            PeerRefusal::Newer { .. } => "newer",
            PeerRefusal::Change { .. } => "change",
            PeerRefusal::Committed { .. } => "committed",
            PeerRefusal::Commit { .. } => "commit",
            PeerRefusal::Answer { .. } => "answer",
            PeerRefusal::SecondLeader(_) => "second_leader",
            PeerRefusal::Snapshot(_) => "snapshot",
        }
    }
}
