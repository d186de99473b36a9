//! Records on their way to the log, and their fates (P1, P2).
//!
//! # Invariants
//!
//! - Records of a partition enter one client's queue in the order of the submissions, and the client stores them in that order
//!   without a hole: idempotent, gapless, no time-out of its own.
//! - Of what is submitted while records of its partition are on their way, little is given to the client before these are stored:
//!   so batches grow with the load, and a lone record waits for nothing.
//! - That holds only up to a client's first failure. So *any* failed report ends the client: nothing more is given to it, all
//!   that it still has is called back, every ticket is told, and only then another client is put in its place.
//! - A record is condemned only by what was said of it alone ([`crate::answers`]). Where a batch was refused, its partition
//!   goes on by a client of its own that sends one record at a time, until all of that batch are stored or condemned; other
//!   partitions do not wait for it.
//! - No ticket is told under a lock: it may submit from inside.
//!
//! No task and no channel for a message: a report finds its ticket by a number that travels with the record.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use eventbus_core::backend::{Fate, Outbound};
use eventbus_core::wire::Mode;
use eventbus_core::{Error, ErrorKind, Position, Stamp, Ticket, Topic};
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::Message;
use rdkafka::producer::{
    BaseRecord, DeliveryResult, NoCustomPartitioner, Producer as _, ProducerContext, PurgeConfig, ThreadedProducer,
};
use slab::Slab;
use tokio::sync::mpsc;

use crate::answers::{Turned, Verdict, turned, verdict};
use crate::connection::{Context, Link};
use crate::error::gone;
use crate::facts::{BATCH_BYTES, BATCH_RECORDS, Facts, Known};
use crate::topics::Topics;
use crate::wire;

/// How long a client that has failed may still report what was on the wire, before that is called back, too.
const LAST_REPORTS: Duration = Duration::from_millis(500);

type Client = ThreadedProducer<Reports>;

/// A record that was given to a client.
struct Slot {
    ticket: Ticket,
    topic: Topic,
    partition: u32,
    stamp: Stamp,
}

/// A client and what it has been given. One for each size of batch, and one for each partition under suspicion.
pub(crate) struct Line {
    facts: Arc<Facts>,
    /// Sends one record at a time, for this partition alone.
    alone: bool,
    state: Mutex<State>,
}

/// Where a client stands in a partition.
#[derive(Default)]
struct Course {
    /// The broker has stored a record of this client. It holds a client's records to their order only from then on: before, it would
    /// store what comes behind a refused one.
    begun: bool,
    /// Given to the client and not reported.
    under_way: usize,
    /// Not given yet, in their order.
    waiting: VecDeque<(usize, Ready)>,
    /// How many of these may be given.
    due: usize,
}

impl Course {
    /// So many that wait are a batch of their own, for which nothing needs to be awaited.
    const BATCH: usize = 500;

    /// How many are given under one lock, which submissions need, too.
    const AT_ONCE: usize = 64;

    /// Fixes how many of those that wait may be given now.
    fn open(&mut self) {
        if !self.begun {
            self.due = usize::from(self.under_way == 0);
        } else if self.under_way == 0 || self.waiting.len() >= Self::BATCH {
            self.due = self.waiting.len();
        }
    }

    fn next(&mut self) -> Option<(usize, Ready)> {
        self.due = self.due.checked_sub(1)?;
        let next = self.waiting.pop_front()?;
        self.under_way += 1;
        Some(next)
    }

    /// One of those under way is stored.
    fn stored(&mut self) {
        self.begun = true;
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// The last one was not taken: none of those behind it is to be.
    fn turn_back(&mut self) -> impl Iterator<Item = usize> + use<> {
        self.under_way = self.under_way.saturating_sub(1);
        self.due = 0;
        std::mem::take(&mut self.waiting).into_iter().map(|(index, _)| index)
    }
}

/// A record that is to be given to the client. It is written only then, on the thread that gives it.
struct Ready {
    facts: Arc<Facts>,
    record: Outbound,
    mode: Mode,
}

impl Ready {
    /// Whether the client took it, under this index.
    fn give(self, client: &Client, index: usize) -> Result<(), Option<Code>> {
        let (headers, record) = wire::encode(&self.record.envelope, self.record.stamp, self.mode);
        let partition = i32::try_from(self.record.partition).unwrap_or(i32::MAX);
        let mut message = BaseRecord::<[u8], [u8], usize>::with_opaque_to(&self.facts.name, index).partition(partition);
        message.key = record.key.as_deref();
        let message = message.payload(&record.payload).headers(headers);
        client.send(message).map_err(|(error, _)| error.rdkafka_error_code())
    }
}

#[derive(Default)]
struct State {
    client: Option<Client>,
    slots: Slab<Slot>,
    /// By topic and partition, of this client.
    courses: HashMap<Topic, HashMap<u32, Course>>,
    /// The client has failed and is being replaced.
    failed: Vec<(Slot, Code)>,
    failing: bool,
}

impl State {
    fn course(&mut self, topic: &Topic, partition: u32) -> &mut Course {
        self.courses.entry(topic.clone()).or_default().entry(partition).or_default()
    }

