//! Reading the log and the committed positions after a run, by a connection of the test's own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use eventbus_core::backend::{Backend, Body, GroupEvent, Inbound, Join, LogState, Membership, TopicDescription};
use eventbus_core::wire::{self, DecodeContext};
use eventbus_core::{Envelope, Error, ErrorKind, Group, Result, Topic};

use crate::history::{Key, Kind, Name, digest, parse_payload};

/// What the bus sets on a replayed dead letter.
const REPLAY: &str = "eventbusreplayto";

/// How long a broker may be silent before reading ends with an error.
const SILENCE: Duration = Duration::from_secs(30);

/// What was read, ready to be appended to the history.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct ReadBack {
    /// `LogBounds`, `LogRecord` and `CommittedRead`.
    pub kinds: Vec<Kind>,
    /// Records read.
    pub records: usize,
}

/// Reads a topic's log from its first record to its end, by a group of its own that commits nothing, and the committed
/// positions of these groups.
///
/// # Errors
/// What the backend says; `Unavailable` where it falls silent before the end.
pub async fn read_back(backend: &Arc<dyn Backend>, topic: &Topic, groups: &[Group]) -> Result<ReadBack> {
    let mut read = ReadBack::default();
    let described = backend.describe_topic(topic).await?;
    for (partition, log) in (0..).zip(&described.partitions) {
        let (first, end) = (log.first.get(), log.end.get());
        read.kinds.push(Kind::LogBounds { topic: topic.as_str().into(), partition, first, end });
    }
    for record in read_records(backend, described).await? {
        read.records += 1;
        read.kinds.push(log_record(topic, &record)?);
    }
    for group in groups {
        let Ok(described) = backend.describe_group(topic, group).await else { continue };
        for partition in described.partitions {
            let Some(committed) = partition.committed else { continue };
            read.kinds.push(Kind::CommittedRead {
                topic: topic.as_str().into(),
                group: group.as_str().into(),
                partition: partition.partition,
                position: committed.next.get(),
            });
        }
    }
    Ok(read)
}

/// Reads all records of a topic as it is described, by partition and position, in a group of its own that commits nothing.
///
/// # Errors
/// What the backend says; `Unavailable` where it falls silent before the end.
pub async fn read_records(backend: &Arc<dyn Backend>, described: TopicDescription) -> Result<Vec<Inbound>> {
    let reader: Group = "conformance-reader".parse()?;
    let logs = described.partitions.clone();
    let member = backend.join(Join::new(described, reader, "conformance-reader")).await?;
    let records = records(&*member, &logs).await;
    member.leave().await?;
    records
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
            Ok(wire::decode(encoded.clone(), binding, &at)?.envelope)
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
