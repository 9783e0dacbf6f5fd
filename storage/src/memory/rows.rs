//! Rows in memory, and beside them what a crash would bring back.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::error::StoreError;
use crate::ids::{Index, MailboxId, ReplicaId};
use crate::plant::{self, Fault};
use crate::row::{RowBatch, RowKey, Table};
use crate::rows::{Applied, ReplicaBatch, Rows, RowsView, ScannedRows};

type Held = BTreeMap<RowKey, Bytes>;

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
        for ((replica, key), value) in std::mem::take(&mut state.flushed) {
            state.set(replica, key, value);
        }
        state.flushed.clear();
        state.rows.retain(|_, rows| !rows.is_empty());
        let State { rows, damaged, hidden, .. } = &mut *state;
        damaged.append(hidden);
        damaged.retain(|(replica, key)| rows.get(replica).is_some_and(|rows| rows.contains_key(key)));
    }

    /// Damages what the disk has of some rows, as a block whose checksum is wrong: whatever meets one fails. A row that
    /// was written since the last flush is still read, until a crash. A flushed write of the row heals it, and so does
    /// replacing or removing the replica; a crash does not.
    pub fn damage(&self, replica: ReplicaId, keys: impl IntoIterator<Item = RowKey>) {
        let mut guard = self.state();
        let state = &mut *guard;
        for key in keys {
            let place = (replica, key);
            match state.flushed.get(&place) {
                Some(None) => {}
                Some(Some(_)) => drop(state.hidden.insert(place)),
                None if state.get(replica, &place.1).is_some() => drop(state.damaged.insert(place)),
                None => {}
            }
        }
    }

    /// The keys of a replica's rows, damaged or not, in order.
    pub fn keys(&self, replica: ReplicaId) -> Vec<RowKey> {
        self.state().rows.get(&replica).map(|rows| rows.keys().cloned().collect()).unwrap_or_default()
    }

    /// Whether a row of a replica is damaged.
    pub fn is_damaged(&self, replica: ReplicaId) -> bool {
        let state = self.state();
        state.damaged.iter().chain(&state.hidden).any(|(of, _)| *of == replica)
    }

    /// Changes a row behind everyone's back, if it is there: corruption. A crash does not undo it.
    pub fn corrupt(&self, replica: ReplicaId, key: &RowKey, value: Bytes) {
        let mut state = self.state();
        if let Some(row) = state.rows.get_mut(&replica).and_then(|rows| Arc::make_mut(rows).get_mut(key)) {
            *row = value.clone();
        }
        if let Some(Some(row)) = state.flushed.get_mut(&(replica, key.clone())) {
            *row = value;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rows for MemoryRows {
    fn get(&self, replica: ReplicaId, key: &RowKey) -> Result<Option<Bytes>, StoreError> {
        let state = self.state();
        state.check(replica, key)?;
        Ok(state.get(replica, key).cloned())
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
        let Some(rows) = state.rows.get(&replica) else { return Ok(Vec::new()) };
        let start = RowKey { mailbox, table: table.number(), key: from.max(prefix).to_vec() };
        rows.range(start..)
            .take_while(|(k, _)| k.mailbox == mailbox && k.table == table.number() && k.key.starts_with(prefix))
            .take(limit)
            .map(|(k, v)| state.check(replica, k).map(|()| (k.key.clone(), v.clone())))
            .collect()
    }

    fn write(&self, batches: &[ReplicaBatch]) -> Result<(), StoreError> {
        self.write_with_sums(batches, &[])
    }

    fn write_with_sums(&self, batches: &[ReplicaBatch], sums: &[RowBatch]) -> Result<(), StoreError> {
        let mut state = self.state();
        for ReplicaBatch { replica, applied, .. } in batches {
            let before = state.get(*replica, &Applied::key()).map(|row| Applied::decode(*replica, row)).transpose()?;
            if let Some(before) = before.map(|a| a.index) {
                assert!(applied.index > before, "replica {replica} applies {} after {before}", applied.index);
            }
        }
        for (at, ReplicaBatch { replica, batch, applied }) in batches.iter().enumerate() {
            for (key, _) in &batch.puts {
                // Sums are kept by this: a store that keeps them does not look.
                let once = Table::from_number(key.table).is_some_and(Table::is_written_once);
                let again = once && state.get(*replica, key).is_some() && !plant::is_any_planted();
                assert!(!again, "a row that is written once is written again: {key:?}");
            }
            for batch in [Some(batch), sums.get(at)].into_iter().flatten() {
                for key in &batch.deletes {
                    state.set(*replica, key.clone(), None);
                }
                for (key, value) in &batch.puts {
                    state.set(*replica, key.clone(), Some(value.clone()));
                }
            }
            state.set(*replica, Applied::key(), Some(applied.encode().into()));
        }
        Ok(())
    }

    fn applied(&self, replica: ReplicaId) -> Result<Option<Applied>, StoreError> {
        self.state().applied(replica)
    }

    fn replicas(&self) -> Result<Vec<ReplicaId>, StoreError> {
        Ok(self.state().rows.keys().copied().collect())
    }

    fn flush(&self) -> Result<Vec<(ReplicaId, Index)>, StoreError> {
        self.state().all_flushed();
        self.flushed()
    }

    fn flushed(&self) -> Result<Vec<(ReplicaId, Index)>, StoreError> {
        let state = self.state();
        let mut out = Vec::new();
        for (replica, rows) in &state.rows {
            let place = (*replica, Applied::key());
            if state.hidden.contains(&place) {
                return Err(damaged(*replica, &place.1));
            }
            let row = match state.flushed.get(&place) {
                Some(flushed) => flushed.as_ref(),
                None => {
                    state.check(*replica, &place.1)?;
                    rows.get(&place.1)
                }
            };
            if let Some(row) = row {
                out.push((*replica, Applied::decode(*replica, row)?.index));
            }
        }
        Ok(out)
    }

    fn view(&self, replica: ReplicaId) -> Result<Option<Box<dyn RowsView>>, StoreError> {
        let state = self.state();
        let (Some(applied), Some(rows)) = (state.applied(replica)?, state.rows.get(&replica)) else { return Ok(None) };
        let bad = state.damaged.iter().filter(|(of, _)| *of == replica).map(|(_, key)| key.clone()).collect();
        Ok(Some(Box::new(MemoryView { replica, applied, rows: Arc::clone(rows), bad })))
    }

    fn replace(
        &self,
        replica: ReplicaId,
        applied: &Applied,
        rows: &mut dyn Iterator<Item = Result<(RowKey, Bytes), StoreError>>,
    ) -> Result<(), StoreError> {
        let mut rows: Held = rows.collect::<Result<_, _>>()?;
        rows.insert(Applied::key(), applied.encode().into());
        let mut state = self.state();
        if plant::is(Fault::SnapshotOverOldRows)
            && let Some(old) = state.rows.get(&replica)
        {
            let left: Held =
                old.iter().filter(|(key, _)| !rows.contains_key(*key)).map(|(k, v)| (k.clone(), v.clone())).collect();
            rows.extend(left);
        }
        state.rows.insert(replica, Arc::new(rows));
        state.damaged.retain(|(of, _)| *of != replica);
        state.hidden.retain(|(of, _)| *of != replica);
        state.all_flushed();
        Ok(())
    }

    fn remove(&self, replica: ReplicaId) -> Result<(), StoreError> {
        let mut state = self.state();
        state.rows.remove(&replica);
        state.damaged.retain(|(of, _)| *of != replica);
        state.all_flushed();
        Ok(())
    }

    fn write_sums(&self, replica: ReplicaId, sums: &RowBatch) -> Result<(), StoreError> {
        let mut state = self.state();
        sums.deletes.iter().for_each(|key| state.set(replica, key.clone(), None));
        sums.puts.iter().for_each(|(key, value)| state.set(replica, key.clone(), Some(value.clone())));
        Ok(())
    }
}

#[derive(Default)]
struct State {
    /// Shared with views, copied by the first write after one was taken.
    rows: BTreeMap<ReplicaId, Arc<Held>>,
    /// Of each row changed since the last flush what it was then; None if it was not there.
    flushed: BTreeMap<(ReplicaId, RowKey), Option<Bytes>>,
    /// Rows that can't be read.
    damaged: BTreeSet<(ReplicaId, RowKey)>,
    /// Rows that were written since the last flush, and whose flushed value can't be read.
    hidden: BTreeSet<(ReplicaId, RowKey)>,
}

impl State {
    fn get(&self, replica: ReplicaId, key: &RowKey) -> Option<&Bytes> {
        self.rows.get(&replica).and_then(|rows| rows.get(key))
    }

    /// Fails if the row is damaged.
    fn check(&self, replica: ReplicaId, key: &RowKey) -> Result<(), StoreError> {
        let bad = !self.damaged.is_empty() && self.damaged.contains(&(replica, key.clone()));
        if bad { Err(damaged(replica, key)) } else { Ok(()) }
    }

    /// Everything that was written is on the disk.
    fn all_flushed(&mut self) {
        self.flushed.clear();
        self.hidden.clear();
    }

    fn applied(&self, replica: ReplicaId) -> Result<Option<Applied>, StoreError> {
        self.check(replica, &Applied::key())?;
        self.get(replica, &Applied::key()).map(|row| Applied::decode(replica, row)).transpose()
    }

    fn set(&mut self, replica: ReplicaId, key: RowKey, value: Option<Bytes>) {
        let rows = Arc::make_mut(self.rows.entry(replica).or_default());
        let before = match value {
            Some(value) => rows.insert(key.clone(), value),
            None => rows.remove(&key),
        };
        let place = (replica, key);
        if !self.damaged.is_empty() && self.damaged.remove(&place) {
            self.hidden.insert(place.clone());
        }
        self.flushed.entry(place).or_insert(before);
    }
}

fn damaged(replica: ReplicaId, key: &RowKey) -> StoreError {
    let place = format!("row {:02x} of mailbox {} of replica {replica}", key.table, key.mailbox);
    StoreError::damaged(place, "its block does not match its checksum")
}

struct MemoryView {
    replica: ReplicaId,
    applied: Applied,
    rows: Arc<Held>,
    /// Rows that can't be read.
    bad: BTreeSet<RowKey>,
}

impl RowsView for MemoryView {
    fn applied(&self) -> &Applied {
        &self.applied
    }

    fn rows(&self, after: Option<&RowKey>, limit: usize) -> Result<Vec<(RowKey, Bytes)>, StoreError> {
        let (from, own) = (after.map_or(Bound::Unbounded, Bound::Excluded), Applied::key());
        let rows = self.rows.range((from, Bound::Unbounded)).filter(|(k, _)| **k != own);
        let read = |(k, v): (&RowKey, &Bytes)| match self.bad.contains(k) {
            true => Err(damaged(self.replica, k)),
            false => Ok((k.clone(), v.clone())),
        };
        rows.take(limit).map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const R: ReplicaId = ReplicaId(3);

    fn key(n: u8) -> RowKey {
        RowKey::new(MailboxId([1; 16]), Table::Folders, [n])
    }

    fn write(rows: &MemoryRows, index: u64, change: impl FnOnce(&mut RowBatch)) {
        let mut batch = RowBatch::default();
        change(&mut batch);
        rows.write(&[ReplicaBatch {
            replica: R,
            batch,
            applied: Applied { index: Index(index), ..Applied::default() },
        }])
        .unwrap();
    }

    #[test]
    fn a_crash_brings_back_what_was_flushed_and_nothing_else() {
        let rows = MemoryRows::new();
        write(&rows, 1, |b| b.put(key(9), vec![9]));
        rows.crash();
        assert!(rows.replicas().unwrap().is_empty(), "never flushed");
        write(&rows, 1, |b| {
            b.put(key(1), vec![1]);
            b.put(key(2), vec![2]);
        });
        assert_eq!(rows.flush().unwrap(), [(R, Index(1))]);
        write(&rows, 2, |b| {
            b.delete(key(1));
            b.put(key(2), vec![3]);
            b.put(key(3), vec![3]);
        });
        write(&rows, 3, |b| b.put(key(1), vec![7]));
        assert_eq!(rows.flushed().unwrap(), [(R, Index(1))]);
        assert_eq!(rows.applied(R).unwrap().unwrap().index, Index(3));
        rows.crash();
        assert_eq!(rows.applied(R).unwrap().unwrap().index, Index(1));
        let left = [1, 2, 3].map(|n| rows.get(R, &key(n)).unwrap());
        assert_eq!(left, [Some(vec![1].into()), Some(vec![2].into()), None]);
        write(&rows, 2, |b| b.put(key(3), vec![3]));
        rows.crash();
        assert_eq!(rows.get(R, &key(3)).unwrap(), None, "a second crash");
    }

    #[test]
    #[should_panic(expected = "applies 4 after 4")]
    fn an_entry_applied_twice_stops_the_process() {
        let rows = MemoryRows::new();
        write(&rows, 4, |_| ());
        write(&rows, 4, |_| ());
    }

    #[test]
    fn bit_rot_outlives_a_crash() {
        let rows = MemoryRows::new();
        write(&rows, 1, |b| b.put(key(1), vec![1]));
        rows.flush().unwrap();
        write(&rows, 2, |b| b.put(key(1), vec![2]));
        rows.corrupt(R, &key(1), vec![0xff].into());
        rows.crash();
        assert_eq!(rows.get(R, &key(1)).unwrap(), Some(vec![0xff].into()));
    }

    #[test]
    fn whatever_meets_a_damaged_row_fails_until_it_is_written_anew() {
        let rows = MemoryRows::new();
        let scan = |limit| rows.scan(R, MailboxId([1; 16]), Table::Folders, &[], &[], limit).map(|found| found.len());
        let view = || rows.view(R).unwrap().unwrap().rows(None, 9).map(|found| found.len());
        write(&rows, 1, |b| [1, 2, 3].into_iter().for_each(|n| b.put(key(n), vec![n])));
        rows.flush().unwrap();
        rows.damage(R, [key(2), key(7)]);
        assert!(matches!(rows.get(R, &key(2)), Err(StoreError::Damaged { .. })));
        assert_eq!(rows.get(R, &key(7)).unwrap(), None, "what is not there is not damaged");
        assert_eq!((scan(1).unwrap(), rows.get(R, &key(1)).unwrap()), (1, Some(vec![1].into())));
        assert!(scan(2).is_err() && view().is_err() && rows.is_damaged(R));
        rows.crash();
        assert!(scan(2).is_err());
        write(&rows, 2, |b| b.put(key(2), vec![9]));
        assert_eq!((scan(9).unwrap(), view().unwrap()), (3, 3));
        rows.crash();
        assert!(scan(2).is_err(), "the write is lost, and what was there is damaged");
        write(&rows, 2, |b| b.delete(key(2)));
        rows.flush().unwrap();
        rows.crash();
        assert_eq!((scan(9).unwrap(), view().unwrap(), rows.is_damaged(R)), (2, 2, false));
    }

    #[test]
    fn a_damaged_position_fails_a_flush_and_a_replica_put_in_place_is_whole() {
        let rows = MemoryRows::new();
        write(&rows, 1, |b| b.put(key(1), vec![1]));
        rows.flush().unwrap();
        rows.damage(R, [Applied::key(), key(1)]);
        assert!(rows.flush().is_err() && rows.applied(R).is_err() && rows.view(R).is_err());
        let applied = Applied { index: Index(5), ..Applied::default() };
        rows.replace(R, &applied, &mut [Ok((key(1), Bytes::from_static(b"1")))].into_iter()).unwrap();
        rows.crash();
        assert_eq!((rows.flush().unwrap(), rows.get(R, &key(1)).unwrap().is_some()), (vec![(R, Index(5))], true));
    }
}
