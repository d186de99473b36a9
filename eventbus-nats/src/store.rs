//! The bucket of a topic: one key-value bucket for the records and members of all its groups, and all else that the
//! core's [leases](eventbus_core::toolkit::lease) need of JetStream.
//!
//! Invariants: the bucket's first sequence is the clock's milliseconds when it was made, so that the small revision of
//! a stale holder never fits a bucket that was made again; nothing in it ends by age; and a record is read from the
//! stream's leader, never from a replica that is behind.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::Request;
use async_nats::header::HeaderMap;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::publish::PublishAck;
use async_nats::jetstream::stream::RawMessage;
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use eventbus_core::backend::{ConnectionState, TopicDescription};
use eventbus_core::toolkit::lease::{CasOutcome, LeaseStore, ReadPacing, Source, StoreKey, StoredEntry, mapped};
use eventbus_core::{Error, ErrorKind, Group, Position, Result, Storage, Topic};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::connection::{Link, read};
use crate::consumer::{self, Consumer, Delivered};
use crate::error::{Failure, NO_STREAM, Outcome, SIZE_REQUIRED, STREAM_EXISTS, WRONG_LAST};
use crate::names::Names;
use crate::reader::{self, Reader, read_all};
use crate::topics::{StreamInfo, refused};
use crate::wire;

/// Attempts to read a bucket whose reader is given nothing, though there is something.
const READS: u32 = 5;

/// The time after which a missing bucket is looked for again.
const CERTAIN: Duration = Duration::from_millis(500);

/// The least size of a bucket that must have one: notes of some hundred partitions.
const LEAST_BYTES: u64 = 1 << 20;

/// Makes runs of positions.
fn runs(mut positions: Vec<u64>) -> Removed {
    positions.sort_unstable();
    let mut runs: Vec<(Position, Position)> = Vec::new();
    for position in positions.into_iter().map(Position::new) {
        match runs.last_mut() {
            Some(run) if run.1 >= position => run.1 = position.next(),
            _ => runs.push((position, position.next())),
        }
    }
    runs.into()
}

/// A topic and its bucket.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) link: Arc<Link>,
    pub(crate) names: Names,
    pub(crate) topic: Topic,
    /// The records removed from between others, as last seen.
    removed: Mutex<Removed>,
}

/// Runs of removed positions, in order: the first of each, and the one behind its last.
type Removed = Arc<[(Position, Position)]>;

impl Store {
    pub(crate) fn new(link: Arc<Link>, topic: Topic) -> Self {
        Self { names: link.names(&topic), link, topic, removed: Mutex::default() }
    }

    /// Makes the bucket. An account may demand that a stream has a size: then the bucket has the topic's.
    async fn make_bucket(&self, topic: &TopicDescription) -> Result<()> {
        let first = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut config = json!({
            "name": self.names.bucket, "subjects": [self.names.records()], "retention": "limits", "discard": "new",
            "storage": if topic.spec.storage == Storage::Memory { "memory" } else { "file" },
            "num_replicas": topic.spec.replicas, "max_msgs_per_subject": 1, "max_age": 0, "max_bytes": -1, "max_msgs": -1,
            "max_consumers": -1, "allow_rollup_hdrs": true, "allow_direct": true,
            "first_seq": u64::try_from(first.as_millis()).unwrap_or(1),
            "metadata": { "eventbus-topic": topic.spec.topic },
        });
        let create = format!("STREAM.CREATE.{}", self.names.bucket);
        let mut made = self.link.api::<Value>(&create, &config).await;
        if let (Err(failure), Some(bytes)) = (&made, topic.spec.max_bytes)
            && failure.is(SIZE_REQUIRED)
        {
            config["max_bytes"] = json!(bytes.max(LEAST_BYTES));
            made = self.link.api::<Value>(&create, &config).await;
        }
        match made {
            Ok(_) => Ok(()),
            Err(failure) if failure.is(STREAM_EXISTS) => Ok(()),
            Err(failure) => Err(refused(failure).with("bucket", &self.names.bucket)),
        }
    }

