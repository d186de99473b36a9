//! Producer over clients that pipeline: takes submissions and reports. See [`Producer`].
//!
//! Locks are taken in this order: the quarantine, the lines, one line's state. Tickets are asked whether they stand
//! under the last of them, and told under none.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use tokio::sync::mpsc;

use super::Pipeline;
use super::failure::{DeliveryError, Rejected};
use super::limits::{KnownLimits, TopicLimits};
use super::line::{Line, LineState, Submission};
use super::quarantine::{Quarantine, Route};
use super::queue::QueuedSubmission;
use super::reports::{DeliveryReports, TakeReports};
use crate::backend::{Fate, Outbound, Ticket};
use crate::model::{Error, ErrorKind, Position, Topic};
use crate::runtime::Mutex;
use crate::runtime::sync::MutexGuard;
use crate::runtime::sync::atomic::{AtomicBool, Ordering};

pub(super) type Lines<P> = HashMap<usize, Arc<Line<<P as Pipeline>::Client>>>;
type LineOf<P> = Line<<P as Pipeline>::Client>;

/// Records given under one lock, which submissions need, too.
const AT_ONCE: usize = 64;

/// Pause between two questions for limits that refused a record.
const LEARN_AGAIN: Duration = Duration::from_secs(1);

/// The publishing half of a backend whose clients pipeline.
///
/// Its [`submit`](Self::submit) keeps the promise of
/// [`Pipelining::PerPartition`](crate::backend::Pipelining::PerPartition), whatever happens to clients: a partition's
/// records are stored in the order of the calls, and none behind a hole.
///
/// ```no_run
/// use std::sync::Arc;
///
/// use eventbus_core::backend::Outbound;
/// use eventbus_core::toolkit::pipeline::{Pipeline, Producer};
/// use eventbus_core::backend::Ticket;
///
/// async fn publish<P: Pipeline>(pipeline: P, records: Vec<(Outbound, Ticket)>) {
///     let producer = Producer::new();
///     producer.start(pipeline);
///     for (record, ticket) in records {
///         producer.submit(record, ticket);
///     }
///     producer.close().await;
/// }
/// ```
pub struct Producer<P: Pipeline> {
    pub(super) me: Weak<Self>,
    pub(super) pipeline: OnceLock<P>,
    known: Arc<KnownLimits>,
    pub(super) lines: Mutex<Lines<P>>,
    pub(super) quarantine: Mutex<Quarantine<LineOf<P>>>,
    failed_lines: mpsc::UnboundedSender<Arc<LineOf<P>>>,
    failed: Mutex<Option<mpsc::UnboundedReceiver<Arc<LineOf<P>>>>>,
    /// Topics whose known limits refused a record: they may have been raised.
    refusing: mpsc::Sender<Topic>,
    refused: Mutex<Option<mpsc::Receiver<Topic>>>,
    pub(super) closed: AtomicBool,
}

