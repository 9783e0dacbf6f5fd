//! Keys of rows as RocksDB has them, and reads that stay within a replica.
//!
//! A replica's rows have one of two prefixes, which take turns when all of them are replaced.

use mailraft_storage::{ReplicaId, RowKey, StoreError, Table};
use rocksdb::{ColumnFamily, DB, ErrorKind, ReadOptions};

use crate::options::{BODIES, ROWS};

/// The bit of a prefix that tells the two of a replica apart: no replica has an id so high.
const SECOND: u64 = 1 << 63;

/// The prefix of a replica's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Prefix(u64);

impl Prefix {
    /// The first of a replica's two.
    ///
    /// # Panics
    /// If no replica can have that id.
    pub(crate) fn first(replica: ReplicaId) -> Self {
        assert!(replica.0 < SECOND, "no replica has the id {replica}");
        Prefix(replica.0)
    }

    /// The one that a key begins with.
    pub(crate) fn of(key: &[u8]) -> Option<Self> {
        Some(Prefix(u64::from_be_bytes(key.get(..8)?.try_into().ok()?)))
    }

    pub(crate) fn other(self) -> Self {
        Prefix(self.0 ^ SECOND)
    }

    pub(crate) fn replica(self) -> ReplicaId {
        ReplicaId(self.0 & !SECOND)
    }
}

/// Where a key's table number stands.
pub(crate) const TABLE_AT: usize = 24;

pub(crate) fn family<'a>(db: &'a DB, name: &str) -> Result<&'a ColumnFamily, StoreError> {
    db.cf_handle(name).ok_or_else(|| StoreError::damaged("rows", format_args!("no column family {name}")))
}

pub(crate) fn family_of(db: &DB, table: u8) -> Result<&ColumnFamily, StoreError> {
    family(db, if table == Table::Chunks.number() { BODIES } else { ROWS })
}

pub(crate) fn stored(prefix: Prefix, key: &RowKey) -> Vec<u8> {
    let mut out = Vec::with_capacity(TABLE_AT + 1 + key.key.len());
    out.extend_from_slice(&prefix.0.to_be_bytes());
    out.extend_from_slice(&key.mailbox.0);
    out.push(key.table);
    out.extend_from_slice(&key.key);
    out
}

/// The first key with this prefix.
pub(crate) fn start_of(prefix: Prefix) -> Vec<u8> {
    prefix.0.to_be_bytes().to_vec()
}

/// Reads that end with a prefix's keys.
pub(crate) fn within(prefix: Prefix) -> ReadOptions {
    let mut read = ReadOptions::default();
    if let Some(end) = end_of(prefix) {
        read.set_iterate_upper_bound(end);
    }
    read
}

pub(crate) fn reading(prefix: Prefix, error: &rocksdb::Error) -> StoreError {
    let replica = prefix.replica();
    match error.kind() {
        ErrorKind::Corruption => StoreError::damaged(format!("rows of replica {replica}"), error),
        _ => StoreError::io(format!("reading rows of replica {replica}"), error),
    }
}

/// The first key behind all with this prefix; None for the last there can be.
pub(crate) fn end_of(prefix: Prefix) -> Option<Vec<u8>> {
    after(start_of(prefix))
}

/// The first key behind all that begin with this.
pub(crate) fn after(mut prefix: Vec<u8>) -> Option<Vec<u8>> {
    while let Some(last) = prefix.pop() {
        if last < 0xff {
            prefix.push(last + 1);
            return Some(prefix);
        }
    }
    None
}
