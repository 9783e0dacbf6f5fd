//! Raft logs in memory, as bytes with checksums. A crash may leave any part of what was not synced; reading
//! the bytes anew keeps what is whole, cuts a torn tail of what was never synced, and calls everything else damage.
//!
//! A record is `length (4) ‖ checksum (4) ‖ number (8) ‖ payload`; the checksum is the first four bytes of
//! SHA-256 over number and payload.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protobuf::Message;
use raft::eraftpb;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use sha2::{Digest, Sha256};

use crate::entry::{versioned_decode, versioned_encode};
use crate::error::StoreError;
use crate::ids::{Index, LogPosition, ReplicaId};
use crate::log::{InstallMark, Log, LogBatch, LogState, LogWrite};
use crate::plant::{self, Fault};
use crate::takeover::IncarnationMark;

const PLACE: &str = "raft log";
const RECORD_VERSION: u8 = 2;
/// The newest version in which it says nothing of takeovers; those that have nothing to say are still written in it.
const RECORD_WITHOUT_INCARNATIONS: u8 = 1;
const RECORD_HEAD_BYTES: usize = 16;
/// [`Log::reclaim`] leaves logs below this size as they are, and above it those that have not doubled.
const RECLAIM_FROM_BYTES: usize = 256 << 10;

/// Raft logs in memory; clones share them.
#[derive(Clone, Default)]
pub struct MemoryLog {
    state: Arc<Mutex<State>>,
}

impl MemoryLog {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// The process dies: of the bytes that were not synced only the first `keep_unsynced` are left. What is
    /// whole among them can be read after [`MemoryLog::recover`].
    pub fn crash(&self, keep_unsynced: usize) {
        let mut state = self.state();
        let keep = state.bytes.len().min(state.synced.saturating_add(keep_unsynced));
        state.bytes.truncate(keep);
        if std::mem::take(&mut state.flip_at_crash)
            && keep > state.synced
            && let Some(last) = state.bytes.last_mut()
        {
            *last ^= 1;
        }
        state.synced = keep;
        state.forget_unsynced();
    }

    /// In the next crash a bit of the last byte that was not synced and survives turns over: a torn write.
    pub fn flip_at_crash(&self) {
        self.state().flip_at_crash = true;
    }

    /// Flips a bit: corruption. [`MemoryLog::recover`] notices it.
    pub fn corrupt(&self, bit: usize) {
        let mut state = self.state();
        if let Some(byte) = state.bytes.get_mut(bit / 8) {
            *byte ^= 1 << (bit % 8);
        }
    }

    /// The length in bytes.
    pub fn len(&self) -> usize {
        self.state().bytes.len()
    }

    /// Whether nothing was ever written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The next sync fails; its bytes stay unsynced.
    pub fn fail_next_sync(&self) {
        self.state().fail_next_sync = true;
    }

    /// Writes without syncing: it can't be read yet, and a crash may take it.
    ///
    /// # Errors
    /// If no log can take the write (see [`LogState::after`]).
    ///
    /// # Panics
    /// If `number` does not rise.
    pub fn write_unsynced(&self, number: u64, batch: &LogBatch) -> Result<(), StoreError> {
        self.state().write(number, batch)
    }

