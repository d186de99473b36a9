//! An event bus with one promise: **events of one key are stored and handled strictly in order, with full concurrency
//! across keys, even when handlers fail, connections drop, brokers are killed, and members come and go.**
//!
//! Services use one trait, [`EventBus`]. Behind it is memory, NATS JetStream (feature `nats`) or Kafka (feature
//! `kafka`); the URL or the configuration alone chooses which.
//!
//! | to | see |
//! |---|---|
//! | [publish](#publishing) | [`EventBus::publish`], [`Envelope`], [`Publishing`], [`Confirmation`] |
//! | [handle](#handling) | [`EventBus::subscribe`], [`Subscribe`], [`Delivery`], [`Router`], [`Subscription`] |
//! | [decide about failures](#failure) | [`HandlerError`], [`FailurePolicy`], [`dead_letter`] |
//! | [test a service](#testing) | [`memory`], [`memory::testing`] |
//! | [configure](#configuration) | [`connect`], [`EventBusConfig`], [`config`] |
//! | observe and intervene | [`admin`], [`observe`], [`layer`] |
//! | write a backend | [`backend`] |
//!
//! # Publishing
//!
//! A call of [`publish`](EventBus::publish) takes the envelope's place in its key's line at once. The future that it
//! returns waits for room in the bus's budget and yields a confirmation, itself a future of the broker's answer. Await
//! either at once, later, or never: the order does not depend on it.
//!
//! ```
//! use eventbus::{Envelope, EventBus, Result};
//!
//! async fn place_order(bus: &dyn EventBus, order: &str) -> Result<()> {
//!     let envelope = |event_type| Envelope::builder(event_type, "/shop").key(order).json(&12).build();
//!     let placed = bus.publish("orders", envelope("OrderPlaced")?).await?;
//!     let paid = bus.publish("orders", envelope("OrderPaid")?).await?;
//!     let receipt = placed.confirmed().await?;
//!     println!("partition {}, position {}", receipt.partition, receipt.position);
//!     paid.confirmed().await?;
//!     Ok(())
//! }
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! # let bus = eventbus::connect("memory://").await?;
//! # bus.ensure_topic(&eventbus::TopicSpec::new("orders")).await?;
//! # place_order(&*bus, "order-42").await
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A refused publish fails the publishes queued behind it on its key, and seals the key: new publishes of the key fail
//! until you have seen the error or call [`resume`](EventBus::resume). A topic's [`AfterRefusal`] can choose another
//! reaction. While an answer is missing, the key waits, and the bus finds out what became of the record.
//!
//! # Handling
//!
//! Members of a group share a topic's partitions. Envelopes of one key are handled one at a time, in order. Different
//! keys are handled at the same time, up to the subscription's concurrency.
//!
//! ```
//! use std::time::Duration;
//! use eventbus::{Delivery, EventBus, EventBusExt, Result, Subscribe, handler_fn};
//!
//! async fn run_billing(bus: &dyn EventBus) -> Result<()> {
//!     let billing = handler_fn(|delivery: Delivery| async move {
//!         println!("{:?} {}", delivery.envelope().key(), delivery.envelope().event_type());
//!         Ok(()) // finished: the key's next envelope may start
//!     });
//!     let options = Subscribe::to("orders").group("billing").concurrency(64);
//!     let subscription = bus.subscribe(options, std::sync::Arc::new(billing)).await?;
//!     // At shutdown: finishes running handlers, commits, and leaves the group.
//!     subscription.drain(Duration::from_secs(10)).await
//! }
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! # let bus = eventbus::connect("memory://").await?;
//! # bus.ensure_topic(&eventbus::TopicSpec::new("orders")).await?;
//! # run_billing(&*bus).await
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Delivery is *at least once*: after a crash or a hand-over a handler may see an envelope again, always in order. Make
//! the handler idempotent, or fence its writes with [`Delivery::epoch`].
//!
//! # Failure
//!
//! An attempt that ends in an error, a panic or a time-out is repeated in place after a back-off: its key waits, and
//! every other key goes on. When its attempts and its time are used up, by default 5 and 10 minutes, the
//! [`FailurePolicy`] decides: dead-letter, skip or stop. A permanent error goes to the policy at once. A handler that
//! cannot work yet asks to wait: [`HandlerError::wait`]. Where envelopes of many keys fail and none succeeds, handling
//! is suspended until one does.
//!
//! ```
//! use eventbus::{Backoff, Delivery, FailurePolicy, HandlerError, Subscribe, handler_fn};
//!
//! let options = Subscribe::to("orders")
//!     .group("billing")
//!     .attempts(8)
//!     .backoff(Backoff::exponential())
//!     .then(FailurePolicy::DeadLetter);
//!
//! let billing = handler_fn(|delivery: Delivery| async move {
//!     let amount: u64 = delivery
//!         .envelope()
//!         .decode_json()
//!         .map_err(|error| HandlerError::permanent(error.to_string()))?;
//!     charge(amount).map_err(|error| HandlerError::retry(error.to_string()))
//! });
//! # fn charge(_: u64) -> Result<(), std::io::Error> { Ok(()) }
//! # let _ = (options, billing);
//! ```
//!
//! [`dead_letter::DeadLetters`] lists the envelopes that were given up. A replay publishes them to their topic again,
//! each key's in order, for the group that gave up.
//!
//! # Testing
//!
//! The in-memory backend behaves as the servers do, faults included, and runs on a paused clock if you like.
//!
//! ```
//! use std::sync::Arc;
//! use eventbus::memory::MemoryEventBus;
//! use eventbus::memory::testing::Probe;
//! use eventbus::{Envelope, EventBus, Subscribe, TopicSpec};
//!
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! let bus = MemoryEventBus::new()?;
//! bus.ensure_topic(&TopicSpec::new("orders")).await?;
//! let probe = Probe::new();
//! let _billing = bus.subscribe(Subscribe::to("orders").group("billing"), Arc::new(probe.clone())).await?;
//!
//! let placed = Envelope::builder("OrderPlaced", "/shop").key("order-42").build()?;
//! bus.publish("orders", placed).await?.confirmed().await?;
//! probe.wait_until_handled(1).await;
//! # Ok::<(), eventbus::Error>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Configuration
//!
//! A URL is enough where there is little to say. [`EventBusConfig`] is plain data: it comes from a URL, a file, the
//! environment, or all of them laid over one another ([`config::Layers`]).
//!
//! ```
//! use eventbus::EventBusConfig;
//! use eventbus::observe::BusEvent;
//!
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! let config = EventBusConfig::from_url("memory://shop?partitions=4&concurrency=64")?;
//! // Hooks, layers and clocks are not data: code adds them.
//! let bus = config.connect_with(|bus| bus.hook(|event: &BusEvent<'_>| println!("{event:?}"))).await?;
//! # drop(bus);
//! # Ok::<(), eventbus::Error>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod config;
mod connect;

