//! One shard of a topic's lanes: the decisions under its lock.
//!
//! # Invariants
//!
//! - **P1**: number and place in the queue are taken in one critical section, so numbers rise along every queue.
//!   Envelopes leave a queue for the partition's serial queue in queue order: [`Shard::pump`] is the only place that
//!   submits, and its cursor only moves forward, but for a recovery, which moves it to the head.
//! - **P2**: a lane that is not [`LaneState::Open`] submits nothing. An envelope that comes back unstored closes its
//!   lane. The lane opens only when nothing of it is outstanding, at the first envelope whose fate is not known. A
//!   refusal takes everything behind it out of reach of `pump` in the same critical section.
//! - Results leave a queue from its head only, so they are told in the key's order.

use std::sync::Arc;

use super::effects::Effects;
use super::errors::{perhaps_gone, unreadable, withdrawn};
use super::find_stamp::StampOutcome;
use super::metadata::TopicMetadata;
use super::queues::{EnvelopeState, LaneKind, LaneQueues, LaneState, QueuedEnvelope};
use super::topic::TopicLanes;
use crate::backend::{Fate, Outbound, Ticket};
use crate::model::{Envelope, Error, ErrorKind, Key, Position, Receipt, Refusal, Stamp, Withdrawal};
use crate::mutant::Mutant;
use crate::publish::budget::BudgetRequest;
use crate::publish::completion::Completion;
use crate::publish::seal::{Failure, PublishOutcome, RefusalRoot, Sealed, Seals};

/// The place of an envelope: shard, index in the shard's slab, and a generation that tells it from earlier envelopes at
/// this index. Packed into a number, it is the id of a ticket.
#[derive(Debug, Clone, Copy)]
pub(super) struct TicketId {
    pub(super) shard: usize,
    pub(super) index: usize,
    pub(super) generation: u32,
}

impl TicketId {
    pub(super) fn pack(self) -> u64 {
        (self.shard as u64) << 56 | u64::from(self.generation & 0x00ff_ffff) << 32 | self.index as u64 & 0xffff_ffff
    }

    pub(super) fn unpack(id: u64) -> Self {
        Self {
            shard: (id >> 56) as usize,
            index: (id & 0xffff_ffff) as usize,
            generation: (id >> 32) as u32 & 0x00ff_ffff,
        }
    }
}

/// A reference to a lane, which finds it again later if it is still there.
#[derive(Debug, Clone)]
pub(super) struct LaneRef {
    pub(super) topic: Arc<TopicLanes>,
    pub(super) shard: usize,
    pub(super) lane: usize,
    pub(super) id: u64,
}

/// An event to be told outside of the lock, in the order of the decisions.
#[derive(Debug)]
pub(super) enum LaneEvent {
    /// A publish that had a place is over.
    Over { ended: EndedPublish, outcome: PublishOutcome },
    /// A publish failed at the call.
    Failed { stamp: Stamp, envelope: Envelope, error: Error },
    /// A key or the topic was sealed.
    Sealed { key: Option<Key>, error: Error },
}

/// A publish that is over: what it takes to tell its outcome and give back its room.
#[derive(Debug)]
pub(super) struct EndedPublish {
    pub(super) completion: Arc<Completion>,
    pub(super) envelope: Envelope,
    pub(super) admitted: bool,
    pub(super) kind: LaneKind,
    pub(super) request: BudgetRequest,
}

impl EndedPublish {
    fn new(queued: QueuedEnvelope, kind: LaneKind, budget_key: Option<u64>) -> Self {
        let request = BudgetRequest { lane: budget_key, bytes: queued.bytes, ticket: queued.number };
        Self { completion: queued.completion, envelope: queued.envelope, admitted: queued.admitted, kind, request }
    }
}

#[derive(Debug, Default)]
pub(super) struct Shard {
    pub(super) queues: LaneQueues,
    pub(super) seals: Seals,
    pub(super) metadata: Option<Arc<TopicMetadata>>,
    /// Lanes that wait for the topic's description, oldest first.
    pub(super) listed: Vec<(usize, u64)>,
}

impl Shard {
    /// Takes a lane as far as it can go: tells known outcomes and submits what may go.
    pub(super) fn drive(&mut self, fx: &mut Effects<'_>, lane: usize) {
        loop {
            self.tell_known(fx, lane);
            if self.queues.lanes[lane].head.is_none() {
                self.queues.close_if_idle(lane);
                return;
            }
            if !self.pump(fx, lane) {
                return;
            }
        }
    }

