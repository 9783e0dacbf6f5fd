//! Rows in RocksDB without its write-ahead log: the Raft log is the write-ahead log. All column families flush
//! together, so that after a crash every replica stands at one applied index.
//!
//! A key is `prefix (8) ‖ mailbox (16) ‖ table (1) ‖ key`. Chunks of bodies stand in a column family of their
//! own, their values in blob files.
//!
//! A replica has two prefixes. Its rows stand under the one that has its position. All of them are replaced by writing
//! the new ones under the other, and then moving the position with one write: whoever reads sees the old rows until
//! then and the new ones from then on, and so does a start after a crash. What stands under a prefix without a position
//! counts for nothing and is deleted at the next start.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;
use mailraft_storage::rows::{Applied, ReplicaBatch, Rows, RowsView, ScannedRows};
use mailraft_storage::{
    ClusterId, DAMAGED_NODE_ADVICE, Index, MailboxId, ReplicaId, RowBatch, RowKey, StoreError, Table,
};
use rocksdb::{
    DB, Direction, ErrorKind, FlushOptions, IteratorMode, ReadOptions, ReadTier, WriteBatch, WriteOptions, properties,
};

use crate::keys::{Prefix, TABLE_AT, after, end_of, family, family_of, reading, start_of, stored, within};
use crate::options::{BODIES, MEMORY_BYTES, Memory, OPEN_FILES_MAX, ROWS, describe_open_error, families, of_database};
use crate::view::DiskView;
use crate::{manifest, marker};

/// Rows written at once when a replica is replaced or removed, in bytes.
const REPLACE_BATCH_BYTES: usize = 4 << 20;

/// So few rows are read faster one by one than together.
const ONE_BY_ONE_MAX_ROWS: usize = 3;

/// Rows on disk.
pub struct DiskRows {
    db: Arc<DB>,
    memory: Memory,
    /// Under which prefix the rows of each replica stand. Held while a row is read, so that none goes meanwhile.
    prefixes: RwLock<BTreeMap<ReplicaId, Prefix>>,
    /// Positions as they were written last, for who asks at every write; of the others the rows tell.
    positions: Mutex<BTreeMap<Prefix, Applied>>,
}

impl DiskRows {
    /// Opens this cluster's rows in this directory, or makes them.
    ///
    /// # Errors
    /// One sentence if the directory can't be read or written, belongs to another cluster or a later version,
    /// is damaged, or is open in another process.
    pub fn open(dir: &Path, cluster: ClusterId) -> Result<Self, StoreError> {
        Self::open_within(dir, cluster, OPEN_FILES_MAX, MEMORY_BYTES)
    }

    /// As [`DiskRows::open`], with at most so many files open at once, those aside that are being written, and with so
    /// much memory for blocks and memtables.
    ///
    /// # Errors
    /// As [`DiskRows::open`].
    pub fn open_within(dir: &Path, cluster: ClusterId, files: usize, memory_bytes: usize) -> Result<Self, StoreError> {
        marker::check(dir, cluster)?;
        let memory = Memory::new(memory_bytes);
        let options = of_database(files, &memory).map_err(|e| StoreError::io("setting the options of the rows", e))?;
        let open = || DB::open_cf_descriptors(&options, dir, families(&memory));
        let db = match open() {
            Err(e) if e.kind() == ErrorKind::Corruption && manifest::cut_torn_end(dir)? => open(),
            opened => opened,
        };
        let db = db.map_err(|e| describe_open_error(dir, &e))?;
        let rows = DiskRows { db: Arc::new(db), memory, prefixes: RwLock::default(), positions: Mutex::default() };
        let mut prefixes: BTreeMap<ReplicaId, Prefix> = BTreeMap::new();
        for prefix in rows.found_prefixes()? {
            // One whose position can't be read is there: who reads it hears of the damage.
            if matches!(rows.applied_from(prefix, &ReadOptions::default()), Ok(None)) {
                rows.forget(prefix)?;
            } else if prefixes.insert(prefix.replica(), prefix).is_some() {
                let what = format!("it has two positions; {DAMAGED_NODE_ADVICE}");
                return Err(StoreError::damaged(format!("rows of replica {}", prefix.replica()), what));
            }
        }
        *rows.prefixes.write().unwrap_or_else(PoisonError::into_inner) = prefixes;
        Ok(rows)
    }

