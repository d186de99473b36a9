//! Streams as topics: created, changed, described, deleted.
//!
//! Invariant: a topic is described by what the server says of its stream. A stream that would lose records before a
//! group has read them, or that confirms nothing, is no topic (S8).

use std::collections::BTreeSet;
use std::time::Duration;

use crate::labels::Labels;
use crate::unsafe_streams;
use eventbus_core::backend::{LogState, TopicDescription};
use eventbus_core::toolkit::remove_each;
use eventbus_core::toolkit::settings::invalid;
use eventbus_core::{Error, ErrorKind, Position, Result, Storage, Topic, TopicSpec};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::connection::Link;
use crate::error::{Failure, NO_STREAM, Outcome, SIZE_REQUIRED, STREAM_EXISTS};
use crate::names::{Names, buckets, streams};

/// Bytes of a message that the largest record leaves for the names of headers.
const FRAME: usize = 512;

/// A stream's configuration, with all that only the server knows of.
#[derive(Debug, Clone, Deserialize, Serialize)]
struct StreamConfig {
    #[serde(default, rename = "metadata")]
    labels: Labels,
    #[serde(flatten)]
    settings: Map<String, Value>,
}

impl StreamConfig {
    fn set(&mut self, settings: Value) {
        if let Value::Object(settings) = settings {
            self.settings.extend(settings);
        }
    }
}

/// A stream as the server describes it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct StreamInfo {
    config: StreamConfig,
    /// The time of creation, as the server words it.
    created: String,
    pub(crate) state: StreamState,
    /// The stream's leader; has a name where there is a cluster.
    #[serde(default)]
    cluster: Value,
    /// The server's time when it answered.
    #[serde(default)]
    ts: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct StreamState {
    #[serde(rename = "messages")]
    records: u64,
    bytes: u64,
    first_seq: u64,
    pub(crate) last_seq: u64,
}

impl StreamState {
    /// Counts the records that were removed from between others.
    pub(crate) fn removed(&self) -> u64 {
        let behind = self.first_seq.saturating_add(self.records);
        if self.records == 0 { 0 } else { self.last_seq.saturating_add(1).saturating_sub(behind) }
    }

    pub(crate) fn first(&self) -> u64 {
        self.first_seq
    }
}

impl StreamInfo {
    fn number(&self, name: &str) -> i64 {
        self.config.settings.get(name).and_then(Value::as_i64).unwrap_or_default()
    }

    fn text(&self, name: &str) -> &str {
        self.config.settings.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    fn duration(&self, name: &str) -> Option<Duration> {
        u64::try_from(self.number(name)).ok().filter(|nanos| *nanos > 0).map(Duration::from_nanos)
    }

    fn limit(&self, name: &str) -> Option<u64> {
        u64::try_from(self.number(name)).ok().filter(|limit| *limit > 0)
    }

    /// The stream's identity: another one after it was deleted and created again.
    fn incarnation(&self) -> String {
        format!("{}@{}", self.config.labels.incarnation(), self.created)
    }

    /// The time of creation: another stream of the same name has another.
    pub(crate) fn created(&self) -> &str {
        &self.created
    }

    /// Whether the stream is a topic whose groups have had a bucket.
    pub(crate) fn has_bucket(&self) -> bool {
        self.config.labels.has_bucket()
    }

    /// The server's time when it answered, in milliseconds since the Unix epoch.
    pub(crate) fn now(&self) -> Option<u64> {
        let time = OffsetDateTime::parse(self.ts.as_deref()?, &Rfc3339).ok()?;
        u64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok()
    }

    /// Refuses replicas on a server without a cluster (P4): old servers take them, and say that they are in force.
    fn replicable(&self, asked: &TopicSpec) -> Result<()> {
        if asked.replicas == 1 || self.cluster.get("name").is_some() {
            return Ok(());
        }
        let expected = format!("expected 1 on a server without a cluster, got {}", asked.replicas);
        Err(invalid("replicas", expected))
    }

    /// The log as each of its partitions sees it.
    pub(crate) fn log(&self) -> LogState {
        let end = self.state.last_seq.saturating_add(1);
        let first = if self.state.records == 0 { end } else { self.state.first_seq.max(1) };
        LogState { incarnation: self.incarnation(), first: Position::new(first), end: Position::new(end) }
    }

    /// The settings in force, read from configuration and metadata.
    pub(crate) fn spec(&self, topic: &Topic) -> Result<TopicSpec> {
        let of_topic = self.config.labels.spec(topic);
        let mut spec = of_topic.map_err(|error| error.with("stream", self.text("name")))?;
        unsafe_streams::check(&self.config.settings)?;
        spec.max_age = self.duration("max_age");
        spec.max_bytes = self.limit("max_bytes");
        spec.max_messages = self.limit("max_msgs");
        spec.storage = if self.text("storage") == "memory" { Storage::Memory } else { Storage::File };
        spec.replicas = u32::try_from(self.number("num_replicas")).unwrap_or(1);
        spec.duplicate_window = self.duration("duplicate_window").unwrap_or_default();
        Ok(spec)
    }
}

/// The topics of a bus.
impl Link {
    pub(crate) fn names(&self, topic: &Topic) -> Names {
        Names::new(&self.config.prefix, topic)
    }

