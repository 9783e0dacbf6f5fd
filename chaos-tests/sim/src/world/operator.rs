//! An operator who moves replicas from node to node, and replaces those of a node that lost its disk. Every step
//! is tried again until it is done; the control group's rows say first what is to be.

use mailraft_checkers::{Micros, Rule};
use mailraft_cluster::config::ReplicaSpec;
use mailraft_cluster::members::MemberChange;
use mailraft_cluster::placement::{self, MemberRow, Placement};
use mailraft_cluster::{ChangeOutcome, CreateOutcome, Decision, Input};
use mailraft_storage::entry::RowsBody;
use mailraft_storage::{
    EntryKind, MailboxId, NodeId, PartitionId, Proposal, ProposalOutcome, ReplicaId, RowBatch, Rows, Verdict,
};

use crate::host::{Host, Waiter};
use crate::moves::{Move, Stage};
use crate::world::{Event, World};

/// Between two steps.
const STEP_EVERY: Micros = 150_000;
/// Whether a lost node has replicas left is looked at so often.
const LOOK_AGAIN: Micros = 1_000_000;
/// With fewer voters than these a group stands still for good once one of them has lost its disk.
const VOTERS_THAT_SPARE_ONE: usize = 3;
/// A change of votes that is refused for so long is given up.
const BALLOT_TRIED: Micros = 5_000_000;
/// A voter that is down for so long is not heard of by any leader.
const SURELY_DOWN: Micros = 1_000_000;
/// An answer is not waited for longer than this.
const ANSWER_MAX: Micros = 3_000_000;

impl World {
    /// Moves a replica of a partition from one node to another that has none; nothing if that can't be.
    pub fn move_replica(&mut self, partition: PartitionId, from: NodeId, to: NodeId) {
        if self.moves.is_one_of(partition) {
            return;
        }
        let Some(placement) = self.placement(partition) else { return };
        let Some(old) = placement.members.iter().find(|m| m.node == from).copied() else { return };
        if placement.members.iter().any(|m| m.node == to) {
            return;
        }
        let new = MemberRow { replica: self.moves.new_replica(), node: to, voter: false };
        self.say(format!(
            "partition {partition}: {} on node {to} is to replace {} on node {from}",
            new.replica, old.replica
        ));
        let (old, voter) = (old.replica, old.voter);
        self.begins_move(Move {
            partition,
            old,
            old_node: from,
            new,
            stage: Stage::Place,
            waits_until: 0,
            voter,
            ballot: false,
            tried_until: 0,
            none_to_spare: false,
            costs_quorum: false,
        });
    }

    /// The replica on one node gives its vote to that on another, or where that votes too, only learns for a while.
    pub fn changes_voters(&mut self, partition: PartitionId, from: NodeId, to: NodeId) {
        if self.moves.is_one_of(partition) {
            return;
        }
        let (Some(placement), Some(voters)) = (self.placement(partition), self.voters(partition)) else { return };
        let on = |node: NodeId| placement.members.iter().find(|m| m.node == node).copied();
        let Some(old) = on(from).filter(|m| voters.contains(&m.replica)) else { return };
        let learner = on(to).filter(|m| !voters.contains(&m.replica));
        let stage = if learner.is_some() { Stage::Promote } else { Stage::Demote };
        let none_to_spare = learner.is_none() && voters.len() - 1 < VOTERS_THAT_SPARE_ONE;
        if none_to_spare && self.hosts.values().any(Host::has_lost_something) {
            return;
        }
        let new = MemberRow { voter: true, ..learner.unwrap_or(old) };
        self.say(format!("partition {partition}: {} is to give its vote to {}", old.replica, new.replica));
        let tried_until = self.now() + BALLOT_TRIED;
        self.begins_move(Move {
            partition,
            old: old.replica,
            old_node: from,
            new,
            stage,
            waits_until: 0,
            voter: true,
            ballot: true,
            tried_until,
            none_to_spare,
            costs_quorum: false,
        });
    }

    fn begins_move(&mut self, of: Move) {
        self.moves.begin(of);
        self.queue.push(self.now(), Event::Operate);
    }

    /// Who votes in a partition, as its leader has applied it.
    fn voters(&self, partition: PartitionId) -> Option<Vec<ReplicaId>> {
        let node = self.leader_of(partition)?;
        Some(self.applied(node, self.replica(node, partition)?)?.voters)
    }

    /// Whether without this voter no majority of the others is up, as every leader knows by now.
    fn costs_quorum(&mut self, partition: PartitionId, gone: ReplicaId) -> Option<bool> {
        let (voters, placement) = (self.voters(partition)?, self.placement(partition)?);
        let rest: Vec<NodeId> = placement
            .members
            .iter()
            .filter(|m| m.replica != gone && voters.contains(&m.replica))
            .map(|m| m.node)
            .collect();
        let down = |node: &&NodeId| {
            self.hosts.get(node).is_some_and(|h| h.up.is_none() && h.down_since + SURELY_DOWN < self.now())
        };
        let up = rest.len() - rest.iter().filter(down).count();
        Some(voters.contains(&gone) && !rest.is_empty() && up <= rest.len() / 2)
    }

