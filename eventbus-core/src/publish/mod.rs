//! Publishing: from the call of `publish` to the broker, and back to a confirmation.
//!
//! ```text
//!  EventBus::publish(topic, envelope)
//!     │  layer.rs       users' middleware          telemetry.rs   span, trace context
//!     ▼
//!  lanes/mod.rs         the lanes of the topic
//!     ▼
//!  lanes/call.rs        under the lock of the key's shard: number, seal, place in the queue, room in the budget
//!     ▼                                            └── completion.rs: the caller's end of the publish
//!  lanes/shard.rs       which queued envelopes may be submitted now
//!     ▼
//!  lanes/effects.rs     outside of the lock, by a serial queue per partition
//!     ▼
//!  Backend::submit(record, ticket)
//!     ▼
//!  Ticket::tell(fate) ──► lanes/shard.rs ──► completion.rs ──► confirmation.rs, batch_confirmation.rs
//! ```
//!
//! | rule | file |
//! |---|---|
//! | P1 order of the calls | `lanes/shard.rs` |
//! | P2 no hole, no overtaking | `lanes/shard.rs`; `seal.rs` for the keys that a refusal seals |
//! | P3 one copy | `lanes/find_stamp.rs` |
//! | P5 fair room | `budget.rs` |
//!
//! No task is made for a message: lanes are data, and one driver per bus ([`lanes::LanesDriver`]) looks after timers.

mod batch_confirmation;
mod budget;
mod completion;
mod config;
mod confirmation;
mod lanes;
mod layer;
mod seal;
mod telemetry;

pub use batch_confirmation::{BatchConfirmation, BatchOutcome, BatchPublishing, StoredPrefix};
pub(crate) use config::PublishConfig;
pub use confirmation::{Confirmation, Publishing};
pub(crate) use lanes::Lanes;
pub use layer::{Publish, PublishLayer};
pub(crate) use telemetry::Traced;
