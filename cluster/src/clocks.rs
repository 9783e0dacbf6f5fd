//! The cluster's time: what a node's wall clock shows, but never far from the median of all nodes' clocks. Whatever
//! is kept for a time is kept by it, so that one clock that is wrong by days shortens nothing.
//!
//! The median is that of *all* nodes of the cluster, and a node that started lately has heard of few of them. So it asks
//! between which bounds the median lies whatever those show that it has not heard of: of `n` clocks, `unheard` of them
//! unknown, the lower median is the `(n - 1) / 2`-th of all, counted from 0, hence no later than the `(n - 1) / 2`-th and
//! no earlier than the `(n - 1) / 2 - unheard`-th of those that are known. Three rules follow:
//!
//! 1. Where the bounds are no more than a second apart the median is *certain*, and our own clock counts if it is within a
//!    second of both, else the nearest time that is. As long as fewer than half of all clocks are wrong, the median has a
//!    right clock on either side of it, or is one.
//! 2. Where it is not, but was since the start, the cluster's time goes on by the boot clock, from what it was when it was
//!    certain last, and only the bounds themselves may push it. So a minority of clocks that jump, our own among them,
//!    are believed no more for being half of those that a node happens to know.
//! 3. Before it was ever certain a guess has to do. Once a majority of all nodes were heard it is the median of these,
//!    which of two clocks is the earlier one. With fewer it is the earliest of what is known, our own clock as it was at
//!    the start among them, as by that nothing is forgotten too early. In either case it is no earlier than the newest
//!    stamp that was applied here, as far as a median of all may be as late as that: what is stored by a time long past is
//!    forgotten when the right one is heard. One wrong clock does no harm so: it makes the guess no later than the truth,
//!    nor earlier than what happened last.
//!
//! By a guess nobody is to decide anything: a node that leads within a moment after its start has no owners before its
//! clocks are *settled*. They are once the median was certain, or some time after another node was heard first. Whoever
//! runs hears all others that it can hear once a second (the running hashes), so nothing is waited for after that.

use std::collections::BTreeMap;
use std::time::Duration;

use mailraft_storage::{Env, NodeId, UnixMillis};

/// The cluster's time is at most this far from the median of the nodes' clocks, in milliseconds, and so far apart may its
/// bounds be.
const OFF_MEDIAN_MAX_MS: i64 = 1_000;
/// So long after another node was heard first all were that can be heard, in milliseconds.
const SETTLED_AFTER_MS: u64 = 1_200;
/// How much the wall clock may gain on the boot clock between two looks before it counts as a jump, in milliseconds.
const JUMP_MIN_MS: i64 = 500;
/// A change of the correction smaller than this is not told, in milliseconds.
const TOLD_FROM_MS: i64 = 100;

/// What a node knows of the others' clocks.
#[derive(Default)]
pub struct Clocks {
    /// How far the clock of each other node is ahead of ours, in milliseconds; None for one that was not heard since the
    /// start.
    others: BTreeMap<NodeId, Option<i64>>,
    /// How far the cluster's time is ahead of our wall clock, in milliseconds.
    correction: i64,
    known: Known,
    /// The cluster's time as it was at the last look, going on by the boot clock.
    goes_on: Option<ClusterTime>,
    /// Our own wall clock as it was at the start, going on by the boot clock.
    started: Option<ClusterTime>,
    /// The newest stamp that was applied here, going on by the boot clock.
    stamped: Option<ClusterTime>,
    /// Our clocks at the last look.
    seen: Option<(Duration, UnixMillis)>,
    /// When another node was heard first, by the boot clock.
    first_heard: Option<Duration>,
    told: i64,
}

/// How well the median of all clocks is known.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Known {
    /// It never was since the start.
    #[default]
    NotYet,
    /// Whatever the other clocks show that were not heard of.
    Certain,
    /// It was certain before.
    NoMore,
}

