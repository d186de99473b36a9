//! The one thread that polls a member's consumer, and what happens on it (S3, S5).
//!
//! # Invariants
//!
//! - The coordinator is answered only when the core has released all that is wanted back (or its time for that is over), so that
//!   the next owner starts after this one has finished and committed.
//! - Nothing is delivered before the core's `read`, nothing that an earlier read fetched after it: each read has a number, and a
//!   record carries it up to the moment in which it is handed over.
//! - Positions of a partition only rise within a read, and the client leaves none out: it goes on by itself after any trouble with the
//!   connection. Where it cannot, since the log no longer has the next record, it says so, and so do we.
//! - The thread never waits for the coordinator nor for the core; only the one gives room to the other.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak, mpsc as std_mpsc};
use std::time::{Duration, Instant};

use eventbus_core::backend::{Assignment, ConnectionState, GroupEvent, Inbound, Lease};
use eventbus_core::{Error, ErrorKind, Result};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::BorrowedMessage;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Message, Offset, TopicPartitionList};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use crate::connection::{Context, Link};
use crate::error::to_core;
use crate::note::{Print, Stored};
use crate::scan;
use crate::topics::watermarks;
use crate::wire;

/// Records that may wait for the core before the thread asks for no more.
const WAITING: usize = 20_000;

/// Records of a batch.
const BATCH: usize = 500;

/// How long a member that leaves waits for the answer to its joining.
const JOINS: Duration = Duration::from_secs(2);

/// The longest that the thread waits for something to happen: commands are looked at in between.
const TICK: Duration = Duration::from_millis(10);

pub(crate) type GroupConsumer = BaseConsumer<Seat>;

/// A partition that this member owns.
pub(crate) struct Held {
    pub(crate) lease: Lease,
    pub(crate) incarnation: String,
    /// Of the last record below what is committed.
    pub(crate) print: Option<Print>,
    /// Of what was delivered beyond it.
    pub(crate) seen: VecDeque<Print>,
    pub(crate) epoch: u64,
    /// What was last committed, to be said again while nothing else is to be said.
    pub(crate) last: Option<(i64, String)>,
    /// The number of the read under way; 0 where there is none.
    read: u64,
    /// The next offset that may be delivered.
    next: i64,
}

/// What the coordinator wants back.
struct Revocation {
    partitions: HashSet<u32>,
    left: HashSet<u32>,
    until: Instant,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) held: HashMap<u32, Held>,
    revocation: Option<Revocation>,
    reads: u64,
    closing: bool,
    /// Rises with each assignment, so that a late answer about an earlier one is left out.
    assignments: u64,
}

/// What the thread hands to the core.
pub(crate) enum Item {
    Event(GroupEvent),
    /// Each with the number of its read.
    Records(Vec<(u64, Inbound)>),
    /// The member is at its end.
    Over(Error),
}

/// What the thread is asked for.
pub(crate) enum Command {
    /// Deliver from this offset on.
    Read(u32, i64, oneshot::Sender<Result<()>>),
    /// Leave, and say when it is done.
    Leave(oneshot::Sender<()>),
}

/// A member as its thread, its committer and the core share it.
#[derive(Clone)]
pub(crate) struct Seat(Arc<Inner>);

pub(crate) struct Inner {
    context: Context,
    pub(crate) link: Arc<Link>,
    /// The topic's name on the broker.
    pub(crate) topic: String,
    pub(crate) member: String,
    pub(crate) session: Duration,
    drain: Duration,
    eager: bool,
    state: Mutex<State>,
    items: mpsc::UnboundedSender<Item>,
    waiting: AtomicUsize,
    consumer: OnceLock<Weak<GroupConsumer>>,
    runtime: Handle,
}

