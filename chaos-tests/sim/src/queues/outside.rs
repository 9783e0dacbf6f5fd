//! What the nodes of the queues' world have under way to other servers and to senders, and what they remember of domains.

use std::sync::Arc;
use std::time::Duration;

use mailraft_mailbox::Place;
use mailraft_mailbox::queue::arrived::Arrived;
use mailraft_mailbox::queue::outgoing::OutgoingMessage;
use mailraft_mailbox::queue::outward::Outward;
use mailraft_outbound::destinations::{DESTINATIONS_MAX, Destinations};
use mailraft_storage::memory::MemoryRows;
use mailraft_storage::{MailboxId, PartitionId};

use super::servers::OfMessage;

/// Nodes of the world. Each leads where its turn is.
pub const NODES: usize = 3;

/// Something that an owner wants sent, or told.
#[derive(Clone)]
pub struct Task {
    pub queue: MailboxId,
    pub epoch: u64,
    pub place: Place,
    /// What its node has of the queue's partition.
    pub rows: MemoryRows,
    pub node: usize,
    pub outward: Outward,
    pub stage: Stage,
    /// It goes on then, or later.
    pub at: Duration,
}

/// How far a task has come.
#[derive(Clone)]
pub enum Stage {
    /// It waits for its turn.
    Waits,
    /// A server is spoken with.
    Speaks(Talk),
    /// The message's last octet is on its way, for those to whom the server said yes.
    LetGo(Talk, OfMessage),
    /// Other servers have it, and it is seen to that the queue knows; so often that was looked after.
    Arrived(Arrived, u32),
}

/// A connection.
#[derive(Clone)]
pub struct Talk {
    pub message: Arc<OutgoingMessage>,
    /// What came of it for each recipient, in the order of the message's; None while that is open.
    pub came: Vec<Option<Came>>,
}

/// What came of an attempt for a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// 250.
    Sent,
    /// It is tried again.
    NotNow,
    /// Nobody was reached: the same.
    Unreached,
    /// 5xx.
    Never,
}

/// All of it.
pub struct Outside {
    pub tasks: Vec<Task>,
    /// What each node remembers of domains.
    pub destinations: Vec<Destinations>,
    /// Reports that were written.
    pub written: u64,
}

impl Outside {
    /// Nothing yet.
    pub fn new() -> Self {
        let destinations = (0..NODES).map(|_| Destinations::new(DESTINATIONS_MAX)).collect();
        Outside { tasks: Vec::new(), destinations, written: 0 }
    }

    /// An owner wants something done.
    pub fn begin(&mut self, queue: MailboxId, epoch: u64, place: Place, rows: MemoryRows, outward: Outward) {
        let node = queue.queue_partition().map_or(0, |partition| node_of(partition, place.term.0));
        let stage = Stage::Waits;
        self.tasks.push(Task { queue, epoch, place, rows, node, outward, stage, at: Duration::ZERO });
    }
}

/// The node that leads a partition in a term.
pub fn node_of(partition: PartitionId, term: u64) -> usize {
    (u64::from(partition.0) + term) as usize % NODES
}
