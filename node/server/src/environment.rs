//! Where time and randomness come from in production.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mailraft_driver::Cluster;
use mailraft_mailbox::api::ZonedTime;
use mailraft_storage::{CommandId, Env, UnixMillis};
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

/// An environment of this moment, seeded by the operating system.
///
/// # Panics
/// If the operating system has no randomness: nothing may be encrypted then.
pub fn os_env() -> Env {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).expect("the operating system gives random bytes");
    Env { now: since_boot(), wall: wall(), rng: ChaCha20Rng::from_seed(seed) }
}

static STARTED: OnceLock<Instant> = OnceLock::new();

/// The node begins to run: [`uptime`] counts from here.
pub fn started() {
    STARTED.get_or_init(Instant::now);
}

/// How long the node has been running.
pub fn uptime() -> Duration {
    STARTED.get().map_or(Duration::ZERO, Instant::elapsed)
}

/// Brings an environment's clocks to this moment; the wall clock is the time that the nodes agree on.
pub fn refresh(env: &mut Env, cluster: &Cluster) {
    env.now = since_boot();
    env.wall = cluster.wall();
}

/// A new command id, of the time that the nodes agree on.
pub fn command_id(cluster: &Cluster) -> CommandId {
    let mut env = os_env();
    env.wall = cluster.wall();
    env.command_id()
}

/// The wall clock.
pub fn wall() -> UnixMillis {
    UnixMillis(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64))
}

/// The wall clock as a date-time in UTC.
pub fn zoned_now() -> ZonedTime {
    ZonedTime { unix_seconds: (wall().0 / 1_000) as i64, zone_minutes: 0 }
}

/// Time since the machine booted: it runs on through a suspend, and nobody sets it.
pub fn since_boot() -> Duration {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(t.tv_sec.max(0) as u64, t.tv_nsec.clamp(0, 999_999_999) as u32)
}
