//! A broker that takes records only up to a size: a layer that has the limit set on every topic that is made.

use std::fmt;

use async_trait::async_trait;
use eventbus_core::backend::{Backend, TopicDescription};
use eventbus_core::{Result, Topic};

use super::layer::Layer;

/// What sets the limit: a client of the suite's own.
#[async_trait]
pub(super) trait Limits: fmt::Debug + Send + Sync + 'static {
    /// Limits the size of a topic's records, as the broker counts it.
    async fn limit(&self, topic: &str, bytes: usize) -> Result<()>;
}

/// The layer. `bytes` are a record's own, and what the broker counts beside them.
#[derive(Debug)]
pub(super) struct Limited<L> {
    pub(super) by: L,
    pub(super) bytes: usize,
}

#[async_trait]
impl<L: Limits> Layer for Limited<L> {
    async fn ensured(&self, inner: &dyn Backend, made: TopicDescription) -> Result<TopicDescription> {
        let topic: Topic = made.spec.topic.parse()?;
        self.by.limit(topic.as_str(), self.bytes).await?;
        inner.describe_topic(&topic).await
    }
}
