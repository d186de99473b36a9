//! What a bus tells of itself: events for hooks, metrics, spans.

mod events;
mod telemetry;

pub(crate) use events::Hooks;
pub use events::{BusEvent, Hook, Location, OwnershipChange};
pub use telemetry::Propagator;
pub(crate) use telemetry::labels;
