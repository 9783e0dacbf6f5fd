//! Snapshots that are being sent to other regions, and how far they are: filling one takes long.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use mailraft_storage::{NodeId, PartitionId};

use crate::status::SnapshotStatus;

type Table = BTreeMap<(PartitionId, NodeId), (Instant, u64)>;

/// Those of this node; clones share them.
#[derive(Clone, Default)]
pub(crate) struct UnderWay(Arc<Mutex<Table>>);

/// One of them, until it is dropped.
pub(super) struct Sending {
    all: UnderWay,
    at: (PartitionId, NodeId),
}

impl UnderWay {
    /// One begins.
    pub(super) fn begins(&self, partition: PartitionId, to: NodeId) -> Sending {
        self.table().insert((partition, to), (Instant::now(), 0));
        Sending { all: self.clone(), at: (partition, to) }
    }

    /// How far they are.
    pub(crate) fn status(&self) -> Vec<SnapshotStatus> {
        let status = |(&(partition, to), (begun, sent_bytes)): (&(PartitionId, NodeId), &(Instant, u64))| {
            let for_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            SnapshotStatus { partition, to, sent_bytes: *sent_bytes, for_ms }
        };
        self.table().iter().map(status).collect()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sending {
    /// So many bytes more were sent.
    pub(super) fn sent(&self, bytes: u64) {
        if let Some((_, sent_bytes)) = self.all.table().get_mut(&self.at) {
            *sent_bytes += bytes;
        }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.all.table().remove(&self.at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_under_way_is_told_with_what_was_sent_until_it_ends() {
        let all = UnderWay::default();
        let (one, other) = (all.begins(PartitionId(1), NodeId(4)), all.begins(PartitionId(1), NodeId(5)));
        one.sent(700);
        one.sent(30);
        let sent = |all: &UnderWay| all.status().into_iter().map(|s| (s.to.0, s.sent_bytes)).collect::<Vec<_>>();
        assert_eq!(sent(&all), [(4, 730), (5, 0)]);
        drop(one);
        assert_eq!(sent(&all), [(5, 0)]);
        drop(other);
        assert!(all.status().is_empty());
    }
}
