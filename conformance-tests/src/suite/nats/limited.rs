//! A broker that takes records only up to a size: a layer that has the limit set on every topic that is made.

use std::sync::Arc;

use async_trait::async_trait;
use eventbus_core::backend::{Backend, TopicDescription};
use eventbus_core::forward::ForwardBackend;
use eventbus_core::{Result, Topic, TopicSpec};

use super::admin::Admin;

/// What a message's size has in it beside the record's own, as the backend counts it.
const FRAME: usize = 512;

#[derive(Debug)]
pub(super) struct Limited {
    inner: Arc<dyn Backend>,
    admin: Admin,
    bytes: usize,
}

impl Limited {
    pub(super) fn new(inner: Arc<dyn Backend>, admin: Admin, bytes: usize) -> Self {
        Self { inner, admin, bytes }
    }
}

#[async_trait]
impl ForwardBackend for Limited {
    fn inner(&self) -> &dyn Backend {
        &*self.inner
    }

    async fn ensure_topic(&self, spec: &TopicSpec) -> Result<TopicDescription> {
        let made = self.inner.ensure_topic(spec).await?;
        let topic: Topic = made.spec.topic.parse()?;
        self.admin.limit(topic.as_str(), self.bytes + FRAME).await?;
        self.inner.describe_topic(&topic).await
    }
}
