//! Whether the promise about a backup region is kept. What a region holds is looked up in the synced
//! logs of its standbys, not asked of any core.

use std::time::Duration;

use mailraft_checkers::{Micros, Rule};
use mailraft_cluster::config::REGION_LOG_KEEP_BYTES;
use mailraft_cluster::mode::{Mode, ModeRow, PartitionMode};
use mailraft_cluster::regions::RegionsRow;
use mailraft_cluster::{BarrierOutcome, Decision, placement};
use mailraft_storage::{Entry, EntryKind, Index, MailboxId, NodeId, PartitionId, ProposalOutcome, ReplicaId, Term};
use raft::eraftpb::{Message, MessageType};

use crate::host::Waiter;
use crate::promise::{Answered, Promise};
use crate::world::World;

/// By so much an answer may come later than its bound: a tick, and what is applied together counts as one.
const BOUND_SLACK: Micros = 50_000;
/// Clocks run slower than the world by a fifth at most.
const SLOWEST_CLOCK: (Micros, Micros) = (5, 4);

/// What the bound is as the world's clock measures it, in microseconds.
pub(super) fn bound_us(rpo_max: Duration) -> Micros {
    rpo_max.as_micros() as Micros * SLOWEST_CLOCK.0 / SLOWEST_CLOCK.1 + BOUND_SLACK
}

impl World {
    /// Remembers who stands where, once every node has its first rows.
    pub fn knows_regions(&mut self) {
        let Some(host) = self.hosts.values().next() else { return };
        let control = placement::control_replica(&host.rows, host.id).ok().flatten();
        let placements = control.map(|control| placement::placements(&host.rows, control).unwrap_or_default());
        let row = control.and_then(|control| RegionsRow::read(&host.rows, control).ok().flatten());
        self.promise = Promise::new(&self.setup, &placements.unwrap_or_default());
        self.promise.begins_with(row);
        self.net.set_far(self.promise.far().clone(), self.setup.one_way);
    }

    /// What a node has applied of the control group; nothing where there is one region.
    pub(super) fn control_applied(&self, node: NodeId) -> Index {
        if !self.promise.is_made() {
            return Index(0);
        }
        let control = self.replica(node, PartitionId::CONTROL).and_then(|replica| self.applied(node, replica));
        control.map_or(Index(0), |applied| applied.index)
    }

    /// A node's core has answered somebody.
    pub(super) fn decision_is_held(&mut self, node: NodeId, waiter: &Waiter, decision: &Decision) {
        if !self.promise.is_made() {
            return;
        }
        match (waiter, decision) {
            // A part of a body counts for nothing yet.
            (Waiter::Chunk { .. }, _) => {}
            (waiter, Decision::Proposal(ProposalOutcome::Applied { index, .. })) => {
                let partition = match waiter {
                    Waiter::Entry { mailbox, .. } => self.mailboxes.partition(*mailbox),
                    Waiter::Evicted(partition, _) => *partition,
                    _ => PartitionId::CONTROL,
                };
                self.answer_is_held(node, partition, *index);
                if let Waiter::Entry { control, .. } = waiter {
                    self.is_shown(node, PartitionId::CONTROL, *control, "what an answer rests on");
                }
            }
            // Who asks this reads rows of the control group.
            (Waiter::Login(_) | Waiter::Control { .. }, Decision::Barrier(BarrierOutcome::Passed { index })) => {
                self.is_shown(node, PartitionId::CONTROL, *index, "what a read barrier lets be read");
            }
            _ => {}
        }
    }

    /// An actor answers from its memory, which has this position.
    pub(super) fn memory_is_shown(&mut self, node: NodeId, mailbox: MailboxId, index: Index) {
        if !self.promise.is_made() || self.promise.rpo_max().is_some() {
            return;
        }
        let partition = self.mailboxes.partition(mailbox);
        let Some(replica) = self.replica(node, partition) else { return };
        // Its memory may have the position of an entry of another mailbox.
        let log = self.host(node).log.as_log();
        let Ok(Some(state)) = log.state(replica) else { return };
        for index in (state.cut.index.0 + 1..=index.0.min(state.last.0)).rev() {
            let Ok(read) = log.entries(replica, Index(index), Index(index + 1), usize::MAX) else { return };
            let Some(entry) = read.first() else { return };
            let own = Entry::decode(&entry.data)
                .is_ok_and(|e| e.header.mailbox == mailbox && matches!(e.kind, EntryKind::Rows(_)));
            if own {
                return self.is_shown(node, partition, Index(index), "what an actor shows");
            }
            if self.is_held(partition, Index(index), Some(Term(entry.term))) {
                return;
            }
        }
    }

