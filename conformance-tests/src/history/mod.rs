//! The history of a run: everything that happened, written down so that it can be judged.
//!
//! A [`Recorder`] takes [`Event`]s: [`MemoryRecorder`] for a run in one process under an injected
//! clock, [`FileRecorder`] for processes that may be killed. Afterwards the events are one
//! [`History`], a total order, which [`Oracle::judge`](crate::oracle::Oracle::judge) reads.
//!
//! A history is never de-duplicated, sorted by key or otherwise improved before it is judged.

mod call;
mod event;
mod file;
mod payload;
mod record;

pub use call::{CallIds, HandlerCall};
pub use event::{Commit, EndOutcome, Event, FinishedBy, Key, Kind, Name, PublishOutcome, SessionCause, Start};
pub use file::{FileRecorder, ReadError};
pub use payload::{Numbered, PayloadError, digest, make_payload, parse_payload};
pub use record::{Clock, MemoryRecorder, Recorder, monotonic_clock};

use std::collections::BTreeMap;
use std::io::{self, Write};

/// The records of one run, in their total order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The records; a record's index is its place in the order.
    pub events: Vec<Event>,
}

impl History {
    /// A history of these records, in this order.
    #[must_use]
    pub const fn new(events: Vec<Event>) -> Self {
        Self { events }
    }

    /// Merges the histories of several processes of one host.
    ///
    /// Records are ordered by time; at equal times the earlier part comes first, and records of
    /// one part never change places among themselves.
    #[must_use]
    pub fn merge(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut events: Vec<Event> = parts.into_iter().flat_map(|part| part.events).collect();
        events.sort_by_key(|event| event.at);
        Self { events }
    }

    /// Writes the history as NDJSON, one record a line.
    ///
    /// # Errors
    /// The writer's error.
    pub fn write_ndjson(&self, mut to: impl Write) -> io::Result<()> {
        for event in &self.events {
            serde_json::to_writer(&mut to, event)?;
            to.write_all(b"\n")?;
        }
        Ok(())
    }

    /// The history as NDJSON: two runs of one seed must give the same bytes.
    #[must_use]
    pub fn to_ndjson(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.events.len() * 160);
        // Writing into memory cannot fail; were it to, the bytes would differ and be noticed.
        let _ = self.write_ndjson(&mut bytes);
        bytes
    }

    /// A digest of [`to_ndjson`](Self::to_ndjson), for comparing many runs without keeping them.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut line = Vec::with_capacity(256);
        let mut state = 0;
        for event in &self.events {
            line.clear();
            let _ = serde_json::to_writer(&mut line, event);
            state = payload::mix(state ^ digest(&line));
        }
        state
    }

    /// The first record in which two histories differ, or none if they are equal.
    #[must_use]
    pub fn first_difference(&self, other: &Self) -> Option<usize> {
        let shared = self.events.len().min(other.events.len());
        (0..shared)
            .find(|&i| self.events[i] != other.events[i])
            .or_else(|| (self.events.len() != other.events.len()).then_some(shared))
    }
}

/// Merges the test's own history with those of its members.
///
/// Processes do not know of each other's claims. A claim that was confirmed to a member only after its successor's
/// began no session. It is left out, as a member that shared the test's process would not have recorded it.
#[must_use]
pub fn merge_processes(parts: impl IntoIterator<Item = History>) -> History {
    let mut merged = History::merge(parts);
    let mut latest: BTreeMap<(String, String, u32), u64> = BTreeMap::new();
    merged.events.retain(|event| {
        let Kind::SessionStart { topic, group, partition, epoch, .. } = &event.kind else { return true };
        let highest = latest.entry((topic.to_string(), group.to_string(), *partition)).or_default();
        *highest = (*highest).max(*epoch);
        *highest == *epoch
    });
    merged
}

#[cfg(test)]
mod tests;