impl std::ops::Deref for Seat {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// What a seat is made of.
pub(crate) struct Ask {
    pub(crate) link: Arc<Link>,
    pub(crate) topic: String,
    pub(crate) member: String,
    pub(crate) session: Duration,
    pub(crate) drain: Duration,
    pub(crate) eager: bool,
}

impl Seat {
    pub(crate) fn new(ask: Ask, items: mpsc::UnboundedSender<Item>) -> Self {
        Self(Arc::new(Inner {
            context: Context { reached: Arc::clone(&ask.link.reached) },
            link: ask.link,
            topic: ask.topic,
            member: ask.member,
            session: ask.session,
            drain: ask.drain,
            eager: ask.eager,
            state: Mutex::default(),
            items,
            waiting: AtomicUsize::new(0),
            consumer: OnceLock::new(),
            runtime: Handle::current(),
        }))
    }

    fn assigned(&self, consumer: &GroupConsumer, list: &mut TopicPartitionList) {
        // No offset is asked for: nothing is wanted before the core says from where.
        let _ = list.set_all_offsets(Offset::End);
        let given = if self.eager { consumer.assign(list) } else { consumer.incremental_assign(list) };
        if let Err(error) = given {
            tracing::warn!(target: "eventbus", %error, "an assignment was not taken");
            return;
        }
        let partitions = partitions(list);
        let number = {
            let mut state = self.state();
            state.assignments += 1;
            if state.closing {
                return;
            }
            for partition in &partitions {
                state.held.insert(*partition, Held::new());
            }
            state.assignments
        };
        if !partitions.is_empty() {
            let seat = self.clone();
            self.runtime.spawn_blocking(move || seat.announce(&partitions, number));
        }
    }

