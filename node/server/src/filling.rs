//! How much of a region's copy is there, and how long the rest takes. Sizes are estimates: a node knows how much all its
//! replicas have together.

use std::collections::BTreeMap;

use mailraft_cluster::regions::{RegionName, Regions};
use mailraft_cluster::{RegionStatus, ReplicaStatus};
use mailraft_driver::{NodeStatus, SnapshotStatus};
use mailraft_storage::{NodeId, PartitionId};
use serde::{Deserialize, Serialize};

/// A partition that a region lacks so few entries of is there: they are on their way.
const THERE_LAG_MAX_ENTRIES: u64 = 1_000;

/// How far a region's copy is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filling {
    /// Partitions that are there but for the latest entries.
    pub partitions: usize,
    /// About so many bytes are there, of one copy.
    pub bytes: u64,
    /// Of so many.
    pub of_bytes: u64,
    /// Snapshots to it are under way.
    pub sending: bool,
    /// About how long the rest takes, in minutes; None while nothing says how fast it goes.
    pub minutes: Option<u64>,
}

impl Filling {
    /// Of what leaders say of a region, and what nodes send there.
    pub fn of(
        regions: &Regions,
        region: &RegionName,
        leaders: &[(&ReplicaStatus, &RegionStatus)],
        answers: &BTreeMap<NodeId, Option<&NodeStatus>>,
    ) -> Self {
        let nodes = || answers.values().flatten();
        let to_it = |snapshot: &&SnapshotStatus| regions.of(snapshot.to) == Some(region);
        let sent: Vec<&SnapshotStatus> = nodes().flat_map(|node| &node.snapshots).filter(to_it).collect();
        let size = |partition: PartitionId| {
            let has = |node: &&&NodeStatus| node.partitions.iter().any(|replica| replica.partition == partition);
            nodes().filter(has).map(|node| node.rows_bytes / node.partitions.len().max(1) as u64).max().unwrap_or(0)
        };
        let mut filling = Filling { sending: !sent.is_empty(), ..Filling::default() };
        let mut left_bytes = 0;
        for (leader, there) in leaders {
            let bytes = size(leader.partition);
            filling.of_bytes += bytes;
            if leader.commit.0.saturating_sub(there.held.0) <= THERE_LAG_MAX_ENTRIES {
                filling.partitions += 1;
                filling.bytes += bytes;
                continue;
            }
            let sent = sent.iter().filter(|snapshot| snapshot.partition == leader.partition);
            let sent = sent.map(|snapshot| snapshot.sent_bytes.min(bytes));
            filling.bytes += sent.clone().max().unwrap_or(0);
            left_bytes += (bytes * there.standbys as u64).saturating_sub(sent.sum());
        }
        let rate = |snapshot: &&SnapshotStatus| snapshot.sent_bytes.saturating_mul(1_000) / snapshot.for_ms.max(1);
        let bytes_per_second: u64 = sent.iter().map(rate).sum();
        filling.minutes = left_bytes.checked_div(bytes_per_second).map(|seconds| seconds.div_ceil(60));
        filling
    }

    /// In words: so many partitions, bytes and minutes.
    pub fn words(&self, partitions: usize) -> String {
        let (unit, name) = match self.of_bytes {
            0..1_000_000_000 => (1e6, "MB"),
            1_000_000_000.. => (1e9, "GB"),
        };
        let in_unit = |bytes: u64| {
            let amount = bytes as f64 / unit;
            if amount >= 20.0 || amount == 0.0 { format!("{amount:.0}") } else { format!("{amount:.1}") }
        };
        let bytes = format!("{} of {} {name}", in_unit(self.bytes), in_unit(self.of_bytes));
        let minutes = self.minutes.map_or_else(String::new, |minutes| format!(", about {minutes} min"));
        format!("{} of {partitions} partitions, {bytes}{minutes}", self.partitions)
    }
}
