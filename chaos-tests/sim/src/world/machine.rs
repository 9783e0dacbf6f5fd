//! The cores of the nodes: what goes in, what comes out, and the work of the threads around them.

use std::sync::Arc;

use mailraft_checkers::{Micros, Rule};
use mailraft_cluster::apply::{AppliedJob, apply};
use mailraft_cluster::regions::Regions;
use mailraft_cluster::{
    ApplyJob, Decision, Input, Node, Output, OwnersTerm, PeerBody, PeerMessage, SnapshotEvent, SnapshotJob, placement,
};
use mailraft_storage::log::InstallMark;
use mailraft_storage::{NodeId, ProposalOutcome, ReplicaId, Rows};
use raft::eraftpb::MessageType;

use crate::actors::Leading;
use crate::chain::{chains_of, wrong_chain};
use crate::event::{Event, Local};
use crate::host::{ApplyWork, take_snapshot};
use crate::plant::{self, Fault as Planted};
use crate::world::World;

/// A tick of the core, in microseconds of its node's clock.
const TICK: Micros = 25_000;
/// Between flushes of the rows, in the mean.
const FLUSH_EVERY: Micros = 2_000_000;
/// Sending a snapshot takes so long, in the mean.
const SNAPSHOT_TAKES: Micros = 40_000;
/// Jobs of apply that are done together.
const APPLY_MAX_JOBS: usize = 16;

impl World {
    /// Starts a node's process.
    pub fn start(&mut self, node: NodeId) {
        let now = self.now();
        let World { hosts, setup, .. } = self;
        let host = hosts.get_mut(&node).unwrap_or_else(|| panic!("there is no node {node}"));
        if host.up.is_some() || host.lost.is_some() || host.disk.full {
            return;
        }
        let log_corrupt = host.log_corrupt;
        match host.start(now, setup) {
            Ok(_) if log_corrupt => {
                self.goes_wrong(Rule::ReplicasAgree, format!("node {node} starts with a damaged log"));
            }
            Err(why) if log_corrupt => {
                self.say(format!("node {node} finds the damage and stays away: {why}"));
                self.host_mut(node).lost = Some(why);
                self.replaces_all_of(node);
            }
            Ok(outputs) => {
                self.say(format!("node {node} starts"));
                let first_tick = now + self.dice.below(TICK);
                self.later(node, first_tick, Local::Tick);
                let flush = now + self.dice.exponential(FLUSH_EVERY);
                self.later(node, flush, Local::Flush);
                self.carry_out(node, outputs);
            }
            Err(why) if self.host(node).log_spoilt || !self.host(node).corrupted.is_empty() => {
                self.stops_damaged(node, why);
            }
            Err(why) => {
                self.say(format!("node {node} can't start: {why}"));
                self.host_mut(node).lost = Some(why.clone());
                // No fault that is planned leaves damage: a torn tail is none.
                self.goes_wrong(Rule::ReplicasAgree, format!("node {node} finds damage where none was done: {why}"));
            }
        }
    }

    /// A node's process dies.
    pub fn crash(&mut self, node: NodeId, torn: usize) {
        if self.host_mut(node).up.is_none() {
            return;
        }
        self.say(format!("node {node} dies"));
        self.counts_death(node);
        let now = self.now();
        let World { hosts, dice, .. } = self;
        if let Some(host) = hosts.get_mut(&node) {
            host.down_since = now;
            host.crash(dice, torn);
        }
        self.inputs.forget(node);
        let others: Vec<NodeId> = self.hosts.keys().copied().filter(|n| *n != node).collect();
        for other in others {
            let at = self.now() + self.dice.between(200, 2_000);
            self.queue.push(at, Event::To(other, Local::Unreachable(node)));
        }
        self.connections_to_end(node);
        self.clients_of_end(node);
    }

