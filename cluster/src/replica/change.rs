//! Changes of a group's members: appended by its leader one at a time, confirmed by the configuration applied,
//! and the end of a replica that was removed.

use mailraft_storage::log::{InstallMark, LogWrite};
use mailraft_storage::{Applied, Index, LogPosition, NodeId, ProposalOutcome, ReplicaId, Term};
use raft::StateRole;
use raft::eraftpb::ConfChangeType;

use super::Replica;
use crate::members::{self, ChangeRefusal, MemberChange};
use crate::outcome::{ChangeOutcome, Decision, SlotOutcome};
use crate::placement::MemberRow;
use crate::plant::{self, Fault};
use crate::seam::{Output, PeerBody, RequestId};

/// A learner further behind than this is not promoted: until it has caught up it would only slow commits down.
pub const PROMOTE_LAG_MAX_ENTRIES: u64 = 1_024;

impl Replica {
    /// Appends a change of members, or says at once why not.
    pub fn change_members(&mut self, term: Term, change: MemberChange, request: RequestId) -> Option<ChangeOutcome> {
        if !self.lead.told || self.lead.term != Some(term) {
            return Some(ChangeOutcome::NotLeader { leader: self.leader() });
        }
        if self.raw.raft.lead_transferee.is_some() {
            return Some(ChangeOutcome::Dropped);
        }
        let (kind, member) = match self.examine(change) {
            Ok(allowed) => allowed,
            Err(why) => return Some(self.refused(why)),
        };
        if member.replica == self.spec.replica {
            let Some(to) = self.hand_over_leaving() else { return Some(self.refused(ChangeRefusal::NoSuccessor)) };
            self.transfer(to);
            return Some(ChangeOutcome::NotLeader { leader: self.members.node(to) });
        }
        if self.raw.store().is_full()
            || self.raw.propose_conf_change(Vec::new(), members::encode(kind, &member)).is_err()
        {
            return Some(ChangeOutcome::Overloaded);
        }
        let index = Index(self.raw.raft.raft_log.last_index());
        // raft-rs refuses by appending an empty entry.
        if self.raw.raft.pending_conf_index != index.0 {
            return Some(self.refused(ChangeRefusal::Pending));
        }
        self.changing = Some((index, request));
        None
    }

    /// Answers who asked for the change that is visible by now.
    pub(super) fn change_visible(&mut self, upto: Index, out: &mut Vec<Output>) {
        let Some((index, request)) = self.changing.take_if(|(index, _)| *index <= upto) else { return };
        let outcome = ChangeOutcome::Changed { index, members: self.members.rows() };
        out.push(Output::Decided { request, decision: Decision::Change(outcome) });
    }

    /// It was removed from its group, which does not hear it any more.
    pub fn dismiss(&mut self) {
        (self.removed, self.dismissed) = (true, true);
    }

    /// Whether it was removed from its group and nothing is in progress that must end first. One that leads hands
    /// over before, or steps down when it hears no majority.
    pub fn is_over(&self) -> bool {
        let leads = self.raw.raft.state == StateRole::Leader && !self.dismissed;
        self.removed && !self.is_installing() && !leads
    }

    /// Whether a message comes from this replica's leader in its term.
    pub fn follows(&self, sender: ReplicaId, body: &PeerBody) -> bool {
        let raft = &self.raw.raft;
        raft.leader_id == sender.0 && matches!(body, PeerBody::Raft(message) if message.term == raft.term)
    }

    /// To whom a leader that votes no more should hand over.
    pub fn must_hand_over_to(&mut self) -> Option<ReplicaId> {
        let voter = self.members.votes(self.spec.replica);
        if voter || self.members.voters().is_empty() { None } else { self.hand_over_leaving() }
    }

    /// Ends it: answers everyone, and gives what must be durable so that it never comes back.
    pub fn end(mut self, out: &mut Vec<Output>) -> LogWrite {
        self.leaves(out);
        let replica = self.spec.replica;
        self.writes.installation.end();
        tombstone(replica, self.raw.store().cut())
    }

