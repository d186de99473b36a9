//! Topics: made, changed, described, deleted.
//!
//! Invariants: a topic is described by what the broker says of it. Asking never makes a topic. The partition count is
//! the broker's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use eventbus_core::backend::{LogState, TopicDescription};
use eventbus_core::toolkit::pipeline::{KnownLimits, TopicLimits};
use eventbus_core::toolkit::poll_until_blocking;
use eventbus_core::toolkit::settings::unsupported;
use eventbus_core::toolkit::{names_under, poll_until, remove_each, wait_until_gone};
use eventbus_core::{Error, ErrorKind, Result, Topic, TopicSpec};
use rdkafka::admin::{AlterConfig, ConfigResource, ConfigSource, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::metadata::MetadataPartition;

use crate::connection::{Admin, Link};
use crate::error::{leaderless, only, out_of_reach, passes, refused, to_core};
use crate::wire::{self, number, position};

/// Time within which all brokers see that a topic was made or deleted.
pub(crate) const SETTLES: Duration = Duration::from_secs(15);

/// Time within which a partition has a leader again, be it new or another, where there is one to come.
const LEADS: Duration = Duration::from_secs(2);

/// Bytes that a broker's limit counts beside the records of a batch.
const BATCH_FRAME: usize = 64;

/// The setting that says how records leave a topic.
const POLICY: &str = "cleanup.policy";

/// The topics of a bus.
pub(crate) struct Topics {
    link: Arc<Link>,
    known: Arc<KnownLimits>,
}

/// A topic's settings, by Kafka's names.
type Settings = BTreeMap<String, String>;

impl Topics {
    pub(crate) fn new(link: Arc<Link>, known: Arc<KnownLimits>) -> Self {
        Self { link, known }
    }

    /// Creates a topic. `false` if somebody was faster.
    pub(crate) async fn create(&self, spec: &TopicSpec) -> Result<bool> {
        let name = self.link.config.topic(&spec.topic.parse()?);
        let (settings, copies) = (self.settings(spec), TopicReplication::Fixed(number(spec.replicas)));
        let topic = NewTopic::new(&name, number(spec.partitions), copies);
        let topic = settings.iter().fold(topic, |topic, (name, value)| topic.set(name, value));
        let ask = || async {
            let make = async |admin: &Admin, options: &_| admin.create_topics([&topic], options).await;
            only(self.link.administer(make).await, "making a topic")
        };
        // A single replica fits any cluster, so its broker is away, and on its way back.
        let away = |seen: &Result<_>| matches!(seen, Ok(Err(Code::InvalidReplicationFactor))) && spec.replicas == 1;
        match poll_until(SETTLES, away, ask).await? {
            Ok(()) => Ok(true),
            Err(Code::TopicAlreadyExists) => Ok(false),
            Err(Code::InvalidTopic) => {
                let message = "Kafka takes no two topics whose names differ only in '.' and '_'";
                Err(Error::new(ErrorKind::InvalidName, message))
            }
            Err(code) => Err(refused(code)),
        }
    }

    /// Changes the settings that can be changed. The broker takes the whole of them, so the topic's other settings are
    /// sent along and stay; so does its policy of cleaning up, which no spec asks for.
    pub(crate) async fn alter(&self, spec: &TopicSpec) -> Result<()> {
        let topic = &spec.topic.parse()?;
        let name = self.link.config.topic(topic);
        let own =
            self.configs(topic).await?.entries.into_iter().filter(|entry| entry.source == ConfigSource::DynamicTopic);
        let own = own.map(|entry| (entry.name, entry.value.unwrap_or_default()));
        let asked = self.settings(spec).into_iter().filter(|(name, _)| name != POLICY);
        let settings: Settings = own.chain(asked).collect();
        let change = AlterConfig::new(ResourceSpecifier::Topic(&name));
        let change = settings.iter().fold(change, |change, (name, value)| change.set(name, value));
        let alter = async |admin: &Admin, options: &_| admin.alter_configs([&change], options).await;
        let answer = self.link.administer(alter).await;
        only(answer, "changing a topic")?.map_err(refused)
    }

    /// The settings to ask for; a limit that the topic is not to have is asked for as -1.
    fn settings(&self, spec: &TopicSpec) -> Settings {
        let limit = |value: Option<u128>| value.map_or_else(|| "-1".to_owned(), |value| value.to_string());
        // Kafka's limit of bytes counts each partition.
        let each = spec.max_bytes.map(|bytes| u128::from(bytes / u64::from(spec.partitions.max(1))));
        let settings = [
            (POLICY, Some("delete".to_owned())),
            ("retention.ms", Some(limit(spec.max_age.map(|age| age.as_millis())))),
            ("retention.bytes", Some(limit(each))),
            ("min.insync.replicas", self.link.config.min_insync_replicas.map(|least| least.to_string())),
        ];
        settings.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }

    /// The topic's number of partitions, and of replicas.
    pub(crate) async fn count(&self, topic: &Topic) -> Result<(u32, u32)> {
        let name = self.link.config.topic(topic);
        self.link.ask("asking for metadata", move |link| count(link, &name)).await
    }

    async fn configs(&self, topic: &Topic) -> Result<ConfigResource> {
        let name = self.link.config.topic(topic);
        let specifier = ResourceSpecifier::Topic(&name);
        let describe = async |admin: &Admin, options: &_| admin.describe_configs([&specifier], options).await;
        let answer = self.link.administer(describe).await;
        let answer = answer.map_err(|error| to_core(&error, "asking for settings"))?.into_iter().next();
        answer.unwrap_or(Err(Code::UnknownTopic)).map_err(refused)
    }

    /// Learns the limits of a topic for publishing. Returns its settings.
    pub(crate) async fn learn(&self, topic: &Topic) -> Result<ConfigResource> {
        let settings = self.configs(topic).await?;
        let limit = number_of(&settings, "max.message.bytes").and_then(|limit| usize::try_from(limit).ok());
        let policy = settings.get(POLICY).and_then(|entry| entry.value.as_deref());
        let compacted = policy.is_some_and(|policy| policy.contains("compact"));
        let facts = facts(&self.link.config.topic(topic), limit.unwrap_or(1_048_588), compacted);
        self.known.set(topic, facts);
        Ok(settings)
    }

    pub(crate) async fn describe(&self, topic: &Topic) -> Result<TopicDescription> {
        let (partitions, replicas) = self.count(topic).await?;
        let settings = self.learn(topic).await?;
        let mut spec = TopicSpec::new(topic.as_str());
        (spec.partitions, spec.replicas) = (partitions, replicas);
        spec.max_age = number_of(&settings, "retention.ms").map(Duration::from_millis);
        spec.max_bytes = number_of(&settings, "retention.bytes").map(|bytes| bytes.saturating_mul(partitions.into()));
        let name = self.link.config.topic(topic);
        let ask = move |link: &Link| logs(link, &name, partitions);
        let logs = self.link.ask("asking for the ends of the log", ask).await?;
        let unavailable = (0..).zip(&logs).filter(|(_, log)| log.is_none()).map(|(partition, _)| partition).collect();
        let logs = logs.into_iter().map(Option::unwrap_or_default).collect();
        let mut description = TopicDescription::counted(spec, "", logs);
        description.unavailable = unavailable;
        // The limit, less what the client counts beside the record.
        description.max_record_bytes = self.known.get(topic).map(|facts| facts.limit.saturating_sub(1_024));
        Ok(description)
    }

    pub(crate) async fn delete(&self, topic: &Topic) -> Result<()> {
        let name = self.link.config.topic(topic);
        let delete = async |admin: &Admin, options: &_| admin.delete_topics(&[&name], options).await;
        let answer = self.link.administer(delete).await;
        only(answer, "deleting a topic")?.map_err(refused)?;
        // A topic without partitions is gone.
        wait_until_gone(SETTLES, || self.count(topic)).await
    }

    pub(crate) async fn list(&self) -> Result<Vec<Topic>> {
        let metadata = self.link.metadata(None).await?;
        let mut topics: Vec<Topic> =
            names_under(&self.link.config.prefix, metadata.topics().iter().map(|found| found.name()));
        // The brokers' own topics.
        topics.retain(|topic| !topic.as_str().starts_with("__"));
        Ok(topics)
    }

    /// Deletes all topics of the prefix.
    pub(crate) async fn remove_all(&self) -> Result<()> {
        remove_each(SETTLES, self.list().await?, |topic| async move { self.delete(&topic).await }).await
    }
}

/// The number of a topic's partitions, and of their replicas. Never makes a topic. Blocks.
pub(crate) fn count(link: &Link, name: &str) -> KafkaResult<(u32, u32)> {
    metadata(link, name, |partitions| {
        (counted(partitions), partitions.first().map_or(0, |one| counted(one.replicas())))
    })
}

/// The partitions that no broker leads at the moment, as the brokers say. Blocks.
pub(crate) fn leaderless_of(link: &Link, name: &str) -> KafkaResult<BTreeSet<u32>> {
    let without = |one: &&MetadataPartition| one.leader() < 0;
    metadata(link, name, |all| all.iter().filter(without).map(|one| wire::partition(one.id())).collect())
}

/// The partitions that no broker leads, and will not lead in a moment either: a topic that was just made, and a leader
/// that moves, are waited for. Blocks.
pub(crate) fn without_leaders(link: &Link, name: &str) -> KafkaResult<BTreeSet<u32>> {
    let some = |found: &KafkaResult<BTreeSet<u32>>| found.as_ref().is_ok_and(|found| !found.is_empty());
    poll_until_blocking(LEADS.min(link.timeout()), some, |_| leaderless_of(link, name))
}

/// The error of a question about a partition that no broker leads.
pub(crate) fn without_leader(name: &str, partition: u32) -> Error {
    let error = Error::new(ErrorKind::Unavailable, "no broker leads the partition: its broker is away");
    error.with("topic", name).with("partition", partition)
}

/// Looks at the metadata of a topic's partitions. Never makes a topic. Blocks.
fn metadata<T>(link: &Link, name: &str, look: impl FnOnce(&[MetadataPartition]) -> T) -> KafkaResult<T> {
    let metadata = link.by_client(|client| client.fetch_metadata(Some(name), link.timeout()))?;
    let found = metadata.topics().iter().find(|found| found.name() == name);
    match (found.and_then(|found| found.error()), found.map(|found| found.partitions())) {
        (Some(error), _) => Err(KafkaError::MetadataFetch(error.into())),
        (None, Some(partitions)) if !partitions.is_empty() => Ok(look(partitions)),
        _ => Err(KafkaError::MetadataFetch(Code::UnknownTopicOrPartition)),
    }
}

/// The ends of all partitions' logs; none for a partition that has no leader, or whose leader does not answer (P5). An
/// error where no partition has an answer. Blocks.
fn logs(link: &Link, name: &str, partitions: u32) -> KafkaResult<Vec<Option<LogState>>> {
    let (leaderless, mut away) = (without_leaders(link, name)?, None);
    let mut logs = Vec::new();
    for partition in 0..partitions {
        let log = match leaderless.contains(&partition) {
            true => Err(KafkaError::MetadataFetch(Code::LeaderNotAvailable)),
            false => watermarks(link, name, partition),
        };
        match log {
            Ok(log) => logs.push(Some(log)),
            refused if !passes(&refused) && !out_of_reach(&refused) => return refused.map(|_| logs),
            Err(error) => {
                away = Some(error);
                logs.push(None);
            }
        }
    }
    match away.filter(|_| logs.iter().all(Option::is_none)) {
        Some(error) => Err(error),
        None => Ok(logs),
    }
}

/// The limits of a topic with this `max.message.bytes`.
pub(crate) fn facts(name: &str, max_message_bytes: usize, compacted: bool) -> TopicLimits {
    TopicLimits::new(name, max_message_bytes.saturating_sub(BATCH_FRAME).max(1), compacted)
}

fn counted<T>(all: &[T]) -> u32 {
    u32::try_from(all.len()).unwrap_or(u32::MAX)
}

/// The ends of a partition's log, with what an open transaction of others keeps back from readers: a position above the
/// last stable offset is one of this log (S3). Blocks, also while the partition has no leader: it has one in a moment,
/// be it new or its broker back.
pub(crate) fn watermarks(link: &Link, name: &str, partition: u32) -> KafkaResult<LogState> {
    let (first, end) = poll_until_blocking(link.timeout(), leaderless, |_| {
        link.by_client(|client| client.fetch_watermarks(name, number(partition), link.timeout()))
    })?;
    Ok(LogState { incarnation: String::new(), first: position(first), end: position(end) })
}

/// The settings as Kafka keeps them: a duplicate window is not compared, bytes are rounded to the partitions.
/// `Unsupported` for a limit by count.
pub(crate) fn in_force(spec: &TopicSpec) -> Result<TopicSpec> {
    if spec.max_messages.is_some() {
        return Err(unsupported("max_messages", "Kafka limits topics by age and bytes, not by count"));
    }
    let mut asked = spec.clone();
    asked.duplicate_window = TopicSpec::new("t").duplicate_window;
    let each = u64::from(spec.partitions.max(1));
    asked.max_bytes = spec.max_bytes.map(|bytes| (bytes / each).max(1) * each);
    Ok(asked)
}

/// A setting that is a number; a negative one stands for no limit.
fn number_of(settings: &ConfigResource, name: &str) -> Option<u64> {
    settings.get(name)?.value.as_ref()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;

    use super::*;
    use crate::config::KafkaConfig;

    #[tokio::test]
    async fn a_partition_that_no_broker_leads_hides_no_other() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("t", 3, 1).unwrap();
        cluster.partition_leader("t", 1, None).unwrap();
        let link = Link::connect(&KafkaConfig::new(cluster.bootstrap_servers())).await.unwrap();
        let (leaderless, logs) =
            link.run(|link| Ok((leaderless_of(link, "t").unwrap(), logs(link, "t", 3).unwrap()))).await.unwrap();
        assert_eq!(leaderless, BTreeSet::from([1]));
        assert_eq!(logs.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, true]);
    }

    #[test]
    fn a_batch_of_one_record_of_the_most_bytes_is_within_the_topics_limit() {
        assert_eq!(facts("t", 5_064, true), TopicLimits::new("t", 5_000, true));
        assert_eq!(facts("t", 1, false).limit, 1);
    }
}
