//! Delivery of one partition: requests in, batches out.
//!
//! Invariants (S3, S6):
//! * within one read positions rise and no delivery is missing; at the first gap, error or silence the read ends with
//!   an interruption, and nothing comes after it;
//! * the records requested and not yet taken by the member are bounded, in number and in bytes, also where records grow
//!   while a request is open; a paused read requests nothing more;
//! * a position is passed over as nobody's only where the broker, asked after the log's ends were seen, has no record
//!   there, and retention cannot have taken one before;
//! * losses below the read or within it, and the progress of an idle partition, are told through the same queue as records.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, OptionFuture};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use super::removed::{KnownRemovals, Runs};
use super::{LeaseStore, ReadPacing, Source, SourceEvent};
use crate::backend::{ConnectionState, GroupEvent, Inbound, LogState, TopicDescription};
use crate::model::{Position, Result};

/// Bytes of one partition that may be on their way.
const BYTES: usize = 8 << 20;

/// The least bytes that are worth a request.
const LEAST: usize = BYTES / 32;

/// Records whose average size says how many more are requested.
const AVERAGED: usize = 256;

/// Records requested before their size is known.
const FIRST: usize = 64;

/// The most runs of delivered positions that are kept between two looks at the logs.
const PASSED: usize = 1 << 18;

/// The most records in one item of the queue.
const CHUNK: usize = 512;

/// An event for the member, with the number of its read.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) partition: u32,
    pub(super) read: u64,
    pub(super) event: GroupEvent,
}

/// State that a member and a delivery share.
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// Records requested and not yet taken.
    asked: AtomicUsize,
    /// Bytes of the records delivered and not yet taken.
    held: AtomicUsize,
    paused: AtomicBool,
    wake: Notify,
}

impl Flow {
    pub(super) fn taken(&self, records: &[Inbound]) {
        self.asked.fetch_sub(records.len(), Ordering::AcqRel);
        self.held.fetch_sub(records.iter().map(|record| record.bytes).sum(), Ordering::AcqRel);
        self.wake.notify_one();
    }

    pub(super) fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::Release);
        self.wake.notify_one();
    }
}

/// One read.
pub(super) struct Delivery {
    pub(super) store: Arc<dyn LeaseStore>,
    pub(super) partition: u32,
    pub(super) number: u64,
    pub(super) flow: Arc<Flow>,
    pub(super) queue: mpsc::UnboundedSender<Told>,
    /// The logs of all partitions as last seen.
    pub(super) logs: watch::Receiver<Arc<LogsSeen>>,
    /// The position below which nothing of the partition is left undelivered.
    pub(super) next: Position,
    pub(super) passed: Passed,
}

/// The logs as they were seen at a moment.
#[derive(Debug, Default)]
pub(super) struct LogsSeen {
    logs: Vec<LogState>,
    removed: Runs,
}

impl LogsSeen {
    pub(super) fn of(topic: TopicDescription) -> Self {
        Self { logs: topic.partitions, removed: topic.removed }
    }
}

/// Positions that a read has passed since the logs were last seen, to tell removals before delivery from those after.
#[derive(Debug)]
pub(super) struct Passed {
    since: Position,
    /// Runs of those that were delivered.
    delivered: Vec<(Position, Position)>,
    known: KnownRemovals,
}

impl Passed {
    pub(super) fn new(since: Position, known: KnownRemovals) -> Self {
        Self { since, delivered: Vec::new(), known }
    }

    fn delivered(&mut self, position: Position) {
        let kept = self.delivered.len();
        match self.delivered.last_mut() {
            Some(run) if run.1 == position => run.1 = position.next(),
            _ if kept < PASSED => self.delivered.push((position, position.next())),
            // The logs were not seen for very long: what is below is not judged.
            _ => {
                self.delivered.clear();
                self.since = position.next();
            }
        }
    }

    /// Judges what was passed by the removals seen now. Returns the first that was not delivered, and the position
    /// behind the last.
    fn judge(&mut self, removed: &Runs, next: Position) -> Option<(Position, Position)> {
        let since = std::mem::replace(&mut self.since, next);
        let news = match removed.is_empty() {
            true => None,
            false => self.known.news(removed, (since, next), &self.delivered),
        };
        self.delivered.clear();
        news
    }
}

/// State of the requests of one read.
struct Pulling {
    source: Box<dyn Source>,
    pace: ReadPacing,
    /// Records of open requests that have not come yet.
    open: usize,
    /// Bytes that open requests may still bring: more than that while requests that were served leave bytes over.
    open_bytes: usize,
    /// Whether the next record did not fit into a request.
    outgrown: bool,
    /// Deliveries so far.
    delivered: u64,
    /// The newest records' number and bytes.
    newest: (usize, usize),
    /// Whether records came since the log's ends were last seen.
    fresh: bool,
    /// The time at which the broker was last heard of.
    heard: Instant,
}

