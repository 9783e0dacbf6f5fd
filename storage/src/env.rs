//! Time and randomness, handed in from outside: a pure crate has no other source of either.

use std::time::Duration;

use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

use crate::ids::{CommandId, UnixMillis};
use crate::plant::{self, Fault};

/// What a pure engine may know of the world at one step.
pub struct Env {
    /// Time since some fixed moment of this boot, running on through suspend.
    pub now: Duration,
    /// The wall clock, which may jump.
    pub wall: UnixMillis,
    /// Seeded from the operating system in production and from the run's seed in a simulation.
    pub rng: ChaCha20Rng,
}

impl Env {
    /// An environment at time zero with this seed, for tests and simulations.
    pub fn seeded(seed: u64) -> Self {
        Env { now: Duration::ZERO, wall: UnixMillis(1_700_000_000_000), rng: ChaCha20Rng::seed_from_u64(seed) }
    }

    /// A new command id.
    pub fn command_id(&mut self) -> CommandId {
        let random = if plant::is(Fault::CommandIdsRepeat) { 0 } else { u128::from_be_bytes(self.bytes()) };
        CommandId::v7(self.wall, random)
    }

    /// A new command id above another, whatever the clock shows.
    pub fn command_id_above(&mut self, floor: CommandId) -> CommandId {
        let time = UnixMillis(self.wall.0.max(floor.time().0.saturating_add(1)));
        let random = if plant::is(Fault::CommandIdsRepeat) { 0 } else { u128::from_be_bytes(self.bytes()) };
        CommandId::v7(time, random)
    }

    /// `N` random bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        use rand::RngCore;
        let mut out = [0; N];
        self.rng.fill_bytes(&mut out);
        out
    }
}
