//! All Raft logs of a node in one raft-engine. The engine's region id is the replica id.
//!
//! Beside a replica's entries stand its hard state, where its log was cut, where it ends, and the mark of a snapshot
//! being installed. The engine may bring entries back that were cut or replaced, and says nothing of files that it
//! has lost: cut and end say what must be there, and what counts.

mod audit;
mod files;
mod witness;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mailraft_storage::entry::{versioned_decode, versioned_encode};
use mailraft_storage::log::{InstallMark, Log, LogBatch, LogState, LogWrite};
use mailraft_storage::{DAMAGED_NODE_ADVICE, IncarnationMark, Index, LogPosition, ReplicaId, StoreError};
use raft::eraftpb::{Entry, HardState};
use raft_engine::env::{DefaultFileSystem, FileSystem};
use raft_engine::{Command, Config, Engine, LogBatch as EngineBatch, MessageExt, ReadableSize, RecoveryMode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::files::{Failure, Files, Queue};
use self::witness::Witness;
use crate::WITNESS_FILE;

/// The engine's own region for what is the node's: never a replica's id.
const NODE_REGION: u64 = u64::MAX;
const KEY_HARD_STATE: &[u8] = b"hard-state";
const KEY_CUT: &[u8] = b"cut";
const KEY_END: &[u8] = b"end";
const KEY_INSTALLING: &[u8] = b"installing";
const KEY_INCARNATION: &[u8] = b"incarnation";
const KEY_NEWEST_BATCH: &[u8] = b"group";
const KEY_WITNESSED: &[u8] = b"witnessed";
const VALUE_VERSION: u8 = 1;
/// Old files are given back once all are larger than this, in bytes.
const PURGE_FROM_BYTES: u64 = 512 << 20;
/// The size of one file, in bytes.
const FILE_BYTES: u64 = 32 << 20;
/// Entries that are read at once to see whether they can be, in bytes.
const SCAN_BYTES: usize = 1 << 20;

/// Raft logs on disk, over the files of the operating system or over others.
pub struct DiskLog<F: FileSystem = DefaultFileSystem> {
    engine: Engine<Files<F>>,
    files: Arc<Files<F>>,
    witness: Arc<Witness<F>>,
    failure: Arc<Failure>,
    /// Held while a batch is written.
    newest: Mutex<Newest>,
    /// What is durable, of every replica whose log can be read.
    states: Mutex<BTreeMap<ReplicaId, LogState>>,
}

struct Newest {
    /// The number of the newest durable batch.
    batch: u64,
    /// Whether the log itself says that it has a witness.
    witnessed: bool,
}

impl DiskLog {
    /// Opens the logs in this directory, or makes them.
    ///
    /// # Errors
    /// If the directory can't be read or written or is open in another process, and [`StoreError::Damaged`] if
    /// anything is missing or changed that was durable when the log was last open; a batch that was never made durable
    /// may be missing. Entries of older batches are checked when they are read: see [`Log::entries`].
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Self::open_sized(dir, FILE_BYTES, PURGE_FROM_BYTES)
    }

    /// As [`DiskLog::open`], with the size of one file and the size of all from which old ones are given back.
    #[doc(hidden)]
    pub fn open_sized(dir: &Path, file_bytes: u64, purge_from_bytes: u64) -> Result<Self, StoreError> {
        Self::open_over(Arc::new(DefaultFileSystem), dir, file_bytes, purge_from_bytes)
    }
}

