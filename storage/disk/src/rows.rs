//! Rows in RocksDB without its write-ahead log: the Raft log is the write-ahead log. All column families flush
//! together, so that after a crash every replica stands at one applied index.
//!
//! A key is `replica (8) ‖ mailbox (16) ‖ table (1) ‖ key`. Chunks of bodies stand in a column family of their
//! own, their values in blob files.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use mailraft_storage::rows::{Applied, ReplicaBatch, Rows, RowsView, ScannedRows};
use mailraft_storage::{ClusterId, Index, MailboxId, ReplicaId, RowKey, StoreError, Table};
use rocksdb::{DB, Direction, FlushOptions, IteratorMode, ReadOptions, ReadTier, WriteBatch, WriteOptions, properties};

use crate::keys::{TABLE_AT, after, end_of, family, family_of, reading, start_of, stored, within};
use crate::marker;
use crate::options::{BODIES, ROWS, describe_open_error, families, of_database};
use crate::view::DiskView;

/// Rows written at once when a replica is replaced or removed, in bytes.
const REPLACE_BATCH_BYTES: usize = 4 << 20;
/// The tables by which a node finds its replicas at start: they stay until others take their place.
const KEPT_WHILE_REPLACED: [Table; 3] = [Table::Applied, Table::Nodes, Table::Placement];

/// Rows on disk.
pub struct DiskRows {
    db: Arc<DB>,
}

impl DiskRows {
    /// Opens this cluster's rows in this directory, or makes them.
    ///
    /// # Errors
    /// One sentence if the directory can't be read or written, belongs to another cluster or a later version,
    /// is damaged, or is open in another process.
    pub fn open(dir: &Path, cluster: ClusterId) -> Result<Self, StoreError> {
        marker::check(dir, cluster)?;
        let options = of_database().map_err(|e| StoreError::io("setting the options of the rows", e))?;
        let db = DB::open_cf_descriptors(&options, dir, families()).map_err(|e| describe_open_error(dir, &e))?;
        Ok(DiskRows { db: Arc::new(db) })
    }

    fn applied_from(&self, replica: ReplicaId, read: &ReadOptions) -> Result<Option<Applied>, StoreError> {
        let found = self.db.get_opt(stored(replica, &Applied::key()), read).map_err(|e| reading(replica, &e))?;
        found.map(|row| Applied::decode(replica, &row)).transpose()
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

    /// Deletes a replica's chunks, and of its other rows those whose table number is to `go`.
    fn delete_rows(&self, replica: ReplicaId, go: impl Fn(u8) -> bool) -> Result<(), StoreError> {
        let mut batch = WriteBatch::default();
        if let Some(end) = end_of(replica) {
            // A crash before the flush undoes it. The caller flushes, and begins again after a crash.
            batch.delete_range_cf(family(&self.db, BODIES)?, start_of(replica), end);
        }
        // The others row by row: a deleted range would slow down every later read of those that replace them.
        for item in self.db.iterator_opt(IteratorMode::From(&start_of(replica), Direction::Forward), within(replica)) {
            let (key, _) = item.map_err(|e| reading(replica, &e))?;
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
        let found =
            self.db.get_cf(family_of(&self.db, key.table)?, stored(replica, key)).map_err(|e| reading(replica, &e))?;
        Ok(found.map(Bytes::from))
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
        let place = |key: &[u8]| stored(replica, &RowKey { mailbox, table: table.number(), key: key.to_vec() });
        let mut read = ReadOptions::default();
        if let Some(end) = after(place(prefix)) {
            read.set_iterate_upper_bound(end);
        }
        let start = place(from.max(prefix));
        let family = family_of(&self.db, table.number())?;
        let mut out = Vec::new();
        for item in self.db.iterator_cf_opt(family, read, IteratorMode::From(&start, Direction::Forward)).take(limit) {
            let (key, value) = item.map_err(|e| reading(replica, &e))?;
            out.push((key[TABLE_AT + 1..].to_vec(), Bytes::from(value)));
        }
        Ok(out)
    }

    fn write(&self, batches: &[ReplicaBatch]) -> Result<(), StoreError> {
        let mut out = WriteBatch::default();
        for ReplicaBatch { replica, batch, applied } in batches {
            if let Some(before) = self.applied(*replica)?.map(|a| a.index) {
                assert!(applied.index > before, "replica {replica} applies {} after {before}", applied.index);
            }
            for key in &batch.deletes {
                out.delete_cf(family_of(&self.db, key.table)?, stored(*replica, key));
            }
            for (key, value) in &batch.puts {
                out.put_cf(family_of(&self.db, key.table)?, stored(*replica, key), value);
            }
            out.put(stored(*replica, &Applied::key()), applied.encode());
        }
        self.write_unlogged(out)
    }

    fn applied(&self, replica: ReplicaId) -> Result<Option<Applied>, StoreError> {
        self.applied_from(replica, &ReadOptions::default())
    }

    fn replicas(&self) -> Result<Vec<ReplicaId>, StoreError> {
        let mut out = Vec::new();
        let mut iterator = self.db.raw_iterator();
        iterator.seek_to_first();
        while let Some(key) = iterator.key() {
            let number = key.get(..8).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes);
            let replica = ReplicaId(number.ok_or_else(|| StoreError::damaged("rows", "a key without a replica"))?);
            out.push(replica);
            let Some(end) = end_of(replica) else { break };
            iterator.seek(end);
        }
        iterator.status().map_err(|e| StoreError::io("reading the rows' replicas", e))?;
        Ok(out)
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
        for replica in self.replicas()? {
            let mut read = ReadOptions::default();
            read.set_read_tier(ReadTier::Persisted);
            if let Some(applied) = self.applied_from(replica, &read)? {
                out.push((replica, applied.index));
            }
        }
        Ok(out)
    }

    fn view(&self, replica: ReplicaId) -> Result<Option<Box<dyn RowsView>>, StoreError> {
        let view = DiskView::take(&self.db, replica)?;
        Ok(view.map(|view| Box::new(view) as Box<dyn RowsView>))
    }

    fn replace(
        &self,
        replica: ReplicaId,
        applied: &Applied,
        rows: &mut dyn Iterator<Item = Result<(RowKey, Bytes), StoreError>>,
    ) -> Result<(), StoreError> {
        let kept = KEPT_WHILE_REPLACED.map(Table::number);
        self.delete_rows(replica, |table| !kept.contains(&table))?;
        let mut old: Vec<Vec<u8>> = Vec::new();
        for item in self.db.iterator_opt(IteratorMode::From(&start_of(replica), Direction::Forward), within(replica)) {
            old.push(item.map_err(|e| reading(replica, &e))?.0.into_vec());
        }
        let mut batch = WriteBatch::default();
        for row in rows {
            let (key, value) = row?;
            let at = stored(replica, &key);
            if let Ok(found) = old.binary_search(&at) {
                old.remove(found);
            }
            batch.put_cf(family_of(&self.db, key.table)?, at, value);
            if batch.size_in_bytes() > REPLACE_BATCH_BYTES {
                self.write_unlogged(std::mem::take(&mut batch))?;
            }
        }
        for key in old {
            batch.delete(key);
        }
        batch.put(stored(replica, &Applied::key()), applied.encode());
        self.write_unlogged(batch)?;
        self.flush()?;
        Ok(())
    }

    fn remove(&self, replica: ReplicaId) -> Result<(), StoreError> {
        // Its position last: as long as anything is left, it is among the replicas.
        self.delete_rows(replica, |table| table != Table::Applied.number())?;
        self.delete_rows(replica, |_| true)?;
        self.flush()?;
        Ok(())
    }
}
