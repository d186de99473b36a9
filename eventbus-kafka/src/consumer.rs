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

mod lookup;
mod state;
mod thread;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak, mpsc as std_mpsc};
use std::time::{Duration, Instant};

use eventbus_core::backend::{Assignment, ConnectionState, GroupEvent, Inbound, LogState};
use eventbus_core::{Error, ErrorKind, Position, Result};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::BorrowedMessage;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Message, Offset, TopicPartitionList};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use state::{Held, Rejoin, Revocation, State};
pub(crate) use thread::run;

use crate::connection::{Context, Link};
use crate::error::to_core;
use crate::note::{Print, Stored, print_of};
use crate::scan;
use crate::topics::watermarks;
use crate::wire;

/// The most records of a partition that come after it was paused: what waits for the core.
pub(crate) const OVERSHOOT: usize = 4_096;

/// Records of a batch.
const BATCH: usize = 512;

/// Records that may wait for the core before the thread asks for no more.
const WAITING: usize = OVERSHOOT - BATCH;

/// Of every so many records, one is kept in mind to tell the log by; of those that come alone, each.
const PRINTED: i64 = 16;

/// How long a member that leaves waits for the answer to its joining.
const JOINS: Duration = Duration::from_secs(2);

/// How long a partition that was just assigned may take until the client seeks in it.
const SETTLES: Duration = Duration::from_secs(1);

/// The longest that the thread waits for something to happen: commands are looked at in between.
const TICK: Duration = Duration::from_millis(10);

pub(crate) type GroupConsumer = BaseConsumer<Seat>;

