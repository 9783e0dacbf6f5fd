//! The store of Raft logs: all replicas of a node in one, written by one fsync loop.

use raft::eraftpb;
use serde::{Deserialize, Serialize};

use crate::error::StoreError;
use crate::ids::{Index, LogPosition, ReplicaId};
use crate::plant::{self, Fault};
use crate::rows::Applied;
use crate::takeover::IncarnationMark;

/// The largest batch the fsync loop writes at once, in bytes of entries. Reading one entry back reads its
/// whole batch.
pub const LOG_BATCH_MAX_BYTES: usize = 1 << 20;

/// A durable batch is named beside the log at once, and durably no later than this after it, in milliseconds. What a
/// disk loses of a batch before that, and only if the machine loses power as well, can't be told from a batch that was
/// never made durable.
pub const WITNESS_SYNC_AFTER_MS: u64 = 100;

/// A batch: what the fsync loop writes with one fsync.
#[derive(Clone, Debug, Default)]
pub struct LogBatch {
    /// One for each replica that has something to write.
    pub writes: Vec<LogWrite>,
}

/// What one replica writes in a batch. Applied in the order of the fields.
#[derive(Clone, Debug, Default)]
pub struct LogWrite {
    /// The replica whose log it is.
    pub replica: ReplicaId,
    /// Throw the whole log away and go on after this position: a snapshot was installed.
    pub reset: Option<LogPosition>,
    /// What becomes of the mark of a snapshot that is being installed.
    pub mark: Option<InstallMark>,
    /// Entries to append; those in the log from the first one's index on are replaced.
    pub append: Vec<eraftpb::Entry>,
    /// The new hard state.
    pub hard_state: Option<eraftpb::HardState>,
    /// What is kept of takeovers from now on.
    pub incarnation: Option<IncarnationMark>,
    /// Cut the log: entries up to this position go. Nothing happens where it was cut further already.
    pub compact: Option<LogPosition>,
    /// Remove everything about this replica.
    pub remove: bool,
}

/// What becomes of the mark that says that a staged snapshot is being installed. Logs keep it in this form, so the
/// order of the variants stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InstallMark {
    /// The rows are in place.
    Over,
    /// They are about to be replaced by the staged snapshot with this position.
    Begun(Applied),
    /// The rows are in place, up to here, and whether the replica's region holds all that is not known yet.
    Ahead(Index),
}

impl InstallMark {
    /// What the log holds after it.
    pub fn held(&self) -> Option<&Applied> {
        match self {
            InstallMark::Begun(applied) => Some(applied),
            InstallMark::Over | InstallMark::Ahead(_) => None,
        }
    }

    /// Up to where the replica is ahead of its region after it, perhaps.
    pub fn ahead(&self) -> Option<Index> {
        match self {
            InstallMark::Ahead(index) => Some(*index),
            InstallMark::Over | InstallMark::Begun(_) => None,
        }
    }
}

/// What a log holds of one replica.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogState {
    /// The last hard state written.
    pub hard_state: eraftpb::HardState,
    /// The position before the first entry: index 0 and term 0 at birth, else where it was cut or reset.
    pub cut: LogPosition,
    /// The last entry's index; equal to `cut.index` if there is none.
    pub last: Index,
    /// The mark of a snapshot whose installation had begun.
    pub installing: Option<Applied>,
    /// A snapshot brought the replica up to here, and whether its region holds all that is not known yet.
    pub ahead: Option<Index>,
    /// What is kept of takeovers.
    pub incarnation: IncarnationMark,
}

impl LogWrite {
    /// Whether it writes nothing.
    pub fn is_empty(&self) -> bool {
        let LogWrite { replica: _, reset, mark, append, hard_state, incarnation, compact, remove } = self;
        let log = reset.is_none() && mark.is_none() && append.is_empty() && compact.is_none() && !remove;
        log && hard_state.is_none() && incarnation.is_none()
    }
}

impl LogState {
    /// What a log in this state holds after a write; `remove` is left to the caller. Both stores go by it.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] for a write that no log can take: entries with a gap, entries at or before the
    /// cut, a reset to before the cut. Nothing of it may be written.
    pub fn after(&self, write: &LogWrite) -> Result<LogState, StoreError> {
        let refuse = |what: std::fmt::Arguments<'_>| {
            Err(StoreError::damaged(format!("raft log of replica {}", write.replica), what))
        };
        let mut state = self.clone();
        if let Some(at) = write.reset {
            if at.index < state.cut.index {
                return refuse(format_args!("reset to {} after it was cut at {}", at.index, state.cut.index));
            }
            (state.cut, state.last) = (at, at.index);
        }
        if let Some(mark) = &write.mark {
            (state.installing, state.ahead) = (mark.held().cloned(), mark.ahead());
        }
        if let (Some(first), Some(last)) = (write.append.first(), write.append.last()) {
            let gap = write.append.iter().zip(first.index..).find(|(e, index)| e.index != *index);
            if let Some((entry, index)) = gap {
                return refuse(format_args!("entry {} where {index} should be", entry.index));
            }
            let gap = first.index > state.last.0 + 1 && !plant::is(Fault::LogTailWithGap);
            if first.index <= state.cut.index.0 || gap {
                return refuse(format_args!("entry {} after {}, cut at {}", first.index, state.last, state.cut.index));
            }
            state.last = Index(last.index);
        }
        if let Some(hard_state) = &write.hard_state {
            state.hard_state.clone_from(hard_state);
        }
        if let Some(incarnation) = &write.incarnation {
            state.incarnation.clone_from(incarnation);
        }
        if let Some(cut) = write.compact.filter(|c| c.index > state.cut.index) {
            state.cut = cut;
            state.last = state.last.max(cut.index);
        }
        Ok(state)
    }
}

