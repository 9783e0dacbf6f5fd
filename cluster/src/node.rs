//! All replicas of a node, and the one batch of writes that is outstanding.

mod control;
mod life;
mod mode;
mod takeover;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mailraft_storage::log::{Log, LogBatch, LogState};
use mailraft_storage::{DAMAGED_NODE_ADVICE, Env, Index, NodeId, PartitionId, ProposalOutcome, ReplicaId, Rows, Term};
use raft::eraftpb::HardState;

use self::control::ControlWatch;
use self::life::{Beginning, Life};
use self::mode::ModeKeeper;
use crate::balance;
use crate::clocks::Clocks;
use crate::config::{NodeConfig, RecoverError};
use crate::hints::{Hints, TELL_EVERY_TICKS};
use crate::members::Admission;
use crate::outcome::{BarrierOutcome, ChangeOutcome, Decision, SlotOutcome};
use crate::peer_check;
use crate::placement::MemberRow;
use crate::plant::{self, Fault};
use crate::reach::{self, Reach};
use crate::replica::{Replica, Speaks};
use crate::seam::{Input, Output, PeerBody, PeerMessage, RequestId, SnapshotEvent, SnapshotJob};
use crate::status::ReplicaStatus;
use crate::writes::ENTRY_HEAD_BYTES;

/// A write to the log that takes so many ticks (3 s) makes a node hand its leads over.
const DISK_STANDS_STILL_TICKS: u64 = 120;
/// So many ticks (60 s) after that its disk is trusted again: one that hangs now and then would get the leads in between.
const DISK_TRUSTED_AGAIN_TICKS: u64 = 2_400;
/// Entries read at once when the log is checked at start, in bytes.
const CHECK_BYTES: usize = 4 << 20;

/// The core of a node.
pub struct Node {
    config: NodeConfig,
    log: Arc<dyn Log>,
    replicas: BTreeMap<PartitionId, Replica>,
    by_replica: BTreeMap<ReplicaId, PartitionId>,
    /// What something happened to since it was settled last; some of them twice.
    dirty: Vec<PartitionId>,
    /// The batch that is being written, and whose writes are in it.
    outstanding: Option<(u64, Vec<ReplicaId>)>,
    /// When that batch was handed over, in ticks.
    outstanding_since: u64,
    /// When a batch was found that took too long, in ticks.
    hung_at: Option<u64>,
    life: Life,
    /// Had no place in the last batch: first in the next.
    passed_over: BTreeSet<PartitionId>,
    last_batch: u64,
    clocks: Clocks,
    /// Owners may start here: the cluster's time is no guess.
    settled: bool,
    handing_over: bool,
    /// It leads only what no other node can.
    reluctant: bool,
    ticks: u64,
    hints: Hints,
    led: BTreeMap<PartitionId, Term>,
    /// With several regions: how the control group's rows here bear on the other groups.
    control: ControlWatch,
    /// Which nodes hear each other.
    reach: Reach,
    /// With several regions: what leaders told of how far other regions are.
    mode: ModeKeeper,
}

impl Node {
    /// Makes the core of what the stores hold.
    ///
    /// # Errors
    /// If they hold damage. A damaged replica never comes back under its id.
    pub fn recover(
        config: NodeConfig,
        log: Arc<dyn Log>,
        rows: &dyn Rows,
        env: &mut Env,
    ) -> Result<Node, RecoverError> {
        let flushed: BTreeMap<ReplicaId, Index> = rows.flushed()?.into_iter().collect();
        let (mut replicas, mut by_replica) = (BTreeMap::new(), BTreeMap::new());
        let mut life = Life::recover(log.as_ref(), rows)?;
        for spec in &config.replicas {
            let (partition, replica) = (spec.partition, spec.replica);
            let damaged = |what: String| RecoverError::Damaged { partition, replica, what };
            let mut held = match life.begin(spec, log.as_ref(), rows)? {
                Beginning::Lives(held) => held,
                Beginning::Never => continue,
                Beginning::Damaged(what) => return Err(damaged(what)),
            };
            if held.state.installing.is_none() {
                check(log.as_ref(), replica, &held.state, held.applied.index).map_err(damaged)?;
            }
            held.flushed = flushed.get(&replica).copied().unwrap_or(Index(0));
            let boot = u64::from_be_bytes(env.bytes());
            let mut made = Replica::recover(&config, spec.clone(), Arc::clone(&log), *held, boot, env.now)
                .map_err(|e| damaged(e.to_string()))?;
            // Where nothing is written others would hear of its rows only after the next write.
            if let Some((index, sum)) = rows.proof().and_then(|proof| proof.sum(replica)) {
                made.begins_with_sum(index, sum);
            }
            replicas.insert(partition, made);
            by_replica.insert(replica, partition);
        }
        let dirty = replicas.keys().copied().collect();
        let last_batch = log.newest_batch();
        Ok(Node {
            config,
            log,
            replicas,
            by_replica,
            dirty,
            outstanding: None,
            outstanding_since: 0,
            hung_at: None,
            life,
            passed_over: BTreeSet::new(),
            last_batch,
            clocks: Clocks::default(),
            settled: false,
            handing_over: false,
            reluctant: false,
            ticks: 0,
            hints: Hints::default(),
            led: BTreeMap::new(),
            control: ControlWatch::default(),
            reach: Reach::default(),
            mode: ModeKeeper::default(),
        })
    }