impl<F: FileSystem> DiskLog<F> {
    /// As [`DiskLog::open_sized`], over other files.
    #[doc(hidden)]
    pub fn open_over(inner: Arc<F>, dir: &Path, file_bytes: u64, purge_from_bytes: u64) -> Result<Self, StoreError> {
        let io = |what: &str, e: std::io::Error| StoreError::io(format!("{what} {}", dir.display()), e);
        std::fs::create_dir_all(dir).map_err(|e| io("making the directory of the raft log", e))?;
        // The engine takes the same lock; before it does, files of a log that is open elsewhere must not be cut.
        let lock = std::fs::File::create(dir.join("LOCK")).map_err(|e| io("locking the raft log in", e))?;
        lock.try_lock().map_err(|e| {
            let what =
                format!("opening the raft log in {} (another process has it open: stop that first)", dir.display());
            StoreError::io(what, e)
        })?;
        let path = dir.join(WITNESS_FILE);
        let witness = Witness::open(&path, inner.as_ref())?;
        let named = witness.as_ref().map(|(_, named)| *named);
        audit::audit(dir, inner.as_ref(), named.as_ref())?.carry_out(inner.as_ref())?;
        drop(lock);
        let failure = Arc::new(Failure::default());
        let files = Arc::new(Files::new(inner.clone(), failure.clone()));
        let config = Config {
            dir: dir.to_string_lossy().into_owned(),
            // What may be missing at the end is cut by now.
            recovery_mode: RecoveryMode::AbsoluteConsistency,
            // Everything in it is ciphertext.
            batch_compression_threshold: ReadableSize(0),
            target_file_size: ReadableSize(file_bytes),
            purge_threshold: ReadableSize(purge_from_bytes),
            enable_log_recycle: false,
            ..Config::default()
        };
        let engine = Engine::open_with_file_system(config, files.clone()).map_err(|e| {
            let what = format!("opening the raft log in {} (check the disk; if it is well, ", dir.display());
            StoreError::io(format!("{what}{DAMAGED_NODE_ADVICE})"), e)
        })?;
        let batch = match engine.get(NODE_REGION, KEY_NEWEST_BATCH) {
            Some(value) => versioned_decode("raft log batch", VALUE_VERSION, &value)?,
            None => 0,
        };
        let witnessed = engine.get(NODE_REGION, KEY_WITNESSED).is_some();
        if named.is_none() && witnessed {
            return Err(audit::damaged_log(dir, format_args!("its file {WITNESS_FILE} is missing or can't be read")));
        }
        if let Some(named) = named.filter(|named| batch < named.batch) {
            return Err(audit::damaged_log(
                dir,
                format_args!("batch {} was durable and it ends with {batch}", named.batch),
            ));
        }
        let witness = Arc::new(match witness {
            Some((witness, _)) => witness,
            None => Witness::create(&path, inner.as_ref(), audit::beginning(dir)?)?,
        });
        files.watch(witness.clone());
        // What was read may stand in memory only.
        files.sync(Queue::Appended).map_err(|e| io("syncing the raft log in", e))?;
        // Neither the engine nor the witness syncs the directory for a first file.
        std::fs::File::open(dir)
            .and_then(|d| d.sync_all())
            .map_err(|e| io("syncing the directory of the raft log", e))?;
        let newest = Mutex::new(Newest { batch, witnessed });
        let log = DiskLog { engine, files, witness, failure, newest, states: Mutex::default() };
        let mut states = BTreeMap::new();
        for replica in log.regions() {
            // One that is damaged is read again, and refused, when it is asked for.
            if let Ok(Some(state)) = log.read_state(replica) {
                states.insert(replica, state);
            }
        }
        *log.states() = states;
        log.name(batch)?;
        log.sync_witness()?;
        Ok(log)
    }

    /// Has the witness name a batch that is durable.
    fn name(&self, batch: u64) -> Result<(), StoreError> {
        let end = self.files.end(Queue::Appended);
        let named = self.witness.name(|named| {
            named.batch = batch;
            named.appended.end = end.unwrap_or(named.appended.end);
        });
        named.map_err(|e| StoreError::io("writing the raft log's witness", self.failure.keep(e)))
    }

