//! A publish at its call: number, seal, place, budget.

use std::hash::BuildHasher;
use std::sync::Arc;

use super::effects::Effects;
use super::queues::{Hashed, LaneKind, QueuedEnvelope};
use super::shard::{LaneEvent, Shard, TicketId, beyond_limit, fail, too_large};
use super::shared::Lifecycle;
use super::topic::{SHARDS, TopicLanes, waiter};
use crate::model::{Envelope, Error, ErrorKind, Stamp};
use crate::publish::budget::{Admission, BudgetRequest};
use crate::publish::completion::Completion;
use crate::publish::seal::Failure;

/// One envelope on its way into a shard.
pub(super) struct Call<'a> {
    pub(super) kind: LaneKind,
    pub(super) key: Option<Hashed<'a>>,
    pub(super) bytes: usize,
    pub(super) number: u64,
    pub(super) stamp: Stamp,
    pub(super) envelope: &'a Envelope,
}

impl TopicLanes {
    pub(super) fn publish(self: &Arc<Self>, envelope: Envelope) -> Result<Arc<Completion>, Failure> {
        let shared = self.shared();
        let bytes = envelope.size();
        let key = envelope.key().map(|key| Hashed { hash: shared.hasher.hash_one(key), key });
        let (shard, kind, taken) = match key {
            Some(hashed) => (Self::shard_of(hashed.key), LaneKind::Keyed, None),
            None => {
                let number = shared.numbers(1);
                (number as usize % SHARDS, LaneKind::Free, Some(number))
            }
        };
        self.with(shard, |shard, fx| {
            let number = taken.unwrap_or_else(|| shared.numbers(1));
            let stamp = shared.stamp(number);
            let entry = Call { kind, key, bytes, number, stamp, envelope: &envelope };
            let entered = shard.turned_away(fx, &entry).map_or_else(|| shard.admit(fx, &entry), Err);
            entered.inspect_err(|failure| shard.failed_at_call(fx, &entry, failure))
        })
    }

    pub(super) fn publish_reserved(
        self: &Arc<Self>,
        stamp: Stamp,
        envelope: Envelope,
    ) -> Result<Arc<Completion>, Failure> {
        let shared = self.shared();
        let (bytes, number) = (envelope.size(), shared.numbers(1));
        self.with(number as usize % SHARDS, |shard, fx| {
            let entry = Call { kind: LaneKind::Reserved, key: None, bytes, number, stamp, envelope: &envelope };
            shard.turned_away(fx, &entry).map_or_else(|| shard.admit(fx, &entry), Err)
        })
    }
}

impl Shard {
    /// Returns the failure of a publish that may take no place: the bus is closed, the key is sealed, the partitions
    /// have changed, or the envelope is too large.
    pub(super) fn turned_away(&mut self, fx: &Effects<'_>, entry: &Call<'_>) -> Option<Failure> {
        let topic = fx.topic;
        let last = if entry.kind == LaneKind::Reserved { Lifecycle::Closing } else { Lifecycle::Open };
        if topic.shared().lifecycle() > last {
            return Some(entry.refused(topic, Error::new(ErrorKind::Closed, "the bus is closed")));
        }
        if let Some(hashed) = entry.key
            && let Some(failure) = self.seals.check(topic.name(), &topic.seal, topic.policy(), hashed.key)
        {
            return Some(failure);
        }
        if entry.key.is_some()
            && let Some(numbers) = topic.partitions.difference()
        {
            return Some(entry.refused(topic, numbers.error(topic.name())));
        }
        let metadata = self.metadata.as_deref()?;
        beyond_limit(topic, metadata, entry.bytes).map(|error| entry.refused(topic, error))
    }

