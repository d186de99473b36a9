//! Topics: made, changed, described, deleted.
//!
//! Invariants: a topic is described by what the broker says of it. Asking never makes one. The partition count is the broker's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use eventbus_core::backend::{LogState, TopicDescription, settled};
use eventbus_core::pipeline::Known;
use eventbus_core::{Error, ErrorKind, Result, Storage, Topic, TopicSpec};
use rdkafka::admin::{
    AlterConfig, ConfigEntry, ConfigResource, ConfigSource, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};

use crate::connection::Link;
use crate::error::{only, refused, to_core};
use crate::producer::facts;
use crate::wire::position;

/// How long a topic that was made or deleted may take to be seen so by all that is asked.
pub(crate) const SETTLES: Duration = Duration::from_secs(15);

/// The topics of a bus.
#[derive(Debug)]
pub(crate) struct Topics {
    link: Arc<Link>,
    known: Arc<Known>,
}

/// A topic's settings, by Kafka's names.
type Settings = BTreeMap<String, String>;

impl Topics {
    pub(crate) fn new(link: Arc<Link>, known: Arc<Known>) -> Self {
        Self { link, known }
    }

    /// `false` where somebody was faster.
    pub(crate) async fn create(&self, spec: &TopicSpec) -> Result<bool> {
        let topic = &spec.topic.parse()?;
        let name = self.link.config.topic(topic);
        let settings = self.settings(spec);
        let number = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
        let mut wanted = NewTopic::new(&name, number(spec.partitions), TopicReplication::Fixed(number(spec.replicas)));
        for (name, value) in &settings {
            wanted = wanted.set(name, value);
        }
        let ask =
            || async { only(self.link.admin().create_topics([&wanted], &self.link.options()).await, "making a topic") };
        // A single copy fits any cluster: its broker is on its way back.
        let away = |seen: &Result<_>| matches!(seen, Ok(Err(Code::InvalidReplicationFactor))) && spec.replicas == 1;
        match settled(SETTLES, away, ask).await? {
            Ok(()) => Ok(true),
            Err(Code::TopicAlreadyExists) => Ok(false),
            Err(Code::InvalidTopic) => {
                let message = "Kafka takes no two topics whose names differ only in '.' and '_'";
                Err(Error::new(ErrorKind::InvalidName, message))
            }
            Err(code) => Err(refused(code)),
        }
    }

    /// Changes what can be changed. What the topic has beyond our settings stays, since the broker takes the whole of them.
    pub(crate) async fn alter(&self, spec: &TopicSpec) -> Result<()> {
        let topic = &spec.topic.parse()?;
        let name = self.link.config.topic(topic);
        let own = |entry: &ConfigEntry| entry.source == ConfigSource::DynamicTopic;
        let limits = |entry: &ConfigEntry| ["retention.ms", "retention.bytes"].contains(&entry.name.as_str());
        let kept = self.configs(topic).await?.entries.into_iter().filter(|entry| own(entry) && !limits(entry));
        let mut settings: Settings = kept.map(|entry| (entry.name, entry.value.unwrap_or_default())).collect();
        settings.extend(self.settings(spec));
        let mut change = AlterConfig::new(ResourceSpecifier::Topic(&name));
        for (name, value) in &settings {
            change = change.set(name, value);
        }
        let answer = self.link.admin().alter_configs([&change], &self.link.options()).await;
        only(answer, "changing a topic")?.map_err(refused)
    }

    /// The settings of a topic as they are asked for.
    fn settings(&self, spec: &TopicSpec) -> Settings {
        let limit = |value: Option<u128>| value.map_or_else(|| "-1".to_owned(), |value| value.to_string());
        let mut settings = Settings::new();
        settings.insert("cleanup.policy".into(), "delete".into());
        settings.insert("retention.ms".into(), limit(spec.max_age.map(|age| age.as_millis())));
        // Kafka's limit counts a partition.
        let each = spec.max_bytes.map(|bytes| u128::from(bytes / u64::from(spec.partitions.max(1))).max(1));
        settings.insert("retention.bytes".into(), limit(each));
        if let Some(replicas) = self.link.config.min_insync_replicas {
            settings.insert("min.insync.replicas".into(), replicas.to_string());
        }
        settings
    }