    fn is_shown(&mut self, node: NodeId, partition: PartitionId, index: Index, what: &str) {
        // Nothing stops a home that went on alone from showing that once another one has taken over.
        let old = self.promise.is_word_given() && !self.promise.is_far(node);
        if self.promise.rpo_max().is_some() || old && self.promise.may_degrade() {
            return;
        }
        self.witness.held(Rule::Shown);
        let term = self.term_at(node, partition, index);
        // What was answered alone stays what is shown.
        if !self.is_held(partition, index, term) && self.promise.mode().mode == Mode::Whole {
            let what = format!("{what} at node {node} is entry {index} of partition {partition}, which south lacks");
            self.goes_wrong(Rule::Shown, what);
        }
    }

    fn answer_is_held(&mut self, node: NodeId, partition: PartitionId, index: Index) {
        let now = self.now();
        let Some(term) = self.term_at(node, partition, index) else { return };
        if self.promise.is_word_given() && !self.promise.is_far(node) {
            return self.old_home_answers(node, partition, index, term);
        }
        let held = self.is_held(partition, index, Some(term));
        let answered = Answered { index, term, at: now };
        let alone = !held && self.answers_alone(node, partition, index);
        self.may_be_lost(node, partition, answered, alone);
        if alone {
            return self.promise.alone().push((partition, answered));
        }
        let Some(rpo_max) = self.promise.rpo_max() else {
            self.promise.answered(partition).push_back(answered);
            self.witness.held(Rule::Held);
            if !held {
                let what = format!("node {node} answers entry {index} of partition {partition}, which south lacks");
                self.goes_wrong(Rule::Held, what);
            }
            return;
        };
        self.witness.held(Rule::Bound);
        let mut unheld = std::mem::take(self.promise.answered(partition));
        while unheld.front().is_some_and(|a| self.is_held(partition, a.index, Some(a.term))) {
            unheld.pop_front();
        }
        let bound = bound_us(rpo_max);
        if let Some(oldest) = unheld.front().filter(|oldest| !held && now > oldest.at + bound) {
            let what = format!(
                "node {node} answers entry {index} of partition {partition}, and south lacks {} since {} ms",
                oldest.index,
                (now - oldest.at) / 1_000
            );
            return self.goes_wrong(Rule::Bound, what);
        }
        if !held {
            unheld.push_back(answered);
        }
        *self.promise.answered(partition) = unheld;
    }

    /// What a partition's own rows say of the mode, where that is that it is alone. Of rows that are damaged the process knows what
    /// they said, by the control group's version at least.
    fn own_mode_if_alone(&self, node: NodeId, partition: PartitionId) -> Option<PartitionMode> {
        let replica = self.replica(node, partition)?;
        let rows = &self.host(node).rows;
        let own = match partition {
            PartitionId::CONTROL => ModeRow::read(rows, replica).map(ModeRow::of_control),
            _ => PartitionMode::read(rows, replica),
        };
        let known = |_| {
            let status = self.host(node).up.as_ref()?.core.status().into_iter().find(|of| of.partition == partition)?;
            status.mode.map(|mode| PartitionMode { version: mode.version, alone: mode.alone, since: mode.since })
        };
        own.map_or_else(known, Some).filter(|own| own.alone)
    }

    /// Whether a partition's own rows say that it is alone.
    pub(super) fn says_alone(&self, node: NodeId, partition: PartitionId) -> bool {
        self.own_mode_if_alone(node, partition).is_some()
    }

    /// Whether a partition's leader may answer what south lacks: its own rows say that it is alone, and so does the row of
    /// the control group that they follow.
    fn answers_alone(&mut self, node: NodeId, partition: PartitionId, index: Index) -> bool {
        let Some(own) = self.own_mode_if_alone(node, partition) else { return false };
        self.witness.held(Rule::Alone);
        let row = *self.promise.mode();
        if own.version > row.version || row.mode == Mode::Whole {
            let what = format!(
                "node {node} answers entry {index} of partition {partition} alone by version {} of the mode, and the \
                 newest row is {row:?}",
                own.version
            );
            self.goes_wrong(Rule::Alone, what);
        }
        true
    }