impl Clocks {
    /// Looks at our own clocks: if the wall clock jumped, what is known of the others is as far off.
    pub fn look(&mut self, env: &Env) {
        let Some((now, wall)) = self.seen.replace((env.now, env.wall)) else {
            self.goes_on = Some(ClusterTime::of(env.now, env.wall, 0));
            self.started = self.goes_on;
            return;
        };
        self.goes_on = Some(ClusterTime::of(now, wall, self.correction));
        let passed = passed(env.now.saturating_sub(now));
        let jump = millis(env.wall).saturating_sub(millis(wall)).saturating_sub(passed);
        if jump.abs() >= JUMP_MIN_MS {
            self.others.values_mut().flatten().for_each(|ahead| *ahead = ahead.saturating_sub(jump));
            self.correct(env);
        } else if self.known != Known::Certain {
            // Our wall clock may be slowed down or stand still, and no more be heard to.
            self.correction = self.without_our_clock(env);
        }
    }

    /// These are the nodes of the cluster beside this one.
    pub fn others_are(&mut self, env: &Env, nodes: impl Iterator<Item = NodeId>) {
        let others: BTreeMap<NodeId, Option<i64>> =
            nodes.map(|node| (node, self.others.get(&node).copied().flatten())).collect();
        if others != self.others || others.is_empty() {
            self.others = others;
            self.correct(env);
        }
    }

    /// A node says what its wall clock shows.
    pub fn heard(&mut self, env: &Env, node: NodeId, wall: UnixMillis) {
        self.first_heard.get_or_insert(env.now);
        let ahead = millis(wall).saturating_sub(millis(env.wall));
        if let Some(known) = self.others.get_mut(&node)
            && known.replace(ahead) != Some(ahead)
        {
            self.correct(env);
        }
    }

    /// An entry with this stamp is applied here: it is no earlier than that.
    pub fn stamped(&mut self, env: &Env, stamp: UnixMillis) {
        if self.known != Known::NotYet {
            return;
        }
        let time = ClusterTime::of(env.now, stamp, 0);
        if self.stamped.is_none_or(|known| known.ahead_of_boot_ms < time.ahead_of_boot_ms) {
            self.stamped = Some(time);
            self.correct(env);
        }
    }

    /// Whether the cluster's time is more than a guess, or as good a guess as can be had. Once so, always.
    pub fn are_settled(&self, env: &Env) -> bool {
        let heard_for = self.first_heard.map(|first| env.now.saturating_sub(first));
        self.known != Known::NotYet || heard_for.is_some_and(|d| d >= Duration::from_millis(SETTLED_AFTER_MS))
    }

    /// The cluster's time.
    pub fn wall(&self, env: &Env) -> UnixMillis {
        UnixMillis(env.wall.0.saturating_add_signed(self.correction))
    }

    /// How far the cluster's time is ahead of our wall clock, in milliseconds, if that has changed.
    pub fn news(&mut self) -> Option<i64> {
        let correction = self.correction;
        let changed = (correction - self.told).abs() >= TOLD_FROM_MS || (correction == 0 && self.told != 0);
        changed.then(|| {
            self.told = correction;
            correction
        })
    }

    /// How far the cluster's time would be ahead of our wall clock had nobody's clock shown anything since the last look.
    fn without_our_clock(&self, env: &Env) -> i64 {
        let went_on = self.goes_on.map_or(env.wall, |time| time.wall(env.now));
        millis(went_on).saturating_sub(millis(env.wall))
    }

