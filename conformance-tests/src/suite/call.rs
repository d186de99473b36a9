//! Handler calls, as conditions of cases look at them.

use std::collections::BTreeMap;

use crate::history::{EndOutcome, Event, Kind, Start};

/// A handler call, as the history shows it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Call {
    /// The start event.
    pub start: Start,
    /// The process in which it ran.
    pub process: u32,
    /// The place of its start in the history.
    pub began: usize,
    /// The time of the start, in nanoseconds of the history's clock.
    pub at: u64,
    /// The outcome, and the place of the end in the history; `None` while the call runs.
    pub end: Option<(EndOutcome, usize)>,
}

impl Call {
    /// Whether the call is of this key.
    #[must_use]
    pub fn of(&self, key: &str) -> bool {
        // No key is made for this: conditions compare millions of them.
        self.start.key.bytes() == (!key.is_empty()).then_some(key.as_bytes())
    }

    /// Whether the call is of this number of this key.
    #[must_use]
    pub fn is(&self, key: &str, number: u64) -> bool {
        self.start.number == number && self.of(key)
    }

    /// Whether the call succeeded.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        matches!(self.end, Some((EndOutcome::Ok, _)))
    }
}

/// The calls of a history, in the order in which they began.
pub(super) fn calls_of(events: &[Event]) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    let mut open: BTreeMap<(u32, u64), usize> = BTreeMap::new();
    for (index, event) in events.iter().enumerate() {
        match &event.kind {
            Kind::Start(start) => {
                open.insert((event.process, start.call), calls.len());
                let (process, at) = (event.process, event.at);
                calls.push(Call { start: start.clone(), process, began: index, at, end: None });
            }
            Kind::End { call, outcome } => {
                if let Some(call) = open.remove(&(event.process, *call)).and_then(|at| calls.get_mut(at)) {
                    call.end = Some((*outcome, index));
                }
            }
            _ => {}
        }
    }
    calls
}