    /// Takes envelopes that are over from the head of the queue, and tells their outcomes.
    fn tell_known(&mut self, fx: &mut Effects<'_>, lane: usize) {
        while let Some(head) = self.queues.lanes[lane].head.filter(|head| self.queues.envelopes[*head].is_over()) {
            let (kind, budget_key) = (self.queues.lanes[lane].kind, self.queues.lanes[lane].budget_key());
            let mut queued = self.queues.dequeue(head);
            if let EnvelopeState::Over(outcome) = std::mem::replace(&mut queued.state, EnvelopeState::Waiting) {
                fx.event(LaneEvent::Over { ended: EndedPublish::new(queued, kind, budget_key), outcome });
            }
        }
    }

    /// Submits the envelopes that may go. Returns true where one turned out to be over, so that there is something to
    /// tell.
    fn pump(&mut self, fx: &mut Effects<'_>, lane_index: usize) -> bool {
        if !self.opened(fx, lane_index) {
            return false;
        }
        loop {
            let lane = &mut self.queues.lanes[lane_index];
            let Some(index) = lane.cursor else { return false };
            let queued = &self.queues.envelopes[index];
            if queued.is_over() {
                lane.cursor = queued.behind;
                continue;
            }
            if !queued.admitted || lane.outstanding >= fx.topic.shared().per_key {
                return false;
            }
            let Some(metadata) = self.metadata.clone() else {
                self.list(fx, lane_index);
                return false;
            };
            if !queued.sent
                && let Some(error) = beyond_limit(fx.topic, &metadata, queued.bytes)
            {
                self.refuse(fx, index, error);
                return true;
            }
            if needs_search(queued, &metadata) {
                if lane.head == Some(index) && lane.outstanding == 0 {
                    lane.state = LaneState::FindingStamp;
                    fx.find_stamp(index, queued, &metadata);
                }
                return false;
            }
            if !self.permitted(fx, lane_index) {
                return false;
            }
            self.submit(fx, lane_index, index, &metadata);
        }
    }

    /// Whether the lane may submit now. Opens a draining lane once everything has come back.
    fn opened(&mut self, fx: &mut Effects<'_>, lane_index: usize) -> bool {
        let lane = &mut self.queues.lanes[lane_index];
        match lane.state {
            LaneState::Open => return true,
            LaneState::BackingOff | LaneState::FindingStamp => return false,
            LaneState::Draining if lane.outstanding > 0 => return false,
            LaneState::Draining => {}
        }
        lane.cursor = lane.head;
        lane.state = LaneState::Open;
        if lane.head.is_some_and(|head| self.queues.envelopes[head].returned) {
            self.back_off(fx, lane_index);
            return false;
        }
        true
    }

    /// Closes the lane for a back-off, after which it goes on at its head.
    pub(super) fn back_off(&mut self, fx: &mut Effects<'_>, lane_index: usize) {
        let lane = &mut self.queues.lanes[lane_index];
        lane.state = LaneState::BackingOff;
        lane.attempt = lane.attempt.saturating_add(1);
        let (id, attempt) = (lane.id, lane.attempt);
        fx.back_off(lane_index, id, attempt);
    }

    /// Lists the lane as waiting for the topic's description, and asks for the description.
    fn list(&mut self, fx: &mut Effects<'_>, lane_index: usize) {
        let lane = &mut self.queues.lanes[lane_index];
        if !lane.listed {
            lane.listed = true;
            self.listed.push((lane_index, lane.id));
        }
        fx.topic.request_metadata();
    }

    /// Takes a permit, or puts the lane in line for one.
    fn permitted(&mut self, fx: &mut Effects<'_>, lane_index: usize) -> bool {
        if fx.permit_in_hand {
            fx.permit_in_hand = false;
            return true;
        }
        let lane = &mut self.queues.lanes[lane_index];
        if lane.in_line {
            return false;
        }
        let waiter = || LaneRef { topic: Arc::clone(fx.topic), shard: fx.shard, lane: lane_index, id: lane.id };
        let permitted = fx.topic.shared().permits(lane.kind).acquire(waiter);
        lane.in_line = !permitted;
        permitted
    }

