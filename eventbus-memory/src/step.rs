//! One step in a world: the time it is taken at, and its effects on others.
//!
//! Observers, tickets and wakers are code of others, so a step only collects them; they are called after the lock.

use std::task::Waker;

use eventbus_core::backend::{Fate, Ticket};
use tokio::time::Instant;

use crate::faults::FaultEvent;
use crate::in_flight::PipeKey;

/// The clock of a step, and what is left to do after the lock.
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
    /// The partition whose later submissions fail until this one is told.
    pub(crate) pipe: Option<PipeKey>,
}

impl Step {
    pub(crate) fn new(now: Instant, unix_millis: u64) -> Self {
        Self { now, unix_millis, wakers: Vec::new(), told: Vec::new(), faults: Vec::new() }
    }
}