    /// Takes in everything that follows from the present event.
    pub fn settle(&mut self) {
        let mut out = self.inputs.take_room();
        while let Some((node, input)) = self.inputs.pop() {
            self.takes_in(node, input, &mut out);
        }
        self.inputs.give_room(out);
    }

    /// As the first thing that follows from an event: nothing else waits yet.
    fn takes_in_at_once(&mut self, node: NodeId, input: Input) {
        assert!(self.inputs.is_empty(), "inputs keep their order");
        let mut out = self.inputs.take_room();
        self.takes_in(node, input, &mut out);
        self.inputs.give_room(out);
    }

    /// A node's core takes one input in.
    fn takes_in(&mut self, node: NodeId, input: Input, out: &mut Vec<Output>) {
        let now = self.now();
        let host = self.host_mut(node);
        host.tell_time(now);
        let Some(process) = host.up.as_mut() else { return };
        process.core.step(&mut process.env, input, out);
        self.carry_out(node, out.drain(..));
    }

    /// Something happens on a node.
    pub fn local(&mut self, node: NodeId, what: Local) {
        let now = self.now();
        match what {
            Local::Tick => {
                let next = now + self.host_mut(node).clock.in_world(TICK) * self.host(node).slow.min(4);
                self.later(node, next, Local::Tick);
                self.takes_in_at_once(node, Input::Tick);
                self.host_mut(node).tells_cluster_time(now);
            }
            Local::Peer(from, message) => self.takes_in_at_once(node, Input::Peer { from, message: *message }),
            Local::Unreachable(other) => self.input(node, Input::Unreachable { node: other }),
            Local::Synced => self.synced(node),
            Local::Applied => self.applied_now(node),
            Local::Flush => self.flush(node),
            Local::Installed(replica) => self.installed_now(node, replica),
            Local::Snapshot(event) => self.input(node, Input::Snapshot(*event)),
            Local::Late(input) => self.input(node, *input),
            Local::Load(mailbox, actor) => self.actor_loads(node, mailbox, actor),
            Local::Read(mailbox, actor, read) => self.actor_reads(node, mailbox, actor, read),
            Local::Again(mailbox, actor) => self.actor_again(node, mailbox, actor),
            Local::DirectoryAsk(asker, id, command) => self.directory_hears(node, asker, id, *command),
            Local::DirectoryLoad(number) => self.directory_loads(node, number),
            Local::DirectoryAgain(number) => self.directory_again(node, number),
            Local::DirectoryTurn(number) => self.directory_turn(node, number),
            Local::FromSession(session, conn, from, what) => self.actor_hears(node, session, conn, from, *what),
        }
    }

    fn carry_out(&mut self, node: NodeId, outputs: impl IntoIterator<Item = Output>) {
        for output in outputs {
            if let Some(left) = self.host_mut(node).dies_after.as_mut() {
                *left = left.saturating_sub(1);
                if *left == 0 {
                    self.say(format!("node {node} dies between two outputs"));
                    let torn = if self.dice.chance(500) { 0 } else { self.dice.below(5_000) as usize };
                    return self.crash(node, torn);
                }
            }
            if self.host_mut(node).up.is_none() {
                return;
            }
            self.output(node, output);
        }
    }