    /// Gives the client a record, if that may still be stored. If it was not taken, why.
    fn hand(&mut self, index: usize, ready: Ready) -> Option<Option<Code>> {
        let stands = self.slots.get(index).is_some_and(|slot| slot.ticket.stands());
        match &self.client {
            Some(client) if stands && !self.failing => ready.give(client, index).err(),
            _ => Some(Some(Code::QueueFull)),
        }
    }
}

/// What a partition waits for before it goes back to the others.
#[derive(Default)]
struct Suspicion {
    line: Option<Arc<Line>>,
    suspects: HashSet<Stamp>,
    outstanding: usize,
    /// When its last record was settled.
    quiet_since: Option<Instant>,
}

impl Suspicion {
    /// Suspects that do not come again, since what was before them was refused, are waited for no longer than this. Should
    /// they come all the same, their batch is refused once more, and all begins anew.
    const WAITS: Duration = Duration::from_secs(5);

    fn is_over(&self) -> bool {
        let waited = || self.quiet_since.is_some_and(|since| since.elapsed() > Self::WAITS);
        self.outstanding == 0 && (self.suspects.is_empty() || waited())
    }
}

/// The publishing half of a backend.
pub(crate) struct Producer {
    me: Weak<Self>,
    link: OnceLock<Arc<Link>>,
    pub(crate) known: Arc<Known>,
    lines: Mutex<HashMap<usize, Arc<Line>>>,
    suspicions: Mutex<HashMap<(Topic, u32), Suspicion>>,
    ill: mpsc::UnboundedSender<Arc<Line>>,
    patients: Mutex<Option<mpsc::UnboundedReceiver<Arc<Line>>>>,
    closed: std::sync::atomic::AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Producer {
    pub(crate) fn new() -> Arc<Self> {
        let (ill, patients) = mpsc::unbounded_channel();
        Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            link: OnceLock::new(),
            known: Arc::default(),
            lines: Mutex::default(),
            suspicions: Mutex::default(),
            ill,
            patients: Mutex::new(Some(patients)),
            closed: std::sync::atomic::AtomicBool::new(false),
        })
    }

    /// Begins to look after failed clients, on the runtime of the caller.
    pub(crate) fn start(&self, link: &Arc<Link>) {
        let _ = self.link.set(Arc::clone(link));
        let Some(mut patients) = lock(&self.patients).take() else { return };
        let me = Weak::clone(&self.me);
        tokio::spawn(async move {
            while let Some(line) = patients.recv().await {
                let Some(producer) = me.upgrade() else { return };
                producer.replace(&line).await;
            }
        });
    }

    /// Sends a record. See [`Backend::submit`](eventbus_core::backend::Backend::submit).
    pub(crate) fn submit(&self, record: Outbound, ticket: Ticket) {
        let Some(link) = self.link.get().filter(|_| !self.is_closed()) else {
            return ticket.tell(Fate::NotStored(gone()));
        };
        let facts = self
            .known
            .get(&record.topic)
            .unwrap_or_else(|| Arc::new(Facts::new(&link.config.topic(&record.topic), BATCH_BYTES, false)));
        let mode = link.config.mode;
        let mut bytes = wire::most(&record.envelope);
        if bytes > facts.limit {
            bytes = wire::size(&record.envelope, record.stamp, mode);
        }
        if let Some(error) = facts.refuses(bytes, record.envelope.key().is_some()) {
            self.cleared(&record.topic, record.partition, record.stamp, false);
            return ticket.tell(Fate::Refused(error));
        }
        let slot = Slot { ticket, topic: record.topic.clone(), partition: record.partition, stamp: record.stamp };
        let line = self.line(&facts, &slot);
        let ready = Ready { facts, record, mode };
        if let Some((slot, fate)) = self.give(&line, slot, ready) {
            self.tell(&line, slot, fate);
        }
    }