pub use config::{ConfigError, EventBusConfig};
pub use connect::connect;
pub use eventbus_core::{
    AfterRefusal, Backoff, BatchConfirmation, BatchOutcome, BatchPublishing, BusConfig, Codec, Confirmation, Delivery,
    Envelope, EnvelopeBuilder, Error, ErrorKind, Event, EventBus, EventBusExt, FailurePolicy, Group, Handler,
    HandlerError, Jitter, Json, Key, OnDataLoss, OnExisting, OnLogReset, OnUnknownType, Position, Publishing, Receipt,
    Refusal, Result, Router, RouterBuilder, Stamp, StartFrom, Storage, StoredPrefix, Subscribe, Subscription, Topic,
    TopicSpec, Withdrawal, handler_fn,
};

/// The in-memory backend.
pub use eventbus_memory as memory;

/// The NATS JetStream backend.
#[cfg(feature = "nats")]
pub use eventbus_nats as nats;

/// The Kafka backend.
#[cfg(feature = "kafka")]
pub use eventbus_kafka as kafka;

/// Descriptions of topics, groups and connections, and the state of a subscription's partitions, with the key that
/// holds each of them up.
pub mod admin {
    pub use eventbus_core::{
        Capabilities, ConnectionState, GroupDescription, GroupPartition, Health, PartitionView, TopicDescription,
    };
}

/// Dead letters: how an envelope is written when its attempts are used up, and how it is listed, replayed and purged.
pub use eventbus_core::dead_letter;

/// Middleware around publishing, around handlers, and around a whole bus.
pub mod layer {
    pub use eventbus_core::{ForwardBus, HandleLayer, Publish, PublishLayer};
}

/// Observation of a bus: events for hooks, and trace context.
pub mod observe {
    pub use eventbus_core::{BusEvent, Hook, Location, OwnershipChange, Propagator, Retry};
}

/// Records of envelopes: CloudEvents 1.0 in the bindings of the brokers.
pub use eventbus_core::wire;

/// Interface for authors of backends, with the toolkit of what brokers of one kind have in common, and the engine that
/// runs on top of a backend.
pub mod backend {
    pub use eventbus_core::backend::*;
    pub use eventbus_core::{Bus, Env, ProducerId, SystemEnv, backend_bus, murmur2, settings, toolkit};
}
