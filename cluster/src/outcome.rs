//! What the core answers: a type for each question, so that nobody who asked one has to think of the answers to
//! another. What becomes of a proposal is [`ProposalOutcome`], in `storage`, where owners of mailboxes find it.

use mailraft_storage::{Index, NodeId, ProposalOutcome};

use crate::members::ChangeRefusal;
use crate::placement::MemberRow;
use crate::regions::SettingsRefusal;

/// The answer to one question, by the kind of question. Whoever carries outputs out takes it apart once and hands
/// the outcome on to whoever asked. One type and one output for all kinds: what is answered passes one place, where
/// it can be counted or held back until it may be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Of [`Input::Propose`](crate::Input::Propose).
    Proposal(ProposalOutcome),
    /// Of [`Input::ReadBarrier`](crate::Input::ReadBarrier).
    Barrier(BarrierOutcome),
    /// Of [`Input::AwaitSlot`](crate::Input::AwaitSlot).
    Slot(SlotOutcome),
    /// Of [`Input::Reconfigure`](crate::Input::Reconfigure).
    Change(ChangeOutcome),
    /// Of [`Input::Create`](crate::Input::Create).
    Create(CreateOutcome),
    /// Of [`Input::TakeOver`](crate::Input::TakeOver).
    TakeOver(TakeOverOutcome),
    /// Of [`Input::SetRegions`](crate::Input::SetRegions).
    Settings(SettingsOutcome),
}

/// What became of a read barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarrierOutcome {
    /// Everything acknowledged before the question is applied here, up to this index at least.
    Passed {
        /// The applied index.
        index: Index,
    },
    /// This node does not lead in the term that the question was bound to.
    NotLeader {
        /// The node that does, if known.
        leader: Option<NodeId>,
    },
    /// No leader answered in time, or too many questions wait.
    Unavailable,
}

/// What became of waiting for a mailbox's slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotOutcome {
    /// No entry of that mailbox is in flight in that term.
    Free,
    /// This node does not lead in that term.
    NotLeader {
        /// The node that does, if known.
        leader: Option<NodeId>,
    },
    /// Too many wait for the same slot.
    Overloaded,
}

/// What became of a change of a group's members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeOutcome {
    /// It is committed and applied here.
    Changed {
        /// The index of its entry.
        index: Index,
        /// The members after it.
        members: Vec<MemberRow>,
    },
    /// It may not be made.
    Refused {
        /// Which rule the change would break.
        why: ChangeRefusal,
        /// The members as they are.
        members: Vec<MemberRow>,
    },
    /// Never appended, and this node still leads in the term: ask again.
    Dropped,
    /// Never appended: this node does not lead in that term, or has just handed its lead over.
    NotLeader {
        /// The node that does, if known.
        leader: Option<NodeId>,
    },
    /// Never appended: too much waits to be committed.
    Overloaded,
    /// Appended, but leadership was lost before it was applied here: a successor knows.
    Unknown,
}

/// What became of making a new replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CreateOutcome {
    /// It is there, durably.
    Created,
    /// It may not be made here.
    Refused {
        /// Which rule the change would break.
        why: ChangeRefusal,
        /// The members that it was to be made with.
        members: Vec<MemberRow>,
    },
}

/// What became of other settings of regions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingsOutcome {
    /// They are committed and applied at the leader: on the disks of a majority at home, whoever else holds them.
    Changed {
        /// The index of the change's entry.
        index: Index,
    },
    /// They may not be.
    Refused(SettingsRefusal),
    /// Never appended, and this node still leads: ask again.
    Dropped,
    /// Never appended: this node does not lead the control group, or does not know yet all that is in its log.
    NotLeader {
        /// The node that leads, if known.
        leader: Option<NodeId>,
    },
    /// Never appended: too much waits to be committed.
    Overloaded,
    /// Appended, but leadership was lost before it was applied here: a successor knows.
    Unknown,
}

/// What became of an operator's word that a region takes the cluster over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakeOverOutcome {
    /// This node's standby of the control group has adopted the incarnation, durably. It is never undone.
    Adopted,
    /// It has not, and does not.
    Refused(TakeOverRefusal),
}

/// Why a node's standby of the control group adopts no incarnation. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TakeOverRefusal {
    /// There is no other region, or no standby of the control group here.
    #[error("this node has no standby of the control group")]
    NoStandby,
    /// The home takes over nothing.
    #[error("this node stands in the home region")]
    IsHome,
    /// Numbers rise.
    #[error("an incarnation's number is above {own} and below 4096")]
    NotHigher {
        /// The number that its replica is of.
        own: u32,
    },
    /// A snapshot brought it up to here, and it has not heard that its region holds that: what it has could differ from
    /// what the others elect.
    #[error("it was brought up to entry {0} by a snapshot, and has not heard that its region holds that")]
    Ahead(Index),
    /// It is no voter of a later incarnation, and serves nothing any more.
    #[error("a later incarnation has sealed it")]
    Sealed,
    /// It is adopting, or being sealed, at this moment: ask again.
    #[error("it is just becoming another")]
    Busy,
}