    /// Makes the client of a topic's line before the first record: it takes half a second to be numbered by a broker.
    pub(crate) fn prepare(&self, topic: &Topic) {
        let Some(facts) = self.known.get(topic).filter(|_| !self.is_closed()) else { return };
        let line = Arc::clone(lock(&self.lines).entry(facts.limit).or_insert_with(|| Line::new(&facts, false)));
        let mut state = lock(&line.state);
        if state.client.is_none() && !state.failing {
            // What stands in the way is told to the first record.
            state.client = self.client(&line).ok();
        }
    }

    /// Has a record follow those of its partition, and gives the client what it may have; the slot comes back with its fate where
    /// the line takes none.
    fn give(&self, line: &Arc<Line>, slot: Slot, ready: Ready) -> Option<(Slot, Fate)> {
        let mut locked = lock(&line.state);
        let state = &mut *locked;
        if state.failing || !slot.ticket.stands() {
            let error = Error::new(ErrorKind::Unavailable, "the producer is being replaced");
            return Some((slot, Fate::NotStored(error)));
        }
        if state.client.is_none() {
            match self.client(line) {
                Ok(client) => state.client = Some(client),
                Err(error) => return Some((slot, Fate::NotStored(error))),
            }
        }
        let (topic, partition) = (slot.topic.clone(), slot.partition);
        let index = state.slots.insert(slot);
        let course = state.course(&topic, partition);
        course.waiting.push_back((index, ready));
        course.open();
        if course.due > 0 {
            self.forward(line, locked, (&topic, partition), Some(index));
        }
        None
    }