    fn output(&mut self, node: NodeId, output: Output) {
        let now = self.now();
        match output {
            Output::Persist { number, batch } => {
                let World { hosts, dice, .. } = self;
                let Some(host) = hosts.get_mut(&node) else { return };
                let at = host.fsync(dice, now);
                let written = host.log.write_unsynced(number, &batch);
                let Some(process) = host.up.as_mut() else { return };
                assert!(process.writing.is_none(), "two batches outstanding");
                process.writing = Some((number, batch));
                if let Err(error) = written {
                    return self.goes_wrong(Rule::ReplicasAgree, format!("node {node}: {error}"));
                }
                self.later(node, at, Local::Synced);
            }
            Output::Apply(job) => {
                self.configuration_is_durable(node, &job);
                if let Some(process) = self.host_mut(node).up.as_mut() {
                    process.to_apply.push_back(ApplyWork::Entries(job));
                }
                self.apply_next(node);
            }
            Output::Committed { .. } | Output::Waited { .. } => {}
            Output::Send { to, mut message } => {
                if let PeerBody::Hash { hash, .. } = &mut message.body
                    && self.promise.is_rotten(node)
                {
                    hash[0] ^= 1;
                }
                self.sends(node, to, Box::new(message));
            }
            Output::Decided { request, decision } => self.decided(node, request, decision),
            Output::Leads { partition, replica, leading } => {
                if let Some(OwnersTerm { term, .. }) = leading {
                    let before = self.witness.leads(partition, term, node);
                    if before.is_some() {
                        self.goes_wrong(
                            Rule::ReplicasAgree,
                            format!("term {term} of partition {partition} is led by {before:?} and by {node}"),
                        );
                    }
                    self.say(format!("node {node} leads partition {partition} in term {term}"));
                }
                let leading = leading.map(|OwnersTerm { term, incarnation, began_alone }| Leading {
                    replica,
                    term,
                    incarnation,
                    began_alone,
                });
                if let Some(process) = self.host_mut(node).up.as_mut() {
                    match leading {
                        Some(leading) => process.leading.insert(partition, leading),
                        None => process.leading.remove(&partition),
                    };
                }
                self.actors_end(node, partition);
                self.directory_ends(node);
            }
            Output::Leader { partition, node: leader } => {
                if let Some(process) = self.host_mut(node).up.as_mut() {
                    match leader {
                        Some(leader) => process.leaders.insert(partition, leader),
                        None => process.leaders.remove(&partition),
                    };
                }
                self.sessions_hear_of_leader(node, partition);
            }
            Output::Time { ahead_ms } => {
                let now = self.now();
                let host = self.host_mut(node);
                if let Some(process) = host.up.as_mut() {
                    process.ahead_ms = ahead_ms;
                }
                host.tells_cluster_time(now);
            }
            Output::Snapshot(job) => self.snapshot(node, job),
            Output::Differs { other, .. } if self.promise.is_rotten_standby(other) => {}
            Output::Differs { replica, other, count, difference, .. } => {
                let what = format!("node {node}: {replica} and {other} differ on {count} entries: {difference:?}");
                self.goes_wrong(Rule::ReplicasAgree, what);
            }
            Output::RowsDiffer { replica, other, index, difference, .. } => {
                self.say(format!("node {node}: rows of {replica} and {other} differ at {index}: {difference:?}"));
            }
            Output::Distrust { partition, index, .. } => {
                self.meets_damage(node, partition, &format!("its rows differ from a majority's at {index}"));
            }
            // A log that lost entries is told that it had them; the operator hears of it, and sets the node aside.
            Output::Refused { refusal, .. } if self.host(node).log_spoilt => {
                self.stops_damaged(node, refusal.to_string());
            }
            Output::Refused { from, refusal, .. } => {
                let what = format!("node {node} refuses what node {from} says, and nobody lies: {refusal}");
                self.goes_wrong(Rule::ReplicasAgree, what);
            }
            Output::Abort(why) if self.host(node).log_spoilt => self.stops_damaged(node, why),
            Output::Abort(why) => {
                self.goes_wrong(Rule::ReplicasAgree, format!("node {node} stops: {why}"));
                self.crash(node, 0);
                self.host_mut(node).lost = Some(why);
            }
        }
    }

