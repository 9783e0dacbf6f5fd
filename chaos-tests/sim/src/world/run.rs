//! A whole run: a world is made, goes through faults, heals, comes to rest, and is looked at.

use std::collections::BTreeMap;

use mailraft_checkers::{Bounds, Micros, Op, Record, Report, Rule};
use mailraft_storage::log::LogBatch;
use mailraft_storage::rows::{ReplicaBatch, RowsView, state_hash};
use mailraft_storage::{Env, NodeId, PartitionId, RowBatch, RowKey, Rows, StoreError, Table};
use sha2::{Digest, Sha256};

use super::directory::first_directory_rows;
use super::takeover::Names;
use super::{Beginners, World};
use crate::clients::Clients;
use crate::clock::Clock;
use crate::dice::Dice;
use crate::event::Event;
use crate::faults::{Fault, Planned, Size, draw, draw_of_regions, draw_of_settings};
use crate::host::Host;
use crate::inputs::Inputs;
use crate::mailboxes::Mailboxes;
use crate::moments::Moments;
use crate::moves::Moves;
use crate::net::Net;
use crate::node_log::NodeLog;
use crate::office::Office;
use crate::promise::{Promise, first_state};
use crate::queue::Queue;
use crate::session::Kind;
use crate::setup::Setup;
use crate::under_way::UnderWay;
use crate::unresolved::Unresolved;
use crate::witness::{Verdict, Witness};

/// Once healed, every partition serves again within this time.
pub const SERVES_WITHIN: Micros = 5_000_000;
/// Results of commands are evicted at every so many looks at the replicas.
const EVICT_EVERY_LOOKS: u64 = 7;
/// By so much leaders may differ about what has been remembered long enough, beside a quarter of it: their clocks do, and
/// drift.
const CLOCKS_APART: Micros = 2_200_000;
/// What was remembered long enough, is remembered no longer after this time and four times as long.
const FORGOTTEN_WITHIN: Micros = 30_000_000;
/// A flapping link changes so often, in the mean.
const FLAP_EVERY: Micros = 300_000;
/// A client that was told of damage asks again after this time.
const ASKS_AGAIN: Micros = 100_000;
/// After the last operation everything comes to rest within this time.
pub const REST: Micros = 8_000_000;

/// What a run showed.
#[derive(Debug)]
pub struct Ran {
    /// What the checkers and the world itself found.
    pub report: Report,
    /// The hash of everything that happened.
    pub hash: [u8; 32],
    /// How many events happened.
    pub events: u64,
    /// Simulated time.
    pub simulated: Micros,
    /// Client operations that ended.
    pub operations: u64,
    /// Snapshots installed.
    pub installed: u64,
    /// Changes of accounts that were answered.
    pub accounts_changed: usize,
    /// What it came to in takeovers, and how often.
    pub moments: Moments,
    /// The last lines of what happened.
    pub timeline: Vec<String>,
    /// The faults there were.
    pub plan: Vec<Planned>,
}

/// Faults as a world's seed draws them.
pub fn faults_of(setup: &Setup) -> Vec<Planned> {
    let mut dice = Dice::new(setup.seed, 3);
    let Setup { nodes, partitions, ballots_permille, clocks_wrong_max, .. } = *setup;
    let size = Size { nodes, partitions, ballots_permille, clocks_wrong_max };
    let mut plan = draw(&mut dice, size, 2_000_000, setup.safety, setup.fault_every);
    plan.extend(draw_of_regions(setup));
    plan.extend(draw_of_settings(setup));
    plan
}

/// Runs a world with these faults.
pub fn run_with(setup: Setup, plan: Vec<Planned>) -> Ran {
    let mut world = World::new(setup, plan);
    let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.whole_run()));
    if let Err(panic) = ran {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words");
        world.goes_wrong(Rule::ReplicasAgree, format!("an assertion stops the process: {text}"));
    }
    world.finish()
}

