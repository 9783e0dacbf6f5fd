//! The only source of chance in a run.

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A stream of random numbers. Streams of one seed are independent of each other.
pub struct Dice(ChaCha8Rng);

impl Dice {
    /// Stream `stream` of a run's seed.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Dice(rng)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `sides`; 0 if there are none.
    pub fn below(&mut self, sides: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(sides)) >> 64) as u64
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// True so many times of a thousand.
    pub fn chance(&mut self, permille: u64) -> bool {
        self.below(1_000) < permille
    }

    /// One of these; None of none.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len() as u64) as usize)
    }

    /// Exponentially distributed around a mean, at most 20 times it.
    pub fn exponential(&mut self, mean: u64) -> u64 {
        // 53 bits make every fraction of a double; never 0.
        let fraction = ((self.bits() >> 11) + 1) as f64 / (1u64 << 53) as f64;
        ((-fraction.ln() * mean as f64) as u64).min(20 * mean)
    }
}
