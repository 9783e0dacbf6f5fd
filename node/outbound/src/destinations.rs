//! What a node remembers of each place that mail goes to, a domain or a smart host: how much it takes at once, how fast, and
//! whether it is down. In memory alone; what is forgotten is found out again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// So many destinations are remembered; the one that was used longest ago makes room.
pub const DESTINATIONS_MAX: usize = 10_000;
/// So many connections to one are open at once at first.
pub const CONNECTIONS_FIRST: u32 = 2;
/// So many at most; each that ends well allows one more.
pub const CONNECTIONS_MAX: u32 = 20;
/// The pause after a destination was found down; each further one is twice as long.
pub const DOWN_FIRST: Duration = Duration::from_secs(60);
/// The longest pause.
pub const DOWN_MAX: Duration = Duration::from_secs(60 * 60);
/// A destination is quick where the last connection ended well within this.
pub const QUICK_MAX: Duration = Duration::from_secs(15);

/// Whether a connection may be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Yes; [`Destinations::ended`] is said when it is over.
    Open,
    /// So many are open as it takes, or somebody finds out whether it is up again: ask when one has ended.
    Full,
    /// It is down: ask again at this time, in milliseconds.
    DownUntil(u64),
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It served.
    Well,
    /// It came about, and the server wanted less of us: it said 421, or broke it off.
    Badly,
    /// None of its hosts could be reached, or greeted us.
    Down,
    /// It says nothing about the destination.
    Neither,
}

#[derive(Clone, Debug)]
struct Destination {
    open: u32,
    most: u32,
    /// How often it was down in a row, and until when it is not tried, in milliseconds.
    down: u32,
    down_until_ms: u64,
    /// When the next message may go, in milliseconds.
    next_message_ms: u64,
    used_ms: u64,
    /// Whether the last one that says anything ended well and soon.
    is_quick: bool,
}

/// All of them.
#[derive(Debug)]
pub struct Destinations {
    of: BTreeMap<String, Destination>,
    /// Those without open connections by when they were used.
    unused: BTreeSet<(u64, String)>,
    most: usize,
}

impl Default for Destinations {
    fn default() -> Self {
        Destinations::new(DESTINATIONS_MAX)
    }
}

