//! The engine of an event bus that keeps the order of each key: the user's trait, the code that makes the ordering
//! contract true, and the interface that backends implement.
//!
//! Services use the crate `eventbus`, which chooses a backend by configuration. This crate is for readers who want to
//! know how the bus works, and for authors of backends.
//!
//! # The two traits
//!
//! [`EventBus`] is the users' trait: `publish` takes a place in the key's line when it is called; `subscribe` has
//! handlers called in that order. [`Backend`](backend::Backend) is the brokers' trait: logs in partitions, groups that
//! share them, one committed record per group and partition. [`Bus`] is the engine between the two. Ordering, retries
//! and dead letters are no backend's business.
//!
//! ```
//! use eventbus_core::{Envelope, EventBus, Result};
//!
//! async fn place_order(bus: &dyn EventBus) -> Result<()> {
//!     let placed = Envelope::builder("OrderPlaced", "/shop").key("order-42").build()?;
//!     let paid = Envelope::builder("OrderPaid", "/shop").key("order-42").build()?;
//!     // Both places are taken here, in this order; awaiting only listens.
//!     let (placed, paid) = (bus.publish("orders", placed), bus.publish("orders", paid));
//!     placed.await?.confirmed().await?;
//!     paid.await?.confirmed().await?;
//!     Ok(())
//! }
//! ```
//!
//! # The two data paths
//!
//! ```text
//!             publish                                              subscribe
//!
//!  EventBus::publish                                    Membership::next                backend
//!        │  layer, telemetry                                  │
//!        ▼                                                    ▼
//!  lanes::call     number, seal, place     P1 P2         session          one job at a time per partition
//!        │         budget                  P5                 │  claim (S5), resume (S3), hand_back (S5 S7)
//!        ▼                                                    ▼
//!  lanes::shard    what may be submitted   P2            pool             a lane per key: S1 S2 S6
//!        │                                                    │  dedup (P3), tracker (S4)
//!        ▼                                                    ▼
//!  lanes::effects  outside of the lock                   worker           shield, handler
//!        │                                                    │  retry, dead_letter: S2
//!        ▼                                                    ▼
//!  Backend::submit ──► Ticket: one of four fates         note beside the watermark ──► Membership::commit
//! ```
//!
//! # Where each rule is kept
//!
//! The ordering contract names its rules; code, tests and errors refer to them. The files that keep each rule:
//!
//! | rule | in short | file |
//! |---|---|---|
//! | P1 | envelopes of a key are stored in the order of the calls | `publish/lanes/shard.rs` |
//! | P2 | no hole, no overtaking; a refusal seals its key | `publish/lanes/shard.rs`, `publish/seal.rs` |
//! | P3 | one copy, or readers drop the second | `publish/lanes/find_stamp.rs`, `subscribe/dedup/stamps.rs` |
//! | P4 | confirmed is as durable as the topic | each backend |
//! | P5 | a key that waits delays no other | `publish/budget.rs` |
//! | S1, S6 | one handler at a time for a key, any number of keys; every queue is bounded | `subscribe/pool/mod.rs` |
//! | S2 | a failure is retried in place, then goes to the policy | `subscribe/retry.rs`, `subscribe/dead_letter.rs` |
//! | S3 | handling resumes at the watermark, right behind what is finished | `subscribe/session/resume.rs`, `subscribe/progress/note.rs` |
//! | S4 | nothing unfinished is acknowledged | `subscribe/progress/tracker.rs` |
//! | S5 | one owner of a partition at a time | `subscribe/session/claim.rs` |
//! | S7 | closing finishes what runs and loses nothing | `subscribe/session/closing.rs`, `hand_back.rs` |
//! | S8 | unsafe configurations are refused | `validate.rs` |
//!
//! # The folders
//!
//! A folder imports only from its own row and the rows above; a test enforces that. Files import each other in no
//! circle, but for the five of `publish/lanes` that decide about envelopes.
//!
//! | folder | contents |
//! |---|---|
//! | `model`, `validate`, `mutant` | the words of the bus and its errors; checks of settings; defects for tests |
//! | `runtime`, [`wire`] | clocks, locks, threads, waits; envelopes as records (CloudEvents 1.0) |
//! | [`backend`] | the interface of backends, and nothing else |
//! | [`observe`] | events for hooks, metrics, spans |
//! | `publish` | from the call to the broker and back |
//! | `subscribe` | from the broker to the handler and back |
//! | `bus` | the trait, and the engine that ties the two paths together |
//! | [`toolkit`] | code shared by backends of one kind; it imports [`backend`] and the rows above that only |
//!
//! # Reading first
//!
//! Begin with `model/envelope.rs` and `bus/mod.rs` for the words. Then follow one path: `publish/mod.rs` and
//! `publish/lanes/mod.rs`, or `subscribe/mod.rs`, `subscribe/session/mod.rs` and `subscribe/pool/mod.rs`. The invariant
//! of a file stands at its top. Authors of backends begin with [`backend`], then read [`toolkit`].
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod backend;
#[cfg(any(test, feature = "bench"))]
#[doc(hidden)]
pub mod bench;
mod bus;
mod model;
mod mutant;
pub mod observe;
mod publish;
mod runtime;
mod subscribe;
pub mod toolkit;
mod validate;
pub mod wire;