    /// What is to be done before the first input.
    pub fn start(&mut self, env: &mut Env, out: &mut Vec<Output>) {
        // What was interrupted by the last end of the process.
        self.replicas.values_mut().for_each(|replica| replica.replace_rows(out));
        self.life.start(out);
        self.follows_takeovers(out);
        self.clocks.look(env);
        self.counts_clocks(env);
        // All replicas are looked at here, and those that changed from now on.
        self.hears_stamps(env);
        self.looks_at_clocks(env);
        self.settle(env, out);
    }

    /// Takes one input in.
    pub fn step(&mut self, env: &mut Env, input: Input, out: &mut Vec<Output>) {
        let first = out.len();
        let tick = matches!(input, Input::Tick);
        self.looks_at_clocks(env);
        match input {
            Input::Tick => self.tick(env, out),
            Input::Peer { from, message } => self.peer(env, from, message, out),
            Input::Propose { request, partition, proposal } => {
                let wall = self.clocks.wall(env);
                let outcome = match self.asked(partition) {
                    Some((config, replica)) => {
                        replica.looks_at_clock(env);
                        replica.propose(config, wall, proposal, request)
                    }
                    None => Some(ProposalOutcome::NotLeader { leader: None }),
                };
                decided(request, outcome.map(Decision::Proposal), out);
            }
            Input::ReadBarrier { request, partition, reader } => {
                let outcome = match self.asked(partition) {
                    Some((_, replica)) => replica.read_barrier(request, reader),
                    None => Some(BarrierOutcome::NotLeader { leader: None }),
                };
                decided(request, outcome.map(Decision::Barrier), out);
            }
            Input::AwaitSlot { request, partition, term, mailbox } => {
                let outcome = match self.asked(partition) {
                    Some((_, replica)) => replica.await_slot(request, term, mailbox),
                    None => Some(SlotOutcome::NotLeader { leader: None }),
                };
                decided(request, outcome.map(Decision::Slot), out);
            }
            Input::Reconfigure { request, partition, term, change } => {
                let outcome = match self.asked(partition) {
                    Some((_, replica)) => replica.change_members(term, change, request),
                    None => Some(ChangeOutcome::NotLeader { leader: None }),
                };
                decided(request, outcome.map(Decision::Change), out);
            }
            Input::Create { request, spec } => self.create(request, spec, out),
            Input::Destroy { replica } => self.destroy(replica, out),
            Input::TakeOver { request, incarnation, word } => self.take_over(request, incarnation, word, out),
            Input::SetRegions { request, id, settings } => {
                let outcome = self.set_regions(env, request, id, settings);
                decided(request, outcome.map(Decision::Settings), out);
            }
            Input::HandOver => {
                self.handing_over = true;
                self.hand_over();
            }
            Input::Reluctant { reluctant } => self.reluctant = reluctant,
            Input::Damaged { replica } => self.damaged(replica),
            Input::Unreachable { node } => {
                hint(self.hints.unreachable(node), out);
                for (partition, replica) in &mut self.replicas {
                    replica.unreachable(node);
                    self.dirty.push(*partition);
                }
            }
            Input::Persisted { number } => {
                let Some((outstanding, replicas)) = self.outstanding.take() else {
                    return out.push(Output::Abort(format!("batch {number} is durable, and none was outstanding")));
                };
                assert_eq!(number, outstanding, "batches become durable in their order");
                for replica in replicas {
                    let Some(partition) = self.by_replica.get(&replica) else { continue };
                    if let Some(replica) = self.replicas.get_mut(partition) {
                        replica.persisted(&self.config, env, out);
                        self.dirty.push(*partition);
                    }
                }
                self.life_persisted(env, out);
            }
            Input::Applied { replica, applied, verdicts, sum, regions } => {
                self.hears_regions(replica, regions, applied.index, out);
                if let Some((partition, replica)) = self.of(replica) {
                    replica.looks_at_clock(env);
                    replica.applied(applied, &verdicts, sum, out);
                    self.dirty.push(partition);
                }
            }
            Input::Flushed { upto } => {
                for (replica, index) in upto {
                    let Some(partition) = self.by_replica.get(&replica) else { continue };
                    if let Some(replica) = self.replicas.get_mut(partition) {
                        replica.flushed(index, &self.config);
                        self.dirty.push(*partition);
                    }
                }
            }
            Input::Snapshot(event) => self.snapshot(event, out),
        }
        self.hears_stamps(env);
        self.settle(env, out);
        self.hears_own_answer(env, first, out);
        self.tell_leads(env, first, tick, out);
        let begins = out[first..].iter().any(|output| matches!(output, Output::Leads { leading: Some(_), .. }));
        if (tick || begins)
            && let Some(ahead_ms) = self.clocks.news()
        {
            // Owners that begin are to know the time.
            out.insert(first, Output::Time { ahead_ms });
        }
    }

