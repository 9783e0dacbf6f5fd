//! A node of the simulated cluster: the production core over stores in memory, and the work of its log, apply,
//! flush and snapshot threads as things that take time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use mailraft_checkers::Micros;
use mailraft_cluster::{ApplyJob, ClusterTime, Node, NodeConfig, RequestId};
use mailraft_storage::body::BodyId;
use mailraft_storage::log::{LogBatch, LogWrite};
use mailraft_storage::memory::MemoryRows;
use mailraft_storage::{
    Applied, ClusterId, CommandId, Env, Index, MailboxId, NodeId, PartitionId, ReplicaId, RowKey, Rows, StoreError,
    Table, Term, UnixMillis,
};

use crate::actors::{Actor, DirectoryActor, Leading};
use crate::clock::Clock;
use crate::dice::Dice;
use crate::node_log::NodeLog;
use crate::plant::{self, Fault as Planted};
use crate::setup::Setup;

/// The cluster of every run.
pub const CLUSTER: ClusterId = ClusterId([7; 16]);

/// What a snapshot carries: its position and its rows.
pub type Staged = (Applied, Arc<Vec<(RowKey, Bytes)>>);

/// What waits for apply.
pub enum ApplyWork {
    /// Committed entries are applied.
    Entries(ApplyJob),
    /// Passed on once everything before it is applied.
    Install(ReplicaId, Applied),
    /// A replica's rows go, once everything before is applied.
    Remove(ReplicaId),
}

/// Who waits for an answer of the core.
pub enum Waiter {
    /// An actor's entry.
    Entry {
        /// Of this mailbox.
        mailbox: MailboxId,
        /// The actor's number.
        actor: u64,
        /// What its node had applied of the control group.
        control: Index,
    },
    /// An actor's read.
    Barrier {
        /// Of this mailbox.
        mailbox: MailboxId,
        /// The actor's number.
        actor: u64,
        /// The read's number.
        read: u64,
    },
    /// An actor that wants to start.
    Slot {
        /// Of this mailbox.
        mailbox: MailboxId,
        /// The actor's number.
        actor: u64,
    },
    /// An actor that found no mailbox and asks the control group.
    Control {
        /// Of this mailbox.
        mailbox: MailboxId,
        /// The actor's number.
        actor: u64,
    },
    /// A part of a large body.
    Chunk {
        /// The session that sent it.
        session: u64,
        /// The body.
        body: BodyId,
    },
    /// A mailbox is being made.
    Made(MailboxId),
    /// A step of the operator's, by the number of its move.
    Operator(usize),
    /// A step by which a replica came that is gone now, once more and late.
    LateAdd(PartitionId, ReplicaId),
    /// Results of commands are evicted from this partition; where the next eviction goes on.
    Evicted(PartitionId, CommandId),
    /// The directory's actor of this number wants to start.
    DirectorySlot(u64),
    /// The entry of the directory's actor of this number.
    DirectoryEntry(u64),
    /// A login of this number that was not let in.
    Login(u64),
    /// An operator whose region is to take over.
    TakeOver,
    /// An operator who wants other settings of regions; which of them.
    Settings(usize),
}

/// What is wrong with a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Everything takes so many times as long.
    pub factor: u64,
    /// Until then no fsync returns.
    pub stuck_until: Micros,
    /// The next fsync fails, and so many unsynced bytes survive.
    pub fail_next: Option<usize>,
    /// Nothing can be written.
    pub full: bool,
}

impl Default for Disk {
    fn default() -> Self {
        Disk { factor: 1, stuck_until: 0, fail_next: None, full: false }
    }
}

