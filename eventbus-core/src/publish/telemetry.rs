//! Metrics and spans of publishing.

use std::sync::Arc;

use metrics::{Counter, Histogram, counter, histogram};
use tokio::time::Instant;
use tracing::Span;

use super::batch_confirmation::BatchPublishing;
use super::confirmation::Publishing;
use super::layer::Publish;
use crate::model::{Envelope, Topic};
use crate::observe::{Propagator, labels};

/// The metrics of publishing, one set per topic.
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

    /// Records the end of a publish. `since` is the instant of its call; `None` where it took no place.
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

/// The spans of publishing: the layer right around the key lanes.
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

    /// Adds the trace context of this publish to the envelope, unless it carries one: a creation context is never
    /// overwritten.
    fn trace(&self, envelope: Envelope) -> Envelope {
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

    fn publish_batch(&self, topic: &str, envelopes: Vec<Envelope>) -> BatchPublishing {
        let traced = |envelope: Envelope| self.span(topic, envelope.id()).in_scope(|| self.trace(envelope));
        self.inner.publish_batch(topic, envelopes.into_iter().map(traced).collect())
    }
}
