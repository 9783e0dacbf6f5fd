//! Whether answers wait for other regions. While nobody confirms, the home goes on *alone*, and that is recorded before the
//! first answer that nobody else holds.
//!
//! The control group's row says what is to be, in versions that rise by one: *whole* → *alone* → *returning* → *whole*, or
//! back from returning to alone. Each partition's log says what is, by an entry that names the version. Its leader goes by
//! the higher version of the two, so by the stricter where they differ:
//!
//! * Alone: only once a `Mode` entry that says so is applied, and while no newer row says otherwise. It is appended after
//!   the row was applied where it leads; so whoever reads the log of a partition that answered alone finds the entry, and
//!   whoever finds the entry finds the row.
//! * Waiting: as soon as a newer row says so. Its leader appends `Mode` all the same: that it is held says that all before
//!   it is held too, what was answered alone as well, and that no leader answers alone by an older one. An earlier leader
//!   of the partition can answer only what it had committed, which stands before that entry. Once that is so of every
//!   partition the row says *whole*, and then nothing that was ever answered is missing elsewhere.
//!
//! The control group needs no such entry: the row is one of its own log.

use mailraft_storage::entry::{versioned_decode, versioned_encode};
use mailraft_storage::{PartitionId, ReplicaId, RowBatch, RowKey, Rows, StoreError, Table, UnixMillis};
use serde::{Deserialize, Serialize};

const ROW_VERSION: u8 = 1;
/// Where the row stands among those of [`Table::Regions`].
const KEY: [u8; 1] = [1];

/// Whether answers wait for other regions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// They do, and everything that was answered is held as is promised.
    #[default]
    Whole,
    /// They do not.
    Alone,
    /// They do again, or soon will; what was answered before may not be held yet.
    Returning,
}

/// The control group's row about that. Without one it is whole, and always was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModeRow {
    /// Rises by one with each change.
    pub version: u64,
    /// What is to be.
    pub mode: Mode,
    /// Since when.
    pub since: UnixMillis,
}

/// What a partition's own log says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionMode {
    /// The version of the row that it follows.
    pub version: u64,
    /// Answers do not wait.
    pub alone: bool,
    /// Since when.
    pub since: UnixMillis,
}

/// What a partition's leader tells the control group's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModeReport {
    /// The partition.
    pub partition: PartitionId,
    /// The version that its log says, as far as it is applied.
    pub version: u64,
    /// Answers wait by that, and the entry that says so is held by every region of the sync set.
    pub waits_and_held: bool,
    /// They hold what the leader's log had a second ago.
    pub caught_up: bool,
    /// For how long one of them has confirmed nothing, in milliseconds, as
    /// [`RegionStatus::unconfirmed_ms`](crate::RegionStatus) has it; 0 while all is well.
    pub unconfirmed_ms: u64,
}

impl ModeRow {
    /// The control group's row here.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn read(rows: &dyn Rows, control: ReplicaId) -> Result<Self, StoreError> {
        let row = rows.get(control, &RowKey::partition(Table::Regions, KEY))?;
        Ok(row.map(|row| versioned_decode("mode row", ROW_VERSION, &row)).transpose()?.unwrap_or_default())
    }

    /// The row that comes after this one.
    #[must_use]
    pub fn next(self, mode: Mode, since: UnixMillis) -> Self {
        ModeRow { version: self.version + 1, mode, since }
    }

    /// What the control group's own log says by it.
    pub fn of_control(self) -> PartitionMode {
        PartitionMode { version: self.version, alone: self.mode == Mode::Alone, since: self.since }
    }

    /// A batch that writes it.
    pub fn batch(&self) -> RowBatch {
        let mut batch = RowBatch::default();
        batch.put(RowKey::partition(Table::Regions, KEY), versioned_encode(ROW_VERSION, self));
        batch
    }
}

impl PartitionMode {
    /// What the rows of a partition's replica say.
    ///
    /// # Errors
    /// If that can't be read.
    pub fn read(rows: &dyn Rows, replica: ReplicaId) -> Result<Self, StoreError> {
        let row = rows.get(replica, &key())?;
        Ok(row.map(|row| PartitionMode::decode(&row)).transpose()?.unwrap_or_default())
    }