    /// Gives the client what is due of a partition, and tells what it does not take. What waits behind one that was not taken
    /// comes back with it: nothing is stored behind a hole. `own` is the record of a submission under way, if there is one.
    fn forward<'a>(
        &self,
        line: &'a Arc<Line>,
        mut locked: MutexGuard<'a, State>,
        place: (&Topic, u32),
        own: Option<usize>,
    ) {
        loop {
            let state = &mut *locked;
            let mut back = Vec::new();
            for _ in 0..Course::AT_ONCE {
                let Some((index, ready)) = state.course(place.0, place.1).next() else { break };
                if let Some(code) = state.hand(index, ready) {
                    back.push(self.turned(line, state, index, code));
                    // No other submission of the partition is to come in between, until those behind are told, too.
                    if own != Some(index) {
                        self.fails(line, state);
                    }
                    let behind = state.course(place.0, place.1).turn_back();
                    back.extend(behind.map(|index| self.turned(line, state, index, Some(Code::QueueFull))));
                    break;
                }
            }
            let more = state.course(place.0, place.1).due > 0;
            drop(locked);
            for (slot, fate) in back {
                self.tell(line, slot, fate);
            }
            if !more {
                return;
            }
            locked = lock(&line.state);
        }
    }

    /// What it means for a record that the client did not take it.
    fn turned(&self, line: &Arc<Line>, state: &mut State, index: usize, code: Option<Code>) -> (Slot, Fate) {
        let slot = state.slots.remove(index);
        let fate = match turned(code) {
            Turned::TooLarge => {
                let error = Error::new(ErrorKind::TooLarge, "the record is larger than the topic's limit");
                Fate::Refused(error.with("topic", &slot.topic))
            }
            Turned::Full => Fate::NotStored(Error::new(ErrorKind::Unavailable, "the client's queue is full")),
            Turned::Over => {
                self.fails(line, state);
                let code = code.map_or_else(String::new, |code| format!(": {code}"));
                Fate::NotStored(Error::new(ErrorKind::Unavailable, format!("the client takes no more{code}")))
            }
        };
        (slot, fate)
    }

    /// The client is at its end, and is replaced.
    fn fails(&self, line: &Arc<Line>, state: &mut State) {
        if !std::mem::replace(&mut state.failing, true) {
            let _ = self.ill.send(Arc::clone(line));
        }
    }

    /// The line that a record goes by: its partition's own while that is under suspicion.
    fn line(&self, facts: &Arc<Facts>, slot: &Slot) -> Arc<Line> {
        let mut suspicions = lock(&self.suspicions);
        // Nearly always there are none, and every record passes here.
        if !suspicions.is_empty() {
            let place = (slot.topic.clone(), slot.partition);
            self.end_if_over(&mut suspicions, &place);
            if let Some(suspicion) = suspicions.get_mut(&place) {
                suspicion.outstanding += 1;
                return Arc::clone(suspicion.line.get_or_insert_with(|| Line::new(facts, true)));
            }
        }
        drop(suspicions);
        let mut lines = lock(&self.lines);
        Arc::clone(lines.entry(facts.limit).or_insert_with(|| Line::new(facts, false)))
    }

    /// Tells a record's fate. On a partition's own line it is a suspect less where it is stored or condemned.
    fn tell(&self, line: &Line, slot: Slot, fate: Fate) {
        if line.alone {
            self.cleared(&slot.topic, slot.partition, slot.stamp, true);
            if !matches!(fate, Fate::Stored { .. } | Fate::Refused(_)) {
                // It comes again, and is still to be found innocent.
                if let Some(suspicion) = lock(&self.suspicions).get_mut(&(slot.topic.clone(), slot.partition)) {
                    suspicion.suspects.insert(slot.stamp);
                }
            }
        }
        slot.ticket.tell(fate);
    }

    /// One suspect less; with the last one the partition goes back to the others.
    fn cleared(&self, topic: &Topic, partition: u32, stamp: Stamp, returned: bool) {
        let mut suspicions = lock(&self.suspicions);
        if suspicions.is_empty() {
            return;
        }
        let place = (topic.clone(), partition);
        let Some(suspicion) = suspicions.get_mut(&place) else { return };
        suspicion.suspects.remove(&stamp);
        suspicion.outstanding -= usize::from(returned);
        suspicion.quiet_since = Some(Instant::now());
        self.end_if_over(&mut suspicions, &place);
    }

    fn end_if_over(&self, suspicions: &mut HashMap<(Topic, u32), Suspicion>, place: &(Topic, u32)) {
        if suspicions.get(place).is_some_and(Suspicion::is_over) {
            // Its client ends on a thread that may wait for it: never on the one that reports.
            if let Some(line) = suspicions.remove(place).and_then(|suspicion| suspicion.line) {
                let _ = self.ill.send(line);
            }
        }
    }

    fn client(&self, line: &Arc<Line>) -> Result<Client, Error> {
        let link = self.link.get().ok_or_else(gone)?;
        let (linger, records) = if line.alone { (Duration::ZERO, 1) } else { (link.config.linger, BATCH_RECORDS) };
        let mut config = link.config.producer(line.facts.batch(), linger, records);
        // A single record may be larger than a batch of several.
        config.set("message.max.bytes", line.facts.limit.min(1_000_000_000).to_string());
        config.set("topic.metadata.propagation.max.ms", "2000");
        let context = Context { reached: Arc::clone(&link.reached) };
        let reports = Reports { context, producer: Weak::clone(&self.me), line: Arc::downgrade(line) };
        Client::from_config_and_context(&config, reports).map_err(|error| crate::connection::refused_setting(&error))
    }

    /// Ends a line's client, tells what it still had, and lets the line go on with another.
    async fn replace(&self, line: &Arc<Line>) {
        let client = {
            let mut state = lock(&line.state);
            state.failing = true;
            state.client.take()
        };
        if let Some(client) = client {
            let ended = tokio::task::spawn_blocking(move || {
                client.purge(PurgeConfig::default().queue());
                // What is on the wire is best known from its answer. What is behind a failed batch of its partition is
                // never reported by itself.
                let _ = client.flush(LAST_REPORTS);
                client.purge(PurgeConfig::default().inflight());
                let _ = client.flush(LAST_REPORTS);
            });
            let _ = ended.await;
        }
        let mut failed = {
            let mut state = lock(&line.state);
            // What waits was never given, and is told as all else that the client did not report: the log is asked.
            state.courses.clear();
            let unreported: Vec<Slot> = state.slots.drain().collect();
            let mut failed = std::mem::take(&mut state.failed);
            failed.extend(unreported.into_iter().map(|slot| (slot, Code::PurgeInflight)));
            failed
        };
        let vanished = self.vanished(&failed).await;
        if !line.alone {
            self.suspect(&failed).await;
        }
        let fates: Vec<(Slot, Fate)> = failed
            .drain(..)
            .map(|(slot, code)| {
                let fate = fate(code, line.alone, vanished.contains(&slot.topic));
                (slot, fate)
            })
            .collect();
        for (slot, fate) in fates {
            self.tell(line, slot, fate);
        }
        lock(&line.state).failing = false;
    }

    /// The topics that reports call unknown, and that are indeed not there.
    async fn vanished(&self, failed: &[(Slot, Code)]) -> HashSet<Topic> {
        let named = |(slot, code): &(Slot, Code)| (verdict(*code) == Verdict::Vanished).then(|| slot.topic.clone());
        let mut topics: HashSet<Topic> = failed.iter().filter_map(named).collect();
        let Some(link) = self.link.get() else { return HashSet::new() };
        for topic in topics.clone() {
            let found = Topics::new(Arc::clone(link), Arc::clone(&self.known)).count(&topic).await;
            if !found.is_err_and(|error| error.kind() == ErrorKind::UnknownTopic) {
                topics.remove(&topic);
            }
        }
        topics
    }

    /// Partitions with a refused batch go on by clients of their own, with what the topic allows now.
    async fn suspect(&self, failed: &[(Slot, Code)]) {
        let mut topics = HashSet::new();
        for (slot, code) in failed {
            if verdict(*code) == Verdict::SomeOfBatch {
                topics.insert(slot.topic.clone());
                let mut suspicions = lock(&self.suspicions);
                let suspicion = suspicions.entry((slot.topic.clone(), slot.partition)).or_default();
                suspicion.suspects.insert(slot.stamp);
            }
        }
        let Some(link) = self.link.get() else { return };
        for topic in topics {
            // The limit may have been lowered since it was last looked at; as it is then, it is what is kept to.
            let _ = Topics::new(Arc::clone(link), Arc::clone(&self.known)).learn(&topic).await;
        }
    }

    /// A client's word on a record.
    fn reported(&self, line: &Arc<Line>, index: usize, result: Result<Position, Code>) {
        let mut state = lock(&line.state);
        let Some(slot) = state.slots.try_remove(index) else { return };
        let position = match result {
            Ok(position) => position,
            Err(code) => {
                state.failed.push((slot, code));
                return self.fails(line, &mut state);
            }
        };
        let course = state.course(&slot.topic, slot.partition);
        course.stored();
        course.open();
        if course.due > 0 {
            self.forward(line, state, (&slot.topic, slot.partition), None);
        } else {
            drop(state);
        }
        self.tell(line, slot, Fate::Stored { position, duplicate: false });
    }

    fn is_closed(&self) -> bool {
        self.closed.load(std::sync::atomic::Ordering::Acquire)
    }

    /// Ends all clients; what is outstanding is told.
    pub(crate) async fn close(&self) {
        self.closed.store(true, std::sync::atomic::Ordering::Release);
        let mut lines: Vec<Arc<Line>> = lock(&self.lines).drain().map(|(_, line)| line).collect();
        lines.extend(lock(&self.suspicions).values().filter_map(|suspicion| suspicion.line.clone()));
        for line in lines {
            self.replace(&line).await;
        }
    }
}