/// A machine with its disks.
pub struct Host {
    /// Its node.
    pub id: NodeId,
    /// The Raft log.
    pub log: NodeLog,
    /// The rows.
    pub rows: MemoryRows,
    /// Snapshots that are whole and synced as files.
    pub staged: BTreeMap<(ReplicaId, Index), Staged>,
    /// Its clocks.
    pub clock: Clock,
    /// Its disk.
    pub disk: Disk,
    /// Everything takes so many times as long.
    pub slow: u64,
    /// It stands still until then.
    pub paused_until: Micros,
    /// Rises whenever the process starts or ends: events of another life are void.
    pub life: u64,
    /// When the process ended last.
    pub down_since: Micros,
    /// The process; None while it is down.
    pub up: Option<Process>,
    /// Dies at the next install of a snapshot.
    pub dies_at_install: bool,
    /// Dies after so many further outputs.
    pub dies_after: Option<u64>,
    /// A bit of its log turned over: it must not start.
    pub log_corrupt: bool,
    /// A bit of its log turned over, and a start took it nevertheless: some entry may turn out to be damaged.
    pub log_spoilt: bool,
    /// Replicas of which rows turned bad at some time.
    pub corrupted: BTreeSet<ReplicaId>,
    /// Replicas that the operator knows to be damaged.
    pub told_damaged: BTreeSet<ReplicaId>,
    /// Why it can't start any more, if so.
    pub lost: Option<String>,
}

/// A process: everything that is gone when it dies.
pub struct Process {
    /// The production core.
    pub core: Node,
    /// What the core knows of the world.
    pub env: Env,
    /// What the actors know of it.
    pub actors_env: Env,
    /// How far the cluster's time is ahead of the wall clock, in milliseconds.
    pub ahead_ms: i64,
    /// The cluster's time, as those beside the core know it.
    pub time: ClusterTime,
    /// The batch that is being made durable.
    pub writing: Option<(u64, LogBatch)>,
    /// What apply has in hand.
    pub applying: Vec<ApplyJob>,
    /// What waits for apply.
    pub to_apply: VecDeque<ApplyWork>,
    /// Whether apply is at work.
    pub apply_busy: bool,
    /// Snapshots that are to be installed, or are.
    pub installing: BTreeMap<ReplicaId, Applied>,
    /// Those whose rows are being put in place.
    pub replacing: BTreeSet<ReplicaId>,
    /// What this node leads.
    pub leading: BTreeMap<PartitionId, Leading>,
    /// Who leads, as this node believes.
    pub leaders: BTreeMap<PartitionId, NodeId>,
    /// Who waits for the core.
    pub waiting: BTreeMap<RequestId, Waiter>,
    /// The last request.
    pub last_request: u64,
    /// Where the eviction of results goes on in each partition, in which term.
    pub evicted: BTreeMap<PartitionId, (Term, CommandId)>,
    /// Until then the core has heard what actors said so far.
    pub heard_until: Micros,
    /// Mailbox actors.
    pub actors: BTreeMap<MailboxId, Actor>,
    /// The directory's actor, beside the control group's leader.
    pub directory: Option<DirectoryActor>,
}

impl Host {
    /// A machine with empty disks.
    pub fn new(id: NodeId, clock: Clock, log: NodeLog) -> Self {
        Host {
            id,
            log,
            rows: MemoryRows::new(),
            staged: BTreeMap::new(),
            clock,
            disk: Disk::default(),
            slow: 1,
            paused_until: 0,
            life: 0,
            down_since: 0,
            up: None,
            dies_at_install: false,
            dies_after: None,
            log_corrupt: false,
            log_spoilt: false,
            corrupted: BTreeSet::new(),
            told_damaged: BTreeSet::new(),
            lost: None,
        }
    }

