//! All Raft logs of a node in one raft-engine. The engine's region id is the replica id.
//!
//! Beside a replica's entries stand its hard state, where its log was cut, the mark of a snapshot being
//! installed, and, from a reset until the next entry, where the log ends. The engine may bring entries back
//! that were cut, and after a reset still has those of the other history: cut and end say what counts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use mailraft_storage::entry::{versioned_decode, versioned_encode};
use mailraft_storage::log::{Log, LogBatch, LogState, LogWrite};
use mailraft_storage::{Applied, Index, ReplicaId, StoreError, Term};
use raft::eraftpb::{Entry, HardState};
use raft_engine::{Command, Config, Engine, LogBatch as EngineBatch, MessageExt, ReadableSize, RecoveryMode};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The engine's own region for what is the node's: never a replica's id.
const NODE_REGION: u64 = u64::MAX;
const KEY_HARD_STATE: &[u8] = b"hard-state";
const KEY_CUT: &[u8] = b"cut";
const KEY_END: &[u8] = b"end";
const KEY_INSTALLING: &[u8] = b"installing";
const KEY_NEWEST_BATCH: &[u8] = b"group";
const VALUE_VERSION: u8 = 1;
/// Old files are given back once all are larger than this, in bytes.
const PURGE_FROM_BYTES: u64 = 512 << 20;
/// The size of one file, in bytes.
const FILE_BYTES: u64 = 32 << 20;

/// Raft logs on disk.
pub struct DiskLog {
    engine: Engine,
    /// The newest durable batch; held while one is written.
    newest: Mutex<u64>,
    /// What is durable, of every replica whose log can be read.
    states: Mutex<BTreeMap<ReplicaId, LogState>>,
}

