//! The lanes of one topic, and the topic's metadata.
//!
//! The first publish to a topic asks the driver to describe it; publishes take their places meanwhile. Every shard
//! keeps the metadata, so that a publish takes no lock for them but its shard's.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::driver::DriverCommand;
use super::effects::Effects;
use super::find_stamp::StampOutcome;
use super::metadata::{MetadataSource, Partition, TopicMetadata, usable_window};
use super::partitions::{PartitionCount, PartitionCounts};
use super::queues::{LaneKind, LaneState, SendRetry};
use super::serial_queue::SerialQueue;
use super::shard::{LaneEvent, LaneRef, Shard, TicketId};
use super::shared::{Ready, Shared};
use crate::backend::{Fate, TicketSink, TopicDescription};
use crate::model::{
    AfterRefusal, Envelope, Error, ErrorKind, Key, Position, Receipt, Result, Stamp, Topic, Withdrawal, murmur2,
};
use crate::observe::{BusEvent, RetryNotices};
use crate::publish::completion::Withdraw;
use crate::publish::seal::TopicSeal;
use crate::publish::telemetry::PublishTelemetry;
use crate::runtime::Mutex;
use crate::runtime::sync::MutexGuard;
use crate::runtime::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// The interval between looks at whether all keyed publishes are over.
const AGAIN: Duration = Duration::from_millis(20);

/// The number of shards of a topic: that many publishes of different keys may take their places at the same instant.
pub(super) const SHARDS: usize = 32;

/// The state of a topic's description.
#[derive(Debug, Default)]
struct Described {
    /// A version that rises whenever a description under way may be stale when it comes.
    version: u64,
    under_way: bool,
    /// Whether a caller that ensured the topic gave the policy; then descriptions do not change it.
    policy_given: bool,
    incarnation: Option<String>,
    incarnations: u32,
    /// The metadata of that incarnation, kept when the shards forget them.
    last: Option<Arc<TopicMetadata>>,
    /// The retry of the description under way, if it has failed.
    retry: Option<SendRetry>,
}

struct ShardCell {
    state: Mutex<Shard>,
    outbox: SerialQueue<LaneEvent>,
}

pub(crate) struct TopicLanes {
    telemetry: PublishTelemetry,
    pub(super) notices: RetryNotices,
    name: Topic,
    shared: Arc<Shared>,
    shards: Vec<ShardCell>,
    pub(super) seal: TopicSeal,
    pub(super) partitions: PartitionCounts,
    policy: AtomicU8,
    described: Mutex<Described>,
    /// Held while metadata are put into the shards, so that all shards have the same.
    applying: Mutex<()>,
}

impl TopicLanes {
    pub(super) fn new(name: Topic, shared: Arc<Shared>) -> Arc<Self> {
        let cell = |_| ShardCell { state: Mutex::new(Shard::default()), outbox: SerialQueue::new() };
        let (system, after) = (shared.backend.system(), shared.config.notice_after);
        Arc::new(Self {
            telemetry: PublishTelemetry::new(system, &name),
            notices: RetryNotices::new(shared.hooks.clone(), after, system, "send", &name),
            name,
            seal: TopicSeal::new(shared.config.sealed_limit),
            shared,
            shards: (0..SHARDS).map(cell).collect(),
            partitions: PartitionCounts::default(),
            policy: AtomicU8::new(0),
            described: Mutex::new(Described::default()),
            applying: Mutex::new(()),
        })
    }

    pub(super) fn name(&self) -> &Topic {
        &self.name
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(super) fn outbox(&self, shard: usize) -> &SerialQueue<LaneEvent> {
        &self.shards[shard].outbox
    }

    pub(super) fn lock(&self, shard: usize) -> MutexGuard<'_, Shard> {
        self.shards[shard].state.lock()
    }

    /// Returns the shard of a key, the same in every run, by other bits of its hash than the partition's.
    pub(super) fn shard_of(key: &Key) -> usize {
        (murmur2(key.as_bytes()) >> 20) as usize % SHARDS
    }

    /// Calls `decide` under a shard's lock, and settles its effects after.
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

    /// Unseals a key; `None` unseals the topic.
    pub(super) fn resume(&self, key: Option<&Key>) {
        match key {
            Some(key) => self.lock(Self::shard_of(key)).seals.resume(&self.seal, key),
            None => self.seal.resume(),
        }
    }

