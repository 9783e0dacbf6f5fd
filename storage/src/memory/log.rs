//! Raft logs in memory, as bytes with checksums. A crash may leave any part of what was not synced; opening
//! it again keeps what is whole, cuts a torn tail, and calls everything else damage.
//!
//! A record is `length (4) ‖ checksum (4) ‖ group (8) ‖ payload`; the checksum is the first four bytes of
//! SHA-256 over group and payload.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protobuf::Message;
use raft::eraftpb;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::entry::{versioned_decode, versioned_encode};
use crate::error::StoreError;
use crate::ids::{Index, ReplicaId, Term};
use crate::log::{Log, LogBatch, LogState, LogWrite};
use crate::rows::Applied;

const RECORD_VERSION: u8 = 1;
const RECORD_HEAD_BYTES: usize = 16;

#[derive(Clone, Default)]
struct Replica {
    state: LogState,
    entries: BTreeMap<u64, eraftpb::Entry>,
}

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    synced: usize,
    newest_group: u64,
    replicas: BTreeMap<ReplicaId, Replica>,
    fail_next_sync: bool,
}

/// Raft logs in memory; clones share them.
#[derive(Clone, Default)]
pub struct MemoryLog {
    state: Arc<Mutex<State>>,
}

#[derive(Serialize, Deserialize)]
struct Record {
    writes: Vec<RecordedWrite>,
}

#[derive(Serialize, Deserialize)]
struct RecordedWrite {
    replica: ReplicaId,
    reset: Option<(Index, Term)>,
    installing: Option<Option<Applied>>,
    append: Vec<Vec<u8>>,
    hard_state: Option<(u64, u64, u64)>,
    compact: Option<(Index, Term)>,
    remove: bool,
}

impl MemoryLog {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// The process dies: of the bytes that were not synced only the first `keep_unsynced` are left.
    pub fn crash(&self, keep_unsynced: usize) {
        let mut state = self.state();
        let keep = state.bytes.len().min(state.synced + keep_unsynced);
        state.bytes.truncate(keep);
        state.synced = keep;
    }

    /// Flips a bit: bit rot.
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

    /// The next [`Log::write_synced`] fails.
    pub fn fail_next_sync(&self) {
        self.state().fail_next_sync = true;
    }

    /// Writes without syncing: a crash may take it.
    ///
    /// # Errors
    /// None today.
    pub fn write_unsynced(&self, group: u64, batch: &LogBatch) -> Result<(), StoreError> {
        let mut state = self.state();
        let payload = versioned_encode(RECORD_VERSION, &recorded(batch));
        let checksum = checksum(group, &payload);
        state.bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        state.bytes.extend_from_slice(&checksum);
        state.bytes.extend_from_slice(&group.to_be_bytes());
        state.bytes.extend_from_slice(&payload);
        Ok(())
    }

    /// Makes everything written durable and readable.
    ///
    /// # Errors
    /// If it was told to fail, or the bytes were damaged.
    pub fn sync(&self) -> Result<(), StoreError> {
        let mut state = self.state();
        if std::mem::take(&mut state.fail_next_sync) {
            return Err(StoreError::io("syncing the log", "told to fail"));
        }
        state.synced = state.bytes.len();
        drop(state);
        self.recover()
    }

