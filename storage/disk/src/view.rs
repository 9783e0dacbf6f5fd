//! An unchanging view of one replica: a snapshot of RocksDB that keeps the database open.

use std::sync::Arc;

use bytes::Bytes;
use mailraft_storage::rows::{Applied, RowsView};
use mailraft_storage::{RowKey, StoreError};
use rocksdb::{DB, Direction, IteratorMode, SnapshotWithThreadMode};

use crate::keys::{Prefix, family, reading, start_of, stored, within};
use crate::options::{BODIES, ROWS};

pub(crate) struct DiskView {
    cell: ViewCell,
    prefix: Prefix,
    applied: Applied,
}

impl DiskView {
    /// A view of the rows with this prefix as they are now; None if there is no such replica.
    pub(crate) fn take(db: &Arc<DB>, prefix: Prefix) -> Result<Option<Self>, StoreError> {
        let cell = ViewCell::new(Arc::clone(db), |db| Held(db.snapshot()));
        let found = cell.with_dependent(|_, held| held.0.get(stored(prefix, &Applied::key())));
        match found.map_err(|e| reading(prefix, &e))? {
            Some(row) => Ok(Some(DiskView { cell, prefix, applied: Applied::decode(prefix.replica(), &row)? })),
            None => Ok(None),
        }
    }
}

impl RowsView for DiskView {
    fn applied(&self) -> &Applied {
        &self.applied
    }

    fn rows(&self, after: Option<&RowKey>, limit: usize) -> Result<Vec<(RowKey, Bytes)>, StoreError> {
        let from = match after {
            // The smallest key behind it.
            Some(key) => [stored(self.prefix, key).as_slice(), &[0]].concat(),
            None => start_of(self.prefix),
        };
        let own = stored(self.prefix, &Applied::key());
        self.cell.with_dependent(|db, held| {
            let mut streams = Vec::new();
            for name in [ROWS, BODIES] {
                let mode = IteratorMode::From(&from, Direction::Forward);
                let mut read = within(self.prefix);
                // Whoever reads everything must not drive out what is read again and again.
                read.fill_cache(false);
                streams.push(held.0.iterator_cf_opt(family(db, name)?, read, mode).peekable());
            }
            let mut out = Vec::new();
            while out.len() < limit {
                // The stream whose next key comes first; an error comes first of all.
                let mut first: Option<(usize, &[u8])> = None;
                for (at, stream) in streams.iter_mut().enumerate() {
                    match stream.peek() {
                        Some(Ok((key, _))) if first.is_none_or(|(_, k)| **key < *k) => first = Some((at, key)),
                        Some(Ok(_)) | None => {}
                        Some(Err(e)) => return Err(reading(self.prefix, e)),
                    }
                }
                let Some((at, _)) = first else { break };
                let Some(Ok((key, value))) = streams[at].next() else { break };
                if *key == *own {
                    continue;
                }
                let row = key.get(8..).and_then(RowKey::decode);
                let row = row.ok_or_else(|| {
                    StoreError::damaged(format!("rows of replica {}", self.prefix.replica()), "a key that is none")
                })?;
                out.push((row, Bytes::from(value)));
            }
            Ok(out)
        })
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
