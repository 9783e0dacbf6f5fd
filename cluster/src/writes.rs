//! What a replica has to write, in the order of raft-rs's readies, and when each may be counted as durable.

use std::collections::VecDeque;

use mailraft_storage::log::{InstallMark, LogWrite};
use mailraft_storage::{Applied, LogPosition, ReplicaId};
use raft::eraftpb::{Entry, HardState, Message};

use crate::installation::{Installation, Synced, Turn};
use crate::plant::{self, Fault};

/// A bound for what an entry takes in a batch beside its data.
pub const ENTRY_HEAD_BYTES: usize = 32;

/// The part of a ready that goes to disk.
pub struct ReadyWrite {
    pub number: u64,
    pub entries: Vec<Entry>,
    pub hard_state: Option<HardState>,
    /// Must be durable before anything that follows from it; otherwise it goes with the next batch.
    pub must_sync: bool,
    /// With it Raft took a snapshot, whose turn comes when everything before is durable.
    pub snapshot: bool,
    /// Leave when it is durable.
    pub messages: Vec<Message>,
}

/// An entry's bytes in a batch, with a bound for its head.
fn size(entry: &Entry) -> usize {
    entry.data.len() + ENTRY_HEAD_BYTES
}

/// What became possible when a batch was durable.
pub struct Released {
    /// Every ready up to this number is durable.
    pub number: Option<u64>,
    /// Messages that waited for it.
    pub messages: Vec<Message>,
    /// What became durable of a snapshot.
    pub synced: Synced,
}

/// A replica's writes.
pub struct Writes {
    replica: ReplicaId,
    queue: VecDeque<ReadyWrite>,
    /// In the batch that is being written: so many of the queue's front.
    in_batch: usize,
    compact: Option<LogPosition>,
    /// Only counts more as committed: goes with the next batch.
    lazy_hard_state: Option<HardState>,
    /// A snapshot may be above what this replica's region holds.
    may_be_ahead: bool,
    /// The region holds what the last one brought: the mark goes with the next batch.
    ahead_is_over: bool,
    /// The snapshot that is on its way into this replica's place; its mark and its reset are written here.
    pub installation: Installation,
}

impl Writes {
    pub fn new(replica: ReplicaId) -> Self {
        Writes {
            replica,
            queue: VecDeque::new(),
            in_batch: 0,
            compact: None,
            lazy_hard_state: None,
            may_be_ahead: false,
            ahead_is_over: false,
            installation: Installation::default(),
        }
    }

    /// A replica whose snapshot was being installed when the process ended: its rows once more, then the reset
    /// with this hard state.
    pub fn resuming(replica: ReplicaId, mark: Applied, hard_state: HardState) -> Self {
        let mut writes = Writes::new(replica);
        writes.queue.push_back(ReadyWrite {
            number: 0,
            entries: Vec::new(),
            hard_state: Some(hard_state),
            must_sync: true,
            snapshot: true,
            messages: Vec::new(),
        });
        writes.installation = Installation::resuming(mark);
        writes
    }

    pub fn push(&mut self, write: ReadyWrite) {
        self.queue.push_back(write);
    }

    pub fn compact(&mut self, cut: LogPosition) {
        self.compact = Some(cut);
    }

    /// A hard state that need not be durable by itself.
    pub fn lazily(&mut self, hard_state: HardState) {
        self.lazy_hard_state = Some(hard_state);
    }

    /// Whether a snapshot may be above what this replica's region holds: then a mark says so with the reset of its log.
    pub fn set_may_be_ahead(&mut self, may_be: bool) {
        self.may_be_ahead = may_be;
    }

    /// This replica's region holds what the last snapshot brought. That need not be durable by itself: who forgets it only
    /// takes itself for ahead for longer.
    pub fn ahead_is_over(&mut self) {
        self.ahead_is_over = true;
    }

    /// Whether a ready that needs no write may be counted as durable at once.
    pub fn nothing_waits(&self) -> bool {
        !self.queue.iter().any(|w| w.must_sync)
    }

    /// Whether a batch should be written for it.
    pub fn needs_sync(&self) -> bool {
        let readies = || self.compact.is_some() || self.queue.iter().skip(self.in_batch).any(|w| w.must_sync);
        self.installation.needs_batch().unwrap_or_else(readies)
    }

