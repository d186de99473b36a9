//! Outage guard: what the handlers need is away, and no envelope is to pay for it (S2).
//!
//! The heads of several keys have failed and nothing has succeeded in between: not the envelopes are at fault. The pool
//! is *suspended*: it tries one head at a time, until one succeeds, and then starts handlers in steps.
//!
//! **Invariants.**
//! - While suspended, one head at a time is tried, and no failed one is charged an attempt.
//! - A head counts towards one suspension only; what it was charged until then is given back. So a suspension ends its
//!   budget at most once later.
//! - The guard says only how many handlers may start and which comes next. It takes no head and finishes none: what
//!   holds for a key (S1) holds here.

use std::time::Duration;

use tokio::time::Instant;

use super::guard::{FailingHead, OutageChange, Suspension, Try};
use super::lane::Lane;
use super::{Pool, PoolState};

/// The pause before the first try of a suspended pool. It doubles with each that fails.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

impl Pool {
    /// Suspends the pool when the heads of so many keys have failed and none has succeeded in between; zero: never.
    pub(crate) fn with_outage_guard(self, keys: usize) -> Self {
        self.state.lock().guard.keys = keys;
        self
    }

    /// Returns whether failures are not charged, because what the handlers need is away.
    pub(crate) fn is_suspended(&self) -> bool {
        self.state.lock().guard.is_suspended()
    }
}

impl PoolState {
    /// Fixes how many handlers may run at once, by the concurrency and the guard.
    pub(super) fn limit_handlers(&mut self) {
        self.at_once = match &self.guard.suspension {
            None => self.guard.step.map_or(self.concurrency, |step| step.min(self.concurrency)),
            // Attempts from before may still run: the one to be tried does not wait for them.
            Some(Suspension { next: Try::Due, .. }) => usize::MAX,
            Some(_) => 0,
        };
    }

    /// Takes note of an attempt's end.
    pub(super) fn guard_ended(&mut self, lane: usize, handled: bool, now: Instant) {
        if handled {
            return self.guard_succeeded(now);
        }
        if let Some(suspension) = &mut self.guard.suspension
            && suspension.next == Try::Running(lane)
        {
            suspension.next = Try::At(now + suspension.pause);
            suspension.pause = LONGEST_PAUSE.min(suspension.pause * 2);
        }
        self.limit_handlers();
    }

    fn guard_succeeded(&mut self, now: Instant) {
        self.guard.failed.clear();
        if let Some(suspension) = self.guard.suspension.take() {
            self.guard.change = Some(OutageChange::Resumed { after: now.saturating_duration_since(suspension.since) });
            self.guard.step = Some(1);
            // What made them fail is over.
            self.end_back_offs(usize::MAX);
        }
        self.guard.step = self.guard.step.map(|step| step.saturating_mul(2)).filter(|step| *step < self.concurrency);
        self.guard.active = self.guard.step.is_some();
        self.limit_handlers();
    }

    /// Makes so many heads ready that wait for their next attempt, those first that are due first.
    fn end_back_offs(&mut self, most: usize) {
        let failed = |lane: &usize| self.failing.get(lane).is_some_and(|head| !head.waits);
        let waiting = self.timers.iter().filter(|(_, lane)| failed(lane));
        let ended: Vec<_> = waiting.map(|(at, lane)| (*at, *lane)).take(most).collect();
        for (at, lane) in ended {
            self.timers.remove(&at);
            self.make_ready(lane);
        }
    }

    /// Counts a head's failure. Returns whether it is charged.
    pub(super) fn guard_failed(&mut self, lane: usize, now: Instant) -> bool {
        if self.guard.is_suspended() {
            self.give_back(lane);
            return false;
        }
        if self.guard.keys == 0 || self.failing.get(&lane).is_some_and(|head| head.spent) {
            return true;
        }
        self.guard.failed.insert(lane);
        self.guard.active = true;
        if self.guard.failed.len() < self.guard.keys {
            return true;
        }
        let failed = std::mem::take(&mut self.guard.failed);
        self.guard.change = Some(OutageChange::Suspended { keys: failed.len() });
        failed.into_iter().for_each(|lane| self.give_back(lane));
        self.guard.step = None;
        self.guard.suspension =
            Some(Suspension { since: now, next: Try::At(now + FIRST_PAUSE), pause: FIRST_PAUSE * 2 });
        self.limit_handlers();
        false
    }

    /// Gives a head back what it was charged in this ownership.
    fn give_back(&mut self, lane: usize) {
        let Lane { partition, head, .. } = self.lanes[lane];
        let item = &self.items[head];
        // Processes that the envelope has ended stay charged.
        let unclean = self.partitions.get(partition).map_or(0, |owned| owned.charged(item.position));
        let uncharged = item.queued.attempts.saturating_sub(unclean);
        self.failing.insert(lane, FailingHead { since: None, uncharged, waits: false, spent: true });
    }

    /// Has a suspended pool try a head, when it is time. Returns when that will be.
    pub(super) fn try_again(&mut self, now: Instant) -> Option<Instant> {
        let suspension = self.guard.suspension.as_mut()?;
        if let Try::At(at) = suspension.next {
            if at > now {
                return Some(at);
            }
            suspension.next = Try::Due;
        }
        if suspension.next == Try::Due && self.ready.is_empty() {
            // Nothing else is there to be tried.
            self.end_back_offs(1);
        }
        self.limit_handlers();
        None
    }

    /// Brings the lane to the front of the ready ones that a suspended pool tries next: one whose head has not failed,
    /// or else the one that waited longest.
    pub(super) fn choose_try(&mut self) {
        let fresh = self.ready.iter().position(|lane| !self.failing.contains_key(lane));
        if let Some(lane) = fresh.and_then(|index| self.ready.remove(index)) {
            self.ready.push_front(lane);
        }
    }

    /// Takes note of the head that a suspended pool tries.
    pub(super) fn trying(&mut self, lane: usize) {
        if let Some(suspension) = &mut self.guard.suspension {
            suspension.next = Try::Running(lane);
            self.at_once = 0;
        }
    }

    /// Takes the change that is to be told.
    pub(super) fn outage_change(&mut self) -> Option<OutageChange> {
        self.guard.change.take()
    }

    /// Forgets a head that leaves, finished or not.
    #[inline]
    pub(super) fn forget_failing(&mut self, lane: usize) {
        if !self.failing.is_empty() {
            self.failing.remove(&lane);
            self.guard.failed.remove(&lane);
        }
    }
}