/// What a failed report means for its record.
fn fate(code: Code, alone: bool, vanished: bool) -> Fate {
    let told = |kind| Error::new(kind, format!("the broker says: {}", KafkaError::MessageProduction(code)));
    match verdict(code) {
        Verdict::Forbidden => Fate::Refused(told(ErrorKind::PermissionDenied)),
        Verdict::Vanished if vanished => Fate::Refused(told(ErrorKind::UnknownTopic)),
        Verdict::SomeOfBatch if alone => Fate::Refused(told(match code {
            Code::MessageSizeTooLarge => ErrorKind::TooLarge,
            _ => ErrorKind::Refused,
        })),
        Verdict::SomeOfBatch | Verdict::Vanished => Fate::NotStored(told(ErrorKind::Unavailable)),
        Verdict::Unclear => Fate::Unknown(told(ErrorKind::Unknown)),
    }
}

impl Line {
    fn new(facts: &Arc<Facts>, alone: bool) -> Arc<Self> {
        Arc::new(Self { facts: Arc::clone(facts), alone, state: Mutex::default() })
    }
}

impl Drop for Line {
    /// A client waits for its thread when it ends, and the last to let go of a line may be just that thread, reporting.
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = state.client.take() {
            std::thread::spawn(move || drop(client));
        }
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").finish_non_exhaustive()
    }
}

