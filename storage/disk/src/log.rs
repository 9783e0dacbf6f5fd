//! All Raft logs of a node in one raft-engine. The engine's region id is the replica id.

use std::path::Path;

use mailraft_storage::entry::{versioned_decode, versioned_encode};
use mailraft_storage::log::{Log, LogBatch, LogState, LogWrite};
use mailraft_storage::{Applied, Index, ReplicaId, StoreError, Term};
use raft::eraftpb::{Entry, HardState};
use raft_engine::{Command, Config, Engine, LogBatch as EngineBatch, MessageExt, ReadableSize, RecoveryMode};

/// The engine's own region for what is the node's: never a replica's id.
const NODE_REGION: u64 = u64::MAX;
const KEY_HARD_STATE: &[u8] = b"hard-state";
const KEY_CUT: &[u8] = b"cut";
const KEY_INSTALLING: &[u8] = b"installing";
const KEY_GROUP: &[u8] = b"group";
const VALUE_VERSION: u8 = 1;
/// Old files are given back once the log is larger.
const PURGE_AT: ReadableSize = ReadableSize::mb(512);
const FILE_SIZE: ReadableSize = ReadableSize::mb(32);

struct Entries;

impl MessageExt for Entries {
    type Entry = Entry;

    fn index(entry: &Entry) -> u64 {
        entry.index
    }
}

/// Raft logs on disk.
pub struct DiskLog {
    engine: Engine,
    newest_group: u64,
}

impl DiskLog {
    /// Opens the logs in this directory, or makes them.
    ///
    /// # Errors
    /// If the directory can't be read or written, or holds damage that the engine notices.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let config = Config {
            dir: dir.to_string_lossy().into_owned(),
            recovery_mode: RecoveryMode::TolerateTailCorruption,
            // Everything in it is ciphertext.
            batch_compression_threshold: ReadableSize(0),
            target_file_size: FILE_SIZE,
            purge_threshold: PURGE_AT,
            enable_log_recycle: false,
            ..Config::default()
        };
        let engine = Engine::open(config)
            .map_err(|e| StoreError::io(format!("opening the raft log {}", dir.display()), e))?;
        let newest_group = match engine.get(NODE_REGION, KEY_GROUP) {
            Some(value) => versioned_decode("raft log group", VALUE_VERSION, &value)?,
            None => 0,
        };
        Ok(DiskLog { engine, newest_group })
    }

    fn value<T: for<'a> serde::Deserialize<'a>>(&self, replica: ReplicaId, key: &[u8]) -> Result<Option<T>, StoreError> {
        match self.engine.get(replica.0, key) {
            Some(value) => versioned_decode(&format!("raft log of replica {replica}"), VALUE_VERSION, &value).map(Some),
            None => Ok(None),
        }
    }

    fn add(&self, batch: &mut EngineBatch, write: &LogWrite) -> Result<(), StoreError> {
        let region = write.replica.0;
        let said = |e: raft_engine::Error| StoreError::io(format!("writing the raft log of replica {region}"), e);
        if write.remove {
            batch.add_command(region, Command::Clean);
            return Ok(());
        }
        if let Some((index, term)) = write.reset {
            // Compacting past everything leaves no entry; the next one may have any index.
            let last = self.engine.last_index(region).unwrap_or(0);
            batch.add_command(region, Command::Compact { index: last.max(index.0) + 1 });
            batch.put(region, KEY_CUT.to_vec(), versioned_encode(VALUE_VERSION, &(index, term))).map_err(said)?;
        }
        if let Some(installing) = &write.installing {
            batch.put(region, KEY_INSTALLING.to_vec(), versioned_encode(VALUE_VERSION, installing)).map_err(said)?;
        }
        if !write.append.is_empty() {
            batch.add_entries::<Entries>(region, &write.append).map_err(said)?;
        }
        if let Some(hard) = &write.hard_state {
            let value = versioned_encode(VALUE_VERSION, &(hard.term, hard.vote, hard.commit));
            batch.put(region, KEY_HARD_STATE.to_vec(), value).map_err(said)?;
        }
        if let Some((index, term)) = write.compact {
            batch.add_command(region, Command::Compact { index: index.0 + 1 });
            batch.put(region, KEY_CUT.to_vec(), versioned_encode(VALUE_VERSION, &(index, term))).map_err(said)?;
        }
        Ok(())
    }
}

impl Log for DiskLog {
    fn replicas(&self) -> Result<Vec<ReplicaId>, StoreError> {
        let mut replicas: Vec<ReplicaId> =
            self.engine.raft_groups().into_iter().filter(|r| *r != NODE_REGION).map(ReplicaId).collect();
        replicas.sort_unstable();
        Ok(replicas)
    }

    fn state(&self, replica: ReplicaId) -> Result<Option<LogState>, StoreError> {
        let hard: Option<(u64, u64, u64)> = self.value(replica, KEY_HARD_STATE)?;
        let cut: Option<(Index, Term)> = self.value(replica, KEY_CUT)?;
        let installing: Option<Option<Applied>> = self.value(replica, KEY_INSTALLING)?;
        let last = self.engine.last_index(replica.0);
        if hard.is_none() && cut.is_none() && last.is_none() {
            return Ok(None);
        }
        let (term, vote, commit) = hard.unwrap_or_default();
        let cut = cut.unwrap_or_default();
        if let Some(first) = self.engine.first_index(replica.0)
            && first != cut.0.0 + 1
        {
            return Err(StoreError::damaged(
                format!("raft log of replica {replica}"),
                format_args!("it begins with entry {first} and was cut after {}", cut.0),
            ));
        }
        Ok(Some(LogState {
            hard_state: HardState { term, vote, commit, ..Default::default() },
            cut,
            last: Index(last.unwrap_or(0).max(cut.0.0)),
            installing: installing.flatten(),
        }))
    }

    fn entries(&self, replica: ReplicaId, from: Index, to: Index, max_bytes: usize) -> Result<Vec<Entry>, StoreError> {
        let mut out = Vec::new();
        // The engine gives one entry whatever its size.
        self.engine
            .fetch_entries_to::<Entries>(replica.0, from.0, to.0, Some(max_bytes.max(1)), &mut out)
            .map_err(|e| StoreError::damaged(format!("raft log of replica {replica}, entries {from} to {to}"), e))?;
        let follows = out.iter().zip(from.0..).all(|(e, index)| e.index == index);
        if out.is_empty() || !follows {
            return Err(StoreError::damaged(
                format!("raft log of replica {replica}"),
                format_args!("entries {from} to {to} are not all there"),
            ));
        }
        Ok(out)
    }

    fn write_synced(&self, group: u64, batch: &LogBatch) -> Result<(), StoreError> {
        let mut engine_batch = EngineBatch::with_capacity(batch.writes.len() + 1);
        // Never empty, or the engine would not sync.
        engine_batch
            .put(NODE_REGION, KEY_GROUP.to_vec(), versioned_encode(VALUE_VERSION, &group))
            .map_err(|e| StoreError::io("writing the raft log", e))?;
        for write in &batch.writes {
            self.add(&mut engine_batch, write)?;
        }
        self.engine.write(&mut engine_batch, true).map_err(|e| StoreError::io("syncing the raft log", e))?;
        Ok(())
    }

    fn newest_group(&self) -> u64 {
        self.newest_group
    }

    fn reclaim(&self) -> Result<(), StoreError> {
        // Regions it names hold old files back; their logs are cut when their rows are flushed.
        self.engine.purge_expired_files().map_err(|e| StoreError::io("giving back old files of the raft log", e))?;
        Ok(())
    }
}
