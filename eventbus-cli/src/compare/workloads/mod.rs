//! The fixed workloads, as data. They do not change, so that runs can be compared with each other over time.

mod job;
mod plan;
mod table;

use std::time::Duration;

pub(crate) use job::{Choice, Job};
#[cfg(any(feature = "nats", feature = "kafka"))]
pub(crate) use plan::INDEX;
pub(crate) use plan::Plan;
pub(crate) use table::all;

/// How the messages of a workload are related.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keys {
    /// So many keys, taken in turn.
    Count(usize),
    /// No key: nothing is related.
    None,
}

/// What a message carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Payload {
    /// So many bytes, different in every message.
    Bytes(usize),
    /// About 40 bytes of JSON.
    SmallJson,
    /// JSON with id, topic, sequence, timestamp and data.
    BurstJson,
}

/// What the handler does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Nothing.
    None,
    /// Waits so long.
    Fixed(Duration),
    /// Waits a random time up to this.
    Random(Duration),
    /// Waits so long for the first key, and does nothing for the others.
    Stuck(Duration),
}

/// How a workload is run, and what its time is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Published and handled at once; from the first publish to the last handled.
    Flow,
    /// As `Flow`, each publisher on a timetable; latency is counted from the time at which a message was due, so that a
    /// publisher held up by the bus hides nothing (coordinated omission).
    Paced(Duration),
    /// Published before the clock starts; from the subscription to the last handled.
    Prefilled,
}

/// One workload.
#[derive(Debug, Clone)]
pub(crate) struct Workload {
    /// Its name, unique.
    pub(crate) name: String,
    /// What it is, in a line.
    pub(crate) about: String,
    pub(crate) messages: usize,
    pub(crate) topics: usize,
    /// Partitions of each topic; none for the library's default.
    pub(crate) partitions: Option<u32>,
    pub(crate) keys: Keys,
    pub(crate) payload: Payload,
    pub(crate) publishers: usize,
    pub(crate) work: Work,
    /// Handlers at once; none for the library's default.
    pub(crate) handlers: Option<usize>,
    /// Members of the group, each with a connection of its own.
    pub(crate) members: usize,
    /// Asks for storage in the broker's memory.
    pub(crate) in_memory: bool,
    /// The first key is not waited for.
    pub(crate) has_stuck_key: bool,
    pub(crate) shape: Shape,
    /// Part of the selection that runs where nothing is asked for.
    pub(crate) selected: bool,
    /// About how long one round takes on two cores, everything included.
    pub(crate) seconds: f64,
}

/// The library's default, where a workload sets none.
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

    /// Whether it says something of a backend that is no memory: the pool is measured without a broker.
    pub(crate) fn runs_on(&self, is_memory: bool) -> bool {
        is_memory || self.shape != Shape::Prefilled
    }

    /// Whether one round takes a broker longer than a selection has.
    fn is_long_on_a_broker(&self) -> bool {
        self.messages > 100_000
    }

    /// Whether the backend's bare client says what the bus costs: it does where handlers take no time.
    pub(crate) fn has_bare_client(&self) -> bool {
        self.work == Work::None && self.shape != Shape::Prefilled
    }

    /// About how long a round takes on a backend, with its topics made, its group joined, and both removed. Figures of a
    /// machine with two cores and a broker on it.
    pub(crate) fn seconds_on(&self, scheme: &str) -> f64 {
        let around = match scheme {
            "memory" => return self.seconds,
            "kafka" => 5.0,
            _ => 1.0,
        };
        // A key's messages are confirmed one after the other, or in small batches.
        let rate = (1_500.0 * self.key_count().max(1) as f64).min(10_000.0);
        let twice = if self.has_stuck_key { 2.0 } else { 1.0 };
        self.seconds + twice * (around + self.messages as f64 / rate)
    }

    /// Long runs are repeated less: one that takes ten seconds and more averages over enough by itself.
    pub(crate) fn rounds(&self, asked: usize) -> usize {
        if self.seconds >= 10.0 { 1 } else { asked }
    }

    /// Whether it is meant by this name: its own, or its family's (`pressure` means all of `pressure-…`).
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