    /// How many partitions the topic has, and how many copies.
    pub(crate) async fn count(&self, topic: &Topic) -> Result<(u32, u32)> {
        let name = self.link.config.topic(topic);
        let metadata = self.link.metadata(Some(&name)).await?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == name) else {
            return Err(unknown());
        };
        if let Some(error) = found.error() {
            return Err(refused(error.into()));
        }
        if found.partitions().is_empty() {
            return Err(unknown());
        }
        let replicas = found.partitions().first().map_or(1, |partition| partition.replicas().len());
        Ok((number(found.partitions().len()), number(replicas)))
    }

    async fn configs(&self, topic: &Topic) -> Result<ConfigResource> {
        let name = self.link.config.topic(topic);
        let specifier = ResourceSpecifier::Topic(&name);
        let answer = self.link.admin().describe_configs([&specifier], &self.link.options()).await;
        let answer = answer.map_err(|error| to_core(&error, "asking for settings"))?;
        answer.into_iter().next().ok_or_else(unknown)?.map_err(refused)
    }

    /// Learns what publishing has to know of a topic.
    pub(crate) async fn learn(&self, topic: &Topic) -> Result<ConfigResource> {
        let settings = self.configs(topic).await?;
        let limit = number_of(&settings, "max.message.bytes").and_then(|limit| usize::try_from(limit).ok());
        let policy = settings.get("cleanup.policy").and_then(|entry| entry.value.as_deref());
        let compacted = policy.is_some_and(|policy| policy.contains("compact"));
        let facts = facts(&self.link.config.topic(topic), limit.unwrap_or(1_048_588), compacted);
        self.known.learn(topic, facts);
        Ok(settings)
    }

    pub(crate) async fn describe(&self, topic: &Topic) -> Result<TopicDescription> {
        let (partitions, replicas) = self.count(topic).await?;
        let settings = self.learn(topic).await?;
        let mut spec = TopicSpec::new(topic.as_str());
        spec.partitions = partitions;
        spec.replicas = replicas;
        spec.max_age = number_of(&settings, "retention.ms").map(Duration::from_millis);
        spec.max_bytes = number_of(&settings, "retention.bytes").map(|bytes| bytes * u64::from(partitions));
        spec.storage = Storage::File;
        spec.duplicate_window = TopicSpec::new(topic.as_str()).duplicate_window;
        let logs = self.logs(topic, partitions).await?;
        let records = logs.iter().map(|log| log.end.get().saturating_sub(log.first.get())).sum();
        let mut description = TopicDescription::new(spec, "", logs);
        description.records = records;
        // What is left for the record of what the client counts.
        description.max_record_bytes = self.known.get(topic).map(|facts| facts.limit.saturating_sub(1_024));
        Ok(description)
    }

    async fn logs(&self, topic: &Topic, partitions: u32) -> Result<Vec<LogState>> {
        let name = self.link.config.topic(topic);
        let ask = move |link: &Link| {
            (0..partitions).map(|partition| watermarks(link, &name, partition)).collect::<KafkaResult<_>>()
        };
        self.link.ask("asking for the ends of the log", ask).await
    }

    pub(crate) async fn delete(&self, topic: &Topic) -> Result<()> {
        let name = self.link.config.topic(topic);
        let answer = self.link.admin().delete_topics(&[&name], &self.link.options()).await;
        only(answer, "deleting a topic")?.map_err(refused)?;
        // Gone is what has no partitions.
        let gone = || async {
            match self.count(topic).await {
                Err(error) if error.kind() == ErrorKind::UnknownTopic => Ok(()),
                Err(error) => Err(error),
                Ok(_) => Err(Error::new(ErrorKind::Unavailable, "the brokers have not all heard of the deletion")),
            }
        };
        settled(SETTLES, Result::is_err, gone).await
    }

    pub(crate) async fn list(&self) -> Result<Vec<Topic>> {
        let metadata = self.link.metadata(None).await?;
        let prefix = &self.link.config.prefix;
        let ours = |name: &str| name.strip_prefix(prefix.as_str()).filter(|name| !name.starts_with("__"))?.parse().ok();
        let mut topics: Vec<Topic> = metadata.topics().iter().filter_map(|found| ours(found.name())).collect();
        topics.sort();
        Ok(topics)
    }

    /// Deletes all topics of the prefix.
    pub(crate) async fn remove_all(&self) -> Result<()> {
        for topic in self.list().await? {
            match self.delete(&topic).await {
                Err(error) if error.kind() == ErrorKind::UnknownTopic => {}
                done => done?,
            }
        }
        Ok(())
    }
}

/// The ends of a partition's log. Blocks. A partition without a leader has one in a moment, be it new or its broker back.
pub(crate) fn watermarks(link: &Link, name: &str, partition: u32) -> KafkaResult<LogState> {
    let number = i32::try_from(partition).unwrap_or(i32::MAX);
    let until = Instant::now() + link.timeout();
    loop {
        match link.client().fetch_watermarks(name, number, link.timeout()) {
            Ok((first, end)) => {
                return Ok(LogState { incarnation: String::new(), first: position(first), end: position(end) });
            }
            Err(error) if leaderless(&error) && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) => return Err(error),
        }
    }
}

fn leaderless(error: &KafkaError) -> bool {
    let codes =
        [Code::NotLeaderForPartition, Code::LeaderNotAvailable, Code::FencedLeaderEpoch, Code::UnknownLeaderEpoch];
    error.rdkafka_error_code().is_some_and(|code| codes.contains(&code))
}

/// What the broker cannot know of, it neither keeps nor contradicts. What it has not is refused.
pub(crate) fn in_force(spec: &TopicSpec) -> Result<TopicSpec> {
    let lacking = |setting: &'static str, message: &'static str| {
        Err(Error::new(ErrorKind::Unsupported, message).with("setting", setting))
    };
    if spec.storage == Storage::Memory {
        return lacking("storage", "storage: expected file, Kafka keeps no topic in memory only");
    }
    if spec.max_messages.is_some() {
        return lacking("max_messages", "max_messages: Kafka limits topics by age and bytes, not by count");
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

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn unknown() -> Error {
    Error::new(ErrorKind::UnknownTopic, "no such topic")
}
