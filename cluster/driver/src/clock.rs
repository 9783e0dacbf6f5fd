//! The two clocks that the core is told of.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mailraft_cluster::ClusterTime;
use mailraft_storage::{Env, UnixMillis};
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

/// Time since the machine booted, running on through suspend.
pub(crate) fn boot() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The wall clock, which may jump.
pub(crate) fn wall() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The present, with randomness from the operating system.
pub(crate) fn env() -> Result<Env, getrandom::Error> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)?;
    Ok(Env { now: boot(), wall: wall(), rng: ChaCha20Rng::from_seed(seed) })
}

/// The cluster's time, as the core knew it at its last tick.
#[derive(Clone, Debug)]
pub(crate) struct SharedTime(Arc<AtomicI64>);

impl SharedTime {
    /// This machine's own time, until the core has heard others.
    pub(crate) fn new() -> Self {
        let bits = AtomicI64::new(0);
        let time = SharedTime(Arc::new(bits));
        time.set(ClusterTime::of(boot(), wall(), 0));
        time
    }

    /// To be told after every tick.
    pub(crate) fn set(&self, time: ClusterTime) {
        self.0.store(time.to_bits(), Ordering::Relaxed);
    }

    /// The core says that this machine's clock is that far behind the cluster's time.
    pub(crate) fn report(ahead_ms: i64) {
        ::metrics::gauge!(crate::metrics::CLOCK_OFF).set(-ahead_ms as f64 / 1e3);
        if ahead_ms != 0 {
            tracing::warn!(
                ahead_ms,
                "this machine's clock is not that of the others: set it right. Until then what they agree on counts"
            );
        }
    }

    /// The cluster's time now.
    pub(crate) fn wall(&self) -> UnixMillis {
        ClusterTime::from_bits(self.0.load(Ordering::Relaxed)).wall(boot())
    }
}

/// When the next tick is due: one period after the last, but never two for one period.
#[derive(Debug)]
pub(crate) struct Ticks {
    period: Duration,
    due: Duration,
}

impl Ticks {
    pub(crate) fn new(period: Duration, now: Duration) -> Self {
        Ticks { period, due: now + period }
    }

    /// How long to wait for the next tick.
    pub(crate) fn wait(&self, now: Duration) -> Duration {
        self.due.saturating_sub(now)
    }

    /// Whether a tick is due now, and how many whole periods were missed before it.
    pub(crate) fn take(&mut self, now: Duration) -> Option<u64> {
        if now < self.due {
            return None;
        }
        let late = now - self.due;
        let missed = late.as_nanos() / self.period.as_nanos().max(1);
        // After a stall the periods start anew: catching up would run timeouts down in no time at all.
        self.due = if missed > 0 { now + self.period } else { self.due + self.period };
        Some(u64::try_from(missed).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_stall_there_is_one_tick_and_then_a_whole_period() {
        let ms = Duration::from_millis;
        let mut ticks = Ticks::new(ms(25), ms(0));
        assert_eq!(ticks.take(ms(24)), None);
        assert_eq!(ticks.take(ms(26)), Some(0));
        assert_eq!(ticks.wait(ms(26)), ms(24), "a late tick does not shift the next");
        assert_eq!(ticks.take(ms(50)), Some(0));
        assert_eq!(ticks.take(ms(1_000)), Some(37));
        assert_eq!(ticks.take(ms(1_001)), None);
        assert_eq!(ticks.take(ms(1_025)), Some(0));
    }

    #[test]
    fn the_boot_clock_moves_forward() {
        let first = boot();
        assert!(first > Duration::ZERO && boot() >= first);
        assert!(wall() > UnixMillis(1_600_000_000_000));
    }
}
