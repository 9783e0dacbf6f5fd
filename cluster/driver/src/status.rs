//! What a node tells of itself.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mailraft_cluster::ReplicaStatus;
use mailraft_storage::{NodeId, PartitionId};
use serde::{Deserialize, Serialize};

/// How many of the latest fsyncs the percentiles are taken over.
const FSYNC_SAMPLES: usize = 1_024;

/// The state of a node's part in the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The node whose state it is.
    pub node: NodeId,
    /// Its cluster, in hexadecimal.
    pub cluster: String,
    /// The other nodes.
    pub peers: Vec<PeerStatus>,
    /// Every replica here, by partition; the control group first.
    pub partitions: Vec<ReplicaStatus>,
    /// Over the latest 1,024 batches: half of them were synced within this many microseconds.
    pub fsync_p50_us: u64,
    /// Over the latest 1,024 batches: 99 of 100 were synced within this many microseconds.
    pub fsync_p99_us: u64,
    /// The batch that is being written to the log has been for so many milliseconds; 0 if none is.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub log_write_ms: u64,
    /// Inputs that wait for the core thread.
    pub core_queue: usize,
    /// Apply jobs that wait.
    pub apply_queue: usize,
    /// How far the slow reading of all rows is; None from a version that does not do it.
    #[serde(default)]
    pub scrub: Option<ScrubStatus>,
    /// About how many bytes all rows here have; 0 from a version that does not say.
    #[serde(default)]
    pub rows_bytes: u64,
    /// Snapshots that are being sent to other regions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<SnapshotStatus>,
}

/// A snapshot that is being sent to another region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotStatus {
    /// The partition whose rows it has.
    pub partition: PartitionId,
    /// The node that it goes to.
    pub to: NodeId,
    /// So many bytes were sent.
    pub sent_bytes: u64,
    /// In so many milliseconds.
    pub for_ms: u64,
}

/// How far the slow reading of all rows is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubStatus {
    /// Hundredths of this round, by bytes; 100 when it is done.
    pub percent: u64,
    /// Rows read in this round.
    pub rows: u64,
    /// Bytes read in this round.
    pub bytes: u64,
    /// Every row was read within the last so many seconds; None before the first round has ended.
    pub age_s: Option<u64>,
    /// What was found to be damaged here since the first round.
    pub damaged: u64,
}

/// Another node, as seen from here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// The node that is seen.
    pub node: NodeId,
    /// Where it is called.
    pub address: String,
    /// Whether the connection for Raft messages to it stands.
    pub connected: bool,
    /// Messages that wait to be sent to it.
    pub queued_messages: usize,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The latest durations, for percentiles.
#[derive(Clone, Default)]
pub(crate) struct Recent {
    samples: Arc<Mutex<(Vec<Duration>, usize)>>,
    begun: Arc<Mutex<Option<Instant>>>,
}

impl Recent {
    /// The next one begins.
    pub(crate) fn begins(&self) {
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// For how long the one that began last has lasted, in milliseconds; 0 if it is over.
    pub(crate) fn lasts_ms(&self) -> u64 {
        let begun = *self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        begun.map_or(0, |begun| u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// It is over.
    pub(crate) fn add(&self, duration: Duration) {
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner) = None;
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

    #[test]
    fn what_has_begun_lasts_until_it_is_over() {
        let recent = Recent::default();
        assert_eq!(recent.lasts_ms(), 0);
        *recent.begun.lock().unwrap_or_else(PoisonError::into_inner) =
            Instant::now().checked_sub(Duration::from_secs(7));
        assert!(recent.lasts_ms() >= 7_000);
        recent.begins();
        assert!(recent.lasts_ms() < 7_000);
        recent.add(Duration::from_secs(7));
        assert_eq!(recent.lasts_ms(), 0);
    }
}
