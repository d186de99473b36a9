//! The suite's own client, which does to a log what an operator, a retention policy or an older program does, and which
//! ends leases.

use std::borrow::Cow;
use std::fmt::Display;
use std::net::SocketAddr;
use std::time::Duration;

use async_nats::header::{HeaderMap, HeaderName, HeaderValue};
use async_nats::jetstream::{self, Context, stream};
use async_trait::async_trait;
use bytes::Bytes;
use eventbus_core::backend::{Body, Inbound};
use eventbus_core::wire::{Binding, WireRecord, header_name};
use eventbus_core::{Error, ErrorKind, Position, Result};
use futures_util::StreamExt;
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use serde_json::Value;

use super::{names, raw};
use crate::brokers::OPERATOR;
use crate::suite::limited::Limits;

/// CloudEvents on NATS, as the library's documentation describes them.
static BINDING: Binding = Binding::new("ce-").percent_encoded(true).message_id("Nats-Msg-Id");

/// Records that are asked for at once.
const BATCH: usize = 2_000;

/// A client beside the ones under test, on a connection that no fault strikes.
#[derive(Clone, Debug)]
pub(super) struct Admin {
    server: SocketAddr,
    client: async_nats::Client,
    context: Context,
    prefix: String,
}

pub(super) fn failed(what: &str, error: impl Display) -> Error {
    Error::new(ErrorKind::Backend, format!("the suite's own client: {what}: {error}"))
}

impl Admin {
    /// Connects, as the operator where there are users.
    pub(super) async fn connect(server: SocketAddr, prefix: &str, governed: bool) -> Result<Self> {
        let options = match governed {
            true => async_nats::ConnectOptions::with_user_and_password(OPERATOR.into(), OPERATOR.into()),
            false => async_nats::ConnectOptions::new(),
        };
        let options =
            options.reconnect_delay_callback(|_| Duration::from_millis(50)).ping_interval(Duration::from_secs(2));
        let client = options.connect(format!("nats://{server}")).await.map_err(|error| failed("connecting", error))?;
        let context = jetstream::new(client.clone());
        Ok(Self { server, client, context, prefix: prefix.to_owned() })
    }

    async fn stream(&self, name: &str) -> Result<stream::Stream> {
        self.context.get_stream(name).await.map_err(|error| failed(name, error))
    }

    pub(super) async fn topic(&self, topic: &str) -> Result<stream::Stream> {
        self.stream(&names::stream(&self.prefix, topic)).await
    }

    /// Publishes bytes as they are, and waits until they are stored.
    async fn store(&self, subject: String, headers: HeaderMap, payload: Bytes) -> Result<u64> {
        let sent = self.context.publish_with_headers(subject, headers, payload).await;
        let stored = sent.map_err(|error| failed("publishing", error))?.await;
        let stored = stored.map_err(|error| failed("publishing", error))?;
        if stored.duplicate {
            return Err(failed("publishing", "the server takes it for a copy"));
        }
        Ok(stored.sequence)
    }