impl Destinations {
    /// None yet; at most so many.
    pub fn new(most: usize) -> Self {
        Destinations { of: BTreeMap::new(), unused: BTreeSet::new(), most }
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.of.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// Whether a connection may be opened to it now. One that an operator asked for may, though it is down.
    pub fn admit(&mut self, name: &str, now_ms: u64, is_asked_for: bool) -> Admission {
        if !self.make_room(name) {
            return Admission::Full;
        }
        let one = self.of.entry(name.to_owned()).or_insert_with(|| Destination {
            open: 0,
            most: CONNECTIONS_FIRST,
            down: 0,
            down_until_ms: 0,
            next_message_ms: 0,
            used_ms: now_ms,
            is_quick: false,
        });
        if one.down > 0 && now_ms < one.down_until_ms && !is_asked_for {
            return Admission::DownUntil(one.down_until_ms);
        }
        // One that was down is tried by one connection first.
        let most = if one.down > 0 { 1 } else { one.most };
        if one.open >= most {
            return Admission::Full;
        }
        self.unused.remove(&(one.used_ms, name.to_owned()));
        (one.open, one.used_ms) = (one.open + 1, now_ms);
        Admission::Open
    }

    /// Whether its servers were quick the last time.
    pub fn is_quick(&self, name: &str) -> bool {
        self.of.get(name).is_some_and(|one| one.is_quick)
    }

    /// A connection that was admitted took so long until it ended, in milliseconds.
    pub fn ended(&mut self, name: &str, how: Ended, took_ms: u64, now_ms: u64) {
        let Some(one) = self.of.get_mut(name) else { return };
        match how {
            Ended::Well => one.is_quick = took_ms <= millis(QUICK_MAX),
            Ended::Badly | Ended::Down => one.is_quick = false,
            Ended::Neither => {}
        }
        (one.open, one.used_ms) = (one.open.saturating_sub(1), now_ms);
        match how {
            Ended::Well => (one.most, one.down) = ((one.most + 1).min(CONNECTIONS_MAX), 0),
            Ended::Badly => (one.most, one.down) = ((one.most / 2).max(1), 0),
            Ended::Down => {
                one.most = (one.most / 2).max(1);
                // Those that were open at once find the same thing out once.
                if one.down == 0 || now_ms >= one.down_until_ms {
                    let pause_ms = millis(DOWN_FIRST).saturating_mul(1 << one.down.min(32)).min(millis(DOWN_MAX));
                    (one.down, one.down_until_ms) = (one.down.saturating_add(1), now_ms.saturating_add(pause_ms));
                }
            }
            Ended::Neither => {}
        }
        if one.open == 0 {
            self.unused.insert((now_ms, name.to_owned()));
        }
    }

    /// How long the next message to it waits, in milliseconds, where at most so many a second are allowed. It is counted.
    pub fn pace(&mut self, name: &str, messages_per_s: u32, now_ms: u64) -> u64 {
        let Some(one) = self.of.get_mut(name) else { return 0 };
        let at = one.next_message_ms.max(now_ms);
        one.next_message_ms = at.saturating_add(1_000 / u64::from(messages_per_s.max(1)));
        at - now_ms
    }

    /// Forgets the one that was used longest ago where there is no room for another; false if all are in use.
    fn make_room(&mut self, name: &str) -> bool {
        if self.of.contains_key(name) || self.of.len() < self.most {
            return true;
        }
        let Some((_, oldest)) = self.unused.pop_first() else { return false };
        self.of.remove(&oldest).is_some()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many connections are admitted at once.
    fn admitted(all: &mut Destinations, name: &str, now_ms: u64) -> u32 {
        let mut open = 0;
        while all.admit(name, now_ms, false) == Admission::Open {
            open += 1;
        }
        open
    }

    #[test]
    fn connections_grow_with_success_up_to_their_bound_and_halve_with_failure() {
        let mut all = Destinations::default();
        assert_eq!(admitted(&mut all, "b.test", 0), CONNECTIONS_FIRST);
        for _ in 0..100 {
            all.ended("b.test", Ended::Well, 0, 1);
            assert_eq!(all.admit("b.test", 1, false), Admission::Open);
        }
        let more = admitted(&mut all, "b.test", 2);
        assert_eq!(CONNECTIONS_FIRST + more, CONNECTIONS_MAX);
        for _ in 0..CONNECTIONS_MAX {
            all.ended("b.test", Ended::Badly, 0, 3);
        }
        assert_eq!(admitted(&mut all, "b.test", 4), 1);
        assert_eq!(admitted(&mut all, "c.test", 4), CONNECTIONS_FIRST);
    }

    #[test]
    fn one_that_is_down_rests_longer_each_time_and_is_tried_by_one() {
        let mut all = Destinations::default();
        assert_eq!(admitted(&mut all, "b.test", 0), 2);
        // Both find it down: that is one time.
        all.ended("b.test", Ended::Down, 0, 0);
        all.ended("b.test", Ended::Down, 0, 10);
        let mut now_ms = 0;
        for minutes in [1, 2, 4, 8, 16, 32, 60, 60] {
            let until_ms = now_ms + minutes * 60_000;
            assert_eq!(all.admit("b.test", until_ms - 1, false), Admission::DownUntil(until_ms));
            now_ms = until_ms;
            assert_eq!(admitted(&mut all, "b.test", now_ms), 1);
            all.ended("b.test", Ended::Down, 0, now_ms);
        }
        now_ms += 60 * 60_000;
        assert_eq!(admitted(&mut all, "b.test", now_ms), 1);
        all.ended("b.test", Ended::Well, 0, now_ms);
        assert_eq!(admitted(&mut all, "b.test", now_ms), 2);
    }

    #[test]
    fn what_an_operator_asks_for_tries_one_that_is_down_and_makes_it_rest_no_longer() {
        let mut all = Destinations::default();
        assert_eq!(all.admit("b.test", 0, false), Admission::Open);
        all.ended("b.test", Ended::Down, 0, 0);
        assert_eq!(all.admit("b.test", 10, false), Admission::DownUntil(60_000));
        assert_eq!(all.admit("b.test", 10, true), Admission::Open);
        assert_eq!(all.admit("b.test", 10, true), Admission::Full, "one finds out");
        all.ended("b.test", Ended::Down, 0, 20);
        assert_eq!(all.admit("b.test", 30, false), Admission::DownUntil(60_000));
        assert_eq!(all.admit("b.test", 30, true), Admission::Open);
        all.ended("b.test", Ended::Well, 0, 40);
        assert_eq!(all.admit("b.test", 50, false), Admission::Open, "it is up again for all");
    }

    #[test]
    fn the_one_that_was_used_longest_ago_makes_room_unless_all_are_in_use() {
        let mut all = Destinations::new(2);
        assert_eq!(
            [all.admit("a", 1, false), all.admit("b", 2, false), all.admit("c", 3, false)],
            [Admission::Open, Admission::Open, Admission::Full]
        );
        all.ended("b", Ended::Down, 0, 4);
        all.ended("a", Ended::Down, 0, 5);
        assert_eq!((all.admit("c", 6, false), all.len()), (Admission::Open, 2));
        // b is forgotten, a is not.
        assert_eq!(all.admit("a", 6, false), Admission::DownUntil(5 + 60_000));
        all.ended("c", Ended::Neither, 0, 7);
        assert_eq!(all.admit("b", 8, false), Admission::Open);
        assert_eq!((all.len(), Destinations::default().most), (2, DESTINATIONS_MAX));
    }

    #[test]
    fn one_is_quick_while_its_connections_end_well_and_soon() {
        let (mut all, most_ms) = (Destinations::default(), millis(QUICK_MAX));
        assert!(!all.is_quick("b.test"), "of whom nothing is known, nothing is expected");
        for (how, took_ms, is_quick) in [
            (Ended::Neither, 0, false),
            (Ended::Well, most_ms, true),
            (Ended::Neither, most_ms + 1, true),
            (Ended::Well, most_ms + 1, false),
            (Ended::Well, 0, true),
            (Ended::Badly, 0, false),
            (Ended::Well, 0, true),
            (Ended::Down, 0, false),
        ] {
            all.admit("b.test", 0, false);
            all.ended("b.test", how, took_ms, 0);
            assert_eq!(all.is_quick("b.test"), is_quick, "{how:?} after {took_ms} ms");
        }
    }

    #[test]
    fn messages_keep_the_pace_that_is_allowed() {
        let mut all = Destinations::default();
        assert_eq!(all.admit("b.test", 0, false), Admission::Open);
        let waits: Vec<u64> = (0..4).map(|_| all.pace("b.test", 10, 1_000)).collect();
        assert_eq!(waits, [0, 100, 200, 300]);
        assert_eq!(all.pace("b.test", 10, 2_000), 0);
    }
}
