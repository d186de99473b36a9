//! Timers in the order of their time. Equal times fire in the order of their making, so that a run under a paused clock
//! repeats exactly.
//!
//! Due timers are fired by the next step in the world, or by its driver: one task that sleeps until the first of them.
//! This file only keeps account of them.

use std::collections::BTreeMap;

use eventbus_core::{Group, Topic};
use tokio::runtime::Handle;
use tokio::time::Instant;

/// Something that is due at a time.
#[derive(Debug, Clone)]
pub(crate) enum Timer {
    /// A submission reaches the log.
    Arrive(u64),
    /// A submission's fate reaches its publisher.
    Answer(u64),
    /// A silent member's session is over.
    Expire(MemberKey),
    /// A revoked partition was not released in time.
    Fence { topic: Topic, group: Group, partition: u32, ownership: u64 },
    /// A member may fetch again, or hear how far an idle partition has come.
    Wake(MemberKey),
    /// A connection that was cut comes back.
    Heal(u64),
    /// A connection that was frozen goes on.
    Thaw(u64),
    /// The broker comes back.
    Restart,
}

/// The identity of a member, for as long as the world exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemberKey {
    pub(crate) topic: Topic,
    pub(crate) group: Group,
    pub(crate) id: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Timers {
    queue: BTreeMap<(Instant, u64), Timer>,
    made: u64,
    /// The number of the running driver, and the time until which it sleeps.
    driver: Option<(u64, Instant)>,
    drivers: u64,
    /// A runtime for a driver that is started by a caller outside any runtime.
    pub(crate) runtime: Option<Handle>,
}

impl Timers {
    pub(crate) fn set(&mut self, at: Instant, timer: Timer) {
        self.made += 1;
        self.queue.insert((at, self.made), timer);
    }

    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<Timer> {
        let first = self.queue.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    fn first(&self) -> Option<Instant> {
        self.queue.first_key_value().map(|((at, _), _)| *at)
    }

    /// Decides about the driver after a step.
    pub(crate) fn driving(&mut self) -> Driving {
        match (self.first(), self.driver) {
            (None, _) => Driving::Enough,
            (Some(first), Some((_, until))) if until <= first => Driving::Enough,
            (Some(_), Some(_)) => Driving::Notify,
            (Some(first), None) => {
                self.drivers += 1;
                self.driver = Some((self.drivers, first));
                Driving::Start(self.drivers, self.runtime.clone())
            }
        }
    }

    /// The time until which the driver sleeps; `None` ends it.
    pub(crate) fn next_sleep(&mut self, driver: u64) -> Option<Instant> {
        let first = self.first();
        self.driver = first.map(|first| (driver, first));
        first
    }

    pub(crate) fn driver_gone(&mut self, driver: u64) {
        if self.driver.is_some_and(|(running, _)| running == driver) {
            self.driver = None;
        }
    }
}

/// The driver's need after a step.
#[derive(Debug)]
pub(crate) enum Driving {
    Enough,
    Notify,
    Start(u64, Option<Handle>),
}
