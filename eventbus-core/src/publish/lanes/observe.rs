//! The one place where the end of a publish is observed: hooks and metrics. Its beginning is the tracer's.

use super::shared::Engine;
use crate::model::{Envelope, Result, Stamp, Topic};
use crate::observe::{BusEvent, PublishTelemetry};
use crate::publish::confirmation::Receipt;
use tokio::time::Instant;

#[allow(clippy::too_many_arguments)] // what is told of a publish, from the one place that knows it
/// A publish is over. Outside of all locks, in the key's order; `result` is made only where somebody listens.
pub(super) fn over(
    engine: &Engine,
    topic: &Topic,
    telemetry: &PublishTelemetry,
    since: Option<Instant>,
    stamp: Stamp,
    envelope: &Envelope,
    stored: bool,
    result: impl FnOnce() -> Result<Receipt>,
) {
    telemetry.over(since, stored);
    if engine.hooks.any() {
        engine.hooks.emit(&BusEvent::Published { topic, stamp, envelope, result: &result() });
    }
}
