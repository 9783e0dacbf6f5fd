//! What raft-rs reads: the log on disk, and before it the bounded tail of entries that are not synced or not
//! applied yet (the log on disk shows an entry only after its fsync).

use std::collections::VecDeque;
use std::sync::Arc;

use mailraft_storage::log::{Log, LogState};
use mailraft_storage::{Applied, Index, ReplicaId, Term};
use protobuf::Message;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Storage, StorageError};

/// Entries kept in memory for followers that are a little behind, in bytes.
pub const TAIL_KEPT_BYTES: usize = 4 << 20;

pub struct LogStore {
    replica: ReplicaId,
    log: Arc<dyn Log>,
    cut: (Index, Term),
    tail: VecDeque<Entry>,
    tail_bytes: usize,
    last: Index,
    /// Durable up to here.
    synced: Index,
    hard_state: HardState,
    applied: Applied,
}

impl LogStore {
    pub fn new(replica: ReplicaId, log: Arc<dyn Log>, state: &LogState, applied: Applied) -> Self {
        let mut hard_state = state.hard_state.clone();
        // Rows may be flushed before the hard state that counts their entries as committed is written.
        hard_state.commit = hard_state.commit.max(applied.index.0);
        let (cut, last) = match &state.installing {
            Some(mark) => {
                if hard_state.term < mark.term.0 {
                    hard_state.term = mark.term.0;
                    hard_state.vote = 0;
                }
                ((mark.index, mark.term), mark.index)
            }
            None => (state.cut, state.last),
        };
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
        }
    }

    pub fn cut(&self) -> (Index, Term) {
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

    pub fn set_synced(&mut self, upto: Index) {
        self.synced = self.synced.max(upto.min(self.last));
        self.trim();
    }

    /// Entries as raft-rs hands them out to be written: those from the first one's index on are replaced.
    pub fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(first.index <= self.last.0 + 1 && first.index > self.cut.0.0, "a gap in the log");
        while self.tail.back().is_some_and(|e| e.index >= first.index) {
            if let Some(dropped) = self.tail.pop_back() {
                self.tail_bytes -= size(&dropped);
            }
        }
        self.synced = self.synced.min(Index(first.index - 1));
        for entry in entries {
            self.tail_bytes += size(entry);
            self.tail.push_back(entry.clone());
        }
        self.last = Index(entries.last().map_or(self.last.0, |e| e.index));
    }

    /// A snapshot takes the place of everything.
    pub fn reset(&mut self, applied: Applied) {
        self.cut = (applied.index, applied.term);
        self.last = applied.index;
        self.synced = applied.index;
        self.tail.clear();
        self.tail_bytes = 0;
        self.applied = applied;
    }

    /// Entries up to this position are no longer there.
    pub fn cut_to(&mut self, cut: (Index, Term)) {
        assert!(cut.0 <= self.applied.index && cut.0 <= self.synced, "the log is cut past what is applied");
        self.cut = cut;
        while self.tail.front().is_some_and(|e| e.index <= cut.0.0) {
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

    fn in_tail(&self, index: u64) -> Option<&Entry> {
        let first = self.tail.front()?.index;
        self.tail.get(usize::try_from(index.checked_sub(first)?).ok()?)
    }
}

fn size(entry: &Entry) -> usize {
    entry.data.len() + 32
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
        if low <= self.cut.0.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        assert!(high <= self.last.0 + 1, "entries up to {high} of {}", self.last);
        let max = max_size.into().map_or(usize::MAX, |m| usize::try_from(m).unwrap_or(usize::MAX));
        let tail_first = self.tail.front().map_or(self.last.0 + 1, |e| e.index);
        let (mut out, mut bytes) = (Vec::new(), 0);
        if low < tail_first {
            out = self.log.entries(self.replica, Index(low), Index(high.min(tail_first)), max).map_err(other)?;
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
        if index == self.cut.0.0 {
            return Ok(self.cut.1.0);
        }
        if index < self.cut.0.0 {
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
        let read = self.log.entries(self.replica, Index(index), Index(index + 1), 0).map_err(other)?;
        read.first().map(|e| e.term).ok_or(Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.cut.0.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last.0)
    }

    fn snapshot(&self, request_index: u64, _: u64) -> raft::Result<Snapshot> {
        if self.applied.index.0 < request_index {
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        let mut snapshot = Snapshot::default();
        let meta = snapshot.mut_metadata();
        meta.index = self.applied.index.0;
        meta.term = self.applied.term.0;
        meta.set_conf_state(conf_state(&self.applied));
        Ok(snapshot)
    }
}
