//! Rows in RocksDB without its write-ahead log: the Raft log is the write-ahead log. All column families flush
//! together, so that after a crash every replica stands at one applied index.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use mailraft_storage::entry::{versioned_decode, versioned_encode};
use mailraft_storage::rows::{ReplicaBatch, Rows, RowsView, ScannedRows};
use mailraft_storage::{Applied, Index, MailboxId, ReplicaId, RowKey, StoreError, Table};
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, Direction, FlushOptions, IteratorMode, Options,
    ReadOptions, ReadTier, SnapshotWithThreadMode, WriteBatch, WriteOptions,
};

const ROWS: &str = "default";
const BODIES: &str = "bodies";
const APPLIED_VERSION: u8 = 1;
/// Blocks in memory, for all column families.
const BLOCK_CACHE_BYTES: usize = 128 << 20;
/// One memtable; each column family has at most three.
const MEMTABLE_BYTES: usize = 16 << 20;
/// Values of chunks from this size on stand in blob files.
const BLOB_MIN_BYTES: u64 = 4 << 10;
const OPEN_FILES_MAX: i32 = 1_024;
/// Rows written at once when a replica is replaced.
const REPLACE_BATCH_BYTES: usize = 4 << 20;

/// Rows on disk.
pub struct DiskRows {
    db: Arc<DB>,
}

impl DiskRows {
    /// Opens the rows in this directory, or makes them.
    ///
    /// # Errors
    /// If the directory can't be read or written, is damaged, or is open in another process.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let cache = Cache::new_lru_cache(BLOCK_CACHE_BYTES);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_atomic_flush(true);
        options.set_max_open_files(OPEN_FILES_MAX);
        options.increase_parallelism(2);
        options.set_keep_log_file_num(4);
        options.set_max_log_file_size(8 << 20);
        let families = vec![
            ColumnFamilyDescriptor::new(ROWS, family(&cache, false)),
            ColumnFamilyDescriptor::new(BODIES, family(&cache, true)),
        ];
        let db = DB::open_cf_descriptors(&options, dir, families).map_err(|e| {
            let text = e.to_string();
            let hint = if text.contains("lock") { "another process has it open: stop that first" } else { "set this node's data aside and restore it as a new node" };
            StoreError::io(format!("opening the rows in {} ({hint})", dir.display()), text)
        })?;
        Ok(DiskRows { db: Arc::new(db) })
    }

    fn family(&self, table: u8) -> Result<&ColumnFamily, StoreError> {
        family_of(&self.db, table)
    }

    fn applied_from(&self, replica: ReplicaId, read: &ReadOptions) -> Result<Option<Applied>, StoreError> {
        let key = stored(replica, &RowKey::partition(Table::Applied, []));
        match self.db.get_opt(key, read).map_err(|e| reading(replica, e))? {
            Some(value) => versioned_decode(&format!("applied row of replica {replica}"), APPLIED_VERSION, &value).map(Some),
            None => Ok(None),
        }
    }

    fn positions(&self, read: impl Fn() -> ReadOptions) -> Result<Vec<(ReplicaId, Index)>, StoreError> {
        let mut out = Vec::new();
        for replica in self.replicas()? {
            if let Some(applied) = self.applied_from(replica, &read())? {
                out.push((replica, applied.index));
            }
        }
        Ok(out)
    }

    fn write_unlogged(&self, batch: WriteBatch) -> Result<(), StoreError> {
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.db.write_opt(batch, &options).map_err(|e| StoreError::io("writing rows", e))
    }

    /// Deletes a replica's rows. With `keep`, not those by which a node finds its replicas at start: a crash in
    /// the middle of replacing the control group's rows must not leave it without.
    fn delete_all(&self, replica: ReplicaId, keep: bool) -> Result<(), StoreError> {
        for name in [BODIES, ROWS] {
            let family = self.db.cf_handle(name).ok_or_else(|| StoreError::damaged("rows", format_args!("no family {name}")))?;
            // Row by row: a range deletion without a log would be undone by a crash before the flush, and would
            // slow every later read.
            let mut batch = WriteBatch::default();
            let mut read = ReadOptions::default();
            read.set_iterate_upper_bound(upper(replica));
            for item in self.db.iterator_cf_opt(family, read, IteratorMode::From(&replica.0.to_be_bytes(), Direction::Forward)) {
                let (key, _) = item.map_err(|e| reading(replica, e))?;
                let kept = [Table::Applied, Table::Nodes, Table::Placement].map(Table::number);
                if keep && key.get(24).is_some_and(|table| kept.contains(table)) {
                    continue;
                }
                batch.delete_cf(family, key);
                if batch.size_in_bytes() > REPLACE_BATCH_BYTES {
                    self.write_unlogged(std::mem::take(&mut batch))?;
                }
            }
            self.write_unlogged(batch)?;
        }
        Ok(())
    }
}

