//! Chance and the time of day, both from the seed.

use std::sync::Mutex;
use std::time::Duration;

use eventbus_core::Env;
use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::time::Instant;

use crate::harness::lock;

/// A generator of one stream of chance. Streams of one seed are independent: the draws of one part do not move another.
#[derive(Debug, Clone)]
pub struct Dice(ChaCha8Rng);

impl Dice {
    /// Stream `stream` of a seed.
    #[must_use]
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        generator.set_stream(stream);
        Self(generator)
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number from `least` to `most`, both included.
    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        self.0.random_range(least..=most.max(least))
    }

    /// An index below `length`, which must not be zero.
    pub fn index(&mut self, length: usize) -> usize {
        self.0.random_range(0..length.max(1))
    }

    /// Whether something of this probability, in percent, happens.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.between(1, 100) <= percent
    }

    /// Draws one of these.
    pub fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.index(of.len())]
    }

    /// A time between two, in milliseconds.
    pub fn millis(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.between(least, most))
    }

    /// A time that is short as a rule and sometimes up to a thousand times as long.
    pub fn skewed(&mut self, most: Duration) -> Duration {
        let shift = self.between(0, 10);
        let most = u64::try_from(most.as_micros()).unwrap_or(u64::MAX) >> shift;
        Duration::from_micros(self.between(0, most))
    }
}

/// The environment of one simulated process: its random numbers, and a wall clock that is off by a constant.
#[derive(Debug)]
pub struct SeededEnv {
    dice: Mutex<Dice>,
    begin: Instant,
    begin_millis: u64,
}

impl SeededEnv {
    /// The environment with this stream of a seed; its clock shows `begin_millis` now.
    #[must_use]
    pub fn new(seed: u64, stream: u64, begin_millis: u64) -> Self {
        Self { dice: Mutex::new(Dice::new(seed, stream)), begin: Instant::now(), begin_millis }
    }
}

impl Env for SeededEnv {
    fn unix_millis(&self) -> u64 {
        let passed = self.begin.elapsed().as_millis();
        self.begin_millis.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
    }

    fn random(&self) -> u64 {
        lock(&self.dice).any()
    }
}