    /// Makes everything written durable and readable.
    ///
    /// # Errors
    /// If it was told to fail.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.state().sync()
    }

    /// Reads the bytes anew, as after a restart.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if a record that is not a torn tail does not check, if batches don't rise or
    /// entries have a gap; [`StoreError::Newer`] for a record of a later version. What could be read before
    /// still can.
    pub fn recover(&self) -> Result<(), StoreError> {
        self.state().recover()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log for MemoryLog {
    fn replicas(&self) -> Result<Vec<ReplicaId>, StoreError> {
        Ok(self.state().replicas.keys().copied().collect())
    }

    fn state(&self, replica: ReplicaId) -> Result<Option<LogState>, StoreError> {
        Ok(MemoryLog::state(self).replicas.get(&replica).map(|r| r.state.clone()))
    }

    fn entries(
        &self,
        replica: ReplicaId,
        from: Index,
        to: Index,
        max_bytes: usize,
    ) -> Result<Vec<eraftpb::Entry>, StoreError> {
        let state = MemoryLog::state(self);
        let missing = |index: u64| StoreError::damaged(PLACE, format_args!("replica {replica} has no entry {index}"));
        let (mut out, mut bytes) = (Vec::new(), 0);
        if from >= to {
            return Ok(out);
        }
        let held = state.replicas.get(&replica).ok_or_else(|| missing(from.0))?;
        if held.state.last.0 + 1 < to.0 {
            return Err(missing(to.0 - 1));
        }
        for index in from.0..to.0 {
            let entry = held.entries.get(&index).ok_or_else(|| missing(index))?;
            bytes += entry.compute_size() as usize;
            if !out.is_empty() && bytes > max_bytes {
                break;
            }
            out.push(entry.clone());
        }
        Ok(out)
    }

    fn write_synced(&self, number: u64, batch: &LogBatch) -> Result<(), StoreError> {
        let mut state = MemoryLog::state(self);
        state.write(number, batch)?;
        state.sync()
    }

    fn newest_batch(&self) -> u64 {
        MemoryLog::state(self).synced_batch
    }

    /// Nothing: it is named for good what is synced.
    fn sync_witness(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn reclaim(&self) -> Result<Vec<ReplicaId>, StoreError> {
        let mut state = MemoryLog::state(self);
        if state.bytes.len() < RECLAIM_FROM_BYTES.max(2 * state.reclaimed) || !state.pending.is_empty() {
            return Ok(Vec::new());
        }
        let writes = state.replicas.iter().map(|(replica, held)| held.whole(*replica)).collect();
        let record = record(state.synced_batch, &LogBatch { writes })?;
        state.reclaimed = record.len();
        state.synced = record.len();
        state.bytes = record;
        Ok(Vec::new())
    }
}

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    /// How many of them a crash can't take.
    synced: usize,
    synced_batch: u64,
    /// The newest batch that was ever synced, as a witness beside the bytes has it.
    named_batch: u64,
    /// What can be read: the synced part.
    replicas: BTreeMap<ReplicaId, Replica>,
    /// What was written since the last sync, and the batch and states it leads to.
    pending: Vec<LogBatch>,
    written_batch: u64,
    written: BTreeMap<ReplicaId, LogState>,
    /// The length after the last reclaim.
    reclaimed: usize,
    fail_next_sync: bool,
    flip_at_crash: bool,
}

#[derive(Clone, Default)]
struct Replica {
    state: LogState,
    entries: BTreeMap<u64, eraftpb::Entry>,
}

impl State {
    fn write(&mut self, number: u64, batch: &LogBatch) -> Result<(), StoreError> {
        assert!(number > self.written_batch, "batch {number} after {}", self.written_batch);
        let mut changed: BTreeMap<ReplicaId, Option<LogState>> = BTreeMap::new();
        for write in &batch.writes {
            let before = changed.remove(&write.replica).unwrap_or_else(|| self.written.get(&write.replica).cloned());
            changed.insert(write.replica, advance(before, write)?);
        }
        self.bytes.extend_from_slice(&record(number, batch)?);
        for (replica, state) in changed {
            match state {
                Some(state) => self.written.insert(replica, state),
                None => self.written.remove(&replica),
            };
        }
        self.written_batch = number;
        self.pending.push(batch.clone());
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        if std::mem::take(&mut self.fail_next_sync) {
            return Err(StoreError::io("syncing the log", "told to fail"));
        }
        for write in std::mem::take(&mut self.pending).into_iter().flat_map(|b| b.writes) {
            take(&mut self.replicas, write)?;
        }
        self.synced = self.bytes.len();
        self.synced_batch = self.written_batch;
        self.named_batch = self.synced_batch;
        Ok(())
    }

    fn recover(&mut self) -> Result<(), StoreError> {
        let (mut at, mut newest, mut replicas) = (0, 0, BTreeMap::new());
        'records: while at < self.bytes.len() {
            let Some((number, writes, length)) = record_at(&self.bytes[at..])? else {
                // A torn tail, unless a whole record follows somewhere behind it.
                for from in at + 1..self.bytes.len() {
                    if record_at(&self.bytes[from..])?.is_some() {
                        if plant::is(Fault::LogTailWithGap) {
                            at = from;
                            continue 'records;
                        }
                        return Err(StoreError::damaged(PLACE, format_args!("record at byte {at}")));
                    }
                }
                break;
            };
            if number <= newest {
                return Err(StoreError::damaged(PLACE, format_args!("batch {number} after {newest}")));
            }
            for write in writes {
                take(&mut replicas, write)?;
            }
            newest = number;
            at += length;
        }
        if newest < self.named_batch && !plant::is(Fault::LogTailWithGap) {
            let what = format_args!("batch {} was durable and it ends with {newest}", self.named_batch);
            return Err(StoreError::damaged(PLACE, what));
        }
        self.bytes.truncate(at);
        self.synced = at;
        self.synced_batch = newest;
        self.named_batch = newest;
        self.replicas = replicas;
        self.forget_unsynced();
        Ok(())
    }

    fn forget_unsynced(&mut self) {
        self.pending.clear();
        self.written_batch = self.synced_batch;
        self.written = self.replicas.iter().map(|(replica, held)| (*replica, held.state.clone())).collect();
    }
}