    /// Finds the records that were removed from between others. Their list is asked for only where it has grown.
    async fn removed(&self, info: &StreamInfo) -> Outcome<Removed> {
        #[derive(Deserialize)]
        struct Detailed {
            state: Details,
        }
        #[derive(Deserialize)]
        struct Details {
            deleted: Option<Vec<u64>>,
        }
        let (count, first) = (info.state.removed(), Position::new(info.state.first()));
        let mut removed = self.removed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if removed.first().is_some_and(|run| run.0 < first) {
            removed = removed.iter().filter(|run| run.0 >= first).copied().collect();
        }
        if removed.iter().map(|(from, to)| to.get() - from.get()).sum::<u64>() != count {
            let request = json!({ "deleted_details": true });
            let found: Detailed = self.link.api(&format!("STREAM.INFO.{}", self.names.stream), &request).await?;
            removed = runs(found.state.deleted.unwrap_or_default());
        }
        *self.removed.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&removed);
        Ok(removed)
    }

    fn subject(&self, slot: &StoreKey) -> String {
        match slot {
            StoreKey::Partition(group, partition) => self.names.record(group, *partition),
            StoreKey::Member(group, member) => self.names.member(group, member),
        }
    }

    /// Publishes to a slot. Returns its new revision.
    async fn publish(&self, slot: &StoreKey, value: Bytes, headers: HeaderMap, patience: Duration) -> Outcome<u64> {
        let patience = patience.min(self.link.config.request_timeout);
        let request = Request::new().payload(value).headers(headers).timeout(Some(patience));
        let answer = self.link.ask(self.subject(slot), request).await?;
        read::<PublishAck>(&answer).map(|ack| ack.sequence)
    }

    /// Gets a message from the stream's leader; `None` where none fits.
    async fn message(&self, stream: &str, request: Value) -> Outcome<Option<RawMessage>> {
        reader::message(&self.link, stream, &request).await
    }

    /// Whether the bucket has anything under this filter.
    async fn holds(&self, filter: &str) -> Outcome<bool> {
        let request = json!({ "subjects_filter": filter });
        let info: Value = self.link.api(&format!("STREAM.INFO.{}", self.names.bucket), &request).await?;
        Ok(info["state"]["subjects"].as_object().is_some_and(|subjects| !subjects.is_empty()))
    }

    /// Reads all entries under a filter. Old servers may miss an entry that is overwritten while its reader is made
    /// (seen on 2.10: a reader with nothing to read, beside records). So an empty result is believed only when the
    /// bucket's list of subjects says so too.
    async fn entries(&self, filter: &str) -> Result<Vec<StoredEntry>> {
        for _ in 0..READS {
            let mut entries = Vec::new();
            let take = |Delivered { place, subject, payload, .. }: Delivered| {
                if let Some(key) = self.names.parse(&subject) {
                    let (revision, written) = (place.position.get(), place.stored_at);
                    entries.push(StoredEntry { key, revision, written, value: payload });
                }
                true
            };
            read_all(&self.link, &self.names.bucket, filter, DeliverPolicy::All, false, take).await?;
            if !entries.is_empty() || !self.holds(filter).await? {
                return Ok(entries);
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "the bucket has records that no reader of it is given"))
    }

    async fn purge(&self, request: Value) -> Result<()> {
        self.link.api::<Value>(&format!("STREAM.PURGE.{}", self.names.bucket), &request).await?;
        Ok(())
    }
}

#[async_trait]
impl LeaseStore for Store {
    fn read_pacing(&self) -> ReadPacing {
        let config = &self.link.config;
        // Two missing heartbeats, and a little for the way.
        let silence = config.heartbeat * 2 + Duration::from_millis(100);
        ReadPacing { batch: config.fetch_batch, look: config.heartbeat, silence }
    }

    fn connection(&self) -> watch::Receiver<ConnectionState> {
        self.link.connection().watch()
    }

    /// Makes the bucket with the replicas and the storage of its topic; one that is there gets the replicas. The topic
    /// is labelled, so that a bucket that is missing later is known to have been removed.
    async fn ensure(&self, topic: &TopicDescription, begin_anew: bool) -> Result<String> {
        let mut found = self.place().await?;
        let stream = self.link.stream_info(&self.names.stream).await?;
        if found.is_none() && stream.has_bucket() {
            // A server that recovers may say the same for a moment.
            tokio::time::sleep(CERTAIN).await;
            found = self.place().await?;
        }
        if found.is_none() {
            if stream.has_bucket() && !begin_anew {
                let message = "the bucket of the topic's groups was removed, and with it the progress of all groups";
                return Err(Error::new(ErrorKind::LogReset, message).with("bucket", &self.names.bucket));
            }
            self.make_bucket(topic).await?;
        }
        self.link.note_bucket(stream).await;
        let bucket = self.link.stream_info(&self.names.bucket).await?;
        let place = bucket.created().to_owned();
        if let Err(error) = self.link.replicate(bucket, topic.spec.replicas).await {
            tracing::warn!(target: "eventbus", %error, "the groups' bucket has fewer replicas than its topic");
        }
        Ok(place)
    }