    /// Asks for budget and takes a place. Where the budget refuses, nothing is left behind.
    fn admit(&mut self, fx: &mut Effects<'_>, entry: &Call<'_>) -> Result<Arc<Completion>, Failure> {
        let (topic, shared) = (fx.topic, fx.topic.shared());
        let lane = self.queues.lane_of(entry.key, entry.kind, entry.number);
        let (index, generation) = self.queues.next_ticket_id();
        // A grant that comes meanwhile looks for its envelope under this shard's lock, and so not before the place is
        // taken.
        let id = TicketId { shard: fx.shard, index, generation };
        let request =
            BudgetRequest { lane: self.queues.lanes[lane].budget_key(), bytes: entry.bytes, ticket: entry.number };
        let admitted = match shared.budget(entry.kind).admit(request, || waiter(topic, id)) {
            Admission::Granted => true,
            Admission::Waiting => false,
            refused => {
                self.queues.close_if_idle(lane);
                return Err(entry.no_room(topic, refused));
            }
        };
        let completion = self.enqueue(fx, entry, lane, admitted);
        if admitted {
            self.drive(fx, lane);
        }
        Ok(completion)
    }

    /// Puts an envelope at the end of its key's queue, not admitted yet. Returns its lane and its index.
    pub(super) fn enter(&mut self, fx: &mut Effects<'_>, entry: &Call<'_>) -> (usize, usize) {
        let lane = self.queues.lane_of(entry.key, entry.kind, entry.number);
        let (index, _) = self.queues.next_ticket_id();
        self.enqueue(fx, entry, lane, false);
        (lane, index)
    }

    /// Puts an envelope in the next place, at the end of a lane.
    fn enqueue(&mut self, fx: &mut Effects<'_>, entry: &Call<'_>, lane: usize, admitted: bool) -> Arc<Completion> {
        let (index, generation) = self.queues.next_ticket_id();
        let id = TicketId { shard: fx.shard, index, generation }.pack();
        let completion = Completion::new(Arc::clone(fx.topic) as _, id, entry.stamp, admitted, fx.now());
        let queued =
            QueuedEnvelope::new(Arc::clone(&completion), entry.envelope.clone(), entry.bytes, entry.number, admitted);
        fx.topic.shared().one_more();
        self.queues.enqueue(lane, queued);
        completion
    }

    /// Undoes [`enter`](Self::enter).
    pub(super) fn leave(&mut self, fx: &Effects<'_>, lane: usize, index: usize) {
        drop(self.queues.dequeue(index));
        self.queues.close_if_idle(lane);
        fx.topic.shared().one_less();
    }

    /// Tells that a publish failed at the call, and seals its key by the failure.
    pub(super) fn failed_at_call(&mut self, fx: &mut Effects<'_>, entry: &Call<'_>, failure: &Failure) {
        self.told_failed(fx, entry, failure);
        self.sealed_by(fx, entry, failure);
    }

    pub(super) fn told_failed(&mut self, fx: &mut Effects<'_>, entry: &Call<'_>, failure: &Failure) {
        let (stamp, envelope, error) = (entry.stamp, entry.envelope.clone(), failure.error.clone());
        fx.event(LaneEvent::Failed { stamp, envelope, error });
    }

    /// Seals the key by a failure at the call. Two failures seal nothing: a seal's own error, and that of a closed bus,
    /// which publishes nothing more that could overtake.
    pub(super) fn sealed_by(&mut self, fx: &mut Effects<'_>, entry: &Call<'_>, failure: &Failure) {
        let seals = !matches!(failure.error.kind(), ErrorKind::KeySealed | ErrorKind::Closed);
        if let Some(hashed) = entry.key.filter(|_| seals) {
            self.seal(fx, hashed.key, failure);
        }
    }
}

impl Call<'_> {
    pub(super) fn refused(&self, topic: &TopicLanes, error: Error) -> Failure {
        fail(topic, self.envelope.key(), self.stamp, self.envelope, error)
    }

    pub(super) fn no_room(&self, topic: &TopicLanes, admission: Admission) -> Failure {
        let error = match admission {
            Admission::TooLarge => too_large(self.bytes, topic.shared().config.budget_bytes),
            _ => {
                let limit = topic.shared().config.waiting_limit;
                Error::new(ErrorKind::Overloaded, format!("as many envelopes wait for room as may, {limit}"))
            }
        };
        self.refused(topic, error)
    }
}