/// Dead letters: records of envelopes that a group gave up on, and the way to bring them back (S2).
pub mod dead_letter {
    pub use crate::bus::replay::{DeadLetters, GROUP, Letter, Replayed, Tell};
    pub use crate::subscribe::dead_letter::{DeadLetter, UNDECODABLE, topic_of};
}

/// Notes, stored beside a watermark; public for tests that read them.
#[doc(hidden)]
pub mod note {
    pub use crate::subscribe::progress::note::*;
    pub use crate::subscribe::progress::note_format::NoteError;
}

pub use backend::{Capabilities, ConnectionState, GroupDescription, GroupPartition, Health, TopicDescription};
pub use bus::{Bus, BusConfig, Confirmed, EventBus, EventBusExt, ForwardBus, Threads};
pub use model::{
    AfterRefusal, Codec, Envelope, EnvelopeBuilder, Error, ErrorKind, Event, Group, Json, Key, MAX_KEY_BYTES, MAX_NAME,
    OnExisting, ParseStampError, Position, ProducerId, Receipt, Refusal, Result, Stamp, Storage, Topic, TopicSpec,
    Withdrawal, murmur2,
};
#[cfg(feature = "mutants")]
pub use mutant::Mutant;
pub use observe::{BusEvent, Hook, Location, OwnershipChange, Propagator, Retry};
pub use publish::{
    BatchConfirmation, BatchOutcome, BatchPublishing, Confirmation, Publish, PublishLayer, Publishing, StoredPrefix,
};
pub use runtime::{Backoff, BackoffError, Env, Jitter, SystemEnv};
pub use subscribe::{
    Delivery, FailurePolicy, HandleLayer, Handler, HandlerError, OnDataLoss, OnLogReset, OnUnknownType, PartitionView,
    Router, RouterBuilder, StartFrom, Subscribe, Subscription, handler_fn,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_types_cross_threads() {
        fn assert<T: Send + Sync + Unpin + 'static>() {}
        assert::<Envelope>();
        assert::<EnvelopeBuilder>();
        assert::<Error>();
        assert::<Key>();
        assert::<Stamp>();
        assert::<Topic>();
        assert::<Group>();
        assert::<TopicSpec>();
        assert::<Json>();
        assert::<Router>();
        assert::<RouterBuilder>();
        assert::<wire::Binding>();
        assert::<wire::Decoded>();
        assert::<wire::DecodeContext<'static>>();
        assert::<wire::Hop>();
        assert::<wire::Peek>();
        assert::<wire::WireRecord>();
    }
}
