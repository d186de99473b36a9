//! [`KafkaBackend`]: the core's interface on Kafka.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use eventbus_core::backend::{
    Backend, Capabilities, ConnectionState, GroupDescription, Health, Join, Membership, Opened, Outbound, Pipelining,
    Scans, TopicDescription,
};
use eventbus_core::coordinated::OVERSHOOT;
use eventbus_core::settings::unsafe_setting;
use eventbus_core::{Group, Position, Result, Stamp, Ticket, Topic, TopicSpec};
use futures_util::future::join_all;

use crate::config::KafkaConfig;
use crate::connection::Link;
use crate::consumer::{self, KafkaMember};
use crate::error::gone;
use crate::groups::{self, Groups};
use crate::note::Stored;
use crate::producer::{Producer, Records};
use crate::scan;
use crate::topics::{self, Topics};

/// A connection to Kafka, made by [`open`](Backend::open), as a backend of the core.
///
/// Put it under [`Bus`](eventbus_core::Bus) with [`Bus::connect`](eventbus_core::Bus::connect), or use
/// [`KafkaEventBus`](crate::KafkaEventBus).
pub struct KafkaBackend {
    config: KafkaConfig,
    link: Opened<Link>,
    producer: Arc<Producer>,
    scans: Arc<Scans>,
    /// Those that joined by it; none joins any more once it is closed.
    members: Mutex<Option<Vec<Weak<KafkaMember>>>>,
}

impl KafkaBackend {
    /// A backend with these settings, which are checked when it connects.
    #[must_use]
    pub fn new(config: KafkaConfig) -> Self {
        let members = Mutex::new(Some(Vec::new()));
        Self { config, link: Opened::default(), producer: Producer::new(), scans: Arc::default(), members }
    }

    /// Deletes all topics and groups under this backend's prefix. For tools that work under a prefix of their own; the backend
    /// must be open.
    ///
    /// # Errors
    /// `UnsafeConfig` without a prefix, where that would be all there is; what the broker says. Cancel safe: what is left
    /// can be removed by another call.
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

    fn groups(&self, topic: &Topic) -> Result<Groups> {
        Ok(Groups::new(Arc::clone(self.link.get()?), topic))
    }
}

impl fmt::Debug for KafkaBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaBackend").field("config", &self.config).finish_non_exhaustive()
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
        // A new producer's copy is not known to the broker: the log is read first.
        capabilities.resend_window = Some(Duration::ZERO);
        capabilities.note_bytes = Stored::NOTE_BYTES;
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

    async fn find_stamp(
        &self,
        topic: &Topic,
        partition: u32,
        from: Position,
        stamp: Stamp,
    ) -> Result<Option<Position>> {
        let (scans, topic) = (Arc::clone(&self.scans), topic.clone());
        self.link.get()?.run(move |link| scan::find(link, &scans, &topic, partition, from, stamp)).await
    }

    async fn position_at(&self, topic: &Topic, partition: u32, unix_millis: u64) -> Result<Position> {
        let name = self.config.topic(topic);
        let question = move |link: &Link| scan::position_at(link, &name, partition, unix_millis);
        self.link.get()?.ask("asking for a position by time", question).await
    }

    async fn join(&self, join: Join) -> Result<Arc<dyn Membership>> {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(members) = members.as_mut() else { return Err(gone()) };
        let member = Arc::new(consumer::join(self.link.get()?, &join)?);
        members.retain(|known| known.strong_count() > 0);
        members.push(Arc::downgrade(&member));
        Ok(member)
    }

    async fn list_groups(&self, topic: &Topic) -> Result<Vec<Group>> {
        self.groups(topic)?.list().await
    }

    async fn describe_group(&self, topic: &Topic, group: &Group) -> Result<GroupDescription> {
        self.groups(topic)?.describe(group).await
    }

    async fn reset_group(&self, topic: &Topic, group: &Group, to: &[(u32, Position)]) -> Result<()> {
        self.groups(topic)?.reset(group, to).await
    }

    async fn delete_group(&self, topic: &Topic, group: &Group) -> Result<()> {
        self.groups(topic)?.delete(group).await
    }

    async fn health(&self) -> Health {
        let Ok(link) = self.link.get() else { return Health::new(ConnectionState::Disconnected) };
        match link.metadata(None).await {
            Ok(metadata) => {
                link.reached.set(true);
                let mut health = Health::new(ConnectionState::Connected);
                health.server = Some("Apache Kafka".into());
                health.details.push(("brokers".into(), metadata.brokers().len().to_string()));
                health.details.push(("topics".into(), metadata.topics().len().to_string()));
                health
            }
            Err(error) => {
                link.reached.set(false);
                let mut health = Health::new(ConnectionState::Disconnected);
                health.details.push(("error".into(), error.to_string()));
                health
            }
        }
    }

    async fn close(&self) -> Result<()> {
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default();
        let leaving = members.iter().filter_map(Weak::upgrade).map(|member| async move { member.leave().await });
        // Most have left; a group does not wait for the session of one that had not.
        join_all(leaving).await;
        self.producer.close().await;
        Ok(())
    }
}
