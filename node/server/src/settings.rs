//! Other settings of regions, at the node that leads the control group. Its core makes them as an entry of its own: no owner
//! is asked, who may wait for the region that is away.

use mailraft_cluster::SettingsOutcome;
use mailraft_cluster::regions::{RegionSettings, SettingsRefusal};
use mailraft_driver::Cluster;
use mailraft_mailbox::Position;
use mailraft_storage::{CommandId, Index, PartitionId};
use serde::{Deserialize, Serialize};

/// What became of other settings, as it travels between nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SettingsReply {
    /// They are on the disks of a majority at home.
    Changed {
        /// Where the change stands.
        at: Position,
    },
    /// They may not be.
    Refused(SettingsRefusal),
    /// This node did not do it, and does not: ask the leader, or again.
    NotDone,
    /// It may have been done, or may still be.
    Unknown,
}

/// Changes them, if this node leads the control group.
pub async fn set_here(cluster: &Cluster, id: CommandId, settings: RegionSettings) -> SettingsReply {
    match cluster.set_regions(id, settings).await {
        Ok(SettingsOutcome::Changed { index }) => SettingsReply::Changed { at: position(cluster, index) },
        Ok(SettingsOutcome::Refused(why)) => SettingsReply::Refused(why),
        Ok(SettingsOutcome::Dropped | SettingsOutcome::NotLeader { .. } | SettingsOutcome::Overloaded) => {
            SettingsReply::NotDone
        }
        Ok(SettingsOutcome::Unknown) | Err(_) => SettingsReply::Unknown,
    }
}

/// A position in the control group's log.
pub fn position(cluster: &Cluster, index: Index) -> Position {
    let partition = PartitionId::CONTROL;
    let applied = cluster.replica(partition).and_then(|replica| cluster.rows().applied(replica).ok().flatten());
    let incarnation = applied.and_then(|applied| applied.incarnation).map_or(0, |incarnation| incarnation.number);
    Position { partition, incarnation, index }
}
