//! The actors of a node: the thin shells around the production owners, with simulated delays.

use std::collections::BTreeMap;

use mailraft_directory::Directory;
use mailraft_mailbox::owner::Lead;
use mailraft_mailbox::{MailboxOwner, RowsRead, StoredRead};
use mailraft_owner::LogOwner;
use mailraft_storage::{Incarnation, NodeId, Proposal, ReplicaId, StoreError, Term};

/// A session as an actor knows it: its number and that of its connection.
pub type SessionName = (u64, u64);

/// An actor.
pub struct Actor {
    /// Its number on this node.
    pub number: u64,
    /// What its node leads, when it started.
    pub leading: Leading,
    /// The production state machine.
    pub owner: MailboxOwner<SessionName>,
    /// Its reads on their way.
    pub reads: BTreeMap<u64, PendingRead>,
}

impl Actor {
    /// Not loaded yet.
    pub fn new(number: u64, leading: Leading) -> Self {
        Actor { number, leading, owner: MailboxOwner::new(), reads: BTreeMap::new() }
    }
}

/// A partition that is led here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leading {
    /// Its replica here.
    pub replica: ReplicaId,
    /// The term.
    pub term: Term,
    /// The incarnation.
    pub incarnation: Incarnation,
    /// Whether the term began with what no other region held.
    pub began_alone: bool,
}

/// A read of an actor that waits for its rows or for the read barrier.
#[derive(Default)]
pub struct PendingRead {
    /// What the read barrier said.
    pub lead: Option<Lead>,
    /// Rows that were read.
    pub rows: Option<Result<RowsRead, StoreError>>,
    /// Rows that are to be read.
    pub wanted: Option<StoredRead>,
}

/// The actor of the directory on a node.
pub struct DirectoryActor {
    /// Its number on this node.
    pub number: u64,
    /// What its node leads, when it started.
    pub leading: Leading,
    /// The production state machine.
    pub owner: LogOwner<Directory, Asker>,
    /// Waits for its turn.
    pub proposal: Option<Proposal>,
}

/// Who asks the directory: an administrator through his node.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    /// His number.
    pub administrator: usize,
    /// Which of his questions it is.
    pub attempt: u64,
    /// His node.
    pub node: NodeId,
}
