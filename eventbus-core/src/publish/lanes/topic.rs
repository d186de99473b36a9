//! The lanes of one topic, and what is known of the topic.
//!
//! The first publish to a topic asks the driver to describe it; places are taken meanwhile. The facts are kept in every
//! shard, so that a publish takes no lock for them but its shard's.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::driver::{Command, Found};
use super::effects::Effects;
use super::observe;
use super::partitions::{Count, Numbers};
use super::queues::{Hold, Kind};
use super::serial_queue::Turn;
use super::shard::{Event, LaneRef, Place, Shard};
use super::shared::{Engine, Ready};
use crate::backend::{Fate, Outbound, Ticket, TicketSink, TopicDescription};
use crate::model::{AfterRefusal, Error, ErrorKind, Key, Position, Topic, murmur2};
use crate::observe::{BusEvent, PublishTelemetry};
use crate::publish::completion::Withdraw;
use crate::publish::confirmation::Withdrawal;
use crate::publish::seal::TopicSeal;
use crate::runtime::Mutex;
use crate::runtime::sync::MutexGuard;
use crate::runtime::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Shards of a topic: how many publishes of different keys may take their place at the same instant.
pub(super) const SHARDS: usize = 32;

/// A topic as its lanes see it.
#[derive(Debug)]
pub(super) struct Facts {
    partitions: Vec<Arc<Partition>>,
    /// By so many of them keys go; all, unless the topic has grown.
    keyed: u32,
    /// Counts incarnations of the topic as they are met.
    pub(super) incarnation: u32,
    /// The incarnation by its name.
    pub(super) log: Arc<str>,
    pub(super) max_record_bytes: Option<usize>,
    /// After this time since its first send, an envelope of unknown fate is looked for before it is sent again.
    pub(super) resend_window: Option<Duration>,
    keyless: AtomicU64,
}

impl Facts {
    /// The partition of a key; keyless envelopes go round.
    pub(super) fn partition_of(&self, key: Option<&Key>) -> u32 {
        let count = self.partitions.len().max(1);
        match key {
            Some(key) => key.partition(self.keyed),
            None => (self.keyless.fetch_add(1, Ordering::Relaxed) % count as u64) as u32,
        }
    }

    pub(super) fn partition(&self, partition: u32) -> &Arc<Partition> {
        &self.partitions[partition as usize % self.partitions.len()]
    }
}

/// One partition, as far as submitting to it goes.
pub(super) struct Partition {
    /// No record that is submitted from now on can be below.
    end: AtomicU64,
    pub(super) turn: Turn<(Outbound, Ticket)>,
}

impl Partition {
    fn new(end: Position) -> Arc<Self> {
        Arc::new(Self { end: AtomicU64::new(end.get()), turn: Turn::new() })
    }

    pub(super) fn end(&self) -> Position {
        Position::new(self.end.load(Ordering::Relaxed))
    }

    /// A record is known to be stored here.
    pub(super) fn saw(&self, position: Position) {
        self.end.fetch_max(position.next().get(), Ordering::Relaxed);
    }

    /// Hands what is queued to the backend, one at a time and in order.
    pub(super) fn submit_all(&self, engine: &Engine) {
        self.turn.work(|(record, ticket)| engine.backend.submit(record, ticket));
    }
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partition").field("end", &self.end()).finish_non_exhaustive()
    }
}

/// Where a description comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The driver looked.
    Looked,
    /// Somebody ensured the topic through this bus.
    Ensured,
    /// Its number of partitions was accepted.
    Accepted,
}

/// What the driver is at with a topic.
#[derive(Debug, Default)]
struct Described {
    /// Rises whenever what a description under way will say may be stale.
    version: u64,
    under_way: bool,
    /// The policy was given by who ensured the topic; descriptions do not change it.
    policy_given: bool,
    incarnation: Option<String>,
    incarnations: u32,
    /// The facts of that incarnation, kept when the shards forget them.
    last: Option<Arc<Facts>>,
}

struct ShardCell {
    state: Mutex<Shard>,
    outbox: Turn<Event>,
}

/// All lanes of a topic.
pub(crate) struct TopicLanes {
    telemetry: PublishTelemetry,
    name: Topic,
    engine: Arc<Engine>,
    shards: Vec<ShardCell>,
    pub(super) seal: TopicSeal,
    pub(super) count: Count,
    policy: AtomicU8,
    described: Mutex<Described>,
    /// Held while facts are put into the shards, so that all have the same.
    installing: Mutex<()>,
}