/// Takes a client's reports, on the client's own thread.
pub(crate) struct Reports {
    context: Context,
    producer: Weak<Producer>,
    line: Weak<Line>,
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.context.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.context.error(error, reason);
    }
}

impl ProducerContext<NoCustomPartitioner> for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, index: usize) {
        let (Some(producer), Some(line)) = (self.producer.upgrade(), self.line.upgrade()) else { return };
        let result = match result {
            // A batch that the broker calls a copy of an older one counts as sent for the client, without a place.
            Ok(message) if message.offset() < 0 => Err(Code::DuplicateSequenceNumber),
            Ok(message) => {
                self.context.reached.set(true);
                Ok(wire::position(message.offset()))
            }
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap_or(Code::Unknown)),
        };
        producer.reported(&line, index, result);
    }
}

#[cfg(test)]
mod tests {
    use eventbus_core::ProducerId;

    use super::*;

    fn course(waiting: usize) -> Course {
        let topic: Topic = "t".parse().unwrap();
        let facts = Arc::new(Facts::new("t", BATCH_BYTES, false));
        let envelope = eventbus_core::Envelope::builder("T", "/t").build().unwrap();
        let ready = |n: usize| {
            let stamp = Stamp::new(ProducerId::new(1), n as u64);
            let record = Outbound::new(topic.clone(), 0, stamp, envelope.clone());
            (n, Ready { facts: Arc::clone(&facts), record, mode: Mode::Binary })
        };
        Course { waiting: (0..waiting).map(ready).collect(), ..Course::default() }
    }

    /// What is given now, and is under way then.
    fn given(course: &mut Course) -> Vec<usize> {
        course.open();
        std::iter::from_fn(|| course.next().map(|(index, _)| index)).collect()
    }

    #[test]
    fn until_a_client_has_stored_one_there_is_one_under_way() {
        let mut course = course(2 * Course::BATCH);
        assert_eq!(given(&mut course), [0]);
        assert!(given(&mut course).is_empty());
        course.stored();
        assert_eq!(given(&mut course).len(), 2 * Course::BATCH - 1);
    }

    #[test]
    fn what_comes_while_others_are_under_way_gathers_to_a_batch() {
        let mut course = course(3);
        assert_eq!(given(&mut course), [0]);
        course.stored();
        assert_eq!(given(&mut course), [1, 2]);
        for _ in 0..2 {
            course.waiting = self::course(Course::BATCH - 1).waiting;
            assert!(given(&mut course).is_empty(), "{} are under way", course.under_way);
            course.stored();
        }
        assert_eq!(given(&mut course).len(), Course::BATCH - 1);
        course.waiting = self::course(Course::BATCH).waiting;
        assert_eq!(given(&mut course).len(), Course::BATCH, "a batch of its own");
    }

    #[test]
    fn behind_one_that_was_not_taken_nothing_is_given() {
        let mut course = course(4);
        course.begun = true;
        course.open();
        assert_eq!(course.next().map(|(index, _)| index), Some(0));
        assert_eq!(course.turn_back().collect::<Vec<_>>(), [1, 2, 3]);
        assert!(course.next().is_none());
        assert_eq!((course.under_way, course.begun), (0, true));
    }

    #[test]
    fn a_partition_waits_for_its_suspects_but_not_for_ones_that_stay_away() {
        let long_ago = Instant::now().checked_sub(2 * Suspicion::WAITS);
        let suspects = || HashSet::from([Stamp::new(ProducerId::new(1), 1)]);
        let with = |suspects, outstanding, quiet_since| Suspicion { line: None, suspects, outstanding, quiet_since };
        assert!(with(HashSet::new(), 0, None).is_over());
        assert!(!with(HashSet::new(), 1, long_ago).is_over(), "a record of its own line is under way");
        assert!(!with(suspects(), 0, None).is_over(), "none came yet");
        assert!(!with(suspects(), 0, Some(Instant::now())).is_over());
        assert!(!with(suspects(), 1, long_ago).is_over());
        assert!(with(suspects(), 0, long_ago).is_over());
    }
}