impl Replica {
    /// One write that makes all of it.
    fn whole(&self, replica: ReplicaId) -> LogWrite {
        LogWrite {
            replica,
            reset: Some(self.state.cut),
            mark: Some(match (self.state.installing.clone(), self.state.ahead) {
                (Some(applied), _) => InstallMark::Begun(applied),
                (None, Some(index)) => InstallMark::Ahead(index),
                (None, None) => InstallMark::Over,
            }),
            append: self.entries.values().cloned().collect(),
            hard_state: Some(self.state.hard_state.clone()),
            incarnation: Some(self.state.incarnation.clone()),
            compact: None,
            remove: false,
        }
    }
}

/// What a log is after a write; None if it is not there.
fn advance(before: Option<LogState>, write: &LogWrite) -> Result<Option<LogState>, StoreError> {
    match (write.remove, write.is_empty()) {
        (true, _) => Ok(None),
        (false, true) => Ok(before),
        (false, false) => before.unwrap_or_default().after(write).map(Some),
    }
}

fn take(replicas: &mut BTreeMap<ReplicaId, Replica>, write: LogWrite) -> Result<(), StoreError> {
    if write.remove {
        replicas.remove(&write.replica);
        return Ok(());
    }
    if write.is_empty() {
        return Ok(());
    }
    let held = replicas.entry(write.replica).or_default();
    let after = held.state.after(&write)?;
    if write.reset.is_some() {
        held.entries.clear();
    }
    if let Some(first) = write.append.first() {
        held.entries.split_off(&first.index);
    }
    held.entries.extend(write.append.into_iter().map(|e| (e.index, e)));
    held.entries = held.entries.split_off(&(after.cut.index.0 + 1));
    held.state = after;
    Ok(())
}

#[derive(Serialize, Deserialize)]
struct Record {
    writes: Vec<RecordedWrite>,
}

/// What a record ends with that says something of takeovers: for each write by its place.
type Incarnations = Vec<Option<IncarnationMark>>;

#[derive(Serialize, Deserialize)]
struct RecordedWrite {
    replica: ReplicaId,
    reset: Option<LogPosition>,
    mark: Option<InstallMark>,
    append: Vec<ByteBuf>,
    hard_state: Option<(u64, u64, u64)>,
    compact: Option<LogPosition>,
    remove: bool,
}