    fn submit(&mut self, fx: &mut Effects<'_>, lane_index: usize, index: usize, metadata: &TopicMetadata) {
        let queued = &mut self.queues.envelopes[index];
        let lane = &mut self.queues.lanes[lane_index];
        if !queued.sent || queued.incarnation != metadata.incarnation {
            let one = fx.topic.shared().seam.is(Mutant::OnePartition);
            queued.partition = if one { 0 } else { metadata.partition_of(queued.envelope.key()) };
            queued.from = if queued.sent { Position::ZERO } else { metadata.partition(queued.partition).end() };
            queued.incarnation = metadata.incarnation;
        }
        if queued.first_sent.is_none() && metadata.resend_window.is_some() {
            queued.first_sent = Some(fx.now());
        }
        queued.sent = true;
        queued.returned = false;
        queued.state = EnvelopeState::Outstanding { doomed: None };
        lane.outstanding += 1;
        lane.cursor = queued.behind;
        let id = TicketId { shard: fx.shard, index, generation: queued.generation };
        let ticket = Ticket::new(Arc::clone(fx.topic) as _, id.pack());
        let record = Outbound::new(
            fx.topic.name().clone(),
            queued.partition,
            queued.completion.stamp(),
            queued.envelope.clone(),
        );
        fx.submit(metadata.partition(queued.partition), record, ticket);
    }

    /// Whether the record submitted under this ticket may still be stored. See [`Ticket::stands`].
    pub(super) fn stands(&self, id: TicketId) -> bool {
        self.queues.queued(id.index, id.generation).is_some_and(|queued| {
            matches!(queued.state, EnvelopeState::Outstanding { doomed: None })
                && (self.queues.lanes[queued.lane].state == LaneState::Open || !self.queues.follows_returned(id.index))
        })
    }

    /// Takes the fate of an envelope. Does nothing where the envelope is over already, because the bus was closed.
    pub(super) fn told(&mut self, fx: &mut Effects<'_>, id: TicketId, fate: Fate) {
        let index = id.index;
        let Some(lane_index) = self.queues.queued(index, id.generation).map(|queued| queued.lane) else { return };
        let queued = &mut self.queues.envelopes[index];
        let EnvelopeState::Outstanding { doomed } = std::mem::replace(&mut queued.state, EnvelopeState::Waiting) else {
            return;
        };
        let lane = &mut self.queues.lanes[lane_index];
        lane.outstanding -= 1;
        // Released before the lane looks for its next envelope, so that lanes in line come first.
        fx.release_permit(lane.kind);
        match (fate, doomed) {
            (Fate::Stored { position, duplicate }, doomed) => self.stored(fx, index, position, duplicate, doomed),
            (Fate::NotStored(_) | Fate::Refused(_) | Fate::Doubtful(_) | Fate::Unknown(_), Some(root)) => {
                queued.state = EnvelopeState::Over(Err(Failure::cascaded(fx.topic.name(), &root)));
            }
            (Fate::NotStored(error), None) => self.returned(fx, index, &error, false),
            (Fate::Unknown(error), None) if fx.topic.shared().seam.is(Mutant::UnknownGivenUp) => {
                queued.state = EnvelopeState::Over(Err(Failure::plain(error)));
            }
            (Fate::Unknown(error), None) => self.returned(fx, index, &error, true),
            (Fate::Refused(error), None) if !queued.unknown => {
                fx.stale_metadata(&error);
                self.refuse(fx, index, error);
            }
            (Fate::Refused(error) | Fate::Doubtful(error), None) => {
                self.returned(fx, index, &error, true);
                self.queues.envelopes[index].refused = Some(error);
            }
        }
        self.drive(fx, lane_index);
    }

    fn stored(
        &mut self,
        fx: &Effects<'_>,
        index: usize,
        position: Position,
        duplicate: bool,
        doomed: Option<Arc<RefusalRoot>>,
    ) {
        let queued = &self.queues.envelopes[index];
        let lane = &self.queues.lanes[queued.lane];
        if doomed.is_some()
            || (lane.state == LaneState::Draining && !queued.unknown && self.queues.follows_returned(index))
        {
            tracing::error!(
                topic = %fx.topic.name(), stamp = %queued.completion.stamp(), partition = queued.partition, %position,
                "the backend stored an envelope behind one of its key that it had not stored: order is broken (P2)"
            );
        }
        if let Some(metadata) = self.metadata.as_ref().filter(|metadata| metadata.incarnation == queued.incarnation) {
            metadata.partition(queued.partition).saw(position);
        }
        self.confirm(fx, index, position, duplicate);
    }

    fn confirm(&mut self, fx: &Effects<'_>, index: usize, position: Position, duplicate: bool) {
        let queued = &mut self.queues.envelopes[index];
        let receipt = Receipt::new(fx.topic.name().clone(), queued.partition, position, queued.completion.stamp());
        queued.state = EnvelopeState::Over(Ok(receipt.duplicate(duplicate)));
        self.queues.lanes[queued.lane].attempt = 0;
    }

