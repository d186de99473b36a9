//! A layer over a backend: what a fixture does beside it, while all else passes through.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use eventbus_core::backend::{
    Backend, Capabilities, GroupDescription, Health, Join, Membership, Outbound, TopicDescription,
};
use eventbus_core::{Group, Position, Result, Stamp, Ticket, Topic, TopicSpec};

/// What a layer does.
#[async_trait]
pub(super) trait Layer: fmt::Debug + Send + Sync + 'static {
    /// A topic was made or found as it is to be; its description, where the layer changes it.
    async fn ensured(&self, inner: &dyn Backend, made: TopicDescription) -> Result<TopicDescription> {
        let _ = inner;
        Ok(made)
    }

    /// A record is about to be submitted.
    fn submitting(&self, record: &Outbound) {
        let _ = record;
    }

    /// A member joins.
    fn joining(&self, join: &Join) {
        let _ = join;
    }

    /// A member has joined; what the bus sees of it.
    fn joined(&self, member: Arc<dyn Membership>) -> Arc<dyn Membership> {
        member
    }
}

/// A backend under a layer.
#[derive(Debug)]
pub(super) struct Layered<L> {
    inner: Arc<dyn Backend>,
    layer: L,
}

impl<L: Layer> Layered<L> {
    pub(super) fn new(inner: Arc<dyn Backend>, layer: L) -> Self {
        Self { inner, layer }
    }
}

#[async_trait]
impl<L: Layer> Backend for Layered<L> {
    fn system(&self) -> &'static str {
        self.inner.system()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn open(&self) -> Result<()> {
        self.inner.open().await
    }

    async fn ensure_topic(&self, spec: &TopicSpec) -> Result<TopicDescription> {
        let made = self.inner.ensure_topic(spec).await?;
        self.layer.ensured(&*self.inner, made).await
    }

    async fn describe_topic(&self, topic: &Topic) -> Result<TopicDescription> {
        self.inner.describe_topic(topic).await
    }

    async fn delete_topic(&self, topic: &Topic) -> Result<()> {
        self.inner.delete_topic(topic).await
    }

    async fn list_topics(&self) -> Result<Vec<Topic>> {
        self.inner.list_topics().await
    }

    fn submit(&self, record: Outbound, ticket: Ticket) {
        self.layer.submitting(&record);
        self.inner.submit(record, ticket);
    }

    async fn find_stamp(
        &self,
        topic: &Topic,
        partition: u32,
        from: Position,
        stamp: Stamp,
    ) -> Result<Option<Position>> {
        self.inner.find_stamp(topic, partition, from, stamp).await
    }

    async fn position_at(&self, topic: &Topic, partition: u32, unix_millis: u64) -> Result<Position> {
        self.inner.position_at(topic, partition, unix_millis).await
    }

    async fn join(&self, join: Join) -> Result<Arc<dyn Membership>> {
        self.layer.joining(&join);
        Ok(self.layer.joined(self.inner.join(join).await?))
    }

    async fn list_groups(&self, topic: &Topic) -> Result<Vec<Group>> {
        self.inner.list_groups(topic).await
    }

    async fn describe_group(&self, topic: &Topic, group: &Group) -> Result<GroupDescription> {
        self.inner.describe_group(topic, group).await
    }

    async fn reset_group(&self, topic: &Topic, group: &Group, to: &[(u32, Position)]) -> Result<()> {
        self.inner.reset_group(topic, group, to).await
    }

    async fn delete_group(&self, topic: &Topic, group: &Group) -> Result<()> {
        self.inner.delete_group(topic, group).await
    }

    async fn health(&self) -> Health {
        self.inner.health().await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}