    /// Tells the events of a shard, in order.
    pub(super) fn tell(self: &Arc<Self>, shard: usize) {
        let mut let_in = false;
        self.outbox(shard).work(|event| let_in |= self.tell_one(event));
        if let_in {
            self.shared.work_ready();
        }
    }

    /// Tells one event. Returns true where it let waiting publishes in.
    fn tell_one(&self, event: LaneEvent) -> bool {
        match event {
            LaneEvent::Sealed { key, error } => {
                let (topic, key, error) = (&self.name, key.as_ref(), &error);
                self.shared.hooks.emit(&BusEvent::Sealed { topic, key, error });
                false
            }
            LaneEvent::Failed { stamp, envelope, error } => {
                self.ended(None, stamp, &envelope, false, || Err(error));
                false
            }
            LaneEvent::Over { ended, outcome } => {
                let stamp = ended.completion.stamp();
                if ended.kind != LaneKind::Reserved {
                    let result = || outcome.clone().map_err(|failure| failure.error);
                    let (since, stored) = (Some(ended.completion.since()), outcome.is_ok());
                    self.ended(since, stamp, &ended.envelope, stored, result);
                }
                ended.completion.resolve(outcome);
                let let_in = self.shared.budget(ended.kind).leave(ended.request, ended.admitted);
                let any = !let_in.is_empty();
                for ready in let_in {
                    self.shared.ready.push(ready);
                }
                self.shared.one_less();
                any
            }
        }
    }

    /// Tells hooks and metrics that a publish is over, outside of all locks and in the key's order. The tracer observes
    /// the beginning. `result` is made only where a hook listens.
    fn ended(
        &self,
        since: Option<Instant>,
        stamp: Stamp,
        envelope: &Envelope,
        stored: bool,
        result: impl FnOnce() -> Result<Receipt>,
    ) {
        self.telemetry.over(since, stored);
        if self.shared.hooks.any() {
            let (topic, result) = (&self.name, &result());
            self.shared.hooks.emit(&BusEvent::Published { topic, stamp, envelope, result });
        }
    }

    /// Takes a grant of room for a waiting envelope.
    pub(super) fn granted(self: &Arc<Self>, id: TicketId) {
        let completion = self.with(id.shard, |shard, fx| {
            let lane = shard.queues.queued(id.index, id.generation)?.lane;
            let queued = &mut shard.queues.envelopes[id.index];
            queued.admitted = true;
            let completion = Arc::clone(&queued.completion);
            shard.drive(fx, lane);
            Some(completion)
        });
        if let Some(completion) = completion {
            completion.admit();
        }
    }

    /// Takes a permit for a lane that stood in line, and returns it where the lane does not use it.
    pub(super) fn permitted(self: &Arc<Self>, lane: &LaneRef, kind: LaneKind) {
        let unused = self.with(lane.shard, |shard, fx| {
            fx.permit_in_hand = true;
            if shard.queues.lane(lane.lane, lane.id).is_some() {
                shard.queues.lanes[lane.lane].in_line = false;
                shard.drive(fx, lane.lane);
            }
            fx.permit_in_hand
        });
        if unused && self.shared.release_permit(kind) {
            self.shared.work_ready();
        }
    }

    pub(super) fn searched(self: &Arc<Self>, id: TicketId, found: Result<StampOutcome>) {
        self.with(id.shard, |shard, fx| shard.searched(fx, id, found));
    }

    pub(super) fn backed_off(self: &Arc<Self>, lane: &LaneRef) {
        self.with(lane.shard, |shard, fx| shard.backed_off(fx, lane.lane, lane.id));
    }

    /// Ends everything; returns how many envelopes had no known fate.
    pub(super) fn abandon(self: &Arc<Self>) -> usize {
        (0..SHARDS).map(|shard| self.with(shard, |state, fx| state.abandon(fx))).sum()
    }

    /// Asks for a description, unless one is under way. May be called under a shard's lock.
    pub(super) fn request_metadata(self: &Arc<Self>) {
        let mut described = self.described.lock();
        if !described.under_way {
            described.under_way = true;
            self.shared.inbox.push(DriverCommand::Describe(Arc::clone(self), described.version));
        }
    }

