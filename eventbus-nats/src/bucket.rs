//! The bucket of a topic: one key-value bucket for the records and members of all its groups.
//!
//! Invariants: its first sequence is the clock's milliseconds when it was made, so that the small revision of a stale
//! holder never fits a bucket that was made again; and nothing in it ends by age.

use std::sync::Arc;
use std::time::Duration;

use eventbus_core::backend::TopicDescription;
use eventbus_core::{Error, ErrorKind, Group, Result, Storage, Topic};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::connection::Link;
use crate::consumer::{Start, read_all};
use crate::error::{Failure, NO_STREAM, STREAM_EXISTS};
use crate::names::{Entry, Names};
use crate::record::{Record, Slot};
use crate::topics::stream_info;

/// How often a reader is made again that is given nothing, though there is something.
const READS: u32 = 5;

/// What a member says of itself, again and again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(crate) group: String,
    pub(crate) name: String,
    /// How long it is believed without a word, in milliseconds.
    pub(crate) lease_ms: u64,
}

/// A topic's bucket.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    pub(crate) link: Arc<Link>,
    pub(crate) names: Names,
}

/// What the bucket held at one moment.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// Partition, revision, milliseconds of the server's clock when it was written, record.
    pub(crate) records: Vec<(u32, u64, u64, Record)>,
    /// Subject, revision, milliseconds, member.
    pub(crate) members: Vec<(String, u64, u64, Member)>,
}

impl Bucket {
    /// The place of a partition's record, for an owner with this lease.
    pub(crate) fn slot(&self, group: &Group, partition: u32, lease: Duration) -> Slot {
        let patience = self.link.config.request_timeout.min(lease / 5);
        let subject = self.names.record(group, partition);
        Slot { link: Arc::clone(&self.link), bucket: self.names.bucket.clone(), subject, patience }
    }

    /// Makes it, with the replicas and the storage of its topic, if it is not there.
    pub(crate) async fn ensure(&self, topic: &TopicDescription) -> Result<()> {
        match stream_info(&self.link, &self.names.bucket).await {
            Ok(_) => return Ok(()),
            Err(failure) if failure.is(NO_STREAM) => {}
            Err(failure) => return Err(failure.into()),
        }
        let first = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let config = json!({
            "name": self.names.bucket, "subjects": [self.names.records()], "retention": "limits", "discard": "new",
            "storage": if topic.spec.storage == Storage::Memory { "memory" } else { "file" },
            "num_replicas": topic.spec.replicas, "max_msgs_per_subject": 1, "max_age": 0, "max_bytes": -1, "max_msgs": -1,
            "max_consumers": -1, "allow_rollup_hdrs": true, "allow_direct": true,
            "first_seq": u64::try_from(first.as_millis()).unwrap_or(1),
            "metadata": { "eventbus-topic": topic.spec.topic },
        });
        match self.link.api::<Value>(&format!("STREAM.CREATE.{}", self.names.bucket), &config).await {
            Ok(_) => Ok(()),
            Err(failure) if failure.is(STREAM_EXISTS) => Ok(()),
            Err(failure) => Err(failure.into()),
        }
    }

    /// All of a group, or of all groups. What is overwritten while a reader of it is made may be missed by old servers (seen
    /// on 2.10: a reader with nothing to read, beside records): nothing at all is believed only when the bucket's list of
    /// subjects says so too.
    pub(crate) async fn snapshot(&self, group: Option<&Group>) -> std::result::Result<Snapshot, Failure> {
        let filter = group.map_or_else(|| self.names.records(), |group| self.names.group(group));
        for _ in 0..READS {
            let found = self.read(&filter).await?;
            if !found.records.is_empty() || !found.members.is_empty() || !self.holds(&filter).await? {
                return Ok(found);
            }
        }
        Err(Failure::Unanswered("the bucket has records that no reader of it is given".into()))
    }

    /// Whether there is anything under this filter.
    async fn holds(&self, filter: &str) -> std::result::Result<bool, Failure> {
        let request = json!({ "subjects_filter": filter });
        match self.link.api::<Value>(&format!("STREAM.INFO.{}", self.names.bucket), &request).await {
            Ok(info) => Ok(info["state"]["subjects"].as_object().is_some_and(|subjects| !subjects.is_empty())),
            Err(failure) if failure.is(NO_STREAM) => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    async fn read(&self, filter: &str) -> std::result::Result<Snapshot, Failure> {
        let mut found = Snapshot::default();
        let read = read_all(&self.link, &self.names.bucket, filter, Start::All, false, |place, subject, _, payload| {
            let revision = place.position.get();
            match self.names.parse(subject) {
                Some(Entry::Record { partition }) => {
                    if let Ok(record) = serde_json::from_slice(payload) {
                        found.records.push((partition, revision, place.stored_at, record));
                    }
                }
                Some(Entry::Member) => {
                    if let Ok(member) = serde_json::from_slice(payload) {
                        found.members.push((subject.to_owned(), revision, place.stored_at, member));
                    }
                }
                None => {}
            }
            true
        });
        match read.await {
            Err(failure) if failure.is(NO_STREAM) => Ok(Snapshot::default()),
            read => read.map(|()| found),
        }
    }

    /// Removes keys below a revision, or all that the filter fits.
    pub(crate) async fn purge(&self, filter: &str, below: Option<u64>) -> std::result::Result<(), Failure> {
        let mut request = json!({ "filter": filter });
        if let Some(below) = below {
            request["seq"] = json!(below);
        }
        self.link.api::<Value>(&format!("STREAM.PURGE.{}", self.names.bucket), &request).await.map(drop)
    }

    /// The server's clock, in milliseconds.
    pub(crate) async fn now(&self, topic: &Topic) -> Result<u64> {
        let info = stream_info(&self.link, &self.names.stream).await;
        let info = info.map_err(|failure| Error::from(failure).with("topic", topic))?;
        info.now().ok_or_else(|| Error::new(ErrorKind::Unsupported, "the server does not tell its time"))
    }
}

/// Whether something that was written then, to be believed for so long, is believed now: all by the server's clock.
pub(crate) fn alive(written: u64, lease_ms: u64, now: u64) -> bool {
    now.saturating_sub(written) < lease_ms
}

/// How long a lease is, as it is written.
pub(crate) fn lease_ms(session: Duration) -> u64 {
    u64::try_from(session.as_millis()).unwrap_or(u64::MAX)
}
