//! Handling: from the records of a group's member to the handler, and back to a committed watermark.
//!
//! ```text
//!  Membership::next ──► session/mod.rs     one future per subscription; one job at a time per partition
//!                          │                 claim.rs      a higher epoch before the first handler   S5
//!                          │                 resume.rs     where handling goes on                    S3
//!                          │                 hand_back.rs  drain, commit, release                    S5 S7
//!                          ▼
//!                       pool/mod.rs        a lane per key: one handler at a time                     S1 S2 S6
//!                          │                 dedup/        second copies                             P3
//!                          │                 progress/tracker.rs  the watermark                      S4
//!                          ▼
//!                       worker.rs          as many as handlers may run at once
//!                          │                 shield.rs     panics stay inside; futures can be dropped
//!                          ▼
//!                       handler.rs         the user's code; router.rs by event type
//!                          │                 retry.rs, dead_letter.rs  what follows a failure        S2
//!                          ▼
//!  Membership::commit ◄── session/jobs.rs  watermark, and beside it progress/note.rs
//! ```
//!
//! `options.rs` holds a subscription's options, `subscription.rs` the handle that the user gets.

pub(crate) mod dead_letter;
pub(crate) mod dedup;
mod defects;
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
pub use router::{OnUnknownType, Router, RouterBuilder};
pub(crate) use session::{CloseBy, HAND_BACK_GRACE, Session, SessionContext};
pub(crate) use shield::Scope;
pub(crate) use subscription::Running;
pub use subscription::Subscription;
pub(crate) use telemetry::HandleTelemetry;
pub(crate) use worker::Workers;
