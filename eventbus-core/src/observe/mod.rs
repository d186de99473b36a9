//! Observation of a bus: events for hooks ([`Hook`]), and metrics and spans under OpenTelemetry's names.
//!
//! Hooks hear of every event that a user should know and no caller is told: failed attempts, dead letters, lost
//! ownership, sealed keys, a stalled partition, a retry that lasts. They are called outside of all locks, in the order of a key.

mod descriptions;
mod events;
mod notices;
mod retry;
mod telemetry;

pub(crate) use descriptions::describe_metrics;
pub(crate) use events::Hooks;
pub use events::{BusEvent, Hook, Location, OwnershipChange};
pub(crate) use notices::RetryNotices;
pub use retry::Retry;
pub use telemetry::Propagator;
pub(crate) use telemetry::labels;
