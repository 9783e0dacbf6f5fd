//! How RocksDB is set up, and every bound on what it takes.

use std::path::Path;

use mailraft_storage::{DAMAGED_NODE_ADVICE, StoreError};
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType, Error, ErrorKind, Options, WriteBufferManager,
};

/// The column family of all rows but chunks.
pub(crate) const ROWS: &str = "default";
/// The column family of chunks of bodies.
pub(crate) const BODIES: &str = "bodies";

/// Memory for blocks and memtables of all column families where nobody says how much, in bytes.
pub(crate) const MEMORY_BYTES: usize = 224 << 20;
/// The least of it that this works with, in bytes.
const MEMORY_MIN_BYTES: usize = 16 << 20;
const BLOCK_BYTES: usize = 16 << 10;
/// The part of a memtable that is a filter of its keys.
const MEMTABLE_FILTER_RATIO: f64 = 0.05;
/// Memtables of one column family; the last but one is full when writes begin to wait.
const MEMTABLES: i32 = 3;
/// All memtables of both column families, in bytes, where there is memory enough: past it everything is flushed.
const MEMTABLES_MAX_BYTES: usize = 96 << 20;
/// Otherwise they have one part of so many of the memory.
const MEMTABLES_PART: usize = 2;
/// Column families.
const FAMILIES: usize = 2;
/// Bits for each key: one in a hundred look-ups of what is not there reads a block.
const BLOOM_BITS: f64 = 10.0;
/// Values of chunks from this size on stand in blob files, in bytes.
const BLOB_FROM_BYTES: u64 = 4 << 10;
const BLOB_FILE_BYTES: u64 = 128 << 20;
/// Files open at once where nobody says how many.
pub(crate) const OPEN_FILES_MAX: usize = 1_024;
/// Flushes and compactions at once.
const BACKGROUND_JOBS: i32 = 2;
/// RocksDB's own log: files, and bytes of one.
const INFO_LOG_FILES: usize = 4;
const INFO_LOG_BYTES: usize = 8 << 20;

/// Memory of one database: blocks and memtables count against one bound.
pub(crate) struct Memory {
    cache: Cache,
    manager: WriteBufferManager,
    memtables_bytes: usize,
}

impl Memory {
    /// So many bytes in all.
    pub fn new(bytes: usize) -> Self {
        let bytes = bytes.max(MEMORY_MIN_BYTES);
        let memtables_bytes = (bytes / MEMTABLES_PART).min(MEMTABLES_MAX_BYTES);
        let cache = Cache::new_lru_cache(bytes);
        let manager = WriteBufferManager::new_write_buffer_manager_with_cache(memtables_bytes, false, cache.clone());
        Memory { cache, manager, memtables_bytes }
    }

    /// What is taken, memtables included.
    pub fn used_bytes(&self) -> usize {
        self.cache.get_usage()
    }
}

pub(crate) fn of_database(open_files: usize, memory: &Memory) -> Result<Options, Error> {
    // Without a log, RocksDB takes a failed flush for harmless and tries again by itself: never here, the
    // process ends.
    let mut options = Options::default().get_options_from_string("max_bgerror_resume_count=0")?;
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_atomic_flush(true);
    options.set_write_buffer_manager(&memory.manager);
    options.set_max_open_files(i32::try_from(open_files).unwrap_or(i32::MAX));
    options.set_max_background_jobs(BACKGROUND_JOBS);
    options.set_keep_log_file_num(INFO_LOG_FILES);
    options.set_max_log_file_size(INFO_LOG_BYTES);
    Ok(options)
}

pub(crate) fn families(memory: &Memory) -> Vec<ColumnFamilyDescriptor> {
    let mut bodies = of_family(memory);
    bodies.set_enable_blob_files(true);
    bodies.set_min_blob_size(BLOB_FROM_BYTES);
    bodies.set_blob_file_size(BLOB_FILE_BYTES);
    bodies.set_blob_compression_type(DBCompressionType::None);
    bodies.set_enable_blob_gc(true);
    vec![ColumnFamilyDescriptor::new(ROWS, of_family(memory)), ColumnFamilyDescriptor::new(BODIES, bodies)]
}

/// What to do about rows that don't open, in one sentence with RocksDB's own words.
pub(crate) fn describe_open_error(dir: &Path, error: &Error) -> StoreError {
    let text = error.to_string();
    let locked = text.contains("While lock file") || text.contains("lock hold by current process");
    let what = format!("opening the rows in {}", dir.display());
    match error.kind() {
        ErrorKind::IOError if locked => {
            StoreError::io(format!("{what} (another process has it open: stop that first)"), text)
        }
        ErrorKind::Corruption => StoreError::damaged(
            format!("the rows in {}", dir.display()),
            format_args!("{text} ({DAMAGED_NODE_ADVICE})"),
        ),
        _ => StoreError::io(format!("{what} (check that the disk is well and the directory this user's)"), text),
    }
}

fn of_family(memory: &Memory) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&memory.cache);
    table.set_block_size(BLOCK_BYTES);
    table.set_bloom_filter(BLOOM_BITS, false);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(memory.memtables_bytes / FAMILIES / MEMTABLES as usize);
    // Most keys that are looked up before a write are new: a filter says so without a search.
    options.set_memtable_whole_key_filtering(true);
    options.set_memtable_prefix_bloom_ratio(MEMTABLE_FILTER_RATIO);
    options.set_max_write_buffer_number(MEMTABLES);
    // Everything is ciphertext.
    options.set_compression_type(DBCompressionType::None);
    options.set_level_compaction_dynamic_level_bytes(true);
    options
}
