//! A broker that takes records only up to a size: a layer that has the limit set on every topic that is made.

use std::sync::Arc;

use async_trait::async_trait;
use eventbus_core::backend::{
    Backend, Capabilities, GroupDescription, Health, Join, Membership, Outbound, TopicDescription,
};
use eventbus_core::{Group, Position, Result, Stamp, Ticket, Topic, TopicSpec};

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
impl Backend for Limited {
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
        let topic: Topic = made.spec.topic.parse()?;
        self.admin.limit(topic.as_str(), self.bytes + FRAME).await?;
        self.inner.describe_topic(&topic).await
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
        self.inner.join(join).await
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