    /// Notes that the topic could not be described, and is described again.
    pub(super) fn describe_failed(&self, error: &Error) {
        let mut described = self.described.lock();
        let since = described.retry.as_ref().map_or_else(Instant::now, |retry| retry.since);
        described.retry = Some(SendRetry { since, error: error.clone() });
    }

    /// Returns the retry of the description under way, if it has failed.
    pub(super) fn undescribed(&self) -> Option<SendRetry> {
        self.described.lock().retry.clone()
    }

    /// Takes the driver's answer to [`request_metadata`](Self::request_metadata).
    pub(super) fn described(self: &Arc<Self>, version: u64, answer: Result<TopicDescription>) {
        {
            let mut described = self.described.lock();
            described.under_way = false;
            described.retry = None;
            if described.version != version {
                drop(described);
                return self.ask_again();
            }
        }
        match answer {
            Ok(description) => self.apply(&description, MetadataSource::Looked),
            Err(error) => self.refuse_listed(&error),
        }
    }

    /// Asks for the description again where lanes still wait for it: the topic was forgotten while it was described.
    fn ask_again(self: &Arc<Self>) {
        let waits = |shard: usize| {
            let shard = self.lock(shard);
            shard.metadata.is_none() && !shard.listed.is_empty()
        };
        if (0..SHARDS).any(waits) {
            self.request_metadata();
        }
    }

    /// Puts a description in force, and lets the lanes go on that waited for it.
    pub(super) fn apply(self: &Arc<Self>, description: &TopicDescription, source: MetadataSource) {
        let installing = self.applying.lock();
        let before = self.partitions.difference();
        let (metadata, numbers, begins) = self.metadata_of(description, source);
        let refused = (begins && numbers.differ()).then(|| numbers.error(&self.name));
        let mut effects = Vec::new();
        for index in 0..SHARDS {
            let mut fx = Effects::new(self, index);
            let mut shard = self.lock(index);
            shard.metadata = Some(Arc::clone(&metadata));
            for (lane, id) in std::mem::take(&mut shard.listed) {
                if shard.queues.lane(lane, id).is_some() {
                    shard.queues.lanes[lane].listed = false;
                    match &refused {
                        Some(error) if shard.queues.lanes[lane].kind == LaneKind::Keyed => {
                            shard.undescribed(&mut fx, lane, error);
                        }
                        _ => shard.drive(&mut fx, lane),
                    }
                }
            }
            drop(shard);
            effects.push(fx);
        }
        self.partitions.applied();
        drop(installing);
        effects.into_iter().for_each(Effects::settle);
        if numbers.differ() && before != Some(numbers) {
            let PartitionCount { in_force, found } = numbers;
            tracing::warn!(target: "eventbus", topic = %self.name, in_force, found, "the number of partitions has changed");
            self.shared.hooks.emit(&BusEvent::PartitionsChanged { topic: &self.name, in_force, found });
        }
    }

    /// Returns the metadata, the partition counts, and whether this is another topic than before.
    fn metadata_of(
        &self,
        description: &TopicDescription,
        source: MetadataSource,
    ) -> (Arc<TopicMetadata>, PartitionCount, bool) {
        let given = source == MetadataSource::Ensured;
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
        // The same log keeps its partitions and their serial queues, so that records queued in them stay in order.
        let before = described.last.take();
        let partition = |index: usize| {
            let end = description.partitions.get(index).map_or(Position::ZERO, |log| log.end);
            let known = before.as_ref().filter(|_| same).and_then(|metadata| metadata.partitions.get(index));
            let partition = known.map_or_else(|| Partition::new(end), Arc::clone);
            partition.end.fetch_max(end.get(), Ordering::Relaxed);
            partition
        };
        let count = match description.partitions.len() {
            0 => description.spec.partitions.max(1) as usize,
            count => count,
        };
        let found = u32::try_from(count).unwrap_or(u32::MAX);
        let numbers = self.partitions.found(found, !same, source, self.shared.config.partitions);
        let own_window = description.spec.duplicate_window;
        let metadata = Arc::new(TopicMetadata {
            partitions: (0..count).map(partition).collect(),
            keyed: numbers.in_force.min(found),
            incarnation: described.incarnations,
            log: description.incarnation.as_str().into(),
            max_record_bytes: description.max_record_bytes.or(self.shared.max_record_bytes),
            resend_window: self.shared.resend_window.map(|least| usable_window(least, own_window)),
            keyless: AtomicU64::new(before.as_ref().map_or(0, |metadata| metadata.keyless.load(Ordering::Relaxed))),
        });
        described.last = Some(Arc::clone(&metadata));
        (metadata, numbers, !same)
    }

