//! What is counted from day to day, by the caller's clock.

use std::collections::BTreeMap;

use mailraft_storage::StoreError;

use crate::day::{DAY_SECONDS, Day, Event, Kind, Lost};

/// Days that are kept at once: today, and the one before, until its reports are sent. Of more the one that is farthest from now is
/// forgotten, and counted as untold.
pub const DAYS_MAX: usize = 2;
/// A day's parts come together from all nodes before its first report is due, in seconds after its end.
pub const COLLECTING_S: u64 = 1_800;
/// Reports of a day are spread over this time, in seconds, so that not everybody's come at once (RFC 8460, section 4.1).
pub const SPREAD_S: u64 = 14_400;

/// When a report of a day is due, in seconds since 1970-01-01 UTC. `jitter` is random, drawn once for each report.
pub fn due_unix_s(day: u64, jitter: u16) -> u64 {
    let delay = COLLECTING_S + u64::from(jitter) * SPREAD_S / (u64::from(u16::MAX) + 1);
    day.saturating_add(1).saturating_mul(DAY_SECONDS).saturating_add(delay)
}

/// Counts what happens on one node, in days of UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector<K: Kind> {
    days: BTreeMap<u64, Day<K>>,
    forgotten: u64,
}

impl<K: Kind> Default for Collector<K> {
    fn default() -> Self {
        Collector { days: BTreeMap::new(), forgotten: 0 }
    }
}

impl<K: Kind> Collector<K> {
    /// What was counted of a day, in days since 1970-01-01. It stays until its reports are sent ([`Collector::forget_told`]), as who
    /// sends for all may be another one by then.
    pub fn day(&self, day: u64) -> Option<&Day<K>> {
        self.days.get(&day)
    }

    /// The reports of a day are sent: it is not here any more. What comes late for it is counted as a day of its own.
    pub fn forget_told(&mut self, day: u64) -> Option<Day<K>> {
        self.days.remove(&day)
    }

    /// Takes in a day that was counted before, as by this node before a restart. Each is to come once.
    pub fn add(&mut self, day: Day<K>, now_unix_s: u64) {
        let there = self.days.entry(day.day()).or_insert_with(|| Day::new(day.day()));
        if let Err(other) = there.merge(day) {
            unreachable!("it was looked up by its day: {other}");
        }
        self.forget(now_unix_s);
    }

    /// All that is counted, in records of at most [`crate::day::PART_MAX_BYTES`], for a restart. Whoever writes them down puts all
    /// of them in the place of those before.
    pub fn encode(&self) -> Vec<Vec<u8>> {
        self.days.values().flat_map(Day::encode).collect()
    }

    /// What was written down by [`Collector::encode`]. Days that nobody has taken are there to be taken.
    ///
    /// # Errors
    /// If a record is of a later version, or damaged.
    pub fn decode<'a>(records: impl IntoIterator<Item = &'a [u8]>, now_unix_s: u64) -> Result<Self, StoreError> {
        let mut collector = Collector::default();
        for record in records {
            collector.add(Day::decode(record)?, now_unix_s);
        }
        Ok(collector)
    }

    /// What it takes in memory, in bytes.
    pub fn bytes(&self) -> usize {
        self.days.values().map(Day::bytes).sum()
    }

    /// How much was counted of which no report tells, of the days that are here and of those that were forgotten.
    pub fn lost(&self) -> Lost {
        let none = Lost { untold: self.forgotten, unlisted: 0 };
        self.days.values().map(Day::lost).fold(none, |lost, of| Lost {
            untold: lost.untold.saturating_add(of.untold),
            unlisted: lost.unlisted.saturating_add(of.unlisted),
        })
    }

    /// Counts what happened to a domain, whose name is as `host_name` has it.
    pub(crate) fn count_event(&mut self, now_unix_s: u64, domain: String, event: Event<K>) {
        let day = now_unix_s / DAY_SECONDS;
        self.days.entry(day).or_insert_with(|| Day::new(day)).count(domain, event);
        self.forget(now_unix_s);
    }

    /// Counts what happened to nobody whose name could be told.
    pub(crate) fn count_nameless(&mut self) {
        self.forgotten = self.forgotten.saturating_add(1);
    }

    /// Also a day of a clock that was wrong does not stay.
    fn forget(&mut self, now_unix_s: u64) {
        let today = now_unix_s / DAY_SECONDS;
        while self.days.len() > DAYS_MAX {
            let farthest = self.days.keys().copied().max_by_key(|day| day.abs_diff(today));
            let gone = farthest.and_then(|day| self.days.remove(&day));
            self.forgotten = self.forgotten.saturating_add(gone.map_or(0, |day| day.total()));
        }
    }
}