    /// A node has applied a row about the mode. If it says that all is whole again, everything that was answered is held.
    pub(super) fn mode_is_recorded(&mut self, node: NodeId, row: &ModeRow) {
        if !self.promise.applies_mode(row) {
            return;
        }
        if self.promise.is_word_given() {
            // What was answered alone before is judged by what the takeover lost.
            self.promise.alone().clear();
            return self.say(format!("node {node} has applied mode {:?}, version {}", row.mode, row.version));
        }
        self.say(format!("node {node} has applied that the home is {:?}, version {}", row.mode, row.version));
        self.witness.held(Rule::Alone);
        if row.mode == Mode::Alone && !self.promise.may_degrade() {
            self.goes_wrong(Rule::Alone, "the home goes on alone, and never may".into());
        }
        if row.mode != Mode::Whole {
            return;
        }
        for (partition, answered) in std::mem::take(self.promise.alone()) {
            self.witness.held(Rule::Alone);
            let Answered { index, term, at } = answered;
            if !self.is_held(partition, index, Some(term)) {
                let what = format!(
                    "the home is said to be whole, and south lacks entry {index} of partition {partition}, answered \
                     alone at {at} us"
                );
                self.goes_wrong(Rule::Alone, what);
            } else if self.promise.rpo_max().is_none() {
                self.promise.answered(partition).push_back(answered);
            }
        }
    }

    /// A message leaves a node: no standby hears of a commit above what its region holds.
    pub(super) fn commit_is_held(&mut self, node: NodeId, to: NodeId, partition: PartitionId, message: &Message) {
        let hears = matches!(message.get_msg_type(), MessageType::MsgAppend | MessageType::MsgHeartbeat);
        if !hears || message.commit == 0 || !self.promise.is_far(to) || self.promise.is_far(node) {
            return;
        }
        self.witness.held(Rule::Held);
        let term = self.term_at(node, partition, Index(message.commit));
        if !self.is_held(partition, Index(message.commit), term) {
            let what = format!(
                "a standby hears that {} of partition {partition} is committed, and south lacks it",
                message.commit
            );
            self.goes_wrong(Rule::Held, what);
        }
    }

    /// A snapshot took the place of a node's log.
    pub(super) fn log_is_replaced(&mut self, node: NodeId, replica: ReplicaId) {
        let Some(process) = self.host(node).up.as_ref() else { return };
        let partition = process.core.replica_ids().into_iter().find(|(_, of)| *of == replica);
        if let Some((partition, _)) = partition.filter(|_| !self.promise.is_far(node)) {
            self.promise.replaces_log(partition);
        }
    }

    /// A standby whose rows came from a snapshot above what south holds knows it, and a log at home that nothing bounds
    /// is kept from what south holds on.
    pub(super) fn logs_are_kept(&mut self) {
        if !self.promise.is_made() {
            return;
        }
        for (partition, (node, replica)) in self.promise.all_standbys() {
            let Ok(Some(state)) = self.host(node).log.as_log().state(replica) else { continue };
            if state.installing.is_some() || self.promise.standbys(partition).len() < 2 {
                continue;
            }
            self.witness.held(Rule::Held);
            let cut = state.cut;
            let knows = state.ahead.is_some_and(|ahead| ahead >= cut.index);
            if !knows && !self.is_held(partition, cut.index, Some(cut.term)) {
                let what = format!(
                    "the standby of partition {partition} on node {node} begins at {}, which south lacks, and does not know",
                    cut.index
                );
                self.goes_wrong(Rule::Held, what);
            }
        }
        if self.setup.region_log_keep_bytes < REGION_LOG_KEEP_BYTES {
            return;
        }
        for partition in self.promise.with_own_logs() {
            let home: Vec<NodeId> = self.hosts.keys().copied().filter(|node| !self.promise.is_far(*node)).collect();
            let cut = |node: &NodeId| {
                let state = self.host(*node).log.as_log().state(self.replica(*node, partition)?).ok()??;
                state.installing.is_none().then_some((*node, state.cut))
            };
            for (node, cut) in home.iter().filter_map(cut).collect::<Vec<_>>() {
                self.witness.held(Rule::Held);
                if !self.is_held(partition, cut.index, Some(cut.term)) {
                    let what = format!("node {node} has cut partition {partition} at {}, which south lacks", cut.index);
                    self.goes_wrong(Rule::Held, what);
                }
            }
        }
    }