    /// What blocks and memtables take in memory now, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.memory.used_bytes() as u64
    }

    fn prefixes(&self) -> RwLockReadGuard<'_, BTreeMap<ReplicaId, Prefix>> {
        self.prefixes.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every prefix that any key begins with.
    fn found_prefixes(&self) -> Result<Vec<Prefix>, StoreError> {
        let mut out = Vec::new();
        for name in [ROWS, BODIES] {
            let mut iterator = self.db.raw_iterator_cf(family(&self.db, name)?);
            iterator.seek_to_first();
            while let Some(key) = iterator.key() {
                let prefix = Prefix::of(key).ok_or_else(|| StoreError::damaged("rows", "a key without a replica"))?;
                out.push(prefix);
                let Some(end) = end_of(prefix) else { break };
                iterator.seek(end);
            }
            iterator.status().map_err(|e| StoreError::io("reading the rows' replicas", e))?;
        }
        out.sort_unstable();
        out.dedup();
        Ok(out)
    }

    fn positions(&self) -> MutexGuard<'_, BTreeMap<Prefix, Applied>> {
        self.positions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn position(&self, prefix: Prefix) -> Result<Option<Applied>, StoreError> {
        if let Some(applied) = self.positions().get(&prefix) {
            return Ok(Some(applied.clone()));
        }
        self.applied_from(prefix, &ReadOptions::default())
    }

    fn applied_from(&self, prefix: Prefix, read: &ReadOptions) -> Result<Option<Applied>, StoreError> {
        let found = self.db.get_opt(stored(prefix, &Applied::key()), read).map_err(|e| reading(prefix, &e))?;
        found.map(|row| Applied::decode(prefix.replica(), &row)).transpose()
    }

    fn add(&self, out: &mut WriteBatch, prefix: Prefix, batch: &RowBatch) -> Result<(), StoreError> {
        for key in &batch.deletes {
            out.delete_cf(family_of(&self.db, key.table)?, stored(prefix, key));
        }
        for (key, value) in &batch.puts {
            out.put_cf(family_of(&self.db, key.table)?, stored(prefix, key), value);
        }
        Ok(())
    }

    fn write_unlogged(&self, batch: WriteBatch) -> Result<(), StoreError> {
        self.check_background()?;
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.db.write_opt(batch, &options).map_err(|e| StoreError::io("writing rows", e))
    }

    /// A failed flush or compaction is told nowhere else as long as nothing waits for it.
    fn check_background(&self) -> Result<(), StoreError> {
        let count = self.db.property_int_value(properties::BACKGROUND_ERRORS);
        match count.map_err(|e| StoreError::io("asking for background errors of the rows", e))? {
            Some(0) | None => Ok(()),
            Some(count) => Err(StoreError::io(
                "flushing or compacting rows in the background",
                format_args!("{count} errors; the file LOG beside the rows has their words"),
            )),
        }
    }

    /// Deletes what stands under a prefix that counts for nothing, whether it can be read or not. A crash before the
    /// next flush undoes it, and the next start does it again.
    fn forget(&self, prefix: Prefix) -> Result<(), StoreError> {
        let mut batch = WriteBatch::default();
        if let Some(end) = end_of(prefix) {
            for name in [ROWS, BODIES] {
                batch.delete_range_cf(family(&self.db, name)?, start_of(prefix), end.clone());
            }
        }
        self.write_unlogged(batch)
    }

    /// Deletes the chunks with a prefix, and of its other rows those whose table number is to `go`.
    fn delete_rows(&self, prefix: Prefix, go: impl Fn(u8) -> bool) -> Result<(), StoreError> {
        let mut batch = WriteBatch::default();
        if let Some(end) = end_of(prefix) {
            // A crash before the flush undoes it. The caller flushes, and begins again after a crash.
            batch.delete_range_cf(family(&self.db, BODIES)?, start_of(prefix), end);
        }
        // The others row by row, so that the position can stay.
        for item in self.db.iterator_opt(IteratorMode::From(&start_of(prefix), Direction::Forward), within(prefix)) {
            let (key, _) = item.map_err(|e| reading(prefix, &e))?;
            if key.get(TABLE_AT).is_some_and(|table| go(*table)) {
                batch.delete(key);
            }
            if batch.size_in_bytes() > REPLACE_BATCH_BYTES {
                self.write_unlogged(std::mem::take(&mut batch))?;
            }
        }
        self.write_unlogged(batch)
    }
}

impl Rows for DiskRows {
    fn get(&self, replica: ReplicaId, key: &RowKey) -> Result<Option<Bytes>, StoreError> {
        let prefixes = self.prefixes();
        let Some(prefix) = prefixes.get(&replica).copied() else { return Ok(None) };
        let found =
            self.db.get_cf(family_of(&self.db, key.table)?, stored(prefix, key)).map_err(|e| reading(prefix, &e))?;
        Ok(found.map(Bytes::from))
    }