    /// How every replica is.
    pub fn status(&self) -> Vec<ReplicaStatus> {
        self.replicas.values().map(|r| r.status(&self.config)).collect()
    }

    /// The replica of each partition here.
    pub fn replica_ids(&self) -> BTreeMap<PartitionId, ReplicaId> {
        self.by_replica.iter().map(|(r, p)| (*p, *r)).collect()
    }

    fn of(&mut self, replica: ReplicaId) -> Option<(PartitionId, &mut Replica)> {
        let partition = *self.by_replica.get(&replica)?;
        Some((partition, self.replicas.get_mut(&partition)?))
    }

    /// The replica here of which something is asked.
    fn asked(&mut self, partition: PartitionId) -> Option<(&NodeConfig, &mut Replica)> {
        self.dirty.push(partition);
        Some((&self.config, self.replicas.get_mut(&partition)?))
    }

    /// The clocks that count are those of the control group's nodes: every node has a replica of it.
    fn counts_clocks(&mut self, env: &Env) {
        if let Some(control) = self.replicas.get(&PartitionId::CONTROL) {
            let others = control.members.rows().into_iter().map(|m| m.node).filter(|n| *n != self.config.node);
            self.clocks.others_are(env, others);
        }
    }

    /// The cluster's time is no earlier than what was applied.
    fn hears_stamps(&mut self, env: &Env) {
        for partition in &self.dirty {
            if let Some(replica) = self.replicas.get(partition) {
                self.clocks.stamped(env, replica.newest_stamp());
            }
        }
    }

    fn looks_at_clocks(&mut self, env: &Env) {
        self.clocks.look(env);
        if !self.settled && self.clocks.are_settled(env) {
            self.settled = true;
            // What is led here was not told to owners yet.
            self.dirty.extend(self.replicas.keys().copied());
        }
    }

    fn tick(&mut self, env: &Env, out: &mut Vec<Output>) {
        self.ticks += 1;
        self.asks_about_needs();
        if self.ticks.is_multiple_of(takeover::LOOK_EVERY_TICKS) {
            self.follows_takeovers(out);
        }
        self.keeps_mode(env, out);
        self.counts_clocks(env);
        self.tells_reach(env, out);
        hint(self.hints.tick(self.ticks), out);
        let unreadable: Vec<_> =
            self.replicas.values().filter_map(|r| Some((r.spec.replica, r.take_unreadable()?))).collect();
        for (replica, why) in unreadable {
            // Said once, though who lacks them asks again and again.
            if self.of(replica).is_none_or(|(_, found)| found.is_damaged()) {
                continue;
            }
            slog::error!(
                self.config.logger,
                "applied entries in the log of replica {replica} can't be read: {why}. It hands its lead over; check the \
                 disk; if more is damaged, {DAMAGED_NODE_ADVICE}"
            );
            self.damaged(replica);
        }
        let disk_hangs = self.disk_hangs();
        for (partition, replica) in &mut self.replicas {
            replica.set_reluctant(self.reluctant || disk_hangs);
            let mut stirs = replica.tick(&self.config, env, self.handing_over, out);
            if let Some(to) = replica.must_hand_over_to().or_else(|| replica.hands_over_unfit()) {
                replica.transfer(to);
                stirs = true;
            }
            if stirs {
                self.dirty.push(*partition);
            }
        }
        if self.handing_over {
            self.hand_over();
        } else if self.ticks.is_multiple_of(balance::LOOK_EVERY_TICKS) {
            let mut left = balance::hand_overs_max(self.replicas.len());
            for (partition, replica) in &mut self.replicas {
                // Every one is asked: each remembers how long another has been the better leader.
                if let Some(to) = replica.hand_over_preferred(&self.reach, left > 0) {
                    replica.transfer(to);
                    self.dirty.push(*partition);
                    left -= 1;
                }
            }
        }
    }