    fn correct(&mut self, env: &Env) {
        let mut ahead: Vec<i64> = self.others.values().flatten().copied().chain([0]).collect();
        ahead.sort_unstable();
        let all = self.others.len() + 1;
        let (median, unheard) = ((all - 1) / 2, all - ahead.len());
        let low = median.checked_sub(unheard).and_then(|at| ahead.get(at).copied());
        let high = ahead.get(median).copied();
        let within = |time: i64, low: Option<i64>, high: Option<i64>| {
            let from = low.map_or(i64::MIN, |low| low.saturating_sub(OFF_MEDIAN_MAX_MS));
            let to = high.map_or(i64::MAX, |high| high.saturating_add(OFF_MEDIAN_MAX_MS));
            time.clamp(from, to)
        };
        let certain = low.zip(high).is_some_and(|(low, high)| high.saturating_sub(low) <= OFF_MEDIAN_MAX_MS);
        self.known = match self.known {
            _ if certain => Known::Certain,
            Known::NotYet => Known::NotYet,
            Known::Certain | Known::NoMore => Known::NoMore,
        };
        let went_on = self.without_our_clock(env);
        let ahead_of = |time: ClusterTime| millis(time.wall(env.now)).saturating_sub(millis(env.wall));
        let stamped = self.stamped.map_or(i64::MIN, ahead_of);
        self.correction = match self.known {
            Known::Certain => within(0, high, low),
            Known::NoMore => within(went_on, low, high),
            Known::NotYet if unheard <= median => {
                let middle = Some(ahead[(ahead.len() - 1) / 2]);
                within(within(went_on, middle, middle).max(stamped), low, high)
            }
            Known::NotYet => {
                let started = self.started.map_or(0, ahead_of);
                let others = self.others.values().flatten().copied();
                let earliest = others.fold(started, i64::min);
                earliest.max(stamped)
            }
        };
    }
}

/// The cluster's time for those beside the core, from one tick of it to the next: it goes on by the boot clock, so that
/// nobody believes a wall clock that jumps before the core has looked at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterTime {
    /// By how much it is ahead of the boot clock, in milliseconds.
    ahead_of_boot_ms: i64,
}

impl ClusterTime {
    /// At a tick, or at the start: the boot clock and the wall clock of one moment, and how far the cluster's time is ahead of the wall clock
    /// ([`Output::Time`](crate::Output::Time)), in milliseconds.
    pub fn of(now: Duration, wall: UnixMillis, ahead_ms: i64) -> Self {
        ClusterTime { ahead_of_boot_ms: millis(wall).saturating_add(ahead_ms).saturating_sub(passed(now)) }
    }

    /// The cluster's time when the boot clock shows `now`.
    pub fn wall(self, now: Duration) -> UnixMillis {
        UnixMillis(u64::try_from(self.ahead_of_boot_ms.saturating_add(passed(now))).unwrap_or(0))
    }

    /// As a number that fits an atomic.
    pub fn to_bits(self) -> i64 {
        self.ahead_of_boot_ms
    }

    /// From [`ClusterTime::to_bits`].
    pub fn from_bits(bits: i64) -> Self {
        ClusterTime { ahead_of_boot_ms: bits }
    }
}

fn passed(since_boot: Duration) -> i64 {
    i64::try_from(since_boot.as_millis()).unwrap_or(i64::MAX)
}

