//! A limit on the size of records: a layer that has it set on every topic that is made.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use eventbus_core::backend::Backend;
use eventbus_core::backend::ForwardBackend;
use eventbus_core::{Result, TopicSpec};

/// A client of the suite's own that sets the limit.
#[async_trait]
pub(super) trait Limits: fmt::Debug + Send + Sync + 'static {
    /// Limits the size of a topic's records, as the broker counts it.
    async fn limit(&self, topic: &str, bytes: usize) -> Result<()>;
}

/// The layer. `bytes` count a record's own, and those that the broker counts beside them.
#[derive(Debug)]
pub(super) struct Limited<L> {
    pub(super) inner: Arc<dyn Backend>,
    pub(super) by: L,
    pub(super) bytes: usize,
}

#[async_trait]
impl<L: Limits> ForwardBackend for Limited<L> {
    fn inner(&self) -> &dyn Backend {
        &*self.inner
    }

    async fn create_topic(&self, spec: &TopicSpec) -> Result<bool> {
        let made = self.inner.create_topic(spec).await?;
        self.by.limit(&spec.topic, self.bytes).await?;
        Ok(made)
    }
}