    /// Whether a write to the log has been under way for so long that others should lead, or lately was. Its heartbeats go out
    /// meanwhile, so nobody would take the lead from it: a disk that is slow for a moment must not look like a dead node, and one
    /// that hangs must.
    fn disk_hangs(&mut self) -> bool {
        if self.outstanding.is_some() && self.ticks - self.outstanding_since >= DISK_STANDS_STILL_TICKS {
            self.hung_at = Some(self.ticks);
        }
        self.hung_at.is_some_and(|at| self.ticks - at < DISK_TRUSTED_AGAIN_TICKS)
    }

    /// Counts whom this node hears, and tells those that may lead now and then.
    fn tells_reach(&mut self, env: &Env, out: &mut Vec<Output>) {
        let Some(control) = self.replicas.get(&PartitionId::CONTROL) else { return };
        let own = self.config.node;
        let others = control.members.rows().into_iter().filter(|m| m.node != own && control.members.votes(m.replica));
        let others: Vec<MemberRow> = others.collect();
        self.reach.tick(others.iter().map(|m| m.node).collect());
        if !self.ticks.is_multiple_of(reach::TELL_EVERY_TICKS) || !control.members.votes(control.spec.replica) {
            return;
        }
        for member in others {
            let body = PeerBody::Hears { nodes: self.reach.hears(), links: self.reach.links() };
            let message = control.message(&self.config, env, member.replica, body);
            out.push(Output::Send { to: member.node, message });
        }
    }

    /// Tells nodes without a replica of what is led here, in turn and when it changed.
    fn tell_leads(&mut self, env: &Env, first: usize, tick: bool, out: &mut Vec<Output>) {
        let mut changed = false;
        for output in &out[first..] {
            if let Output::Leads { partition, leading, .. } = output {
                changed = true;
                match leading {
                    Some(owners) => self.led.insert(*partition, owners.term),
                    None => self.led.remove(partition),
                };
            }
        }
        let due = tick && self.ticks.is_multiple_of(TELL_EVERY_TICKS);
        if !changed && !due {
            return;
        }
        let Some(control) = self.replicas.get(&PartitionId::CONTROL) else { return };
        for member in control.members.rows().into_iter().filter(|m| m.node != self.config.node) {
            let elsewhere = |r: &&Replica| !r.members.has_one_on(member.node);
            if !self.replicas.values().any(|r| elsewhere(&r)) {
                continue;
            }
            let led = self.replicas.values().filter(elsewhere);
            let led = led.filter_map(|r| Some((r.spec.partition, *self.led.get(&r.spec.partition)?))).collect();
            let message = control.message(&self.config, env, member.replica, PeerBody::Leads(led));
            out.push(Output::Send { to: member.node, message });
        }
    }

    fn hand_over(&mut self) {
        for (partition, replica) in &mut self.replicas {
            if let Some(to) = replica.hand_over_stopping() {
                replica.transfer(to);
                self.dirty.push(*partition);
            }
        }
    }

    fn damaged(&mut self, replica: ReplicaId) {
        let Some((partition, found)) = self.of(replica) else { return };
        found.found_damaged();
        if partition == PartitionId::CONTROL {
            self.replicas.values_mut().for_each(Replica::found_damaged);
        }
    }

