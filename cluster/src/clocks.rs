//! The cluster's time: what a node's wall clock shows, but never far from the median of all nodes' clocks. Whatever
//! is kept for a time is kept by it, so that one clock that is wrong by days shortens nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use mailraft_storage::{Env, NodeId, UnixMillis};

/// The cluster's time is at most this far from the median of the nodes' clocks, in milliseconds.
const OFF_MEDIAN_MAX_MS: i64 = 1_000;
/// How much the wall clock may gain on the boot clock between two looks before it counts as a jump, in milliseconds.
const JUMP_MIN_MS: i64 = 500;
/// A change of the correction smaller than this is not told, in milliseconds.
const TOLD_FROM_MS: i64 = 100;

/// What a node knows of the others' clocks.
#[derive(Default)]
pub struct Clocks {
    /// How far they are ahead of ours, in milliseconds.
    ahead: BTreeMap<NodeId, i64>,
    /// What follows from that: how far the cluster's time is ahead of our wall clock, in milliseconds.
    correction: i64,
    /// Our clocks at the last look.
    seen: Option<(Duration, UnixMillis)>,
    told: i64,
}

impl Clocks {
    /// Looks at our own clocks: if the wall clock jumped, what is known of the others is as far off.
    pub fn look(&mut self, env: &Env) {
        if let Some((now, wall)) = self.seen.replace((env.now, env.wall)) {
            let passed = passed(env.now.saturating_sub(now));
            let jump = millis(env.wall).saturating_sub(millis(wall)).saturating_sub(passed);
            if jump.abs() >= JUMP_MIN_MS {
                self.ahead.values_mut().for_each(|ahead| *ahead = ahead.saturating_sub(jump));
                self.correct();
            }
        }
    }

    /// A node says what its wall clock shows.
    pub fn heard(&mut self, env: &Env, node: NodeId, wall: UnixMillis) {
        let ahead = millis(wall).saturating_sub(millis(env.wall));
        if self.ahead.insert(node, ahead) != Some(ahead) {
            self.correct();
        }
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

    fn correct(&mut self) {
        let mut ahead: Vec<i64> = self.ahead.values().copied().collect();
        ahead.push(0);
        ahead.sort_unstable();
        let median = ahead[(ahead.len() - 1) / 2];
        // Our own clock where it is near enough, else the nearer end of what is allowed.
        self.correction = 0.clamp(median.saturating_sub(OFF_MEDIAN_MAX_MS), median.saturating_add(OFF_MEDIAN_MAX_MS));
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

    fn at(seconds: u64, wall: u64) -> Env {
        let mut env = Env::seeded(1);
        (env.now, env.wall) = (Duration::from_secs(seconds), UnixMillis(wall));
        env
    }

    #[test]
    fn one_clock_that_is_wrong_by_days_moves_nothing() {
        let mut clocks = Clocks::default();
        let env = at(10, 10 * DAY_MS);
        assert_eq!(clocks.wall(&env), env.wall, "with nobody heard our own clock counts");
        clocks.heard(&env, NodeId(2), UnixMillis(10 * DAY_MS + 40));
        clocks.heard(&env, NodeId(3), UnixMillis(12 * DAY_MS));
        assert_eq!((clocks.wall(&env), clocks.news()), (env.wall, None));
        // Ours is the wrong one: a day behind, then a day ahead.
        for wrong in [9 * DAY_MS, 11 * DAY_MS] {
            let env = at(10, wrong);
            let mut clocks = Clocks::default();
            for node in [2, 3] {
                clocks.heard(&env, NodeId(node), UnixMillis(10 * DAY_MS));
            }
            assert!(clocks.wall(&env).0.abs_diff(10 * DAY_MS) <= OFF_MEDIAN_MAX_MS as u64);
            assert!(clocks.news().is_some() && clocks.news().is_none(), "it is told once");
        }
    }

    #[test]
    fn nobody_believes_a_jump_before_the_core_has_looked_at_it() {
        let mut clocks = Clocks::default();
        let env = at(10, 10 * DAY_MS);
        clocks.look(&env);
        for node in [2, 3] {
            clocks.heard(&env, NodeId(node), env.wall);
        }
        let time = ClusterTime::of(env.now, env.wall, 0);
        assert_eq!(ClusterTime::from_bits(time.to_bits()).wall(env.now), env.wall);
        // The wall clock jumps by a day: an owner asks before the next tick, and again after it.
        let before = time.wall(Duration::from_millis(10_020));
        let mut jumped = at(10, 11 * DAY_MS + 25);
        jumped.now += Duration::from_millis(25);
        clocks.look(&jumped);
        let after = ClusterTime::of(jumped.now, jumped.wall, clocks.news().unwrap()).wall(jumped.now);
        assert_eq!(before, UnixMillis(10 * DAY_MS + 20));
        assert!(after.0.abs_diff(10 * DAY_MS + 25) <= OFF_MEDIAN_MAX_MS as u64, "{after:?}");
    }

    #[test]
    fn a_jump_of_our_own_clock_is_no_jump_of_the_others() {
        let mut clocks = Clocks::default();
        let env = at(10, 10 * DAY_MS);
        clocks.look(&env);
        for node in [2, 3] {
            clocks.heard(&env, NodeId(node), env.wall);
        }
        // They are silent from here on.
        let env = at(20, 11 * DAY_MS + 10_000);
        clocks.look(&env);
        assert_eq!(clocks.wall(&env).0, 10 * DAY_MS + 10_000 + OFF_MEDIAN_MAX_MS as u64);
    }
}