    /// Creates a topic. `false` if it was created meanwhile, with other settings or under another incarnation.
    pub(crate) async fn create_topic(&self, spec: &TopicSpec) -> Result<bool> {
        let names = self.names(&spec.topic.parse()?);
        let mut config = StreamConfig { labels: Labels::new(spec), settings: Map::new() };
        config.set(settings(spec));
        config.set(json!({
            "name": names.stream, "subjects": names.partitions(spec.partitions).collect::<Vec<_>>(), "retention": "limits", "discard": "old",
            "storage": if spec.storage == Storage::Memory { "memory" } else { "file" },
            "max_consumers": -1, "allow_direct": true,
        }));
        match self.api::<StreamInfo>(&format!("STREAM.CREATE.{}", names.stream), &config).await {
            Ok(created) => created.replicable(spec).map(|()| true),
            Err(failure) if failure.is(STREAM_EXISTS) => Ok(false),
            Err(failure) => Err(refused(failure)),
        }
    }

    /// Changes the settings that can be changed; other settings of the stream stay.
    pub(crate) async fn update_topic(&self, spec: &TopicSpec) -> Result<()> {
        let names = self.names(&spec.topic.parse()?);
        let info = self.stream_info(&names.stream).await?;
        info.replicable(spec)?;
        let mut config = info.config;
        config.set(settings(spec));
        if config.settings.get("subjects") == Some(&json!([names.any()])) {
            let exact: Vec<String> = names.partitions(spec.partitions).collect();
            config.set(json!({ "subjects": exact }));
        }
        config.labels.update(spec);
        let updated = self.api::<Value>(&format!("STREAM.UPDATE.{}", names.stream), &config).await;
        updated.map_err(refused)?;
        match self.stream_info(&names.bucket).await {
            Ok(bucket) => self.replicate(bucket, spec.replicas).await,
            Err(failure) if failure.is(NO_STREAM) => Ok(()),
            Err(failure) => Err(failure.into()),
        }
    }

    /// Gives a bucket the replicas of its topic, where it has fewer: progress is as durable as the records.
    pub(crate) async fn replicate(&self, bucket: StreamInfo, replicas: u32) -> Result<()> {
        if bucket.number("num_replicas") >= i64::from(replicas) {
            return Ok(());
        }
        let (name, mut config) = (bucket.text("name").to_owned(), bucket.config);
        config.set(json!({ "num_replicas": replicas }));
        let updated = self.api::<Value>(&format!("STREAM.UPDATE.{name}"), &config).await;
        updated.map(drop).map_err(|failure| refused(failure).with("bucket", name))
    }

    /// Notes on a topic that its groups have a bucket. A stream that takes no changes is left as it is.
    pub(crate) async fn note_bucket(&self, mut topic: StreamInfo) {
        if topic.has_bucket() {
            return;
        }
        let name = topic.text("name").to_owned();
        topic.config.labels.note_bucket();
        if let Err(failure) = self.api::<Value>(&format!("STREAM.UPDATE.{name}"), &topic.config).await {
            let error = Error::from(failure);
            tracing::warn!(target: "eventbus", stream = name, %error, "the topic could not be labelled; a removal of its groups' bucket is told to running members only");
        }
    }

    pub(crate) async fn describe_topic(&self, topic: &Topic) -> Result<TopicDescription> {
        self.described(&self.stream_info(&self.names(topic).stream).await?, topic)
    }

    /// Describes a topic by its stream.
    pub(crate) fn described(&self, info: &StreamInfo, topic: &Topic) -> Result<TopicDescription> {
        let spec = info.spec(topic)?;
        let names = self.names(topic);
        let subjects = unsafe_streams::check_subjects(&info.config.settings, names.partitions(spec.partitions));
        subjects.map_err(|error| error.with("stream", &names.stream))?;
        let log = info.log();
        let logs = (0..spec.partitions).map(|_| log.clone()).collect();
        let mut description = TopicDescription::new(spec, info.incarnation(), logs);
        let of_stream = info.limit("max_msg_size").and_then(|limit| usize::try_from(limit).ok());
        let most = of_stream.unwrap_or(usize::MAX).min(self.client().max_payload());
        description.max_record_bytes = Some(most.saturating_sub(FRAME));
        description.records = info.state.records;
        description.bytes = Some(info.state.bytes);
        Ok(description)
    }