    async fn place(&self) -> Result<Option<String>> {
        match self.link.stream_info(&self.names.bucket).await {
            Ok(bucket) => Ok(Some(bucket.created().to_owned())),
            Err(failure) if failure.is(NO_STREAM) => Ok(None),
            Err(failure) => Err(failure.into()),
        }
    }

    async fn describe(&self) -> Result<TopicDescription> {
        let info = self.link.stream_info(&self.names.stream).await?;
        let mut topic = self.link.described(&info, &self.topic)?;
        topic.removed = self.removed(&info).await?;
        Ok(topic)
    }

    async fn now(&self) -> Result<u64> {
        let info = self.link.stream_info(&self.names.stream).await?;
        info.now().ok_or_else(|| Error::new(ErrorKind::Unsupported, "the server does not tell its time"))
    }

    async fn compare_and_swap(&self, slot: &StoreKey, revision: u64, value: Bytes, patience: Duration) -> CasOutcome {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Expected-Last-Subject-Sequence", revision.to_string());
        match self.publish(slot, value, headers, patience).await {
            Ok(revision) => CasOutcome::Done(revision),
            Err(failure) if failure.is(WRONG_LAST) => CasOutcome::Conflict,
            Err(failure @ Failure::Unanswered(_)) => CasOutcome::Unknown(failure.into()),
            Err(failure) => CasOutcome::NotDone(failure.into()),
        }
    }

    async fn put(&self, slot: &StoreKey, value: Bytes) -> Result<()> {
        self.publish(slot, value, HeaderMap::new(), self.link.config.request_timeout).await?;
        Ok(())
    }

    async fn get(&self, slot: &StoreKey) -> Result<Option<(u64, Bytes)>> {
        let last = json!({ "last_by_subj": self.subject(slot) });
        let found = self.message(&self.names.bucket, last).await?;
        Ok(found.map(|found| (found.sequence, STANDARD.decode(&found.payload).unwrap_or_default().into())))
    }

    async fn snapshot(&self, group: Option<&Group>) -> Result<Vec<StoredEntry>> {
        let filter = group.map_or_else(|| self.names.records(), |group| self.names.group(group));
        match self.entries(&filter).await {
            // There is no bucket yet.
            Err(error) if error.kind() == ErrorKind::UnknownTopic => Ok(Vec::new()),
            entries => entries,
        }
    }

    async fn remove(&self, slot: &StoreKey, up_to: Option<u64>) -> Result<()> {
        let mut request = json!({ "filter": self.subject(slot) });
        if let Some(revision) = up_to {
            request["seq"] = json!(revision + 1);
        }
        self.purge(request).await
    }

    async fn clear(&self, group: &Group) -> Result<()> {
        self.purge(json!({ "filter": self.names.group(group) })).await
    }

    async fn next(&self, partition: u32, from: Position) -> Result<Option<Position>> {
        let next = json!({ "seq": from.get().max(1), "next_by_subj": self.names.partition(partition) });
        let found = self.message(&self.names.stream, next).await?;
        Ok(found.map(|found| Position::new(found.sequence)))
    }

    /// The count is the backlog of a consumer that starts there.
    async fn backlog(&self, partition: u32, from: Position) -> Result<(u64, Option<u64>)> {
        let subject = self.names.partition(partition);
        let start = consumer::from(from);
        let (_, created) = Consumer::create(&self.link, &self.names.stream, &subject, start, true).await?;
        let lag = created.num_pending;
        if lag == 0 {
            return Ok((0, None));
        }
        let first = json!({ "seq": from.get().max(1), "next_by_subj": subject });
        // `None` where retention was faster.
        let oldest = self.message(&self.names.stream, first).await?;
        let millis = |stored: RawMessage| u64::try_from(stored.time.unix_timestamp_nanos() / 1_000_000).ok();
        Ok((lag, oldest.and_then(millis)))
    }

    async fn open(&self, partition: u32, from: Position) -> Result<Box<dyn Source>> {
        let subject = self.names.partition(partition);
        let reader = Reader::open(&self.link, &self.names.stream, &subject, from).await?;
        let inbound = move |record: Delivered| wire::inbound(partition, &record.place, &record.headers, record.payload);
        Ok(Box::new(mapped(reader, inbound)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removed_positions_become_runs() {
        let of = |positions: &[u64]| runs(positions.to_vec()).iter().map(|run| (run.0.get(), run.1.get())).collect();
        let none: Vec<(u64, u64)> = of(&[]);
        assert_eq!(none, []);
        let some: Vec<(u64, u64)> = of(&[4, 2, 3, 9, 7]);
        assert_eq!(some, [(2, 5), (7, 8), (9, 10)]);
    }
}
