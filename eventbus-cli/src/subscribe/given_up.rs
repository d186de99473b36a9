//! Count of envelopes that were given up: they decide on the exit code.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use eventbus::observe::BusEvent;

/// Envelopes that were given up.
#[derive(Debug, Default)]
pub(super) struct GivenUp {
    dead_lettered: AtomicU64,
    skipped: AtomicU64,
}

impl GivenUp {
    pub(super) fn count(&self, event: &BusEvent<'_>) {
        let counter = match event {
            BusEvent::DeadLettered { .. } => &self.dead_lettered,
            BusEvent::Skipped { .. } => &self.skipped,
            _ => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn any(&self) -> bool {
        [&self.dead_lettered, &self.skipped].iter().any(|counter| counter.load(Ordering::Relaxed) > 0)
    }
}

impl fmt::Display for GivenUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [dead_lettered, skipped] =
            [&self.dead_lettered, &self.skipped].map(|counter| counter.load(Ordering::Relaxed));
        write!(f, "{dead_lettered} dead-lettered, {skipped} skipped")
    }
}