impl Rows for DiskRows {
    fn get(&self, replica: ReplicaId, key: &RowKey) -> Result<Option<Bytes>, StoreError> {
        let found = self.db.get_cf(self.family(key.table)?, stored(replica, key)).map_err(|e| reading(replica, e))?;
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
        let within = place(prefix);
        let head = within.len() - prefix.len();
        let mut read = ReadOptions::default();
        if let Some(end) = after(&within) {
            read.set_iterate_upper_bound(end);
        }
        let start = place(from.max(prefix));
        let mut out = Vec::new();
        let family = self.family(table.number())?;
        for item in self.db.iterator_cf_opt(family, read, IteratorMode::From(&start, Direction::Forward)).take(limit) {
            let (key, value) = item.map_err(|e| reading(replica, e))?;
            out.push((key[head..].to_vec(), Bytes::from(value)));
        }
        Ok(out)
    }

    fn write(&self, batches: &[ReplicaBatch]) -> Result<(), StoreError> {
        let mut out = WriteBatch::default();
        for ReplicaBatch { replica, batch, applied } in batches {
            for key in &batch.deletes {
                out.delete_cf(self.family(key.table)?, stored(*replica, key));
            }
            for (key, value) in &batch.puts {
                out.put_cf(self.family(key.table)?, stored(*replica, key), value);
            }
            put_applied(&mut out, *replica, applied);
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
            let replica = key
                .get(..8)
                .and_then(|b| b.try_into().ok())
                .map(|b| ReplicaId(u64::from_be_bytes(b)))
                .ok_or_else(|| StoreError::damaged("rows", "a key without a replica"))?;
            out.push(replica);
            iterator.seek(upper(replica));
        }
        iterator.status().map_err(|e| StoreError::io("reading rows", e))?;
        Ok(out)
    }

    fn flush(&self) -> Result<Vec<(ReplicaId, Index)>, StoreError> {
        let mut families = Vec::new();
        for name in [ROWS, BODIES] {
            families.extend(self.db.cf_handle(name));
        }
        let mut options = FlushOptions::default();
        options.set_wait(true);
        self.db.flush_cfs_opt(&families, &options).map_err(|e| StoreError::io("flushing rows", e))?;
        self.flushed()
    }

    fn flushed(&self) -> Result<Vec<(ReplicaId, Index)>, StoreError> {
        self.positions(|| {
            let mut read = ReadOptions::default();
            read.set_read_tier(ReadTier::Persisted);
            read
        })
    }

    fn view(&self, replica: ReplicaId) -> Result<Option<Box<dyn RowsView>>, StoreError> {
        let cell = ViewCell::new(Arc::clone(&self.db), |db| Held(db.snapshot()));
        let key = stored(replica, &RowKey::partition(Table::Applied, []));
        let found = cell.with_dependent(|_, held| held.0.get(&key)).map_err(|e| reading(replica, e))?;
        let Some(value) = found else { return Ok(None) };
        let applied = versioned_decode(&format!("applied row of replica {replica}"), APPLIED_VERSION, &value)?;
        Ok(Some(Box::new(DiskView { cell, replica, applied })))
    }

    fn replace(
        &self,
        replica: ReplicaId,
        applied: &Applied,
        rows: &mut dyn Iterator<Item = Result<(RowKey, Bytes), StoreError>>,
    ) -> Result<(), StoreError> {
        self.delete_all(replica, true)?;
        let mut batch = WriteBatch::default();
        for row in rows {
            let (key, value) = row?;
            batch.put_cf(self.family(key.table)?, stored(replica, &key), value);
            if batch.size_in_bytes() > REPLACE_BATCH_BYTES {
                self.write_unlogged(std::mem::take(&mut batch))?;
            }
        }
        put_applied(&mut batch, replica, applied);
        self.write_unlogged(batch)?;
        self.flush()?;
        Ok(())
    }

    fn remove(&self, replica: ReplicaId) -> Result<(), StoreError> {
        self.delete_all(replica, false)?;
        self.flush()?;
        Ok(())
    }
}

