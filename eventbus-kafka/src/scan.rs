//! Reading partitions' logs from outside: for a stamp (P3), for what a record is known again by, for its time.
//!
//! Invariant: nothing is read beyond the end of the log as it is when the reading begins.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use eventbus_core::backend::Scans;
use eventbus_core::{Error, ErrorKind, Position, Result, Stamp, Topic};
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message, Offset, TopicPartitionList};

use crate::connection::Link;
use crate::error::to_core;
use crate::note::{Print, print_of};
use crate::topics::watermarks;
use crate::wire;

/// How long a scan may stand still.
const PATIENCE: Duration = Duration::from_secs(10);

/// The group that a reader names and never joins.
const READER: &str = "eventbus-scan";

/// The first position at `from` or above whose record has this stamp. Blocks.
pub(crate) fn find(
    link: &Link,
    scans: &Scans,
    topic: &Topic,
    partition: u32,
    from: Position,
    stamp: Stamp,
) -> Result<Option<Position>> {
    let name = link.config.topic(topic);
    let log = || watermarks(link, &name, partition).map_err(|error| to_core(&error, "asking for the end of the log"));
    scans.find(topic, partition, from, stamp, log, |places, each| {
        let (begin, end) = (wire::offset(places.start), wire::offset(places.end));
        read(link, &name, &[(partition, begin)], |_, message| {
            if message.offset() < end
                && let Some(stamp) = wire::stamp(message)
            {
                each(wire::position(message.offset()), stamp);
            }
            message.offset() + 1 < end
        })
    })
}

/// The prints of these records, or of the next ones that are still there, as far as there are any. Blocks.
pub(crate) fn prints(link: &Link, name: &str, places: &[(u32, i64)]) -> Result<HashMap<u32, Print>> {
    let mut found = HashMap::new();
    read(link, name, places, |partition, message| {
        found.insert(partition, print_of(message));
        false
    })?;
    Ok(found)
}

/// When the first record from there on was stored, in milliseconds since the Unix epoch. Best effort. Blocks.
pub(crate) fn stored_at(link: &Link, name: &str, partition: u32, from: Position) -> Option<u64> {
    let mut time = None;
    let _ = read(link, name, &[(partition, wire::offset(from))], |_, message| {
        time = message.timestamp().to_millis();
        false
    });
    time.and_then(|millis| u64::try_from(millis).ok())
}

/// The first position whose record was stored at that time or later, or the end of the log. Blocks.
pub(crate) fn position_at(link: &Link, name: &str, partition: u32, unix_millis: u64) -> KafkaResult<Position> {
    // The end as it was before: what is stored meanwhile is not missed.
    let end = watermarks(link, name, partition)?.end;
    let time = i64::try_from(unix_millis).unwrap_or(i64::MAX);
    let found = link.outsider(READER)?.offsets_for_times(list(name, &[(partition, time)])?, link.timeout())?;
    Ok(match found.elements().first().map(|element| element.offset()) {
        Some(Offset::Offset(offset)) => wire::position(offset),
        _ => end,
    })
}

/// Reads partitions, each from its offset on until `each` wants no more of it, or to its end. Blocks.
fn read(
    link: &Link,
    name: &str,
    places: &[(u32, i64)],
    mut each: impl FnMut(u32, &BorrowedMessage<'_>) -> bool,
) -> Result<()> {
    let failed = |error: KafkaError| to_core(&error, "reading the log");
    let mut left: HashSet<u32> = places.iter().map(|(partition, _)| *partition).collect();
    if left.is_empty() {
        return Ok(());
    }
    let consumer = link.outsider(READER).map_err(failed)?;
    consumer.assign(&list(name, places).map_err(failed)?).map_err(failed)?;
    let mut until = Instant::now() + PATIENCE;
    while !left.is_empty() {
        if Instant::now() >= until {
            return Err(Error::new(ErrorKind::Unavailable, "the log could not be read to its end in time"));
        }
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                let partition = u32::try_from(message.partition()).unwrap_or_default();
                if left.contains(&partition) {
                    until = Instant::now() + PATIENCE;
                    if !each(partition, &message) {
                        left.remove(&partition);
                    }
                }
            }
            // Reached beyond what a transaction's marker or compaction leaves at the end.
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                left.remove(&u32::try_from(partition).unwrap_or_default());
            }
            Some(Err(_)) | None => {}
        }
    }
    Ok(())
}

fn list(name: &str, places: &[(u32, i64)]) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in places {
        let number = i32::try_from(*partition).unwrap_or(i32::MAX);
        list.add_partition_offset(name, number, Offset::Offset(*offset))?;
    }
    Ok(list)
}
