//! Metrics and spans of handling.

use std::sync::Arc;

use metrics::{Counter, Gauge, Histogram, Label, counter, gauge, histogram};
use tokio::time::Instant;
use tracing::Span;

use super::handler::Delivery;
use super::shield::HandlerEnd;
use crate::model::{Group, Topic};
use crate::observe::{Propagator, labels};

/// Telemetry of handling, one per subscription.
pub(crate) struct HandleTelemetry {
    system: &'static str,
    topic: Topic,
    group: Group,
    consumed: Counter,
    failed: Counter,
    deferred: Counter,
    duration: Histogram,
    skipped: Counter,
    dead_lettered: Counter,
    copies: Counter,
    misplaced: Counter,
    replays_ignored: Counter,
    lost: Counter,
    stalls: Counter,
    suspended: Gauge,
    propagator: Option<Arc<dyn Propagator>>,
}

impl HandleTelemetry {
    pub(crate) fn new(
        system: &'static str,
        topic: Topic,
        group: Group,
        propagator: Option<Arc<dyn Propagator>>,
    ) -> Self {
        let mut labels = labels(system, &topic, "process");
        labels.push(Label::new("messaging.consumer.group.name", group.as_str().to_owned()));
        let count = |name: &'static str| counter!(name, labels.clone());
        Self {
            consumed: count("messaging.client.consumed.messages"),
            failed: count("eventbus.handle.failed"),
            deferred: count("eventbus.handle.deferred"),
            skipped: count("eventbus.handle.skipped"),
            dead_lettered: count("eventbus.handle.dead_lettered"),
            copies: count("eventbus.handle.copies_dropped"),
            misplaced: count("eventbus.handle.misplaced"),
            replays_ignored: count("eventbus.handle.replays_ignored"),
            lost: count("eventbus.handle.data_lost"),
            stalls: count("eventbus.partition.stalls"),
            suspended: gauge!("eventbus.handle.suspended", labels.clone()),
            duration: histogram!("messaging.process.duration", labels),
            system,
            topic,
            group,
            propagator,
        }
    }

    /// Starts the observation of an attempt. The clock was read at `now`.
    pub(crate) fn start(&self, delivery: &Delivery, now: Instant) -> Observed<'_> {
        let envelope = delivery.envelope();
        let span = tracing::info_span!(
            target: "eventbus",
            "process",
            otel.kind = "consumer",
            messaging.system = self.system,
            messaging.destination.name = self.topic.as_str(),
            messaging.destination.partition.id = delivery.partition(),
            messaging.consumer.group.name = self.group.as_str(),
            messaging.operation.type = "process",
            messaging.message.id = envelope.id(),
            eventbus.position = delivery.position().get(),
            eventbus.attempt = delivery.attempt(),
            eventbus.epoch = delivery.epoch(),
            otel.status_code = tracing::field::Empty,
            traceparent = envelope.traceparent(),
        );
        if let (Some(propagator), Some(traceparent)) = (&self.propagator, envelope.traceparent()) {
            propagator.link(&span, traceparent);
        }
        Observed { telemetry: self, span, since: now }
    }

    pub(crate) fn skipped(&self) {
        self.skipped.increment(1);
    }

    pub(crate) fn dead_lettered(&self) {
        self.dead_lettered.increment(1);
    }

    pub(crate) fn copy_dropped(&self) {
        self.copies.increment(1);
    }

    pub(crate) fn misplaced(&self) {
        self.misplaced.increment(1);
    }

    pub(crate) fn replay_ignored(&self) {
        self.replays_ignored.increment(1);
    }

    pub(crate) fn data_lost(&self) {
        self.lost.increment(1);
    }

    pub(crate) fn suspended(&self, suspended: bool) {
        self.suspended.set(if suspended { 1.0 } else { 0.0 });
    }

    pub(crate) fn stalled(&self) {
        self.stalls.increment(1);
    }
}

pub(crate) struct Observed<'a> {
    telemetry: &'a HandleTelemetry,
    span: Span,
    since: Instant,
}

impl Observed<'_> {
    pub(crate) fn in_span<T>(&self, run: impl FnOnce() -> T) -> T {
        if self.span.is_disabled() { run() } else { self.span.in_scope(run) }
    }

    /// Ends the observation, and returns the time: the clock is read once for each attempt. A handler that waits has not
    /// failed.
    pub(super) fn end(self, end: &HandlerEnd) -> Instant {
        match end {
            HandlerEnd::Ok => self.telemetry.consumed.increment(1),
            HandlerEnd::Failed(error) if error.wait_time().is_some() => self.telemetry.deferred.increment(1),
            HandlerEnd::Failed(_) | HandlerEnd::Abandoned => {
                self.telemetry.failed.increment(1);
                self.span.record("otel.status_code", "ERROR");
            }
        }
        let now = Instant::now();
        self.telemetry.duration.record(now.duration_since(self.since).as_secs_f64());
        now
    }
}
