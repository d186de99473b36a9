//! The suite's own client, which does to a log what an operator, a retention policy or an older program does.

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use eventbus_core::wire::WireRecord;
use eventbus_core::{Position, Result};
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, ConfigSource, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{ClientConfig, FromClientConfig, FromClientConfigAndContext};
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::{ClientContext, Message};

use super::log::{self, PATIENCE, failed};
use super::names::Names;
use crate::suite::limited::Limits;

/// A client beside the ones under test, on connections that no fault strikes.
#[derive(Clone)]
pub(super) struct Admin {
    config: ClientConfig,
    admin: Arc<AdminClient<DefaultClientContext>>,
    pub(super) names: Names,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").field("names", &self.names).finish_non_exhaustive()
    }
}

/// The error of the first thing that an operation did not do.
fn all<T>(what: &str, results: Vec<std::result::Result<T, (String, RDKafkaErrorCode)>>) -> Result<()> {
    let failure = results.into_iter().find_map(std::result::Result::err);
    failure.map_or(Ok(()), |(name, code)| Err(failed(what, format!("{name}: {code}"))))
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE))
}

/// The context of a producer, which keeps the report of a record.
#[derive(Debug, Default)]
struct Told(Mutex<Option<std::result::Result<i64, String>>>);

impl ClientContext for Told {}

impl ProducerContext for Told {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let told = match result {
            Ok(stored) => Ok(stored.offset()),
            Err((error, _)) => Err(error.to_string()),
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(told);
    }
}

impl Admin {
    pub(super) fn connect(server: SocketAddr, names: Names) -> Result<Self> {
        let mut config = ClientConfig::new();
        for (name, value) in [
            ("bootstrap.servers", &*server.to_string()),
            ("broker.address.family", "v4"),
            ("reconnect.backoff.ms", "50"),
            ("reconnect.backoff.max.ms", "500"),
            ("group.id", "conformance"),
            ("enable.auto.commit", "false"),
            ("auto.offset.reset", "error"),
        ] {
            config.set(name, value);
        }
        let admin = AdminClient::from_config(&config).map_err(|error| failed("connecting", error))?;
        Ok(Self { config, admin: Arc::new(admin), names })
    }

