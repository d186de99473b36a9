//! Submissions in flight: what is known of each until its fate is told, and in which order they land.
//!
//! With one record a key outstanding, flights are independent. The flights of a pipelined partition form a [`Pipe`].

use std::collections::{BTreeMap, VecDeque};

use eventbus_core::Topic;
use eventbus_core::backend::{Fate, Outbound, Ticket};
use tokio::time::Instant;

use crate::faults::SubmitFault;

#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) connection: u64,
    pub(crate) record: Outbound,
    /// The publisher's ticket; `None` once told. A held flight goes on without it.
    pub(crate) ticket: Option<Ticket>,
    pub(crate) stage: Stage,
    pub(crate) fault: Option<SubmitFault>,
    pub(crate) pipe: Option<PipeKey>,
    pub(crate) doomed: bool,
    /// The time at which the fate reaches the publisher. Earlier timers are left over from before a release.
    pub(crate) due: Instant,
}

#[derive(Debug)]
pub(crate) enum Stage {
    Travelling,
    /// Arrived, behind an earlier flight of its pipe that has not.
    Waiting,
    Held,
    Answering(Fate),
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PipeKey {
    pub(crate) connection: u64,
    pub(crate) topic: Topic,
    pub(crate) partition: u32,
}

#[derive(Debug, Default)]
struct Pipe {
    /// Flights that have not landed, in the order of submission.
    flying: VecDeque<u64>,
    /// Number of flights whose fate is decided and on its way back.
    answering: usize,
    /// The time at which the last of those fates is told.
    answered_by: Option<Instant>,
    /// Number of fates other than stored that were decided and are not told yet.
    failing: usize,
}

/// The pipes that are not empty.
#[derive(Debug, Default)]
pub(crate) struct Pipes(BTreeMap<PipeKey, Pipe>);

impl Pipes {
    pub(crate) fn contains(&self, key: &PipeKey) -> bool {
        self.0.contains_key(key)
    }

    /// Adds a departing flight behind all others of its pipe. `true` if it is doomed.
    pub(crate) fn depart(&mut self, key: &PipeKey, flight: u64) -> bool {
        let pipe = self.0.entry(key.clone()).or_default();
        pipe.flying.push_back(flight);
        pipe.failing > 0
    }

    /// The flight that lands next.
    pub(crate) fn head(&self, key: &PipeKey) -> Option<u64> {
        self.0.get(key)?.flying.front().copied()
    }

    /// Takes a landed flight off the pipe. Its fate is told at `due`, or later with an earlier one's.
    pub(crate) fn land(&mut self, key: &PipeKey, flight: u64, due: Instant) -> Instant {
        let Some(pipe) = self.0.get_mut(key) else { return due };
        let due = pipe.answered_by.map_or(due, |earlier| earlier.max(due));
        pipe.flying.retain(|flying| *flying != flight);
        pipe.answering += 1;
        pipe.answered_by = Some(due);
        due
    }

    /// Removes a flight whose fate is told. `landed`: [`land`](Self::land) has seen it.
    pub(crate) fn leave(&mut self, key: &PipeKey, flight: u64, landed: bool) {
        if let Some(pipe) = self.0.get_mut(key) {
            pipe.flying.retain(|flying| *flying != flight);
            pipe.answering -= usize::from(landed);
            self.tidy(key);
        }
    }

    /// Counts a failure of the pipe that was decided and is not told yet.
    pub(crate) fn fail(&mut self, key: &PipeKey) {
        self.0.entry(key.clone()).or_default().failing += 1;
    }

    /// The flights behind one that failed.
    pub(crate) fn behind(&self, key: &PipeKey, failed: u64) -> impl Iterator<Item = u64> {
        let flying = self.0.get(key).into_iter().flat_map(|pipe| &pipe.flying);
        flying.copied().filter(move |flight| *flight > failed)
    }

    /// Takes back the count of a failure that was told.
    pub(crate) fn told(&mut self, key: &PipeKey) {
        if let Some(pipe) = self.0.get_mut(key) {
            pipe.failing = pipe.failing.saturating_sub(1);
            self.tidy(key);
        }
    }

    fn tidy(&mut self, key: &PipeKey) {
        if self.0.get(key).is_some_and(|pipe| pipe.flying.is_empty() && pipe.answering + pipe.failing == 0) {
            self.0.remove(key);
        }
    }
}
