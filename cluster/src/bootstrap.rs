//! The first state of a new cluster. Only `quickstart` (later `cluster create`) writes it: every node gets one
//! identical configuration, so that no two of them can begin apart.

use std::collections::BTreeMap;

use mailraft_storage::log::LogWrite;
use mailraft_storage::{Applied, Env, Index, NodeId, PartitionId, ReplicaId, RowBatch, Term};
use raft::eraftpb::HardState;

use crate::placement::{self, MemberRow, Placement};
use crate::regions::{self, RegionName, RegionsRow};

pub use crate::placement::NodeRow;

/// Replicas of a mail partition.
pub const REPLICAS: usize = 3;
/// The most voters of the control group.
pub const CONTROL_VOTERS_MAX: usize = 5;

/// A replica's first state.
#[derive(Clone, Debug)]
pub struct FirstReplica {
    /// The replica whose first state this is.
    pub replica: ReplicaId,
    /// Its first rows.
    pub rows: RowBatch,
    /// Its first position.
    pub applied: Applied,
    /// What its log begins with.
    pub log: LogWrite,
}

/// The first state of every node.
#[derive(Debug)]
pub struct Plan {
    nodes: BTreeMap<NodeId, Vec<FirstReplica>>,
}

impl Plan {
    /// What a node begins with.
    pub fn of(&self, node: NodeId) -> &[FirstReplica] {
        self.nodes.get(&node).map_or(&[], Vec::as_slice)
    }
}

/// Places partitions 1 to `partitions` and the control group on these nodes, which stand in one region. `control` are the
/// first rows that the directory wants.
///
/// # Panics
/// If there is no node or no partition.
pub fn plan(partitions: u32, nodes: &[NodeRow], control: RowBatch, env: &mut Env) -> Plan {
    place(partitions, nodes, &[(0..nodes.len()).collect()], control, env)
}

/// The same for a cluster of several regions: voters stand at home, and each other region has standbys of every group,
/// of a mail partition [`REPLICAS`] where it has so many nodes, else one.
///
/// # Panics
/// If there is no partition, or no node at home or in a region that answers are to wait for.
pub fn plan_regions(
    partitions: u32,
    nodes: &[NodeRow],
    regions: &RegionsRow,
    mut control: RowBatch,
    env: &mut Env,
) -> Plan {
    let mut by_region: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, node) in nodes.iter().enumerate() {
        by_region.entry(&node.region).or_default().push(at);
    }
    let is_there = |region: &RegionName| *region != regions.home && by_region.contains_key(region.0.as_str());
    assert!(regions.sync_set.iter().all(is_there), "answers would wait for ever for a region without nodes");
    let home = by_region.remove(regions.home.0.as_str()).unwrap_or_default();
    let all: Vec<Vec<usize>> = [home].into_iter().chain(by_region.into_values()).collect();
    regions::write(&mut control, regions);
    place(partitions, nodes, &all, control, env)
}

/// `regions` are the places among the nodes of those of each region, the home's first.
fn place(partitions: u32, nodes: &[NodeRow], regions: &[Vec<usize>], control: RowBatch, env: &mut Env) -> Plan {
    assert!(
        partitions > 0 && regions.first().is_some_and(|home| !home.is_empty()),
        "a cluster has a node and a partition"
    );
    let mut next_replica = 1;
    let mut placements = Vec::new();
    for number in 0..=partitions {
        let partition = PartitionId(number);
        let mut members = Vec::new();
        for (at, region) in regions.iter().enumerate() {
            let (chosen, voters) = match at {
                0 => (at_home(partition, region.len()), voters(partition, region.len())),
                _ => (standbys(partition, region.len()), 0),
            };
            for (rank, place) in chosen.into_iter().enumerate() {
                // Rising in the order of preference: the first in it also campaigns first.
                let node = nodes[region[place]].id;
                members.push(MemberRow { replica: ReplicaId(next_replica), node, voter: rank < voters });
                next_replica += 1;
            }
        }
        placements.push(Placement { partition, nonce: env.bytes(), members });
    }
    let mut control_rows = control;
    placement::write(&mut control_rows, nodes, &placements);
    let mut plan: BTreeMap<NodeId, Vec<FirstReplica>> = BTreeMap::new();
    for placement in &placements {
        let of =
            |voter: bool| placement.members.iter().filter(|m| m.voter == voter).map(|m| m.replica).collect::<Vec<_>>();
        for member in &placement.members {
            let applied =
                Applied { index: Index(1), term: Term(1), voters: of(true), learners: of(false), ..Applied::default() };
            let log = LogWrite {
                replica: member.replica,
                reset: Some(applied.position()),
                hard_state: Some(HardState { term: 1, commit: 1, ..Default::default() }),
                ..LogWrite::default()
            };
            let rows =
                if placement.partition == PartitionId::CONTROL { control_rows.clone() } else { RowBatch::default() };
            plan.entry(member.node).or_default().push(FirstReplica { replica: member.replica, rows, applied, log });
        }
    }
    Plan { nodes: plan }
}

