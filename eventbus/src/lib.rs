//! An event bus that keeps the order of each key, whatever fails.
//!
//! This crate is the front door: it re-exports what users need of the core, and makes a bus of a URL or a configuration.
//! Nothing but the URL says which broker is behind it.
//!
//! ```
//! use eventbus::{Delivery, Envelope, EventBusExt, Subscribe, TopicSpec, handler_fn};
//!
//! # async fn example() -> eventbus::Result<()> {
//! let bus = eventbus::connect("memory://shop").await?;
//! bus.ensure_topic(&TopicSpec::new("orders")).await?;
//!
//! let billing = handler_fn(|delivery: Delivery| async move {
//!     println!("{} {:?}", delivery.envelope().event_type(), delivery.envelope().key());
//!     Ok(())
//! });
//! let subscription = bus.subscribe(Subscribe::to("orders").group("billing"), billing).await?;
//!
//! let placed = Envelope::builder("OrderPlaced", "/shop").key("order-42").json(&12).build()?;
//! let receipt = bus.publish_confirmed("orders", placed).await?;
//! println!("partition {}, position {}", receipt.partition, receipt.position);
//! subscription.drain(std::time::Duration::from_secs(10)).await?;
//! # Ok(())
//! # }
//! # tokio::runtime::Runtime::new().map_err(|e| e.to_string()).map(|rt| rt.block_on(example()).map_err(|e| e.to_string()))??;
//! # Ok::<(), String>(())
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`config`] | [`EventBusConfig`]: a bus as plain data, from a URL or TOML, and what may be set in it |
//! | [`connect`](mod@connect) | a bus of a URL or a configuration |
//! | [`memory`] | the in-memory backend, for tests of one's own services |
//! | `nats` | NATS JetStream, with the feature `nats` |
//! | `kafka` | Kafka, with the feature `kafka` |
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod config;
pub mod connect;

pub use config::{ConfigError, EventBusConfig};
pub use connect::{connect, connect_customized, connect_with};
pub use eventbus_core::*;
/// The Kafka backend.
#[cfg(feature = "kafka")]
pub use eventbus_kafka as kafka;
/// The in-memory backend.
pub use eventbus_memory as memory;
/// The NATS JetStream backend.
#[cfg(feature = "nats")]
pub use eventbus_nats as nats;