impl Pulling {
    fn new(source: Box<dyn Source>, pace: ReadPacing) -> Self {
        let heard = Instant::now();
        let (open, open_bytes, newest) = (0, 0, (0, 0));
        Self { source, pace, open, open_bytes, outgrown: false, delivered: 0, newest, fresh: false, heard }
    }

    /// Returns the most records to have requested and not yet taken, by the average size of the newest.
    fn most(&self) -> usize {
        match self.newest {
            (0, _) => FIRST.min(self.pace.batch),
            (records, bytes) => (BYTES / (bytes / records).max(1)).clamp(1, self.pace.batch),
        }
    }

    /// Returns the bytes that so many records may have: four times as many as the newest, so that requests beside this
    /// one have room.
    fn bytes_of(&self, records: usize) -> usize {
        match self.newest {
            (0, _) => BYTES,
            (newest, bytes) => (4 * records).saturating_mul(bytes / newest).clamp(LEAST, BYTES),
        }
    }

    /// Notes a record that came.
    fn came(&mut self, bytes: usize) {
        self.delivered += 1;
        self.outgrown = false;
        self.ends(1);
        self.open_bytes = self.open_bytes.saturating_sub(bytes);
        let (records, sum) = &mut self.newest;
        (*records, *sum) = (*records + 1, *sum + bytes);
        if *records > AVERAGED {
            (*records, *sum) = (*records / 2, *sum / 2);
        }
    }

    /// Notes that so many records of open requests came, or will not come any more. Returns their number.
    fn ends(&mut self, records: usize) -> usize {
        let ended = records.min(self.open);
        self.open -= ended;
        if self.open == 0 {
            self.open_bytes = 0;
        }
        ended
    }

    /// Returns the next event if it is there already.
    fn ready(&mut self) -> Option<SourceEvent> {
        poll_fn(|context| self.source.poll_next(context)).now_or_never()
    }
}

impl Delivery {
    /// Delivers until something breaks off, and reports the interruption.
    pub(super) async fn run(mut self, source: Box<dyn Source>) {
        let mut pulling = Pulling::new(source, self.store.read_pacing());
        let why = self.deliver(&mut pulling).await;
        tracing::debug!(target: "eventbus", partition = self.partition, why, "a read broke off");
        self.tell(GroupEvent::Interrupted(vec![self.partition]));
    }

    fn tell(&self, event: GroupEvent) {
        let _ = self.queue.send(Told { partition: self.partition, read: self.number, event });
    }

    async fn deliver(&mut self, pulling: &mut Pulling) -> String {
        let mut connection = self.store.connection();
        let mut look: Option<BoxFuture<'static, Option<Looked>>> = None;
        loop {
            if let Err(error) = self.ask(pulling).await {
                return error.to_string();
            }
            let looking = OptionFuture::from(look.as_mut());
            let silent = pulling.heard + pulling.pace.silence;
            tokio::select! {
                biased;
                pulled = poll_fn(|context| pulling.source.poll_next(context)) => {
                    if let Err(why) = self.take(pulling, pulled) {
                        return why;
                    }
                }
                Some(seen) = looking => {
                    look = None;
                    self.looked(seen);
                }
                Ok(()) = self.logs.changed() => {
                    let seen = Arc::clone(&self.logs.borrow_and_update());
                    if let Some((from, to)) = self.passed.judge(&seen.removed, self.next) {
                        self.tell(GroupEvent::Removed { partition: self.partition, from, to });
                    }
                    let Some(log) = seen.logs.get(self.partition as usize).cloned() else { continue };
                    // Records that retention took below the log's first position may have been others'. A look at the
                    // partition's next record tells, also while nothing is requested of it.
                    let still = !std::mem::take(&mut pulling.fresh);
                    if look.is_none() && self.next < log.end && (still || self.next < log.first) {
                        let asked = pulling.open > 0;
                        look = Some(look_for(Arc::clone(&self.store), self.partition, self.next, log, asked).boxed());
                    }
                }
                changed = connection.changed() => {
                    if changed.is_err() || *connection.borrow() != ConnectionState::Connected {
                        return "the connection was lost".into();
                    }
                }
                () = self.flow.wake.notified() => {}
                () = tokio::time::sleep_until(silent), if pulling.open > 0 => return "the broker fell silent".into(),
            }
        }
    }

