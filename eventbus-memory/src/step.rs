//! One step in a world: the time of the step, and its effects on others.
//!
//! Observers, tickets and wakers run foreign code, so a step only collects them; they are called after the lock.

use std::task::Waker;

use eventbus_core::backend::{Fate, Ticket};
use tokio::time::Instant;

use crate::faults::FaultEvent;
use crate::in_flight::PipeKey;

/// The clock of a step, and the effects that wait for the end of the lock.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) now: Instant,
    pub(crate) unix_millis: u64,
    pub(crate) wakers: Vec<Waker>,
    pub(crate) told: Vec<Told>,
    pub(crate) faults: Vec<FaultEvent>,
}

/// A fate on its way to a ticket.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) ticket: Ticket,
    pub(crate) fate: Fate,
    /// The pipe whose later submissions fail until this fate is told; `None` if none do.
    pub(crate) pipe: Option<PipeKey>,
}

impl Step {
    pub(crate) fn new(now: Instant, unix_millis: u64) -> Self {
        Self { now, unix_millis, wakers: Vec::new(), told: Vec::new(), faults: Vec::new() }
    }
}