    /// Reads with a consumer of its own, on a thread that may wait.
    pub(super) async fn reading<T: Send + 'static>(
        &self,
        read: impl FnOnce(&BaseConsumer) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.in_group("conformance", read).await
    }

    /// Reads in the name of a group, which the consumer does not join.
    pub(super) async fn in_group<T: Send + 'static>(
        &self,
        group: &str,
        read: impl FnOnce(&BaseConsumer) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let mut config = self.config.clone();
        config.set("group.id", group);
        let reading = move || {
            let client = BaseConsumer::from_config(&config).map_err(|error| failed("connecting", error))?;
            read(&client)
        };
        tokio::task::spawn_blocking(reading).await.map_err(|error| failed("reading", error))?
    }

    /// Stores a record as it is.
    async fn store(&self, topic: &str, partition: u32, record: WireRecord) -> Result<()> {
        let (config, name) = (self.config.clone(), self.names.topic(topic));
        let storing = move || {
            let wrong = |error: &dyn Display| failed("storing", error);
            let producer =
                BaseProducer::from_config_and_context(&config, Told::default()).map_err(|error| wrong(&error))?;
            let headers = record.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
                headers.insert(Header { key, value: Some(&value[..]) })
            });
            let to = BaseRecord::to(&name).partition(i32::try_from(partition).unwrap_or(i32::MAX));
            let mut to = to.headers(headers).payload(&record.payload[..]);
            if let Some(key) = &record.key {
                to = to.key(&key[..]);
            }
            producer.send(to).map_err(|(error, _)| wrong(&error))?;
            producer.flush(PATIENCE).map_err(|error| wrong(&error))?;
            let told = producer.context().0.lock().unwrap_or_else(PoisonError::into_inner).take();
            told.unwrap_or_else(|| Err("nothing is known of it".into())).map(drop).map_err(|error| wrong(&error))
        };
        tokio::task::spawn_blocking(storing).await.map_err(|error| failed("storing", error))?
    }

    /// Removes the records of a partition below a position.
    pub(super) async fn truncate(&self, topic: &str, partition: u32, first: Position) -> Result<()> {
        let mut to = TopicPartitionList::new();
        let (partition, offset) = (i32::try_from(partition), i64::try_from(first.get()));
        let (partition, offset) = (partition.unwrap_or(i32::MAX), Offset::Offset(offset.unwrap_or(i64::MAX)));
        let added = to.add_partition_offset(&self.names.topic(topic), partition, offset);
        added.map_err(|error| failed("truncating", error))?;
        let done = self.admin.delete_records(&to, &options()).await.map_err(|error| failed("truncating", error))?;
        done.elements().iter().try_for_each(|one| one.error()).map_err(|error| failed("truncating", error))
    }

    /// The settings that were made on a topic itself.
    async fn settings(&self, name: &str) -> Result<Vec<(String, String)>> {
        let described = self.admin.describe_configs(&[ResourceSpecifier::Topic(name)], &options()).await;
        let described = described.map_err(|error| failed(name, error))?;
        let Some(Ok(described)) = described.into_iter().next() else { return Err(failed(name, "no settings")) };
        let own = described.entries.into_iter().filter(|entry| entry.source == ConfigSource::DynamicTopic);
        Ok(own.filter_map(|entry| Some((entry.name, entry.value?))).collect())
    }

    /// Sets one setting of a topic, and waits until the broker acts by it.
    pub(super) async fn set(&self, topic: &str, setting: &str, value: String) -> Result<()> {
        let name = self.names.topic(topic);
        // Settings that are not named are reset, and a topic that was just made may not show its own yet. A bus names
        // them all.
        let shown = |settings: &[(String, String)]| settings.iter().any(|(name, _)| name == "retention.ms");
        let settings = self.settings_once(&name, "its settings are not shown", shown).await?;
        let altered = settings
            .iter()
            .filter(|(name, _)| name != setting)
            .fold(AlterConfig::new(ResourceSpecifier::Topic(&name)), |altered, (name, value)| altered.set(name, value));
        let altered = altered.set(setting, &value);
        let done = self.admin.alter_configs([&altered], &options()).await.map_err(|error| failed(&name, error))?;
        done.into_iter().find_map(std::result::Result::err).map_or(Ok(()), |(_, code)| Err(failed(&name, code)))?;
        // The controller's answer comes before the broker acts by it.
        let taken = |settings: &[(String, String)]| settings.iter().any(|one| (&*one.0, &one.1) == (setting, &value));
        self.settings_once(&name, "the setting is not taken", taken).await.map(drop)
    }

    /// The settings of a topic, as soon as `holds` accepts them, for five seconds at the most.
    async fn settings_once(
        &self,
        name: &str,
        otherwise: &str,
        holds: impl Fn(&[(String, String)]) -> bool,
    ) -> Result<Vec<(String, String)>> {
        for _ in 0..100 {
            let settings = self.settings(name).await?;
            if holds(&settings) {
                return Ok(settings);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(failed(name, otherwise))
    }

    /// Sets how long records are kept.
    pub(super) async fn retain(&self, topic: &str, long: Duration) -> Result<()> {
        self.set(topic, "retention.ms", long.as_millis().to_string()).await
    }

    /// Gives a topic more partitions, and waits until the broker leads them.
    pub(super) async fn add_partitions(&self, topic: &str, count: u32) -> Result<()> {
        let (name, count) = (self.names.topic(topic), count as usize);
        let more = NewPartitions::new(&name, count);
        let added = self.admin.create_partitions([&more], &options()).await.map_err(|error| failed(&name, error))?;
        all("adding partitions", added)?;
        for _ in 0..100 {
            let name = name.clone();
            if self.reading(move |client| Ok(log::bounds(client, &name).map_or(0, |all| all.len()))).await? == count {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(failed(topic, "the partitions do not come"))
    }

    /// Deletes the topic and makes it again, as a tool would from its configuration.
    pub(super) async fn recreate(&self, topic: &str) -> Result<()> {
        let name = self.names.topic(topic);
        let settings = self.settings(&name).await?;
        let counted = name.clone();
        let partitions = self.reading(move |client| log::bounds(client, &counted)).await?.len();
        let deleted = self.admin.delete_topics(&[&name], &options()).await.map_err(|error| failed(&name, error))?;
        all("deleting", deleted)?;
        let count = i32::try_from(partitions).unwrap_or(i32::MAX);
        let again =
            settings.iter().fold(NewTopic::new(&name, count, TopicReplication::Fixed(1)), |topic, (name, value)| {
                topic.set(name, value)
            });
        for _ in 0..100 {
            let made = self.admin.create_topics([&again], &options()).await.map_err(|error| failed(&name, error))?;
            match made.into_iter().next() {
                // The old topic is still on its way out.
                Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                made => return all("creating", made.into_iter().collect()),
            }
        }
        Err(failed(&name, "its deletion takes no end"))
    }

    /// Sends a stored record once more, by another producer.
    pub(super) async fn store_copy(&self, topic: &str, partition: u32, position: Position) -> Result<()> {
        let (name, at) = (self.names.topic(topic), position.get());
        let read = move |client: &BaseConsumer| {
            let partition = i32::try_from(partition).unwrap_or(i32::MAX);
            log::records(client, &name, [(partition, at, at + 1)].into_iter())
        };
        let found = self.reading(read).await?.into_iter().next();
        let Some(eventbus_core::backend::Body::Encoded { record, .. }) = found.map(|found| found.body) else {
            return Err(failed(topic, format!("no record at {at}")));
        };
        self.store(topic, partition, record).await
    }

    /// Stores a record that no bus wrote.
    pub(super) async fn store_raw(&self, topic: &str, partition: u32, record: WireRecord) -> Result<()> {
        self.store(topic, partition, record).await
    }
}

#[async_trait]
impl Limits for Admin {
    async fn limit(&self, topic: &str, bytes: usize) -> Result<()> {
        self.set(topic, "max.message.bytes", bytes.to_string()).await
    }
}