    /// Carries out what writes, unless something that did has failed before. The engine panics where a sync fails.
    fn write<T>(&self, what: &str, work: impl FnOnce() -> raft_engine::Result<T>) -> Result<T, StoreError> {
        if let Some(before) = self.failure.get() {
            return Err(StoreError::io(
                format!("{what} (something failed before, and nothing is written since)"),
                before,
            ));
        }
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(done) => done.map_err(|e| StoreError::io(what, self.failure.keep(e))),
            Err(panic) => match self.failure.get() {
                Some(error) => Err(StoreError::io(what, error)),
                None => resume_unwind(panic),
            },
        }
    }

    fn newest(&self) -> MutexGuard<'_, Newest> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn states(&self) -> MutexGuard<'_, BTreeMap<ReplicaId, LogState>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The replicas of which some entry can't be read.
    fn with_damaged_entries(&self) -> Vec<ReplicaId> {
        let held: Vec<ReplicaId> = self.states().keys().copied().collect();
        held.into_iter().filter(|replica| !self.has_sound_entries(*replica)).collect()
    }

    fn has_sound_entries(&self, replica: ReplicaId) -> bool {
        let mut read = Index(0);
        loop {
            let Some((cut, last)) = self.span(replica) else { return true };
            let from = Index(cut.0.max(read.0) + 1);
            if from > last {
                return true;
            }
            read = match self.entries(replica, from, Index(last.0 + 1), SCAN_BYTES) {
                Ok(entries) => Index(from.0 + entries.len() as u64 - 1),
                // They may have been cut off or replaced meanwhile.
                Err(_) if self.span(replica).is_none_or(|(cut, now)| cut >= from || now < last) => continue,
                Err(_) => return false,
            };
        }
    }

    /// Up to where a replica's entries are cut off, and the last of them.
    fn span(&self, replica: ReplicaId) -> Option<(Index, Index)> {
        self.states().get(&replica).map(|state| (state.cut.index, state.last))
    }

    fn regions(&self) -> Vec<ReplicaId> {
        let regions = self.engine.raft_groups().into_iter().filter(|region| *region != NODE_REGION);
        let mut regions: Vec<ReplicaId> = regions.map(ReplicaId).collect();
        regions.sort_unstable();
        regions
    }

    fn value<T: DeserializeOwned>(&self, replica: ReplicaId, key: &[u8]) -> Result<Option<T>, StoreError> {
        let Some(value) = self.engine.get(replica.0, key) else { return Ok(None) };
        versioned_decode(&place(replica), VALUE_VERSION, &value).map(Some)
    }

    fn read_state(&self, replica: ReplicaId) -> Result<Option<LogState>, StoreError> {
        let hard: Option<(u64, u64, u64)> = self.value(replica, KEY_HARD_STATE)?;
        let cut: Option<LogPosition> = self.value(replica, KEY_CUT)?;
        // Before ends were kept at all times, one stood only from a reset until the next entry.
        let end = self.value::<Option<Index>>(replica, KEY_END)?.flatten();
        let mark: Option<InstallMark> = self.value(replica, KEY_INSTALLING)?;
        let incarnation: Option<IncarnationMark> = self.value(replica, KEY_INCARNATION)?;
        let (first, last) = (self.engine.first_index(replica.0), self.engine.last_index(replica.0));
        if hard.is_none() && cut.is_none() && end.is_none() && mark.is_none() && last.is_none() && incarnation.is_none()
        {
            return Ok(None);
        }
        let (term, vote, commit) = hard.unwrap_or_default();
        let cut = cut.unwrap_or_default();
        let end = end.unwrap_or(last.map_or(cut.index, Index)).max(cut.index);
        if end > cut.index {
            let missing = |what: std::fmt::Arguments<'_>| Err(StoreError::damaged(place(replica), what));
            match (first, last) {
                (Some(first), _) if first > cut.index.0 + 1 => {
                    return missing(format_args!("it begins with entry {first} and was cut after {}", cut.index));
                }
                (_, Some(last)) if last >= end.0 => {}
                _ => return missing(format_args!("its entries up to {end} are not all there")),
            }
        }
        let last = end;
        let hard_state = HardState { term, vote, commit, ..Default::default() };
        let ahead = mark.as_ref().and_then(InstallMark::ahead);
        let installing = mark.as_ref().and_then(InstallMark::held).cloned();
        let incarnation = incarnation.unwrap_or_default();
        Ok(Some(LogState { hard_state, cut, last, installing, ahead, incarnation }))
    }

    fn add(
        &self,
        batch: &mut EngineBatch,
        before: Option<&LogState>,
        after: &LogState,
        write: &LogWrite,
    ) -> Result<(), StoreError> {
        let region = write.replica.0;
        let put = |batch: &mut EngineBatch, key: &[u8], value: Vec<u8>| {
            batch
                .put(region, key.to_vec(), value)
                .map_err(|e| StoreError::io(format!("writing the {}", place(write.replica)), e))
        };
        let mut cut = before.map_or(LogPosition::default(), |before| before.cut);
        if let Some(at) = write.reset {
            cut = at;
            batch.add_command(region, Command::Compact { index: cut.index.0 + 1 });
            put(batch, KEY_CUT, encoded(&cut))?;
        }
        if let Some(mark) = &write.mark {
            put(batch, KEY_INSTALLING, encoded(mark))?;
        }
        if !write.append.is_empty() {
            if self.engine.first_index(region).is_some_and(|first| first <= cut.index.0) {
                // Entries that were cut are back: the engine must not see a gap behind them.
                batch.add_command(region, Command::Compact { index: cut.index.0 + 1 });
            }
            batch
                .add_entries::<Entries>(region, &write.append)
                .map_err(|e| StoreError::io(format!("writing the {}", place(write.replica)), e))?;
        }
        if let Some(hard) = &write.hard_state {
            put(batch, KEY_HARD_STATE, encoded(&(hard.term, hard.vote, hard.commit)))?;
        }
        if let Some(incarnation) = &write.incarnation {
            put(batch, KEY_INCARNATION, encoded(incarnation))?;
        }
        if let Some(at) = write.compact.filter(|at| at.index > cut.index) {
            // Never by the engine's own call: that one logs errors and goes on.
            batch.add_command(region, Command::Compact { index: at.index.0 + 1 });
            put(batch, KEY_CUT, encoded(&at))?;
        }
        if !write.append.is_empty() || before.is_none_or(|before| (before.cut, before.last) != (after.cut, after.last))
        {
            put(batch, KEY_END, encoded(&Some(after.last)))?;
        }
        Ok(())
    }
}