/// How many of a partition's replicas on so many nodes at home vote.
fn voters(partition: PartitionId, nodes: usize) -> usize {
    odd(nodes.min(if partition == PartitionId::CONTROL { CONTROL_VOTERS_MAX } else { REPLICAS }))
}

/// On which of the home's nodes a partition has replicas, those that vote first.
fn at_home(partition: PartitionId, nodes: usize) -> Vec<usize> {
    let order = preference(partition.0, nodes);
    match partition {
        // The control group's voters are the first nodes; every other node learns.
        PartitionId::CONTROL => {
            let voters = voters(partition, nodes);
            let mut chosen: Vec<usize> = order.into_iter().filter(|n| *n < voters).collect();
            chosen.extend(voters..nodes);
            chosen
        }
        _ => order.into_iter().take(REPLICAS).collect(),
    }
}

/// On which of a backup region's nodes a partition has standbys. Two would hold only what both have, and so stop answers
/// when either is away.
fn standbys(partition: PartitionId, nodes: usize) -> Vec<usize> {
    let count = match partition {
        PartitionId::CONTROL => nodes,
        _ if nodes < REPLICAS => 1,
        _ => REPLICAS,
    };
    preference(partition.0, nodes).into_iter().take(count).collect()
}

/// An odd number of voters: an even one tolerates no more failures.
fn odd(nodes: usize) -> usize {
    if nodes.is_multiple_of(2) { nodes - 1 } else { nodes }
}

/// The order in which nodes should lead a partition. Rotated by partition, and the rest reversed every other
/// round, so that what a dead node led is spread over all others.
fn preference(partition: u32, nodes: usize) -> Vec<usize> {
    let first = partition as usize % nodes;
    let round = partition as usize / nodes;
    let mut rest: Vec<usize> = (1..nodes).map(|step| (first + step) % nodes).collect();
    if !rest.is_empty() {
        let turn = round % rest.len();
        rest.rotate_left(turn);
    }
    let mut order = vec![first];
    order.extend(rest);
    order
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn rows(count: u64) -> Vec<NodeRow> {
        let node = |id| NodeRow {
            id: NodeId(id),
            name: String::new(),
            region: String::new(),
            zone: String::new(),
            peer: String::new(),
        };
        (1..=count).map(node).collect()
    }

    #[test]
    fn leaders_are_spread_with_all_nodes_and_with_any_one_dead() {
        for dead in 0..4usize {
            let mut leads = [0; 3];
            for partition in 1..=16 {
                let first = preference(partition, 3).into_iter().find(|n| *n + 1 != dead).unwrap();
                leads[first] += 1;
            }
            let alive: Vec<i32> =
                leads.into_iter().enumerate().filter(|(n, _)| n + 1 != dead).map(|(_, l)| l).collect();
            let spread = alive.iter().max().unwrap() - alive.iter().min().unwrap();
            assert!(spread <= 2, "node {dead} dead: {leads:?}");
        }
    }

    #[test]
    fn every_node_has_a_control_replica_and_all_agree_on_the_configuration() {
        for (count, voters) in [(1, 1), (2, 1), (3, 3), (4, 3), (7, 5)] {
            let nodes = rows(count);
            let plan = plan(4, &nodes, RowBatch::default(), &mut Env::seeded(1));
            let control: Vec<&FirstReplica> =
                nodes.iter().map(|n| plan.of(n.id).iter().find(|r| !r.rows.is_empty()).unwrap()).collect();
            assert!(control.iter().all(|r| r.applied == control[0].applied && r.rows == control[0].rows));
            assert_eq!(control[0].applied.voters.len(), voters);
            assert_eq!(control[0].applied.learners.len(), count as usize - voters);
            let mut ids: Vec<ReplicaId> = nodes.iter().flat_map(|n| plan.of(n.id)).map(|r| r.replica).collect();
            let all = ids.len();
            ids.sort();
            ids.dedup();
            assert_eq!(ids.len(), all, "a replica id twice");
        }
    }
}