    /// The production start: the log is read anew, the core is made of what the stores hold.
    ///
    /// # Errors
    /// If the stores hold damage.
    pub fn start(&mut self, now: Micros, setup: &Setup) -> Result<Vec<mailraft_cluster::Output>, String> {
        assert!(self.up.is_none(), "node {} starts twice", self.id);
        self.log.recover().map_err(|e| e.to_string())?;
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let config = NodeConfig::from_rows(self.id, CLUSTER, &self.rows, setup.log_keep_entries, logger)
            .map_err(|e| e.to_string())?;
        let Setup { seed, log_batch_max_bytes, region_log_keep_bytes, .. } = *setup;
        let config = NodeConfig { log_batch_max_bytes, region_log_keep_bytes, ..config };
        self.life += 1;
        let mut env = Env::seeded(seed.wrapping_add(self.id.0 << 32).wrapping_add(self.life));
        let mut actors_env = Env::seeded(seed.wrapping_add(self.id.0 << 32).wrapping_add(self.life) ^ (1 << 63));
        for env in [&mut env, &mut actors_env] {
            env.now = self.clock.monotonic(now);
            env.wall = self.clock.wall(now);
        }
        let mut core = Node::recover(config, self.log.as_log(), &self.rows, &mut env).map_err(|e| e.to_string())?;
        let mut out = Vec::new();
        core.start(&mut env, &mut out);
        // As the driver does: files that no mark in the log names are removed.
        let log = self.log.as_log();
        let needed = |replica: ReplicaId, index: Index| {
            let mark = log.state(replica).ok().flatten().and_then(|state| state.installing);
            mark.is_some_and(|mark| mark.index == index)
        };
        self.staged.retain(|(replica, index), _| needed(*replica, *index));
        self.up = Some(Process {
            core,
            env,
            actors_env,
            ahead_ms: 0,
            time: ClusterTime::of(self.clock.monotonic(now), self.clock.wall(now), 0),
            writing: None,
            applying: Vec::new(),
            to_apply: VecDeque::new(),
            apply_busy: false,
            installing: BTreeMap::new(),
            replacing: BTreeSet::new(),
            leading: BTreeMap::new(),
            leaders: BTreeMap::new(),
            waiting: BTreeMap::new(),
            last_request: 0,
            evicted: BTreeMap::new(),
            heard_until: 0,
            actors: BTreeMap::new(),
            directory: None,
        });
        Ok(out)
    }

    /// The process dies: of the log's unsynced bytes only `torn` survive, of the rows what was flushed. A snapshot
    /// whose rows were being put in place leaves a mixture.
    pub fn crash(&mut self, dice: &mut Dice, torn: usize) {
        let Some(process) = self.up.take() else { return };
        self.life += 1;
        self.dies_after = None;
        self.dies_at_install = false;
        self.log.crash(torn);
        self.rows.crash();
        if mailraft_cluster::plant::is(mailraft_cluster::plant::Fault::ReplicaComesBackEmpty) {
            self.lose_a_disk(dice);
        }
        if mailraft_storage::plant::is(mailraft_storage::plant::Fault::LogTailWithGap) {
            // A bit of something in the middle of the log's last few thousand bytes.
            let back = dice.between(200, 4_000) as usize;
            self.log.corrupt_before_end(back);
        }
        for replica in process.replacing {
            if let Some(applied) = process.installing.get(&replica) {
                self.mix(dice, replica, applied.index);
            }
        }
    }

    /// The disk that held one replica is replaced by an empty one.
    fn lose_a_disk(&mut self, dice: &mut Dice) {
        if self.log.recover().is_err() {
            return;
        }
        let log = self.log.as_log();
        let replicas = log.replicas().unwrap_or_default().into_iter();
        let partitions: Vec<ReplicaId> =
            replicas.filter(|r| self.rows.get(*r, &control_row(self.id)).ok().flatten().is_none()).collect();
        let Some(lost) = dice.pick(&partitions).copied() else { return };
        let batch = LogBatch { writes: vec![LogWrite { replica: lost, remove: true, ..LogWrite::default() }] };
        let written = log.write_synced(log.newest_batch() + 1, &batch);
        self.staged.retain(|(replica, _), _| *replica != lost);
        if written.is_err() || self.rows.remove(lost).is_err() {
            self.lost = Some(format!("replica {lost} can't be removed"));
        }
    }

    /// Some of a staged snapshot's rows among the old ones, as an interrupted install leaves them; the position
    /// and the rows that a start needs are still the old ones.
    fn mix(&mut self, dice: &mut Dice, replica: ReplicaId, index: Index) {
        let (Some((_, rows)), Ok(Some(view))) = (self.staged.get(&(replica, index)), self.rows.view(replica)) else {
            return;
        };
        let Ok(old) = view.rows(None, usize::MAX) else { return };
        let applied = view.applied().clone();
        let needed = |key: &RowKey| {
            key.table == mailraft_storage::Table::Nodes.number()
                || key.table == mailraft_storage::Table::Placement.number()
        };
        let mut mixed: BTreeMap<RowKey, Bytes> =
            old.into_iter().filter(|(key, _)| needed(key) || dice.chance(500)).collect();
        for (key, value) in rows.iter().filter(|(key, _)| !needed(key)) {
            if dice.chance(500) {
                mixed.insert(key.clone(), value.clone());
            }
        }
        drop(view);
        // Both stores keep what was there before until the whole is in place; a mixture may be what they hold.
        let _ = self.rows.replace(replica, &applied, &mut mixed.into_iter().map(Ok));
    }