impl TopicLanes {
    pub(super) fn new(name: Topic, engine: Arc<Engine>) -> Arc<Self> {
        let cell = |_| ShardCell { state: Mutex::new(Shard::default()), outbox: Turn::new() };
        Arc::new(Self {
            telemetry: PublishTelemetry::new(engine.backend.system(), &name),
            name,
            seal: TopicSeal::new(engine.config.sealed_limit),
            engine,
            shards: (0..SHARDS).map(cell).collect(),
            count: Count::default(),
            policy: AtomicU8::new(0),
            described: Mutex::new(Described::default()),
            installing: Mutex::new(()),
        })
    }

    pub(super) fn name(&self) -> &Topic {
        &self.name
    }

    pub(super) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    pub(super) fn outbox(&self, shard: usize) -> &Turn<Event> {
        &self.shards[shard].outbox
    }

    pub(super) fn lock(&self, shard: usize) -> MutexGuard<'_, Shard> {
        self.shards[shard].state.lock()
    }

    /// The shard of a key: by other bits of its hash than the partition, and the same in every run.
    pub(super) fn shard_of(key: &Key) -> usize {
        (murmur2(key.as_bytes()) >> 20) as usize % SHARDS
    }

    /// Does something under a shard's lock, and what follows from it after.
    pub(super) fn with<R>(self: &Arc<Self>, shard: usize, decide: impl FnOnce(&mut Shard, &mut Effects<'_>) -> R) -> R {
        let mut fx = Effects::new(self, shard);
        let result = decide(&mut self.lock(shard), &mut fx);
        fx.settle();
        result
    }

    pub(super) fn policy(&self) -> AfterRefusal {
        match self.policy.load(Ordering::Relaxed) {
            0 => AfterRefusal::SealKey,
            1 => AfterRefusal::SealUntilResumed,
            _ => AfterRefusal::Continue,
        }
    }

    fn set_policy(&self, policy: AfterRefusal) {
        let policy = match policy {
            AfterRefusal::SealKey => 0,
            AfterRefusal::SealUntilResumed => 1,
            AfterRefusal::Continue => 2,
        };
        self.policy.store(policy, Ordering::Relaxed);
    }

    /// Unseals a key, or the topic.
    pub(super) fn resume(&self, key: Option<&Key>) {
        match key {
            Some(key) => self.lock(Self::shard_of(key)).seals.resume(&self.seal, key),
            None => self.seal.resume(),
        }
    }

    /// Tells what a shard has to tell, in order.
    pub(super) fn tell(self: &Arc<Self>, shard: usize) {
        let mut let_in = false;
        self.outbox(shard).work(|event| let_in |= self.tell_one(event));
        if let_in {
            self.engine.work_ready();
        }
    }

    /// True where it let others in.
    fn tell_one(&self, event: Event) -> bool {
        match event {
            Event::Sealed { key, error } => {
                let (topic, key, error) = (&self.name, key.as_ref(), &error);
                self.engine.hooks.emit(&BusEvent::Sealed { topic, key, error });
                false
            }
            Event::Failed { stamp, envelope, error } => {
                observe::over(&self.engine, &self.name, &self.telemetry, None, stamp, &envelope, false, || Err(error));
                false
            }
            Event::Over { ended, outcome } => {
                let stamp = ended.slot.stamp();
                if ended.kind != Kind::Reserved {
                    let result = || outcome.clone().map_err(|failure| failure.error);
                    let (since, stored) = (Some(ended.slot.since()), outcome.is_ok());
                    let telemetry = &self.telemetry;
                    observe::over(&self.engine, &self.name, telemetry, since, stamp, &ended.envelope, stored, result);
                }
                ended.slot.resolve(outcome);
                let let_in = self.engine.gate(ended.kind).leave(ended.ask, ended.admitted);
                let any = !let_in.is_empty();
                for ready in let_in {
                    self.engine.ready.push(ready);
                }
                self.engine.one_less();
                any
            }
        }
    }

    /// Room was granted to a waiting envelope.
    pub(super) fn granted(self: &Arc<Self>, place: Place) {
        let slot = self.with(place.shard, |shard, fx| {
            let lane = shard.store.node(place.index, place.generation)?.lane;
            let node = &mut shard.store.nodes[place.index];
            node.admitted = true;
            let slot = Arc::clone(&node.slot);
            shard.drive(fx, lane);
            Some(slot)
        });
        if let Some(slot) = slot {
            slot.admit();
        }
    }

    /// A permit came to a lane that stood in line; what it does not use is returned.
    pub(super) fn permitted(self: &Arc<Self>, lane: &LaneRef, kind: Kind) {
        let unused = self.with(lane.shard, |shard, fx| {
            fx.permit_in_hand = true;
            if shard.store.lane(lane.lane, lane.id).is_some() {
                shard.store.lanes[lane.lane].in_line = false;
                shard.drive(fx, lane.lane);
            }
            fx.permit_in_hand
        });
        if unused && self.engine.release_permit(kind) {
            self.engine.work_ready();
        }
    }

    /// The log was read for a stamp.
    pub(super) fn looked(self: &Arc<Self>, place: Place, found: Result<Found, Error>) {
        self.with(place.shard, |shard, fx| shard.looked(fx, place, found));
    }

    /// A lane's rest is over.
    pub(super) fn rested(self: &Arc<Self>, lane: &LaneRef) {
        self.with(lane.shard, |shard, fx| shard.rested(fx, lane.lane, lane.id));
    }

    /// Ends everything; returns how many envelopes had no known fate.
    pub(super) fn abandon(self: &Arc<Self>) -> usize {
        (0..SHARDS).map(|shard| self.with(shard, |state, fx| state.abandon(fx))).sum()
    }

    /// Asks for a description, unless one is under way. May be called under a shard's lock.
    pub(super) fn need_facts(self: &Arc<Self>) {
        let mut described = self.described.lock();
        if !described.under_way {
            described.under_way = true;
            self.engine.inbox.push(Command::Describe(Arc::clone(self), described.version));
        }
    }

    /// The driver's answer to [`need_facts`](Self::need_facts).
    pub(super) fn described(self: &Arc<Self>, version: u64, answer: Result<TopicDescription, Error>) {
        {
            let mut described = self.described.lock();
            described.under_way = false;
            if described.version != version {
                drop(described);
                return self.ask_again();
            }
        }
        match answer {
            Ok(description) => self.install(&description, Source::Looked),
            Err(error) => self.refuse_listed(&error),
        }
    }

    /// The topic was forgotten while it was described: who still waits for it asks again.
    fn ask_again(self: &Arc<Self>) {
        let waits = |shard: usize| {
            let shard = self.lock(shard);
            shard.facts.is_none() && !shard.listed.is_empty()
        };
        if (0..SHARDS).any(waits) {
            self.need_facts();
        }
    }

    /// Takes a description for true, and lets go what waited for it.
    pub(super) fn install(self: &Arc<Self>, description: &TopicDescription, source: Source) {
        let installing = self.installing.lock();
        let before = self.count.difference();
        let (facts, numbers, begins) = self.facts_of(description, source);
        let refused = (begins && numbers.differ()).then(|| numbers.error(&self.name));
        let mut effects = Vec::new();
        for index in 0..SHARDS {
            let mut fx = Effects::new(self, index);
            let mut shard = self.lock(index);
            shard.facts = Some(Arc::clone(&facts));
            for (lane, id) in std::mem::take(&mut shard.listed) {
                if shard.store.lane(lane, id).is_some() {
                    shard.store.lanes[lane].listed = false;
                    match &refused {
                        Some(error) if shard.store.lanes[lane].kind == Kind::Keyed => {
                            shard.undescribed(&mut fx, lane, error);
                        }
                        _ => shard.drive(&mut fx, lane),
                    }
                }
            }
            drop(shard);
            effects.push(fx);
        }
        self.count.installed();
        drop(installing);
        effects.into_iter().for_each(Effects::settle);
        if numbers.differ() && before != Some(numbers) {
            let Numbers { in_force, found } = numbers;
            tracing::warn!(target: "eventbus", topic = %self.name, in_force, found, "the number of partitions has changed");
            self.engine.hooks.emit(&BusEvent::PartitionsChanged { topic: &self.name, in_force, found });
        }
    }

    /// The facts, by how many partitions keys go, and whether this is another topic than before.
    fn facts_of(&self, description: &TopicDescription, source: Source) -> (Arc<Facts>, Numbers, bool) {
        let given = source == Source::Ensured;
        let mut described = self.described.lock();
        if given {
            described.version += 1;
        }
        if given || !described.policy_given {
            described.policy_given |= given;
            self.set_policy(description.spec.after_refusal);
        }
        let same = described.incarnation.as_ref() == Some(&description.incarnation);
        if !same {
            described.incarnation = Some(description.incarnation.clone());
            described.incarnations += 1;
        }
        // The same log goes on under the same turns, so that what is queued in them stays in order.
        let before = described.last.take();
        let partition = |index: usize| {
            let end = description.partitions.get(index).map_or(Position::ZERO, |log| log.end);
            let known = before.as_ref().filter(|_| same).and_then(|facts| facts.partitions.get(index));
            let partition = known.map_or_else(|| Partition::new(end), Arc::clone);
            partition.end.fetch_max(end.get(), Ordering::Relaxed);
            partition
        };
        let count = match description.partitions.len() {
            0 => description.spec.partitions.max(1) as usize,
            count => count,
        };
        let found = u32::try_from(count).unwrap_or(u32::MAX);
        let numbers = self.count.found(found, !same, source, self.engine.config.partitions);
        let own_window = description.spec.duplicate_window;
        let facts = Arc::new(Facts {
            partitions: (0..count).map(partition).collect(),
            keyed: numbers.in_force.min(found),
            incarnation: described.incarnations,
            log: description.incarnation.as_str().into(),
            max_record_bytes: description.max_record_bytes.or(self.engine.max_record_bytes),
            resend_window: self.engine.resend_window.map(|least| usable_window(least, own_window)),
            keyless: AtomicU64::new(before.as_ref().map_or(0, |facts| facts.keyless.load(Ordering::Relaxed))),
        });
        described.last = Some(Arc::clone(&facts));
        (facts, numbers, !same)
    }

    /// Has the topic described anew before anything more is submitted.
    pub(super) fn forget_facts(&self) {
        let _installing = self.installing.lock();
        self.described.lock().version += 1;
        self.count.forget();
        for shard in 0..SHARDS {
            self.lock(shard).facts = None;
        }
    }

    /// The topic cannot be described: what waits for it is refused.
    fn refuse_listed(self: &Arc<Self>, error: &Error) {
        for index in 0..SHARDS {
            self.with(index, |shard, fx| {
                if shard.facts.is_some() {
                    return;
                }
                for (lane, id) in std::mem::take(&mut shard.listed) {
                    if shard.store.lane(lane, id).is_some() {
                        shard.store.lanes[lane].listed = false;
                        shard.undescribed(fx, lane, error);
                    }
                }
            });
        }
    }
}