impl<F: FileSystem> Log for DiskLog<F> {
    fn replicas(&self) -> Result<Vec<ReplicaId>, StoreError> {
        // The engine still names a region that was removed until its files are given back, and has none for a
        // replica of which nothing but its beginning is known.
        let mut held: BTreeSet<ReplicaId> = self.states().keys().copied().collect();
        for replica in self.regions() {
            // A damaged log is one of a replica that is there: who reads it hears of the damage.
            if !matches!(self.state(replica), Ok(None)) {
                held.insert(replica);
            }
        }
        Ok(held.into_iter().collect())
    }

    fn state(&self, replica: ReplicaId) -> Result<Option<LogState>, StoreError> {
        let held = self.states().get(&replica).cloned();
        match held {
            Some(state) => Ok(Some(state)),
            None => self.read_state(replica),
        }
    }

    fn entries(&self, replica: ReplicaId, from: Index, to: Index, max_bytes: usize) -> Result<Vec<Entry>, StoreError> {
        let mut out = Vec::new();
        if from >= to {
            return Ok(out);
        }
        let damaged = |detail: &dyn std::fmt::Display| {
            StoreError::damaged(format!("{}, entries from {from} up to {to}", place(replica)), detail)
        };
        let held = self.state(replica)?.map(|s| (s.cut.index, s.last));
        if held.is_none_or(|(cut, last)| from <= cut || to.0 > last.0 + 1) {
            return Err(damaged(&"they are not all there"));
        }
        // The engine gives one entry whatever its size.
        self.engine
            .fetch_entries_to::<Entries>(replica.0, from.0, to.0, Some(max_bytes), &mut out)
            .map_err(|e| damaged(&e))?;
        if out.is_empty() || out.iter().zip(from.0..).any(|(e, index)| e.index != index) {
            return Err(damaged(&"others stand in their place"));
        }
        Ok(out)
    }

    fn write_synced(&self, number: u64, batch: &LogBatch) -> Result<(), StoreError> {
        let mut newest = self.newest();
        assert!(number > newest.batch, "batch {number} after {}", newest.batch);
        let mut engine_batch = EngineBatch::with_capacity(batch.writes.len() + 1);
        let failed = |e| StoreError::io("writing the raft log's batch", e);
        // In every batch, so that none is empty: the engine would not sync it.
        engine_batch.put(NODE_REGION, KEY_NEWEST_BATCH.to_vec(), encoded(&number)).map_err(failed)?;
        if !newest.witnessed {
            engine_batch.put(NODE_REGION, KEY_WITNESSED.to_vec(), encoded(&true)).map_err(failed)?;
        }
        let mut after: BTreeMap<ReplicaId, Option<LogState>> = BTreeMap::new();
        for write in &batch.writes {
            if after.contains_key(&write.replica) {
                return Err(StoreError::damaged(
                    place(write.replica),
                    format_args!("it stands twice in batch {number}"),
                ));
            }
            if write.remove {
                engine_batch.add_command(write.replica.0, Command::Clean);
                after.insert(write.replica, None);
            } else if !write.is_empty() {
                let before = self.state(write.replica)?;
                let state = before.clone().unwrap_or_default().after(write)?;
                self.add(&mut engine_batch, before.as_ref(), &state, write)?;
                after.insert(write.replica, Some(state));
            }
        }
        self.write("syncing the raft log", || self.engine.write(&mut engine_batch, true))?;
        // Before anyone is answered.
        self.name(number)?;
        let mut states = self.states();
        for (replica, state) in after {
            match state {
                Some(state) => states.insert(replica, state),
                None => states.remove(&replica),
            };
        }
        *newest = Newest { batch: number, witnessed: true };
        Ok(())
    }

    fn newest_batch(&self) -> u64 {
        self.newest().batch
    }

    fn sync_witness(&self) -> Result<(), StoreError> {
        self.write("syncing the raft log's witness", || Ok(self.witness.sync()?))
    }

    fn reclaim(&self) -> Result<Vec<ReplicaId>, StoreError> {
        let mut damaged = Vec::new();
        self.write("giving back old files of the raft log", || match self.engine.purge_expired_files() {
            // The regions it names hold old files back; their logs are cut when their rows are flushed.
            Ok(_) => Ok(()),
            // What the engine holds of an old file is read, and written to another. If it can't be read nothing was written
            // either, and what writes next is as sound as before. It may hold entries that no log has any more: of files
            // that it gave back some said that these were cut off.
            Err(raft_engine::Error::Corruption(_)) => {
                damaged = self.with_damaged_entries();
                Ok(())
            }
            Err(error) => Err(error),
        })?;
        Ok(damaged)
    }
}

struct Entries;

impl MessageExt for Entries {
    type Entry = Entry;

    fn index(entry: &Entry) -> u64 {
        entry.index
    }
}

fn encoded<T: Serialize>(value: &T) -> Vec<u8> {
    versioned_encode(VALUE_VERSION, value)
}

fn place(replica: ReplicaId) -> String {
    format!("raft log of replica {replica}")
}
