//! An event bus that keeps the order of each key: the user's trait, the ordering engine, and the interface that backends
//! implement.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod backend;
mod backoff;
#[cfg(any(test, feature = "bench"))]
#[doc(hidden)]
pub mod bench;
mod bus;
mod by_id;
mod config;
mod connectivity;
pub mod coordinated;
#[doc(hidden)]
pub mod copies;
pub mod dead_letter;
mod engine;
mod env;
mod envelope;
mod error;
mod ext;
#[doc(hidden)]
pub mod finished;
pub mod flights;
pub mod forward;
mod handler;
mod hooks;
mod key;
mod lanes;
pub mod lease;
mod membership;
mod middleware;
mod mutant;
mod named;
#[doc(hidden)]
pub mod note;
mod own_thread;
mod partition;
pub mod pipeline;
mod pool;
mod position;
mod publishing;
pub mod replay;
mod resume;
mod retry;
#[doc(hidden)]
pub mod room;
mod router;
mod seal;
mod session;
pub mod settings;
mod shutdown;
mod stamp;
mod subscribe;
mod subscription;
mod sync;
mod telemetry;
mod ticket;
mod topic;
#[doc(hidden)]
pub mod tracker;
mod typed;
pub mod wire;
mod worker;

pub use backend::{Capabilities, ConnectionState, GroupDescription, GroupPartition, Health, TopicDescription};
pub use backoff::{Backoff, BackoffError, Jitter};
pub use bus::EventBus;
pub use config::{BusConfig, Threads};
pub use connectivity::{Connectivity, OnConnection};
pub use engine::Bus;
pub use env::{Env, SystemEnv};
pub use envelope::{Envelope, EnvelopeBuilder};
pub use error::{Error, ErrorKind, Refusal, Result};
pub use ext::{Confirmed, EventBusExt};
pub use handler::{Delivery, Handler, HandlerError, handler_fn};
pub use hooks::{BusEvent, Hook, Location, OwnershipChange};
pub use key::{Key, MAX_KEY_BYTES, murmur2};
pub use middleware::{HandleLayer, Publish, PublishLayer};
#[cfg(feature = "mutants")]
pub use mutant::Mutant;
pub use own_thread::OwnThread;
pub use pool::PartitionView;
pub use position::Position;
pub use publishing::{
    BatchConfirmation, BatchOutcome, BatchPublishing, Confirmation, Publishing, Receipt, StoredPrefix, Withdrawal,
};
pub use router::{Router, RouterBuilder, Unknown};
pub use stamp::{ProducerId, Stamp};
pub use subscribe::{FailurePolicy, OnDataLoss, OnLogReset, StartFrom, Subscribe};
pub use subscription::Subscription;
pub use telemetry::Propagator;
pub use ticket::{Ticket, TicketSink};
pub use topic::{AfterRefusal, Group, MAX_NAME, OnExisting, Storage, Topic, TopicSpec};
pub use typed::{Codec, Event, Json};

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
