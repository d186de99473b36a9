//! Handling.

pub(crate) mod dead_letter;
pub(crate) mod dedup;
mod handler;
mod options;
mod pool;
pub(crate) mod progress;
mod retry;
mod router;
mod session;
mod shield;
mod subscription;
mod telemetry;
mod worker;

pub(crate) use dead_letter::DeadLetter;
#[cfg(any(test, feature = "bench"))]
pub(crate) use handler::DeliveryContext;
pub use handler::{Delivery, HandleLayer, Handler, HandlerError, handler_fn};
#[cfg(any(test, feature = "bench"))]
pub(crate) use options::Settings;
pub use options::{FailurePolicy, OnDataLoss, OnLogReset, StartFrom, Subscribe};
pub use pool::PartitionView;
pub(crate) use pool::Pool;
#[cfg(any(test, feature = "bench"))]
pub(crate) use pool::{NextAttempt, Opening};
pub(crate) use progress::{FinishedSet, Note};
pub use router::{Router, RouterBuilder, Unknown};
pub(crate) use session::{CloseBy, HAND_BACK_GRACE, Session, SessionContext};
pub(crate) use shield::Scope;
pub(crate) use subscription::Running;
pub use subscription::Subscription;
pub(crate) use telemetry::HandleTelemetry;
pub(crate) use worker::Workers;