    /// Moves every replica of a node that is lost to nodes that have none of that partition, where there are such.
    pub fn replaces_all_of(&mut self, lost: NodeId) {
        for partition in (1..=self.setup.partitions).map(PartitionId) {
            let Some(placement) = self.placement(partition) else { continue };
            if !placement.members.iter().any(|m| m.node == lost) {
                continue;
            }
            if let Some(free) = self.without_replica(&placement) {
                self.move_replica(partition, lost, free);
            }
        }
        if let Some(lost) = self.hosts.get(&lost).filter(|h| h.lost.is_some()).map(|h| h.id) {
            // What could not be begun is looked at again.
            self.queue.push(self.now() + LOOK_AGAIN, Event::Replace(lost));
        }
    }

    /// A node that is not lost and has no replica of a partition.
    pub fn without_replica(&self, placement: &Placement) -> Option<NodeId> {
        let taken = |node: NodeId| placement.members.iter().any(|m| m.node == node);
        let free = |h: &&Host| h.lost.is_none() && !taken(h.id) && !self.promise.is_far(h.id);
        self.hosts.values().find(free).map(|h| h.id)
    }

    /// The operator's next steps.
    pub fn operate(&mut self) {
        let now = self.now();
        for at in 0..self.moves.count() {
            let lost = self.host_mut(self.moves.of(at).new.node).lost.is_some();
            let Some(of) = self.moves.get_mut(at) else { return };
            let begins = matches!(of.stage, Stage::Place | Stage::Create | Stage::Add | Stage::Promote);
            // Where it is lost, nobody will come there any more.
            if of.may_be_given_up(now) || (begins && lost) {
                of.stage = Stage::Done;
            }
            if of.waits_until <= now && of.stage != Stage::Done {
                of.waits_until = now + ANSWER_MAX;
                if !self.step(at)
                    && let Some(of) = self.moves.get_mut(at)
                {
                    of.waits_until = 0;
                }
            }
        }
        if !self.moves.are_done() {
            self.queue.push(now + STEP_EVERY, Event::Operate);
        }
    }

    /// The core's answer to a step.
    pub fn operator_hears(&mut self, at: usize, decision: Decision) {
        let Some(of) = self.moves.get_mut(at) else { return };
        of.waits_until = 0;
        let (old, new, costs_quorum) = (of.old, of.new.replica, std::mem::take(&mut of.costs_quorum));
        let changed = matches!(decision, Decision::Change(ChangeOutcome::Changed { .. }));
        let holds = |members: &[MemberRow], stage| match stage {
            Stage::Add => members.iter().any(|m| m.replica == new),
            Stage::Promote => members.iter().any(|m| m.replica == new && m.voter),
            Stage::Demote => !members.iter().any(|m| m.replica == old && m.voter),
            Stage::Remove => !members.iter().any(|m| m.replica == old),
            Stage::Place | Stage::Create | Stage::Unplace | Stage::Record | Stage::Done => false,
        };
        let done = match &decision {
            Decision::Proposal(ProposalOutcome::Applied { verdict: Verdict::Accepted, .. }) => {
                matches!(of.stage, Stage::Place | Stage::Unplace | Stage::Record)
            }
            Decision::Create(CreateOutcome::Created) => of.stage == Stage::Create,
            Decision::Change(ChangeOutcome::Changed { members, .. } | ChangeOutcome::Refused { members, .. }) => {
                holds(members, of.stage)
            }
            Decision::Create(CreateOutcome::Refused { members, .. }) => holds(members, of.stage),
            Decision::Proposal(_)
            | Decision::Change(_)
            | Decision::Barrier(_)
            | Decision::Slot(_)
            | Decision::TakeOver(_)
            | Decision::Settings(_) => false,
        };
        if !done {
            return;
        }
        let removed = of.stage == Stage::Remove;
        of.stage = of.next();
        let of = *of;
        if removed {
            self.adds_late(of);
        }
        if costs_quorum && changed {
            let what =
                format!("partition {}: {old} votes no more, and of the other voters no majority is up", of.partition);
            return self.goes_wrong(Rule::Liveness, what);
        }
        let (partition, stage) = (of.partition, of.stage);
        self.say(format!("partition {partition}: {old} is replaced by {new}: {stage:?} is next"));
    }

    /// The step by which the replica came that was just removed is asked for once more: an id is never used again.
    fn adds_late(&mut self, Move { partition, old, old_node, .. }: Move) {
        let Some(node) = self.leader_of(partition) else { return };
        let Some(process) = self.host_mut(node).up.as_mut() else { return };
        let Some(term) = process.leading.get(&partition).map(|l| l.term) else { return };
        let request = process.request(Waiter::LateAdd(partition, old));
        let change = MemberChange::AddLearner(MemberRow { replica: old, node: old_node, voter: false });
        self.input(node, Input::Reconfigure { request, partition, term, change });
    }