impl World {
    /// A new cluster, with nothing in it but its first mailboxes.
    pub fn new(setup: Setup, plan: Vec<Planned>) -> Self {
        let mut env = Env::seeded(setup.seed ^ 0xc11e_0715);
        let takes_over =
            plan.iter().any(|planned| matches!(planned.fault, Fault::TakeOver { .. } | Fault::TakeOverAnew { .. }));
        let mailboxes = Mailboxes::new(setup.mailboxes, setup.partitions, &mut env);
        let bounds = Bounds {
            serves_within: SERVES_WITHIN,
            delivery_kept: (setup.limits.delivery_kept_ms * 750).saturating_sub(CLOCKS_APART),
            deliveries_max: setup.limits.deliveries_max,
            repeat_kept: (setup.limits.repeat_kept_ms * 750).saturating_sub(CLOCKS_APART),
            repeat_forgotten: setup.limits.repeat_kept_ms * 4_000 + FORGOTTEN_WITHIN,
            repeats_max: setup.limits.repeats_max,
        };
        let mut world = World {
            queue: Queue::new(),
            inputs: Inputs::default(),
            hosts: BTreeMap::new(),
            net: Net::new(),
            dice: Dice::new(setup.seed, 1),
            witness: Witness::new(bounds, setup.loud),
            faults: UnderWay::new(plan),
            clients: Clients::new(setup.seed, env),
            unresolved: Unresolved::default(),
            mailboxes,
            moves: Moves::new(),
            office: Office::new(setup.seed),
            beginners: Beginners::Everyone,
            promise: Promise::default(),
            setup,
        };
        world.make_nodes();
        if takes_over {
            world.promise.expects_takeover();
        }
        world
    }

    fn make_nodes(&mut self) {
        let mut control = RowBatch::default();
        for mailbox in self.mailboxes.there() {
            let partition = self.mailboxes.partition(mailbox).0;
            control.put(RowKey::partition(Table::MailboxKeys, mailbox.0), self.mailboxes.key_bytes(mailbox).to_vec());
            self.record(Record::Mailbox { mailbox, partition });
        }
        if self.setup.accounts > 0 {
            control.puts.extend(first_directory_rows(self.setup.seed).puts);
        }
        let (nodes, plan) = first_state(&self.setup, control, &mut Env::seeded(self.setup.seed));
        for node in &nodes {
            let boot = self.dice.below(1_000_000_000);
            let log = NodeLog::new(self.setup.log_disks, self.setup.seed ^ node.id.0 << 40);
            let host = Host::new(node.id, Clock::new(boot, self.setup.clocks_apart), log);
            let mut batch = LogBatch::default();
            for first in plan.of(node.id) {
                let write =
                    ReplicaBatch { replica: first.replica, batch: first.rows.clone(), applied: first.applied.clone() };
                host.rows.write(&[write]).expect("an empty store takes first rows");
                batch.writes.push(first.log.clone());
            }
            host.rows.flush().expect("a store in memory flushes");
            host.log.write_synced(1, &batch).expect("an empty log takes its first group");
            self.hosts.insert(node.id, host);
        }
        self.knows_regions();
    }

    /// Everything, from the start to the last look.
    fn whole_run(&mut self) {
        self.begin();
        let heals = self.setup.safety;
        self.until(heals);
        self.heal();
        let ends = heals + self.setup.liveness;
        self.until(ends);
        self.comes_to_rest();
    }

