//! A topic's log, read with a consumer that joins no group: its bounds, its records.

use std::fmt::Display;
use std::time::Duration;

use bytes::Bytes;
use eventbus_core::backend::{Body, Inbound};
use eventbus_core::toolkit::poll_until_blocking;
use eventbus_core::wire::{Binding, WireRecord};
use eventbus_core::{Error, ErrorKind, Position, Result};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

/// CloudEvents on Kafka, as its binding has them: the record's key is the event's.
static BINDING: Binding = Binding::new("ce_").content_type("content-type").keyed(true);

/// Time for which a broker may be silent while it is read.
const SILENCE: Duration = Duration::from_secs(20);

/// Time-out of a call.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn failed(what: &str, error: impl Display) -> Error {
    Error::new(ErrorKind::Backend, format!("the suite's own client: {what}: {error}"))
}

/// An offset or a time as a number: where it is known, it is never negative.
pub(super) fn number(signed: i64) -> u64 {
    u64::try_from(signed).unwrap_or_default()
}

/// Asks a broker that has just come back again and again, until it knows what it leads.
pub(super) fn again<T>(ask: impl Fn() -> KafkaResult<T>) -> KafkaResult<T> {
    use RDKafkaErrorCode::{
        CoordinatorLoadInProgress, CoordinatorNotAvailable, LeaderNotAvailable, NotCoordinator, NotLeaderForPartition,
        UnknownPartition,
    };
    let passes = |answer: &KafkaResult<T>| {
        let code = answer.as_ref().err().and_then(KafkaError::rdkafka_error_code);
        matches!(code, Some(NotLeaderForPartition | LeaderNotAvailable | UnknownPartition))
            || matches!(code, Some(NotCoordinator | CoordinatorNotAvailable | CoordinatorLoadInProgress))
    };
    poll_until_blocking(PATIENCE, passes, |_| ask())
}

/// The first offset that is held and the one that comes next, of each partition.
pub(super) fn bounds(client: &BaseConsumer, name: &str) -> Result<Vec<(u64, u64)>> {
    let metadata = client.fetch_metadata(Some(name), PATIENCE).map_err(|error| failed(name, error))?;
    let count = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
    if count == 0 {
        return Err(failed(name, "no such topic"));
    }
    let of = |partition| {
        let found = again(|| client.fetch_watermarks(name, partition, PATIENCE));
        found.map(|(first, end)| (number(first), number(end))).map_err(|error| failed(name, error))
    };
    (0..i32::try_from(count).unwrap_or(i32::MAX)).map(of).collect()
}

/// Reads the records of partitions, from their first to before their end.
pub(super) fn records(
    client: &BaseConsumer,
    name: &str,
    partitions: impl Iterator<Item = (i32, u64, u64)>,
) -> Result<Vec<Inbound>> {
    let wrong = |error: &dyn std::fmt::Display| failed(name, error);
    let (mut from, mut ends) = (TopicPartitionList::new(), std::collections::BTreeMap::new());
    for (partition, first, end) in partitions.filter(|(_, first, end)| first < end) {
        let offset = Offset::Offset(i64::try_from(first).unwrap_or(i64::MAX));
        from.add_partition_offset(name, partition, offset).map_err(|error| wrong(&error))?;
        ends.insert(partition, end);
    }
    client.assign(&from).map_err(|error| wrong(&error))?;
    let mut read = Vec::new();
    let mut heard = std::time::Instant::now();
    while !ends.is_empty() {
        if heard.elapsed() > SILENCE {
            return Err(wrong(&"the broker fell silent before the end"));
        }
        // Errors of the connection come here as well, and pass.
        let Some(Ok(message)) = client.poll(Duration::from_millis(100)) else { continue };
        heard = std::time::Instant::now();
        let next = number(message.offset()) + 1;
        if ends.get(&message.partition()).is_some_and(|end| next <= *end) {
            read.push(inbound(&message));
        }
        if ends.get(&message.partition()).is_some_and(|end| next >= *end) {
            ends.remove(&message.partition());
        }
    }
    client.unassign().map_err(|error| wrong(&error))?;
    Ok(read)
}

fn inbound(message: &BorrowedMessage<'_>) -> Inbound {
    let at = message.timestamp().to_millis().map_or(0, number);
    let partition = u32::try_from(message.partition()).unwrap_or_default();
    let body = Body::Encoded { record: wire(message), binding: &BINDING };
    Inbound::new(partition, Position::new(number(message.offset())), at, body)
}

/// A record's content as it is.
fn wire(message: &BorrowedMessage<'_>) -> WireRecord {
    let bytes = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
    let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
    WireRecord {
        key: message.key().map(bytes),
        headers: headers.map(|one| (one.key.to_owned().into(), bytes(one.value.unwrap_or_default()))).collect(),
        payload: bytes(message.payload().unwrap_or_default()),
    }
}
