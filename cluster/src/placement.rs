//! Which node holds which replica: rows of the control group, in clear.

use mailraft_storage::entry::{versioned_decode, versioned_encode};
use mailraft_storage::{
    MailboxId, NodeId, PartitionId, ReplicaId, RowBatch, RowKey, Rows, StoreError, Table, TakenOver,
};
use serde::{Deserialize, Serialize};

use crate::mode::PartitionMode;
use crate::taken_over;

const ROW_VERSION: u8 = 1;
/// The most partitions and nodes that are read.
const ROWS_MAX: usize = 4_096;
/// How keys of [`Table::Members`] begin.
const HIGHEST: u8 = 0;
const MEMBER: u8 = 1;

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRow {
    /// The number of the node, which its certificate names too.
    pub id: NodeId,
    /// A name for people.
    pub name: String,
    /// The region that the node stands in.
    pub region: String,
    /// The zone of its region: what fails together.
    pub zone: String,
    /// Where other nodes reach it: host:port.
    pub peer: String,
}

/// The replicas of a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The partition whose replicas these are.
    pub partition: PartitionId,
    /// The nonce of its first incarnation.
    pub nonce: [u8; 16],
    /// In order of preference for the lead.
    pub members: Vec<MemberRow>,
}

/// A replica and its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRow {
    /// The id of the replica.
    pub replica: ReplicaId,
    /// The node that it is on.
    pub node: NodeId,
    /// Whether it votes; else it learns.
    pub voter: bool,
}

/// Writes nodes and placements into a batch.
pub fn write(batch: &mut RowBatch, nodes: &[NodeRow], placements: &[Placement]) {
    for node in nodes {
        let key = RowKey::partition(Table::Nodes, node.id.0.to_be_bytes());
        batch.put(key, versioned_encode(ROW_VERSION, node));
    }
    for placement in placements {
        let key = RowKey::partition(Table::Placement, placement.partition.0.to_be_bytes());
        batch.put(key, versioned_encode(ROW_VERSION, placement));
    }
}

/// Every node of the cluster, by its row.
///
/// # Errors
/// If a row can't be read.
pub fn nodes(rows: &dyn Rows, control: ReplicaId) -> Result<Vec<NodeRow>, StoreError> {
    read(rows, control, Table::Nodes)
}

/// Every partition's placement, the control group's first.
///
/// # Errors
/// If a row can't be read.
pub fn placements(rows: &dyn Rows, control: ReplicaId) -> Result<Vec<Placement>, StoreError> {
    read(rows, control, Table::Placement)
}

/// The control group's replica among those in a node's store: the one that has placements.
///
/// # Errors
/// If a row can't be read.
pub fn control_replica(rows: &dyn Rows, node: NodeId) -> Result<Option<ReplicaId>, StoreError> {
    for replica in rows.replicas()? {
        let control = placements(rows, replica)?.into_iter().find(|p| p.partition == PartitionId::CONTROL);
        if control.is_some_and(|c| c.members.iter().any(|m| m.replica == replica && m.node == node)) {
            return Ok(Some(replica));
        }
    }
    Ok(None)
}

/// What a group's own rows say of it, first its members. Those it was born with stand only in its placement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupRows {
    /// Members that a change of the configuration named.
    pub members: Vec<MemberRow>,
    /// The highest replica id that the group ever had; 0 before the first change.
    pub highest: ReplicaId,
    /// Whether its answers wait for other regions.
    pub mode: PartitionMode,
    /// The newest takeover of it.
    pub taken_over: Option<TakenOver>,
}

/// Reads what a group's rows say of its members, and whether its answers wait.
///
/// # Errors
/// If a row can't be read.
pub fn group(rows: &dyn Rows, replica: ReplicaId) -> Result<GroupRows, StoreError> {
    let members = rows
        .scan(replica, MailboxId::PARTITION, Table::Members, &[MEMBER], &[], ROWS_MAX)?
        .iter()
        .map(|(_, value)| versioned_decode("member row", ROW_VERSION, value))
        .collect::<Result<_, _>>()?;
    let (highest, mode) = (highest(rows, replica)?.unwrap_or_default(), PartitionMode::read(rows, replica)?);
    let taken_over = taken_over::of_group(rows, replica)?.pop();
    Ok(GroupRows { members, highest, mode, taken_over })
}

/// The highest replica id that a group ever had, once a change of its configuration was applied.
///
/// # Errors
/// If the row can't be read.
pub fn highest(rows: &dyn Rows, replica: ReplicaId) -> Result<Option<ReplicaId>, StoreError> {
    rows.get(replica, &highest_key())?.as_deref().map(read_highest).transpose()
}

/// Reads the row of the highest replica id.
///
/// # Errors
/// If it is none.
pub fn read_highest(value: &[u8]) -> Result<ReplicaId, StoreError> {
    versioned_decode("highest member row", ROW_VERSION, value)
}

/// Where a member's row stands among the group's own.
pub fn member_key(replica: ReplicaId) -> RowKey {
    RowKey::partition(Table::Members, [&[MEMBER][..], &replica.0.to_be_bytes()].concat())
}

/// A member's row.
pub fn member_row(member: &MemberRow) -> Vec<u8> {
    versioned_encode(ROW_VERSION, member)
}

/// Where the highest replica id that the group ever had stands.
pub fn highest_key() -> RowKey {
    RowKey::partition(Table::Members, [HIGHEST])
}

/// The row of the highest replica id.
pub fn highest_row(replica: ReplicaId) -> Vec<u8> {
    versioned_encode(ROW_VERSION, &replica)
}

fn read<T: for<'a> Deserialize<'a>>(rows: &dyn Rows, control: ReplicaId, table: Table) -> Result<Vec<T>, StoreError> {
    rows.scan(control, MailboxId::PARTITION, table, &[], &[], ROWS_MAX)?
        .iter()
        .map(|(_, value)| versioned_decode(&format!("{table:?} row"), ROW_VERSION, value))
        .collect()
}