    /// Nodes start and clients connect.
    pub fn begin(&mut self) {
        let nodes = self.nodes();
        for node in &nodes {
            self.start(*node);
            self.settle();
        }
        let at_home = self.up();
        let far: Vec<NodeId> = self.promise.far().iter().copied().collect();
        let Setup { imap_sessions, smtp_sessions, pop3_sessions, .. } = self.setup;
        for number in 0..imap_sessions + smtp_sessions + pop3_sessions {
            let kind = match number {
                _ if number < imap_sessions => Kind::Imap,
                _ if number < imap_sessions + smtp_sessions => Kind::Smtp,
                _ => Kind::Pop3,
            };
            // A client of a node there sees with its own eyes what is lost, and goes on.
            let abroad = self.promise.is_takeover_expected() && kind == Kind::Imap && number % 3 == 2;
            let nodes = if abroad { &far } else { &at_home };
            let node = nodes[number as usize % nodes.len()];
            let there = self.mailboxes.there();
            // Two sessions of each mailbox at least, on different nodes.
            let mailbox = there[number as usize % there.len()];
            let session = self.connect(node, kind, mailbox);
            // Who reads at the old home is shown what is over, which nobody can help; who delivers is answered right.
            if self.setup.clients_return
                && kind == Kind::Smtp
                && number % 2 == 0
                && let Some(session) = self.clients.session_mut(session)
            {
                session.stays = true;
            }
            let at = 600_000 + self.clients.dice().below(400_000);
            self.queue.push(at, Event::Next(session));
        }
        self.office_opens();
        self.awaits_fault(0);
        for mailbox in self.mailboxes.to_be_made() {
            let at = 1_000_000 + self.clients.dice().below(self.setup.safety / 2 + 1);
            self.queue.push(at, Event::Make(mailbox));
        }
        self.queue.push(self.setup.look_every, Event::Look);
        self.queue.push(FLAP_EVERY, Event::Flap);
    }

    /// Lets things happen until a moment, or until something is wrong.
    pub fn until(&mut self, moment: Micros) {
        while self.wrong().is_none() && self.queue.next_at().is_some_and(|at| at <= moment) {
            let Some((_, event)) = self.queue.pop() else { break };
            self.happens(event);
            self.settle();
        }
        self.queue.pass_until(moment);
    }

    /// Lets something happen; [`World::settle`] comes after it.
    pub fn happens(&mut self, event: Event) {
        let now = self.now();
        match event {
            Event::On(node, life, what) => {
                let host = self.host_mut(node);
                if host.life != life || host.up.is_none() {
                    return;
                }
                if host.paused_until > now {
                    let at = host.paused_until;
                    return self.queue.push(at, Event::On(node, life, what));
                }
                self.witness.event(now, &[4, node.0, what.kind()]);
                self.local(node, what);
            }
            Event::To(node, what) => {
                let host = self.host_mut(node);
                if host.up.is_none() {
                    return;
                }
                if host.paused_until > now {
                    let at = host.paused_until;
                    return self.queue.push(at, Event::To(node, what));
                }
                self.witness.event(now, &[5, node.0, what.kind()]);
                self.local(node, what);
            }
            Event::Snapshot(to, from, life, message, staged) => {
                self.snapshot_arrives(to, from, life, *message, *staged);
            }
            Event::ToSession(session, conn, what) => self.hears(session, conn, *what),
            Event::Wake(session, timer) => self.wakes(session, timer),
            Event::HangUp(session) => self.hangs_up(session),
            Event::Connect(session) => self.connects_again(session),
            Event::Next(session) => self.next_operation(session),
            Event::Fault(at) => {
                self.awaits_fault(at + 1);
                self.fault_begins(at);
            }
            Event::Over(at) => self.fault_ends(at),
            Event::Flap => {
                self.faults.flap();
                self.links_change();
                let next = now + 1 + self.dice.exponential(FLAP_EVERY);
                self.queue.push(next, Event::Flap);
            }
            Event::Look => {
                self.look(false);
                self.logs_are_kept();
                self.notes_what_is_held();
                self.takeovers_are_seen();
                self.sealed_stay_sealed();
                self.resolve(false);
                if (now / self.setup.look_every).is_multiple_of(EVICT_EVERY_LOOKS) {
                    let nodes = self.nodes();
                    nodes.into_iter().for_each(|node| self.evict(node));
                }
                self.queue.push(now + self.setup.look_every, Event::Look);
            }
            Event::Make(mailbox) => self.make_mailbox(mailbox),
            Event::Administrator(number, attempt) => self.administrator_wakes(number, attempt),
            Event::FromDirectory(number, attempt, reply) => self.administrator_hears(number, attempt, *reply),
            Event::Login => self.logs_in(),
            Event::Operate => self.operate(),
            Event::Settings(number) => self.goes_on_with_settings(number),
            Event::Replace(node) => self.replaces_all_of(node),
            Event::Repair(node, partition, replica) => self.repairs(node, partition, replica),
            Event::Stop(node) => {
                // If it still runs and a disk lets it, everything is flushed.
                let host = self.host_mut(node);
                let flushed = host.disk.stuck_until > now || host.rows.flush().is_ok();
                self.say(format!("node {node} stops cleanly: {flushed}"));
                self.crash(node, 0);
                if !self.faults.is(&Fault::Stop { node }) {
                    // The fault ended while it was still handing over.
                    self.starts_unless_down(node);
                }
            }
        }
    }