impl DiskLog {
    /// Opens the logs in this directory, or makes them.
    ///
    /// # Errors
    /// If the directory can't be read or written, is open in another process, or holds damage that the engine
    /// notices; damage in one replica's log is said by [`Log::state`] and [`Log::entries`].
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Self::open_sized(dir, FILE_BYTES, PURGE_FROM_BYTES)
    }

    /// As [`DiskLog::open`], with the size of one file and the size of all from which old ones are given back.
    #[doc(hidden)]
    pub fn open_sized(dir: &Path, file_bytes: u64, purge_from_bytes: u64) -> Result<Self, StoreError> {
        let config = Config {
            dir: dir.to_string_lossy().into_owned(),
            recovery_mode: RecoveryMode::TolerateTailCorruption,
            // Everything in it is ciphertext.
            batch_compression_threshold: ReadableSize(0),
            target_file_size: ReadableSize(file_bytes),
            purge_threshold: ReadableSize(purge_from_bytes),
            enable_log_recycle: false,
            ..Config::default()
        };
        let engine = Engine::open(config).map_err(|e| {
            let text = e.to_string();
            let hint = if text.contains("Failed to lock file") {
                "another process has it open: stop that first"
            } else {
                "check the disk; if it is well, set this node's data aside and let it join as a new node"
            };
            StoreError::io(format!("opening the raft log in {} ({hint})", dir.display()), text)
        })?;
        let number = match engine.get(NODE_REGION, KEY_NEWEST_BATCH) {
            Some(value) => versioned_decode("raft log batch", VALUE_VERSION, &value)?,
            None => 0,
        };
        let log = DiskLog { engine, newest: Mutex::new(number), states: Mutex::default() };
        let mut states = BTreeMap::new();
        for replica in log.regions() {
            // One that is damaged is read again, and refused, when it is asked for.
            if let Ok(Some(state)) = log.read_state(replica) {
                states.insert(replica, state);
            }
        }
        *log.states() = states;
        Ok(log)
    }

    fn states(&self) -> MutexGuard<'_, BTreeMap<ReplicaId, LogState>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
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
        let cut: Option<(Index, Term)> = self.value(replica, KEY_CUT)?;
        let end: Option<Option<Index>> = self.value(replica, KEY_END)?;
        // No value, or one that says that nothing is being installed.
        let installing: Option<Option<Applied>> = self.value(replica, KEY_INSTALLING)?;
        let (first, last) = (self.engine.first_index(replica.0), self.engine.last_index(replica.0));
        if hard.is_none() && cut.is_none() && end.is_none() && installing.is_none() && last.is_none() {
            return Ok(None);
        }
        let (term, vote, commit) = hard.unwrap_or_default();
        let cut = cut.unwrap_or_default();
        let last = last.map_or(cut.0, Index).min(end.flatten().unwrap_or(Index(u64::MAX))).max(cut.0);
        if let Some(first) = first.filter(|first| last > cut.0 && *first > cut.0.0 + 1) {
            let gap = format_args!("it begins with entry {first} and was cut after {}", cut.0);
            return Err(StoreError::damaged(place(replica), gap));
        }
        let hard_state = HardState { term, vote, commit, ..Default::default() };
        Ok(Some(LogState { hard_state, cut, last, installing: installing.flatten() }))
    }

    fn add(&self, batch: &mut EngineBatch, before: &LogState, write: &LogWrite) -> Result<(), StoreError> {
        let region = write.replica.0;
        let put = |batch: &mut EngineBatch, key: &[u8], value: Vec<u8>| {
            batch
                .put(region, key.to_vec(), value)
                .map_err(|e| StoreError::io(format!("writing the {}", place(write.replica)), e))
        };
        let mut cut = before.cut;
        if let Some(at) = write.reset {
            cut = at;
            batch.add_command(region, Command::Compact { index: cut.0.0 + 1 });
            put(batch, KEY_CUT, encoded(&cut))?;
            put(batch, KEY_END, encoded(&Some(cut.0)))?;
        }
        if let Some(mark) = &write.mark {
            put(batch, KEY_INSTALLING, encoded(&mark.held()))?;
        }
        if !write.append.is_empty() {
            if self.engine.first_index(region).is_some_and(|first| first <= cut.0.0) {
                // Entries that were cut are back: the engine must not see a gap behind them.
                batch.add_command(region, Command::Compact { index: cut.0.0 + 1 });
            }
            batch
                .add_entries::<Entries>(region, &write.append)
                .map_err(|e| StoreError::io(format!("writing the {}", place(write.replica)), e))?;
            if write.reset.is_some() || self.value::<Option<Index>>(write.replica, KEY_END)?.flatten().is_some() {
                // Appending replaces what lay behind the end. No deletion: the engine may replay one over a
                // later value that it has moved to another file.
                put(batch, KEY_END, encoded(&None::<Index>))?;
            }
        }
        if let Some(hard) = &write.hard_state {
            put(batch, KEY_HARD_STATE, encoded(&(hard.term, hard.vote, hard.commit)))?;
        }
        if let Some(at) = write.compact.filter(|at| at.0 > cut.0) {
            // Never by the engine's own call: that one logs errors and goes on.
            batch.add_command(region, Command::Compact { index: at.0.0 + 1 });
            put(batch, KEY_CUT, encoded(&at))?;
        }
        Ok(())
    }
}

impl Log for DiskLog {
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
        let held = self.state(replica)?.map(|s| (s.cut.0, s.last));
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
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(number > *newest, "batch {number} after {newest}");
        let mut engine_batch = EngineBatch::with_capacity(batch.writes.len() + 1);
        // In every batch, so that none is empty: the engine would not sync it.
        engine_batch
            .put(NODE_REGION, KEY_NEWEST_BATCH.to_vec(), encoded(&number))
            .map_err(|e| StoreError::io("writing the raft log's batch", e))?;
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
                let before = self.state(write.replica)?.unwrap_or_default();
                let state = before.after(write)?;
                self.add(&mut engine_batch, &before, write)?;
                after.insert(write.replica, Some(state));
            }
        }
        self.engine.write(&mut engine_batch, true).map_err(|e| StoreError::io("syncing the raft log", e))?;
        let mut states = self.states();
        for (replica, state) in after {
            match state {
                Some(state) => states.insert(replica, state),
                None => states.remove(&replica),
            };
        }
        *newest = number;
        Ok(())
    }

    fn newest_batch(&self) -> u64 {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reclaim(&self) -> Result<(), StoreError> {
        // The regions it names hold old files back; their logs are cut when their rows are flushed.
        self.engine.purge_expired_files().map_err(|e| StoreError::io("giving back old files of the raft log", e))?;
        Ok(())
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