    fn peer(&mut self, env: &Env, from: NodeId, message: PeerMessage, out: &mut Vec<Output>) {
        let PeerMessage { cluster, partition, wall, .. } = message;
        if let Err(refusal) = peer_check::envelope(cluster, self.config.cluster, wall, &message.body) {
            return out.push(Output::Refused { from, partition, refusal });
        }
        let here = self.replicas.get(&partition).is_some_and(|replica| replica.spec.replica == message.to);
        // Within an incarnation Raft's terms order everything: a member may still be behind its first entry.
        if !here || !self.is_of_own_incarnation(env, from, &message, out) {
            return;
        }
        let PeerMessage { from: sender, to, body, .. } = message;
        let handing_over = self.handing_over;
        let led = match &body {
            PeerBody::Leads(led) => {
                let unknown = |p: &PartitionId| self.replicas.get(p).is_none_or(Replica::is_stranger);
                Some(led.iter().copied().filter(|(p, _)| unknown(p)).collect::<Vec<_>>())
            }
            PeerBody::Raft(_)
            | PeerBody::Hash { .. }
            | PeerBody::Rows { .. }
            | PeerBody::Visible { .. }
            | PeerBody::Hears { .. }
            | PeerBody::Modes(_)
            | PeerBody::HeldBut(_)
            | PeerBody::TakenOver(_)
            | PeerBody::Removed => None,
        };
        let Some(replica) = self.replicas.get_mut(&partition) else { return };
        if replica.spec.replica != to {
            return;
        }
        replica.looks_at_clock(env);
        match replica.members.admit(sender, from) {
            Admission::Heard => {}
            // A leader that was removed hands over before it goes.
            Admission::Removed if replica.follows(sender, &body) => {}
            Admission::Removed => {
                // The group sends it nothing any more, so it could never learn that it is gone.
                if !matches!(body, PeerBody::Removed) {
                    let message = replica.message(&self.config, env, sender, PeerBody::Removed);
                    out.push(Output::Send { to: from, message });
                }
                return;
            }
            Admission::Foreign => return,
        }
        self.clocks.heard(env, from, wall);
        self.reach.heard(from);
        if let PeerBody::Hears { nodes, links } = &body {
            self.reach.told(from, self.config.node, nodes, *links);
        }
        if let Some(led) = led {
            return hint(self.hints.told(from, &led, self.ticks), out);
        }
        let body = match (body, &self.config.regions) {
            (PeerBody::Modes(reports), Some(regions)) => return self.mode.hears(self.ticks, regions, reports),
            (PeerBody::HeldBut(held), Some(regions)) => return self.mode.hears_held(env.now, regions, held),
            (PeerBody::Modes(_) | PeerBody::HeldBut(_), None) => return,
            (other, _) => other,
        };
        match replica.peer(&self.config, sender, body, handing_over, out) {
            Ok(()) => self.dirty.push(partition),
            Err(refusal) => out.push(Output::Refused { from, partition, refusal }),
        }
    }

    fn snapshot(&mut self, event: SnapshotEvent, out: &mut Vec<Output>) {
        match event {
            SnapshotEvent::Sent { replica, to, ok } => {
                if let Some((partition, replica)) = self.of(replica) {
                    replica.snapshot_sent(to, ok);
                    self.dirty.push(partition);
                }
            }
            SnapshotEvent::Staged { from, message, applied } => {
                let to = message.to;
                let replica = self.replicas.get_mut(&message.partition).and_then(|replica| {
                    let belongs = message.cluster == self.config.cluster
                        && replica.spec.replica == to
                        && replica.serves()
                        && replica.speaks(message.incarnation) == Speaks::Own
                        && replica.members.admit(message.from, from) == Admission::Heard;
                    belongs.then_some(replica)
                });
                match (replica, message.body) {
                    (Some(replica), PeerBody::Raft(raft)) => {
                        let partition = message.partition;
                        if let Err(refusal) = replica.snapshot_staged(&self.config, message.from, raft, applied, out) {
                            out.push(Output::Refused { from, partition, refusal });
                        }
                        self.dirty.push(partition);
                    }
                    // Whoever staged it waits to hear what becomes of it, and takes no other before.
                    _ => out.push(Output::Snapshot(SnapshotJob::Discard { replica: to })),
                }
            }
            SnapshotEvent::Installed { replica, group, regions } => {
                let applied = self.of(replica).map_or(Index(0), |(_, replica)| replica.applied_index());
                self.hears_regions(replica, regions, applied, out);
                if let Some((partition, replica)) = self.of(replica) {
                    replica.rows_installed(&group);
                    self.dirty.push(partition);
                }
            }
        }
    }