    fn sends(&mut self, node: NodeId, to: NodeId, message: Box<PeerMessage>) {
        let now = self.now();
        let World { witness, hosts, .. } = self;
        if let PeerBody::Raft(raft) = &message.body {
            let kind = raft.get_msg_type() as u64;
            witness.event(now, &[1, node.0, to.0, kind, raft.term, raft.index, raft.commit]);
            let life = hosts.get(&node).map_or(0, |h| h.life);
            let of = |core: &Node| core.replica_ids().values().any(|replica| replica.0 == raft.from);
            let own = raft.get_msg_type() != MessageType::MsgReadIndex
                || hosts.get(&node).and_then(|h| h.up.as_ref()).is_some_and(|p| of(&p.core));
            if let Some(what) = witness.sent(node, life, own, raft) {
                return self.goes_wrong(Rule::Stale, what);
            }
            self.commit_is_held(node, to, message.partition, raft);
        }
        let World { net, dice, queue, .. } = self;
        let [first, second] = net.datagram(dice, now, node, to);
        let again = second.map(|at| (at, message.clone()));
        if let Some(at) = first {
            queue.push(at, Event::To(to, Local::Peer(node, message)));
        }
        if let Some((at, message)) = again {
            queue.push(at, Event::To(to, Local::Peer(node, message)));
        }
    }

    /// A change of the configuration is applied only when it is durable that it is committed: else a crash could
    /// take that back, and this replica would count votes by another configuration than the one it acted on.
    fn configuration_is_durable(&mut self, node: NodeId, job: &ApplyJob) {
        let changed = job.entries.iter().filter(|(_, conf)| conf.is_some()).map(|(entry, _)| entry.index).max();
        let Some(index) = changed else { return };
        let commit = self.host(node).log.as_log().state(job.replica).ok().flatten().map_or(0, |s| s.hard_state.commit);
        if commit < index {
            let what = format!("node {node} applies configuration change {index}; durably committed is only {commit}");
            self.goes_wrong(Rule::ReplicasAgree, what);
        }
    }

    fn decided(&mut self, node: NodeId, request: mailraft_cluster::RequestId, decision: Decision) {
        let Some(process) = self.host_mut(node).up.as_mut() else { return };
        let Some(waiter) = process.waiting.remove(&request) else {
            return self.goes_wrong(Rule::ReplicasAgree, format!("node {node} decides {request:?} twice"));
        };
        if let Decision::Proposal(ProposalOutcome::Applied { index, verdict }) = &decision {
            let now = self.now();
            self.witness.event(now, &[2, node.0, index.0, *verdict as u64]);
        }
        self.decision_is_held(node, &waiter, &decision);
        self.waiter_hears(node, waiter, decision);
    }

    fn synced(&mut self, node: NodeId) {
        let now = self.now();
        let host = self.host_mut(node);
        if host.disk.stuck_until > now {
            let at = host.disk.stuck_until;
            return self.later(node, at, Local::Synced);
        }
        if let Some(torn) = host.disk.fail_next.take() {
            self.say(format!("an fsync of node {node} fails"));
            return self.crash(node, torn);
        }
        if host.disk.full {
            self.say(format!("the disk of node {node} is full"));
            return self.crash(node, 0);
        }
        let Some((number, batch)) = host.up.as_mut().and_then(|p| p.writing.take()) else { return };
        if let Err(error) = host.log.sync() {
            return self.goes_wrong(Rule::ReplicasAgree, format!("node {node}: {error}"));
        }
        for write in batch.writes.iter().filter(|write| write.mark == Some(InstallMark::Over)) {
            host.staged.retain(|(replica, _), _| *replica != write.replica);
            if let Some(process) = host.up.as_mut() {
                process.installing.remove(&write.replica);
            }
        }
        if batch.writes.iter().any(|w| w.compact.is_some() || w.reset.is_some()) {
            match host.log.reclaim() {
                Ok(damaged) => damaged.into_iter().for_each(|replica| self.meets_damaged_entries(node, replica)),
                Err(error) => return self.goes_wrong(Rule::ReplicasAgree, format!("node {node}: {error}")),
            }
        }
        self.input(node, Input::Persisted { number });
    }

