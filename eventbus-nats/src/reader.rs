//! Reading past records that the client cannot take (S2).
//!
//! The client ends its connection, or even itself, at a message whose headers it cannot read, and would do so at each
//! new read. Such a record is fetched by another road: `STREAM.MSG.GET` answers in JSON, with the headers as stored.
//!
//! Invariants:
//! * a read that begins after a loss of the connection looks at its first record by that road: at the loss, everything
//!   before the record at fault was delivered, so it is the next one of its partition;
//! * a record at which two reads ended comes by that road, whatever it is, so that every read gets on;
//! * behind a refused record the others come by that road, too, until a stretch of them was good. The stretch doubles
//!   with every refused record that cost a connection, so a partition full of them costs a few, and not one each;
//! * a record counts only if the stream was the same all the time: a consumer made at the start, and never read, is
//!   looked for after each record.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_nats::Subject;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::stream::RawMessage;
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use eventbus_core::toolkit::lease::{Source, SourceEvent, scan};
use eventbus_core::{Position, Result};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::connection::Link;
use crate::consumer::{Consumer, Created, Delivered, Pulls, from};
use crate::error::{Failure, NO_MESSAGE, Outcome};
use crate::headers::Headers;
use crate::suspects::Road;
use crate::wire::StreamPlace;

/// The pauses between two looks for the next record of a partition that is read one by one.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(200));

/// An answer with a message.
#[derive(Deserialize)]
pub(crate) struct Got {
    pub(crate) message: RawMessage,
}

