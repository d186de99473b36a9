//! [`NatsBackend`]: the core's interface on JetStream.

use std::sync::{Arc, Weak};

use async_nats::jetstream::consumer::DeliverPolicy;
use async_trait::async_trait;
use eventbus_core::backend::Ticket;
use eventbus_core::backend::{
    Backend, Capabilities, GroupDescription, Health, Join, Membership, Outbound, TopicDescription,
};
use eventbus_core::toolkit::Connectivity;
use eventbus_core::toolkit::Opened;
use eventbus_core::toolkit::lease::Leases;
use eventbus_core::{Group, Position, Result, Stamp, Topic, TopicSpec};

use crate::config::NatsConfig;
use crate::connection::Link;
use crate::consumer::{self, Delivered};
use crate::health::{capabilities, health};
use crate::producer::Producer;
use crate::reader::read_all;
use crate::store::Store;
use crate::topics::in_force;

/// A connection to JetStream, made by [`open`](Backend::open), as a backend of the core.
///
/// Put it under [`Bus`](eventbus_core::Bus) with [`Bus::connect`](eventbus_core::Bus::connect), or use
/// [`NatsEventBus`](crate::NatsEventBus).
#[derive(Debug)]
pub struct NatsBackend {
    config: NatsConfig,
    link: Opened<Link>,
    producer: Arc<Producer>,
}

impl NatsBackend {
    /// Makes a backend. Its settings are checked when it connects.
    #[must_use]
    pub fn new(config: NatsConfig) -> Self {
        let producer = Arc::new(Producer::new(&config));
        Self { config, link: Opened::default(), producer }
    }

    /// Deletes everything under this backend's prefix from the server: topics, and groups' progress, also that of
    /// topics which are gone. For tools with a prefix of their own; the backend must be open.
    ///
    /// # Errors
    /// The server's error. Cancel safe: another call removes the rest.
    pub async fn remove_all(&self) -> Result<()> {
        self.link.get()?.remove_all().await
    }

    /// The topic's groups, by the core's leases over its bucket.
    fn leases(&self, topic: &Topic) -> Result<Leases> {
        let link = Arc::clone(self.link.get()?);
        Ok(Leases::new(Arc::new(Store::new(link, topic.clone()))))
    }

    /// Finds the first record of a partition whose message id fits.
    async fn find(
        &self,
        topic: &Topic,
        partition: u32,
        start: DeliverPolicy,
        mut fits: impl FnMut(&Delivered) -> bool + Send,
    ) -> Result<Option<Position>> {
        let link = self.link.get()?;
        let names = link.names(topic);
        let subject = names.partition(partition);
        let mut found = None;
        let read = read_all(link, &names.stream, &subject, start, true, |delivered| {
            if fits(&delivered) {
                found = Some(delivered.place.position);
            }
            found.is_none()
        });
        read.await?;
        Ok(found)
    }
}

#[async_trait]
impl Backend for NatsBackend {
    fn system(&self) -> &'static str {
        "nats"
    }

    fn capabilities(&self) -> Capabilities {
        capabilities(&self.config)
    }

    async fn open(&self) -> Result<()> {
        self.config.validate()?;
        let producer: Weak<Producer> = Arc::downgrade(&self.producer);
        let link = Link::connect(&self.config, Connectivity::heard_by(producer)).await?;
        self.producer.start(&link).await?;
        self.link.set(link)
    }

    fn in_force(&self, spec: &TopicSpec) -> Result<TopicSpec> {
        Ok(in_force(spec))
    }

    async fn create_topic(&self, spec: &TopicSpec) -> Result<bool> {
        self.link.get()?.create_topic(spec).await
    }

    async fn update_topic(&self, spec: &TopicSpec) -> Result<()> {
        self.link.get()?.update_topic(spec).await
    }

    async fn describe_topic(&self, topic: &Topic) -> Result<TopicDescription> {
        self.link.get()?.describe_topic(topic).await
    }

    async fn count_partitions(&self, topic: &Topic) -> Result<u32> {
        Ok(self.describe_topic(topic).await?.spec.partitions)
    }

    async fn delete_topic(&self, topic: &Topic) -> Result<()> {
        self.link.get()?.delete_topic(topic).await
    }

    async fn list_topics(&self) -> Result<Vec<Topic>> {
        self.link.get()?.list_topics().await
    }

    fn submit(&self, record: Outbound, ticket: Ticket) {
        self.producer.submit(record, ticket);
    }

    async fn find_stamp(&self, topic: &Topic, partition: u32, low: Position, stamp: Stamp) -> Result<Option<Position>> {
        let stamp = stamp.to_string();
        self.find(topic, partition, consumer::from(low), |record| record.id().is_some_and(|id| id == stamp)).await
    }

    async fn position_at(&self, topic: &Topic, partition: u32, unix_millis: u64) -> Result<Position> {
        // The end is taken before the search, so that records stored meanwhile are not missed.
        let before = self.link.get()?.describe_topic(topic).await?;
        let end = before.partitions.first().map(|log| log.end).unwrap_or_default();
        let found = self.find(topic, partition, consumer::since(unix_millis), |_| true).await?;
        Ok(found.unwrap_or(end))
    }

    async fn join(&self, join: Join) -> Result<Arc<dyn Membership>> {
        self.leases(&join.topic.spec.validate()?)?.join(join).await
    }

    async fn list_groups(&self, topic: &Topic) -> Result<Vec<Group>> {
        self.leases(topic)?.list_groups().await
    }

    async fn describe_group(&self, topic: &Topic, group: &Group) -> Result<GroupDescription> {
        self.leases(topic)?.describe_group(group).await
    }

    async fn reset_group(&self, topic: &Topic, group: &Group, to: &[(u32, Position)]) -> Result<()> {
        self.leases(topic)?.reset_group(group, to).await
    }

    async fn delete_group(&self, topic: &Topic, group: &Group) -> Result<()> {
        self.leases(topic)?.delete_group(group).await
    }

    async fn health(&self) -> Health {
        health(self.link.get().ok()).await
    }

    async fn close(&self) -> Result<()> {
        self.producer.close();
        if let Ok(link) = self.link.get() {
            link.close().await;
        }
        Ok(())
    }
}