    fn apply_next(&mut self, node: NodeId) {
        let now = self.now();
        let World { hosts, dice, .. } = self;
        let Some(host) = hosts.get_mut(&node) else { return };
        let at = host.work(dice, now, 60);
        let install_at = host.work(dice, now, 20_000);
        let Some(process) = host.up.as_mut().filter(|p| !p.apply_busy) else { return };
        while let Some(work) = process.to_apply.pop_front() {
            match work {
                ApplyWork::Entries(job) => process.applying.push(job),
                ApplyWork::Install(replica, applied) if process.applying.is_empty() => {
                    debug_assert!(process.installing.get(&replica) == Some(&applied));
                    process.replacing.insert(replica);
                    self.later(node, install_at, Local::Installed(replica));
                    return self.apply_next(node);
                }
                ApplyWork::Remove(replica) if process.applying.is_empty() => {
                    host.staged.retain(|(of, _), _| *of != replica);
                    if let Err(error) = host.rows.remove(replica) {
                        return self.goes_wrong(Rule::ReplicasAgree, format!("node {node}: {error}"));
                    }
                    return self.apply_next(node);
                }
                later @ (ApplyWork::Install(..) | ApplyWork::Remove(_)) => {
                    process.to_apply.push_front(later);
                    break;
                }
            }
            if process.applying.len() == APPLY_MAX_JOBS {
                break;
            }
        }
        if process.applying.is_empty() {
            return;
        }
        process.apply_busy = true;
        self.later(node, at, Local::Applied);
    }

    fn applied_now(&mut self, node: NodeId) {
        let host = self.host_mut(node);
        let Some(process) = host.up.as_mut() else { return };
        process.apply_busy = false;
        let jobs = std::mem::take(&mut process.applying);
        let before = chains_of(&host.rows, &jobs);
        match apply(&host.rows, &jobs) {
            Ok(done) => {
                let wrong = before.and_then(|before| wrong_chain(before, &jobs, &done));
                if let Some(what) = wrong {
                    return self.goes_wrong(Rule::ReplicasAgree, format!("node {node}: {what}"));
                }
                for regions in done.iter().filter_map(|done| done.regions.as_ref()) {
                    self.mode_is_recorded(node, regions.mode());
                }
                for AppliedJob { replica, applied, verdicts, sum, regions } in done {
                    self.input(node, Input::Applied { replica, applied, verdicts, sum, regions });
                }
            }
            Err(stop) => return self.stops_damaged(node, format!("it can't apply: {stop}")),
        }
        self.apply_next(node);
    }

    fn flush(&mut self, node: NodeId) {
        let next = self.now() + self.dice.exponential(FLUSH_EVERY) + 1;
        self.later(node, next, Local::Flush);
        let now = self.now();
        let host = self.host_mut(node);
        if host.disk.stuck_until > now {
            return;
        }
        match host.rows.flush() {
            Ok(upto) => self.input(node, Input::Flushed { upto }),
            Err(error) => self.stops_damaged(node, format!("it can't flush: {error}")),
        }
    }

    fn snapshot(&mut self, node: NodeId, job: SnapshotJob) {
        let now = self.now();
        match job {
            SnapshotJob::Send { replica, to, mut message } => {
                let (receiver, partition) = (message.to, message.partition);
                let takes = self.dice.exponential(SNAPSHOT_TAKES) + 1_000 + self.net.distance(node, to);
                let taken = take_snapshot(&self.host_mut(node).rows, replica).unwrap_or_else(|error| {
                    self.meets_damage(node, partition, &error);
                    None
                });
                let reached = !self.net.is_blocked(node, to) && self.host(to).up.is_some();
                let (true, Some(staged)) = (reached, taken) else {
                    let failed = SnapshotEvent::Sent { replica, to: receiver, ok: false };
                    return self.later(node, now + takes, Local::Snapshot(Box::new(failed)));
                };
                assert!(message.set_position(&staged.0), "a snapshot is sent with Raft's message for it");
                let life = self.host_mut(node).life;
                self.say(format!(
                    "node {node} sends a snapshot of replica {replica} at {} to node {to}",
                    staged.0.index
                ));
                self.queue.push(now + takes, Event::Snapshot(to, node, life, Box::new(message), Box::new(staged)));
            }
            SnapshotJob::Install { replica, applied } => {
                if let Some(process) = self.host_mut(node).up.as_mut() {
                    process.installing.insert(replica, applied.clone());
                    process.to_apply.push_back(ApplyWork::Install(replica, applied));
                }
                self.apply_next(node);
            }
            SnapshotJob::Remove { replica } => {
                if let Some(process) = self.host_mut(node).up.as_mut() {
                    process.to_apply.push_back(ApplyWork::Remove(replica));
                }
                self.apply_next(node);
            }
            SnapshotJob::Discard { replica } => {
                let host = self.host_mut(node);
                let begun = host.up.as_ref().and_then(|p| p.installing.get(&replica)).map(|a| a.index);
                host.staged.retain(|(of, index), _| *of != replica || Some(*index) == begun);
            }
        }
    }