    fn returned(&mut self, fx: &mut Effects<'_>, index: usize, error: &Error, unknown: bool) {
        tracing::debug!(topic = %fx.topic.name(), %error, unknown, "an envelope is to be sent again");
        fx.stale_metadata(error);
        let (queued, now) = (&mut self.queues.envelopes[index], fx.now());
        queued.failed(now, error);
        queued.returned = true;
        queued.unknown |= unknown;
        self.queues.lanes[queued.lane].state = LaneState::Draining;
    }

    /// Ends an envelope and everything of its key behind it (P2).
    pub(super) fn refuse(&mut self, fx: &mut Effects<'_>, index: usize, error: Error) {
        let queued = &mut self.queues.envelopes[index];
        let lane = &mut self.queues.lanes[queued.lane];
        let failure = fail(fx.topic, lane.key(), queued.completion.stamp(), &queued.envelope, error);
        lane.state = LaneState::Draining;
        queued.state = EnvelopeState::Over(Err(failure.clone()));
        let (kind, mut behind) = (lane.kind, queued.behind);
        let key = lane.key().cloned();
        let Some(root) = &failure.root else { return };
        let seam = fx.topic.shared().seam;
        while let Some(later) = behind.filter(|_| !seam.is(Mutant::NoCascade)) {
            let queued = &mut self.queues.envelopes[later];
            behind = queued.behind;
            match &mut queued.state {
                EnvelopeState::Outstanding { doomed } => *doomed = Some(Arc::clone(root)),
                EnvelopeState::Waiting => {
                    queued.state = EnvelopeState::Over(Err(Failure::cascaded(fx.topic.name(), root)))
                }
                EnvelopeState::Over(_) => {}
            }
        }
        if let (LaneKind::Keyed, Some(key)) = (kind, key.filter(|_| !seam.is(Mutant::NoSeal))) {
            self.seal(fx, &key, &failure);
        }
    }

    /// Seals a key by a refusal, under the topic's policy.
    pub(super) fn seal(&mut self, fx: &mut Effects<'_>, key: &Key, failure: &Failure) {
        let Some(root) = &failure.root else { return };
        let sealed = self.seals.seal(&fx.topic.seal, fx.topic.policy(), key, root);
        let key = match sealed {
            Sealed::Key => Some(key.clone()),
            Sealed::Topic => None,
            Sealed::Nothing => return,
        };
        fx.event(LaneEvent::Sealed { key, error: failure.error.clone() });
    }

    /// Takes the answer of the search for an envelope's stamp.
    pub(super) fn searched(&mut self, fx: &mut Effects<'_>, id: TicketId, found: Result<StampOutcome, Error>) {
        let Some(lane_index) = self.queues.queued(id.index, id.generation).map(|queued| queued.lane) else { return };
        let queued = &mut self.queues.envelopes[id.index];
        self.queues.lanes[lane_index].state = LaneState::Open;
        match found {
            Ok(StampOutcome::At(position)) => self.confirm(fx, id.index, position, true),
            Ok(told @ (StampOutcome::Absent | StampOutcome::Untold)) => {
                // The stamp is not there, so the next send is as good as a first one.
                (queued.unknown, queued.first_sent) = (false, None);
                if let Some(error) = queued.refused.take() {
                    let error = if told == StampOutcome::Untold { perhaps_gone(error) } else { error };
                    self.refuse(fx, id.index, error);
                }
            }
            Err(error) if error.kind() == ErrorKind::UnknownTopic => {
                fx.stale_metadata(&error);
                self.refuse(fx, id.index, error);
            }
            Err(error) => {
                tracing::debug!(topic = %fx.topic.name(), %error, "the log could not be read for a stamp");
                let now = fx.now();
                queued.failed(now, &error);
                fx.stale_metadata(&error);
                let late = queued.is_late(now, fx.topic.notices.after());
                match unreadable(queued, error).filter(|_| late) {
                    Some(error) => self.refuse(fx, id.index, error),
                    None => self.back_off(fx, lane_index),
                }
            }
        }
        self.drive(fx, lane_index);
    }

    /// Lets a lane go on whose back-off is over.
    pub(super) fn backed_off(&mut self, fx: &mut Effects<'_>, lane_index: usize, id: u64) {
        if self.queues.lane(lane_index, id).is_some_and(|lane| lane.state == LaneState::BackingOff) {
            let lane = &mut self.queues.lanes[lane_index];
            (lane.state, lane.cursor) = (LaneState::Open, lane.head);
            self.drive(fx, lane_index);
        }
    }