    /// A fault is due only once the one before it has begun: plans are long, and the queue is to stay short.
    fn awaits_fault(&mut self, at: usize) {
        if let Some(Planned { from, to, .. }) = self.faults.planned(at) {
            self.queue.push(*from, Event::Fault(at));
            self.queue.push(*to, Event::Over(at));
        }
    }

    fn fault_begins(&mut self, at: usize) {
        let Some(planned) = self.faults.begins(at) else { return };
        let now = self.now();
        self.say(format!("fault: {planned}"));
        self.record(Record::Fault { at: now, name: planned.fault.name().to_owned() });
        if planned.fault.takes_down().is_some() {
            self.all_answered_is_held();
        }
        match planned.fault {
            Fault::Crash { node, torn } => self.crash(node, torn),
            Fault::TornBit { node, torn } => {
                // The last byte of what was not synced, if any of it survives.
                self.host_mut(node).log.flip_at_crash();
                self.crash(node, torn);
            }
            Fault::CorruptLog { node, permille } => self.corrupts_log(node, permille),
            Fault::CorruptRows { node, draw, rows } => self.corrupts_rows(node, draw, rows),
            Fault::CrashBetween { node, outputs } => self.host_mut(node).dies_after = Some(outputs),
            Fault::CrashAtInstall { node } => self.host_mut(node).dies_at_install = true,
            Fault::Stop { node } => {
                self.input(node, mailraft_cluster::Input::HandOver);
                // It waits for its leads to be handed over, flushes, and ends.
                self.queue.push(now + 500_000, Event::Stop(node));
            }
            Fault::FsyncError { node, torn } => self.host_mut(node).disk.fail_next = Some(torn),
            Fault::FullDisk { node } => self.host_mut(node).disk.full = true,
            Fault::SlowDisk { node, factor } => self.host_mut(node).disk.factor = factor,
            Fault::StuckDisk { node } => self.host_mut(node).disk.stuck_until = planned.to,
            Fault::Drift { node, ppm } => self.host_mut(node).clock.set_drift(now, ppm),
            Fault::Jump { node, ms } => self.host_mut(node).clock.jump_wall(ms),
            Fault::ClockStops { node } => self.host_mut(node).clock.stop_wall(now),
            Fault::Pause { node } => self.host_mut(node).paused_until = planned.to,
            Fault::SlowNode { node, factor } => self.host_mut(node).slow = factor,
            Fault::ActorPanic { node } => self.actors_panic(node),
            Fault::RottenStandby { node } => self.promise.rots(node),
            Fault::TakeOver { nodes, nonce } => self.take_over(&nodes, nonce, Names::AsKnown),
            Fault::TakeOverAnew { nodes, nonce } => self.take_over(&nodes, nonce, Names::Drawn),
            Fault::Settings { settings } => self.wants_settings(settings),
            Fault::Move { partition, from, to } => self.move_replica(PartitionId(partition), from, to),
            Fault::Ballot { partition, from, to } => self.changes_voters(PartitionId(partition), from, to),
            Fault::Partition { .. } | Fault::OneWay { .. } | Fault::Bridge { .. } | Fault::Flapping { .. } => {
                self.links_change();
            }
            Fault::Loss { .. } | Fault::Twice { .. } | Fault::Overtaking { .. } | Fault::Late { .. } => {
                self.weather_changes();
            }
        }
    }