impl Shard {
    /// The topic of a waiting lane cannot be described, and trying again cannot help.
    fn undescribed(&mut self, fx: &mut Effects<'_>, lane_index: usize, error: &Error) {
        let lane = &self.store.lanes[lane_index];
        let Some(first) = lane.cursor.filter(|_| lane.hold == Hold::Open) else { return };
        // What may be in the log is not refused by a missing permission to look at its topic.
        if self.store.nodes[first].unknown && error.kind() != ErrorKind::UnknownTopic {
            return self.rest(fx, lane_index);
        }
        self.refuse(fx, first, error.clone());
        self.drive(fx, lane_index);
    }
}

/// How long the broker can be trusted to drop a copy. A backend that remembers nothing says so by zero; otherwise the
/// topic's own window counts, less a quarter: the broker may have begun to count before we did, and a re-send takes time.
fn usable_window(backend: Duration, topic: Duration) -> Duration {
    if backend.is_zero() { Duration::ZERO } else { topic / 4 * 3 }
}

impl Withdraw for TopicLanes {
    fn withdraw(self: Arc<Self>, ticket: u64) -> Withdrawal {
        let place = Place::unpack(ticket);
        self.with(place.shard, |shard, fx| shard.withdraw(fx, place))
    }
}

impl TicketSink for TopicLanes {
    fn told(self: Arc<Self>, id: u64, fate: Fate) {
        let place = Place::unpack(id);
        self.with(place.shard, |shard, fx| shard.told(fx, place, fate));
    }

    fn stands(&self, id: u64) -> bool {
        let place = Place::unpack(id);
        self.lock(place.shard).stands(place)
    }
}

impl fmt::Debug for TopicLanes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopicLanes").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Who waits for room is found again by this.
pub(super) fn waiter(topic: &Arc<TopicLanes>, place: Place) -> Ready {
    Ready::Granted(Arc::clone(topic), place)
}
