//! Calls to the store that fail again and again, told when they have failed for long.
//!
//! Invariant: nothing is tried again in silence for longer than a lease. What is told has the store's own words.

use std::time::Duration;

use tokio::time::Instant;

use crate::backend::GroupEvent;
use crate::model::Result;

/// Failures in a row of calls of one kind.
#[derive(Debug)]
pub(super) struct Failing {
    /// The time that failures may last before they are told, and until they are told again.
    patience: Duration,
    since: Option<Instant>,
    told: Option<Instant>,
}

impl Failing {
    pub(super) fn new(patience: Duration) -> Self {
        Self { patience, since: None, told: None }
    }

    /// Counts an outcome. Returns what the session is to be told, if its time has come.
    pub(super) fn count(&mut self, outcome: &Result<()>) -> Option<GroupEvent> {
        let Err(error) = outcome else {
            (self.since, self.told) = (None, None);
            return None;
        };
        let now = Instant::now();
        let age = now - *self.since.get_or_insert(now);
        let due = self.told.map_or(age, |told| now - told) >= self.patience;
        due.then(|| {
            self.told = Some(now);
            GroupEvent::Waiting { partition: None, age, error: error.clone() }
        })
    }

    /// Whether the latest call failed.
    pub(super) fn lasts(&self) -> bool {
        self.since.is_some()
    }
}
