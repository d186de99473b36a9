//! [`KafkaBackend`]: the core's interface on Kafka.

use std::sync::Arc;
use std::time::Duration;

use crate::stamps::StampIndex;
use async_trait::async_trait;
use eventbus_core::backend::Ticket;
use eventbus_core::backend::{
    Backend, Capabilities, ConnectionState, GroupDescription, Health, Join, Membership, Outbound, Pipelining,
    TopicDescription,
};
use eventbus_core::toolkit::coordinated::OVERSHOOT;
use eventbus_core::toolkit::settings::unsafe_setting;
use eventbus_core::toolkit::{Members, Opened};
use eventbus_core::{Group, Position, Result, Stamp, Topic, TopicSpec};
use rdkafka::metadata::Metadata;

use crate::config::KafkaConfig;
use crate::connection::Link;
use crate::consumer::{self, KafkaMember};
use crate::error::to_core;
use crate::note::CommitMetadata;
use crate::producer::{Producer, Records};
use crate::topics::{self, Topics, watermarks};
use crate::{groups, scan};

/// A connection to Kafka, made by [`open`](Backend::open), as a backend of the core.
///
/// Put it under [`Bus`](eventbus_core::Bus) with [`Bus::connect`](eventbus_core::Bus::connect), or use
/// [`KafkaEventBus`](crate::KafkaEventBus).
#[derive(Debug)]
pub struct KafkaBackend {
    config: KafkaConfig,
    link: Opened<Link>,
    producer: Arc<Producer>,
    scans: Arc<StampIndex>,
    members: Members<KafkaMember>,
}

impl KafkaBackend {
    /// Makes a backend. Its settings are checked when it connects.
    #[must_use]
    pub fn new(config: KafkaConfig) -> Self {
        let (link, producer) = (Opened::default(), Producer::new());
        Self { config, link, producer, scans: Arc::default(), members: Members::default() }
    }

    /// Deletes all topics and groups under this backend's prefix. For tools with a prefix of their own; the backend
    /// must be open.
    ///
    /// # Errors
    /// `UnsafeConfig` without a prefix, since that would delete all there is; the broker's errors. Cancel safe: another
    /// call removes the rest.
    pub async fn remove_all(&self) -> Result<()> {
        if self.config.prefix.is_empty() {
            return Err(unsafe_setting("prefix", "expected one, without it this would remove the topics of all"));
        }
        self.topics()?.remove_all().await?;
        groups::remove_all(self.link.get()?).await
    }

    fn topics(&self) -> Result<Topics> {
        Ok(Topics::new(Arc::clone(self.link.get()?), Arc::clone(self.producer.known())))
    }
}

#[async_trait]
impl Backend for KafkaBackend {
    fn system(&self) -> &'static str {
        "kafka"
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.pipelining = Pipelining::PerPartition;
        capabilities.in_flight = self.config.publish_window;
        // The broker does not know a new producer's copy: the log is read first.
        capabilities.resend_window = Some(Duration::ZERO);
        capabilities.note_bytes = CommitMetadata::NOTE_BYTES;
        capabilities.overshoot = OVERSHOOT;
        capabilities.settles = topics::SETTLES;
        capabilities.partitions_change = true;
        capabilities
    }

    async fn open(&self) -> Result<()> {
        let link = Link::connect(&self.config).await?;
        self.producer.start(Records::new(&link, self.producer.known()));
        self.link.set(link)
    }

    fn in_force(&self, spec: &TopicSpec) -> Result<TopicSpec> {
        topics::in_force(spec)
    }

    async fn create_topic(&self, spec: &TopicSpec) -> Result<bool> {
        self.topics()?.create(spec).await
    }

    async fn update_topic(&self, spec: &TopicSpec) -> Result<()> {
        self.topics()?.alter(spec).await
    }

    async fn describe_topic(&self, topic: &Topic) -> Result<TopicDescription> {
        let described = self.topics()?.describe(topic).await?;
        self.producer.prepare(topic);
        Ok(described)
    }

    async fn count_partitions(&self, topic: &Topic) -> Result<u32> {
        self.topics()?.count(topic).await.map(|(partitions, _)| partitions)
    }

    async fn delete_topic(&self, topic: &Topic) -> Result<()> {
        self.topics()?.delete(topic).await
    }

    async fn list_topics(&self) -> Result<Vec<Topic>> {
        self.topics()?.list().await
    }

    fn submit(&self, record: Outbound, ticket: Ticket) {
        self.producer.submit(record, ticket);
    }

    async fn find_stamp(&self, topic: &Topic, partition: u32, low: Position, stamp: Stamp) -> Result<Option<Position>> {
        let (scans, topic, name) = (Arc::clone(&self.scans), topic.clone(), self.config.topic(topic));
        let find = move |link: &Link| {
            let log = || watermarks(link, &name, partition).map_err(|error| to_core(&error, "asking for a log's end"));
            let read = |places, each: scan::Each<'_>| scan::stamps(link, &name, partition, places, each);
            scans.find(&topic, partition, low, stamp, log, read)
        };
        self.link.get()?.run(find).await
    }

    async fn position_at(&self, topic: &Topic, partition: u32, unix_millis: u64) -> Result<Position> {
        let name = self.config.topic(topic);
        let question = move |link: &Link| scan::position_at(link, &name, partition, unix_millis);
        self.link.get()?.ask("asking for a position by time", question).await
    }

    async fn join(&self, join: Join) -> Result<Arc<dyn Membership>> {
        let link = self.link.get()?;
        Ok(self.members.join(|| consumer::join(link, &join))?)
    }

    async fn list_groups(&self, topic: &Topic) -> Result<Vec<Group>> {
        groups::list(self.link.get()?, topic).await
    }

    async fn describe_group(&self, topic: &Topic, group: &Group) -> Result<GroupDescription> {
        groups::describe(self.link.get()?, topic, group).await
    }

    async fn reset_group(&self, topic: &Topic, group: &Group, to: &[(u32, Position)]) -> Result<()> {
        groups::reset(self.link.get()?, topic, group, to).await
    }

    async fn delete_group(&self, topic: &Topic, group: &Group) -> Result<()> {
        self.describe_group(topic, group).await?;
        groups::delete(self.link.get()?, group).await
    }

    async fn health(&self) -> Health {
        let Ok(link) = self.link.get() else { return Health::new(ConnectionState::Disconnected) };
        let answer = link.metadata(None).await;
        let facts = |of: Metadata| [("brokers", of.brokers().len()), ("topics", of.topics().len())];
        link.reached.answered("Apache Kafka", answer.map(facts))
    }

    async fn close(&self) -> Result<()> {
        self.members.leave().await;
        self.producer.close().await;
        Ok(())
    }
}
