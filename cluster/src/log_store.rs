//! What raft-rs reads: the log on disk, and before it the bounded tail of entries that are not synced or not
//! applied yet (the log on disk shows an entry only after its fsync).

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use mailraft_storage::log::{Log, LogState};
use mailraft_storage::{Applied, Index, LogPosition, ReplicaId};
use protobuf::Message;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Storage, StorageError};

use crate::members;
use crate::plant::{self, Fault};
use crate::writes::ENTRY_HEAD_BYTES;

/// Entries kept in memory for followers that are a little behind, in bytes.
pub const TAIL_KEPT_BYTES: usize = 4 << 20;

/// Entries in memory that are not synced or not applied yet, in bytes; past it a leader refuses proposals and a
/// follower takes no appends.
pub const TAIL_MAX_BYTES: usize = 32 << 20;
/// How exactly a position in the log is found by bytes.
const MARK_EVERY_BYTES: u64 = 1 << 20;
/// Marks that are remembered; past it every second one is forgotten.
const MARKS_MAX: usize = 1_024;

pub struct LogStore {
    replica: ReplicaId,
    log: Arc<dyn Log>,
    cut: LogPosition,
    tail: VecDeque<Entry>,
    tail_bytes: usize,
    last: Index,
    /// Durable up to here.
    synced: Index,
    hard_state: HardState,
    applied: Applied,
    /// Bytes appended since the start, and marks on the way: (bytes, the entry reached there).
    appended_bytes: u64,
    marks: VecDeque<(u64, Index)>,
    /// To which replica a snapshot is being sent: one at a time at home, and one elsewhere, which may take long.
    sending: [Cell<Option<ReplicaId>>; 2],
    /// Replicas in other regions.
    abroad: BTreeSet<ReplicaId>,
    /// Nobody gets a snapshot now.
    snapshots_wait: bool,
    /// Why entries that are applied could not be read, since this was last taken.
    unreadable: RefCell<Option<String>>,
}

impl LogStore {
    pub fn new(replica: ReplicaId, log: Arc<dyn Log>, state: &LogState, applied: Applied) -> Self {
        let mut hard_state = state.hard_state.clone();
        let (cut, last) = match &state.installing {
            Some(mark) => (mark.position(), mark.index),
            None => (state.cut, state.last),
        };
        if hard_state.term < cut.term.0 {
            hard_state.term = cut.term.0;
            hard_state.vote = 0;
        }
        // Rows may be flushed before the hard state that counts their entries as committed is written.
        if !plant::is(Fault::CommitBelowApplied) {
            hard_state.commit = hard_state.commit.max(applied.index.0);
        }
        LogStore {
            replica,
            log,
            cut,
            tail: VecDeque::new(),
            tail_bytes: 0,
            last,
            synced: last,
            hard_state,
            applied,
            appended_bytes: 0,
            marks: VecDeque::from([(0, last)]),
            sending: [Cell::new(None), Cell::new(None)],
            abroad: BTreeSet::new(),
            snapshots_wait: false,
            unreadable: RefCell::new(None),
        }
    }

    /// The hard state that Raft starts from.
    pub fn first_hard_state(&self) -> &HardState {
        &self.hard_state
    }

    pub fn cut(&self) -> LogPosition {
        self.cut
    }

    pub fn last(&self) -> Index {
        self.last
    }

    pub fn applied(&self) -> &Applied {
        &self.applied
    }

    pub fn set_applied(&mut self, applied: Applied) {
        assert!(applied.index >= self.applied.index, "applied goes back");
        self.applied = applied;
        self.trim();
    }

    /// Everything up to here is durable.
    pub fn set_synced(&mut self, upto: Index) {
        assert!(upto <= self.last, "synced past the end of the log");
        self.synced = self.synced.max(upto);
        self.trim();
    }

    /// Whether too much waits in memory to be synced and applied.
    pub fn is_full(&self) -> bool {
        self.tail_bytes > TAIL_MAX_BYTES
    }

