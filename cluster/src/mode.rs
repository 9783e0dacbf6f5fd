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
//! Where an operator has more promised than before, what was answered by the earlier promise may be missing elsewhere, too: the same
//! entry of the control group says *returning*, and since when, until all of it is held.
//!
//! The control group needs no such entry: the row is one of its own log.

use mailraft_storage::entry::{versioned_decode, versioned_encode};
use mailraft_storage::{PartitionId, ReplicaId, RowBatch, RowKey, Rows, StoreError, Table, UnixMillis};
use serde::{Deserialize, Serialize};

const ROW_VERSION: u8 = 3;
/// The newest version that knows no promise which was less: all that it can say is written in it.
const ROW_WITHOUT_LESS_PROMISED: u8 = 2;
/// The newest version in which the row does not say since when answers may be missing elsewhere.
const ROW_WITHOUT_UNHELD: u8 = 1;
const PARTITION_ROW_VERSION: u8 = 1;
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
    /// What was answered since then may be missing in other regions.
    pub unheld: Unheld,
}

/// Since when answers may be missing in a region that is waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unheld {
    /// None is.
    #[default]
    Nothing,
    /// Since the home answered ahead of them, and then alone; 0 if nobody knows since when.
    Since(UnixMillis),
    /// Since nobody waited for it: it was taken out, and is waited for again.
    SinceTakenOut,
    /// Since then less was promised than is now, and they lack some of it; 0 if nobody knows since when.
    SinceLessPromised(UnixMillis),
}