    /// A snapshot arrives at a node whole, and is synced as files.
    pub fn snapshot_arrives(
        &mut self,
        to: NodeId,
        from: NodeId,
        life: u64,
        message: mailraft_cluster::PeerMessage,
        mut staged: crate::host::Staged,
    ) {
        let (sender, receiver) = (message.from, message.to);
        if plant::is(Planted::SnapshotRowsNewer)
            && let Ok(Some((_, newer))) = take_snapshot(&self.host(from).rows, sender)
        {
            staged.1 = newer;
        }
        let ok = !self.net.is_blocked(from, to) && self.host(to).up.is_some();
        if ok {
            let applied = staged.0.clone();
            self.host_mut(to).staged.insert((receiver, applied.index), staged);
            self.input(to, Input::Snapshot(SnapshotEvent::Staged { from, message, applied }));
        }
        let sent = SnapshotEvent::Sent { replica: sender, to: receiver, ok };
        self.queue.push(self.now() + 500, Event::On(from, life, Local::Snapshot(Box::new(sent))));
    }

    fn installed_now(&mut self, node: NodeId, replica: ReplicaId) {
        if std::mem::take(&mut self.host_mut(node).dies_at_install) {
            return self.crash(node, 0);
        }
        let host = self.host_mut(node);
        let Some(applied) = host.up.as_ref().and_then(|p| p.installing.get(&replica).cloned()) else { return };
        let Some((staged, rows)) = host.staged.get(&(replica, applied.index)) else {
            return self
                .goes_wrong(Rule::ReplicasAgree, format!("node {node} has no snapshot of {replica} to install"));
        };
        if *staged != applied {
            let what = format!("node {node} installs a snapshot at {} and has one at {}", applied.index, staged.index);
            return self.goes_wrong(Rule::ReplicasAgree, what);
        }
        let rows = rows.iter().map(|(key, value)| Ok((key.clone(), value.clone())));
        if let Err(error) = host.rows.replace(replica, &applied, &mut rows.collect::<Vec<_>>().into_iter()) {
            return self.goes_wrong(Rule::ReplicasAgree, format!("node {node}: {error}"));
        }
        if let Some(process) = host.up.as_mut() {
            process.replacing.remove(&replica);
        }
        self.witness.snapshot_installed();
        self.log_is_replaced(node, replica);
        self.say(format!("node {node} has installed a snapshot of replica {replica} at {}", applied.index));
        let rows = &self.host_mut(node).rows;
        let read = placement::group(rows, replica).and_then(|g| Ok((g, Regions::from_rows(rows, replica)?)));
        let (group, regions) = match read {
            Ok((group, regions)) => (group, regions.map(Arc::new)),
            Err(error) => return self.goes_wrong(Rule::ReplicasAgree, format!("node {node}: {error}")),
        };
        self.input(node, Input::Snapshot(SnapshotEvent::Installed { replica, group, regions }));
        self.apply_next(node);
    }
}
