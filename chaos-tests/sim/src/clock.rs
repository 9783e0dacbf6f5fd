//! A node's clocks: they run fast or slow, and the wall clock jumps.

use std::time::Duration;

use mailraft_checkers::Micros;
use mailraft_storage::UnixMillis;

/// The wall clock at the start of every run: 2026-01-01.
const START_UNIX_MS: i64 = 1_767_225_600_000;

/// The clocks of one node, as functions of the world's time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// At this time of the world ...
    since: Micros,
    /// ... the node's clock showed this, in microseconds.
    shown: u64,
    /// How much faster it runs than the world, in millionths.
    drift_ppm: i64,
    /// What the wall clock showed at the start of the run, less the boot clock, in milliseconds.
    wall_base_ms: i64,
    /// How far the wall clock is off, in milliseconds.
    wall_off_ms: i64,
    /// What the wall clock shows while it stands still.
    stands_at: Option<UnixMillis>,
}

impl Clock {
    /// A clock that was started so many microseconds before the run, and whose wall clock is ahead by as many of them as are
    /// not more than `ahead_max`.
    pub fn new(shown: u64, ahead_max: Micros) -> Self {
        let wall_base_ms = START_UNIX_MS - shown.saturating_sub(ahead_max) as i64 / 1_000;
        Clock { since: 0, shown, wall_base_ms, drift_ppm: 0, wall_off_ms: 0, stands_at: None }
    }

    /// Time since the node's boot.
    pub fn monotonic(&self, now: Micros) -> Duration {
        Duration::from_micros(self.shown + self.run(now))
    }

    /// The wall clock.
    pub fn wall(&self, now: Micros) -> UnixMillis {
        if let Some(stands_at) = self.stands_at {
            return stands_at;
        }
        let ms = self.wall_base_ms + (self.shown as i64 + self.run(now) as i64) / 1_000 + self.wall_off_ms;
        UnixMillis(ms.max(0) as u64)
    }

    /// How long the node's `micros` take in the world.
    pub fn in_world(&self, micros: u64) -> Micros {
        if self.drift_ppm == 0 {
            return micros;
        }
        (micros as i128 * 1_000_000 / i128::from(1_000_000 + self.drift_ppm)) as u64
    }

    /// From now on it runs so much faster.
    pub fn set_drift(&mut self, now: Micros, ppm: i64) {
        self.shown += self.run(now);
        self.since = now;
        self.drift_ppm = ppm;
    }

    /// The wall clock jumps.
    pub fn jump_wall(&mut self, ms: i64) {
        self.wall_off_ms += ms;
    }

    /// The wall clock stands still from now on.
    pub fn stop_wall(&mut self, now: Micros) {
        self.stands_at = Some(self.wall(now));
    }

    /// The wall clock is right again.
    pub fn set_wall_right(&mut self) {
        self.stands_at = None;
        self.wall_off_ms = 0;
    }

    fn run(&self, now: Micros) -> u64 {
        let world = now.saturating_sub(self.since);
        if self.drift_ppm == 0 {
            return world;
        }
        (i128::from(world) * i128::from(1_000_000 + self.drift_ppm) / 1_000_000) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fast_clock_gains_and_never_goes_back() {
        let mut clock = Clock::new(0, 0);
        clock.set_drift(0, 100_000);
        assert_eq!(clock.monotonic(10_000_000), Duration::from_secs(11));
        assert_eq!(clock.in_world(11_000_000), 10_000_000);
        clock.set_drift(10_000_000, -100_000);
        assert_eq!(clock.monotonic(20_000_000), Duration::from_secs(20));
        clock.jump_wall(-5_000);
        assert_eq!(clock.wall(20_000_000).0 as i64, START_UNIX_MS + 15_000);
    }

    #[test]
    fn a_wall_clock_stands_still_while_time_goes_on() {
        let mut clock = Clock::new(0, 0);
        clock.stop_wall(3_000_000);
        assert_eq!(clock.wall(9_000_000).0 as i64, START_UNIX_MS + 3_000);
        assert_eq!(clock.monotonic(9_000_000), Duration::from_secs(9));
        clock.set_wall_right();
        assert_eq!(clock.wall(9_000_000).0 as i64, START_UNIX_MS + 9_000);
    }
}