    /// Sends on a publish that a client had sent, without waiting: the answer goes to that client.
    pub(super) async fn send_on(
        &self,
        subject: String,
        reply: Option<String>,
        headers: &[u8],
        payload: Bytes,
    ) -> Result<()> {
        let mut map = HeaderMap::new();
        for line in String::from_utf8_lossy(headers).split("\r\n").skip(1) {
            let Some((name, value)) = line.split_once(':') else { continue };
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.trim().parse::<HeaderValue>()) {
                map.append(name, value);
            }
        }
        let sent = match reply {
            Some(reply) => self.client.publish_with_reply_and_headers(subject, reply, map, payload).await,
            None => self.client.publish_with_headers(subject, map, payload).await,
        };
        sent.map_err(|error| failed("sending on", error))?;
        self.client.flush().await.map_err(|error| failed("sending on", error))
    }

    /// Removes all records below a position, of all partitions: retention knows none.
    pub(super) async fn truncate(&self, topic: &str, first: Position) -> Result<()> {
        let stream = self.topic(topic).await?;
        stream.purge().sequence(first.get()).await.map(drop).map_err(|error| failed("purging", error))
    }

    /// Removes the records of one partition below a position.
    pub(super) async fn purge(&self, topic: &str, partition: u32, first: Position) -> Result<()> {
        let subject = names::subject(&self.prefix, topic, partition);
        let purge = self.topic(topic).await?;
        let purge = purge.purge().filter(subject).sequence(first.get()).await;
        purge.map(drop).map_err(|error| failed("purging", error))
    }

    /// Changes the settings of a topic's stream.
    pub(super) async fn change(&self, topic: &str, change: impl FnOnce(&mut stream::Config)) -> Result<()> {
        let mut config = self.topic(topic).await?.cached_info().config.clone();
        change(&mut config);
        self.context.update_stream(config).await.map(drop).map_err(|error| failed("changing", error))
    }

    /// Sets how long records are kept.
    pub(super) async fn retain(&self, topic: &str, long: Duration) -> Result<()> {
        self.change(topic, |config| config.max_age = long).await
    }

    /// Deletes all consumers of a topic's stream. Returns their number.
    pub(super) async fn remove_readers(&self, topic: &str) -> Result<usize> {
        let stream = self.topic(topic).await?;
        let (mut names, mut removed) = (stream.consumer_names(), 0);
        while let Some(name) = names.next().await {
            let name = name.map_err(|error| failed("listing", error))?;
            // A reader that ended by itself is gone.
            removed += usize::from(stream.delete_consumer(&name).await.is_ok());
        }
        Ok(removed)
    }

    /// Deletes the groups' bucket.
    pub(super) async fn remove_progress(&self, topic: &str) -> Result<()> {
        let bucket = names::bucket(&self.prefix, topic);
        match self.context.delete_stream(&bucket).await {
            // It was deleted by a try that was not answered.
            Err(_) if self.context.get_stream(&bucket).await.is_err_and(|error| is_missing(&error)) => Ok(()),
            deleted => deleted.map(drop).map_err(|error| failed("deleting", error)),
        }
    }

    /// Deletes the stream and makes it again, as a tool would from its configuration.
    pub(super) async fn recreate(&self, topic: &str) -> Result<()> {
        let stream = self.topic(topic).await?;
        let config = stream.cached_info().config.clone();
        self.context.delete_stream(&config.name).await.map_err(|error| failed("deleting", error))?;
        self.context.create_stream(config).await.map(drop).map_err(|error| failed("creating", error))
    }

    /// Sends a stored record once more under its message id, after the server has forgotten that.
    pub(super) async fn store_copy(&self, topic: &str, position: Position) -> Result<()> {
        let stream = self.topic(topic).await?;
        let found = stream.get_raw_message(position.get()).await.map_err(|error| failed("reading", error))?;
        let window = stream.cached_info().config.duplicate_window;
        if window > Duration::from_secs(10) {
            return Err(failed("a copy", format!("a window of {window:?} is too long to be waited for")));
        }
        tokio::time::sleep(window + Duration::from_millis(100)).await;
        self.store(found.subject.to_string(), found.headers, found.payload).await.map(drop)
    }

    /// Stores a record that no bus wrote, byte for byte. NATS has no record keys, and its own headers for attributes.
    pub(super) async fn store_raw(&self, topic: &str, partition: u32, record: WireRecord) -> Result<()> {
        let attribute = |name: &str, value: &[u8]| {
            (Bytes::from(format!("ce-{name}")), Bytes::from(percent_encode(value, NON_ALPHANUMERIC).to_string()))
        };
        let header = |(name, value): &(Cow<'static, str>, Bytes)| match name.strip_prefix("ce_") {
            Some(name) => attribute(name, value),
            None if name == "content-type" && !value.starts_with(b"application/cloudevents") => {
                attribute("datacontenttype", value)
            }
            None => (Bytes::copy_from_slice(name.as_bytes()), value.clone()),
        };
        let mut headers: Vec<_> = record.headers.iter().map(header).collect();
        headers.extend(record.key.iter().map(|key| attribute("partitionkey", key)));
        self.store_bytes(topic, partition, headers, record.payload).await
    }

    /// Stores a record with these headers, as they are.
    pub(super) async fn store_bytes(
        &self,
        topic: &str,
        partition: u32,
        headers: Vec<(Bytes, Bytes)>,
        payload: Bytes,
    ) -> Result<()> {
        let subject = names::subject(&self.prefix, topic, partition);
        raw::store(self.server, &subject, &headers, &payload).await.map_err(|error| failed("storing", error))
    }

    /// Reads every record of a stream, by position, with its subject.
    pub(super) async fn read(&self, stream: &stream::Stream, filter: String) -> Result<Vec<(u64, String, Inbound)>> {
        let unread = |error: &dyn Display| failed("reading", error);
        let config = jetstream::consumer::pull::Config {
            ack_policy: jetstream::consumer::AckPolicy::None,
            filter_subject: filter,
            memory_storage: true,
            inactive_threshold: Duration::from_secs(60),
            ..Default::default()
        };
        let mut consumer = stream.create_consumer(config).await.map_err(|error| unread(&error))?;
        let mut left = consumer.info().await.map_err(|error| unread(&error))?.num_pending;
        let mut read = Vec::new();
        while left > 0 {
            let batch = consumer.batch().max_messages(BATCH).expires(Duration::from_secs(5)).messages().await;
            let mut batch = batch.map_err(|error| unread(&error))?;
            let before = left;
            while left > 0 {
                let Some(message) = batch.next().await else { break };
                let message = message.map_err(|error| unread(&error))?;
                let info = message.info().map_err(|error| unread(&error))?;
                left = info.pending;
                let (position, millis) = (info.stream_sequence, info.published.unix_timestamp_nanos() / 1_000_000);
                let subject = message.subject.to_string();
                let at = (Position::new(position), u64::try_from(millis).unwrap_or_default());
                let inner = message.message;
                let body = Body::Encoded { record: wire(inner.headers, inner.payload), binding: &BINDING };
                let partition = names::partition_of(&subject).unwrap_or_default();
                read.push((position, subject, Inbound::new(partition, at.0, at.1, body)));
            }
            if left == before {
                return Err(unread(&"the server fell silent before the end"));
            }
        }
        Ok(read)
    }

    /// The topic's number of partitions, by its metadata.
    pub(super) async fn partitions(&self, topic: &str) -> Result<u32> {
        let stream = self.topic(topic).await?;
        let count =
            stream.cached_info().config.metadata.get("eventbus-partitions").and_then(|count| count.parse().ok());
        count.ok_or_else(|| failed("describing", "no count of partitions"))
    }

    /// The record of a group's partition, with its revision. Each is read by itself, from the stream's leader: records
    /// are overwritten all the time, and a consumer may miss one meanwhile.
    async fn record(&self, topic: &str, group: &str, partition: u32) -> Result<Option<(u64, Value)>> {
        let Ok(bucket) = self.context.get_stream(names::bucket(&self.prefix, topic)).await else { return Ok(None) };
        let subject = format!("{}{partition}", names::records(&self.prefix, topic, group));
        match bucket.get_last_raw_message_by_subject(&subject).await {
            Ok(found) => {
                let said = serde_json::from_slice(&found.payload).map_err(|error| failed(&subject, error))?;
                Ok(Some((found.sequence, said)))
            }
            Err(error) if matches!(error.kind(), stream::LastRawMessageErrorKind::NoMessageFound) => Ok(None),
            Err(error) => Err(failed(&subject, error)),
        }
    }

    /// The records of a group on a topic, by partition.
    pub(super) async fn group(&self, topic: &str, group: &str) -> Result<Vec<(u32, Value)>> {
        let mut records = Vec::new();
        for partition in 0..self.partitions(topic).await? {
            records.extend(self.record(topic, group, partition).await?.map(|(_, record)| (partition, record)));
        }
        Ok(records)
    }

    /// Ends a member's ownership of partitions, all or one: the bucket names another owner, which falls silent at once.
    /// Nobody takes them until that owner's lease is over, which is as long as the former owner may believe in its own.
    /// Returns how many there were.
    pub(super) async fn supersede(&self, topic: &str, group: &str, member: &str, only: Option<u32>) -> Result<usize> {
        let mut ended = 0;
        for partition in 0..self.partitions(topic).await? {
            if only.is_none_or(|only| only == partition) {
                ended += usize::from(self.supersede_one(topic, group, member, partition).await?);
            }
        }
        Ok(ended)
    }

    async fn supersede_one(&self, topic: &str, group: &str, member: &str, partition: u32) -> Result<bool> {
        // The owner writes too: a few tries lose the race.
        for _ in 0..50 {
            let Some((revision, mut record)) = self.record(topic, group, partition).await? else { return Ok(false) };
            if record.get("owner").and_then(Value::as_str) != Some(member) {
                return Ok(false);
            }
            record["owner"] = "conformance-usurper".into();
            record["nonce"] = revision.into();
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Expected-Last-Subject-Sequence", revision.to_string());
            let subject = format!("{}{partition}", names::records(&self.prefix, topic, group));
            if self.store(subject, headers, record.to_string().into()).await.is_ok() {
                return Ok(true);
            }
        }
        Err(failed("superseding", "its owner wrote at every try"))
    }
}

#[async_trait]
impl Limits for Admin {
    async fn limit(&self, topic: &str, bytes: usize) -> Result<()> {
        self.change(topic, |config| config.max_message_size = i32::try_from(bytes).unwrap_or(i32::MAX)).await
    }
}

fn is_missing(error: &jetstream::context::GetStreamError) -> bool {
    use jetstream::context::GetStreamErrorKind::JetStream;
    matches!(error.kind(), JetStream(error) if error.error_code() == jetstream::ErrorCode::STREAM_NOT_FOUND)
}

fn wire(headers: Option<HeaderMap>, payload: Bytes) -> WireRecord {
    let mut record = WireRecord { key: None, headers: Vec::new(), payload };
    for (name, values) in headers.iter().flat_map(HeaderMap::iter) {
        let name: &str = name.as_ref();
        record.headers.extend(values.iter().map(|value| (header_name(name), Bytes::copy_from_slice(value.as_ref()))));
    }
    record
}
