//! Reading of partitions' logs from outside: for stamps (P3), for fingerprints of records, for their number
//! and times.
//!
//! Invariant: nothing is read beyond the end of the log as it is when the reading begins.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use crate::reading::{ReadEvent, read_to_ends};
use eventbus_core::toolkit::coordinated::Backlog;
use eventbus_core::{Position, Result, Stamp};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::BorrowedMessage as Record;
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{Message, Offset, TopicPartitionList};

use crate::connection::{Isolation, Link};
use crate::error::{is_denied, to_core, unreadable};
use crate::note::{Fingerprint, print_of};
use crate::topics::watermarks;
use crate::wire;

/// The longest time that a scan may stand still.
const PATIENCE: Duration = Duration::from_secs(10);

/// The most records of a partition that are counted one by one: what a first request for records brings, about.
const COUNTED: u64 = 1_000;

/// The group that a reader names and never joins.
const READER: &str = "eventbus-scan";

/// Partitions, each with the offset to read from.
type Places = [(u32, i64)];

/// A callback that takes the stamps of a log.
pub(crate) type Each<'a> = &'a mut dyn FnMut(Position, Stamp);

/// Reads the stamps of the records in a range (P3). Blocks.
pub(crate) fn stamps(link: &Link, name: &str, partition: u32, range: Range<Position>, each: Each<'_>) -> Result<()> {
    read(link, name, &[(partition, wire::offset(range.start))], |_, message| {
        let at = wire::position(message.offset());
        if let Some(stamp) = wire::stamp(message).filter(|_| at < range.end) {
            each(at, stamp);
        }
        at.next() < range.end
    })
}

/// The fingerprints of these records, or of the next ones that are still there, as far as there are any. Blocks.
pub(crate) fn prints(link: &Link, name: &str, places: &Places) -> Result<HashMap<u32, Fingerprint>> {
    let mut found = HashMap::new();
    read(link, name, places, |partition, first| {
        found.insert(partition, print_of(first));
        false
    })?;
    Ok(found)
}

/// The records that a member would still be given in these ranges of positions. The first [`COUNTED`] of a partition are
/// counted; behind them each position counts as a record. Best effort. Blocks.
pub(crate) fn backlogs(link: &Link, name: &str, behind: &[(u32, Range<Position>)]) -> HashMap<u32, Backlog> {
    let places: Vec<_> = behind.iter().map(|(partition, range)| (*partition, wire::offset(range.start))).collect();
    let mut read: HashMap<u32, (Backlog, Position)> = HashMap::new();
    let counted = reader(link, name, &places, Isolation::Committed).and_then(|consumer| {
        read_by(&consumer, name, &places, |partition, message| {
            let (backlog, next) = read.entry(partition).or_default();
            if backlog.records == 0 {
                backlog.oldest = message.timestamp().to_millis().and_then(|millis| millis.try_into().ok());
            }
            backlog.records += 1;
            *next = wire::position(message.offset()).next();
            backlog.records < COUNTED
        })?;
        // The client's position is behind the last marker, too.
        positions(&consumer).map_err(|error| to_core(&error, "asking for a reader's positions"))
    });
    let Ok(mut reached) = counted else { return HashMap::new() };
    let of = |(partition, range): &(u32, Range<Position>)| {
        let (mut backlog, next) = read.remove(partition).unwrap_or_default();
        // Beyond the counted records the reader may have fetched more than it was asked for.
        let marked = reached.remove(partition).filter(|_| backlog.records < COUNTED);
        let next = range.start.max(next).max(marked.unwrap_or_default());
        backlog.records += range.end.get().saturating_sub(next.get());
        (*partition, backlog)
    };
    behind.iter().map(of).collect()
}

/// The positions behind all that a consumer has taken, of the partitions in which it has taken anything.
pub(crate) fn positions<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> KafkaResult<HashMap<u32, Position>> {
    let found = consumer.position()?;
    let known = |element: TopicPartitionListElem<'_>| {
        Some((wire::partition(element.partition()), wire::known(element.offset())?))
    };
    Ok(found.elements().into_iter().filter_map(known).collect())
}

/// The first position whose record was stored at that time or later, or the end of the log. Blocks.
pub(crate) fn position_at(link: &Link, name: &str, partition: u32, unix_millis: u64) -> KafkaResult<Position> {
    // The end is taken before the search, so that records stored meanwhile are not missed.
    let end = watermarks(link, name, partition)?.end;
    let time = i64::try_from(unix_millis).unwrap_or(i64::MAX);
    let reader = link.outsider(READER, Isolation::Uncommitted)?;
    let found = reader.offsets_for_times(list(name, &[(partition, time)])?, link.timeout())?;
    let found = found.elements().first().and_then(|element| wire::known(element.offset()));
    Ok(found.unwrap_or(end))
}

/// Reads partitions, each from its offset to its end or until `each` returns `false` for it, with what open
/// transactions wrote. Blocks.
fn read(link: &Link, name: &str, places: &Places, each: impl FnMut(u32, &Record<'_>) -> bool) -> Result<()> {
    if places.is_empty() {
        return Ok(());
    }
    read_by(&reader(link, name, places, Isolation::Uncommitted)?, name, places, each)
}

fn reader(link: &Link, name: &str, places: &Places, reads: Isolation) -> Result<BaseConsumer> {
    let assigned = || {
        let consumer = link.outsider(READER, reads)?;
        consumer.assign(&list(name, places)?)?;
        Ok(consumer)
    };
    assigned().map_err(|error: KafkaError| to_core(&error, "reading the log"))
}

fn read_by(
    consumer: &BaseConsumer,
    name: &str,
    places: &Places,
    each: impl FnMut(u32, &Record<'_>) -> bool,
) -> Result<()> {
    let next = || match consumer.poll(Duration::from_millis(100)) {
        Some(Ok(message)) => ReadEvent::Record(wire::partition(message.partition()), message),
        // The end is told also where a transaction's marker or compaction left no record before it.
        Some(Err(KafkaError::PartitionEOF(partition))) => ReadEvent::End(wire::partition(partition)),
        Some(Err(error)) if is_denied(&error) => ReadEvent::Failed(to_core(&error, "reading the log")),
        Some(Err(error)) => unreadable(&error).map_or(ReadEvent::Nothing, ReadEvent::Failed),
        None => ReadEvent::Nothing,
    };
    let read = read_to_ends(places.iter().map(|(partition, _)| *partition), PATIENCE, next, each);
    read.map_err(|error| error.about("topic", name))
}

fn list(name: &str, places: &Places) -> KafkaResult<TopicPartitionList> {
    let place = |(partition, offset): &_| ((name.to_owned(), wire::number(*partition)), Offset::Offset(*offset));
    TopicPartitionList::from_topic_map(&places.iter().map(place).collect())
}