fn record(number: u64, batch: &LogBatch) -> Result<Vec<u8>, StoreError> {
    let mut writes = Vec::with_capacity(batch.writes.len());
    for write in &batch.writes {
        let append = write.append.iter().map(|e| e.write_to_bytes().map(ByteBuf::from)).collect::<Result<_, _>>();
        writes.push(RecordedWrite {
            replica: write.replica,
            reset: write.reset,
            mark: write.mark.clone(),
            append: append.map_err(|e| StoreError::io("encoding a log entry", e))?,
            hard_state: write.hard_state.as_ref().map(|h| (h.term, h.vote, h.commit)),
            compact: write.compact,
            remove: write.remove,
        });
    }
    let incarnations: Incarnations = batch.writes.iter().map(|write| write.incarnation.clone()).collect();
    let payload = match incarnations.iter().any(Option::is_some) {
        true => versioned_encode(RECORD_VERSION, &(Record { writes }, incarnations)),
        false => versioned_encode(RECORD_WITHOUT_INCARNATIONS, &Record { writes }),
    };
    let mut out = Vec::with_capacity(RECORD_HEAD_BYTES + payload.len());
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    out.extend_from_slice(&checksum(number, &payload));
    out.extend_from_slice(&number.to_be_bytes());
    out.extend_from_slice(&payload);
    Ok(out)
}

/// Batch, writes and length of the record these bytes begin with; None if they begin with no whole one.
fn record_at(bytes: &[u8]) -> Result<Option<(u64, Vec<LogWrite>, usize)>, StoreError> {
    let Some((number, payload)) = checked(bytes) else { return Ok(None) };
    let (record, mut incarnations): (Record, Incarnations) = match payload.first() {
        Some(&RECORD_WITHOUT_INCARNATIONS) => {
            (versioned_decode(PLACE, RECORD_WITHOUT_INCARNATIONS, payload)?, Vec::new())
        }
        _ => versioned_decode(PLACE, RECORD_VERSION, payload)?,
    };
    incarnations.resize(record.writes.len(), None);
    let mut writes = Vec::with_capacity(record.writes.len());
    for (write, incarnation) in record.writes.into_iter().zip(incarnations) {
        let mut append = Vec::with_capacity(write.append.len());
        for bytes in &write.append {
            let mut entry = eraftpb::Entry::default();
            entry.merge_from_bytes(bytes).map_err(|e| StoreError::damaged(PLACE, e))?;
            append.push(entry);
        }
        let hard_state = |(term, vote, commit)| eraftpb::HardState { term, vote, commit, ..Default::default() };
        writes.push(LogWrite {
            replica: write.replica,
            reset: write.reset,
            mark: write.mark,
            append,
            hard_state: write.hard_state.map(hard_state),
            incarnation,
            compact: write.compact,
            remove: write.remove,
        });
    }
    Ok(Some((number, writes, RECORD_HEAD_BYTES + payload.len())))
}

fn checked(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let head = bytes.get(..RECORD_HEAD_BYTES)?;
    let length = u32::from_be_bytes(head[..4].try_into().ok()?) as usize;
    let number = u64::from_be_bytes(head[8..16].try_into().ok()?);
    let payload = bytes.get(RECORD_HEAD_BYTES..RECORD_HEAD_BYTES.checked_add(length)?)?;
    (checksum(number, payload) == head[4..8]).then_some((number, payload))
}

