//! Time of day and randomness of a run, from its seed.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use eventbus_core::{Env, SystemEnv};
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::time::Instant;

use super::fixture::Clock;

/// Some day in 2026, at which paused time begins: any number of milliseconds would do.
const BASE_MILLIS: u64 = 1_780_000_000_000;

/// The environment of a run: randomness from a seed. On a paused clock the time of day follows the clock, otherwise it
/// is the host's, which brokers share.
pub(super) struct SeededEnv {
    began: Instant,
    clock: Clock,
    draws: Mutex<ChaCha8Rng>,
}

impl SeededEnv {
    pub(super) fn new(seed: u64, clock: Clock) -> Self {
        Self { began: Instant::now(), clock, draws: Mutex::new(ChaCha8Rng::seed_from_u64(seed)) }
    }
}

impl Env for SeededEnv {
    fn unix_millis(&self) -> u64 {
        if self.clock == Clock::Real {
            return SystemEnv.unix_millis();
        }
        BASE_MILLIS + u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX / 2)
    }

    fn random(&self) -> u64 {
        self.draws.lock().unwrap_or_else(PoisonError::into_inner).next_u64()
    }
}

impl fmt::Debug for SeededEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SeededEnv").finish_non_exhaustive()
    }
}
