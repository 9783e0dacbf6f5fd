//! Guesses at passwords: each reserves its place here before it is computed, so that a thousand at once are no more than
//! one after the other. Counted by account and address together, by address, and by network; delays grow. No account is
//! ever locked as such: strangers would lock its user out.
//!
//! Nodes tell each other what they count, so that who goes from one to the next has as many guesses as who stays. Nothing
//! is agreed on: what is told a moment late, or lost, counts where it was guessed.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::places::Network;

/// Wrong guesses at one account from one address before it has to wait, and the longest wait: its user's own programs
/// may be what guesses, with an old password.
const PAIR: Rule = Rule { free: 5, delay_max: Duration::from_secs(60) };
/// Wrong guesses from one address, at whatever account.
const ADDRESS: Rule = Rule { free: 20, delay_max: Duration::from_secs(900) };
/// Wrong guesses from one network (IPv4: /24, IPv6: /48).
const NETWORK: Rule = Rule { free: 60, delay_max: Duration::from_secs(900) };
/// Recipients that are nobody here, of one address, before the next answers come late.
const PROBES_FREE: u32 = 10;
const PROBE_DELAY: Duration = Duration::from_millis(250);
const PROBE_DELAY_MAX: Duration = Duration::from_secs(5);
/// What was counted is forgotten after this long without another.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3_600);
/// Counts kept.
const COUNTS_MAX: usize = 65_536;
/// An address from which an account was logged in to is known for this long.
const KNOWN_FOR: Duration = Duration::from_secs(30 * 86_400);
/// Such addresses kept.
const KNOWN_MAX: usize = 100_000;
/// Counts, and addresses that are known now, of which a node tells the others at once.
pub const TOLD_MAX: usize = 1_024;
/// So many wrong guesses at once are believed another node.
const TOLD_WRONG_MAX: u32 = 1_000;
/// The longest name of which another node tells, in bytes.
const TOLD_NAME_MAX_BYTES: usize = 320;

/// What was guessed at one node since it told of it last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuessNews {
    wrong: Vec<(Key, u32)>,
    right: Vec<(String, Network)>,
}

struct Rule {
    free: u32,
    delay_max: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
enum Key {
    Pair(String, Network),
    Address(Network),
    Network(Network),
    Probes(Network),
}

struct Count {
    wrong: u32,
    /// Guesses that are being computed.
    in_flight: u32,
    last: Instant,
}

/// Counts guesses; clones share them.
#[derive(Clone, Default)]
pub struct Throttle {
    table: Arc<Mutex<Table>>,
}

#[derive(Default)]
struct Table {
    counts: HashMap<Key, Count>,
    known: HashMap<(String, Network), Instant>,
    /// What the other nodes have not heard of.
    wrong_news: HashMap<Key, u32>,
    right_news: HashSet<(String, Network)>,
}

/// The place of a guess. Dropped without an outcome, it was none.
pub struct Guess {
    throttle: Throttle,
    account: String,
    network: Network,
    keys: Vec<Key>,
}

impl Throttle {
    /// A place for a guess at an account, if one may be made now.
    pub fn reserve(&self, account: &str, network: Network) -> Option<Guess> {
        self.reserve_at(account, network, Instant::now())
    }

    fn reserve_at(&self, account: &str, network: Network, now: Instant) -> Option<Guess> {
        let mut table = self.table();
        let mut keys = vec![Key::Pair(account.to_owned(), network)];
        let known = table.known.get(&(account.to_owned(), network));
        // What others at the same address or in the same network guess does not concern whoever has logged in there.
        if known.is_none_or(|since| now.saturating_duration_since(*since) >= KNOWN_FOR) {
            keys.extend([Key::Address(network), Key::Network(network.wide())]);
        }
        if !keys.iter().all(|key| table.may_guess(key, now)) {
            return None;
        }
        for key in &keys {
            table.count(key.clone(), now).in_flight += 1;
        }
        Some(Guess { throttle: self.clone(), account: account.to_owned(), network, keys })
    }

    /// How long the answer waits that a recipient is nobody here.
    pub fn unknown_recipient(&self, network: Network) -> Duration {
        let mut table = self.table();
        let count = table.count(Key::Probes(network), Instant::now());
        count.wrong = count.wrong.saturating_add(1);
        count.last = Instant::now();
        doubled(PROBE_DELAY, count.wrong.saturating_sub(PROBES_FREE), PROBE_DELAY_MAX)
    }

    /// What was guessed here since the last call, for the other nodes; None if nothing was.
    pub fn news(&self) -> Option<GuessNews> {
        let mut table = self.table();
        let wrong: Vec<_> = std::mem::take(&mut table.wrong_news).into_iter().collect();
        let right: Vec<_> = std::mem::take(&mut table.right_news).into_iter().collect();
        (!wrong.is_empty() || !right.is_empty()).then_some(GuessNews { wrong, right })
    }