    /// The home region is lost, or may be: whichever majority of south's standbys a takeover meets, the one of them that
    /// Raft would elect has everything that was answered.
    pub(super) fn all_answered_is_held(&mut self) {
        self.notes_what_is_held();
        if self.promise.rpo_max().is_some() {
            return;
        }
        let mut looked = 0;
        let lost = self.promise.all_answered().find(|(partition, Answered { index, term, .. })| {
            looked += 1;
            !self.is_elected_with(*partition, *index, *term)
        });
        let lost = lost.map(|(partition, Answered { index, at, .. })| {
            format!("south may be led without entry {index} of partition {partition}, answered at {at} us")
        });
        (0..looked).for_each(|_| self.witness.held(Rule::Held));
        lost.into_iter().for_each(|what| self.goes_wrong(Rule::Held, what));
    }

    /// Whether a majority of south's standbys of a partition have an entry synced: in their log under this term, or in
    /// the rows below it.
    pub(super) fn is_held(&self, partition: PartitionId, index: Index, term: Option<Term>) -> bool {
        let standbys = self.promise.standbys(partition);
        let having = standbys.iter().filter(|standby| self.standby_has(**standby, index, term));
        having.count() > standbys.len() / 2
    }

    /// Whether a standby has an entry synced.
    fn standby_has(&self, (node, replica): (NodeId, ReplicaId), index: Index, term: Option<Term>) -> bool {
        let log = self.host(node).log.as_log();
        let Ok(Some(state)) = log.state(replica) else { return false };
        if state.installing.is_some_and(|mark| mark.index >= index) || state.cut.index >= index {
            return true;
        }
        if state.last < index {
            return false;
        }
        let read = log.entries(replica, index, Index(index.0 + 1), usize::MAX).unwrap_or_default();
        read.first().is_some_and(|entry| term.is_none_or(|term| term.0 == entry.term))
    }

    /// Where a standby's synced log ends: term and index, as Raft compares candidates.
    fn standby_ends(&self, (node, replica): (NodeId, ReplicaId)) -> (u64, u64) {
        let log = self.host(node).log.as_log();
        let Ok(Some(state)) = log.state(replica) else { return (0, 0) };
        if let Some(mark) = state.installing {
            return (mark.term.0, mark.index.0);
        }
        let read = log.entries(replica, state.last, Index(state.last.0 + 1), usize::MAX);
        (read.ok().and_then(|read| Some(read.first()?.term)).unwrap_or(state.cut.term.0), state.last.0)
    }

    /// Whether of any majority of south's standbys those whose logs end last have an entry.
    fn is_elected_with(&self, partition: PartitionId, index: Index, term: Term) -> bool {
        let standbys = self.promise.standbys(partition);
        let seen: Vec<(bool, (u64, u64))> =
            standbys.iter().map(|s| (self.standby_has(*s, index, Some(term)), self.standby_ends(*s))).collect();
        let majority = seen.len() / 2 + 1;
        (0u32..1 << seen.len()).filter(|set| set.count_ones() as usize == majority).all(|set| {
            let of = || seen.iter().enumerate().filter(|(at, _)| set & (1 << at) != 0).map(|(_, standby)| standby);
            let last = of().map(|(_, ends)| *ends).max();
            of().filter(|(_, ends)| Some(*ends) == last).all(|(has, _)| *has)
        })
    }

    /// The term of an entry in a node's log; None if it is not there any more.
    pub(super) fn term_at(&self, node: NodeId, partition: PartitionId, index: Index) -> Option<Term> {
        let log = self.host(node).log.as_log();
        let read = log.entries(self.replica(node, partition)?, index, Index(index.0 + 1), usize::MAX).ok()?;
        read.first().map(|entry| Term(entry.term))
    }
}
