//! The Raft log of a simulated node: bytes in memory, or what production uses, on a disk that fails. The latter is given
//! from outside ([`Setup::log_disks`](crate::Setup::log_disks)), so that this crate needs none of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mailraft_storage::log::{Log, LogBatch, LogState};
use mailraft_storage::memory::MemoryLog;
use mailraft_storage::memory::conformance::{DiskFault, LogDisk};
use mailraft_storage::{Env, Index, ReplicaId, StoreError};
use rand::Rng;

/// An empty disk for the log of one node.
pub type LogDisks = fn() -> Box<dyn LogDisk + Send>;

/// The first call of so many on a disk is the one that fails, where one is to.
const FAILS_WITHIN_CALLS: u64 = 6;
/// A start loses power again so often, one after the other, before it is let through.
const STARTS_FAIL_MAX: usize = 8;
/// In place of a failure that did not come about.
const NEVER: DiskFault = DiskFault::PowerCut(u64::MAX);

/// What a start makes of a bit that turned over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Corrupted {
    /// There was none.
    Nothing,
    /// It refuses the log.
    Refused,
    /// It opens it: the bit changes nothing, or stands in an entry that nobody has read yet.
    Opened,
}

/// A node's log, and what it stands on.
pub enum NodeLog {
    /// Bytes in memory.
    Memory(MemoryLog),
    /// What production uses; clones of what is in it share it.
    Disk(LogOnDisk),
}

/// A log on a disk that fails. As the simulator writes, then syncs, and the log does both in one, what is written waits here.
#[derive(Clone)]
pub struct LogOnDisk {
    held: Arc<Mutex<Held>>,
}

struct Held {
    disk: Box<dyn LogDisk + Send>,
    /// None while the process is down.
    log: Option<Box<dyn Log>>,
    waiting: Vec<(u64, LogBatch)>,
    env: Env,
}

impl NodeLog {
    /// An empty one; `seed` draws what a power loss leaves of it.
    ///
    /// # Panics
    /// If an empty disk can't be opened.
    pub fn new(disks: Option<LogDisks>, seed: u64) -> Self {
        let Some(disks) = disks else { return NodeLog::Memory(MemoryLog::new()) };
        let mut disk = disks();
        let log = disk.open().expect("an empty disk");
        let held = Held { disk, log: Some(log), waiting: Vec::new(), env: Env::seeded(seed) };
        NodeLog::Disk(LogOnDisk { held: Arc::new(Mutex::new(held)) })
    }

    /// As the core reads it.
    pub fn as_log(&self) -> Arc<dyn Log> {
        match self {
            NodeLog::Memory(log) => Arc::new(log.clone()),
            NodeLog::Disk(log) => Arc::new(log.clone()),
        }
    }

    /// Opens it, as a start does.
    ///
    /// # Errors
    /// If it is damaged.
    pub fn recover(&self) -> Result<(), StoreError> {
        match self {
            NodeLog::Memory(log) => log.recover(),
            NodeLog::Disk(log) => log.held().open(),
        }
    }

    /// The process dies. Of the bytes that were not synced only the first `keep_unsynced` are left in memory; on a disk
    /// nothing of them if that is 0, else what is left by a call that fails while they are written.
    pub fn crash(&self, keep_unsynced: usize) {
        match self {
            NodeLog::Memory(log) => log.crash(keep_unsynced),
            NodeLog::Disk(log) => log.held().crash(keep_unsynced > 0),
        }
    }

    /// In the next crash a bit of the last byte that was not synced and survives turns over: a torn write. A disk leaves
    /// old or new bytes in a sector.
    pub fn flip_at_crash(&self) {
        match self {
            NodeLog::Memory(log) => log.flip_at_crash(),
            NodeLog::Disk(_) => {}
        }
    }

    /// A bit turns over, at so many thousandths of it; on a disk any one.
    pub fn corrupt(&self, permille: u64) -> Corrupted {
        match self {
            NodeLog::Memory(log) if log.is_empty() => Corrupted::Nothing,
            NodeLog::Memory(log) => {
                log.corrupt((log.len() as u64 * 8 * permille / 1_000) as usize);
                Corrupted::Refused
            }
            NodeLog::Disk(log) => log.held().corrupt(),
        }
    }

    /// A bit turns over so many bytes before the end of bytes in memory.
    pub fn corrupt_before_end(&self, back: usize) {
        match self {
            NodeLog::Memory(log) => log.corrupt(log.len().saturating_sub(back) * 8),
            NodeLog::Disk(_) => {}
        }
    }