impl<P: Pipeline> Producer<P> {
    /// Makes a producer that takes nothing before it is [started](Self::start).
    #[must_use]
    pub fn new() -> Arc<Self> {
        let (failed_lines, failed) = mpsc::unbounded_channel();
        let (refusing, refused) = mpsc::channel(AT_ONCE);
        Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            pipeline: OnceLock::new(),
            known: Arc::default(),
            lines: Mutex::default(),
            quarantine: Mutex::new(Quarantine::new(failed_lines.clone())),
            failed_lines,
            failed: Mutex::new(Some(failed)),
            refusing,
            refused: Mutex::new(Some(refused)),
            closed: AtomicBool::new(false),
        })
    }

    /// Returns the known limits of topics, for the caller to update whenever it describes one.
    #[must_use]
    pub fn known(&self) -> &Arc<KnownLimits> {
        &self.known
    }

    /// Begins to take submissions, and to replace failed clients on the caller's runtime. Only the first call counts; a
    /// later one drops its pipeline.
    pub fn start(&self, pipeline: P) {
        let _ = self.pipeline.set(pipeline);
        self.learn_again();
        let Some(mut failed) = self.failed.lock().take() else { return };
        let me = Weak::clone(&self.me);
        tokio::spawn(async move {
            while let Some(line) = failed.recv().await {
                let Some(producer) = me.upgrade() else { return };
                producer.replace(&line).await;
            }
        });
    }

    /// Has limits read again that refused a record, now and then: a limit that was raised holds no record back.
    fn learn_again(&self) {
        let Some(mut refused) = self.refused.lock().take() else { return };
        let me = Weak::clone(&self.me);
        tokio::spawn(async move {
            while let Some(topic) = refused.recv().await {
                let mut topics = HashSet::from([topic]);
                topics.extend(std::iter::from_fn(|| refused.try_recv().ok()));
                for topic in topics {
                    let Some(producer) = me.upgrade() else { return };
                    if let Some(pipeline) = producer.pipeline.get() {
                        pipeline.refresh(&topic).await;
                    }
                }
                tokio::time::sleep(LEARN_AGAIN).await;
            }
        });
    }

    /// Sends a record. See [`Backend::submit`](crate::backend::Backend::submit). Before the start and after the end its
    /// fate is `NotStored`, with an error of kind `Closed`.
    pub fn submit(&self, record: Outbound, ticket: Ticket) {
        let Some(pipeline) = self.pipeline.get().filter(|_| !self.is_closed()) else {
            return ticket.tell(Fate::NotStored(Error::closed("backend")));
        };
        let limits = self.known.get(&record.topic).unwrap_or_else(|| Arc::new(pipeline.assumed(&record.topic)));
        let mut bytes = pipeline.most(&record.envelope);
        if bytes > limits.limit {
            bytes = pipeline.size(&record);
        }
        if let Some(error) = limits.refuses(bytes, record.envelope.key().is_some()) {
            self.quarantine.lock().judged(&record.topic, record.partition, record.stamp, true);
            // A full queue asks about this topic already, or will with the next refusal.
            let _ = self.refusing.try_send(record.topic);
            return ticket.tell(Fate::Refused(error));
        }
        let submission =
            Submission { ticket, topic: record.topic.clone(), partition: record.partition, stamp: record.stamp };
        self.admit(pipeline, submission, QueuedSubmission { limits, record });
    }

    /// Makes the client for a topic's records before the first of them: it may take a while until a broker knows it. An
    /// obstacle is told to the first record. Nothing happens where the topic's limits are not known.
    pub fn prepare(&self, topic: &Topic) {
        let Some(pipeline) = self.pipeline.get().filter(|_| !self.is_closed()) else { return };
        let Some(limits) = self.known.get(topic) else { return };
        let line = self.common(&limits);
        let mut state = line.state.lock();
        if !self.is_closed() && !state.failing && state.client.is_none() {
            state.client = self.client(pipeline, &line).ok();
        }
    }

    /// Queues a record behind those of its partition, and gives the client all that it may have.
    fn admit(&self, pipeline: &P, submission: Submission, ready: QueuedSubmission) {
        let mut quarantine = self.quarantine.lock();
        let make = || Line::new(ready.limits.limit, true);
        let fits = |line: &LineOf<P>| line.limit == ready.limits.limit;
        let line = match quarantine.route(&submission.topic, submission.partition, fits, make) {
            Route::Common => self.common(&ready.limits),
            Route::Own(line) => line,
            Route::Held => {
                drop(quarantine);
                return submission.ticket.tell(being_replaced());
            }
        };
        let mut state = line.state.lock();
        if !line.alone && !state.carries(&submission.topic) {
            drop(state);
            if !self.is_let_go(&line, &submission.topic) {
                drop(quarantine);
                return submission.ticket.tell(being_replaced());
            }
            state = line.state.lock();
        }
        // Released only under the line's lock: in between, another line could send for the partition.
        drop(quarantine);
        if let Err(fate) = self.accepts(pipeline, &line, &mut state, &submission.ticket) {
            drop(state);
            return self.tell(&line, submission, fate);
        }
        let (topic, partition) = (submission.topic.clone(), submission.partition);
        let index = state.submissions.insert(submission);
        let queue = state.queue(&topic, partition);
        queue.line_up(index, ready);
        if queue.open() {
            self.forward(pipeline, &line, state, (&topic, partition), Some(index));
        }
    }

    /// Has other lines forget a topic whose limit has changed. Returns false while one still has records of it.
    fn is_let_go(&self, line: &Arc<LineOf<P>>, topic: &Topic) -> bool {
        let lines = self.lines.lock();
        lines.values().filter(|other| !Arc::ptr_eq(other, line)).all(|other| other.state.lock().let_go(topic))
    }

    /// Makes sure that there is a client, or returns why the line takes no record with this ticket.
    fn accepts(
        &self,
        pipeline: &P,
        line: &Arc<LineOf<P>>,
        state: &mut LineState<P::Client>,
        ticket: &Ticket,
    ) -> Result<(), Fate> {
        if self.is_closed() {
            return Err(Fate::NotStored(Error::closed("backend")));
        }
        if state.failing || !ticket.stands() {
            return Err(being_replaced());
        }
        if state.client.is_none() {
            // An obstacle that stays would be waited for in vain.
            let obstacle =
                |error: Error| if error.is_retryable() { Fate::NotStored(error) } else { Fate::Refused(error) };
            state.client = Some(self.client(pipeline, line).map_err(obstacle)?);
        }
        Ok(())
    }

    /// Gives the client the due records of a partition. If it does not take one, the records waiting behind come back
    /// with it: nothing is stored behind a hole. `own` is the record of the submission under way, if there is one.
    fn forward<'a>(
        &self,
        pipeline: &P,
        line: &'a Arc<LineOf<P>>,
        mut state: MutexGuard<'a, LineState<P::Client>>,
        place: (&Topic, u32),
        own: Option<usize>,
    ) {
        loop {
            for _ in 0..AT_ONCE {
                let Some((index, ready)) = state.queue(place.0, place.1).next() else { break };
                let Err(turned) = hand(pipeline, &state, index, &ready) else { continue };
                let submission = state.submissions.remove(index);
                let fate = fate_of(&submission, &turned);
                if matches!(turned, Rejected::Over(_)) {
                    self.fails(line, &mut state);
                }
                if own == Some(index) {
                    // The record is the last one, and until its fate is told no other submission of the partition
                    // comes.
                    state.queue(place.0, place.1).turned();
                    drop(state);
                    return self.tell(line, submission, fate);
                }
                // Others may come before its fate is told, so it is told while none is taken.
                self.fails(line, &mut state);
                state.back.push((submission, fate));
                for index in state.queue(place.0, place.1).stop() {
                    let submission = state.submissions.remove(index);
                    state.back.push((submission, not_stored("the one before was not taken")));
                }
                return;
            }
            if !state.queue(place.0, place.1).is_due() {
                return;
            }
            drop(state);
            state = line.state.lock();
        }
    }

    /// Has a client that is at its end replaced.
    fn fails(&self, line: &Arc<LineOf<P>>, state: &mut LineState<P::Client>) {
        if !std::mem::replace(&mut state.failing, true) {
            let _ = self.failed_lines.send(Arc::clone(line));
        }
    }

    /// Returns the line for records of this limit.
    fn common(&self, limits: &TopicLimits) -> Arc<LineOf<P>> {
        Arc::clone(self.lines.lock().entry(limits.limit).or_insert_with(|| Line::new(limits.limit, false)))
    }

    fn client(&self, pipeline: &P, line: &Arc<LineOf<P>>) -> crate::Result<P::Client> {
        let reports = DeliveryReports::new(ReportsOf { producer: Weak::clone(&self.me), line: Arc::downgrade(line) });
        pipeline.client(line.limit, line.alone, reports)
    }

    /// Tells a record's fate. A partition leaves its own line only when every record that went by it is told.
    pub(super) fn tell(&self, line: &LineOf<P>, submission: Submission, fate: Fate) {
        if !line.alone {
            return submission.ticket.tell(fate);
        }
        let Submission { ticket, topic, partition, stamp } = submission;
        let certain = matches!(fate, Fate::Stored { .. } | Fate::Refused(_) | Fate::Doubtful(_));
        self.quarantine.lock().judged(&topic, partition, stamp, certain);
        ticket.tell(fate);
        self.quarantine.lock().returned(&topic, partition);
    }

    fn reported(&self, line: &Arc<LineOf<P>>, index: usize, result: Result<Position, DeliveryError>) {
        let mut state = line.state.lock();
        let Some(submission) = state.submissions.try_remove(index) else { return };
        let position = match result {
            Ok(position) => position,
            Err(failure) => {
                state.failed.push((submission, failure));
                return self.fails(line, &mut state);
            }
        };
        let queue = state.queue(&submission.topic, submission.partition);
        queue.stored();
        match self.pipeline.get() {
            Some(pipeline) if queue.open() => {
                self.forward(pipeline, line, state, (&submission.topic, submission.partition), None);
            }
            _ => drop(state),
        }
        self.tell(line, submission, Fate::Stored { position, duplicate: false });
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

/// Gives the client a record, if that may still be stored.
fn hand<P: Pipeline>(
    pipeline: &P,
    state: &LineState<P::Client>,
    index: usize,
    ready: &QueuedSubmission,
) -> Result<(), Rejected> {
    let stands = state.submissions.get(index).is_some_and(|submission| submission.ticket.stands());
    match &state.client {
        Some(client) if stands && !state.failing => pipeline.give(client, &ready.limits.name, &ready.record, index),
        _ => Err(Rejected::Full),
    }
}

fn fate_of(submission: &Submission, turned: &Rejected) -> Fate {
    match turned {
        Rejected::TooLarge => {
            let error = Error::new(ErrorKind::TooLarge, "the record is larger than the topic's limit");
            Fate::Refused(error.with("topic", &submission.topic))
        }
        Rejected::Full => not_stored("the client's queue is full"),
        Rejected::Over(why) => {
            let message = format!("the client takes no more: {why}");
            Fate::NotStored(Error::new(ErrorKind::Unavailable, message))
        }
    }
}

fn not_stored(why: &'static str) -> Fate {
    Fate::NotStored(Error::new(ErrorKind::Unavailable, why))
}

fn being_replaced() -> Fate {
    not_stored("the producer is being replaced")
}

impl<P: Pipeline> fmt::Debug for Producer<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").finish_non_exhaustive()
    }
}

/// Takes the reports of one line's client. Reports after the producer or the line is gone are ignored.
struct ReportsOf<P: Pipeline> {
    producer: Weak<Producer<P>>,
    line: Weak<LineOf<P>>,
}

impl<P: Pipeline> TakeReports for ReportsOf<P> {
    fn told(&self, index: usize, result: Result<Position, DeliveryError>) {
        if let (Some(producer), Some(line)) = (self.producer.upgrade(), self.line.upgrade()) {
            producer.reported(&line, index, result);
        }
    }

    fn over(&self) {
        if let (Some(producer), Some(line)) = (self.producer.upgrade(), self.line.upgrade()) {
            let mut state = line.state.lock();
            if state.client.is_some() {
                producer.fails(&line, &mut state);
            }
        }
    }
}
