//! Regions: where nodes stand, whom an answer waits for, and how far a region holds a log.
//!
//! Voters of every Raft group stand in the home region; so distance changes neither commit nor election. A backup region
//! has *standbys*: learners that count for answers. It *holds* an index when a majority of its standbys of that group have
//! it synced. A takeover elects among all standbys of the region and needs a majority of them, so it meets every
//! majority that held something: what is held is not lost with the home.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mailraft_storage::entry::{versioned_decode, versioned_encode};
use mailraft_storage::{Index, MailboxId, NodeId, ReplicaId, RowBatch, RowKey, Rows, StoreError, Table};
use serde::{Deserialize, Serialize};

use crate::placement;
use crate::plant::{self, Fault};

const ROW_VERSION: u8 = 1;

/// The name of a region.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RegionName(pub String);

/// What is promised about what is answered, should the home region be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Durability {
    /// Nothing answered is lost: an answer waits until every region of the sync set holds it.
    Geo,
    /// At most so much of what was answered last is lost: past that answers wait as under `Geo`.
    Region {
        /// In milliseconds.
        rpo_max_ms: u64,
    },
}

impl Durability {
    /// For how long answers may run ahead of what is held, if they may.
    pub fn rpo_max(self) -> Option<Duration> {
        match self {
            Durability::Geo => None,
            Durability::Region { rpo_max_ms } => Some(Duration::from_millis(rpo_max_ms)),
        }
    }
}

/// The control group's row about regions. A cluster without it has one region, and no answer waits for another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionsRow {
    /// The region in which every voter stands.
    pub home: RegionName,
    /// The regions that answers wait for.
    pub sync_set: BTreeSet<RegionName>,
    /// What is promised.
    pub durability: Durability,
}

/// What a core knows of regions: the control group's row, and where each node stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Regions {
    row: RegionsRow,
    nodes: BTreeMap<NodeId, RegionName>,
}

impl Regions {
    /// Of this row, with nodes that stand in these regions.
    pub fn new(row: RegionsRow, nodes: BTreeMap<NodeId, RegionName>) -> Self {
        Regions { row, nodes }
    }

    /// What the control group's rows say; None in a cluster of one region.
    ///
    /// # Errors
    /// If a row can't be read.
    pub fn from_rows(rows: &dyn Rows, control: ReplicaId) -> Result<Option<Self>, StoreError> {
        let Some(row) = rows.get(control, &row_key())? else { return Ok(None) };
        let row = versioned_decode("regions row", ROW_VERSION, &row)?;
        let nodes = placement::nodes(rows, control)?.into_iter().map(|node| (node.id, RegionName(node.region)));
        Ok(Some(Regions::new(row, nodes.collect())))
    }

    /// The regions that answers wait for.
    pub fn sync_set(&self) -> &BTreeSet<RegionName> {
        &self.row.sync_set
    }

    /// What is promised.
    pub fn durability(&self) -> Durability {
        self.row.durability
    }

    /// The region of a node, if it is known.
    pub fn of(&self, node: NodeId) -> Option<&RegionName> {
        self.nodes.get(&node)
    }

    /// Whether a node stands in the home region. One that is not known does not.
    pub fn is_home(&self, node: NodeId) -> bool {
        self.of(node) == Some(&self.row.home)
    }
}

/// Writes the row about regions into a batch.
pub fn write(batch: &mut RowBatch, row: &RegionsRow) {
    batch.put(row_key(), versioned_encode(ROW_VERSION, row));
}

fn row_key() -> RowKey {
    RowKey { mailbox: MailboxId::PARTITION, table: Table::Regions.number(), key: Vec::new() }
}

/// Up to where a region holds a log whose standbys there have synced so much each: a majority of them has it. A region
/// without standbys holds nothing.
pub fn held(mut synced: Vec<Index>) -> Index {
    synced.sort_unstable_by(|a, b| b.cmp(a));
    let place = if plant::is(Fault::HeldByOneStandby) { 0 } else { synced.len() / 2 };
    synced.get(place).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use mailraft_storage::memory::MemoryRows;
    use mailraft_storage::rows::ReplicaBatch;
    use mailraft_storage::{Applied, Term};

    use super::*;
    use crate::placement::NodeRow;

    #[test]
    fn a_region_holds_what_a_majority_of_its_standbys_have() {
        for (synced, expected) in [
            (&[][..], 0),
            (&[7], 7),
            (&[7, 3], 3),
            (&[9, 0, 4], 4),
            (&[9, 8, 0], 8),
            (&[5, 9, 1, 7], 5),
            (&[5, 9, 1, 7, 8], 7),
        ] {
            assert_eq!(held(synced.iter().copied().map(Index).collect()), Index(expected), "{synced:?}");
        }
    }

    #[test]
    fn where_nodes_stand_is_read_from_rows_and_a_cluster_without_the_row_has_no_regions() {
        let (rows, control) = (MemoryRows::new(), ReplicaId(1));
        let node = |id, region: &str| NodeRow {
            id: NodeId(id),
            name: String::new(),
            region: region.into(),
            zone: String::new(),
            peer: String::new(),
        };
        let mut batch = RowBatch::default();
        placement::write(&mut batch, &[node(1, "home"), node(2, "south")], &[]);
        let write = |index, batch| {
            let applied = Applied { index: Index(index), term: Term(1), ..Applied::default() };
            rows.write(&[ReplicaBatch { replica: control, batch, applied }]).unwrap();
        };
        write(1, batch);
        assert_eq!(Regions::from_rows(&rows, control).unwrap(), None);
        let name = |name: &str| RegionName(name.into());
        let row = RegionsRow {
            home: name("home"),
            sync_set: [name("south")].into(),
            durability: Durability::Region { rpo_max_ms: 1_000 },
        };
        let mut batch = RowBatch::default();
        super::write(&mut batch, &row);
        write(2, batch);
        let regions = Regions::from_rows(&rows, control).unwrap().unwrap();
        assert_eq!(regions.sync_set(), &row.sync_set);
        assert_eq!(regions.durability().rpo_max(), Some(Duration::from_secs(1)));
        assert!(regions.is_home(NodeId(1)) && !regions.is_home(NodeId(2)) && !regions.is_home(NodeId(3)));
        assert_eq!((regions.of(NodeId(2)), regions.of(NodeId(3))), (Some(&name("south")), None));
    }
}
