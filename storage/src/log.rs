//! The store of Raft logs: all replicas of a node in one, written by one fsync loop.

use raft::eraftpb;

use crate::error::StoreError;
use crate::ids::{Index, ReplicaId, Term};
use crate::rows::Applied;

/// The largest group the fsync loop writes at once, in bytes of entries. Reading one entry back reads its
/// whole group.
pub const LOG_GROUP_MAX_BYTES: usize = 1 << 20;

/// A group: what the fsync loop writes with one fsync.
#[derive(Clone, Debug, Default)]
pub struct LogBatch {
    /// One for each replica that has something to write.
    pub writes: Vec<LogWrite>,
}

/// What one replica writes in a group. Applied in the order of the fields.
#[derive(Clone, Debug, Default)]
pub struct LogWrite {
    /// Whose log.
    pub replica: ReplicaId,
    /// Throw the whole log away and go on after this position: a snapshot was installed.
    pub reset: Option<(Index, Term)>,
    /// A mark that says a staged snapshot with this position is being installed, or `Some(None)` to clear it.
    pub installing: Option<Option<Applied>>,
    /// Entries to append; those in the log from the first one's index on are replaced.
    pub append: Vec<eraftpb::Entry>,
    /// The new hard state.
    pub hard_state: Option<eraftpb::HardState>,
    /// Cut the log: entries up to this position go.
    pub compact: Option<(Index, Term)>,
    /// Remove everything about this replica.
    pub remove: bool,
}

/// What a log holds of one replica.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogState {
    /// The last hard state written.
    pub hard_state: eraftpb::HardState,
    /// The position before the first entry: (0, 0) at birth, else where it was cut or reset.
    pub cut: (Index, Term),
    /// The last entry's index; equal to `cut.0` if there is none.
    pub last: Index,
    /// The mark of a snapshot whose installation had begun.
    pub installing: Option<Applied>,
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
    /// Only what [`Log::write_synced`] returned for is there.
    ///
    /// # Errors
    /// If one of them is not there, can't be read or fails its checksum.
    fn entries(
        &self, replica: ReplicaId, from: Index, to: Index, max_bytes: usize,
    ) -> Result<Vec<eraftpb::Entry>, StoreError>;

    /// Writes a group and syncs it. `group` rises with every call. Returns only when it is durable.
    ///
    /// # Errors
    /// Any error here ends the process.
    fn write_synced(&self, group: u64, batch: &LogBatch) -> Result<(), StoreError>;

    /// The number of the newest group recovered when the log was opened; 0 for a new one.
    fn newest_group(&self) -> u64;

    /// Gives back the space of what was cut; may be slow, runs outside the fsync loop.
    ///
    /// # Errors
    /// Any error here ends the process.
    fn reclaim(&self) -> Result<(), StoreError>;
}