    /// Requests more when half of the records that may be on their way was taken, and there is room for their bytes. A
    /// record that did not fit is requested alone, with the room of all, once everything before it was taken.
    async fn ask(&self, pulling: &mut Pulling) -> Result<()> {
        let most = pulling.most();
        let asked = self.flow.asked.load(Ordering::Acquire);
        if asked > most / 2 || self.flow.paused.load(Ordering::Acquire) {
            return Ok(());
        }
        let room = BYTES.saturating_sub(self.flow.held.load(Ordering::Acquire) + pulling.open_bytes);
        let (more, bytes) = match pulling.outgrown {
            true if asked > 0 => return Ok(()),
            true => (1, None),
            false if room < LEAST => return Ok(()),
            false => (most - asked, Some(pulling.bytes_of(most - asked).min(room))),
        };
        self.flow.asked.fetch_add(more, Ordering::AcqRel);
        if pulling.open == 0 {
            pulling.heard = Instant::now();
        }
        pulling.open += more;
        pulling.open_bytes += bytes.unwrap_or_default();
        pulling.source.request(more, bytes).await
    }

    /// Takes an event, and those that are there behind it.
    fn take(&mut self, pulling: &mut Pulling, first: SourceEvent) -> Result<(), String> {
        let mut records: Vec<Inbound> = Vec::new();
        let mut pulled = Some(first);
        let mut broken = None;
        pulling.heard = Instant::now();
        while let Some(event) = pulled {
            match event {
                SourceEvent::Record { delivery, record, .. } => {
                    if delivery != pulling.delivered + 1 || record.position < self.next {
                        broken = Some(format!("a gap: delivery {delivery} after {}", pulling.delivered));
                        break;
                    }
                    pulling.came(record.bytes);
                    self.flow.held.fetch_add(record.bytes, Ordering::AcqRel);
                    self.next = record.position.next();
                    self.passed.delivered(record.position);
                    records.push(record);
                }
                SourceEvent::Ended(left) | SourceEvent::Full(left) => {
                    pulling.outgrown = matches!(event, SourceEvent::Full(_));
                    self.flow.asked.fetch_sub(pulling.ends(left), Ordering::AcqRel);
                }
                SourceEvent::Alive => {}
                SourceEvent::Broken(why) => {
                    broken = Some(why);
                    break;
                }
            }
            pulled = if records.len() < CHUNK { pulling.ready() } else { None };
        }
        if !records.is_empty() {
            pulling.fresh = true;
            self.tell(GroupEvent::Records(records));
        }
        broken.map_or(Ok(()), Err)
    }

    /// Reports records that the log lost before they were delivered. Everything that the broker sent before the log's
    /// ends is taken by now, so records missing below the first position will not come any more.
    fn truncated(&mut self, log: &LogState) {
        if log.first > self.next {
            self.next = log.first;
            self.tell(GroupEvent::Truncated { partition: self.partition, first: log.first });
        }
    }

    /// Takes in a look. Where the partition has no further record, nothing is left below the end seen before.
    fn looked(&mut self, seen: Option<Looked>) {
        let Some(Looked { log, next, asked, whole }) = seen else { return };
        // The record that was seen came meanwhile: of those behind it the look says nothing.
        if next.is_some_and(|next| next < self.next) {
            return;
        }
        let nobodys = match next {
            None if asked || whole => log.end,
            Some(next) if whole && !asked => next,
            _ => return self.truncated(&log),
        };
        self.next = self.next.max(nobodys);
        self.tell(GroupEvent::CaughtUp { partition: self.partition, next: nobodys });
    }
}

/// Returns the log of a partition. One that the topic has no more is another log, and empty.
pub(super) fn log_of(topic: &TopicDescription, partition: u32) -> LogState {
    let gone = || LogState { incarnation: topic.incarnation.clone(), ..LogState::default() };
    topic.partitions.get(partition as usize).cloned().unwrap_or_else(gone)
}

/// A partition's next record, and the log's ends as they were before the look.
struct Looked {
    log: LogState,
    next: Option<Position>,
    /// Whether a request was open: then the broker had nothing to deliver, or it is on its way.
    asked: bool,
    /// Whether retention had not come to the position of the look afterwards: then it took nothing of the partition.
    whole: bool,
}

async fn look_for(
    store: Arc<dyn LeaseStore>,
    partition: u32,
    from: Position,
    log: LogState,
    asked: bool,
) -> Option<Looked> {
    let next = store.next(partition, from).await.ok()?;
    let whole = log.first <= from && log_of(&store.describe().await.ok()?, partition).first <= from;
    Some(Looked { log, next, asked, whole })
}