    /// Withdraws an envelope that was never submitted, or came back and is certainly not stored.
    pub(super) fn withdraw(&mut self, fx: &mut Effects<'_>, id: TicketId) -> Withdrawal {
        let Some(queued) = self.queues.queued(id.index, id.generation) else { return Withdrawal::TooLate };
        let lane_index = queued.lane;
        let lane = &self.queues.lanes[lane_index];
        // Behind one that came back, later envelopes of the key may be on their way: they were submitted before the
        // withdrawal, and may not be stored behind the hole.
        let back = queued.returned && !queued.perhaps_stored() && lane.outstanding == 0;
        if !matches!(queued.state, EnvelopeState::Waiting) || (queued.sent && !back) {
            return Withdrawal::TooLate;
        }
        let (kind, budget_key) = (lane.kind, lane.budget_key());
        let error = withdrawn(fx.topic.name(), queued);
        let queued = self.queues.dequeue(id.index);
        let outcome = Err(Failure::plain(error));
        fx.event(LaneEvent::Over { ended: EndedPublish::new(queued, kind, budget_key), outcome });
        self.drive(fx, lane_index);
        Withdrawal::Withdrawn
    }

    /// Ends all envelopes, because the bus is closed. Returns how many were not over.
    pub(super) fn abandon(&mut self, fx: &mut Effects<'_>) -> usize {
        let mut abandoned = 0;
        let lanes: Vec<usize> = self.queues.lanes.iter().map(|(index, _)| index).collect();
        for lane_index in lanes {
            let mut next = self.queues.lanes[lane_index].head;
            while let Some(index) = next {
                let queued = &mut self.queues.envelopes[index];
                next = queued.behind;
                if !queued.is_over() {
                    abandoned += 1;
                    queued.state = EnvelopeState::Over(Err(closed(fx.topic, queued)));
                }
            }
            self.tell_known(fx, lane_index);
            self.queues.close_if_idle(lane_index);
        }
        self.listed = Vec::new();
        abandoned
    }

    /// Whether an envelope with a key is on its way.
    pub(super) fn has_keyed(&self) -> bool {
        self.queues.lanes.iter().any(|(_, lane)| lane.kind == LaneKind::Keyed)
    }
}

/// Whether the log has to be read before this envelope is sent again (P3).
fn needs_search(queued: &QueuedEnvelope, metadata: &TopicMetadata) -> bool {
    if queued.refused.is_some() {
        return true;
    }
    let Some(window) = metadata.resend_window.filter(|_| queued.unknown) else { return false };
    queued.first_sent.is_none_or(|first| first.elapsed() >= window)
}

/// Returns the failure of a refused publish, whose error names the publish itself.
pub(super) fn fail(topic: &TopicLanes, key: Option<&Key>, stamp: Stamp, envelope: &Envelope, error: Error) -> Failure {
    let error = error.about("topic", topic.name());
    let error = if let Some(key) = key { error.about("key", key) } else { error };
    Failure::refused(error, Refusal::new(stamp, envelope.id()))
}

/// Returns the error of an envelope that is larger than the topic takes, as it was described last. The limit may have
/// been raised since, and must not refuse for ever: the topic is described anew.
pub(super) fn beyond_limit(topic: &Arc<TopicLanes>, metadata: &TopicMetadata, bytes: usize) -> Option<Error> {
    let most = metadata.max_record_bytes.filter(|most| bytes > *most)?;
    topic.request_metadata();
    Some(too_large(bytes, most))
}

pub(super) fn too_large(bytes: usize, most: usize) -> Error {
    Error::new(ErrorKind::TooLarge, format!("the envelope has {bytes} bytes, expected at most {most}"))
}

fn closed(topic: &TopicLanes, queued: &QueuedEnvelope) -> Failure {
    let last = queued.retry.as_ref().map(|retry| format!("; the last answer: {}", retry.error)).unwrap_or_default();
    if queued.perhaps_stored() {
        let message = format!("the bus was closed before the broker answered; the envelope may be stored{last}");
        return Failure::plain(Error::new(ErrorKind::Unknown, message).with("topic", topic.name()));
    }
    let error = Error::new(ErrorKind::Closed, format!("the bus was closed before the envelope was stored{last}"));
    fail(topic, queued.envelope.key(), queued.completion.stamp(), &queued.envelope, error)
}