    /// Looks up what the group has committed, and tells the core of its new partitions. Blocks.
    fn announce(&self, partitions: &[u32], number: u64) {
        loop {
            let Some(consumer) = self.consumer() else { return };
            if self.state().assignments != number && !self.holds_any(partitions) {
                return;
            }
            match self.look_up(&consumer, partitions) {
                Ok(assignments) => {
                    let held = |assignment: &Assignment| self.state().held.contains_key(&assignment.partition);
                    let assignments: Vec<_> = assignments.into_iter().filter(held).collect();
                    return self.tell(GroupEvent::Assigned(assignments));
                }
                Err(error) => {
                    tracing::debug!(target: "eventbus", %error, "committed offsets are asked for again");
                    drop(consumer);
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        }
    }

    fn holds_any(&self, partitions: &[u32]) -> bool {
        let state = self.state();
        !state.closing && partitions.iter().any(|partition| state.held.contains_key(partition))
    }

    fn look_up(&self, consumer: &GroupConsumer, partitions: &[u32]) -> Result<Vec<Assignment>> {
        let failed = |error: KafkaError| to_core(&error, "asking for committed offsets");
        let list = self.list(partitions.iter().copied());
        let found = consumer.committed_offsets(list, self.link.timeout()).map_err(failed)?;
        let mut assignments = Vec::new();
        for element in found.elements() {
            element.error().map_err(failed)?;
            let partition = u32::try_from(element.partition()).unwrap_or_default();
            let mut log = watermarks(&self.link, &self.topic, partition).map_err(failed)?;
            let stored = Stored::decode(element.metadata());
            let committed = match element.offset() {
                Offset::Offset(next) => {
                    let stored = stored.clone().unwrap_or_default();
                    Some(stored.committed(wire::position(next)))
                }
                _ => None,
            };
            let stored = stored.filter(|_| committed.is_some()).unwrap_or_default();
            let same = self.is_same(partition, &stored, log.first.get(), log.end.get())?;
            let fresh = || format!("{:016x}", rand::random::<u64>());
            log.incarnation = if same && !stored.incarnation.is_empty() { stored.incarnation } else { fresh() };
            let mut state = self.state();
            let Some(held) = state.held.get_mut(&partition) else { continue };
            held.incarnation.clone_from(&log.incarnation);
            held.print = stored.print.filter(|_| same);
            held.epoch = stored.epoch;
            assignments.push(Assignment::new(partition, log, committed, held.lease.clone()));
        }
        Ok(assignments)
    }

    /// Whether the log still has the record that was seen in it. What retention took tells nothing.
    fn is_same(&self, partition: u32, stored: &Stored, first: u64, end: u64) -> Result<bool> {
        let Some(print) = stored.print else { return Ok(true) };
        let at = u64::try_from(print.offset).unwrap_or_default();
        if at < first {
            return Ok(true);
        }
        if at >= end {
            return Ok(false);
        }
        let mut found = None;
        scan::read(&self.link, &self.topic, partition, at, at + 1, |message| {
            found.get_or_insert_with(|| Print::of(message));
        })?;
        // Compaction may have taken it.
        Ok(found.is_none_or(|found| found.offset != print.offset || found == print))
    }

    /// The incarnation of the log as this member knows it, looked at anew: after trouble it may be another.
    pub(crate) fn incarnation(&self, partition: u32, first: u64, end: u64) -> Result<String> {
        let stored = {
            let state = self.state();
            let held = state.held.get(&partition).ok_or_else(not_held)?;
            let print = held.seen.back().copied().or(held.print);
            Stored { incarnation: held.incarnation.clone(), print, ..Stored::default() }
        };
        if self.is_same(partition, &stored, first, end)? {
            return Ok(stored.incarnation);
        }
        let fresh = format!("{:016x}", rand::random::<u64>());
        let mut state = self.state();
        let held = state.held.get_mut(&partition).ok_or_else(not_held)?;
        held.incarnation.clone_from(&fresh);
        (held.print, held.seen) = (None, VecDeque::new());
        Ok(fresh)
    }

    fn revoked(&self, consumer: &GroupConsumer, list: &TopicPartitionList) {
        let wanted: HashSet<u32> = partitions(list).into_iter().collect();
        let lost = consumer.assignment_lost();
        let mut state = self.state();
        let held: Vec<u32> = wanted.iter().copied().filter(|partition| state.held.contains_key(partition)).collect();
        if lost || state.closing || held.is_empty() {
            state.revocation = None;
            drop(state);
            self.lose(&held);
            self.give_up(consumer, &wanted);
            return;
        }
        let until = Instant::now() + self.drain;
        state.revocation = Some(Revocation { partitions: wanted, left: held.iter().copied().collect(), until });
        drop(state);
        self.tell(GroupEvent::Revoked(held));
    }

    fn give_up(&self, consumer: &GroupConsumer, partitions: &HashSet<u32>) {
        let list = self.list(partitions.iter().copied());
        let given = if self.eager { consumer.unassign() } else { consumer.incremental_unassign(&list) };
        if let Err(error) = given {
            tracing::debug!(target: "eventbus", %error, "partitions were taken before they were given up");
        }
    }

    /// Answers the coordinator when all is released, or when it can wait no longer.
    fn hand_over(&self, consumer: &GroupConsumer) {
        let over = {
            let mut state = self.state();
            let ready = |revocation: &Revocation| revocation.left.is_empty() || Instant::now() >= revocation.until;
            if !state.revocation.as_ref().is_some_and(ready) {
                return;
            }
            state.revocation.take()
        };
        if let Some(revocation) = over {
            self.lose(&revocation.left.iter().copied().collect::<Vec<_>>());
            self.give_up(consumer, &revocation.partitions);
        }
    }

    /// These partitions are gone; the core is told of those that it still had.
    pub(crate) fn lose(&self, partitions: &[u32]) {
        let mut lost = Vec::new();
        let mut state = self.state();
        for partition in partitions {
            if let Some(held) = state.held.remove(partition) {
                held.lease.revoke();
                lost.push(*partition);
            }
        }
        drop(state);
        if !lost.is_empty() {
            self.tell(GroupEvent::Lost(lost));
        }
    }

    /// The coordinator does not know this member any more: what it owned has other owners by now.
    pub(crate) fn lose_all(&self) {
        let held: Vec<u32> = self.state().held.keys().copied().collect();
        if let Some(revocation) = &mut self.state().revocation {
            revocation.left.clear();
        }
        self.lose(&held);
    }

    /// The core has finished with a partition.
    pub(crate) fn release(&self, partition: u32) {
        let mut state = self.state();
        if let Some(held) = state.held.remove(&partition) {
            held.lease.revoke();
        }
        if let Some(revocation) = &mut state.revocation {
            revocation.left.remove(&partition);
        }
    }

    fn accept(&self, message: &BorrowedMessage<'_>, batch: &mut Vec<(u64, Inbound)>) {
        let Ok(partition) = u32::try_from(message.partition()) else { return };
        let read = {
            let mut state = self.state();
            let Some(held) = state.held.get_mut(&partition) else { return };
            if held.read == 0 || message.offset() < held.next {
                return;
            }
            held.next = message.offset() + 1;
            if held.seen.back().is_none_or(|print| print.offset < message.offset()) {
                held.seen.push_back(Print::of(message));
            }
            held.read
        };
        batch.push((read, wire::inbound(partition, message)));
    }

    fn flush(&self, batch: &mut Vec<(u64, Inbound)>) {
        if !batch.is_empty() {
            self.waiting.fetch_add(batch.len(), Ordering::AcqRel);
            let _ = self.items.send(Item::Records(std::mem::take(batch)));
        }
    }

    /// Records whose read is still under way, out of what the thread handed over.
    pub(crate) fn current(&self, records: Vec<(u64, Inbound)>) -> Vec<Inbound> {
        self.waiting.fetch_sub(records.len(), Ordering::AcqRel);
        let state = self.state();
        let under_way =
            |(read, record): &(u64, Inbound)| state.held.get(&record.partition).is_some_and(|held| held.read == *read);
        records.into_iter().filter(under_way).map(|(_, record)| record).collect()
    }

    fn begin(&self, consumer: &GroupConsumer, partition: u32, from: i64) -> Result<()> {
        let until = Instant::now() + Duration::from_secs(2);
        loop {
            let number = i32::try_from(partition).unwrap_or(i32::MAX);
            match consumer.seek(&self.topic, number, Offset::Offset(from), Duration::from_secs(1)) {
                Ok(()) => break,
                // Assigned a moment ago, and not yet begun.
                Err(KafkaError::Seek(_)) if Instant::now() < until => std::thread::sleep(Duration::from_millis(2)),
                Err(error) => {
                    return Err(Error::new(ErrorKind::Unavailable, format!("the read cannot begin: {error}")));
                }
            }
        }
        let mut state = self.state();
        state.reads += 1;
        let read = state.reads;
        let held = state.held.get_mut(&partition).ok_or_else(not_held)?;
        (held.read, held.next) = (read, from);
        Ok(())
    }

    fn caught_up(&self, partition: i32) {
        let Ok(partition) = u32::try_from(partition) else { return };
        let next = self.state().held.get(&partition).filter(|held| held.read > 0).map(|held| held.next);
        if let Some(next) = next {
            self.tell(GroupEvent::CaughtUp { partition, next: wire::position(next) });
        }
    }

    /// Delivery of all that is read breaks off; the core reads again.
    pub(crate) fn interrupt(&self) {
        let mut state = self.state();
        let reading = state.held.iter_mut().filter(|(_, held)| held.read > 0);
        let broken: Vec<u32> = reading
            .map(|(partition, held)| {
                held.read = 0;
                *partition
            })
            .collect();
        drop(state);
        if !broken.is_empty() {
            self.tell(GroupEvent::Interrupted(broken));
        }
    }

    /// What the consumer says that is no record. `true` where the member is at its end.
    fn trouble(&self, error: &KafkaError) -> bool {
        match (error, error.rdkafka_error_code()) {
            (KafkaError::MessageConsumptionFatal(_), _) => {
                let _ = self.items.send(Item::Over(to_core(error, "consuming")));
                return true;
            }
            (
                _,
                Some(Code::GroupAuthorizationFailed | Code::TopicAuthorizationFailed | Code::InvalidSessionTimeout),
            ) => {
                let kind = match error.rdkafka_error_code() {
                    Some(Code::InvalidSessionTimeout) => ErrorKind::InvalidConfig,
                    _ => ErrorKind::PermissionDenied,
                };
                let _ = self.items.send(Item::Over(Error::new(kind, format!("the broker says: {error}"))));
                return true;
            }
            // The log no longer has the next record, or not yet: what it has is looked up when it is read again.
            (_, Some(Code::AutoOffsetReset | Code::OffsetOutOfRange)) => self.interrupt(),
            (_, Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition)) => self.interrupt(),
            (_, Some(Code::AllBrokersDown)) => self.tell(GroupEvent::Connection(ConnectionState::Disconnected)),
            _ => tracing::debug!(target: "eventbus", %error, "the consumer says"),
        }
        false
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn consumer(&self) -> Option<Arc<GroupConsumer>> {
        self.consumer.get()?.upgrade()
    }

    fn tell(&self, event: GroupEvent) {
        let _ = self.items.send(Item::Event(event));
    }

    pub(crate) fn list(&self, partitions: impl Iterator<Item = u32>) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition(&self.topic, i32::try_from(partition).unwrap_or(i32::MAX));
        }
        list
    }
}

impl Held {
    /// Until a claim is accepted nothing may start.
    fn new() -> Self {
        let lease = Lease::until(tokio::time::Instant::now());
        Self {
            lease,
            incarnation: String::new(),
            print: None,
            seen: VecDeque::new(),
            epoch: 0,
            last: None,
            read: 0,
            next: 0,
        }
    }
}

pub(crate) fn not_held() -> Error {
    Error::new(ErrorKind::Fenced, "the partition is no longer owned")
}

fn partitions(list: &TopicPartitionList) -> Vec<u32> {
    list.elements().iter().filter_map(|element| u32::try_from(element.partition()).ok()).collect()
}

/// Polls until the member leaves. Drops the consumer on this thread, which is where its last callbacks come.
pub(crate) fn run(seat: &Seat, consumer: GroupConsumer, commands: &std_mpsc::Receiver<Command>) {
    let consumer = Arc::new(consumer);
    let _ = seat.consumer.set(Arc::downgrade(&consumer));
    let mut batch = Vec::with_capacity(BATCH);
    let left = loop {
        match commands.try_recv() {
            Ok(Command::Read(partition, from, reply)) => {
                seat.flush(&mut batch);
                let _ = reply.send(seat.begin(&consumer, partition, from));
            }
            Ok(Command::Leave(reply)) => break Some(reply),
            Err(std_mpsc::TryRecvError::Disconnected) => break None,
            Err(std_mpsc::TryRecvError::Empty) => {}
        }
        seat.hand_over(&consumer);
        if seat.waiting.load(Ordering::Acquire) > WAITING {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        }
        let wait = if batch.is_empty() { TICK } else { Duration::ZERO };
        match consumer.poll(wait) {
            Some(Ok(message)) => {
                seat.accept(&message, &mut batch);
                if batch.len() >= BATCH {
                    seat.flush(&mut batch);
                }
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                seat.flush(&mut batch);
                seat.caught_up(partition);
            }
            Some(Err(error)) => {
                seat.flush(&mut batch);
                if seat.trouble(&error) {
                    break None;
                }
            }
            None => seat.flush(&mut batch),
        }
    };
    leave(seat, consumer);
    if let Some(reply) = left {
        let _ = reply.send(());
    }
}

fn leave(seat: &Seat, consumer: Arc<GroupConsumer>) {
    {
        let mut state = seat.state();
        state.closing = true;
        state.revocation = None;
        for held in state.held.values() {
            held.lease.revoke();
        }
        state.held.clear();
    }
    // A member that goes before it has come stays in the group until its session ends, and others make room for it.
    let until = Instant::now() + JOINS;
    while seat.state().assignments == 0 && Instant::now() < until {
        let _ = consumer.poll(TICK);
    }
    let _ = consumer.unassign();
    consumer.unsubscribe();
    // Whoever commits or pauses just now has it for a moment; the last one to let go closes it.
    let mut consumer = consumer;
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        match Arc::try_unwrap(consumer) {
            Ok(consumer) => return drop(consumer),
            Err(_) if Instant::now() > until => return,
            Err(shared) => consumer = shared,
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl ClientContext for Seat {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.context.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.context.error(error, reason);
    }
}

impl ConsumerContext for Seat {
    fn rebalance(&self, consumer: &GroupConsumer, what: RDKafkaRespErr, list: &mut TopicPartitionList) {
        match what {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assigned(consumer, list),
            _ => self.revoked(consumer, list),
        }
    }
}
