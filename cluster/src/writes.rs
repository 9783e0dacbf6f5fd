//! What a replica has to write, in the order of raft-rs's readies, and when each may be counted as durable.

use std::collections::VecDeque;

use mailraft_storage::log::LogWrite;
use mailraft_storage::{Applied, Index, ReplicaId, Term};
use raft::eraftpb::{Entry, HardState, Message};

/// The part of a ready that goes to disk.
pub struct ReadyWrite {
    pub number: u64,
    pub entries: Vec<Entry>,
    pub hard_state: Option<HardState>,
    /// Must be durable before anything that follows from it; otherwise it goes with the next group.
    pub must_sync: bool,
    pub snapshot: Option<Applied>,
    /// Leave when it is durable.
    pub messages: Vec<Message>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Installing {
    No,
    /// The mark is in the group that is being written.
    Marking,
    /// The driver replaces rows.
    Rows,
    /// Rows are in place: the log is to be reset.
    Resetting,
    /// The reset is in the group that is being written.
    ResetWritten,
}

/// What became possible when a group was durable.
#[derive(Default)]
pub struct Released {
    /// Every ready up to this number is durable.
    pub number: Option<u64>,
    /// Messages that waited for it.
    pub messages: Vec<Message>,
    /// The last entry that is durable, if any was written.
    pub synced: Option<Index>,
    /// The mark of this snapshot is durable: its rows may be replaced.
    pub install: Option<Applied>,
    /// This snapshot is installed whole.
    pub installed: Option<Applied>,
}

/// A replica's writes.
pub struct Writes {
    replica: ReplicaId,
    queue: VecDeque<ReadyWrite>,
    /// In the group that is being written: so many of the queue's front.
    in_group: usize,
    compact: Option<(Index, Term)>,
    /// Only counts more as committed: goes with the next group.
    lazy_hard_state: Option<HardState>,
    installing: Installing,
}

impl Writes {
    pub fn new(replica: ReplicaId) -> Self {
        Writes { replica, queue: VecDeque::new(), in_group: 0, compact: None, lazy_hard_state: None, installing: Installing::No }
    }

    /// A replica whose snapshot was being installed when the process ended: its rows once more, then the reset.
    pub fn resuming(replica: ReplicaId, mark: Applied) -> Self {
        let mut writes = Writes::new(replica);
        writes.queue.push_back(ReadyWrite {
            number: 0,
            entries: Vec::new(),
            hard_state: None,
            must_sync: true,
            snapshot: Some(mark),
            messages: Vec::new(),
        });
        writes.installing = Installing::Rows;
        writes
    }

    pub fn push(&mut self, write: ReadyWrite) {
        self.queue.push_back(write);
    }

    pub fn compact(&mut self, cut: (Index, Term)) {
        self.compact = Some(cut);
    }

    /// A hard state that need not be durable by itself.
    pub fn lazily(&mut self, hard_state: HardState) {
        self.lazy_hard_state = Some(hard_state);
    }

    pub fn is_installing(&self) -> bool {
        self.installing != Installing::No || self.queue.iter().any(|w| w.snapshot.is_some())
    }

    /// Whether a ready that needs no write may be counted as durable at once.
    pub fn nothing_waits(&self) -> bool {
        !self.queue.iter().any(|w| w.must_sync)
    }

    /// Whether a group should be written for it.
    pub fn needs_sync(&self) -> bool {
        match self.installing {
            Installing::Rows | Installing::Marking | Installing::ResetWritten => false,
            Installing::Resetting => true,
            Installing::No => self.compact.is_some() || self.queue.iter().skip(self.in_group).any(|w| w.must_sync),
        }
    }

    /// Bytes of entries that wait.
    pub fn waiting_bytes(&self) -> usize {
        self.queue.iter().skip(self.in_group).flat_map(|w| &w.entries).map(|e| e.data.len() + 32).sum()
    }

    /// What goes into the next group: whole readies from the front, within the room, but at least one if the
    /// group is empty so far.
    pub fn take(&mut self, room: usize, first: bool) -> Option<LogWrite> {
        assert_eq!(self.in_group, 0, "two groups at once");
        let mut write = LogWrite { replica: self.replica, ..LogWrite::default() };
        match self.installing {
            Installing::Rows => return None,
            Installing::Marking | Installing::ResetWritten => unreachable!("their group is not written yet"),
            Installing::Resetting => {
                let front = self.queue.front()?;
                let applied = front.snapshot.as_ref()?;
                write.reset = Some((applied.index, applied.term));
                write.hard_state = front.hard_state.clone();
                self.lazy_hard_state = None;
                write.installing = Some(None);
                self.installing = Installing::ResetWritten;
                self.in_group = 1;
                return Some(write);
            }
            Installing::No => {}
        }
        let mut bytes = 0;
        let lazy = self.lazy_hard_state.take();
        write.hard_state = lazy.clone();
        for ready in &self.queue {
            if let Some(applied) = &ready.snapshot {
                if self.in_group == 0 {
                    write.installing = Some(Some(applied.clone()));
                    self.installing = Installing::Marking;
                    return Some(write);
                }
                break;
            }
            let size: usize = ready.entries.iter().map(|e| e.data.len() + 32).sum();
            if bytes + size > room && !(first && self.in_group == 0) {
                break;
            }
            bytes += size;
            self.in_group += 1;
            if let Some(entry) = ready.entries.first() {
                write.append.retain(|e| e.index < entry.index);
                write.append.extend_from_slice(&ready.entries);
            }
            if ready.hard_state.is_some() {
                write.hard_state = ready.hard_state.clone();
            }
        }
        write.compact = self.compact.take();
        if self.in_group == 0 && write.compact.is_none() {
            self.lazy_hard_state = lazy;
            return None;
        }
        Some(write)
    }

    /// The group with what was taken is durable.
    pub fn persisted(&mut self) -> Released {
        let mut released = Released::default();
        match self.installing {
            Installing::Marking => {
                self.installing = Installing::Rows;
                released.install = self.queue.front().and_then(|w| w.snapshot.clone());
                return released;
            }
            Installing::ResetWritten => {
                self.installing = Installing::No;
                released.installed = self.queue.front().and_then(|w| w.snapshot.clone());
            }
            Installing::No | Installing::Rows | Installing::Resetting => {}
        }
        for _ in 0..std::mem::take(&mut self.in_group) {
            let Some(done) = self.queue.pop_front() else { break };
            released.number = Some(done.number);
            released.messages.extend(done.messages);
            if let Some(last) = done.entries.last() {
                released.synced = Some(Index(last.index));
            }
        }
        // What follows and need not be durable by itself waited only for its turn.
        while self.queue.front().is_some_and(|w| !w.must_sync && w.snapshot.is_none()) {
            let Some(turn) = self.queue.pop_front() else { break };
            released.number = Some(turn.number);
            released.messages.extend(turn.messages);
            if turn.hard_state.is_some() {
                self.lazy_hard_state = turn.hard_state;
            }
        }
        released
    }

    /// The driver has replaced the rows.
    pub fn rows_installed(&mut self) {
        assert_eq!(self.installing, Installing::Rows, "rows were installed that nobody asked for");
        self.installing = Installing::Resetting;
    }
}