    /// Rows of a replica turn bad.
    pub fn damage_rows(&mut self, replica: ReplicaId, keys: impl IntoIterator<Item = RowKey>) {
        self.rows.damage(replica, keys);
        self.corrupted.insert(replica);
    }

    /// Whether its disk has lost something of what it held, known to anyone or not.
    pub fn has_lost_something(&self) -> bool {
        self.lost.is_some() || self.log_corrupt || self.log_spoilt || !self.corrupted.is_empty()
    }

    /// Brings the process's knowledge of time up to now.
    pub fn tell_time(&mut self, now: Micros) {
        let (monotonic, wall) = (self.clock.monotonic(now), self.clock.wall(now));
        if let Some(process) = self.up.as_mut() {
            for env in [&mut process.env, &mut process.actors_env] {
                env.now = monotonic;
                env.wall = wall;
            }
            process.actors_env.wall = process.time.wall(monotonic);
        }
    }

    /// The core has looked at its clocks: until it does so again, the cluster's time goes on by the boot clock.
    pub fn tells_cluster_time(&mut self, now: Micros) {
        let (monotonic, wall) = (self.clock.monotonic(now), self.clock.wall(now));
        if let Some(process) = self.up.as_mut() {
            process.time = ClusterTime::of(monotonic, wall, process.ahead_ms);
        }
    }

    /// The time that the nodes agree on, as this node knows it.
    pub fn cluster_wall(&self, now: Micros) -> UnixMillis {
        self.up.as_ref().map_or(self.clock.wall(now), |p| p.time.wall(self.clock.monotonic(now)))
    }

    /// How long an fsync takes now.
    pub fn fsync(&self, dice: &mut Dice, now: Micros) -> Micros {
        let took = (80 + dice.exponential(150)) * self.disk.factor * self.slow;
        (now + took).max(self.disk.stuck_until)
    }

    /// How long reading or applying something takes now.
    pub fn work(&self, dice: &mut Dice, now: Micros, mean: Micros) -> Micros {
        now + (20 + dice.exponential(mean)) * self.slow * if self.disk.factor > 1 { 2 } else { 1 }
    }
}

impl Process {
    /// A new request, and who waits for it.
    pub fn request(&mut self, waiter: Waiter) -> RequestId {
        self.last_request += 1;
        let request = RequestId(self.last_request);
        self.waiting.insert(request, waiter);
        request
    }

    /// Whether an entry on the control group's own rows is in flight: one at a time is.
    pub fn own_rows_taken(&self) -> bool {
        let own = |w: &Waiter| matches!(w, Waiter::Made(_) | Waiter::Operator(_) | Waiter::DirectoryEntry(_));
        self.waiting.values().any(own)
    }
}

/// A row that only the control group has.
fn control_row(node: NodeId) -> RowKey {
    RowKey::partition(Table::Nodes, node.0.to_be_bytes())
}

/// A snapshot's rows as they are read when it is sent. None for a replica that has none.
///
/// # Errors
/// If a row can't be read.
pub fn take_snapshot(rows: &MemoryRows, replica: ReplicaId) -> Result<Option<Staged>, StoreError> {
    let Some(view) = rows.view(replica)? else { return Ok(None) };
    let mut held = view.rows(None, usize::MAX)?;
    let without = [
        (Planted::SnapshotWithoutCommands, Table::Commands),
        (Planted::SnapshotWithoutFloor, Table::CommandFloor),
        (Planted::SnapshotWithoutHistory, Table::Expunged),
        (Planted::SnapshotWithoutDeliveries, Table::Deliveries),
        (Planted::SnapshotWithoutStages, Table::Stages),
        (Planted::SnapshotWithoutPages, Table::FlagPages),
        (Planted::SnapshotWithoutUploads, Table::OpenBodies),
        (Planted::SnapshotWithoutRepeats, Table::Repeats),
    ];
    for (_, table) in without.into_iter().filter(|(fault, _)| plant::is(*fault)) {
        held.retain(|(key, _)| key.table != table.number());
    }
    Ok(Some((view.applied().clone(), Arc::new(held))))
}