    /// What a batch of rows makes of it, if it does.
    ///
    /// # Errors
    /// If that can't be read.
    pub fn of_batch(batch: &RowBatch) -> Result<Option<Self>, StoreError> {
        let own = key();
        batch.puts.iter().find(|(key, _)| *key == own).map(|(_, row)| PartitionMode::decode(row)).transpose()
    }

    /// A batch that writes it.
    pub fn batch(&self) -> RowBatch {
        let mut batch = RowBatch::default();
        batch.put(key(), versioned_encode(ROW_VERSION, self));
        batch
    }

    /// Whether a leader of the partition answers what other regions do not hold, where the control group's row says this.
    pub fn is_alone(&self, row: &ModeRow) -> bool {
        self.alone && (row.version <= self.version || row.mode == Mode::Alone)
    }

    /// What is to be appended to the partition's log where the row says this, if something is.
    pub fn follows(&self, row: &ModeRow) -> Option<Self> {
        // That it is whole changes nothing where answers wait.
        let is_news = row.version > self.version && (row.mode != Mode::Whole || self.alone);
        is_news.then(|| row.of_control())
    }

    fn decode(row: &[u8]) -> Result<Self, StoreError> {
        versioned_decode("mode of a partition", ROW_VERSION, row)
    }
}

fn key() -> RowKey {
    RowKey::partition(Table::Mode, [])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use mailraft_storage::Applied;
    use mailraft_storage::memory::MemoryRows;
    use mailraft_storage::rows::ReplicaBatch;

    use super::*;

    fn row(version: u64, mode: Mode) -> ModeRow {
        ModeRow { version, mode, since: UnixMillis(7) }
    }

    fn log(version: u64, alone: bool) -> PartitionMode {
        PartitionMode { version, alone, since: UnixMillis(7) }
    }

    #[test]
    fn a_leader_goes_by_the_higher_version_of_row_and_log() {
        for (own, row, alone, follows) in [
            (log(0, false), row(0, Mode::Whole), false, None),
            // Not before its own entry is applied.
            (log(0, false), row(1, Mode::Alone), false, Some(log(1, true))),
            (log(1, true), row(1, Mode::Alone), true, None),
            // Its node has not heard of the row yet.
            (log(1, true), row(0, Mode::Whole), true, None),
            (log(2, false), row(1, Mode::Alone), false, None),
            // A newer row ends it at once.
            (log(1, true), row(2, Mode::Returning), false, Some(log(2, false))),
            (log(1, true), row(3, Mode::Alone), true, Some(log(3, true))),
            (log(1, true), row(3, Mode::Whole), false, Some(log(3, false))),
            (log(2, false), row(3, Mode::Whole), false, None),
            (log(2, false), row(3, Mode::Alone), false, Some(log(3, true))),
        ] {
            assert_eq!(own.is_alone(&row), alone, "{own:?} {row:?}");
            assert_eq!(own.follows(&row), follows, "{own:?} {row:?}");
        }
    }

    #[test]
    fn rows_are_read_for_ever() {
        let (rows, replica) = (MemoryRows::new(), ReplicaId(1));
        let write = |index, batch| {
            let applied = Applied { index: mailraft_storage::Index(index), ..Applied::default() };
            rows.write(&[ReplicaBatch { replica, batch, applied }]).unwrap();
        };
        write(1, RowBatch::default());
        assert_eq!(ModeRow::read(&rows, replica).unwrap(), ModeRow::default());
        assert_eq!(PartitionMode::read(&rows, replica).unwrap(), PartitionMode::default());
        let next = ModeRow::default().next(Mode::Alone, UnixMillis(300));
        assert_eq!(next.batch().puts[0].1, b"\x01\x01\x01\xac\x02".as_slice());
        write(2, next.batch());
        assert_eq!(ModeRow::read(&rows, replica).unwrap(), next);
        let own = next.of_control();
        assert_eq!(own.batch().puts[0].1, b"\x01\x01\x01\xac\x02".as_slice());
        assert_eq!(PartitionMode::of_batch(&own.batch()).unwrap(), Some(own));
        assert_eq!(PartitionMode::of_batch(&next.batch()).unwrap(), None);
        write(3, own.batch());
        assert_eq!(PartitionMode::read(&rows, replica).unwrap(), own);
    }
}