    /// Reads the bytes anew, as after a restart.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if a record that is not a torn tail does not check.
    pub fn recover(&self) -> Result<(), StoreError> {
        let mut state = self.state();
        let (mut at, mut newest, mut replicas) = (0, 0, BTreeMap::new());
        while at < state.bytes.len() {
            match record_at(&state.bytes[at..]) {
                Some((group, record, length)) => {
                    if group <= newest {
                        return Err(StoreError::damaged("raft log", format_args!("group {group} after {newest}")));
                    }
                    for write in record.writes {
                        replay(&mut replicas, write)?;
                    }
                    newest = group;
                    at += length;
                }
                None => {
                    // A torn tail, unless a whole record follows somewhere behind it.
                    let behind = (at + 1..state.bytes.len()).any(|from| record_at(&state.bytes[from..]).is_some());
                    if behind {
                        return Err(StoreError::damaged("raft log", format_args!("record at byte {at}")));
                    }
                    state.bytes.truncate(at);
                    state.synced = state.synced.min(at);
                }
            }
        }
        state.newest_group = newest;
        state.replicas = replicas;
        Ok(())
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
        let missing = |index: u64| StoreError::damaged("raft log", format_args!("replica {replica} has no entry {index}"));
        let held = state.replicas.get(&replica).ok_or_else(|| missing(from.0))?;
        let (mut out, mut bytes) = (Vec::new(), 0);
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

    fn write_synced(&self, group: u64, batch: &LogBatch) -> Result<(), StoreError> {
        {
            let mut state = MemoryLog::state(self);
            assert!(group > state.newest_group, "group {group} after {}", state.newest_group);
            if std::mem::take(&mut state.fail_next_sync) {
                return Err(StoreError::io("syncing the log", "told to fail"));
            }
        }
        self.write_unsynced(group, batch)?;
        let mut state = MemoryLog::state(self);
        state.synced = state.bytes.len();
        state.newest_group = group;
        let mut replicas = std::mem::take(&mut state.replicas);
        for write in recorded(batch).writes {
            replay(&mut replicas, write)?;
        }
        state.replicas = replicas;
        Ok(())
    }

    fn newest_group(&self) -> u64 {
        MemoryLog::state(self).newest_group
    }

    fn reclaim(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

fn checksum(group: u64, payload: &[u8]) -> [u8; 4] {
    let mut hash = Sha256::new();
    hash.update(group.to_be_bytes());
    hash.update(payload);
    let hash = hash.finalize();
    [hash[0], hash[1], hash[2], hash[3]]
}

fn record_at(bytes: &[u8]) -> Option<(u64, Record, usize)> {
    let head = bytes.get(..RECORD_HEAD_BYTES)?;
    let length = u32::from_be_bytes(head[..4].try_into().ok()?) as usize;
    let group = u64::from_be_bytes(head[8..16].try_into().ok()?);
    let payload = bytes.get(RECORD_HEAD_BYTES..RECORD_HEAD_BYTES.checked_add(length)?)?;
    if checksum(group, payload) != head[4..8] {
        return None;
    }
    let record = versioned_decode("raft log", RECORD_VERSION, payload).ok()?;
    Some((group, record, RECORD_HEAD_BYTES + length))
}

fn recorded(batch: &LogBatch) -> Record {
    let write = |w: &LogWrite| RecordedWrite {
        replica: w.replica,
        reset: w.reset,
        installing: w.installing.clone(),
        append: w.append.iter().map(|e| e.write_to_bytes().unwrap_or_default()).collect(),
        hard_state: w.hard_state.as_ref().map(|h| (h.term, h.vote, h.commit)),
        compact: w.compact,
        remove: w.remove,
    };
    Record { writes: batch.writes.iter().map(write).collect() }
}

fn replay(replicas: &mut BTreeMap<ReplicaId, Replica>, write: RecordedWrite) -> Result<(), StoreError> {
    if write.remove {
        replicas.remove(&write.replica);
        return Ok(());
    }
    let replica = replicas.entry(write.replica).or_default();
    if let Some(cut) = write.reset {
        replica.entries.clear();
        replica.state.cut = cut;
        replica.state.last = cut.0;
    }
    if let Some(installing) = write.installing {
        replica.state.installing = installing;
    }
    for bytes in write.append {
        let mut entry = eraftpb::Entry::default();
        entry.merge_from_bytes(&bytes).map_err(|e| StoreError::damaged("raft log", e))?;
        if entry.index > replica.state.last.0 + 1 || entry.index <= replica.state.cut.0.0 {
            return Err(StoreError::damaged(
                "raft log",
                format_args!("replica {}: entry {} after {}", write.replica, entry.index, replica.state.last),
            ));
        }
        replica.entries.split_off(&entry.index);
        replica.state.last = Index(entry.index);
        replica.entries.insert(entry.index, entry);
    }
    if let Some((term, vote, commit)) = write.hard_state {
        replica.state.hard_state = eraftpb::HardState { term, vote, commit, ..Default::default() };
    }
    if let Some(cut) = write.compact
        && cut.0 > replica.state.cut.0
    {
        replica.entries = replica.entries.split_off(&(cut.0.0 + 1));
        replica.state.cut = cut;
        replica.state.last = replica.state.last.max(cut.0);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(replica: u64, entries: &[(u64, u64)]) -> LogBatch {
        let append = entries
            .iter()
            .map(|(index, term)| eraftpb::Entry { index: *index, term: *term, data: vec![7; 10].into(), ..Default::default() })
            .collect();
        LogBatch { writes: vec![LogWrite { replica: ReplicaId(replica), append, ..Default::default() }] }
    }

    #[test]
    fn what_was_synced_survives_and_a_torn_tail_is_cut_at_every_byte() {
        let whole = {
            let log = MemoryLog::new();
            log.write_synced(1, &write(1, &[(1, 1), (2, 1)])).unwrap();
            log.write_unsynced(2, &write(1, &[(3, 1)])).unwrap();
            log.len()
        };
        for keep in 0..whole {
            let log = MemoryLog::new();
            log.write_synced(1, &write(1, &[(1, 1), (2, 1)])).unwrap();
            let synced = log.len();
            log.write_unsynced(2, &write(1, &[(3, 1)])).unwrap();
            log.crash(keep);
            log.recover().unwrap();
            let last = Log::state(&log, ReplicaId(1)).unwrap().unwrap().last;
            assert_eq!(last, Index(if synced + keep >= whole { 3 } else { 2 }));
        }
    }

    #[test]
    fn a_flipped_bit_before_the_tail_is_damage() {
        let log = MemoryLog::new();
        log.write_synced(1, &write(1, &[(1, 1)])).unwrap();
        log.write_synced(2, &write(1, &[(2, 1)])).unwrap();
        log.corrupt(8 * 20);
        assert!(matches!(log.recover(), Err(StoreError::Damaged { .. })));
    }

    #[test]
    fn appending_replaces_what_was_behind_and_cutting_keeps_the_rest() {
        let log = MemoryLog::new();
        log.write_synced(1, &write(1, &[(1, 1), (2, 1), (3, 1)])).unwrap();
        log.write_synced(2, &write(1, &[(2, 2)])).unwrap();
        let state = Log::state(&log, ReplicaId(1)).unwrap().unwrap();
        assert_eq!(state.last, Index(2));
        let cut = LogWrite { replica: ReplicaId(1), compact: Some((Index(1), Term(1))), ..Default::default() };
        log.write_synced(3, &LogBatch { writes: vec![cut] }).unwrap();
        log.recover().unwrap();
        assert!(log.entries(ReplicaId(1), Index(1), Index(2), 1000).is_err());
        let kept = log.entries(ReplicaId(1), Index(2), Index(3), 1000).unwrap();
        assert_eq!((kept[0].index, kept[0].term), (2, 2));
        assert!(log.write_synced(4, &write(1, &[(9, 2)])).is_err(), "a gap");
    }

    #[test]
    fn one_entry_is_given_whatever_its_size_and_then_no_more_than_asked() {
        let log = MemoryLog::new();
        log.write_synced(1, &write(1, &[(1, 1), (2, 1), (3, 1)])).unwrap();
        assert_eq!(log.entries(ReplicaId(1), Index(1), Index(4), 1).unwrap().len(), 1);
        assert_eq!(log.entries(ReplicaId(1), Index(1), Index(4), 1 << 20).unwrap().len(), 3);
    }
}