/// Gets a message from the stream's leader; `None` where none fits.
pub(crate) async fn message(link: &Link, stream: &str, request: &Value) -> Outcome<Option<RawMessage>> {
    match link.api::<Got>(&format!("STREAM.MSG.GET.{stream}"), request).await {
        Ok(got) => Ok(Some(got.message)),
        Err(failure) if failure.is(NO_MESSAGE) => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// Gets the first record under a filter at this position or above.
async fn single(link: &Link, stream: &str, subject: &str, from: Position) -> Outcome<Option<Delivered>> {
    let request = json!({ "seq": from.get().max(1), "next_by_subj": subject });
    message(link, stream, &request).await?.map(delivered).transpose()
}

/// Reads a message of an answer as a record.
pub(crate) fn delivered(raw: RawMessage) -> Outcome<Delivered> {
    let decoded = |text: &str| match STANDARD.decode(text) {
        Ok(bytes) => Ok(Bytes::from(bytes)),
        Err(error) => Err(Failure::Unanswered(format!("record {} cannot be read: {error}", raw.sequence))),
    };
    let headers = match &raw.headers {
        Some(block) => Headers::Stored(decoded(block)?),
        None => Headers::Read(Default::default()),
    };
    let stored_at = u64::try_from(raw.time.unix_timestamp_nanos() / 1_000_000).unwrap_or_default();
    let place = StreamPlace { position: Position::new(raw.sequence), delivery: 0, stored_at, pending: 0 };
    let payload = decoded(&raw.payload)?;
    Ok(Delivered { place, subject: Subject::from(raw.subject), headers, payload })
}

/// Notes a record that came by the single road, and tells of a refused one. Returns whether the next one has to come by
/// it, too.
fn passed(link: &Link, subject: &str, record: &Delivered) -> bool {
    let (position, refused) = (record.place.position, record.headers.refused_by_client());
    if refused {
        tracing::warn!(
            target: "eventbus",
            subject,
            %position,
            "a record whose headers the client cannot read; it is fetched by itself"
        );
    }
    link.suspects.passed(subject, position, refused)
}

/// A reader of one partition for one read.
pub(crate) enum Reader {
    Pulled(Pulls),
    Single(SingleReader),
}

impl Reader {
    pub(crate) async fn open(link: &Arc<Link>, stream: &str, subject: &str, begin: Position) -> Outcome<Self> {
        let breaks = link.breaks();
        let road = link.suspects.road(subject, begin, breaks);
        let (consumer, _) = Consumer::create(link, stream, subject, from(begin), false).await?;
        let one_by_one = match road {
            Road::Pulled => false,
            Road::Single => true,
            Road::Unknown | Road::Suspected => match single(link, stream, subject, begin).await? {
                Some(first) => road == Road::Suspected || first.headers.refused_by_client(),
                None => link.suspects.reached_the_end(subject),
            },
        };
        if !one_by_one {
            let pulls = consumer.pulls().await?;
            link.suspects.began(subject, begin, breaks);
            return Ok(Self::Pulled(pulls));
        }
        link.suspects.began(subject, begin, breaks);
        let (link, stream, subject) = (Arc::clone(link), stream.to_owned(), subject.to_owned());
        let partition = Arc::new(Partition { link, stream, subject, guard: consumer });
        let (delivered, wanted, room, pause) = (0, 0, 0, Duration::ZERO);
        Ok(Self::Single(SingleReader {
            partition,
            next: begin,
            delivered,
            wanted,
            room,
            pause,
            over: false,
            under_way: None,
        }))
    }
}

#[async_trait]
impl Source<Delivered> for Reader {
    async fn request(&mut self, records: usize, bytes: Option<usize>) -> Result<()> {
        match self {
            Self::Pulled(pulls) => return pulls.request(records, bytes).await,
            Self::Single(reader) => {
                reader.wanted += records;
                reader.room = reader.room.saturating_add(bytes.unwrap_or(usize::MAX));
            }
        }
        Ok(())
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<SourceEvent<Delivered>> {
        match self {
            Self::Pulled(pulls) => pulls.poll_next(context),
            Self::Single(reader) => reader.poll_next(context),
        }
    }
}

/// A partition that is read one by one.
struct Partition {
    link: Arc<Link>,
    stream: String,
    subject: String,
    /// Made at the start of the read, and gone as soon as the stream is another one.
    guard: Consumer,
}

impl Partition {
    async fn next(self: Arc<Self>, from: Position, pause: Duration) -> Outcome<Option<Delivered>> {
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        let record = single(&self.link, &self.stream, &self.subject, from).await?;
        self.guard.check().await?;
        Ok(record)
    }
}

/// A reader that gets its records one by one.
pub(crate) struct SingleReader {
    partition: Arc<Partition>,
    next: Position,
    delivered: u64,
    wanted: usize,
    /// The bytes that the wanted records may still have together.
    room: usize,
    /// The pause before the next look, where the last one found nothing.
    pause: Duration,
    over: bool,
    under_way: Option<BoxFuture<'static, Outcome<Option<Delivered>>>>,
}

impl SingleReader {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<SourceEvent<Delivered>> {
        if self.over {
            return Poll::Ready(SourceEvent::Broken("the next records are pulled again".into()));
        }
        if self.wanted == 0 {
            self.room = 0;
            return Poll::Pending;
        }
        if self.room == 0 {
            return Poll::Ready(SourceEvent::Full(std::mem::take(&mut self.wanted)));
        }
        let Self { partition, next, pause, .. } = self;
        let under_way = self.under_way.get_or_insert_with(|| Arc::clone(partition).next(*next, *pause).boxed());
        let got = std::task::ready!(under_way.poll_unpin(context));
        self.under_way = None;
        Poll::Ready(match got {
            Ok(Some(record)) => {
                self.pause = Duration::ZERO;
                self.wanted -= 1;
                self.room = self.room.saturating_sub(record.bytes());
                self.delivered += 1;
                self.next = record.place.position.next();
                self.over = !passed(&self.partition.link, &self.partition.subject, &record);
                SourceEvent::Record { delivery: self.delivered, left: 1, record }
            }
            Ok(None) => {
                self.pause = (self.pause * 2).clamp(PAUSES.0, PAUSES.1);
                self.over = !self.partition.link.suspects.reached_the_end(&self.partition.subject);
                SourceEvent::Alive
            }
            Err(failure) => SourceEvent::Broken(eventbus_core::Error::from(failure).to_string()),
        })
    }
}

/// The most records that a scan reads one by one because one of them is known to be refused.
const SCANNED: u64 = 4_096;

/// Reads the records under a filter, up to the last one of the moment. Gives each to `take` until that returns `false`.
/// Where the connection is lost meanwhile, the scan goes on behind the record at which it stood.
pub(crate) async fn read_all(
    link: &Arc<Link>,
    stream: &str,
    filter: &str,
    start: DeliverPolicy,
    headers_only: bool,
    mut take: impl FnMut(Delivered) -> bool,
) -> Result<()> {
    let mut next = None;
    loop {
        let start = next.map_or(start, from);
        let (consumer, created) = Consumer::create(link, stream, filter, start, headers_only).await?;
        if created.num_pending == 0 {
            return Ok(());
        }
        let one_by_one = created.num_pending <= SCANNED && link.suspects.has_refused(filter);
        if !one_by_one {
            let (before, broke) = (link.breaks(), link.broken());
            let mut pulls = consumer.pulls().await?;
            let silence = link.config.heartbeat * 3;
            let scanned = scan(&mut pulls, created.num_pending, silence, |record| {
                next = Some(record.place.position.next());
                take(record)
            });
            tokio::select! {
                biased;
                scanned = scanned => match scanned {
                    Err(_) if link.breaks() != before => {}
                    ended => return ended,
                },
                () = broke => {}
            }
            link.until_up().await?;
        }
        let begin = Begin { at: next.unwrap_or_else(|| first(start, created)), earliest: earliest(start) };
        match read_singly(link, stream, filter, begin, one_by_one, &mut take).await? {
            Some(position) => next = Some(position),
            None => return Ok(()),
        }
    }
}

/// Where a scan goes on one by one.
struct Begin {
    at: Position,
    /// The time of storing below which records are passed over.
    earliest: u64,
}

/// Scans one by one: one record at least, and on until a stretch of them was good, or to the end. Returns where the
/// scan has to go on, if it has to.
async fn read_singly(
    link: &Link,
    stream: &str,
    filter: &str,
    begin: Begin,
    to_the_end: bool,
    take: &mut impl FnMut(Delivered) -> bool,
) -> Result<Option<Position>> {
    let mut next = begin.at;
    loop {
        let Some(record) = single(link, stream, filter, next).await? else { return Ok(None) };
        next = record.place.position.next();
        let more = passed(link, filter, &record);
        if record.place.stored_at < begin.earliest {
            continue;
        }
        if !take(record) {
            return Ok(None);
        }
        if !more && !to_the_end {
            return Ok(Some(next));
        }
    }
}

/// The position at which a consumer begins.
fn first(start: DeliverPolicy, created: Created) -> Position {
    match start {
        DeliverPolicy::ByStartSequence { start_sequence } => Position::new(start_sequence),
        _ => Position::new(created.delivered.stream_seq).next(),
    }
}

/// The time of storing at which a consumer begins.
fn earliest(start: DeliverPolicy) -> u64 {
    match start {
        DeliverPolicy::ByStartTime { start_time } => {
            u64::try_from(start_time.unix_timestamp_nanos() / 1_000_000).unwrap_or_default()
        }
        _ => 0,
    }
}
