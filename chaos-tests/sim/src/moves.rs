//! How far the operator has come with each replica that takes another's place.

use mailraft_checkers::Micros;
use mailraft_cluster::placement::MemberRow;
use mailraft_storage::{PartitionId, ReplicaId};

/// A replica that takes another's place.
#[derive(Clone, Copy, Debug)]
pub struct Move {
    /// Of this partition.
    pub partition: PartitionId,
    /// It goes.
    pub old: ReplicaId,
    /// It comes.
    pub new: MemberRow,
    /// What is done next.
    pub stage: Stage,
    /// Until then an answer is waited for.
    pub waits_until: Micros,
    /// It votes at the end.
    pub voter: bool,
}

/// The steps of a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The control group's rows name the new replica.
    Place,
    /// It is made on its node.
    Create,
    /// It learns.
    Add,
    /// It votes.
    Promote,
    /// The old one is no member any more.
    Remove,
    /// The control group's rows name it no longer.
    Unplace,
    /// All done.
    Done,
}
