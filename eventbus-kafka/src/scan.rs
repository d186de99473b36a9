//! Reading of partitions' logs from outside: for stamps (P3), for fingerprints of records, for their times.
//!
//! Invariant: nothing is read beyond the end of the log as it is when the reading begins.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use crate::reading::{ReadEvent, read_to_ends};
use eventbus_core::{Position, Result, Stamp};
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::BorrowedMessage as Record;
use rdkafka::{Message, Offset, TopicPartitionList};

use crate::connection::Link;
use crate::error::{is_denied, to_core};
use crate::note::{Fingerprint, print_of};
use crate::topics::watermarks;
use crate::wire;

/// The longest time that a scan may stand still.
const PATIENCE: Duration = Duration::from_secs(10);

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
    firsts(link, name, places, |first| print_of(first))
}

/// The times of storing of the first records from these positions on, in milliseconds since the Unix epoch. Best
/// effort. Blocks.
pub(crate) fn stored_at(link: &Link, name: &str, from: &[(u32, Position)]) -> HashMap<u32, u64> {
    let places: Vec<_> = from.iter().map(|(partition, position)| (*partition, wire::offset(*position))).collect();
    let times = firsts(link, name, &places, |first| first.timestamp().to_millis()).unwrap_or_default();
    times.into_iter().filter_map(|(partition, time)| Some((partition, time?.try_into().ok()?))).collect()
}

fn firsts<T>(link: &Link, name: &str, places: &Places, look: impl Fn(&Record<'_>) -> T) -> Result<HashMap<u32, T>> {
    let mut found = HashMap::new();
    read(link, name, places, |partition, message| {
        found.insert(partition, look(message));
        false
    })?;
    Ok(found)
}

/// The first position whose record was stored at that time or later, or the end of the log. Blocks.
pub(crate) fn position_at(link: &Link, name: &str, partition: u32, unix_millis: u64) -> KafkaResult<Position> {
    // The end is taken before the search, so that records stored meanwhile are not missed.
    let end = watermarks(link, name, partition)?.end;
    let time = i64::try_from(unix_millis).unwrap_or(i64::MAX);
    let found = link.outsider(READER)?.offsets_for_times(list(name, &[(partition, time)])?, link.timeout())?;
    let found = found.elements().first().and_then(|element| wire::known(element.offset()));
    Ok(found.unwrap_or(end))
}

/// Reads partitions, each from its offset to its end or until `each` returns `false` for it. Blocks.
fn read(link: &Link, name: &str, places: &Places, each: impl FnMut(u32, &Record<'_>) -> bool) -> Result<()> {
    if places.is_empty() {
        return Ok(());
    }
    let assigned = || {
        let consumer = link.outsider(READER)?;
        consumer.assign(&list(name, places)?)?;
        Ok(consumer)
    };
    let consumer = assigned().map_err(|error: KafkaError| to_core(&error, "reading the log"))?;
    let next = || match consumer.poll(Duration::from_millis(100)) {
        Some(Ok(message)) => ReadEvent::Record(wire::partition(message.partition()), message),
        // The end is told also where a transaction's marker or compaction left no record before it.
        Some(Err(KafkaError::PartitionEOF(partition))) => ReadEvent::End(wire::partition(partition)),
        Some(Err(error)) if is_denied(&error) => ReadEvent::Unreadable(to_core(&error, "reading the log")),
        Some(Err(_)) | None => ReadEvent::Nothing,
    };
    let read = read_to_ends(places.iter().map(|(partition, _)| *partition), PATIENCE, next, each);
    read.map_err(|error| error.about("topic", name))
}

fn list(name: &str, places: &Places) -> KafkaResult<TopicPartitionList> {
    let place = |(partition, offset): &_| ((name.to_owned(), wire::number(*partition)), Offset::Offset(*offset));
    TopicPartitionList::from_topic_map(&places.iter().map(place).collect())
}