/// A store of Raft logs.
pub trait Log: Send + Sync {
    /// Every replica in it.
    ///
    /// # Errors
    /// If it can't be read.
    fn replicas(&self) -> Result<Vec<ReplicaId>, StoreError>;

    /// What it holds of a replica; None for one it never heard of.
    ///
    /// # Errors
    /// If it can't be read or is damaged (a gap, say).
    fn state(&self, replica: ReplicaId) -> Result<Option<LogState>, StoreError>;

    /// Entries from `from` up to but without `to`, at least one and then no more than `max_bytes` of them.
    /// Only what [`Log::write_synced`] returned for is there. Nothing if `to` is not after `from`.
    ///
    /// # Errors
    /// If one of them is not there, can't be read or fails its checksum.
    fn entries(
        &self,
        replica: ReplicaId,
        from: Index,
        to: Index,
        max_bytes: usize,
    ) -> Result<Vec<eraftpb::Entry>, StoreError>;

    /// Writes a batch and syncs it, all of it or nothing. `number` rises with every call. Returns only when it
    /// is durable. One thread calls it.
    ///
    /// # Errors
    /// Any error here ends the process.
    ///
    /// # Panics
    /// If `number` does not rise: the log would not tell its newest batch.
    fn write_synced(&self, number: u64, batch: &LogBatch) -> Result<(), StoreError>;

    /// The number of the newest durable batch; 0 for a new log.
    fn newest_batch(&self) -> u64;

    /// Makes durable what the store noted of the newest batch beside its log, by which a later start misses what a
    /// disk lost of it. To be called within [`WITNESS_SYNC_AFTER_MS`] of a batch, outside the fsync loop.
    ///
    /// # Errors
    /// Any error here ends the process.
    fn sync_witness(&self) -> Result<(), StoreError>;

    /// Gives back the space of what was cut; may be slow, runs outside the fsync loop. Returns the replicas that have
    /// damaged entries in the way: as long as these are not cut off, little or nothing is given back.
    ///
    /// # Errors
    /// Any error here ends the process.
    fn reclaim(&self) -> Result<Vec<ReplicaId>, StoreError>;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ids::Term;

    fn entries(indexes: &[u64]) -> Vec<eraftpb::Entry> {
        indexes.iter().map(|index| eraftpb::Entry { index: *index, term: 1, ..Default::default() }).collect()
    }

    #[test]
    fn marks_and_positions_are_kept_in_the_form_that_logs_have() {
        use crate::entry::versioned_encode;
        let position = LogPosition { index: Index(3), term: Term(2) };
        assert_eq!(versioned_encode(1, &position), [1, 3, 2]);
        assert_eq!(versioned_encode(1, &InstallMark::Over), versioned_encode(1, &None::<Applied>));
        let applied = Applied { index: Index(3), ..Applied::default() };
        let begun = versioned_encode(1, &InstallMark::Begun(applied.clone()));
        assert_eq!(begun, versioned_encode(1, &Some(applied)));
        assert_eq!(versioned_encode(1, &InstallMark::Ahead(Index(3))), [1, 2, 3]);
    }

    #[test]
    fn a_write_no_log_can_take_is_refused() {
        let state =
            LogState { cut: LogPosition { index: Index(5), term: Term(1) }, last: Index(9), ..LogState::default() };
        for (indexes, last) in [
            (&[10][..], Some(10)),
            (&[6, 7], Some(7)),
            (&[9, 10, 11], Some(11)),
            (&[11], None),
            (&[5, 6], None),
            (&[7, 9], None),
            (&[8, 7], None),
        ] {
            let after = state.after(&LogWrite { append: entries(indexes), ..LogWrite::default() });
            assert_eq!(after.ok().map(|s| s.last.0), last, "{indexes:?}");
        }
        let reset = |index| {
            state.after(&LogWrite {
                reset: Some(LogPosition { index: Index(index), term: Term(2) }),
                ..LogWrite::default()
            })
        };
        assert!(reset(4).is_err());
        assert_eq!(reset(7).unwrap().last, Index(7), "a tail of another history goes");
        let compact = |index| {
            state
                .after(&LogWrite {
                    compact: Some(LogPosition { index: Index(index), term: Term(2) }),
                    ..LogWrite::default()
                })
                .unwrap()
        };
        assert_eq!(compact(3), state);
        assert_eq!((compact(12).cut, compact(12).last), (LogPosition { index: Index(12), term: Term(2) }, Index(12)));
    }
}