    /// Deletes a topic. The progress of its groups stays, so that a later incarnation is told apart; a bucket that
    /// holds none goes with it.
    pub(crate) async fn delete_topic(&self, topic: &Topic) -> Result<()> {
        let names = self.names(topic);
        self.api::<Value>(&format!("STREAM.DELETE.{}", names.stream), &()).await?;
        let bucket = self.stream_info(&names.bucket).await;
        if bucket.is_ok_and(|bucket| bucket.state.records == 0) {
            let _ = self.api::<Value>(&format!("STREAM.DELETE.{}", names.bucket), &()).await;
        }
        Ok(())
    }

    pub(crate) async fn list_topics(&self) -> Result<Vec<Topic>> {
        let begin = streams(&self.config.prefix);
        let mut topics = BTreeSet::new();
        self.each_stream(|info| {
            let topic = info.text("name").starts_with(&begin).then(|| info.config.labels.topic()).flatten();
            topics.extend(topic.and_then(|topic| topic.parse().ok()));
        })
        .await?;
        Ok(topics.into_iter().collect())
    }

    /// Deletes all streams of the prefix: those of topics and those of progress, also of topics that are gone.
    pub(crate) async fn remove_all(&self) -> Result<()> {
        let begin = [streams(&self.config.prefix), buckets(&self.config.prefix)];
        let mut names = Vec::new();
        self.each_stream(|info| {
            let name = info.text("name");
            if begin.iter().any(|begin| name.starts_with(begin)) {
                names.push(name.to_owned());
            }
        })
        .await?;
        let delete = |name| async move {
            let answer = self.api::<Value>(&format!("STREAM.DELETE.{name}"), &()).await;
            Ok(answer.map(drop)?)
        };
        remove_each(Duration::ZERO, names, delete).await
    }

    /// Describes a stream.
    pub(crate) async fn stream_info(&self, stream: &str) -> Outcome<StreamInfo> {
        self.api(&format!("STREAM.INFO.{stream}"), &()).await
    }

    async fn each_stream(&self, mut take: impl FnMut(&StreamInfo)) -> Result<()> {
        #[derive(Deserialize)]
        struct Page {
            total: usize,
            streams: Option<Vec<StreamInfo>>,
        }
        let mut offset = 0;
        loop {
            let page: Page = self.api("STREAM.LIST", &json!({ "offset": offset })).await?;
            let streams = page.streams.unwrap_or_default();
            offset += streams.len();
            streams.iter().for_each(&mut take);
            if streams.is_empty() || offset >= page.total {
                return Ok(());
            }
        }
    }
}

/// The settings as the server takes them: the duplicate window is no longer than records are kept.
pub(crate) fn in_force(spec: &TopicSpec) -> TopicSpec {
    let mut asked = spec.clone();
    asked.duplicate_window = spec.max_age.map_or(spec.duplicate_window, |age| age.min(spec.duplicate_window));
    asked
}

/// The settings that can be changed, as the server names them.
fn settings(spec: &TopicSpec) -> Value {
    let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let limit = |limit: Option<u64>| limit.map_or(json!(-1), |limit| json!(limit));
    json!({
        "max_age": spec.max_age.map_or(0, nanos), "max_bytes": limit(spec.max_bytes), "max_msgs": limit(spec.max_messages),
        "num_replicas": spec.replicas, "duplicate_window": nanos(spec.duplicate_window),
    })
}

/// The error of a creation or a change that the server does not take.
pub(crate) fn refused(failure: Failure) -> Error {
    let Failure::Api(error) = &failure else { return failure.into() };
    let kind = match error.err_code {
        // Subjects overlap with those of another stream.
        10_065 => ErrorKind::TopicMismatch,
        // Replicas without a cluster or too many, an invalid configuration, a change that is not possible.
        10_074 | 10_005 | 10_052 | 10_025 | 10_047 | SIZE_REQUIRED => ErrorKind::InvalidConfig,
        _ => return failure.into(),
    };
    let refused = Error::new(kind, error.description.clone());
    match error.err_code {
        10_074 => refused.with("setting", "replicas"),
        SIZE_REQUIRED => refused.with("setting", "max_bytes"),
        _ => refused,
    }
}