    fn get_many(&self, replica: ReplicaId, keys: &[&RowKey]) -> Result<Vec<Option<Bytes>>, StoreError> {
        let held = self.prefixes();
        let Some(prefix) = held.get(&replica).copied() else { return Ok(vec![None; keys.len()]) };
        if keys.len() <= ONE_BY_ONE_MAX_ROWS {
            drop(held);
            return keys.iter().map(|key| self.get(replica, key)).collect();
        }
        let mut out = vec![None; keys.len()];
        for (name, chunks) in [(ROWS, false), (BODIES, true)] {
            let of_family = |key: &RowKey| (key.table == Table::Chunks.number()) == chunks;
            let mut wanted: Vec<(Vec<u8>, usize)> = Vec::with_capacity(keys.len());
            for (at, key) in keys.iter().enumerate().filter(|(_, key)| of_family(key)) {
                wanted.push((stored(prefix, key), at));
            }
            if wanted.is_empty() {
                continue;
            }
            wanted.sort_unstable();
            let sorted = wanted.iter().map(|(key, _)| key);
            let found = self.db.batched_multi_get_cf(family(&self.db, name)?, sorted, true);
            for ((_, at), value) in wanted.iter().zip(found) {
                out[*at] = value.map_err(|e| reading(prefix, &e))?.map(|value| Bytes::copy_from_slice(&value));
            }
        }
        Ok(out)
    }

    fn scan(
        &self,
        replica: ReplicaId,
        mailbox: MailboxId,
        table: Table,
        prefix: &[u8],
        from: &[u8],
        limit: usize,
    ) -> Result<ScannedRows, StoreError> {
        let prefixes = self.prefixes();
        let Some(held) = prefixes.get(&replica).copied() else { return Ok(Vec::new()) };
        let place = |key: &[u8]| stored(held, &RowKey { mailbox, table: table.number(), key: key.to_vec() });
        let mut read = ReadOptions::default();
        if let Some(end) = after(place(prefix)) {
            read.set_iterate_upper_bound(end);
        }
        let start = place(from.max(prefix));
        let family = family_of(&self.db, table.number())?;
        let mut out = Vec::new();
        for item in self.db.iterator_cf_opt(family, read, IteratorMode::From(&start, Direction::Forward)).take(limit) {
            let (key, value) = item.map_err(|e| reading(held, &e))?;
            out.push((key[TABLE_AT + 1..].to_vec(), Bytes::from(value)));
        }
        Ok(out)
    }

    fn write(&self, batches: &[ReplicaBatch]) -> Result<(), StoreError> {
        self.write_with_sums(batches, &[])
    }

    fn write_with_sums(&self, batches: &[ReplicaBatch], sums: &[RowBatch]) -> Result<(), StoreError> {
        let mut out = WriteBatch::default();
        let (mut new, mut after) = (Vec::new(), Vec::with_capacity(batches.len()));
        let prefixes = self.prefixes();
        for (at, ReplicaBatch { replica, batch, applied }) in batches.iter().enumerate() {
            let prefix = match prefixes.get(replica).copied() {
                Some(prefix) => prefix,
                None => {
                    new.push(*replica);
                    Prefix::first(*replica)
                }
            };
            if let Some(before) = self.position(prefix)?.map(|a| a.index) {
                assert!(applied.index > before, "replica {replica} applies {} after {before}", applied.index);
            }
            for batch in [Some(batch), sums.get(at)].into_iter().flatten() {
                self.add(&mut out, prefix, batch)?;
            }
            out.put(stored(prefix, &Applied::key()), applied.encode());
            after.push((prefix, applied.clone()));
        }
        drop(prefixes);
        if new.is_empty() {
            self.write_unlogged(out)?;
            self.positions().extend(after);
            return Ok(());
        }
        let mut prefixes = self.prefixes.write().unwrap_or_else(PoisonError::into_inner);
        self.write_unlogged(out)?;
        self.positions().extend(after);
        prefixes.extend(new.into_iter().map(|replica| (replica, Prefix::first(replica))));
        Ok(())
    }

    fn applied(&self, replica: ReplicaId) -> Result<Option<Applied>, StoreError> {
        let prefixes = self.prefixes();
        let Some(prefix) = prefixes.get(&replica).copied() else { return Ok(None) };
        self.position(prefix)
    }