    /// The term is over in which changes were appended here: answers whoever waits for one, or for a slot.
    pub(super) fn term_over(&mut self, leader: Option<NodeId>, out: &mut Vec<Output>) {
        if let Some((_, request)) = self.changing.take() {
            out.push(Output::Decided { request, decision: Decision::Change(ChangeOutcome::Unknown) });
        }
        self.forgets_settings(out);
        let (unknown, waiting) = self.owners.term_over();
        for request in unknown {
            out.push(Output::Decided { request, decision: Decision::Proposal(ProposalOutcome::Unknown) });
        }
        for request in waiting {
            out.push(Output::Decided { request, decision: Decision::Slot(SlotOutcome::NotLeader { leader }) });
        }
    }

    fn refused(&self, why: ChangeRefusal) -> ChangeOutcome {
        ChangeOutcome::Refused { why, members: self.members.rows() }
    }

    /// Whether a change may be made; what it is for raft-rs, and the member's row after it.
    fn examine(&self, change: MemberChange) -> Result<(ConfChangeType, MemberRow), ChangeRefusal> {
        if self.raw.raft.has_pending_conf() || self.changing.is_some() {
            return Err(ChangeRefusal::Pending);
        }
        let find = |replica: ReplicaId, fits: bool| {
            let node = self.members.node(replica).filter(|_| fits);
            let node = node.ok_or(ChangeRefusal::NotMember(replica))?;
            self.may_change_on(node)?;
            Ok(MemberRow { replica, node, voter: false })
        };
        match change {
            MemberChange::AddLearner(new) => {
                let highest = self.members.highest();
                if new.replica <= highest && !plant::is(Fault::ReplicaIdsReused) {
                    return Err(ChangeRefusal::IdUsed(highest));
                }
                self.may_change_on(new.node)?;
                if self.members.rows().iter().any(|m| m.node == new.node) {
                    return Err(ChangeRefusal::NodeTaken(new.node));
                }
                Ok((ConfChangeType::AddLearnerNode, MemberRow { voter: false, ..new }))
            }
            MemberChange::Promote(replica) => {
                let member = find(replica, self.members.learns(replica))?;
                self.has_caught_up(replica)?;
                Ok((ConfChangeType::AddNode, MemberRow { voter: true, ..member }))
            }
            MemberChange::Demote(replica) => {
                let member = find(replica, self.members.votes(replica))?;
                self.can_do_without(replica)?;
                Ok((ConfChangeType::AddLearnerNode, member))
            }
            MemberChange::Remove(replica) => {
                let votes = self.members.votes(replica);
                let member = find(replica, votes || self.members.learns(replica))?;
                if votes {
                    self.can_do_without(replica)?;
                }
                Ok((ConfChangeType::RemoveNode, member))
            }
        }
    }

    fn has_caught_up(&self, replica: ReplicaId) -> Result<(), ChangeRefusal> {
        let last = self.raw.raft.raft_log.last_index();
        let progress = self.raw.raft.prs().get(replica.0);
        let entries = progress.map_or(last, |p| last.saturating_sub(p.matched));
        let keeps_up = progress.is_some_and(|p| self.keeps_up(p));
        if keeps_up && self.takes_what_is_sent(replica) && entries <= PROMOTE_LAG_MAX_ENTRIES {
            return Ok(());
        }
        Err(ChangeRefusal::Lags { replica, entries })
    }

    fn can_do_without(&self, replica: ReplicaId) -> Result<(), ChangeRefusal> {
        let rest = || self.members.voters().iter().filter(|v| **v != replica);
        let active = rest().filter(|v| **v == self.spec.replica || self.takes_what_is_sent(**v)).count();
        match rest().count() {
            0 => Err(ChangeRefusal::NoSuccessor),
            count if active <= count / 2 && !plant::is(Fault::QuorumNotCounted) => Err(ChangeRefusal::LosesQuorum),
            _ => Ok(()),
        }
    }
}

/// What stays in the log of a replica that was removed: no entries, and the mark of a position whose
/// configuration does not hold it. Its rows are deleted only after that.
pub fn tombstone(replica: ReplicaId, cut: LogPosition) -> LogWrite {
    let mark = Applied { index: cut.index, term: cut.term, ..Applied::default() };
    let mark = Some(InstallMark::Begun(mark)).filter(|_| !plant::is(Fault::RemovedLeavesNoMark));
    LogWrite { replica, reset: Some(cut), mark, ..LogWrite::default() }
}