fn millis(time: UnixMillis) -> i64 {
    i64::try_from(time.0).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const DAY_MS: u64 = 24 * 3_600_000;
    const OFF_MAX_MS: u64 = OFF_MEDIAN_MAX_MS as u64;

    fn at(seconds: u64, wall: u64) -> Env {
        let mut env = Env::seeded(1);
        (env.now, env.wall) = (Duration::from_secs(seconds), UnixMillis(wall));
        env
    }

    /// Node 1 of so many, right after its start.
    fn first_of(nodes: u64, env: &Env) -> Clocks {
        let mut clocks = Clocks::default();
        clocks.look(env);
        clocks.others_are(env, (2..=nodes).map(NodeId));
        clocks
    }

    fn hears(clocks: &mut Clocks, env: &Env, walls: &[(u64, u64)]) {
        for (node, wall) in walls {
            clocks.heard(env, NodeId(*node), UnixMillis(*wall));
        }
    }

    #[test]
    fn one_clock_that_is_wrong_by_days_moves_nothing() {
        let env = at(10, 10 * DAY_MS);
        let mut clocks = first_of(3, &env);
        assert_eq!(clocks.wall(&env), env.wall, "with nobody heard our own clock counts");
        hears(&mut clocks, &env, &[(2, 10 * DAY_MS + 40), (3, 12 * DAY_MS)]);
        assert_eq!((clocks.wall(&env), clocks.news()), (env.wall, None));
        // Ours is the wrong one: a day behind, then a day ahead.
        for wrong in [9 * DAY_MS, 11 * DAY_MS] {
            let env = at(10, wrong);
            let mut clocks = first_of(3, &env);
            hears(&mut clocks, &env, &[(2, 10 * DAY_MS), (3, 10 * DAY_MS)]);
            assert!(clocks.wall(&env).0.abs_diff(10 * DAY_MS) <= OFF_MAX_MS);
            assert!(clocks.news().is_some() && clocks.news().is_none(), "it is told once");
        }
    }

    /// What happened in the simulator: of five nodes one is down since this one started, two clocks jump by most of a
    /// day, and this node's is one of them.
    #[test]
    fn half_of_the_clocks_heard_since_the_start_are_not_half_of_all() {
        for (theirs, ours) in [(19, 21), (21, 19)] {
            for ahead in [true, false] {
                let hours = |hours: u64, right: u64| match ahead {
                    true => right + hours * 3_600_000,
                    false => right - hours * 3_600_000,
                };
                let right = 10 * DAY_MS;
                let env = at(10, right);
                let mut clocks = first_of(5, &env);
                hears(&mut clocks, &env, &[(2, right), (3, right), (4, right)]);
                let env = at(11, right + 1_000);
                clocks.look(&env);
                hears(&mut clocks, &env, &[(4, hours(theirs, right + 1_000))]);
                assert_eq!(clocks.wall(&env).0, right + 1_000);
                // Ours jumps: two and two, and nobody knows what the fifth shows.
                let env = at(12, hours(ours, right + 2_000));
                clocks.look(&env);
                assert_eq!(clocks.wall(&env).0, right + 2_000, "time goes on as it was");
                let env = at(3_612, hours(ours, right + 3_602_000));
                clocks.look(&env);
                let their = hours(theirs, right + 3_602_000);
                hears(&mut clocks, &env, &[(2, right + 3_602_000), (3, right + 3_602_000), (4, their)]);
                assert_eq!(clocks.wall(&env).0, right + 3_602_000, "an hour later too");
                // The fifth is back, and is right.
                hears(&mut clocks, &env, &[(5, right + 3_602_000)]);
                assert!(clocks.wall(&env).0.abs_diff(right + 3_602_000) <= OFF_MAX_MS);
            }
        }
    }

    #[test]
    fn until_a_majority_of_all_was_heard_one_wrong_clock_makes_it_no_later_and_no_earlier_than_the_newest_stamp() {
        let (right, stamp) = (10 * DAY_MS, 10 * DAY_MS - 40_000);
        for wrong in [9 * DAY_MS, 11 * DAY_MS] {
            for ours_is_wrong in [true, false] {
                for stamp_first in [true, false] {
                    let (ours, theirs) = if ours_is_wrong { (wrong, right) } else { (right, wrong) };
                    let env = at(10, ours);
                    let mut clocks = first_of(5, &env);
                    if stamp_first {
                        clocks.stamped(&env, UnixMillis(stamp));
                    }
                    hears(&mut clocks, &env, &[(2, theirs)]);
                    clocks.stamped(&env, UnixMillis(stamp));
                    clocks.stamped(&env, UnixMillis(stamp - 50_000));
                    let guess = clocks.wall(&env).0;
                    let expected = if wrong < right { stamp } else { right };
                    assert_eq!(guess, expected, "wrong {wrong}, ours {ours_is_wrong}");
                    // It goes on by the boot clock, whatever ours shows.
                    let env = at(60, 12 * DAY_MS);
                    clocks.look(&env);
                    assert_eq!(clocks.wall(&env).0, expected + 50_000);
                    // A third decides.
                    let mut env = env;
                    env.wall = UnixMillis(ours + 50_000);
                    clocks.look(&env);
                    hears(&mut clocks, &env, &[(2, theirs + 50_000), (3, right + 50_000)]);
                    assert!(clocks.wall(&env).0.abs_diff(right + 50_000) <= OFF_MAX_MS);
                    clocks.stamped(&env, UnixMillis(14 * DAY_MS));
                    let latest = (right.max(wrong) + 50_000).saturating_sub(clocks.wall(&env).0);
                    assert!(latest as i64 >= -OFF_MEDIAN_MAX_MS, "no stamp is believed above all clocks");
                }
            }
        }
    }

    /// What happened in the simulator: of three nodes one is away, and the clock of one of the others, which has applied
    /// what was stored by the right time, jumps by half a day.
    #[test]
    fn a_jump_makes_the_guess_of_two_of_three_no_earlier_than_the_newest_stamp() {
        let right = 10 * DAY_MS;
        for (ours_jumps, hours) in [(true, -12), (true, 12), (false, -12), (false, 12)] {
            let env = at(10, right);
            let mut clocks = first_of(3, &env);
            // Their clocks are far enough apart for the median to be uncertain.
            hears(&mut clocks, &env, &[(2, right + 400_000)]);
            clocks.stamped(&env, UnixMillis(right + 100));
            let jumped = |wall: u64| wall.saturating_add_signed(hours * 3_600_000);
            let env = at(12, if ours_jumps { jumped(right + 2_000) } else { right + 2_000 });
            clocks.look(&env);
            let theirs = right + 402_000;
            hears(&mut clocks, &env, &[(2, if ours_jumps { theirs } else { jumped(theirs) })]);
            let guess = clocks.wall(&env).0;
            assert!(
                (right + 2_000..=theirs + OFF_MAX_MS).contains(&guess),
                "{ours_jumps} {hours}: {}",
                guess as i64 - right as i64
            );
        }
    }

    #[test]
    fn a_jump_of_our_clock_after_the_start_is_none_of_the_time() {
        for jumped in [9 * DAY_MS, 11 * DAY_MS] {
            let env = at(10, 10 * DAY_MS);
            let mut clocks = first_of(5, &env);
            let env = at(11, jumped);
            clocks.look(&env);
            assert_eq!(clocks.wall(&env).0, 10 * DAY_MS + 1_000);
            hears(&mut clocks, &env, &[(2, 10 * DAY_MS + 1_000)]);
            assert_eq!(clocks.wall(&env).0, 10 * DAY_MS + 1_000);
        }
    }

    #[test]
    fn clocks_are_settled_by_certainty_or_a_while_after_somebody_was_heard() {
        let env = at(10, 10 * DAY_MS);
        assert!(first_of(1, &env).are_settled(&env), "there is no other clock");
        let mut clocks = first_of(5, &env);
        let later = at(500, 10 * DAY_MS + 490_000);
        clocks.look(&later);
        assert!(!clocks.are_settled(&later), "nobody was heard, however long that takes");
        hears(&mut clocks, &later, &[(2, 11 * DAY_MS)]);
        assert!(!clocks.are_settled(&later));
        let mut waited = at(501, 10 * DAY_MS + 491_000);
        assert!(!clocks.are_settled(&waited));
        waited.now += Duration::from_millis(200);
        assert!(clocks.are_settled(&waited), "nobody else is to be heard");
        let mut clocks = first_of(5, &env);
        hears(&mut clocks, &env, &[(2, 10 * DAY_MS), (3, 10 * DAY_MS)]);
        assert!(clocks.are_settled(&env), "three of five agree");
    }

    #[test]
    fn a_clock_that_stands_still_is_not_followed_while_the_median_is_uncertain() {
        let env = at(10, 10 * DAY_MS);
        let mut clocks = first_of(3, &env);
        hears(&mut clocks, &env, &[(2, 10 * DAY_MS)]);
        // Certain; then the other one jumps, and the third was never heard.
        hears(&mut clocks, &env, &[(2, 11 * DAY_MS)]);
        let mut env = env;
        for _ in 0..400 {
            env.now += Duration::from_millis(25);
            clocks.look(&env);
        }
        assert_eq!(clocks.wall(&env).0, 10 * DAY_MS + 10_000);
    }

    #[test]
    fn a_majority_of_clocks_is_followed_and_so_is_one_that_replaces_a_node() {
        let env = at(10, 10 * DAY_MS);
        let mut clocks = first_of(3, &env);
        hears(&mut clocks, &env, &[(2, 10 * DAY_MS), (3, 10 * DAY_MS)]);
        hears(&mut clocks, &env, &[(2, 11 * DAY_MS), (3, 11 * DAY_MS)]);
        assert!(clocks.wall(&env).0.abs_diff(11 * DAY_MS) <= OFF_MAX_MS, "two of three agree");
        // Node 3 leaves the cluster, and what its clock showed counts no more. One that is no member counts nothing.
        clocks.others_are(&env, [2, 4].into_iter().map(NodeId));
        hears(&mut clocks, &env, &[(3, 10 * DAY_MS), (4, 10 * DAY_MS)]);
        assert_eq!(clocks.wall(&env), env.wall);
    }

    #[test]
    fn fewer_wrong_clocks_than_half_never_move_what_was_certain() {
        let right = 10 * DAY_MS;
        // Which of the clocks of five nodes, ours first, are wrong, and which of the others are heard once they are.
        for (wrong, heard) in (0..32_u32).flat_map(|wrong| (0..16_u32).map(move |heard| (wrong, heard))) {
            if wrong.count_ones() > 2 {
                continue;
            }
            for hours in [-30_i64, 30] {
                let show = |node: u64| match wrong >> (node - 1) & 1 {
                    1 => right.saturating_add_signed(hours * 3_600_000),
                    _ => right,
                };
                let env = at(10, right);
                let mut clocks = first_of(5, &env);
                hears(&mut clocks, &env, &[(2, right), (3, right)]);
                let env = at(10, show(1));
                clocks.look(&env);
                for node in (2..=5).filter(|node| heard >> (node - 2) & 1 == 1) {
                    hears(&mut clocks, &env, &[(node, show(node))]);
                }
                let off = clocks.wall(&env).0.abs_diff(right);
                assert!(off <= OFF_MAX_MS, "wrong {wrong:05b}, heard {heard:04b}, {hours} h: {off} ms off");
            }
        }
    }

    #[test]
    fn nobody_believes_a_jump_before_the_core_has_looked_at_it() {
        let env = at(10, 10 * DAY_MS);
        let mut clocks = first_of(3, &env);
        hears(&mut clocks, &env, &[(2, env.wall.0), (3, env.wall.0)]);
        let time = ClusterTime::of(env.now, env.wall, 0);
        assert_eq!(ClusterTime::from_bits(time.to_bits()).wall(env.now), env.wall);
        // The wall clock jumps by a day: an owner asks before the next tick, and again after it.
        let before = time.wall(Duration::from_millis(10_020));
        let mut jumped = at(10, 11 * DAY_MS + 25);
        jumped.now += Duration::from_millis(25);
        clocks.look(&jumped);
        let after = ClusterTime::of(jumped.now, jumped.wall, clocks.news().unwrap()).wall(jumped.now);
        assert_eq!(before, UnixMillis(10 * DAY_MS + 20));
        assert!(after.0.abs_diff(10 * DAY_MS + 25) <= OFF_MAX_MS, "{after:?}");
    }

    #[test]
    fn a_jump_of_our_own_clock_is_no_jump_of_the_others() {
        let env = at(10, 10 * DAY_MS);
        let mut clocks = first_of(3, &env);
        hears(&mut clocks, &env, &[(2, env.wall.0), (3, env.wall.0)]);
        // They are silent from here on.
        let env = at(20, 11 * DAY_MS + 10_000);
        clocks.look(&env);
        assert_eq!(clocks.wall(&env).0, 10 * DAY_MS + 10_000 + OFF_MAX_MS);
    }
}
