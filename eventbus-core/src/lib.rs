//! An event bus that keeps the order of each key: the user's trait, the ordering engine, and the interface that backends
//! implement.
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

/// Dead letters: what is written when an envelope's attempts are used up, and how it comes back (S2).
pub mod dead_letter {
    pub use crate::bus::replay::{DeadLetters, GROUP, Letter, Replayed, Tell};
    pub use crate::subscribe::dead_letter::{DeadLetter, UNDECODABLE, topic_of};
}

/// What is stored beside a watermark, for tests that read it.
#[doc(hidden)]
pub mod note {
    pub use crate::subscribe::progress::note::*;
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
pub use observe::{BusEvent, Hook, Location, OwnershipChange, Propagator};
pub use publish::{
    BatchConfirmation, BatchOutcome, BatchPublishing, Confirmation, Publish, PublishLayer, Publishing, StoredPrefix,
};
pub use runtime::{Backoff, BackoffError, Env, Jitter, SystemEnv};
pub use subscribe::{
    Delivery, FailurePolicy, HandleLayer, Handler, HandlerError, OnDataLoss, OnLogReset, PartitionView, Router,
    RouterBuilder, StartFrom, Subscribe, Subscription, Unknown, handler_fn,
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