    /// The entry before about the last `bytes` of the log. How long what was there at the start is, nobody knows: it is
    /// among them until so many bytes were appended since.
    pub fn before_bytes(&self, bytes: u64) -> Index {
        let Some(from) = self.appended_bytes.checked_sub(bytes) else { return Index(0) };
        let at = self.marks.partition_point(|(appended, _)| *appended <= from);
        at.checked_sub(1).and_then(|at| self.marks.get(at)).map_or(Index(0), |(_, index)| *index)
    }

    /// A snapshot was sent or not; the next may go.
    pub fn snapshot_sent(&self, to: ReplicaId) {
        let sending = self.sending_beside(to);
        if sending.get() == Some(to) {
            sending.set(None);
        }
    }

    /// These replicas are in other regions: snapshots to them keep nobody else's waiting.
    pub fn set_abroad(&mut self, abroad: BTreeSet<ReplicaId>) {
        self.abroad = abroad;
    }

    /// Whether nobody gets a snapshot for now.
    pub fn set_snapshots_wait(&mut self, wait: bool) {
        self.snapshots_wait = wait;
    }

    /// Who is sent one in the place that this replica's would take.
    fn sending_beside(&self, to: ReplicaId) -> &Cell<Option<ReplicaId>> {
        &self.sending[usize::from(self.abroad.contains(&to))]
    }

    /// Entries as raft-rs hands them out to be written: those from the first one's index on are replaced.
    pub fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(first.index <= self.last.0 + 1 && first.index > self.cut.index.0, "a gap in the log");
        while self.tail.back().is_some_and(|e| e.index >= first.index) {
            if let Some(dropped) = self.tail.pop_back() {
                self.tail_bytes -= size(&dropped);
            }
        }
        self.synced = self.synced.min(Index(first.index - 1));
        // What is replaced stays counted as bytes: they bound, and need not be exact.
        self.marks.retain(|(_, index)| index.0 < first.index);
        for entry in entries {
            self.tail_bytes += size(entry);
            self.tail.push_back(entry.clone());
            self.appended_bytes += size(entry) as u64;
            if self.marks.back().is_none_or(|(bytes, _)| self.appended_bytes - bytes >= MARK_EVERY_BYTES) {
                if self.marks.len() == MARKS_MAX {
                    let mut even = false;
                    self.marks.retain(|_| {
                        even = !even;
                        even
                    });
                }
                self.marks.push_back((self.appended_bytes, Index(entry.index)));
            }
        }
        self.last = Index(entries.last().map_or(self.last.0, |e| e.index));
    }

    /// A snapshot takes the place of everything.
    pub fn reset(&mut self, applied: Applied) {
        self.cut = applied.position();
        self.last = applied.index;
        self.synced = applied.index;
        self.tail.clear();
        self.tail_bytes = 0;
        self.marks = VecDeque::from([(self.appended_bytes, applied.index)]);
        self.applied = applied;
    }

    /// Entries up to this position are no longer there.
    pub fn cut_to(&mut self, cut: LogPosition) {
        assert!(cut.index <= self.applied.index && cut.index <= self.synced, "the log is cut past what is applied");
        self.cut = cut;
        while self.marks.get(1).is_some_and(|(_, index)| *index <= cut.index) {
            self.marks.pop_front();
        }
        while self.tail.front().is_some_and(|e| e.index <= cut.index.0) {
            if let Some(dropped) = self.tail.pop_front() {
                self.tail_bytes -= size(&dropped);
            }
        }
    }

    /// Drops from memory what is both synced and applied, but for a little that followers may ask for.
    fn trim(&mut self) {
        let done = self.synced.min(self.applied.index);
        while self.tail_bytes > TAIL_KEPT_BYTES && self.tail.front().is_some_and(|e| e.index <= done.0) {
            if let Some(dropped) = self.tail.pop_front() {
                self.tail_bytes -= size(&dropped);
            }
        }
    }

    /// Entries from the log itself. Where they are damaged and begin with one that is applied, they count as cut off:
    /// the rows have what they say, and a follower that lacks them gets a snapshot. raft-rs would end the process.
    fn read(&self, low: u64, high: u64, max: usize) -> raft::Result<Vec<Entry>> {
        self.log.entries(self.replica, Index(low), Index(high), max).map_err(|error| {
            if low > self.applied.index.0 {
                return other(error);
            }
            self.unreadable.borrow_mut().get_or_insert_with(|| error.to_string());
            Error::Store(StorageError::Compacted)
        })
    }

    /// Why entries that are applied could not be read since the last call, if some could not.
    pub fn take_unreadable(&self) -> Option<String> {
        self.unreadable.borrow_mut().take()
    }

    fn in_tail(&self, index: u64) -> Option<&Entry> {
        let first = self.tail.front()?.index;
        self.tail.get(usize::try_from(index.checked_sub(first)?).ok()?)
    }
}

