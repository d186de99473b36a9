//! Spans and metrics with the names of OpenTelemetry's semantic conventions for messaging.
//!
//! Metrics go through the `metrics` facade: handles are made once per topic or subscription, so install the recorder
//! before the bus is built. Without a recorder a handle does nothing; without a subscriber a span is never made.

use metrics::Label;
use tracing::Span;

use crate::model::Topic;

/// Carrier of trace context between the tracing system in use and envelopes. Without a propagator, a `traceparent` that
/// the user set travels all the same, and the handler's span shows it as a field.
pub trait Propagator: Send + Sync + 'static {
    /// Returns the `traceparent` of the current span; `None` where there is no span.
    fn current(&self) -> Option<String>;
    /// Links `span` to the context in which the envelope was made.
    fn link(&self, span: &Span, traceparent: &str);
}

pub(crate) fn labels(system: &'static str, topic: &Topic, operation: &'static str) -> Vec<Label> {
    vec![
        Label::new("messaging.system", system),
        Label::new("messaging.destination.name", topic.as_str().to_owned()),
        Label::new("messaging.operation.name", operation),
    ]
}