fn checksum(number: u64, payload: &[u8]) -> [u8; 4] {
    let mut hash = Sha256::new();
    hash.update(number.to_be_bytes());
    hash.update(payload);
    let hash = hash.finalize();
    [hash[0], hash[1], hash[2], hash[3]]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ids::Term;

    const R: ReplicaId = ReplicaId(1);

    fn write(entries: &[(u64, u64)]) -> LogBatch {
        let entry = |(index, term): &(u64, u64)| eraftpb::Entry {
            index: *index,
            term: *term,
            data: vec![7; 10].into(),
            ..Default::default()
        };
        let append = entries.iter().map(entry).collect();
        LogBatch { writes: vec![LogWrite { replica: R, append, ..Default::default() }] }
    }

    fn last(log: &MemoryLog) -> Index {
        Log::state(log, R).unwrap().unwrap().last
    }

    #[test]
    fn what_was_synced_survives_and_a_torn_tail_is_cut_at_every_byte() {
        let made = || {
            let log = MemoryLog::new();
            log.write_synced(1, &write(&[(1, 1), (2, 1)])).unwrap();
            let synced = log.len();
            log.write_unsynced(2, &write(&[(3, 1)])).unwrap();
            let second = log.len();
            log.write_unsynced(3, &write(&[(4, 1)])).unwrap();
            (log, synced, second)
        };
        let whole = made().0.len();
        for keep in 0..whole {
            let (log, synced, second) = made();
            log.crash(keep);
            log.recover().unwrap();
            let expected = [whole, second].iter().filter(|end| synced + keep >= **end).count() as u64;
            assert_eq!((last(&log), log.newest_batch()), (Index(2 + expected), 1 + expected));
            log.write_synced(log.newest_batch() + 1, &write(&[(last(&log).0 + 1, 1)])).unwrap();
            log.recover().unwrap();
            assert_eq!(last(&log), Index(3 + expected), "it goes on after what was kept");
        }
    }

    #[test]
    fn what_is_not_synced_can_not_be_read() {
        let log = MemoryLog::new();
        log.write_synced(1, &write(&[(1, 1)])).unwrap();
        log.write_unsynced(2, &write(&[(2, 1)])).unwrap();
        assert!(log.entries(R, Index(2), Index(3), 1).is_err());
        assert_eq!(log.newest_batch(), 1);
        log.sync().unwrap();
        assert_eq!(log.entries(R, Index(2), Index(3), 1).unwrap().len(), 1);
        log.fail_next_sync();
        assert!(log.write_synced(3, &write(&[(3, 1)])).is_err());
        assert_eq!(last(&log), Index(2));
        log.write_synced(4, &write(&[(4, 1)])).unwrap();
        assert_eq!(last(&log), Index(4), "a later sync takes both");
    }

    #[test]
    fn any_flipped_bit_of_what_was_synced_is_damage_and_any_of_what_was_not_a_torn_tail() {
        let log = MemoryLog::new();
        log.write_synced(1, &write(&[(1, 1)])).unwrap();
        log.write_synced(2, &write(&[(2, 1)])).unwrap();
        let synced = log.len();
        for bit in 0..synced * 8 {
            log.corrupt(bit);
            assert!(matches!(log.recover(), Err(StoreError::Damaged { .. })), "bit {bit}");
            log.corrupt(bit);
        }
        log.recover().unwrap();
        log.write_unsynced(3, &write(&[(3, 1)])).unwrap();
        log.flip_at_crash();
        log.crash(usize::MAX);
        log.recover().unwrap();
        assert_eq!((last(&log), log.newest_batch(), log.len()), (Index(2), 2, synced));
        log.write_synced(3, &write(&[(3, 1)])).unwrap();
        let whole = log.len();
        let length = log.state().bytes.split_off(synced).len();
        assert!(log.recover().is_err(), "{length} of {whole} bytes are missing without a trace");
    }

    #[test]
    fn a_write_that_leaves_a_gap_is_refused_and_nothing_of_it_is_kept() {
        let log = MemoryLog::new();
        log.write_synced(1, &write(&[(1, 1)])).unwrap();
        let length = log.len();
        assert!(log.write_synced(2, &write(&[(9, 2)])).is_err());
        assert_eq!((log.len(), log.newest_batch()), (length, 1));
        log.recover().unwrap();
    }

    #[test]
    fn giving_back_space_keeps_what_is_there() {
        let log = MemoryLog::new();
        let big = |index: u64| {
            let mut batch = write(&[(index, 1)]);
            batch.writes[0].append[0].data = vec![1; 1 << 20].into();
            batch.writes[0].hard_state = Some(eraftpb::HardState { term: 1, commit: index, ..Default::default() });
            batch.writes[0].compact = (index > 2).then(|| LogPosition { index: Index(index - 2), term: Term(1) });
            batch
        };
        for index in 1..=10 {
            log.write_synced(index, &big(index)).unwrap();
        }
        let state = Log::state(&log, R).unwrap();
        log.reclaim().unwrap();
        assert!(log.len() < 3 << 20);
        log.crash(0);
        log.recover().unwrap();
        assert_eq!((Log::state(&log, R).unwrap(), log.newest_batch()), (state, 10));
        assert_eq!(log.entries(R, Index(9), Index(11), usize::MAX).unwrap().len(), 2);
        log.write_synced(11, &big(11)).unwrap();
        log.recover().unwrap();
    }
}