fn size(entry: &Entry) -> usize {
    entry.data.len() + ENTRY_HEAD_BYTES
}

fn other(error: mailraft_storage::StoreError) -> Error {
    Error::Store(StorageError::Other(Box::new(error)))
}

pub fn conf_state(applied: &Applied) -> ConfState {
    let numbers = |ids: &[ReplicaId]| ids.iter().map(|id| id.0).collect::<Vec<u64>>();
    let mut state = ConfState::default();
    state.set_voters(numbers(&applied.voters));
    state.set_learners(numbers(&applied.learners));
    state.set_voters_outgoing(numbers(&applied.voters_outgoing));
    state.set_learners_next(numbers(&applied.learners_next));
    state.set_auto_leave(applied.auto_leave);
    state
}

impl Storage for LogStore {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState { hard_state: self.hard_state.clone(), conf_state: conf_state(&self.applied) })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.cut.index.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        assert!(high <= self.last.0 + 1, "entries up to {high} of {}", self.last);
        let max = max_size.into().map_or(usize::MAX, |m| usize::try_from(m).unwrap_or(usize::MAX));
        let tail_first = self.tail.front().map_or(self.last.0 + 1, |e| e.index);
        let (mut out, mut bytes) = (Vec::new(), 0);
        if low < tail_first {
            out = self.read(low, high.min(tail_first), max)?;
            bytes = out.iter().map(|e| e.compute_size() as usize).sum();
            if out.last().is_none_or(|e| e.index + 1 < high.min(tail_first)) {
                return Ok(out);
            }
        }
        for index in low.max(tail_first)..high {
            let Some(entry) = self.in_tail(index) else { break };
            bytes += entry.compute_size() as usize;
            if !out.is_empty() && bytes > max {
                break;
            }
            out.push(entry.clone());
        }
        Ok(out)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.cut.index.0 {
            return Ok(self.cut.term.0);
        }
        if index < self.cut.index.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        if index > self.last.0 {
            return Err(Error::Store(StorageError::Unavailable));
        }
        if let Some(entry) = self.in_tail(index) {
            return Ok(entry.term);
        }
        if index == self.applied.index.0 {
            return Ok(self.applied.term.0);
        }
        let read = self.read(index, index + 1, 0)?;
        read.first().map(|e| e.term).ok_or(Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.cut.index.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last.0)
    }

    /// Only the position: the driver sends the rows.
    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let sending = self.sending_beside(ReplicaId(to));
        let busy = sending.get().is_some_and(|other| other.0 != to);
        // A replica takes no snapshot whose configuration does not hold it.
        let early = !members::holds(&self.applied, ReplicaId(to));
        if self.snapshots_wait || busy || early || self.applied.index.0 < request_index {
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        sending.set(Some(ReplicaId(to)));
        let mut snapshot = Snapshot::default();
        let meta = snapshot.mut_metadata();
        meta.index = self.applied.index.0;
        meta.term = self.applied.term.0;
        meta.set_conf_state(conf_state(&self.applied));
        Ok(snapshot)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use mailraft_storage::log::{LogBatch, LogWrite};
    use mailraft_storage::memory::MemoryLog;
    use mailraft_storage::{StoreError, Term};

    use super::*;

    const R: ReplicaId = ReplicaId(1);
    const DATA_BYTES: usize = 300 << 10;

    fn entries(range: std::ops::RangeInclusive<u64>, term: u64) -> Vec<Entry> {
        range.map(|index| Entry { index, term, data: vec![0; DATA_BYTES].into(), ..Default::default() }).collect()
    }

    fn store(log: &MemoryLog) -> LogStore {
        let voters = [1, 2, 3].map(ReplicaId).to_vec();
        let applied = Applied { index: Index(1), term: Term(1), voters, ..Applied::default() };
        let first =
            LogWrite { replica: R, reset: Some(LogPosition { index: Index(1), term: Term(1) }), ..LogWrite::default() };
        log.write_synced(1, &LogBatch { writes: vec![first] }).unwrap();
        let state = Log::state(log, R).unwrap().unwrap();
        LogStore::new(R, Arc::new(log.clone()), &state, applied)
    }

    fn numbers(read: raft::Result<Vec<Entry>>) -> Vec<(u64, u64)> {
        read.unwrap().iter().map(|e| (e.index, e.term)).collect()
    }

    fn read(store: &LogStore, low: u64, high: u64, max: u64) -> Vec<(u64, u64)> {
        numbers(store.entries(low, high, max, GetEntriesContext::empty(false)))
    }

    #[test]
    fn entries_are_read_before_their_fsync_and_later_from_disk_and_memory_together() {
        let log = MemoryLog::new();
        let mut store = store(&log);
        store.append(&entries(2..=31, 1));
        assert_eq!(read(&store, 2, 32, u64::MAX).len(), 30);
        let write = LogWrite { replica: R, append: entries(2..=20, 1), ..LogWrite::default() };
        log.write_synced(2, &LogBatch { writes: vec![write] }).unwrap();
        store.set_synced(Index(20));
        assert!(store.in_tail(2).is_some(), "synced, but not applied");
        store.set_applied(Applied { index: Index(20), term: Term(1), ..Applied::default() });
        let kept = store.tail.front().unwrap().index;
        assert!(kept > 2 && kept <= 21, "{kept}");
        assert_eq!(read(&store, 2, 32, u64::MAX), (2..=31).map(|i| (i, 1)).collect::<Vec<_>>());
        assert_eq!(read(&store, kept - 1, 32, (DATA_BYTES * 3) as u64).len(), 2);
        assert_eq!(store.term(2).unwrap(), 1);
        store.cut_to(LogPosition { index: Index(10), term: Term(1) });
        assert!(matches!(store.term(9), Err(Error::Store(StorageError::Compacted))));
        assert!(matches!(
            store.entries(10, 12, None, GetEntriesContext::empty(false)),
            Err(Error::Store(StorageError::Compacted))
        ));
    }

    #[test]
    fn replaced_entries_are_gone_and_no_longer_count_as_synced() {
        let mut store = store(&MemoryLog::new());
        store.append(&entries(2..=6, 1));
        store.set_synced(Index(6));
        store.append(&entries(4..=5, 2));
        assert_eq!(read(&store, 2, 6, u64::MAX), [(2, 1), (3, 1), (4, 2), (5, 2)]);
        assert_eq!((store.synced, store.last_index().unwrap()), (Index(3), 5));
    }

    #[test]
    fn the_tail_has_a_bound_and_positions_are_found_by_bytes() {
        let mut store = store(&MemoryLog::new());
        assert_eq!(store.before_bytes(0), Index(1));
        for index in 2..=120 {
            store.append(&entries(index..=index, 1));
        }
        assert!(store.is_full());
        let before = store.before_bytes(10 * DATA_BYTES as u64);
        assert!((100..=110).contains(&before.0), "{before}");
        assert_eq!(store.before_bytes(1 << 40), Index(0), "nothing, what was there at the start neither");
    }

    #[test]
    fn one_snapshot_is_sent_at_a_time_and_only_to_members() {
        let store = store(&MemoryLog::new());
        assert!(store.snapshot(0, 4).is_err());
        assert_eq!(store.snapshot(0, 2).unwrap().get_metadata().index, 1);
        assert!(store.snapshot(0, 3).is_err());
        store.snapshot_sent(ReplicaId(3));
        assert!(store.snapshot(0, 3).is_err() && store.snapshot(0, 2).is_ok());
        store.snapshot_sent(ReplicaId(2));
        assert!(store.snapshot(0, 3).is_ok());
    }

    #[test]
    fn a_snapshot_to_another_region_keeps_none_at_home_waiting() {
        let mut store = store(&MemoryLog::new());
        store.applied.learners = [8, 9].map(ReplicaId).to_vec();
        store.set_abroad([8, 9].map(ReplicaId).into());
        assert!(store.snapshot(0, 8).is_ok() && store.snapshot(0, 9).is_err());
        assert!(store.snapshot(0, 2).is_ok() && store.snapshot(0, 3).is_err());
        store.snapshot_sent(ReplicaId(2));
        assert!(store.snapshot(0, 9).is_err() && store.snapshot(0, 3).is_ok());
        store.snapshot_sent(ReplicaId(8));
        assert!(store.snapshot(0, 9).is_ok());
    }

    /// A log of which nothing that is on disk can be read.
    struct Unreadable(MemoryLog);

    impl Log for Unreadable {
        fn write_synced(&self, number: u64, batch: &LogBatch) -> Result<(), StoreError> {
            self.0.write_synced(number, batch)
        }

        fn replicas(&self) -> Result<Vec<ReplicaId>, StoreError> {
            self.0.replicas()
        }

        fn newest_batch(&self) -> u64 {
            self.0.newest_batch()
        }

        fn sync_witness(&self) -> Result<(), StoreError> {
            self.0.sync_witness()
        }

        fn reclaim(&self) -> Result<Vec<ReplicaId>, StoreError> {
            self.0.reclaim()
        }

        fn state(&self, replica: ReplicaId) -> Result<Option<LogState>, StoreError> {
            self.0.state(replica)
        }

        fn entries(&self, _: ReplicaId, low: Index, _: Index, _: usize) -> Result<Vec<Entry>, StoreError> {
            Err(StoreError::damaged("raft log", format_args!("entry {low}")))
        }
    }

    #[test]
    fn damaged_entries_that_are_applied_count_as_cut_off_and_are_reported() {
        let log = MemoryLog::new();
        store(&log);
        let write = LogWrite { replica: R, append: entries(2..=9, 1), ..LogWrite::default() };
        log.write_synced(2, &LogBatch { writes: vec![write] }).unwrap();
        let state = Log::state(&log, R).unwrap().unwrap();
        let applied = Applied { index: Index(6), term: Term(1), ..Applied::default() };
        let store = LogStore::new(R, Arc::new(Unreadable(log)), &state, applied);
        let compacted = |error| matches!(error, Error::Store(StorageError::Compacted));
        assert_eq!(store.take_unreadable(), None);
        assert!(compacted(store.term(3).unwrap_err()));
        assert!(store.take_unreadable().is_some_and(|why| why.contains("entry 3")));
        assert!(compacted(store.entries(4, 9, None, GetEntriesContext::empty(false)).unwrap_err()));
        assert_eq!((store.term(1).unwrap(), store.term(6).unwrap()), (1, 1), "these need no entry");
        // What is not applied yet is nowhere else: that is damage, and the process must not go on.
        assert!(!compacted(store.term(8).unwrap_err()));
        assert!(!compacted(store.entries(7, 9, None, GetEntriesContext::empty(false)).unwrap_err()));
    }

    #[test]
    fn a_start_counts_as_committed_what_is_applied() {
        let log = MemoryLog::new();
        store(&log);
        let state =
            LogState { cut: LogPosition { index: Index(5), term: Term(3) }, last: Index(9), ..LogState::default() };
        let applied = Applied { index: Index(8), term: Term(3), ..Applied::default() };
        let store = LogStore::new(R, Arc::new(log.clone()), &state, applied);
        let first = store.initial_state().unwrap().hard_state;
        assert_eq!((first.term, first.commit), (3, 8));
    }
}
