//! How a node's replicas are.

use mailraft_storage::{Index, NodeId, PartitionId, ReplicaId, Term};

use crate::low_water::LowWater;

/// A replica as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// Its partition.
    pub partition: PartitionId,
    /// Itself.
    pub replica: ReplicaId,
    /// leader, follower, candidate or learner.
    pub role: &'static str,
    /// Raft's term.
    pub term: Term,
    /// The leader's node, if known.
    pub leader: Option<NodeId>,
    /// Committed up to here, as it knows.
    pub commit: Index,
    /// Applied up to here.
    pub applied: Index,
    /// Flushed up to here.
    pub flushed: Index,
    /// Visible up to here: what is after it is told to nobody yet.
    pub visible: Index,
    /// What holds the log, which is cut below the lowest mark, and that mark.
    pub log_held_by: (LowWater, Index),
    /// The first entry in its log.
    pub first: Index,
    /// The last entry in its log.
    pub last: Index,
    /// Entries accepted.
    pub count: u64,
    /// The hash over them.
    pub hash: [u8; 32],
    /// Whether a snapshot is being installed.
    pub installing: bool,
    /// Whether rows of it, or of the node's replica of the control group, were found to be damaged since the start.
    pub damaged: bool,
    /// Of a leader: the other members.
    pub followers: Vec<FollowerStatus>,
}

/// A follower as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FollowerStatus {
    /// Its replica.
    pub replica: ReplicaId,
    /// Its node.
    pub node: NodeId,
    /// Its log agrees with the leader's up to here.
    pub matched: Index,
    /// It answered within the last election timeout.
    pub active: bool,
    /// Whether it is being sent a snapshot.
    pub snapshot: bool,
}