    /// Carries out what raft-rs has ready.
    fn collect(&mut self, env: &mut Env, out: &mut Vec<Output>) {
        let time = self.settled.then(|| self.clocks.wall(env));
        let mut dirty = std::mem::take(&mut self.dirty);
        dirty.sort_unstable();
        dirty.dedup();
        for partition in dirty.drain(..) {
            if let Some(replica) = self.replicas.get_mut(&partition) {
                replica.collect(&self.config, env, time, out);
                debug_assert!(!replica.has_work());
                if !replica.is_stranger() {
                    self.hints.forget(partition);
                }
                if replica.is_over() {
                    self.end(partition, out);
                }
            }
        }
        if self.dirty.is_empty() {
            // Its room is for the next.
            self.dirty = dirty;
        }
    }

    /// Carries out what raft-rs has ready, then starts the next batch if none is outstanding.
    fn settle(&mut self, env: &mut Env, out: &mut Vec<Output>) {
        self.collect(env, out);
        // What became visible of the control group may make more visible elsewhere.
        while self.looks_at_control() {
            self.collect(env, out);
        }
        let waits = self.life.waits() || self.replicas.values_mut().any(|r| r.writes().needs_sync());
        let turns = self.turns_to_write(out);
        for write in turns {
            let replica = write.replica;
            self.life.turns(write);
            if plant::is(Fault::AdoptsUnsynced) {
                self.turned(replica, env, out);
            }
        }
        let waits = waits || self.life.waits();
        if self.outstanding.is_some() || !waits {
            return;
        }
        // Small writes first: heartbeats' answers must not wait behind uploads.
        let passed_over = std::mem::take(&mut self.passed_over);
        let mut waiting: Vec<(bool, usize, PartitionId)> =
            self.replicas.iter_mut().map(|(p, r)| (!passed_over.contains(p), r.writes().waiting_bytes(), *p)).collect();
        waiting.sort_unstable();
        let (mut batch, mut replicas) = (LogBatch::default(), Vec::new());
        let mut room = self.config.log_batch_max_bytes;
        for (_, _, partition) in waiting {
            let Some(replica) = self.replicas.get_mut(&partition) else { continue };
            if let Some(write) = replica.writes().take(room, batch.writes.is_empty()) {
                let bytes: usize = write.append.iter().map(|e| e.data.len() + ENTRY_HEAD_BYTES).sum();
                room = room.saturating_sub(bytes);
                batch.writes.push(write);
                replicas.push(replica.spec.replica);
            } else if replica.writes().needs_sync() {
                self.passed_over.insert(partition);
            }
        }
        batch.writes.extend(self.life.take());
        if batch.writes.is_empty() {
            return;
        }
        self.last_batch += 1;
        (self.outstanding, self.outstanding_since) = (Some((self.last_batch, replicas)), self.ticks);
        out.push(Output::Persist { number: self.last_batch, batch });
    }
}

/// Answers a question, if it is decided already.
fn decided(request: RequestId, decision: Option<Decision>, out: &mut Vec<Output>) {
    out.extend(decision.map(|decision| Output::Decided { request, decision }));
}

/// Hints as outputs.
fn hint(news: Vec<(PartitionId, Option<NodeId>)>, out: &mut Vec<Output>) {
    out.extend(news.into_iter().map(|(partition, node)| Output::Leader { partition, node }));
}

/// Reads every entry that is not applied yet: raft-rs would stop the process at one that can't be read.
fn check(log: &dyn Log, replica: ReplicaId, state: &LogState, applied: Index) -> Result<(), String> {
    if applied < state.cut.index {
        return Err(format!("its rows end at {applied}, and its log begins after {}", state.cut.index));
    }
    let HardState { term, commit, .. } = state.hard_state;
    if commit > state.last.0 {
        return Err(format!("entries up to {commit} are committed, and its log ends at {}", state.last));
    }
    if applied > state.last {
        return Err(format!("its rows are at {applied}, and its log ends at {}", state.last));
    }
    let mut next = Index(applied.0 + 1);
    while next <= state.last {
        let read = log.entries(replica, next, Index(state.last.0 + 1), CHECK_BYTES).map_err(|e| e.to_string())?;
        for entry in &read {
            if entry.index != next.0 {
                return Err(format!("its log has entry {} where {next} should be", entry.index));
            }
            if entry.term > term && !plant::is(Fault::ForgetHardState) {
                return Err(format!(
                    "its log has entry {next} of term {}, and it has seen only term {term}",
                    entry.term
                ));
            }
            next = Index(next.0 + 1);
        }
        if read.is_empty() {
            return Err(format!("its log has no entry {next}"));
        }
    }
    Ok(())
}