    /// Writes without syncing.
    ///
    /// # Errors
    /// If no log can take it.
    pub fn write_unsynced(&self, number: u64, batch: &LogBatch) -> Result<(), StoreError> {
        match self {
            NodeLog::Memory(log) => log.write_unsynced(number, batch),
            NodeLog::Disk(log) => {
                log.held().waiting.push((number, batch.clone()));
                Ok(())
            }
        }
    }

    /// Makes everything written durable.
    ///
    /// # Errors
    /// If the log takes it not.
    pub fn sync(&self) -> Result<(), StoreError> {
        match self {
            NodeLog::Memory(log) => log.sync(),
            NodeLog::Disk(log) => log.held().sync(),
        }
    }

    /// Writes and syncs.
    ///
    /// # Errors
    /// If the log takes it not.
    pub fn write_synced(&self, number: u64, batch: &LogBatch) -> Result<(), StoreError> {
        self.as_log().write_synced(number, batch)
    }

    /// Gives back what is not needed any more; replicas whose damaged entries are in the way.
    ///
    /// # Errors
    /// If that fails.
    pub fn reclaim(&self) -> Result<Vec<ReplicaId>, StoreError> {
        self.as_log().reclaim()
    }
}

impl LogOnDisk {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn open(&mut self) -> Result<(), StoreError> {
        if let Some(log) = self.log.take() {
            self.disk.kill(Some(log));
        }
        self.waiting.clear();
        for _ in 0..STARTS_FAIL_MAX {
            if self.env.rng.random_bool(0.2) {
                self.disk.arm(DiskFault::PowerCut(self.env.rng.random_range(0..20)));
            }
            match self.disk.open() {
                Ok(log) => {
                    self.disk.arm(NEVER);
                    self.log = Some(log);
                    return Ok(());
                }
                Err(damaged @ StoreError::Damaged { .. }) => return Err(damaged),
                Err(_) => self.disk.lose_power(None, &mut self.env.rng),
            }
        }
        self.log = Some(self.disk.open()?);
        Ok(())
    }

    fn crash(&mut self, writes: bool) {
        let waiting = std::mem::take(&mut self.waiting);
        let Some(log) = self.log.take() else { return };
        if writes && !waiting.is_empty() {
            let after = self.env.rng.random_range(0..FAILS_WITHIN_CALLS);
            let faults = [DiskFault::PowerCut, DiskFault::FailedSync, DiskFault::FailedWrite, DiskFault::FullDisk];
            self.disk.arm(faults[[0, 0, 0, 1, 2, 3][self.env.rng.random_range(0..6)]](after));
            // Nobody was told that it is durable, whether it is or not.
            let _ = waiting.iter().try_for_each(|(number, batch)| log.write_synced(*number, batch));
        }
        match self.env.rng.random_bool(0.5) {
            true => self.disk.kill(Some(log)),
            false => self.disk.lose_power(Some(log), &mut self.env.rng),
        }
    }

    fn corrupt(&mut self) -> Corrupted {
        self.disk.flip(&mut self.env.rng);
        match self.disk.open() {
            Ok(log) => {
                self.disk.kill(Some(log));
                Corrupted::Opened
            }
            Err(_) => Corrupted::Refused,
        }
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        let waiting = std::mem::take(&mut self.waiting);
        let log = self.open_log()?;
        waiting.iter().try_for_each(|(number, batch)| log.write_synced(*number, batch))?;
        // As where nothing is written for a while.
        if self.env.rng.random_bool(0.1) { self.open_log()?.sync_witness() } else { Ok(()) }
    }

    fn open_log(&self) -> Result<&dyn Log, StoreError> {
        self.log.as_deref().ok_or_else(|| StoreError::io("using the raft log", "its process is down"))
    }
}

impl Log for LogOnDisk {
    fn replicas(&self) -> Result<Vec<ReplicaId>, StoreError> {
        self.held().open_log()?.replicas()
    }

    fn state(&self, replica: ReplicaId) -> Result<Option<LogState>, StoreError> {
        self.held().open_log()?.state(replica)
    }

    fn entries(
        &self,
        replica: ReplicaId,
        from: Index,
        to: Index,
        max_bytes: usize,
    ) -> Result<Vec<raft::eraftpb::Entry>, StoreError> {
        self.held().open_log()?.entries(replica, from, to, max_bytes)
    }

    fn write_synced(&self, number: u64, batch: &LogBatch) -> Result<(), StoreError> {
        self.held().open_log()?.write_synced(number, batch)
    }

    fn newest_batch(&self) -> u64 {
        self.held().open_log().map_or(0, |log| log.newest_batch())
    }

    fn sync_witness(&self) -> Result<(), StoreError> {
        self.held().open_log()?.sync_witness()
    }

    fn reclaim(&self) -> Result<Vec<ReplicaId>, StoreError> {
        self.held().open_log()?.reclaim()
    }
}