    /// Asks for a step; false if nobody could be asked.
    fn step(&mut self, at: usize) -> bool {
        let Move { partition, old, new, stage, voter, .. } = self.moves.of(at);
        match stage {
            Stage::Place | Stage::Unplace | Stage::Record => {
                let Some(mut placement) = self.placement(partition) else { return false };
                if stage == Stage::Place {
                    placement.members.push(new);
                } else if stage == Stage::Record {
                    let Some(voters) = self.voters(partition) else { return false };
                    placement.members.iter_mut().for_each(|m| m.voter = voters.contains(&m.replica));
                } else {
                    placement.members.retain(|m| m.replica != old);
                    placement.members.iter_mut().filter(|m| m.replica == new.replica).for_each(|m| m.voter = voter);
                }
                placement.members.dedup_by_key(|m| m.replica);
                let mut batch = RowBatch::default();
                placement::write(&mut batch, &[], &[placement]);
                self.writes_control(batch, Waiter::Operator(at))
            }
            Stage::Create => self.creates(at),
            Stage::Add | Stage::Promote | Stage::Demote | Stage::Remove => {
                let Some(node) = self.leader_of(partition) else { return false };
                if matches!(stage, Stage::Demote | Stage::Remove) {
                    let costs_quorum = self.costs_quorum(partition, old).unwrap_or(false);
                    self.moves.get_mut(at).into_iter().for_each(|of| of.costs_quorum = costs_quorum);
                }
                let change = match stage {
                    Stage::Add => MemberChange::AddLearner(new),
                    Stage::Promote => MemberChange::Promote(new.replica),
                    Stage::Demote => MemberChange::Demote(old),
                    _ => MemberChange::Remove(old),
                };
                let Some(process) = self.host_mut(node).up.as_mut() else { return false };
                let Some(term) = process.leading.get(&partition).map(|l| l.term) else { return false };
                let request = process.request(Waiter::Operator(at));
                self.input(node, Input::Reconfigure { request, partition, term, change });
                true
            }
            Stage::Done => true,
        }
    }

    /// The new replica is made on its node, once that node's own rows name it durably.
    fn creates(&mut self, at: usize) -> bool {
        let Move { partition, new, .. } = self.moves.of(at);
        let node = new.node;
        let Some(placement) = self.placement_at(node, partition) else { return false };
        let host = self.host_mut(node);
        if !placement.members.iter().any(|m| m.replica == new.replica) {
            return false;
        }
        let Ok(upto) = host.rows.flush() else { return false };
        let spec = ReplicaSpec { partition, replica: new.replica, nonce: placement.nonce, members: placement.members };
        let Some(process) = host.up.as_mut() else { return false };
        let request = process.request(Waiter::Operator(at));
        self.input(node, Input::Flushed { upto });
        self.input(node, Input::Create { request, spec });
        true
    }

    /// The node that leads a partition in the highest term.
    pub fn leader_of(&self, partition: PartitionId) -> Option<NodeId> {
        let led = self.hosts.values().filter_map(|h| Some((h.up.as_ref()?.leading.get(&partition)?.term, h.id)));
        led.max().map(|(_, node)| node)
    }

    /// Writes rows of the control group through its leader. False if nobody can be asked, or another such entry is
    /// in flight.
    pub fn writes_control(&mut self, batch: RowBatch, waiter: Waiter) -> bool {
        let control = PartitionId::CONTROL;
        let Some(node) = self.leader_of(control) else { return false };
        let Some(process) = self.host_mut(node).up.as_mut() else { return false };
        let Some(leading) = process.leading.get(&control).copied() else { return false };
        if process.own_rows_taken() {
            return false;
        }
        let command = process.actors_env.command_id();
        let request = process.request(waiter);
        let proposal = Proposal {
            incarnation: leading.incarnation,
            term: leading.term,
            mailbox: MailboxId::PARTITION,
            command,
            kind: EntryKind::Rows(RowsBody { batch, ..RowsBody::default() }),
        };
        self.input(node, Input::Propose { request, partition: control, proposal });
        true
    }

    /// A partition's placement, as the control group's leader has it.
    pub fn placement(&mut self, partition: PartitionId) -> Option<Placement> {
        let node = self.leader_of(PartitionId::CONTROL)?;
        self.placement_at(node, partition)
    }

    /// A partition's placement, as this node's rows of the control group have it.
    fn placement_at(&mut self, node: NodeId, partition: PartitionId) -> Option<Placement> {
        let control = self.replica(node, PartitionId::CONTROL)?;
        match placement::placements(&self.hosts.get(&node)?.rows, control) {
            Ok(placements) => placements.into_iter().find(|p| p.partition == partition),
            Err(error) => {
                self.meets_damage(node, PartitionId::CONTROL, &error);
                None
            }
        }
    }
}