    fn replicas(&self) -> Result<Vec<ReplicaId>, StoreError> {
        Ok(self.prefixes().keys().copied().collect())
    }

    fn flush(&self) -> Result<Vec<(ReplicaId, Index)>, StoreError> {
        self.check_background()?;
        let mut options = FlushOptions::default();
        options.set_wait(true);
        let families = [family(&self.db, ROWS)?, family(&self.db, BODIES)?];
        self.db.flush_cfs_opt(&families, &options).map_err(|e| StoreError::io("flushing rows", e))?;
        self.flushed()
    }

    fn flushed(&self) -> Result<Vec<(ReplicaId, Index)>, StoreError> {
        let mut out = Vec::new();
        for (replica, prefix) in self.prefixes().iter() {
            let mut read = ReadOptions::default();
            read.set_read_tier(ReadTier::Persisted);
            // Where rows were replaced since, a crash would bring the old position back.
            let found = match self.applied_from(*prefix, &read)? {
                Some(applied) => Some(applied),
                None => self.applied_from(prefix.other(), &read)?,
            };
            out.extend(found.map(|applied| (*replica, applied.index)));
        }
        Ok(out)
    }

    fn view(&self, replica: ReplicaId) -> Result<Option<Box<dyn RowsView>>, StoreError> {
        let prefixes = self.prefixes();
        let Some(prefix) = prefixes.get(&replica).copied() else { return Ok(None) };
        let view = DiskView::take(&self.db, prefix)?;
        Ok(view.map(|view| Box::new(view) as Box<dyn RowsView>))
    }

    fn replace(
        &self,
        replica: ReplicaId,
        applied: &Applied,
        rows: &mut dyn Iterator<Item = Result<(RowKey, Bytes), StoreError>>,
    ) -> Result<(), StoreError> {
        let old = self.prefixes().get(&replica).copied();
        let new = old.map_or(Prefix::first(replica), Prefix::other);
        if self.found_prefixes()?.contains(&new) {
            // What one that failed has left.
            self.forget(new)?;
        }
        let mut batch = WriteBatch::default();
        for row in rows {
            let (key, value) = row?;
            batch.put_cf(family_of(&self.db, key.table)?, stored(new, &key), value);
            if batch.size_in_bytes() > REPLACE_BATCH_BYTES {
                self.write_unlogged(std::mem::take(&mut batch))?;
            }
        }
        batch.put(stored(new, &Applied::key()), applied.encode());
        if let Some(old) = old {
            batch.delete(stored(old, &Applied::key()));
        }
        {
            // Nobody reads at this moment, and whoever reads later reads the new ones.
            let mut prefixes = self.prefixes.write().unwrap_or_else(PoisonError::into_inner);
            self.write_unlogged(batch)?;
            prefixes.insert(replica, new);
            self.positions().retain(|prefix, _| prefix.replica() != replica);
        }
        self.flush()?;
        old.map_or(Ok(()), |old| self.forget(old))
    }

    fn remove(&self, replica: ReplicaId) -> Result<(), StoreError> {
        let Some(prefix) = self.prefixes().get(&replica).copied() else { return Ok(()) };
        // Its position last: as long as anything is left, it is among the replicas.
        self.delete_rows(prefix, |table| table != Table::Applied.number())?;
        {
            let mut prefixes = self.prefixes.write().unwrap_or_else(PoisonError::into_inner);
            self.delete_rows(prefix, |_| true)?;
            prefixes.remove(&replica);
            self.positions().remove(&prefix);
        }
        self.flush()?;
        Ok(())
    }

    fn write_sums(&self, replica: ReplicaId, sums: &RowBatch) -> Result<(), StoreError> {
        let prefixes = self.prefixes();
        let Some(prefix) = prefixes.get(&replica).copied() else { return Ok(()) };
        let mut out = WriteBatch::default();
        self.add(&mut out, prefix, sums)?;
        self.write_unlogged(out)
    }

    fn size_bytes(&self) -> Result<u64, StoreError> {
        let mut bytes = 0;
        for name in [ROWS, BODIES] {
            let family = family(&self.db, name)?;
            for property in [properties::ESTIMATE_LIVE_DATA_SIZE.to_str(), Ok("rocksdb.live-blob-file-size")] {
                let found = self.db.property_int_value_cf(family, property.unwrap_or_default());
                bytes += found.map_err(|e| StoreError::io("asking for the size of the rows", e))?.unwrap_or(0);
            }
        }
        Ok(bytes)
    }
}