/// The row before it said since when answers may be missing elsewhere.
#[derive(Deserialize)]
struct RowWithoutUnheld {
    version: u64,
    mode: Mode,
    since: UnixMillis,
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
        Ok(row.map(|row| ModeRow::decode(&row)).transpose()?.unwrap_or_default())
    }

    /// What a batch of rows makes of it, if it does.
    ///
    /// # Errors
    /// If that can't be read.
    pub fn of_batch(batch: &RowBatch) -> Result<Option<Self>, StoreError> {
        let own = RowKey::partition(Table::Regions, KEY);
        batch.puts.iter().find(|(key, _)| *key == own).map(|(_, row)| ModeRow::decode(row)).transpose()
    }

    /// Reads it, in whichever version it was written.
    fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        if bytes.first() != Some(&ROW_WITHOUT_UNHELD) {
            let version = match bytes.first() {
                Some(&ROW_WITHOUT_LESS_PROMISED) => ROW_WITHOUT_LESS_PROMISED,
                Some(_) | None => ROW_VERSION,
            };
            return versioned_decode("mode row", version, bytes);
        }
        let RowWithoutUnheld { version, mode, since } = versioned_decode("mode row", ROW_WITHOUT_UNHELD, bytes)?;
        let unheld = match mode {
            Mode::Whole => Unheld::Nothing,
            Mode::Alone => Unheld::Since(since),
            Mode::Returning => Unheld::SinceTakenOut,
        };
        Ok(ModeRow { version, mode, since, unheld })
    }

    /// The row that comes after this one.
    #[must_use]
    pub fn next(self, mode: Mode, since: UnixMillis) -> Self {
        let unheld = match (mode, self.unheld) {
            (Mode::Whole, _) => Unheld::Nothing,
            (Mode::Alone | Mode::Returning, Unheld::Nothing) => Unheld::Since(since),
            (Mode::Alone | Mode::Returning, before) => before,
        };
        ModeRow { version: self.version + 1, mode, since, unheld }
    }

    /// The same where answers ran ahead of other regions, which hold everything that was appended before `held_until`: what was
    /// answered ahead before it goes alone is missing there, too, however long that has been waited for.
    #[must_use]
    pub fn next_ahead(self, mode: Mode, since: UnixMillis, held_until: UnixMillis) -> Self {
        let next = self.next(mode, since);
        match (self.unheld, next.unheld) {
            (Unheld::Nothing, Unheld::Since(at)) => ModeRow { unheld: Unheld::Since(at.min(held_until)), ..next },
            (_, unheld) => ModeRow { unheld, ..next },
        }
    }

    /// The row that comes after this one when a region is waited for again that was taken out: until it has everything, it is
    /// as if it had never confirmed.
    #[must_use]
    pub fn taken_back(self, since: UnixMillis) -> Self {
        ModeRow { unheld: Unheld::SinceTakenOut, ..self.next(Mode::Alone, since) }
    }

    /// The row that comes after this one when more is promised than before: what was answered ahead of other regions by the
    /// earlier promise, which hold everything that was appended before `held_until`, may be missing there until they hold all of
    /// it.
    #[must_use]
    pub fn promised_more(self, since: UnixMillis, held_until: UnixMillis) -> Self {
        let earlier = |at: UnixMillis| at.min(held_until);
        let (mode, since, unheld) = match (self.mode, self.unheld) {
            (Mode::Whole, _) => (Mode::Returning, since, Unheld::SinceLessPromised(earlier(since))),
            (mode, Unheld::Since(at)) => (mode, self.since, Unheld::Since(earlier(at))),
            (mode, Unheld::SinceLessPromised(at)) => (mode, self.since, Unheld::SinceLessPromised(earlier(at))),
            (mode, Unheld::SinceTakenOut) => (mode, self.since, Unheld::SinceTakenOut),
            (mode, Unheld::Nothing) => (mode, self.since, Unheld::SinceLessPromised(earlier(since))),
        };
        ModeRow { version: self.version + 1, mode, since, unheld }
    }

    /// What the control group's own log says by it.
    pub fn of_control(self) -> PartitionMode {
        PartitionMode { version: self.version, alone: self.mode == Mode::Alone, since: self.since }
    }

    /// A batch that writes it.
    pub fn batch(&self) -> RowBatch {
        let mut batch = RowBatch::default();
        let version = match self.unheld {
            Unheld::Nothing | Unheld::Since(_) | Unheld::SinceTakenOut => ROW_WITHOUT_LESS_PROMISED,
            Unheld::SinceLessPromised(_) => ROW_VERSION,
        };
        batch.put(RowKey::partition(Table::Regions, KEY), versioned_encode(version, self));
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
        batch.put(key(), versioned_encode(PARTITION_ROW_VERSION, self));
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
        versioned_decode("mode of a partition", PARTITION_ROW_VERSION, row)
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
        ModeRow { version, mode, since: UnixMillis(7), unheld: Unheld::Nothing }
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
        assert_eq!(next.batch().puts[0].1, b"\x02\x01\x01\xac\x02\x01\xac\x02".as_slice());
        write(2, next.batch());
        assert_eq!(ModeRow::read(&rows, replica).unwrap(), next);
        let own = next.of_control();
        assert_eq!(own.batch().puts[0].1, b"\x01\x01\x01\xac\x02".as_slice());
        assert_eq!(PartitionMode::of_batch(&own.batch()).unwrap(), Some(own));
        assert_eq!(PartitionMode::of_batch(&next.batch()).unwrap(), None);
        write(3, own.batch());
        assert_eq!(PartitionMode::read(&rows, replica).unwrap(), own);
    }

    #[test]
    fn a_row_says_since_when_answers_may_be_missing_until_it_is_whole() {
        let at = |ms| UnixMillis(ms);
        let alone = ModeRow::default().next(Mode::Alone, at(300));
        assert_eq!(alone.unheld, Unheld::Since(at(300)));
        // It waits again from then on; what it answered before may be missing yet.
        let returning = alone.next(Mode::Returning, at(900));
        assert_eq!((returning.since, returning.unheld), (at(900), Unheld::Since(at(300))));
        assert_eq!(returning.next(Mode::Alone, at(1_000)).unheld, Unheld::Since(at(300)));
        let whole = returning.next(Mode::Whole, at(1_200));
        assert_eq!(whole.unheld, Unheld::Nothing);
        let back = whole.taken_back(at(5_000));
        assert_eq!((back.mode, back.since, back.unheld), (Mode::Alone, at(5_000), Unheld::SinceTakenOut));
        assert_eq!(back.next(Mode::Returning, at(6_000)).unheld, Unheld::SinceTakenOut);
        assert_eq!(alone.taken_back(at(5_000)).version, alone.version + 1);
    }

    #[test]
    fn where_more_is_promised_a_row_says_what_was_answered_by_less_until_it_is_whole() {
        let at = UnixMillis;
        let more = ModeRow::default().promised_more(at(300), at(250));
        assert_eq!((more.version, more.mode, more.since), (1, Mode::Returning, at(300)));
        assert_eq!(more.unheld, Unheld::SinceLessPromised(at(250)));
        assert_eq!(ModeRow::decode(&more.batch().puts[0].1).unwrap(), more);
        assert_eq!(more.next(Mode::Whole, at(400)).unheld, Unheld::Nothing);
        // Nobody confirms meanwhile: it is alone, and what may be missing is so from the earlier moment on.
        let alone = more.next(Mode::Alone, at(400));
        assert_eq!(alone.unheld, Unheld::SinceLessPromised(at(250)));
        assert_eq!(alone.promised_more(at(900), at(200)).unheld, Unheld::SinceLessPromised(at(200)));
        assert_eq!(alone.promised_more(at(900), at(850)).unheld, Unheld::SinceLessPromised(at(250)));
        // It was alone before: what was answered ahead of that, too.
        let alone = ModeRow::default().next(Mode::Alone, at(300)).promised_more(at(900), at(250));
        assert_eq!((alone.version, alone.mode, alone.since), (2, Mode::Alone, at(300)));
        assert_eq!(alone.unheld, Unheld::Since(at(250)));
    }

    #[test]
    fn what_was_answered_ahead_before_it_went_alone_is_missing_too_however_long_it_waited() {
        let at = UnixMillis;
        // Its answers waited from 60 on, and it went alone at 300.
        let alone = ModeRow::default().next_ahead(Mode::Alone, at(300), at(20));
        assert_eq!((alone.since, alone.unheld), (at(300), Unheld::Since(at(20))));
        // What is missing was so from the beginning, and once.
        assert_eq!(alone.next_ahead(Mode::Returning, at(900), at(880)).unheld, Unheld::Since(at(20)));
        let whole = alone.next_ahead(Mode::Whole, at(950), at(940));
        assert_eq!(whole.unheld, Unheld::Nothing);
        assert_eq!(whole.next_ahead(Mode::Alone, at(1_030), at(2_000)).unheld, Unheld::Since(at(1_030)));
    }

    #[test]
    fn a_row_is_read_in_every_version() {
        let read = |bytes: &[u8]| ModeRow::decode(bytes).unwrap();
        let first = |mode: u8| read(&[1, 4, mode, 7]);
        assert_eq!(first(0), row(4, Mode::Whole));
        assert_eq!(first(1), ModeRow { unheld: Unheld::Since(UnixMillis(7)), ..row(4, Mode::Alone) });
        assert_eq!(first(2), ModeRow { unheld: Unheld::SinceTakenOut, ..row(4, Mode::Returning) });
        assert_eq!(
            read(&[2, 4, 2, 7, 1, 5]),
            ModeRow { unheld: Unheld::Since(UnixMillis(5)), ..row(4, Mode::Returning) }
        );
        assert_eq!(
            read(&[3, 4, 2, 7, 3, 5]),
            ModeRow { unheld: Unheld::SinceLessPromised(UnixMillis(5)), ..row(4, Mode::Returning) }
        );
        assert!(matches!(ModeRow::decode(&[4]), Err(StoreError::Newer { .. })));
        assert!(matches!(ModeRow::decode(&[]), Err(StoreError::Damaged { .. })));
    }
}
