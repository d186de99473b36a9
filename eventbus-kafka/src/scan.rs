//! Reading a partition's log from outside: for a stamp (P3), for a record's content.
//!
//! Invariant: a scan ends at the end of the log as it was when asked for, whatever is written meanwhile.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use eventbus_core::{Error, ErrorKind, Position, Result, Stamp, Topic};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message, Offset, TopicPartitionList};

use crate::connection::Link;
use crate::error::to_core;
use crate::note::Print;
use crate::topics::watermarks;
use crate::wire;

/// How long a scan may stand still.
const PATIENCE: Duration = Duration::from_secs(10);

/// The most stamps that are kept of a partition.
const KEPT: usize = 200_000;

/// What was read of partitions while outcomes were unknown: many records ask at once, and the log is read once for all.
#[derive(Debug, Default)]
pub(crate) struct Scans(Mutex<HashMap<(Topic, u32), SharedScan>>);

type SharedScan = Arc<Mutex<Scan>>;

#[derive(Debug, Default)]
struct Scan {
    from: u64,
    to: u64,
    stamps: HashMap<Stamp, Position>,
}

impl Scans {
    /// The first position at `from` or above whose record has this stamp. Blocks.
    pub(crate) fn find(
        &self,
        link: &Link,
        topic: &Topic,
        partition: u32,
        from: Position,
        stamp: Stamp,
    ) -> Result<Option<Position>> {
        let place = (topic.clone(), partition);
        let scan = Arc::clone(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(place).or_default());
        let mut scan = scan.lock().unwrap_or_else(PoisonError::into_inner);
        let name = link.config.topic(topic);
        let log =
            watermarks(link, &name, partition).map_err(|error| to_core(&error, "asking for the end of the log"))?;
        // Another log under the old name, a gap to what was read, or too much of it: read anew.
        let begin = from.max(log.first).get();
        if begin < scan.from || begin > scan.to || log.end.get() < scan.to || scan.stamps.len() > KEPT {
            *scan = Scan { from: begin, to: begin, stamps: HashMap::new() };
        }
        let start = scan.to;
        read(link, &name, partition, start, log.end.get(), |message| {
            if let Some(stamp) = wire::stamp(message) {
                scan.stamps.entry(stamp).or_insert_with(|| wire::position(message.offset()));
            }
        })?;
        scan.to = log.end.get();
        Ok(scan.stamps.get(&stamp).copied().filter(|position| *position >= from))
    }
}

/// The prints of these records, or of the next ones that are still there, as far as there are any. Blocks.
pub(crate) fn prints(link: &Link, name: &str, places: &[(u32, i64)]) -> Result<HashMap<u32, Print>> {
    let mut found = HashMap::new();
    let mut left: HashSet<u32> = places.iter().map(|(partition, _)| *partition).collect();
    if left.is_empty() {
        return Ok(found);
    }
    let consumer = reader(link, name, places)?;
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                let partition = u32::try_from(message.partition()).unwrap_or_default();
                if left.remove(&partition) {
                    found.insert(partition, Print::of(&message));
                }
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                left.remove(&u32::try_from(partition).unwrap_or_default());
            }
            Some(Err(_)) | None => {}
        }
        if left.is_empty() {
            return Ok(found);
        }
    }
    Err(Error::new(ErrorKind::Unavailable, "records could not be looked at in time"))
}

/// A consumer of no group that begins here.
fn reader(link: &Link, name: &str, places: &[(u32, i64)]) -> Result<BaseConsumer> {
    let failed = |error: KafkaError| to_core(&error, "reading the log");
    let mut config = link.config.client();
    config.set("group.id", "eventbus-scan").set("enable.auto.commit", "false");
    config.set("auto.offset.reset", "earliest").set("enable.partition.eof", "true");
    let consumer: BaseConsumer = config.create().map_err(failed)?;
    let mut assignment = TopicPartitionList::new();
    for (partition, offset) in places {
        let number = i32::try_from(*partition).unwrap_or(i32::MAX);
        assignment.add_partition_offset(name, number, Offset::Offset(*offset)).map_err(failed)?;
    }
    consumer.assign(&assignment).map_err(failed)?;
    Ok(consumer)
}

/// Reads records of a partition from `from` on, below `end`. Blocks.
pub(crate) fn read(
    link: &Link,
    name: &str,
    partition: u32,
    from: u64,
    end: u64,
    mut each: impl FnMut(&BorrowedMessage<'_>),
) -> Result<()> {
    if from >= end {
        return Ok(());
    }
    let begin = i64::try_from(from).unwrap_or(i64::MAX);
    let consumer = reader(link, name, &[(partition, begin)]).map_err(|error| error.with("partition", partition))?;
    let mut until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                let at = u64::try_from(message.offset()).unwrap_or_default();
                if at >= end {
                    return Ok(());
                }
                each(&message);
                if at + 1 >= end {
                    return Ok(());
                }
                until = Instant::now() + PATIENCE;
            }
            // Reached beyond what a transaction's marker or compaction leaves at the end.
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(()),
            Some(Err(_)) | None => {}
        }
    }
    let message = "the log could not be read to its end in time";
    Err(Error::new(ErrorKind::Unavailable, message).with("partition", partition))
}
