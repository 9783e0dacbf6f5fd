//! Keys of rows as RocksDB has them, and reads that stay within a replica.

use mailraft_storage::{ReplicaId, RowKey, StoreError, Table};
use rocksdb::{ColumnFamily, DB, ErrorKind, ReadOptions};

use crate::options::{BODIES, ROWS};

/// Where a key's table number stands.
pub(crate) const TABLE_AT: usize = 24;

pub(crate) fn family<'a>(db: &'a DB, name: &str) -> Result<&'a ColumnFamily, StoreError> {
    db.cf_handle(name).ok_or_else(|| StoreError::damaged("rows", format_args!("no column family {name}")))
}

pub(crate) fn family_of(db: &DB, table: u8) -> Result<&ColumnFamily, StoreError> {
    family(db, if table == Table::Chunks.number() { BODIES } else { ROWS })
}

pub(crate) fn stored(replica: ReplicaId, key: &RowKey) -> Vec<u8> {
    let mut out = Vec::with_capacity(TABLE_AT + 1 + key.key.len());
    out.extend_from_slice(&replica.0.to_be_bytes());
    out.extend_from_slice(&key.mailbox.0);
    out.push(key.table);
    out.extend_from_slice(&key.key);
    out
}

/// The first key a replica may have.
pub(crate) fn start_of(replica: ReplicaId) -> Vec<u8> {
    replica.0.to_be_bytes().to_vec()
}

/// Reads that end with a replica's keys.
pub(crate) fn within(replica: ReplicaId) -> ReadOptions {
    let mut read = ReadOptions::default();
    if let Some(end) = end_of(replica) {
        read.set_iterate_upper_bound(end);
    }
    read
}

pub(crate) fn reading(replica: ReplicaId, error: &rocksdb::Error) -> StoreError {
    match error.kind() {
        ErrorKind::Corruption => StoreError::damaged(format!("rows of replica {replica}"), error),
        _ => StoreError::io(format!("reading rows of replica {replica}"), error),
    }
}

/// The first key behind all of a replica's; None for the last replica there can be.
pub(crate) fn end_of(replica: ReplicaId) -> Option<Vec<u8>> {
    after(start_of(replica))
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