struct Held<'a>(SnapshotWithThreadMode<'a, DB>);

self_cell::self_cell!(
    struct ViewCell {
        owner: Arc<DB>,
        #[not_covariant]
        dependent: Held,
    }
);

struct DiskView {
    cell: ViewCell,
    replica: ReplicaId,
    applied: Applied,
}

impl RowsView for DiskView {
    fn applied(&self) -> &Applied {
        &self.applied
    }

    fn rows(&self, after_key: Option<&RowKey>, limit: usize) -> Result<Vec<(RowKey, Bytes)>, StoreError> {
        let from = match after_key {
            // The smallest key behind it.
            Some(key) => [stored(self.replica, key).as_slice(), &[0]].concat(),
            None => self.replica.0.to_be_bytes().to_vec(),
        };
        let applied_key = stored(self.replica, &RowKey::partition(Table::Applied, []));
        self.cell.with_dependent(|db, held| {
            let mut streams = Vec::new();
            for name in [ROWS, BODIES] {
                let family = db.cf_handle(name).ok_or_else(|| StoreError::damaged("rows", format_args!("no family {name}")))?;
                let mut read = ReadOptions::default();
                read.set_iterate_upper_bound(upper(self.replica));
                let rows = held.0.iterator_cf_opt(family, read, IteratorMode::From(&from, Direction::Forward));
                streams.push(rows.peekable());
            }
            let mut out = Vec::new();
            while out.len() < limit {
                // The stream whose next key comes first; an error comes first of all.
                let mut first: Option<(usize, Box<[u8]>)> = None;
                for (at, stream) in streams.iter_mut().enumerate() {
                    match stream.peek() {
                        Some(Ok((key, _))) if first.as_ref().is_none_or(|(_, k)| key < k) => first = Some((at, key.clone())),
                        Some(Ok(_)) | None => {}
                        Some(Err(e)) => return Err(reading(self.replica, e.clone())),
                    }
                }
                let Some((at, _)) = first else { break };
                let Some(Ok((key, value))) = streams[at].next() else { break };
                if *key == *applied_key {
                    continue;
                }
                let row = RowKey::decode(&key[8..])
                    .ok_or_else(|| StoreError::damaged(format!("rows of replica {}", self.replica), "a key that is none"))?;
                out.push((row, Bytes::from(value)));
            }
            Ok(out)
        })
    }
}

fn family(cache: &Cache, bodies: bool) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_bloom_filter(10.0, false);
    table.set_cache_index_and_filter_blocks(true);
    table.set_block_size(16 << 10);
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(MEMTABLE_BYTES);
    options.set_max_write_buffer_number(3);
    // Everything is ciphertext.
    options.set_compression_type(rocksdb::DBCompressionType::None);
    options.set_level_compaction_dynamic_level_bytes(true);
    if bodies {
        options.set_enable_blob_files(true);
        options.set_min_blob_size(BLOB_MIN_BYTES);
        options.set_enable_blob_gc(true);
    }
    options
}

fn family_of(db: &DB, table: u8) -> Result<&ColumnFamily, StoreError> {
    let name = if table == Table::Chunks.number() { BODIES } else { ROWS };
    db.cf_handle(name).ok_or_else(|| StoreError::damaged("rows", format_args!("no family {name}")))
}

fn stored(replica: ReplicaId, key: &RowKey) -> Vec<u8> {
    let mut out = Vec::with_capacity(25 + key.key.len());
    out.extend_from_slice(&replica.0.to_be_bytes());
    out.extend_from_slice(&key.mailbox.0);
    out.push(key.table);
    out.extend_from_slice(&key.key);
    out
}

/// The first key behind all of a replica's.
fn upper(replica: ReplicaId) -> Vec<u8> {
    replica.0.saturating_add(1).to_be_bytes().to_vec()
}

/// The first key behind all that begin with this.
fn after(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut out = prefix.to_vec();
    while let Some(last) = out.pop() {
        if last < 0xff {
            out.push(last + 1);
            return Some(out);
        }
    }
    None
}

fn put_applied(batch: &mut WriteBatch, replica: ReplicaId, applied: &Applied) {
    let key = stored(replica, &RowKey::partition(Table::Applied, []));
    batch.put(key, versioned_encode(APPLIED_VERSION, applied));
}

fn reading(replica: ReplicaId, error: rocksdb::Error) -> StoreError {
    StoreError::io(format!("reading rows of replica {replica}"), error)
}
