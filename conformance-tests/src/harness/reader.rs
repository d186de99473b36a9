//! Reading the log and the committed positions after a run, by a connection of the test's own.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use eventbus_core::backend::{Backend, Body, GroupEvent, Inbound, Join, LogState, Membership};
use eventbus_core::wire::{self, DecodeContext};
use eventbus_core::{Envelope, Error, ErrorKind, Group, Result, Topic};

use crate::history::{Key, Kind, Name, digest, parse_payload};

/// The extension that the bus sets on a replayed dead letter.
const REPLAY: &str = "eventbusreplayto";

/// Time for which a broker may be silent before reading ends with an error.
const SILENCE: Duration = Duration::from_secs(30);

/// The result of a reading, ready to be appended to the history.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct ReadBack {
    /// `LogBounds`, `LogRecord` and `CommittedRead`.
    pub kinds: Vec<Kind>,
    /// Number of records read.
    pub records: usize,
}

/// A reader of a broker's logs and progress, beside the bus under test.
#[async_trait]
pub trait LogReader: fmt::Debug + Send + Sync {
    /// The first position that is held and the one that comes next, of each partition.
    ///
    /// # Errors
    /// The broker's error.
    async fn bounds(&self, topic: &Topic) -> Result<Vec<(u64, u64)>>;

    /// All records, by partition and position.
    ///
    /// # Errors
    /// The broker's error; `Unavailable` if the broker falls silent before the end.
    async fn records(&self, topic: &Topic) -> Result<Vec<Inbound>>;

    /// The committed positions of a group, by partition; empty where it has none.
    ///
    /// # Errors
    /// The broker's error.
    async fn committed(&self, topic: &Topic, group: &Group) -> Result<Vec<(u32, u64)>>;
}

/// A reader by a backend of its own, in a group of its own that commits nothing.
#[derive(Debug)]
pub struct BackendReader(Arc<dyn Backend>);

impl BackendReader {
    /// Makes a reader by this backend, which must be open.
    #[must_use]
    pub fn new(backend: Arc<dyn Backend>) -> Self {
        Self(backend)
    }
}

#[async_trait]
impl LogReader for BackendReader {
    async fn bounds(&self, topic: &Topic) -> Result<Vec<(u64, u64)>> {
        let described = self.0.describe_topic(topic).await?;
        Ok(described.partitions.iter().map(|log| (log.first.get(), log.end.get())).collect())
    }

    async fn records(&self, topic: &Topic) -> Result<Vec<Inbound>> {
        let described = self.0.describe_topic(topic).await?;
        let reader: Group = "conformance-reader".parse()?;
        let logs = described.partitions.clone();
        let member = self.0.join(Join::new(described, reader, "conformance-reader")).await?;
        let records = records(&*member, &logs).await;
        member.leave().await?;
        records
    }

    async fn committed(&self, topic: &Topic, group: &Group) -> Result<Vec<(u32, u64)>> {
        let Ok(described) = self.0.describe_group(topic, group).await else { return Ok(Vec::new()) };
        let committed = described.partitions.into_iter();
        Ok(committed.filter_map(|one| Some((one.partition, one.committed?.next.get()))).collect())
    }
}

/// Reads a topic's log from its first record to its end, and the committed positions of these groups.
///
/// # Errors
/// The reader's error.
pub async fn read_back(reader: &dyn LogReader, topic: &Topic, groups: &[Group]) -> Result<ReadBack> {
    let mut read = ReadBack::default();
    for (partition, (first, end)) in (0..).zip(reader.bounds(topic).await?) {
        read.kinds.push(Kind::LogBounds { topic: topic.as_str().into(), partition, first, end });
    }
    for record in reader.records(topic).await? {
        read.records += 1;
        read.kinds.push(log_record(topic, &record)?);
    }
    for group in groups {
        for (partition, position) in reader.committed(topic, group).await? {
            let (topic, group) = (topic.as_str().into(), group.as_str().into());
            read.kinds.push(Kind::CommittedRead { topic, group, partition, position });
        }
    }
    Ok(read)
}

async fn records(member: &dyn Membership, logs: &[LogState]) -> Result<Vec<Inbound>> {
    let mut left: BTreeMap<u32, u64> = (0..).zip(logs.iter().map(|log| log.end.get())).collect();
    left.retain(|partition, end| logs.get(*partition as usize).is_some_and(|log| log.first.get() < *end));
    let mut records = Vec::new();
    while !left.is_empty() {
        let event = tokio::time::timeout(SILENCE, member.next()).await;
        let silent =
            |_| Error::new(ErrorKind::Unavailable, format!("the log was not read to its end: left is {left:?}"));
        match event.map_err(silent)?? {
            GroupEvent::Assigned(given) => {
                for given in given {
                    if let Some(log) = logs.get(given.partition as usize) {
                        member.read(given.partition, log.first).await?;
                    }
                }
            }
            GroupEvent::Records(batch) => {
                for record in batch {
                    let end = logs.get(record.partition as usize).map_or(0, |log| log.end.get());
                    if record.position.get() + 1 >= end {
                        left.remove(&record.partition);
                    }
                    if record.position.get() < end {
                        records.push(record);
                    }
                }
            }
            GroupEvent::CaughtUp { partition, next } => {
                left.retain(|number, end| *number != partition || next.get() < *end);
            }
            GroupEvent::Interrupted(partitions) => {
                let message = format!("reading the partitions {partitions:?} was interrupted");
                return Err(Error::new(ErrorKind::Unavailable, message));
            }
            _ => {}
        }
    }
    records.sort_by_key(|record| (record.partition, record.position));
    Ok(records)
}

/// The envelope of a record.
///
/// # Errors
/// `Undecodable`.
pub fn envelope_of(topic: &Topic, record: &Inbound) -> Result<Envelope> {
    match &record.body {
        Body::Envelope(envelope) => Ok(envelope.clone()),
        Body::Encoded { record: encoded, binding } => {
            let Inbound { partition, position, stored_at, .. } = *record;
            let at = DecodeContext { topic, partition, position, stored_at };
            Ok(wire::decode(encoded, binding, &at)?.envelope)
        }
    }
}

fn log_record(topic: &Topic, record: &Inbound) -> Result<Kind> {
    let envelope = envelope_of(topic, record)?;
    let payload = envelope.payload();
    let topic: Name = topic.as_str().into();
    Ok(Kind::LogRecord {
        topic,
        partition: record.partition,
        position: record.position.get(),
        key: envelope.key().map_or(Key::none(), |key| Key::new(key.as_bytes())),
        number: parse_payload(payload).map_or(0, |numbered| numbered.number),
        digest: digest(payload),
        replayed: envelope.extension(REPLAY).is_some(),
    })
}
