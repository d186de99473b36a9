//! Groups as seen from outside: their progress, their lag, their members; reset and deleted on request only.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use eventbus_core::backend::{GroupDescription, GroupPartition};
use eventbus_core::{Error, ErrorKind, Group, Position, Result, Topic};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::bucket::{Bucket, Snapshot, alive};
use crate::connection::Link;
use crate::consumer::{Consumer, Start};
use crate::error::{Failure, NO_MESSAGE};
use crate::record::{Record, Swap};
use crate::topics::{StreamInfo, stream_info};

/// Questions to the server at once.
const AT_ONCE: usize = 16;

/// What a reset that owns nothing goes by in place of a lease.
const LEASE: Duration = Duration::from_secs(10);

/// A topic's groups.
pub(crate) struct Groups {
    bucket: Bucket,
    topic: Topic,
}

impl Groups {
    pub(crate) fn new(bucket: Bucket, topic: Topic) -> Self {
        Self { bucket, topic }
    }

    fn about(&self, failure: Failure) -> Error {
        Error::from(failure).with("topic", &self.topic)
    }

    fn link(&self) -> &Arc<Link> {
        &self.bucket.link
    }

    async fn stream(&self) -> Result<StreamInfo> {
        stream_info(self.link(), &self.bucket.names.stream).await.map_err(|failure| self.about(failure))
    }

    async fn snapshot(&self, group: Option<&Group>) -> Result<Snapshot> {
        self.bucket.snapshot(group).await.map_err(|failure| self.about(failure))
    }

    pub(crate) async fn list(&self) -> Result<Vec<Group>> {
        let now = self.now().await?;
        let snapshot = self.snapshot(None).await?;
        let mut names = BTreeSet::new();
        for (_, _, written, record) in snapshot.records {
            if record.next.is_some() || is_owned(&record, written, now) {
                names.insert(record.group);
            }
        }
        let members = snapshot.members.into_iter().filter(|(_, _, written, m)| alive(*written, m.lease_ms, now));
        names.extend(members.map(|(.., member)| member.group));
        names.iter().map(|name| name.parse()).collect()
    }

    async fn now(&self) -> Result<u64> {
        self.bucket.now(&self.topic).await
    }

    pub(crate) async fn describe(&self, group: &Group) -> Result<GroupDescription> {
        let info = self.stream().await?;
        let now = self.now().await?;
        let snapshot = self.snapshot(Some(group)).await?;
        let partitions = info.partitions(&self.topic)?;
        let live = snapshot.members.iter().filter(|(_, _, written, member)| alive(*written, member.lease_ms, now));
        let mut members: Vec<String> = live.map(|(.., member)| member.name.clone()).collect();
        members.sort();
        let mut records = vec![(0, Record::default()); partitions as usize];
        for (partition, _, written, record) in snapshot.records {
            if let Some(slot) = records.get_mut(partition as usize) {
                *slot = (written, record);
            }
        }
        if members.is_empty() && !records.iter().any(|(written, r)| r.next.is_some() || is_owned(r, *written, now)) {
            return Err(self.unknown(group));
        }
        let described = (0..).zip(records).map(|(partition, (written, record))| {
            let (log, committed) = (info.log(), record.committed());
            let owner = is_owned(&record, written, now).then(|| record.owner.clone());
            async move {
                let from = committed.as_ref().map_or(Position::ZERO, |committed| committed.next);
                let lag = self.lag(partition, from).await?;
                let oldest = if lag > 0 { self.stored_at(partition, from).await? } else { None };
                Ok::<_, Error>(GroupPartition { partition, committed, log, lag, owner, oldest })
            }
        });
        let described = stream::iter(described).buffered(AT_ONCE).try_collect().await?;
        Ok(GroupDescription::new(members, described))
    }

    /// Records of a partition at or above a position: a count that a consumer starting there is told.
    async fn lag(&self, partition: u32, from: Position) -> Result<u64> {
        let names = &self.bucket.names;
        let start = Start::Sequence(from.get());
        let counted = Consumer::create(self.link(), &names.stream, &names.partition(partition), start, true).await;
        counted.map(|(_, pending)| pending).map_err(|failure| self.about(failure))
    }

