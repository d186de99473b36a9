//! Fixed workloads, as data. They do not change, so that runs can be compared over time.

mod plan;
mod set;
mod table;

use std::time::Duration;

#[cfg(any(feature = "nats", feature = "kafka"))]
pub(crate) use plan::INDEX;
pub(crate) use plan::Plan;
pub(crate) use set::{Choice, WorkloadSet};
pub(crate) use table::all;

/// Keys of a workload's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keys {
    /// So many keys, in turn.
    Count(usize),
    /// No keys: no message is related to another.
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Payload {
    /// So many bytes, which differ from message to message.
    Bytes(usize),
    /// About 40 bytes of JSON.
    SmallJson,
    /// JSON with id, topic, sequence, timestamp and data.
    BurstJson,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    None,
    /// Waits for a fixed time.
    Fixed(Duration),
    /// Waits for a random time up to this.
    Random(Duration),
    /// Waits so long for each message of the first key, and does nothing for the others.
    Stuck(Duration),
}

/// Shape of a run, and the time that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Messages are published and handled at once; from the first publish to the last handled.
    Flow,
    /// As `Flow`, with a timetable for each publisher. Latency counts from the time at which a message was due, so that
    /// it shows when the bus holds a publisher up (coordinated omission).
    Paced(Duration),
    /// Messages are published before the clock starts; from the subscription to the last handled.
    Prefilled,
}

#[derive(Debug, Clone)]
pub(crate) struct Workload {
    /// Name, which is unique.
    pub(crate) name: String,
    pub(crate) about: String,
    pub(crate) messages: usize,
    pub(crate) topics: usize,
    /// Partitions of each topic; `None` for the library's default.
    pub(crate) partitions: Option<u32>,
    pub(crate) keys: Keys,
    pub(crate) payload: Payload,
    pub(crate) publishers: usize,
    pub(crate) work: Work,
    /// The most handlers at once in each member; `None` for the library's default.
    pub(crate) handlers: Option<usize>,
    /// Members of the group, each with a connection of its own.
    pub(crate) members: usize,
    /// Whether topics ask for storage in the broker's memory.
    pub(crate) in_memory: bool,
    /// Whether the run ignores the first key, which is stuck.
    pub(crate) has_stuck_key: bool,
    pub(crate) shape: Shape,
    /// Whether it is part of the selection, which runs if the user chooses nothing.
    pub(crate) selected: bool,
    /// An estimate of one round's seconds on two cores, in memory, with everything included.
    pub(crate) seconds: f64,
}

/// Handlers of a workload that sets none: the library's default.
pub(crate) const DEFAULT_HANDLERS: usize = 16;

impl Workload {
    pub(crate) fn key_count(&self) -> usize {
        match self.keys {
            Keys::Count(keys) => keys,
            Keys::None => 0,
        }
    }

    pub(crate) fn handlers(&self) -> usize {
        self.handlers.unwrap_or(DEFAULT_HANDLERS)
    }

    /// Returns whether the workload fits the backend: prefilled ones measure the pool without a broker, so they run in
    /// memory only.
    pub(crate) fn runs_on(&self, is_memory: bool) -> bool {
        is_memory || self.shape != Shape::Prefilled
    }

    /// Returns whether one round on a broker takes longer than a selection may.
    fn is_long_on_a_broker(&self) -> bool {
        self.messages > 100_000
    }

    /// Returns whether a bare client shows what the bus costs: it does if handlers take no time.
    pub(crate) fn has_bare_client(&self) -> bool {
        self.work == Work::None && self.shape != Shape::Prefilled
    }

    /// Estimates the seconds of a round on a backend, with making its topics, joining its group, and removing both. The
    /// figures are those of a machine with two cores that also runs the broker.
    pub(crate) fn seconds_on(&self, scheme: &str) -> f64 {
        let around = match scheme {
            "memory" => return self.seconds,
            "kafka" => 5.0,
            _ => 1.0,
        };
        // A key's messages are confirmed one after another, or in small batches.
        let rate = (1_500.0 * self.key_count().max(1) as f64).min(10_000.0);
        let twice = if self.has_stuck_key { 2.0 } else { 1.0 };
        self.seconds + twice * (around + self.messages as f64 / rate)
    }

    /// Returns the number of rounds. A run of ten seconds or more averages over enough by itself, so it is made once.
    pub(crate) fn rounds(&self, asked: usize) -> usize {
        if self.seconds >= 10.0 { 1 } else { asked }
    }

    /// Returns whether this name means the workload: its own name, or its family's (`pressure` means all of
    /// `pressure-…`).
    pub(crate) fn is_meant_by(&self, name: &str) -> bool {
        self.name == name || self.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('-'))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_families_select_their_members() {
        let all = all();
        let names: BTreeSet<&str> = all.iter().map(|workload| workload.name.as_str()).collect();
        assert_eq!(names.len(), all.len());
        assert_eq!(all.iter().filter(|workload| workload.is_meant_by("pressure")).count(), 4);
        assert_eq!(all.iter().filter(|workload| workload.is_meant_by("envelope")).count(), 12);
        assert_eq!(all.iter().filter(|workload| workload.is_meant_by("throughput-1")).count(), 1);
        assert_eq!(all.iter().filter(|workload| workload.is_meant_by("press")).count(), 0);
    }

    #[test]
    fn the_selection_fits_its_promise() {
        let seconds = |rounds| -> f64 {
            let selected = all().into_iter().filter(|workload| workload.selected);
            selected.map(|workload| workload.seconds * workload.rounds(rounds) as f64).sum()
        };
        assert!(seconds(3) <= 120.0, "{}", seconds(3));
    }

    #[test]
    fn publishers_share_out_all_messages_and_no_key() {
        for workload in all().into_iter().filter(|workload| workload.messages <= 10_000) {
            let plan = Plan::of(&workload, "t").unwrap();
            let mut publisher_of = vec![None; workload.key_count()];
            let mut last = vec![0; workload.key_count()];
            let mut seen = 0;
            for (publisher, items) in plan.publishers.iter().enumerate() {
                for index in items {
                    let item = &plan.items[*index as usize];
                    seen += 1;
                    if let Some(key) = item.key {
                        assert!(publisher_of[key as usize].replace(publisher).is_none_or(|known| known == publisher));
                        assert_eq!(item.number, last[key as usize] + 1, "{}", workload.name);
                        last[key as usize] = item.number;
                    }
                }
            }
            assert_eq!(seen, workload.messages, "{}", workload.name);
        }
    }
}
