//! [`EventBus`]: the one trait that users see.

mod config;
mod engine;
mod ext;
mod forward;
pub(crate) mod replay;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::backend::{Capabilities, GroupDescription, Health, TopicDescription};
use crate::model::{Envelope, Key, Result, TopicSpec};
use crate::publish::{BatchPublishing, Publishing};
use crate::subscribe::{Handler, StartFrom, Subscribe, Subscription};

pub use config::{BusConfig, Threads};
pub use engine::Bus;
pub use ext::{Confirmed, EventBusExt};
pub use forward::ForwardBus;

/// Publishes envelopes and has them handled, in order per key, on whatever broker is behind it.
///
/// The trait is small, dyn-safe and without default methods, so that a wrapper cannot silently lose behaviour (one that
/// changes little implements [`ForwardBus`](forward::ForwardBus)); conveniences are in [`EventBusExt`](crate::EventBusExt). Share it as `Arc<dyn EventBus>`.
///
/// Dropping the last handle of a bus resolves every pending publish, one way or the other (S7).
#[async_trait]
pub trait EventBus: fmt::Debug + Send + Sync + 'static {
    /// Publishes one envelope.
    ///
    /// A plain function, not an `async fn`: its place in the key's line is taken and the envelope handed over *at the
    /// call* (P1), whether the future is polled or not. The future waits for room (P5) and yields a
    /// [`Confirmation`](crate::Confirmation), itself a future of the broker's answer. Dropping either withdraws nothing.
    ///
    /// # Errors
    /// Through the future: `InvalidName`, `TooLarge`, `Overloaded`, `KeySealed`, `UnknownTopic`, `Closed`; through the
    /// confirmation also `Refused`, `Cascaded`, `Withdrawn`, `Unknown`. An error names the publish that was refused first.
    fn publish(&self, topic: &str, envelope: Envelope) -> Publishing;

    /// Publishes several envelopes to one topic, in this order. All places are taken at the call, or none (P5).
    fn publish_batch(&self, topic: &str, envelopes: Vec<Envelope>) -> BatchPublishing;

    /// Unseals a key after a refusal (P2); `None` unseals the topic, if so many keys were sealed that it was.
    ///
    /// # Errors
    /// `InvalidName` for a topic that is not one. Unsealing what is not sealed is no error.
    fn resume(&self, topic: &str, key: Option<&Key>) -> Result<()>;

    /// Joins a group as one member and handles the topic's envelopes, one key's strictly in order (S1).
    ///
    /// # Errors
    /// `UnknownTopic`, `UnsafeConfig` (S8), `InvalidConfig`, `Unsupported`, `Closed`, and what the broker says.
    async fn subscribe(&self, options: Subscribe, handler: Arc<dyn Handler>) -> Result<Subscription>;

    /// Makes a topic be as the spec says; see [`TopicSpec`] for the ways to treat an existing one. Idempotent.
    async fn ensure_topic(&self, spec: &TopicSpec) -> Result<TopicDescription>;

    /// Describes a topic. Never creates one.
    async fn describe_topic(&self, topic: &str) -> Result<TopicDescription>;

    /// Has keys of this topic go by another number of partitions: the one that the topic has by now, as `partitions` confirms.
    ///
    /// Where others change the number while a bus runs, keyed publishes fail with `PartitionsChanged` until this is called, since a key
    /// may move: what is published to it after this can be handled before what was published to it earlier. This waits until all keyed
    /// publishes of the topic are over; wait until they are handled, too, before calling it, where the order across the change matters.
    /// Publishes without a key are not concerned.
    ///
    /// Cancel safe: publishes go on failing.
    ///
    /// # Errors
    /// `TopicMismatch` where the topic has another number; `UnknownTopic`, `Closed`, and what the broker says.
    async fn accept_partitions(&self, topic: &str, partitions: u32) -> Result<()>;

    /// Deletes a topic with its records.
    async fn delete_topic(&self, topic: &str) -> Result<()>;

    /// All topics, by name.
    async fn list_topics(&self) -> Result<Vec<String>>;

    /// The groups of a topic, by name.
    async fn list_groups(&self, topic: &str) -> Result<Vec<String>>;

    /// A group's members, progress and lag on a topic. Lag is a count of records.
    async fn describe_group(&self, topic: &str, group: &str) -> Result<GroupDescription>;

    /// Puts a group without active members to another start; `GroupActive` otherwise.
    async fn reset_group(&self, topic: &str, group: &str, to: &StartFrom) -> Result<()>;

    /// Forgets a group without active members; `GroupActive` otherwise.
    async fn delete_group(&self, topic: &str, group: &str) -> Result<()>;

    /// Whether the broker answers.
    async fn health(&self) -> Health;

    /// What the backend can do.
    fn capabilities(&self) -> Capabilities;

    /// Closes all subscriptions, stops taking publishes, resolves what is in flight and ends the connections, all within
    /// `deadline` (S7). Handlers that finish meanwhile can still publish. Cancel safe; a second call waits for the first.
    ///
    /// # Errors
    /// `DeadlineExceeded` says what was abandoned; `WouldDeadlock` inside a handler of this bus.
    async fn close(&self, deadline: Duration) -> Result<()>;
}
