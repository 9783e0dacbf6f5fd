//! How far the operator has come with each replica that takes another's place, or another's vote.

use mailraft_checkers::Micros;
use mailraft_cluster::placement::MemberRow;
use mailraft_storage::{NodeId, PartitionId, ReplicaId};

/// No replica that a cluster begins with has an id above this.
const FIRST_REPLICAS_MAX: u64 = 10_000;

/// Replicas that take others' places, by number.
pub struct Moves {
    moves: Vec<Move>,
    last_replica: u64,
}

impl Moves {
    /// None yet. New replicas get ids above all that a cluster begins with.
    pub fn new() -> Self {
        Moves { moves: Vec::new(), last_replica: FIRST_REPLICAS_MAX }
    }

    /// An id that no replica ever had.
    pub fn new_replica(&mut self) -> ReplicaId {
        self.last_replica += 1;
        ReplicaId(self.last_replica)
    }

    /// One more begins.
    pub fn begin(&mut self, of: Move) {
        self.moves.push(of);
    }

    /// How many there were.
    pub fn count(&self) -> usize {
        self.moves.len()
    }

    /// The one of this number.
    ///
    /// # Panics
    /// If there is none.
    pub fn of(&self, number: usize) -> Move {
        self.moves[number]
    }

    /// The one of this number, to be taken further. None if there is none.
    pub fn get_mut(&mut self, number: usize) -> Option<&mut Move> {
        self.moves.get_mut(number)
    }

    /// All of them.
    pub fn all(&self) -> &[Move] {
        &self.moves
    }

    /// Whether all are done.
    pub fn are_done(&self) -> bool {
        self.moves.iter().all(|m| m.stage == Stage::Done)
    }

    /// Whether one of a partition is not done.
    pub fn is_one_of(&self, partition: PartitionId) -> bool {
        self.moves.iter().any(|m| m.stage != Stage::Done && m.partition == partition)
    }
}

impl Default for Moves {
    fn default() -> Self {
        Self::new()
    }
}

/// A replica that takes another's place or vote.
#[derive(Clone, Copy, Debug)]
pub struct Move {
    /// Of this partition.
    pub partition: PartitionId,
    /// It goes.
    pub old: ReplicaId,
    /// Where it is.
    pub old_node: NodeId,
    /// It comes.
    pub new: MemberRow,
    /// What is done next.
    pub stage: Stage,
    /// Until then an answer is waited for.
    pub waits_until: Micros,
    /// It votes at the end.
    pub voter: bool,
    /// Only votes change. Both are the same where that one learns for a while.
    pub ballot: bool,
    /// A change of votes that is refused until then is given up.
    pub tried_until: Micros,
    /// Until its end the group has two voters or one: none whose disk it could lose.
    pub none_to_spare: bool,
    /// When the step was asked for, too few of the voters that it leaves were up: it must be refused.
    pub costs_quorum: bool,
}

impl Move {
    /// What is done after the present step.
    pub fn next(&self) -> Stage {
        match self.stage {
            Stage::Place => Stage::Create,
            Stage::Create => Stage::Add,
            Stage::Add if self.voter => Stage::Promote,
            Stage::Promote if self.ballot && self.old == self.new.replica => Stage::Record,
            Stage::Promote if self.ballot => Stage::Demote,
            Stage::Demote if self.old == self.new.replica => Stage::Promote,
            Stage::Demote => Stage::Record,
            Stage::Add | Stage::Promote => Stage::Remove,
            Stage::Remove => Stage::Unplace,
            Stage::Unplace | Stage::Record | Stage::Done => Stage::Done,
        }
    }

    /// Whether its group can't do without any voter at the moment.
    pub fn spares_none(&self) -> bool {
        self.none_to_spare && self.stage != Stage::Done
    }

    /// Whether it may end here, at this time, with nothing half done. Who is to learn only for a while may do so as soon as
    /// that was asked for, whatever came of the asking, and is to vote again.
    pub fn may_be_given_up(&self, now: Micros) -> bool {
        self.ballot && self.old != self.new.replica && now > self.tried_until
    }
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
    /// The old one only learns.
    Demote,
    /// The old one is no member any more.
    Remove,
    /// The control group's rows name it no longer.
    Unplace,
    /// The control group's rows say who votes.
    Record,
    /// All done.
    Done,
}