    fn fault_ends(&mut self, at: usize) {
        let Some(planned) = self.faults.ends(at) else { return };
        let now = self.now();
        match planned.fault {
            Fault::SlowDisk { node, .. } => self.host_mut(node).disk.factor = 1,
            Fault::Drift { node, .. } => self.host_mut(node).clock.set_drift(now, 0),
            Fault::SlowNode { node, .. } => self.host_mut(node).slow = 1,
            Fault::FullDisk { node } => self.host_mut(node).disk.full = false,
            Fault::Jump { node, .. } | Fault::ClockStops { node } => self.host_mut(node).clock.set_wall_right(),
            Fault::FsyncError { node, .. } => self.host_mut(node).disk.fail_next = None,
            Fault::CrashBetween { node, .. } => self.host_mut(node).dies_after = None,
            Fault::CrashAtInstall { node } => self.host_mut(node).dies_at_install = false,
            Fault::Crash { .. }
            | Fault::CorruptLog { .. }
            | Fault::CorruptRows { .. }
            | Fault::TornBit { .. }
            | Fault::Stop { .. }
            | Fault::Partition { .. }
            | Fault::OneWay { .. }
            | Fault::Bridge { .. }
            | Fault::Flapping { .. }
            | Fault::Loss { .. }
            | Fault::Twice { .. }
            | Fault::Overtaking { .. }
            | Fault::Late { .. }
            | Fault::StuckDisk { .. }
            | Fault::Pause { .. }
            | Fault::Move { .. }
            | Fault::Ballot { .. }
            | Fault::RottenStandby { .. }
            | Fault::TakeOver { .. }
            | Fault::TakeOverAnew { .. }
            | Fault::Settings { .. }
            | Fault::ActorPanic { .. } => {}
        }
        self.links_change();
        self.weather_changes();
        if let Some(node) = planned.fault.takes_down() {
            self.starts_unless_down(node);
        }
    }

    /// Starts a node unless another fault keeps it down.
    fn starts_unless_down(&mut self, node: NodeId) {
        if !self.faults.keeps_down(node) {
            self.start(node);
        }
    }

    /// All faults end: whatever is down starts, links, disks and clocks are right.
    pub fn heal(&mut self) {
        let now = self.now();
        self.say("all faults end".to_owned());
        self.faults.all_end();
        self.links_change();
        self.weather_changes();
        let nodes = self.nodes();
        for node in nodes {
            let host = self.host_mut(node);
            host.disk = Default::default();
            host.slow = 1;
            host.paused_until = 0;
            host.dies_after = None;
            host.dies_at_install = false;
            host.clock.set_drift(now, 0);
            host.clock.set_wall_right();
            self.start(node);
            self.settle();
        }
        self.finishes_takeover();
        self.record(Record::Healed { at: now });
    }

    /// Links break and are whole again, by the faults that are under way; what waited for those that are whole goes on.
    fn links_change(&mut self) {
        self.net.block(self.faults.broken_links(&self.nodes()));
        for (at, event) in self.net.release(self.queue.now()) {
            self.queue.push(at, event);
        }
    }

    fn weather_changes(&mut self) {
        self.net.set_weather(self.faults.weather());
    }

    /// Compares replicas.
    fn look(&mut self, with_state: bool) {
        let at = self.now();
        let (mut records, mut unread) = (Vec::new(), Vec::new());
        for host in self.hosts.values().filter(|host| !self.promise.may_be_lost(host.id)) {
            let Some(process) = host.up.as_ref() else { continue };
            for (partition, replica) in process.core.replica_ids() {
                if process.replacing.contains(&replica) || self.promise.may_have_lost(host, replica) {
                    continue;
                }
                // Only what can't be read of a damaged replica is left out.
                let damaged = host.rows.is_damaged(replica);
                let view = match host.rows.view(replica) {
                    Ok(Some(view)) => view,
                    Ok(None) => continue,
                    Err(_) if damaged => continue,
                    Err(error) => {
                        unread.push(error);
                        continue;
                    }
                };
                let applied = view.applied();
                let state = match with_state.then(|| state_and_position(view.as_ref())) {
                    Some(Err(error)) if !damaged => {
                        unread.push(error);
                        continue;
                    }
                    state => state.and_then(Result::ok),
                };
                records.push(Record::Replica {
                    at,
                    node: host.id.0,
                    partition: partition.0,
                    applied: applied.index.0,
                    count: applied.count,
                    hash: applied.hash,
                    state_hash: state,
                });
            }
        }
        for record in records {
            self.record(record);
        }
        for error in unread {
            self.goes_wrong(Rule::ReplicasAgree, format!("a replica that is not damaged can't be read: {error}"));
        }
    }

