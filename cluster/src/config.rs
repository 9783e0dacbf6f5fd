//! What a node's core is told at its start, and why it may refuse to start.

use std::sync::Arc;

use mailraft_storage::log::LOG_BATCH_MAX_BYTES;
use mailraft_storage::{ClusterId, DAMAGED_NODE_ADVICE, NodeId, PartitionId, ReplicaId, Rows, StoreError};

use crate::placement::{self, MemberRow};
use crate::regions::Regions;

/// A slow follower's log is kept up to so many bytes, unless the configuration says otherwise.
pub const LOG_KEEP_BYTES: u64 = 256 << 20;

/// The log is kept for another region up to so many bytes, unless the configuration says otherwise.
pub const REGION_LOG_KEEP_BYTES: u64 = 4 << 30;

/// What a node's core is told at its start.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The node whose core this is.
    pub node: NodeId,
    /// The cluster that the node belongs to.
    pub cluster: ClusterId,
    /// The replicas on this node, one of the control group among them.
    pub replicas: Vec<ReplicaSpec>,
    /// A slow follower's log is kept up to so many entries behind; past it, it gets a snapshot.
    pub log_keep_entries: u64,
    /// The same in bytes of entries, counted from the start of the process.
    pub log_keep_bytes: u64,
    /// The most bytes of entries that one fsync makes durable, but for one entry that is larger.
    pub log_batch_max_bytes: usize,
    /// What other regions do not hold is kept up to so many bytes of entries, counted from the start of the process; past
    /// it they get snapshots.
    pub region_log_keep_bytes: u64,
    /// The cluster's regions, if it has several.
    pub regions: Option<Arc<Regions>>,
    /// Where raft-rs logs to.
    pub logger: slog::Logger,
}

/// A replica of this node.
#[derive(Clone, Debug)]
pub struct ReplicaSpec {
    /// The partition of whose group it is a member.
    pub partition: PartitionId,
    /// The id of the replica.
    pub replica: ReplicaId,
    /// The nonce of the partition's first incarnation.
    pub nonce: [u8; 16],
    /// All members with it, in the order in which they should lead.
    pub members: Vec<MemberRow>,
}

/// Why a node can't start.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RecoverError {
    /// A store can't be read, or holds damage.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// Something that should be there is not.
    #[error("replica {replica} of partition {partition}: {what}; {DAMAGED_NODE_ADVICE}")]
    Damaged {
        /// The partition that the replica is of.
        partition: PartitionId,
        /// The replica that can't go on.
        replica: ReplicaId,
        /// What is wrong with it.
        what: String,
    },
    /// The stores hold no replica of the control group.
    #[error("the data directory holds no replica of the control group for node {0}: is it another node's?")]
    NoControl(NodeId),
}

impl NodeConfig {
    /// Reads from the control group's rows which replicas this node has.
    ///
    /// # Errors
    /// If the rows can't be read or there is no control replica.
    pub fn from_rows(
        node: NodeId,
        cluster: ClusterId,
        rows: &dyn Rows,
        log_keep_entries: u64,
        logger: slog::Logger,
    ) -> Result<Self, RecoverError> {
        let control = placement::control_replica(rows, node)?.ok_or(RecoverError::NoControl(node))?;
        let mut replicas = Vec::new();
        for placement in placement::placements(rows, control)? {
            if let Some(own) = placement.members.iter().find(|m| m.node == node) {
                replicas.push(ReplicaSpec {
                    partition: placement.partition,
                    replica: own.replica,
                    nonce: placement.nonce,
                    members: placement.members.clone(),
                });
            }
        }
        Ok(NodeConfig {
            node,
            cluster,
            replicas,
            log_keep_entries,
            log_keep_bytes: LOG_KEEP_BYTES,
            log_batch_max_bytes: LOG_BATCH_MAX_BYTES,
            region_log_keep_bytes: REGION_LOG_KEEP_BYTES,
            regions: Regions::from_rows(rows, control)?.map(Arc::new),
            logger,
        })
    }
}
