//! An event bus with one promise: **events of one key are stored and handled strictly in order, with full concurrency across
//! keys, also when handlers fail, connections drop, brokers are killed and members come and go.**
//!
//! One trait, [`EventBus`]; behind it memory, NATS JetStream (feature `nats`) or Kafka (feature `kafka`), chosen by the URL or
//! the configuration alone.
//!
//! | to | see |
//! |---|---|
//! | [publish](#publishing) | [`EventBus::publish`], [`Envelope`], [`Publishing`], [`Confirmation`] |
//! | [handle](#handling) | [`EventBus::subscribe`], [`Subscribe`], [`Delivery`], [`Router`], [`Subscription`] |
//! | [decide about failures](#failure) | [`HandlerError`], [`FailurePolicy`], [`dead_letter`] |
//! | [test a service](#testing) | [`memory`], [`memory::testing`] |
//! | [configure](#configuration) | [`connect`], [`EventBusConfig`], [`config`] |
//! | look and intervene | [`admin`], [`observe`], [`layer`] |
//! | write a backend | [`backend`] |
//!
//! # Publishing
//!
//! `publish` takes the place in its key's line when it is *called*. The future waits for room in the bus's budget, and gives a
//! confirmation, which waits for the broker. Await it at once, later, or never: order does not depend on it.
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
//! A refused publish fails what is queued behind it and seals its key, until you have seen the error or call
//! [`resume`](EventBus::resume). An answer that is missing makes the key wait, and the bus ask again.
//!
//! # Handling
//!
//! Members of a group share a topic's partitions; each key is handled in order, different keys at once, up to the concurrency.
//!
//! ```
//! use std::time::Duration;
//! use eventbus::{Delivery, EventBus, EventBusExt, Result, Subscribe, handler_fn};
//!
//! async fn run_billing(bus: &dyn EventBus) -> Result<()> {
//!     let billing = handler_fn(|delivery: Delivery| async move {
//!         println!("{:?} {}", delivery.envelope().key(), delivery.envelope().event_type());
//!         Ok(()) // finished: the key's next may start
//!     });
//!     let options = Subscribe::to("orders").group("billing").concurrency(64);
//!     let subscription = bus.subscribe(options, std::sync::Arc::new(billing)).await?;
//!     // On the way out: finishes what runs, commits, and leaves the group.
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
//! Delivery is *at least once*: after a crash or a hand-over a handler may see an envelope again, always in order. Make it
//! idempotent, or fence its writes by [`Delivery::epoch`].
//!
//! # Failure
//!
//! An error, a panic or a time-out is tried again in place, with back-off: the key waits, every other key goes on. When the
//! attempts are used up the policy decides; a permanent error goes to it at once.
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
//! [`dead_letter::DeadLetters`] lists what was given up, and replays it in its place in the key's line.
//!
//! # Testing
//!
//! The backend in memory behaves as the servers do, down to what goes wrong, on a paused clock if you like.
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
//! A URL says it all where little is to be said; a configuration is plain data, from a file or the environment.
//!
//! ```
//! use eventbus::EventBusConfig;
//! use eventbus::observe::BusEvent;
//!
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! let config = EventBusConfig::from_url("memory://shop?partitions=4&concurrency=64")?;
//! // Hooks, layers and clocks are no data: they are added in code.
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

/// Topics, groups and connections as they are described, and which key of a subscription holds what up.
pub mod admin {
    pub use eventbus_core::{
        Capabilities, ConnectionState, GroupDescription, GroupPartition, Health, PartitionView, TopicDescription,
    };
}

/// Dead letters: what is written when an envelope's attempts are used up, and how it comes back.
pub use eventbus_core::dead_letter;

/// Middleware around publishing and around handlers, and around a whole bus.
pub mod layer {
    pub use eventbus_core::{ForwardBus, HandleLayer, Publish, PublishLayer};
}

/// What a bus tells of itself: events for hooks, and trace context.
pub mod observe {
    pub use eventbus_core::{BusEvent, Hook, Location, OwnershipChange, Propagator};
}

/// Envelopes as records: CloudEvents 1.0 in the bindings of the brokers.
pub use eventbus_core::wire;

/// For authors of backends: the interface, what brokers of one kind have in common, and the engine to put under it.
pub mod backend {
    pub use eventbus_core::backend::*;
    pub use eventbus_core::{Bus, Env, ProducerId, SystemEnv, backend_bus, murmur2, settings, toolkit};
}
