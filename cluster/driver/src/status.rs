//! What a node tells of itself.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mailraft_cluster::status::{self as cluster, ReplicaStatus};
use mailraft_storage::{Index, NodeId, PartitionId, ReplicaId, Term};
use serde::Serialize;

/// How many of the latest fsyncs the percentiles are taken over.
const FSYNC_SAMPLES: usize = 1_024;

/// The state of a node's part in the cluster.
#[derive(Clone, Debug, Serialize)]
pub struct NodeStatus {
    /// The node.
    pub node: NodeId,
    /// Its cluster, in hexadecimal.
    pub cluster: String,
    /// The other nodes.
    pub peers: Vec<PeerStatus>,
    /// Every replica here, by partition; the control group first.
    pub partitions: Vec<PartitionStatus>,
    /// Over the latest 1,024 batches: half of them were synced within this many microseconds.
    pub fsync_p50_us: u64,
    /// Over the latest 1,024 batches: 99 of 100 were synced within this many microseconds.
    pub fsync_p99_us: u64,
    /// Inputs that wait for the core thread.
    pub core_queue: usize,
    /// Apply jobs that wait.
    pub apply_queue: usize,
}

/// Another node, as seen from here.
#[derive(Clone, Debug, Serialize)]
pub struct PeerStatus {
    /// That node.
    pub node: NodeId,
    /// Where it is called.
    pub address: String,
    /// Whether the connection for Raft messages to it stands.
    pub connected: bool,
    /// Messages that wait to be sent to it.
    pub queued_messages: usize,
}

/// A replica of a partition.
#[derive(Clone, Debug, Serialize)]
pub struct PartitionStatus {
    /// The partition.
    pub partition: PartitionId,
    /// Its replica here.
    pub replica: ReplicaId,
    /// leader, follower, candidate or learner.
    pub role: &'static str,
    /// Its term.
    pub term: Term,
    /// The leader's node, if one is known.
    pub leader: Option<NodeId>,
    /// The last entry committed.
    pub commit: Index,
    /// The last entry applied.
    pub applied: Index,
    /// The last entry whose rows survive a crash without the log.
    pub flushed: Index,
    /// The last entry that is visible: what is after it is told to nobody yet.
    pub visible: Index,
    /// What holds the log, of the marks below which it is cut.
    pub log_held_by: &'static str,
    /// That mark.
    pub log_held_at: Index,
    /// The first entry in the log.
    pub first: Index,
    /// The last entry in the log.
    pub last: Index,
    /// How many entries were accepted.
    pub count: u64,
    /// The hash over them, in hexadecimal.
    pub hash: String,
    /// Whether a snapshot is being installed.
    pub installing: bool,
    /// Whether rows of it, or of the control group's replica here, could not be read since the start.
    pub damaged: bool,
    /// On the leader: the other replicas.
    pub followers: Vec<FollowerStatus>,
}

/// A replica as its leader sees it.
#[derive(Clone, Debug, Serialize)]
pub struct FollowerStatus {
    /// The id of the replica.
    pub replica: ReplicaId,
    /// Its node.
    pub node: NodeId,
    /// The last entry it is known to have.
    pub matched: Index,
    /// How many entries it lacks.
    pub lag: u64,
    /// Heard of within the last election timeout.
    pub active: bool,
    /// Whether it is being sent a snapshot.
    pub snapshot: bool,
}

impl From<ReplicaStatus> for PartitionStatus {
    fn from(status: ReplicaStatus) -> Self {
        let last = status.last;
        let follower = |f: cluster::FollowerStatus| FollowerStatus {
            replica: f.replica,
            node: f.node,
            matched: f.matched,
            lag: last.0.saturating_sub(f.matched.0),
            active: f.active,
            snapshot: f.snapshot,
        };
        PartitionStatus {
            partition: status.partition,
            replica: status.replica,
            role: status.role,
            term: status.term,
            leader: status.leader,
            commit: status.commit,
            applied: status.applied,
            flushed: status.flushed,
            visible: status.visible,
            log_held_by: status.log_held_by.0.name(),
            log_held_at: status.log_held_by.1,
            first: status.first,
            last,
            count: status.count,
            hash: hex::encode(status.hash),
            installing: status.installing,
            damaged: status.damaged,
            followers: status.followers.into_iter().map(follower).collect(),
        }
    }
}

/// The latest durations, for percentiles.
#[derive(Clone, Default)]
pub(crate) struct Recent {
    samples: Arc<Mutex<(Vec<Duration>, usize)>>,
}

impl Recent {
    pub(crate) fn add(&self, duration: Duration) {
        let mut guard = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let (samples, at) = &mut *guard;
        if samples.len() < FSYNC_SAMPLES {
            samples.push(duration);
        } else {
            samples[*at] = duration;
            *at = (*at + 1) % FSYNC_SAMPLES;
        }
    }

    /// These percentiles, in microseconds; 0 while there is nothing.
    pub(crate) fn percentiles_us<const N: usize>(&self, wanted: [usize; N]) -> [u64; N] {
        let mut sorted = self.samples.lock().unwrap_or_else(PoisonError::into_inner).0.clone();
        sorted.sort_unstable();
        wanted.map(|percent| {
            let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
            sorted.get(at).map_or(0, |d| u64::try_from(d.as_micros()).unwrap_or(u64::MAX))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_over_the_latest() {
        let recent = Recent::default();
        assert_eq!(recent.percentiles_us([50, 99]), [0, 0]);
        for _ in 0..FSYNC_SAMPLES {
            recent.add(Duration::from_secs(9));
        }
        for n in 1..=FSYNC_SAMPLES {
            recent.add(Duration::from_micros(n as u64));
        }
        assert_eq!(recent.percentiles_us([50, 99, 100]), [512, 1014, 1024]);
    }
}
