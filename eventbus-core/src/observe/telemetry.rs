//! Spans and metrics with the names of OpenTelemetry's semantic conventions for messaging.
//!
//! Metrics go through the `metrics` facade: handles are made once per topic or subscription, so install the recorder before
//! the bus is built. Without a recorder a handle does nothing; without a subscriber a span is never made.

use std::sync::Arc;

use metrics::{Counter, Histogram, Label, counter, histogram};
use tokio::time::Instant;
use tracing::Span;

use crate::model::{Envelope, Group, Topic};
use crate::publish::{Publish, Publishing};
use crate::subscribe::Delivery;

/// Carries trace context between the tracing system in use and envelopes. Without one, a `traceparent` that the user set
/// travels all the same, and the handler's span shows it as a field.
pub trait Propagator: Send + Sync + 'static {
    /// The `traceparent` of the current span, if there is one.
    fn current(&self) -> Option<String>;
    /// Links `span` to the context in which the envelope was made.
    fn link(&self, span: &Span, traceparent: &str);
}

fn labels(system: &'static str, topic: &Topic, operation: &'static str) -> Vec<Label> {
    vec![
        Label::new("messaging.system", system),
        Label::new("messaging.destination.name", topic.as_str().to_owned()),
        Label::new("messaging.operation.name", operation),
    ]
}

/// Publishing's metrics, one set per topic.
pub(crate) struct PublishTelemetry {
    sent: Counter,
    failed: Counter,
    duration: Histogram,
}

impl PublishTelemetry {
    pub(crate) fn new(system: &'static str, topic: &Topic) -> Self {
        let labels = labels(system, topic, "send");
        Self {
            sent: counter!("messaging.client.sent.messages", labels.clone()),
            failed: counter!("eventbus.publish.failed", labels.clone()),
            duration: histogram!("messaging.client.operation.duration", labels),
        }
    }

    /// The fate of a publish is known; `since` is its call, where it took a place.
    pub(crate) fn over(&self, since: Option<Instant>, stored: bool) {
        if stored {
            self.sent.increment(1)
        } else {
            self.failed.increment(1)
        }
        if let Some(since) = since {
            self.duration.record(since.elapsed().as_secs_f64());
        }
    }
}

/// Publishing's spans: the layer right around the key lanes.
pub(crate) struct Traced {
    system: &'static str,
    propagator: Option<Arc<dyn Propagator>>,
    inner: Arc<dyn Publish>,
}

impl Traced {
    pub(crate) fn new(system: &'static str, propagator: Option<Arc<dyn Propagator>>, inner: Arc<dyn Publish>) -> Self {
        Self { system, propagator, inner }
    }

    fn span(&self, topic: &str, id: &str) -> Span {
        tracing::debug_span!(
            target: "eventbus",
            "send",
            otel.kind = "producer",
            messaging.system = self.system,
            messaging.destination.name = topic,
            messaging.operation.type = "send",
            messaging.message.id = id,
        )
    }

    /// The envelope with the trace context of this publish, unless it carries one: a creation context is never overwritten.
    pub(crate) fn trace(&self, envelope: Envelope) -> Envelope {
        let Some(propagator) = self.propagator.as_ref().filter(|_| envelope.traceparent().is_none()) else {
            return envelope;
        };
        let Some(traceparent) = propagator.current() else { return envelope };
        let traced = envelope.clone().into_builder().traceparent(traceparent).build();
        traced.unwrap_or(envelope)
    }
}

impl Publish for Traced {
    fn publish(&self, topic: &str, envelope: Envelope) -> Publishing {
        self.span(topic, envelope.id()).in_scope(|| self.inner.publish(topic, self.trace(envelope)))
    }
}

/// Handling's side, one per subscription.
pub(crate) struct HandleTelemetry {
    system: &'static str,
    topic: Topic,
    group: Group,
    consumed: Counter,
    failed: Counter,
    duration: Histogram,
    skipped: Counter,
    dead_lettered: Counter,
    copies: Counter,
    misplaced: Counter,
    replays_ignored: Counter,
    lost: Counter,
    stalls: Counter,
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
            skipped: count("eventbus.handle.skipped"),
            dead_lettered: count("eventbus.handle.dead_lettered"),
            copies: count("eventbus.handle.copies_dropped"),
            misplaced: count("eventbus.handle.misplaced"),
            replays_ignored: count("eventbus.handle.replays_ignored"),
            lost: count("eventbus.handle.data_lost"),
            stalls: count("eventbus.partition.stalls"),
            duration: histogram!("messaging.process.duration", labels),
            system,
            topic,
            group,
            propagator,
        }
    }

    /// An attempt starts, now.
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

    pub(crate) fn stalled(&self) {
        self.stalls.increment(1);
    }
}

/// One attempt under observation.
pub(crate) struct Observed<'a> {
    telemetry: &'a HandleTelemetry,
    span: Span,
    since: Instant,
}

impl Observed<'_> {
    /// Runs inside the attempt's span.
    pub(crate) fn in_span<T>(&self, run: impl FnOnce() -> T) -> T {
        if self.span.is_disabled() { run() } else { self.span.in_scope(run) }
    }

    /// The attempt is over. Returns when: the clock is read once for each attempt.
    pub(crate) fn end(self, ok: bool) -> Instant {
        if ok {
            self.telemetry.consumed.increment(1);
        } else {
            self.telemetry.failed.increment(1);
        }
        let now = Instant::now();
        self.telemetry.duration.record(now.duration_since(self.since).as_secs_f64());
        now
    }
}
