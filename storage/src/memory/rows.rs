//! Rows in memory: what was written, and beside it what a crash would leave.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::error::StoreError;
use crate::ids::{Index, MailboxId, ReplicaId};
use crate::row::{RowKey, Table};
use crate::rows::{Applied, ReplicaBatch, Rows, RowsView, ScannedRows};

#[derive(Clone, Default)]
struct Image {
    rows: BTreeMap<ReplicaId, BTreeMap<RowKey, Bytes>>,
    applied: BTreeMap<ReplicaId, Applied>,
}

#[derive(Default)]
struct State {
    now: Image,
    flushed: Image,
}

/// Rows in memory; clones share them.
#[derive(Clone, Default)]
pub struct MemoryRows {
    state: Arc<Mutex<State>>,
}

impl MemoryRows {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// The process dies: everything since the last flush is lost.
    pub fn crash(&self) {
        let mut state = self.state();
        state.now = state.flushed.clone();
    }

    /// Changes a row behind everyone's back: bit rot.
    pub fn corrupt(&self, replica: ReplicaId, key: &RowKey, value: Bytes) {
        let mut state = self.state();
        for image in [0, 1] {
            let image = if image == 0 { &mut state.now } else { &mut state.flushed };
            if let Some(row) = image.rows.get_mut(&replica).and_then(|rows| rows.get_mut(key)) {
                *row = value.clone();
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rows for MemoryRows {
    fn get(&self, replica: ReplicaId, key: &RowKey) -> Result<Option<Bytes>, StoreError> {
        Ok(self.state().now.rows.get(&replica).and_then(|rows| rows.get(key)).cloned())
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
        let state = self.state();
        let Some(rows) = state.now.rows.get(&replica) else { return Ok(Vec::new()) };
        let start = RowKey { mailbox, table: table.number(), key: from.max(prefix).to_vec() };
        Ok(rows
            .range(start..)
            .take_while(|(k, _)| k.mailbox == mailbox && k.table == table.number() && k.key.starts_with(prefix))
            .take(limit)
            .map(|(k, v)| (k.key.clone(), v.clone()))
            .collect())
    }

    fn write(&self, batches: &[ReplicaBatch]) -> Result<(), StoreError> {
        let mut state = self.state();
        for ReplicaBatch { replica, batch, applied } in batches {
            let before = state.now.applied.get(replica).map_or(Index(0), |a| a.index);
            assert!(applied.index > before, "replica {replica} applies {} after {before}", applied.index);
            let rows = state.now.rows.entry(*replica).or_default();
            for key in &batch.deletes {
                rows.remove(key);
            }
            for (key, value) in &batch.puts {
                rows.insert(key.clone(), value.clone());
            }
            state.now.applied.insert(*replica, applied.clone());
        }
        Ok(())
    }

    fn applied(&self, replica: ReplicaId) -> Result<Option<Applied>, StoreError> {
        Ok(self.state().now.applied.get(&replica).cloned())
    }

    fn replicas(&self) -> Result<Vec<ReplicaId>, StoreError> {
        Ok(self.state().now.applied.keys().copied().collect())
    }

    fn flush(&self) -> Result<Vec<(ReplicaId, Index)>, StoreError> {
        let mut state = self.state();
        state.flushed = state.now.clone();
        drop(state);
        self.flushed()
    }

    fn flushed(&self) -> Result<Vec<(ReplicaId, Index)>, StoreError> {
        Ok(self.state().flushed.applied.iter().map(|(r, a)| (*r, a.index)).collect())
    }

    fn view(&self, replica: ReplicaId) -> Result<Option<Box<dyn RowsView>>, StoreError> {
        let state = self.state();
        let Some(applied) = state.now.applied.get(&replica).cloned() else { return Ok(None) };
        let rows = state.now.rows.get(&replica).cloned().unwrap_or_default();
        Ok(Some(Box::new(MemoryView { applied, rows })))
    }

    fn replace(
        &self,
        replica: ReplicaId,
        applied: &Applied,
        rows: &mut dyn Iterator<Item = Result<(RowKey, Bytes), StoreError>>,
    ) -> Result<(), StoreError> {
        let rows: BTreeMap<RowKey, Bytes> = rows.collect::<Result<_, _>>()?;
        let mut state = self.state();
        state.now.rows.insert(replica, rows);
        state.now.applied.insert(replica, applied.clone());
        state.flushed = state.now.clone();
        Ok(())
    }

    fn remove(&self, replica: ReplicaId) -> Result<(), StoreError> {
        let mut state = self.state();
        state.now.rows.remove(&replica);
        state.now.applied.remove(&replica);
        state.flushed = state.now.clone();
        Ok(())
    }
}

struct MemoryView {
    applied: Applied,
    rows: BTreeMap<RowKey, Bytes>,
}

impl RowsView for MemoryView {
    fn applied(&self) -> &Applied {
        &self.applied
    }

    fn rows(&self, after: Option<&RowKey>, limit: usize) -> Result<Vec<(RowKey, Bytes)>, StoreError> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        Ok(self.rows.range((from, Bound::Unbounded)).take(limit).map(|(k, v)| (k.clone(), v.clone())).collect())
    }
}
