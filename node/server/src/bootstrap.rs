//! The first state of a new cluster. Nothing else writes first state: a node refuses an empty directory.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use mailraft_cluster::bootstrap::{NodeRow, plan, plan_regions};
use mailraft_cluster::regions::{Durability, RegionName, RegionsRow};
use mailraft_directory::keys::RootKey;
use mailraft_storage::log::LogBatch;
use mailraft_storage::rows::ReplicaBatch;
use mailraft_storage::{ClusterId, NodeId};

use crate::descriptors::ROWS_MIN;
use crate::environment::os_env;
use crate::region;
use crate::{OpenStores, RowsBounds, Stores};

/// What a first state's rows may take: they are few.
const ROWS_FIRST: RowsBounds = RowsBounds { files: ROWS_MIN, memory_bytes: 32 << 20 };

/// What a new cluster consists of.
pub struct FirstState {
    /// Its id, freshly drawn.
    pub cluster: ClusterId,
    /// How many mail partitions, 1 to 1,024, for ever.
    pub partitions: u32,
    /// The root key as its file has it: 64 hexadecimal digits.
    pub root_key_hex: zeroize::Zeroizing<String>,
    /// Its nodes. The first one's region is home; other regions are its backups.
    pub nodes: Vec<FirstNode>,
}

impl FirstState {
    /// The region that is home at first.
    pub fn home(&self) -> &str {
        self.nodes.first().map_or("", |node| node.region.as_str())
    }
}

/// A node of a new cluster.
pub struct FirstNode {
    /// Its number, from 1.
    pub id: u64,
    /// A name for people.
    pub name: String,
    /// Its region.
    pub region: String,
    /// Its zone.
    pub zone: String,
    /// Where other nodes reach it: host:port.
    pub peer: String,
    /// Its data directory, empty or absent.
    pub data_dir: PathBuf,
}

/// What a new cluster of several regions promises: answers wait for all backups, which hold the first state already. None
/// in one region.
fn first_regions(nodes: &[NodeRow]) -> Option<RegionsRow> {
    let home = RegionName(nodes.first()?.region.clone());
    let others: BTreeSet<RegionName> = nodes.iter().map(|node| RegionName(node.region.clone())).collect();
    let sync_set: BTreeSet<RegionName> = others.into_iter().filter(|region| *region != home).collect();
    (!sync_set.is_empty()).then(|| RegionsRow::new(home, sync_set, Durability::Geo))
}

/// Writes the first state of every node.
///
/// # Errors
/// One sentence that says what is wrong and what to do.
pub fn create_first_state(state: &FirstState, open: &dyn OpenStores) -> Result<(), String> {
    let root = RootKey::parse(&state.root_key_hex).map_err(|e| e.to_string())?;
    let mut env = os_env();
    let control = mailraft_directory::keys::first_rows(&mut env, state.cluster, &root);
    let nodes: Vec<NodeRow> = state
        .nodes
        .iter()
        .map(|n| NodeRow {
            id: NodeId(n.id),
            name: n.name.clone(),
            region: n.region.clone(),
            zone: n.zone.clone(),
            peer: n.peer.clone(),
        })
        .collect();
    let home = state.home();
    let plan = match first_regions(&nodes) {
        None => plan(state.partitions, &nodes, control, &mut env),
        Some(regions) => plan_regions(state.partitions, &nodes, &regions, control, &mut env),
    };
    for node in &state.nodes {
        let Stores { log, rows, .. } = open.open(&node.data_dir, state.cluster, ROWS_FIRST)?;
        let said = |e: mailraft_storage::StoreError| format!("{}: {e}", node.data_dir.display());
        if !rows.replicas().map_err(said)?.is_empty() {
            return Err(format!(
                "{} already holds data of a cluster: choose another directory or start that cluster",
                node.data_dir.display()
            ));
        }
        let mut batch = LogBatch::default();
        let mut batches = Vec::new();
        for first in plan.of(NodeId(node.id)) {
            batches.push(ReplicaBatch {
                replica: first.replica,
                batch: first.rows.clone(),
                applied: first.applied.clone(),
            });
            batch.writes.push(first.log.clone());
        }
        rows.write(&batches).map_err(said)?;
        rows.flush().map_err(said)?;
        log.write_synced(log.newest_batch() + 1, &batch).map_err(said)?;
        if node.region != home {
            region::write_sums_key(&node.data_dir, &root)?;
        }
        drop(Arc::clone(&log));
    }
    Ok(())
}