    /// Whether nothing waits or is being written, but what need not be durable by itself.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.in_batch == 0 && !self.installation.is_on()
    }

    /// Bytes of entries that wait.
    pub fn waiting_bytes(&self) -> usize {
        self.queue.iter().skip(self.in_batch).flat_map(|w| &w.entries).map(size).sum()
    }

    /// What goes into the next batch: readies from the front, within the room, the last of them perhaps only in
    /// part; but at least one entry if the batch is empty so far.
    pub fn take(&mut self, room: usize, first: bool) -> Option<LogWrite> {
        assert_eq!(self.in_batch, 0, "two batches at once");
        let mut write = LogWrite { replica: self.replica, ..LogWrite::default() };
        match self.installation.turn() {
            Turn::Readies => {}
            Turn::Nothing => return None,
            Turn::Reset => {
                let front = self.queue.front().filter(|ready| ready.snapshot);
                write.hard_state = front.expect("the snapshot's ready waits for its reset").hard_state.clone();
                let position = self.installation.reset().position();
                write.reset = Some(position);
                // All three are about the log that goes.
                (self.lazy_hard_state, self.compact, self.ahead_is_over) = (None, None, false);
                let ahead = self.may_be_ahead && !plant::is(Fault::AheadForgotten);
                write.mark = Some(if ahead { InstallMark::Ahead(position.index) } else { InstallMark::Over });
                self.in_batch = 1;
                return Some(write);
            }
        }
        let lazy = self.lazy_hard_state.take();
        write.hard_state = lazy.clone();
        let (mut bytes, mut in_part) = (0, false);
        for ready in &mut self.queue {
            if ready.snapshot {
                if self.in_batch == 0 {
                    let applied = self.installation.mark();
                    match plant::is(Fault::SnapshotMetadataFirst) {
                        true => write.reset = Some(applied.position()),
                        false => write.mark = Some(InstallMark::Begun(applied)),
                    }
                    return Some(write);
                }
                break;
            }
            let mut fit = 0;
            for entry in &ready.entries {
                let size = size(entry);
                if bytes + size > room && !(first && bytes == 0) {
                    break;
                }
                bytes += size;
                fit += 1;
            }
            let whole = fit == ready.entries.len();
            if fit == 0 && !whole {
                break;
            }
            if let Some(entry) = ready.entries.first() {
                write.append.retain(|e| e.index < entry.index);
            }
            if whole {
                self.in_batch += 1;
                write.append.extend_from_slice(&ready.entries);
                if ready.hard_state.is_some() {
                    write.hard_state = ready.hard_state.clone();
                }
                continue;
            }
            write.append.extend(ready.entries.drain(..fit));
            if let Some(mut hard_state) = ready.hard_state.clone() {
                // Term and vote belong before the entries; no more is counted as committed than is there.
                if !plant::is(Fault::CommitAheadOfLog) {
                    hard_state.commit = hard_state.commit.min(write.append.last().map_or(0, |e| e.index));
                }
                write.hard_state = Some(hard_state);
            }
            in_part = true;
            break;
        }
        write.compact = self.compact.take();
        if self.in_batch == 0 && !in_part && write.compact.is_none() {
            self.lazy_hard_state = lazy;
            return None;
        }
        if plant::is(Fault::ForgetHardState) {
            write.hard_state = None;
        }
        if std::mem::take(&mut self.ahead_is_over) {
            write.mark = Some(InstallMark::Over);
        }
        Some(write)
    }

    /// The batch with what was taken is durable.
    pub fn persisted(&mut self) -> Released {
        let mut released = Released { number: None, messages: Vec::new(), synced: self.installation.persisted() };
        match released.synced {
            Synced::Mark => return released,
            Synced::Readies | Synced::Reset { .. } => {}
        }
        for _ in 0..std::mem::take(&mut self.in_batch) {
            let Some(done) = self.queue.pop_front() else { break };
            released.number = Some(done.number);
            released.messages.extend(done.messages);
        }
        // What follows and need not be durable by itself waited only for its turn.
        while self.queue.front().is_some_and(|w| !w.must_sync && !w.snapshot) {
            let Some(turn) = self.queue.pop_front() else { break };
            released.number = Some(turn.number);
            released.messages.extend(turn.messages);
            if turn.hard_state.is_some() {
                self.lazy_hard_state = turn.hard_state;
            }
        }
        released
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use mailraft_storage::{Index, Term};

    use super::*;
    use crate::installation::{Arrival, Judgement};

    const R: ReplicaId = ReplicaId(1);

    fn ready(number: u64, entries: &[u64], commit: u64) -> ReadyWrite {
        let entry = |index: &u64| Entry { index: *index, term: 2, data: vec![0; 1_000].into(), ..Default::default() };
        ReadyWrite {
            number,
            entries: entries.iter().map(entry).collect(),
            hard_state: Some(HardState { term: 2, vote: 1, commit, ..Default::default() }),
            must_sync: !entries.is_empty(),
            snapshot: false,
            messages: Vec::new(),
        }
    }

    fn indexes(write: &LogWrite) -> Vec<u64> {
        write.append.iter().map(|e| e.index).collect()
    }

    #[test]
    fn a_ready_larger_than_a_group_is_written_in_parts_and_durable_only_with_the_last() {
        let mut writes = Writes::new(R);
        writes.push(ready(1, &[5, 6, 7, 8, 9], 9));
        writes.push(ready(2, &[10], 9));
        let (mut parts, mut numbers) = (Vec::new(), Vec::new());
        while writes.needs_sync() {
            let write = writes.take(2_200, true).unwrap();
            let commit = write.hard_state.as_ref().map_or(0, |h| h.commit);
            let last = write.append.last().unwrap().index;
            assert!(commit <= last, "entry {commit} would count as committed and the log end at {last}");
            parts.push(indexes(&write));
            numbers.push(writes.persisted().number);
        }
        assert_eq!(parts, [vec![5, 6], vec![7, 8], vec![9, 10]]);
        assert_eq!(numbers, [None, None, Some(2)]);
    }

    #[test]
    fn an_entry_larger_than_the_room_goes_only_into_an_empty_group() {
        let mut writes = Writes::new(R);
        writes.push(ready(1, &[5], 4));
        assert!(writes.take(100, false).is_none());
        assert_eq!(indexes(&writes.take(100, true).unwrap()), [5]);
    }

    #[test]
    fn later_entries_replace_earlier_ones_of_the_same_group() {
        let mut writes = Writes::new(R);
        writes.push(ready(1, &[5, 6, 7], 4));
        writes.push(ready(2, &[6], 4));
        assert_eq!(indexes(&writes.take(1 << 20, true).unwrap()), [5, 6]);
        assert_eq!(writes.persisted().number, Some(2));
    }

    #[test]
    fn what_needs_no_sync_keeps_its_turn_and_goes_with_the_next_group() {
        let mut writes = Writes::new(R);
        writes.push(ready(1, &[5], 4));
        assert!(!writes.nothing_waits());
        writes.take(1 << 20, true).unwrap();
        writes.push(ready(2, &[], 5));
        assert!(!writes.needs_sync());
        assert_eq!(writes.persisted().number, Some(2));
        assert!(writes.nothing_waits() && !writes.needs_sync());
        writes.push(ready(3, &[6], 5));
        writes.compact(LogPosition { index: Index(3), term: Term(1) });
        let write = writes.take(1 << 20, true).unwrap();
        assert_eq!(
            (write.hard_state.unwrap().commit, write.compact),
            (5, Some(LogPosition { index: Index(3), term: Term(1) }))
        );
    }

    #[test]
    fn a_snapshot_is_marked_then_its_rows_then_the_log_begins_anew() {
        let mut writes = Writes::new(R);
        let applied = Applied { index: Index(90), term: Term(4), ..Applied::default() };
        writes.push(ready(1, &[5], 4));
        assert_eq!(writes.installation.staged(applied.clone()), Arrival::Judge);
        assert_eq!(writes.installation.judged(true), Judgement::Keep);
        assert_eq!(writes.installation.taken(Index(90)), applied);
        writes.push(ReadyWrite { snapshot: true, must_sync: true, ..ready(2, &[], 90) });
        writes.push(ready(3, &[91], 91));
        writes.compact(LogPosition { index: Index(4), term: Term(1) });
        let before = writes.take(1 << 20, true).unwrap();
        assert_eq!((indexes(&before), before.mark, before.reset), (vec![5], None, None));
        assert_eq!(writes.persisted().synced, Synced::Readies);
        writes.compact(LogPosition { index: Index(5), term: Term(1) });
        let mark = writes.take(1 << 20, true).unwrap();
        assert_eq!((mark.mark, mark.reset, mark.append.len()), (Some(InstallMark::Begun(applied.clone())), None, 0));
        assert_eq!(writes.persisted().synced, Synced::Mark);
        assert_eq!(writes.installation.replace(true), Some(applied.clone()));
        assert!(!writes.needs_sync() && writes.take(1 << 20, true).is_none(), "while rows are replaced");
        writes.installation.replaced();
        let reset = writes.take(1 << 20, true).unwrap();
        assert_eq!(
            (reset.mark, reset.reset),
            (Some(InstallMark::Over), Some(LogPosition { index: Index(90), term: Term(4) }))
        );
        assert_eq!((reset.hard_state.unwrap().commit, reset.compact), (90, None));
        let released = writes.persisted();
        assert_eq!((released.number, released.synced), (Some(2), Synced::Reset { applied, discard: false }));
        let after = writes.take(1 << 20, true).unwrap();
        assert_eq!((indexes(&after), after.compact), (vec![91], None), "a cut of the log that is gone");
    }
}
