//! What a recipient's mailbox knows of the queues that deliver to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use mailraft_storage::PartitionId;
use serde::{Deserialize, Serialize};

use super::items::RecipientId;
use crate::accepted::{QueueOrigin, QueuePosition};

/// What a delivery or a floor costs in memory, roughly, in bytes.
const ROW_MEMORY_BYTES: usize = 120;

/// What a queue delivered and has not released, and below which positions of each queue nothing is taken any more.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Received {
    delivered: Arc<BTreeMap<RecipientId, QueuedDelivery>>,
    floors: Arc<BTreeMap<PartitionId, QueuePosition>>,
}

/// What a delivery was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuedDelivery {
    /// The partition of the queue.
    pub queue: PartitionId,
    pub uid_validity: u32,
    pub uid: u32,
    pub modseq: u64,
}

impl Received {
    pub fn delivered(&self, origin: &QueueOrigin) -> Option<&QueuedDelivery> {
        self.delivered.get(&(origin.item, origin.recipient))
    }

    /// Whether a delivery that is not known was decided before something that its queue has released since: it may be a
    /// late copy of one of these.
    pub fn is_stale(&self, origin: &QueueOrigin) -> bool {
        self.floor(origin.queue) > origin.at
    }

    pub fn floor(&self, queue: PartitionId) -> QueuePosition {
        self.floors.get(&queue).copied().unwrap_or_default()
    }

    pub fn remember(&mut self, id: RecipientId, delivery: QueuedDelivery) {
        Arc::make_mut(&mut self.delivered).insert(id, delivery);
    }

    pub fn forget(&mut self, id: RecipientId) {
        if self.delivered.contains_key(&id) {
            Arc::make_mut(&mut self.delivered).remove(&id);
        }
    }

    pub fn raise(&mut self, queue: PartitionId, floor: QueuePosition) {
        Arc::make_mut(&mut self.floors).insert(queue, floor);
    }

    pub fn memory_bytes(&self) -> usize {
        (self.delivered.len() + self.floors.len()) * ROW_MEMORY_BYTES
    }
}