/// What the thread hands to the core.
pub(crate) enum Item {
    Event(GroupEvent),
    /// Each with the number of its read.
    Records(Vec<(u64, Inbound)>),
    /// By this read, nothing of the partition is left below this position.
    CaughtUp(u64, u32, Position),
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
    disconnected: AtomicBool,
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
            disconnected: AtomicBool::new(false),
            consumer: OnceLock::new(),
            runtime: Handle::current(),
        }))
    }

    /// Nothing is wanted before the core says from where, so reading begins at the last record: a request for what comes after it
    /// would stay open at the broker and hold back the core's `read`. As a number: a word for it would be looked up by the client,
    /// and an answer that comes after that `read` has begun would carry it away, past records.
    fn at_the_last(&self, list: &mut TopicPartitionList) {
        let mut asked = true;
        for partition in partitions(list) {
            let log = asked.then(|| watermarks(&self.link, &self.topic, partition));
            asked = matches!(log, Some(Ok(_)));
            let last = log.and_then(std::result::Result::ok).map_or(0, |log| {
                let last = log.end.get().saturating_sub(1).max(log.first.get());
                wire::offset(Position::new(last))
            });
            let number = i32::try_from(partition).unwrap_or(i32::MAX);
            let _ = list.set_partition_offset(&self.topic, number, Offset::Offset(last));
        }
    }

    fn assigned(&self, consumer: &GroupConsumer, list: &mut TopicPartitionList) {
        self.at_the_last(list);
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
            let number = state.assignments;
            for partition in &partitions {
                state.held.insert(*partition, Held::new(number));
            }
            number
        };
        if !partitions.is_empty() {
            let seat = self.clone();
            self.runtime.spawn_blocking(move || seat.announce(&partitions, number));
        }
    }

    fn revoked(&self, consumer: &GroupConsumer, list: &TopicPartitionList) {
        let wanted: HashSet<u32> = partitions(list).into_iter().collect();
        let lost = consumer.assignment_lost();
        let mut state = self.state();
        // What the core has not heard of is not its to release, and it is not told of it any more.
        state.held.retain(|partition, held| held.announced || !wanted.contains(partition));
        let held: Vec<u32> = wanted.iter().copied().filter(|partition| state.held.contains_key(partition)).collect();
        if state.closing {
            state.revocation = None;
            drop(state);
            return self.give_up(consumer, &wanted);
        }
        let (left, until) = if lost {
            (HashSet::new(), Instant::now())
        } else {
            (held.iter().copied().collect(), Instant::now() + self.drain)
        };
        state.revocation = Some(Revocation { partitions: wanted, left, until });
        drop(state);
        if lost {
            self.lose(&held);
        } else if !held.is_empty() {
            self.tell(GroupEvent::Revoked(held));
        }
        self.hand_over(consumer);
    }

    fn give_up(&self, consumer: &GroupConsumer, partitions: &HashSet<u32>) {
        let list = self.list(partitions.iter().copied());
        let given = if self.eager { consumer.unassign() } else { consumer.incremental_unassign(&list) };
        if let Err(error) = given {
            tracing::debug!(target: "eventbus", %error, "partitions were taken before they were given up");
        }
        let bare = {
            let state = self.state();
            state.held.is_empty() && !state.closing
        };
        if bare {
            let seat = self.clone();
            self.runtime.spawn_blocking(move || seat.end_without_topic());
        }
    }

    /// Answers the coordinator when all is released, or when it can wait no longer. A commit under way is waited for as long
    /// as the client may hold it back: a later one of its tries could come after the next owner's.
    fn hand_over(&self, consumer: &GroupConsumer) {
        let over = {
            let mut state = self.state();
            let Some(revocation) = &state.revocation else { return };
            let now = Instant::now();
            let released = revocation.left.is_empty() || now >= revocation.until;
            let silent = revocation.partitions.is_disjoint(&state.committing) || now >= revocation.until + self.session;
            if !released || !silent {
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
    fn lose(&self, partitions: &[u32]) {
        self.lose_where(|partition, _| partitions.contains(&partition));
    }

    /// The coordinator does not know the member of this assignment any more: what it owned has other owners by now.
    pub(crate) fn lose_until(&self, number: u64) {
        self.lose_where(|_, held| held.number <= number);
    }

    fn lose_where(&self, lost: impl Fn(u32, &Held) -> bool) {
        let mut state = self.state();
        let lost: Vec<u32> = state
            .held
            .extract_if(|partition, held| lost(*partition, held))
            .map(|(partition, held)| {
                held.lease.revoke();
                partition
            })
            .collect();
        if let Some(revocation) = &mut state.revocation {
            revocation.left.retain(|partition| !lost.contains(partition));
        }
        if !lost.is_empty() {
            self.tell(GroupEvent::Lost(lost));
        }
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
            held.compared = false;
            let told = batch.is_empty() || message.offset() % PRINTED == 0;
            if told && held.seen.back().is_none_or(|print| print.offset < message.offset()) {
                held.seen.push_back(print_of(message));
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
        let until = Instant::now() + if self.state().rejoin == Rejoin::No { SETTLES } else { Duration::ZERO };
        loop {
            let number = i32::try_from(partition).unwrap_or(i32::MAX);
            match consumer.seek(&self.topic, number, Offset::Offset(from), Duration::from_secs(1)) {
                Ok(()) => break,
                // Assigned a moment ago, and not yet begun.
                Err(KafkaError::Seek(_)) if Instant::now() < until => std::thread::sleep(Duration::from_millis(2)),
                Err(error) => {
                    // Where the log did not have the next record the client has ended the partition, and seeks no more in it
                    // until it is assigned anew.
                    let mut state = self.state();
                    if matches!(error, KafkaError::Seek(_)) && state.rejoin == Rejoin::No {
                        state.rejoin = Rejoin::Wanted;
                    }
                    return Err(Error::new(ErrorKind::Unavailable, format!("the read cannot begin: {error}")));
                }
            }
        }
        {
            let mut state = self.state();
            state.reads += 1;
            let read = state.reads;
            let held = state.held.get_mut(&partition).ok_or_else(not_held)?;
            (held.read, held.next) = (read, from);
        }
        // The core begins each assignment without a pause, and may have paused the one before until it heard of this.
        self.flow(consumer, partition, false);
        Ok(())
    }

    /// Stops and starts what the client asks brokers for. It keeps a pause beyond the assignment that it was made under.
    pub(crate) fn flow(&self, consumer: &GroupConsumer, partition: u32, paused: bool) {
        let list = self.list([partition].into_iter());
        let done = if paused { consumer.pause(&list) } else { consumer.resume(&list) };
        if let Err(error) = done {
            tracing::debug!(target: "eventbus", %error, partition, paused, "a pause of what is not assigned");
        }
    }

    /// Leaves the group and joins it again, where that is wanted: the client hands over what is owned as when the coordinator
    /// wants it, and begins anew what it is given.
    fn rejoin(&self, consumer: &GroupConsumer) {
        let mut state = self.state();
        if state.revocation.is_some() {
            return;
        }
        match state.rejoin {
            Rejoin::Wanted => {
                state.rejoin = Rejoin::Leaving;
                drop(state);
                consumer.unsubscribe();
            }
            Rejoin::Leaving if state.held.is_empty() => {
                state.rejoin = Rejoin::No;
                drop(state);
                if let Err(error) = consumer.subscribe(&[&self.topic]) {
                    let _ = self.items.send(Item::Over(to_core(&error, "subscribing")));
                }
            }
            Rejoin::No | Rejoin::Leaving => {}
        }
    }

    fn caught_up(&self, partition: i32) {
        let Ok(partition) = u32::try_from(partition) else { return };
        let known = self.state().held.get(&partition).filter(|held| held.read > 0).map(|held| (held.read, held.next));
        if let Some((read, next)) = known {
            let _ = self.items.send(Item::CaughtUp(read, partition, wire::position(next)));
        }
    }

    /// Whether a partition is still in this read.
    pub(crate) fn reads(&self, partition: u32, read: u64) -> bool {
        self.state().held.get(&partition).is_some_and(|held| held.read == read)
    }

    /// Tells of a connection that was lost, or is there again.
    pub(crate) fn connected(&self, connected: bool) {
        // Asked for each record, it nearly always ends with a look.
        if self.disconnected.load(Ordering::Acquire) == connected {
            self.disconnected.store(!connected, Ordering::Release);
            self.link.reached.set(connected);
            let now = if connected { ConnectionState::Connected } else { ConnectionState::Disconnected };
            self.tell(GroupEvent::Connection(now));
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
            (_, Some(Code::AllBrokersDown)) => self.connected(false),
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

pub(crate) fn not_held() -> Error {
    Error::new(ErrorKind::Fenced, "the partition is no longer owned")
}

fn partitions(list: &TopicPartitionList) -> Vec<u32> {
    list.elements().iter().filter_map(|element| u32::try_from(element.partition()).ok()).collect()
}