    /// Has the topic described anew before anything more is submitted.
    pub(super) fn forget_metadata(&self) {
        let _installing = self.applying.lock();
        self.described.lock().version += 1;
        self.partitions.forget();
        for shard in 0..SHARDS {
            self.lock(shard).metadata = None;
        }
    }

    /// Refuses the lanes that wait for a topic which cannot be described.
    fn refuse_listed(self: &Arc<Self>, error: &Error) {
        for index in 0..SHARDS {
            self.with(index, |shard, fx| {
                if shard.metadata.is_some() {
                    return;
                }
                for (lane, id) in std::mem::take(&mut shard.listed) {
                    if shard.queues.lane(lane, id).is_some() {
                        shard.queues.lanes[lane].listed = false;
                        shard.undescribed(fx, lane, error);
                    }
                }
            });
        }
    }
}

impl TopicLanes {
    /// Takes a count of the topic's partitions. A new number has the topic described anew.
    pub(super) fn counted(self: &Arc<Self>, found: u32) {
        // The counts are read once, since the topic may be forgotten meanwhile.
        let known = self.partitions.numbers().found;
        if known != 0 && known != found {
            self.request_metadata();
        }
    }

    /// Makes keys go by `partitions` from now on, if the topic has that number. Waits until nothing keyed is on its
    /// way.
    ///
    /// Cancel safe: a difference that was noticed stays noticed.
    pub(super) async fn accept_partitions(self: &Arc<Self>, partitions: u32) -> Result<()> {
        let described = self.shared().backend.describe_topic(self.name()).await?;
        let found = described.spec.partitions;
        if found != partitions {
            let message = format!("expected the number that the topic has, {found}, got {partitions}");
            return Err(Error::new(ErrorKind::TopicMismatch, message).with("setting", "partitions"));
        }
        self.apply(&described, MetadataSource::Looked);
        if self.partitions.difference().is_some() {
            while self.has_keyed() {
                tokio::time::sleep(AGAIN).await;
            }
            self.apply(&described, MetadataSource::Accepted);
        }
        Ok(())
    }

    fn has_keyed(&self) -> bool {
        (0..SHARDS).any(|shard| self.lock(shard).has_keyed())
    }
}

impl Shard {
    /// Refuses the envelopes of a waiting lane, since its topic cannot be described and trying again cannot help.
    fn undescribed(&mut self, fx: &mut Effects<'_>, lane_index: usize, error: &Error) {
        let lane = &self.queues.lanes[lane_index];
        let Some(first) = lane.cursor.filter(|_| lane.state == LaneState::Open) else { return };
        // An envelope that may be in the log is not refused for a missing permission to look at its topic.
        if self.queues.envelopes[first].unknown && error.kind() != ErrorKind::UnknownTopic {
            return self.back_off(fx, lane_index);
        }
        self.refuse(fx, first, error.clone());
        self.drive(fx, lane_index);
    }
}

impl Withdraw for TopicLanes {
    fn withdraw(self: Arc<Self>, ticket: u64) -> Withdrawal {
        let id = TicketId::unpack(ticket);
        self.with(id.shard, |shard, fx| shard.withdraw(fx, id))
    }

    fn last_answer(&self, ticket: u64) -> Option<Error> {
        let id = TicketId::unpack(ticket);
        let shard = self.lock(id.shard);
        let queued = shard.queues.queued(id.index, id.generation)?;
        queued.retry.as_ref().map(|retry| retry.error.clone())
    }
}

impl TicketSink for TopicLanes {
    fn told(self: Arc<Self>, id: u64, fate: Fate) {
        let id = TicketId::unpack(id);
        self.with(id.shard, |shard, fx| shard.told(fx, id, fate));
    }

    fn stands(&self, id: u64) -> bool {
        let id = TicketId::unpack(id);
        self.lock(id.shard).stands(id)
    }
}

impl fmt::Debug for TopicLanes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopicLanes").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Makes the waiter by which an envelope that waits for room is found again.
pub(super) fn waiter(topic: &Arc<TopicLanes>, id: TicketId) -> Ready {
    Ready::Granted(Arc::clone(topic), id)
}