    /// When the first record of a partition at or above a position was stored, in milliseconds since the Unix epoch.
    async fn stored_at(&self, partition: u32, from: Position) -> Result<Option<u64>> {
        let names = &self.bucket.names;
        let request = json!({ "seq": from.get().max(1), "next_by_subj": names.partition(partition) });
        let found = match self.link().api::<Value>(&format!("STREAM.MSG.GET.{}", names.stream), &request).await {
            Ok(found) => found,
            // Retention was faster.
            Err(failure) if failure.is(NO_MESSAGE) => return Ok(None),
            Err(failure) => return Err(self.about(failure)),
        };
        let time = found["message"]["time"].as_str().and_then(|time| OffsetDateTime::parse(time, &Rfc3339).ok());
        Ok(time.and_then(|time| u64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok()))
    }

    fn unknown(&self, group: &Group) -> Error {
        let message = "the group has neither progress nor members";
        Error::new(ErrorKind::UnknownGroup, message).with("topic", &self.topic).with("group", group)
    }

    /// What the bucket has of a group without active members.
    async fn idle(&self, group: &Group) -> Result<Snapshot> {
        let now = self.now().await?;
        let snapshot = self.snapshot(Some(group)).await?;
        let member = snapshot.members.iter().any(|(_, _, written, member)| alive(*written, member.lease_ms, now));
        if member || snapshot.records.iter().any(|(_, _, written, record)| is_owned(record, *written, now)) {
            let message = "the group has active members; expected none";
            return Err(Error::new(ErrorKind::GroupActive, message).with("topic", &self.topic).with("group", group));
        }
        Ok(snapshot)
    }

    pub(crate) async fn reset(&self, group: &Group, to: &[(u32, Position)]) -> Result<()> {
        let partitions = self.stream().await?.partitions(&self.topic)?;
        if let Some((partition, _)) = to.iter().find(|(partition, _)| *partition >= partitions) {
            let message = "the topic has no such partition";
            return Err(Error::new(ErrorKind::Backend, message).with("partition", partition));
        }
        let snapshot = self.idle(group).await?;
        for (partition, next) in to {
            let found = snapshot.records.iter().find(|(found, ..)| found == partition);
            let (revision, before) = found.map_or_else(Default::default, |(_, rev, _, record)| (*rev, record.clone()));
            let record = Record {
                group: group.to_string(),
                owner: String::new(),
                nonce: rand::random(),
                next: Some(next.get()),
                note: String::new(),
                ..before
            };
            match self.bucket.slot(group, *partition, LEASE).swap(revision, &record).await {
                Swap::Done(_) => {}
                Swap::Conflict => {
                    let message = "a member came while the group was reset";
                    return Err(Error::new(ErrorKind::GroupActive, message).with("group", group));
                }
                Swap::NotDone(failure) => return Err(self.about(failure)),
            }
        }
        Ok(())
    }

    pub(crate) async fn delete(&self, group: &Group) -> Result<()> {
        self.stream().await?;
        let snapshot = self.idle(group).await?;
        if !snapshot.records.iter().any(|(.., record)| record.next.is_some()) {
            return Err(self.unknown(group));
        }
        self.bucket.purge(&self.bucket.names.group(group), None).await.map_err(|failure| self.about(failure))
    }

    /// The bucket is made before progress can be set.
    pub(crate) fn bucket(&self) -> &Bucket {
        &self.bucket
    }
}

fn is_owned(record: &Record, written: u64, now: u64) -> bool {
    !record.owner.is_empty() && alive(written, record.lease_ms, now)
}

/// The position of the first record that `fits` by its headers, from `from` on.
pub(crate) async fn find(
    link: &Arc<Link>,
    stream: &str,
    subject: &str,
    start: Start,
    mut fits: impl FnMut(Option<&str>) -> bool,
) -> std::result::Result<Option<Position>, Failure> {
    let mut found = None;
    let read = crate::consumer::read_all(link, stream, subject, start, true, |place, _, headers, _: &Bytes| {
        let id = headers.and_then(|headers| headers.get(crate::wire::MESSAGE_ID));
        if fits(id.map(async_nats::HeaderValue::as_str)) {
            found = Some(place.position);
        }
        found.is_none()
    });
    read.await.map(|()| found)
}
