//! Coverage: the faults and the branches of the contract that schedules met.

use std::collections::BTreeMap;
use std::fmt;

/// The names that must all have been met, or the run is refuted as vacuous. A schedule may count more than these.
pub const BRANCHES: &[&str] = &[
    // Faults of the memory backend, by their own names.
    "fault: dropped",
    "fault: delayed",
    "fault: refused",
    "fault: not_stored",
    "fault: confirmation_lost",
    "fault: held",
    "fault: released",
    "fault: commit_fenced",
    "fault: commit_unavailable",
    "fault: commit_answer_lost",
    "fault: cut",
    "fault: healed",
    "fault: frozen",
    "fault: thawed",
    "fault: killed",
    "fault: session_expired",
    "fault: heartbeats_stopped",
    "fault: taken_away",
    "fault: truncated",
    "fault: recreated",
    "fault: broker_down",
    // Acts of the test.
    "join",
    "leave",
    "subscription dropped",
    "seek",
    "concurrency changed",
    "paused and resumed",
    "process killed",
    "killed by its own handler",
    "dead-letter topic down",
    "withdrawn",
    "confirmation dropped",
    // Handlers.
    "handler failed",
    "handler panicked",
    "handler abandoned",
    // Branches: publishing.
    "unknown resolved",
    "duplicate recognised",
    "log read for a stamp",
    "key sealed",
    "cascaded",
    "refused by a seal",
    "key resumed",
    "overloaded",
    "too large",
    // Branches: handling.
    "copy dropped",
    "dead letter",
    "skipped by policy",
    "stopped by policy",
    "retry",
    "repeated after a session",
    "intake paused",
    "stalled",
    "horizon cut",
    "finished beyond the watermark",
    "lease lost",
    "commit fenced",
    "superseded while running",
    "unclean start",
    "one at a time",
    "start written to the note",
    "log reset",
    "data lost",
    "abandoned at a deadline",
    "positions shared",
    "pipelined",
];

/// Counts of the schedules in which each thing happened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage {
    schedules: u64,
    met: BTreeMap<String, u64>,
}

impl Coverage {
    /// The coverage of one schedule.
    pub(super) fn of_one(met: impl IntoIterator<Item = String>) -> Self {
        Self { schedules: 1, met: met.into_iter().map(|name| (name, 1)).collect() }
    }

    /// Adds others' counts.
    pub fn add(&mut self, other: &Self) {
        self.schedules += other.schedules;
        for (name, count) in &other.met {
            *self.met.entry(name.clone()).or_default() += count;
        }
    }

    /// The number of schedules in which something happened.
    #[must_use]
    pub fn count(&self, name: &str) -> u64 {
        self.met.get(name).copied().unwrap_or(0)
    }

    /// The names that must be met and never were.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        BRANCHES.iter().copied().filter(|name| self.count(name) == 0).collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<34} {:>10} schedules", "met in", self.schedules)?;
        for name in BRANCHES {
            let count = self.count(name);
            writeln!(f, "{name:<34} {count:>10}{}", if count == 0 { "  MISSING" } else { "" })?;
        }
        Ok(())
    }
}