    /// Clients stop, everything that is under way ends, then every folder is read through every node, and the
    /// fate of what nobody knows is asked of the table of commands.
    pub fn comes_to_rest(&mut self) {
        self.beginners = Beginners::Nobody;
        let rest = self.now() + REST;
        self.until(rest);
        if !self.moves.are_done() {
            let moves = format!("with nothing broken replicas are still being replaced: {:?}", self.moves.all());
            self.goes_wrong(Rule::Liveness, moves);
        }
        if self.wrong().is_some() {
            return;
        }
        self.look(true);
        self.all_answered_is_held();
        self.settings_are_made();
        self.takeovers_are_seen();
        self.office_closes();
        self.read_everything();
        self.resolve(true);
    }

    fn read_everything(&mut self) {
        let nodes = self.up();
        for (turn, mailbox) in self.mailboxes.there().into_iter().enumerate() {
            // Another node for each mailbox; its folders through one session.
            let node = nodes[turn % nodes.len()];
            let session = self.connect(node, Kind::Imap, mailbox);
            let Some(folders) = self.asks_and_waits(session, Op::List) else { return };
            for folder in folders {
                self.asks_and_waits(session, Op::Select { folder });
                let Some(following) = self.clients.session(session).and_then(|s| s.following()) else { continue };
                let (folder, uids): (_, Vec<u32>) = (following.folder(), following.uids().collect());
                for some in uids.chunks(mailraft_mailbox::api::FETCH_UIDS_MAX) {
                    self.asks_and_waits(session, Op::Fetch { folder, uids: some.iter().copied().collect() });
                }
                for uid in uids.iter().rev().take(self.setup.bodies_read) {
                    self.asks_and_waits(session, Op::ReadBody { folder, uid: *uid });
                }
            }
        }
    }

    /// One operation and its end; the folders' names if it was LIST. None if nobody answers.
    fn asks_and_waits(&mut self, session: u64, op: Op) -> Option<Vec<String>> {
        let lists = op == Op::List;
        let node = self.clients.session(session)?.node;
        self.clients.set_wall(self.hosts.get(&node)?.cluster_wall(self.queue.now()));
        let patience = self.now() + SERVES_WITHIN;
        loop {
            self.clients.forget_refused();
            self.begins(session, op.clone());
            while self.clients.session(session)?.busy.is_some() && self.now() < patience && self.wrong().is_none() {
                let next = self.queue.next_at()?;
                self.until(next);
            }
            if !self.clients.refused_damaged() {
                break;
            }
            // Another is to lead soon.
            self.until(self.now() + ASKS_AGAIN);
            if self.now() >= patience {
                self.goes_wrong(Rule::Liveness, "what is damaged on one node is served by no other".to_owned());
                return None;
            }
        }
        if self.clients.session(session)?.busy.is_some() {
            self.goes_wrong(Rule::Liveness, "with nothing broken a session waits for its answer".to_owned());
            return None;
        }
        let names = self.clients.take_list().unwrap_or_default();
        Some(if lists { names } else { Vec::new() })
    }

    /// The verdict.
    pub fn finish(self) -> Ran {
        let simulated = self.now();
        let World { witness, faults, office, .. } = self;
        let Verdict { report, hash, events, operations, installed, moments, timeline } = witness.finish();
        Ran {
            hash,
            events,
            simulated,
            operations,
            installed,
            accounts_changed: office.accounts().answered(),
            moments,
            timeline,
            report,
            plan: faults.into_plan(),
        }
    }
}

/// The hash of all rows of a replica and of everything that stands in its position.
fn state_and_position(view: &dyn RowsView) -> Result<[u8; 32], StoreError> {
    let mut hash = Sha256::new();
    hash.update(state_hash(view)?);
    hash.update(view.applied().encode());
    Ok(hash.finalize().into())
}
