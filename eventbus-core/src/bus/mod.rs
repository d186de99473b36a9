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

/// An event bus: publishes envelopes and has them handled, in order per key, on whatever broker is behind it.
///
/// The trait is small, dyn-safe and without default methods, so that a wrapper cannot silently lose behaviour. A
/// wrapper that changes little implements [`ForwardBus`](forward::ForwardBus); conveniences are in
/// [`EventBusExt`](crate::EventBusExt). Share the bus as `Arc<dyn EventBus>`.
///
/// Dropping the last handle of a bus resolves every pending publish, one way or the other (S7).
#[async_trait]
pub trait EventBus: fmt::Debug + Send + Sync + 'static {
    /// Publishes one envelope.
    ///
    /// This is a plain function, not an `async fn`: *at the call* the envelope takes its place in the key's line and is
    /// handed over (P1), whether the future is polled or not. The future waits for room (P5) and yields a
    /// [`Confirmation`](crate::Confirmation), itself a future of the broker's answer. Dropping either withdraws
    /// nothing.
    ///
    /// # Errors
    /// Through the future: `InvalidName`, `TooLarge`, `Overloaded`, `KeySealed`, `PartitionsChanged`, `UnknownTopic`,
    /// `Closed`; through the confirmation also `Refused`, `Cascaded`, `Withdrawn`, `Unknown`, which come through the
    /// future where the publish ends before it has room. An error names the publish that was refused first.
    fn publish(&self, topic: &str, envelope: Envelope) -> Publishing;

    /// Publishes several envelopes to one topic, in this order. All take their places at the call, or none does (P5).
    fn publish_batch(&self, topic: &str, envelopes: Vec<Envelope>) -> BatchPublishing;

    /// Unseals a key after a refusal (P2). `None` unseals the topic itself, which is sealed when too many of its keys
    /// were.
    ///
    /// # Errors
    /// `InvalidName` where `topic` is no valid name. Unsealing a key or a topic that is not sealed is no error.
    fn resume(&self, topic: &str, key: Option<&Key>) -> Result<()>;

    /// Joins a group as one member and has `handler` called with the topic's envelopes, those of a key strictly in
    /// order (S1).
    ///
    /// # Errors
    /// `UnknownTopic`, `UnsafeConfig` (S8), `InvalidConfig`, `Unsupported`, `Closed`, and the broker's errors.
    async fn subscribe(&self, options: Subscribe, handler: Arc<dyn Handler>) -> Result<Subscription>;

    /// Makes a topic as the spec says; [`OnExisting`](crate::OnExisting) has the ways to treat an existing one.
    /// Idempotent.
    async fn ensure_topic(&self, spec: &TopicSpec) -> Result<TopicDescription>;

    /// Describes a topic. Never creates one.
    async fn describe_topic(&self, topic: &str) -> Result<TopicDescription>;

    /// Accepts another number of partitions for the keys of this topic: the number that the topic has by now, which
    /// `partitions` confirms.
    ///
    /// Where others change the number while a bus runs, keyed publishes fail with `PartitionsChanged` until this call,
    /// since a key may move to another partition: an envelope published after the call can be handled before one
    /// published earlier. The call waits until all keyed publishes of the topic are over. Where the order across the
    /// change matters, wait until they are handled, too, before you call. Publishes without a key are not affected.
    ///
    /// Cancel safe: keyed publishes go on failing.
    ///
    /// # Errors
    /// `TopicMismatch` where the topic has another number than `partitions`; `UnknownTopic`, `Closed`, and the broker's
    /// errors.
    async fn accept_partitions(&self, topic: &str, partitions: u32) -> Result<()>;

    /// Deletes a topic with its records.
    async fn delete_topic(&self, topic: &str) -> Result<()>;

    /// Lists all topics, by name.
    async fn list_topics(&self) -> Result<Vec<String>>;

    /// Lists the groups of a topic, by name.
    async fn list_groups(&self, topic: &str) -> Result<Vec<String>>;

    /// Describes a group's members, progress and lag on a topic. Lag is a count of records.
    async fn describe_group(&self, topic: &str, group: &str) -> Result<GroupDescription>;

    /// Moves a group's progress to another start. `GroupActive` where the group has active members.
    async fn reset_group(&self, topic: &str, group: &str, to: &StartFrom) -> Result<()>;

    /// Forgets a group's progress. `GroupActive` where the group has active members.
    async fn delete_group(&self, topic: &str, group: &str) -> Result<()>;

    /// Tells whether the broker answers.
    async fn health(&self) -> Health;

    /// Returns what the backend can do.
    fn capabilities(&self) -> Capabilities;

    /// Closes all subscriptions, stops taking publishes, resolves those in flight and ends the connections, all within
    /// `deadline` (S7). Handlers that finish meanwhile can still publish. Cancel safe; a second call waits for the
    /// first.
    ///
    /// # Errors
    /// `DeadlineExceeded`, which says what was abandoned; `WouldDeadlock` inside a handler of this bus.
    async fn close(&self, deadline: Duration) -> Result<()>;
}
