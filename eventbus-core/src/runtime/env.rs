//! [`Env`]: the source of time of day and randomness.
//!
//! The engine reads the wall clock for one thing (epochs, S5) and draws random numbers for three (jitter, producer ids,
//! names of members). Both go through [`Env`], so that a simulation gives both from one seed; what backends draw (the
//! nonces of leases) does not. Elapsed time is always tokio's clock, which tests pause.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// A source of time of day and randomness. [`SystemEnv`] is the real one; a test supplies its own to repeat a run
/// exactly.
pub trait Env: fmt::Debug + Send + Sync + 'static {
    /// Returns the milliseconds since the Unix epoch.
    fn unix_millis(&self) -> u64;
    /// Returns a uniformly random number.
    fn random(&self) -> u64;
}

/// The system's clock and the thread's random number generator.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEnv;

impl Env for SystemEnv {
    fn unix_millis(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn random(&self) -> u64 {
        rand::random()
    }
}
