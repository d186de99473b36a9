//! [`NatsEventBus`]: the core's engine on this backend.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use eventbus_core::backend::{Capabilities, GroupDescription, Health, TopicDescription};
use eventbus_core::{
    BatchPublishing, Bus, BusConfig, Envelope, EventBus, Handler, Key, Publishing, Result, StartFrom, Subscribe,
    Subscription, TopicSpec,
};

use crate::backend::NatsBackend;
use crate::config::NatsConfig;

/// An event bus on JetStream.
pub struct NatsEventBus {
    bus: Bus,
}

impl NatsEventBus {
    /// Connects, with the core's settings at their defaults.
    ///
    /// # Errors
    /// `InvalidConfig` or `UnsafeConfig` naming the setting; `Unauthorized` for wrong credentials, at once;
    /// `PermissionDenied` and `Unsupported` where the server or the account lacks what is needed; `Unavailable` where no
    /// server can be reached.
    pub async fn connect(config: NatsConfig) -> Result<Self> {
        Self::connect_with(config, BusConfig::new()).await
    }

    /// Connects, with settings of the core.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn connect_with(config: NatsConfig, bus: BusConfig) -> Result<Self> {
        config.validate()?;
        Ok(Self { bus: Bus::connect(Arc::new(NatsBackend::new(config)), bus).await? })
    }
}

impl fmt::Debug for NatsEventBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsEventBus").finish_non_exhaustive()
    }
}

#[async_trait]
impl EventBus for NatsEventBus {
    fn publish(&self, topic: &str, envelope: Envelope) -> Publishing {
        self.bus.publish(topic, envelope)
    }

    fn publish_batch(&self, topic: &str, envelopes: Vec<Envelope>) -> BatchPublishing {
        self.bus.publish_batch(topic, envelopes)
    }

    fn resume(&self, topic: &str, key: Option<&Key>) -> Result<()> {
        self.bus.resume(topic, key)
    }

    async fn subscribe(&self, options: Subscribe, handler: Arc<dyn Handler>) -> Result<Subscription> {
        self.bus.subscribe(options, handler).await
    }

    async fn ensure_topic(&self, spec: &TopicSpec) -> Result<TopicDescription> {
        self.bus.ensure_topic(spec).await
    }

    async fn describe_topic(&self, topic: &str) -> Result<TopicDescription> {
        self.bus.describe_topic(topic).await
    }

    async fn delete_topic(&self, topic: &str) -> Result<()> {
        self.bus.delete_topic(topic).await
    }

    async fn list_topics(&self) -> Result<Vec<String>> {
        self.bus.list_topics().await
    }

    async fn list_groups(&self, topic: &str) -> Result<Vec<String>> {
        self.bus.list_groups(topic).await
    }

    async fn describe_group(&self, topic: &str, group: &str) -> Result<GroupDescription> {
        self.bus.describe_group(topic, group).await
    }

    async fn reset_group(&self, topic: &str, group: &str, to: &StartFrom) -> Result<()> {
        self.bus.reset_group(topic, group, to).await
    }

    async fn delete_group(&self, topic: &str, group: &str) -> Result<()> {
        self.bus.delete_group(topic, group).await
    }

    async fn health(&self) -> Health {
        self.bus.health().await
    }

    fn capabilities(&self) -> Capabilities {
        self.bus.capabilities()
    }

    async fn close(&self, deadline: Duration) -> Result<()> {
        self.bus.close(deadline).await
    }
}