    /// Another node tells what was guessed there.
    pub fn hears(&self, news: GuessNews) {
        let now = Instant::now();
        let mut table = self.table();
        let fits = |name: &str| name.len() <= TOLD_NAME_MAX_BYTES;
        for (key, wrong) in news.wrong.into_iter().take(TOLD_MAX) {
            match &key {
                Key::Pair(name, _) if !fits(name) => continue,
                Key::Pair(..) | Key::Address(_) | Key::Network(_) | Key::Probes(_) => {}
            }
            let count = table.count(key, now);
            count.wrong = count.wrong.saturating_add(wrong.min(TOLD_WRONG_MAX));
            count.last = now;
        }
        for (account, network) in news.right.into_iter().take(TOLD_MAX).filter(|(name, _)| fits(name)) {
            table.is_right(account, network, now);
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guess {
    /// It was right: this address is known from now on.
    pub fn right(self) {
        let mut table = self.throttle.table();
        let known = (self.account.clone(), self.network);
        if table.right_news.len() < TOLD_MAX {
            table.right_news.insert(known.clone());
        }
        table.is_right(known.0, known.1, Instant::now());
    }

    /// It was wrong.
    pub fn wrong(self) {
        self.wrong_at(Instant::now());
    }

    fn wrong_at(self, now: Instant) {
        let mut table = self.throttle.table();
        for key in &self.keys {
            let count = table.count(key.clone(), now);
            count.wrong = count.wrong.saturating_add(1);
            count.last = now;
            if table.wrong_news.len() < TOLD_MAX || table.wrong_news.contains_key(key) {
                *table.wrong_news.entry(key.clone()).or_default() += 1;
            }
        }
    }
}

impl Drop for Guess {
    fn drop(&mut self) {
        let mut table = self.throttle.table();
        for key in &self.keys {
            if let Some(count) = table.counts.get_mut(key) {
                count.in_flight = count.in_flight.saturating_sub(1);
            }
        }
    }
}

impl Table {
    /// The account was logged in to from there.
    fn is_right(&mut self, account: String, network: Network, now: Instant) {
        if self.known.len() >= KNOWN_MAX {
            self.known.retain(|_, since| now.saturating_duration_since(*since) < KNOWN_FOR);
            if self.known.len() >= KNOWN_MAX {
                self.known.clear();
            }
        }
        if let Some(count) = self.counts.get_mut(&Key::Pair(account.clone(), network)) {
            count.wrong = 0;
        }
        self.known.insert((account, network), now);
    }

    fn may_guess(&self, key: &Key, now: Instant) -> bool {
        let Some(count) = self.counts.get(key).filter(|count| !count.is_forgotten(now)) else { return true };
        let rule = match key {
            Key::Pair(..) => PAIR,
            Key::Address(_) => ADDRESS,
            Key::Network(_) | Key::Probes(_) => NETWORK,
        };
        let delay = doubled(Duration::from_secs(1), (count.wrong + 1).saturating_sub(rule.free), rule.delay_max);
        count.wrong + count.in_flight < rule.free || (count.in_flight == 0 && now >= count.last + delay)
    }

    fn count(&mut self, key: Key, now: Instant) -> &mut Count {
        if self.counts.len() >= COUNTS_MAX && !self.counts.contains_key(&key) {
            self.counts.retain(|_, count| !count.is_forgotten(now));
            // The ones that matter least go: those with the fewest wrong guesses.
            let mut least = 1;
            while self.counts.len() >= COUNTS_MAX {
                self.counts.retain(|_, count| count.in_flight > 0 || count.wrong > least);
                if least > PAIR.free {
                    break;
                }
                least += 1;
            }
        }
        let count = self.counts.entry(key).or_insert(Count { wrong: 0, in_flight: 0, last: now });
        if count.is_forgotten(now) {
            count.wrong = 0;
        }
        count
    }
}

impl Count {
    fn is_forgotten(&self, now: Instant) -> bool {
        self.in_flight == 0 && now.saturating_duration_since(self.last) >= FORGOTTEN_AFTER
    }
}

/// Nothing at 0 times, then twice as long each time.
fn doubled(first: Duration, times: u32, max: Duration) -> Duration {
    match times.checked_sub(1) {
        None => Duration::ZERO,
        Some(more) => first.saturating_mul(1 << more.min(20)).min(max),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn network(last: u8) -> Network {
        Network::of([192, 0, 2, last].into())
    }

    #[test]
    fn a_thousand_guesses_at_once_are_as_many_as_one_after_the_other() {
        let throttle = Throttle::default();
        let at_once: Vec<Guess> = (0..1_000).filter_map(|_| throttle.reserve("a@b", network(1))).collect();
        assert_eq!(at_once.len(), PAIR.free as usize);
        at_once.into_iter().for_each(Guess::wrong);
        assert!(throttle.reserve("a@b", network(1)).is_none());
        // What came to nothing counts for nothing.
        let other = Throttle::default();
        for _ in 0..100 {
            drop(other.reserve("a@b", network(1)).unwrap());
        }
    }

    #[test]
    fn who_goes_from_node_to_node_has_as_many_guesses_as_who_stays() {
        let (one, other) = (Throttle::default(), Throttle::default());
        for _ in 0..PAIR.free {
            one.reserve("a@b", network(1)).unwrap().wrong();
        }
        other.hears(one.news().unwrap());
        assert_eq!(one.news(), None, "told once");
        assert!(other.reserve("a@b", network(1)).is_none());
        assert_eq!(other.news(), None, "what was heard is not told again");
        assert!(other.reserve("a@b", network(2)).is_some());
        // Who has logged in at one node is known at the other, whatever strangers guess.
        one.reserve("c@d", network(1)).unwrap().right();
        other.hears(one.news().unwrap());
        for n in 0..100 {
            let _ = other.reserve(&format!("u{n}"), network(1)).map(Guess::wrong);
        }
        assert!(other.reserve("e@f", network(1)).is_none());
        other.reserve("c@d", network(1)).unwrap().right();
    }

    #[test]
    fn what_a_node_tells_and_hears_is_bounded() {
        let throttle = Throttle::default();
        for n in 0..2 * TOLD_MAX as u32 {
            let from = Network::of(std::net::IpAddr::from((n << 8).to_be_bytes()));
            throttle.reserve("a@b", from).unwrap().wrong();
        }
        let news = throttle.news().unwrap();
        assert_eq!(news.wrong.len(), TOLD_MAX);
        let other = Throttle::default();
        let long = "x".repeat(TOLD_NAME_MAX_BYTES + 1);
        let many = (0..2 * TOLD_MAX as u32).map(|n| (Key::Pair(format!("u{n}"), network(1)), u32::MAX));
        let wrong = std::iter::once((Key::Pair(long.clone(), network(1)), 1)).chain(many).collect();
        other.hears(GuessNews { wrong, right: vec![(long, network(1))] });
        let table = other.table();
        assert_eq!((table.counts.len(), table.known.len()), (TOLD_MAX - 1, 0));
        assert!(table.counts.values().all(|count| count.wrong == TOLD_WRONG_MAX));
    }

    #[test]
    fn delays_grow_to_their_bound_and_the_next_guess_is_one() {
        let throttle = Throttle::default();
        let mut now = Instant::now();
        let mut guesses = 0;
        for _ in 0..600 {
            now += Duration::from_secs(1);
            while let Some(guess) = throttle.reserve_at("a@b", network(1), now) {
                guess.wrong_at(now);
                guesses += 1;
            }
        }
        // 5 at once; then after 2, 4, 8, 16, 32 s and each minute, as long as the address's own delays allow it.
        assert!((10..=20).contains(&guesses), "{guesses}");
        now += FORGOTTEN_AFTER;
        assert!(throttle.reserve_at("a@b", network(1), now).is_some());
    }

    #[test]
    fn strangers_lock_out_nobody_who_has_logged_in_from_there_before() {
        let throttle = Throttle::default();
        throttle.reserve("alice@b", network(1)).unwrap().right();
        // From elsewhere at her account, and from her own address at all others.
        for n in 0..200 {
            let _ = throttle.reserve("alice@b", network(2)).map(Guess::wrong);
            let _ = throttle.reserve(&format!("user{n}@b"), network(1)).map(Guess::wrong);
        }
        assert!(throttle.reserve("bob@b", network(1)).is_none(), "the address has to wait");
        assert!(throttle.reserve("alice@b", network(2)).is_none(), "so has the stranger");
        throttle.reserve("alice@b", network(1)).unwrap().right();
    }

    #[test]
    fn many_addresses_of_one_network_are_one_guesser() {
        let throttle = Throttle::default();
        let guesses = (0..250).filter(|n| throttle.reserve(&format!("u{n}"), network(*n)).map(Guess::wrong).is_some());
        assert_eq!(guesses.count(), NETWORK.free as usize);
        assert!(throttle.reserve("u", Network::of([198, 51, 100, 1].into())).is_some());
    }

    #[test]
    fn counts_are_bounded_and_those_of_who_guessed_most_stay() {
        let throttle = Throttle::default();
        // At one moment, however long a busy machine takes for it.
        let now = Instant::now();
        for _ in 0..PAIR.free {
            throttle.reserve_at("a@b", network(1), now).unwrap().wrong_at(now);
        }
        for n in 0..COUNTS_MAX as u32 {
            let other = Network::of(std::net::IpAddr::from(n.to_be_bytes()));
            drop(throttle.reserve_at("x", other, now));
        }
        assert!(throttle.table().counts.len() <= COUNTS_MAX);
        assert!(throttle.reserve_at("a@b", network(1), now).is_none());
    }

    #[test]
    fn who_asks_for_recipients_that_are_not_there_waits_longer_and_longer() {
        let throttle = Throttle::default();
        let delays: Vec<Duration> = (0..20).map(|_| throttle.unknown_recipient(network(1))).collect();
        assert!(delays[..PROBES_FREE as usize].iter().all(Duration::is_zero));
        assert_eq!((delays[10], delays[11]), (PROBE_DELAY, 2 * PROBE_DELAY));
        assert_eq!(delays[19], PROBE_DELAY_MAX);
        assert!(throttle.unknown_recipient(network(2)).is_zero());
    }
}
