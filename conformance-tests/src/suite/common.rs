//! Settings and helpers that many cases share.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use eventbus_core::wire::{self, Binding, Mode, WireRecord};
use eventbus_core::{Backoff, Delivery, Envelope, Handler, HandlerError, Subscribe, handler_fn};

use crate::harness::{Act, Script, Step};
use crate::oracle::Expectations;

/// The topic of most cases.
pub(super) const TOPIC: &str = "orders";

/// The group of most cases.
pub(super) const GROUP: &str = "billing";

/// The group's handlers at once, in most cases.
pub(super) const CONCURRENCY: u32 = 16;

pub(super) const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Makes names of keys.
pub(super) fn keys(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}-{n}")).collect()
}

/// A subscription as most cases make it, with short waits between attempts, and short sessions.
pub(super) fn subscribe() -> Subscribe {
    Subscribe::to(TOPIC)
        .group(GROUP)
        .concurrency(CONCURRENCY as usize)
        .backoff(Backoff::fixed(millis(20)))
        .session_timeout(Duration::from_secs(3))
        .drain_deadline(Duration::from_secs(10))
}

/// The expectations of most cases: faults healed, groups idle, the log read. Sessions need a cause within ten seconds
/// before.
pub(super) fn expect() -> Expectations {
    Expectations::new(CONCURRENCY).quiet().log_read().strict_sessions(10_000_000_000).group(TOPIC, GROUP)
}

/// Handlers whose time differs from envelope to envelope, between none and `most`, the same at every attempt.
pub(super) fn unsteadily(seed: u64, most: Duration) -> impl Script {
    let span = u64::try_from(most.as_micros()).unwrap_or(u64::MAX).max(1);
    move |delivery: &Delivery, number: u64| {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
        bytes[8..16].copy_from_slice(&number.to_be_bytes());
        bytes[16..].copy_from_slice(&delivery.position().get().to_be_bytes());
        Step::succeed(Duration::from_micros(crate::history::digest(&bytes) % span))
    }
}

/// Handlers that fail one number of one key by `act` at its first `attempts` attempts, and succeed otherwise.
pub(super) fn failing(key: &'static str, number: u64, act: Act, attempts: u32) -> impl Script {
    move |delivery: &Delivery, found: u64| {
        let this = found == number && key_is(delivery, key);
        let then = if this && delivery.attempt() <= attempts { act } else { Act::Succeed };
        Step { takes: millis(1), then }
    }
}

/// Whether a delivery is of this key.
pub(super) fn key_is(delivery: &Delivery, key: &str) -> bool {
    delivery.envelope().key().is_some_and(|found| found.as_bytes() == key.as_bytes())
}

/// All that an envelope holds, its headers in one order: not every broker keeps their order.
pub(super) fn in_order(envelope: &Envelope) -> WireRecord {
    static BINDING: Binding = Binding::new("ce_").keyed(true);
    let mut record = wire::encode(envelope, None, &BINDING, Mode::Structured);
    record.headers.sort();
    record
}

/// The deliveries of a plain handler, for cases that look at envelopes rather than at order.
#[derive(Clone, Debug, Default)]
pub(super) struct Collected(Arc<Mutex<Vec<Delivery>>>);

impl Collected {
    /// All deliveries so far.
    pub(super) fn all(&self) -> Vec<Delivery> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The number of deliveries so far.
    pub(super) fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn keep(&self, delivery: Delivery) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(delivery);
    }

    /// Makes a handler that keeps its deliveries, and fails the first `failures` attempts.
    pub(super) fn handler(&self, failures: u32) -> Arc<dyn Handler> {
        let this = self.clone();
        handler_fn(move |delivery: Delivery| {
            let fails = delivery.attempt() <= failures;
            this.keep(delivery);
            async move { if fails { Err(HandlerError::retry("told to fail")) } else { Ok(()) } }
        })
    }
}
