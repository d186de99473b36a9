//! One shard of a topic's lanes: what is decided under its lock.
//!
//! # Invariants
//!
//! - **P1**: number and place in the queue are taken in one critical section, so numbers rise along every queue; envelopes
//!   leave a queue for the partition's turn in queue order ([`Shard::pump`] is the only place that submits, and its cursor
//!   only moves forward, but for a recovery, which moves it to the head).
//! - **P2**: a lane that is not [`Hold::Open`] submits nothing. An envelope that comes back unstored closes it, and it opens
//!   only when nothing of it is outstanding, at the first envelope whose fate is not known. A refusal takes everything
//!   behind it out of reach of `pump` in the same critical section.
//! - Results leave a queue from its head only, so they are told in the key's order.

use std::sync::Arc;

use super::effects::Effects;
use super::find_stamp::Found;
use super::metadata::Facts;
use super::queues::{Hold, Kind, Node, State, Store};
use super::topic::TopicLanes;
use crate::backend::{Fate, Outbound, Ticket};
use crate::model::{Envelope, Error, ErrorKind, Key, Position, Receipt, Refusal, Stamp, Withdrawal};
use crate::mutant::Mutant;
use crate::publish::budget::BudgetRequest;
use crate::publish::completion::Slot;
use crate::publish::seal::{Failure, Outcome, Root, Sealed, Seals};

/// Where an envelope is: shard, index in its slab, and a generation that tells it from others that were there.
/// Packed into a number, it is the id of tickets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) shard: usize,
    pub(super) index: usize,
    pub(super) generation: u32,
}

impl Place {
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

/// A lane, to be found again later if it is still there.
#[derive(Debug, Clone)]
pub(super) struct LaneRef {
    pub(super) topic: Arc<TopicLanes>,
    pub(super) shard: usize,
    pub(super) lane: usize,
    pub(super) id: u64,
}

/// What is told outside of the lock, in this order.
#[derive(Debug)]
pub(super) enum Event {
    /// A publish that had a place is over.
    Over { ended: Ended, outcome: Outcome },
    /// A publish failed at the call.
    Failed { stamp: Stamp, envelope: Envelope, error: Error },
    /// A key or the topic was sealed.
    Sealed { key: Option<Key>, error: Error },
}

/// What is left of a publish that is over.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) slot: Arc<Slot>,
    pub(super) envelope: Envelope,
    pub(super) admitted: bool,
    pub(super) kind: Kind,
    pub(super) request: BudgetRequest,
}

impl Ended {
    fn new(node: Node, kind: Kind, budget_key: Option<u64>) -> Self {
        let request = BudgetRequest { lane: budget_key, bytes: node.bytes, ticket: node.number };
        Self { slot: node.slot, envelope: node.envelope, admitted: node.admitted, kind, request }
    }
}

#[derive(Debug, Default)]
pub(super) struct Shard {
    pub(super) store: Store,
    pub(super) seals: Seals,
    pub(super) facts: Option<Arc<Facts>>,
    /// Lanes that wait for the topic to be described, oldest first.
    pub(super) listed: Vec<(usize, u64)>,
}

impl Shard {
    /// Brings a lane as far as it can go.
    pub(super) fn drive(&mut self, fx: &mut Effects<'_>, lane: usize) {
        loop {
            self.tell_known(fx, lane);
            if self.store.lanes[lane].head.is_none() {
                self.store.close_if_idle(lane);
                return;
            }
            if !self.pump(fx, lane) {
                return;
            }
        }
    }

    /// Takes what is over from the head of the queue.
    fn tell_known(&mut self, fx: &mut Effects<'_>, lane: usize) {
        while let Some(head) = self.store.lanes[lane].head.filter(|head| self.store.nodes[*head].is_over()) {
            let (kind, budget_key) = (self.store.lanes[lane].kind, self.store.lanes[lane].budget_key());
            let mut node = self.store.dequeue(head);
            if let State::Over(outcome) = std::mem::replace(&mut node.state, State::Waiting) {
                fx.event(Event::Over { ended: Ended::new(node, kind, budget_key), outcome });
            }
        }
    }

    /// Submits what may go. True where an envelope turned out to be over, so that there is something to tell.
    fn pump(&mut self, fx: &mut Effects<'_>, lane_index: usize) -> bool {
        if !self.opened(fx, lane_index) {
            return false;
        }
        loop {
            let lane = &mut self.store.lanes[lane_index];
            let Some(index) = lane.cursor else { return false };
            let node = &self.store.nodes[index];
            if node.is_over() {
                lane.cursor = node.behind;
                continue;
            }
            if !node.admitted || lane.outstanding >= fx.topic.engine().per_key {
                return false;
            }
            let Some(facts) = self.facts.clone() else {
                self.list(fx, lane_index);
                return false;
            };
            if !node.sent && facts.max_record_bytes.is_some_and(|most| node.bytes > most) {
                let error = too_large(fx.topic, node.bytes, facts.max_record_bytes);
                self.refuse(fx, index, error);
                return true;
            }
            if needs_look(node, &facts) {
                if lane.head == Some(index) && lane.outstanding == 0 {
                    lane.hold = Hold::Looking;
                    fx.find_stamp(index, node, &facts);
                }
                return false;
            }
            if !self.permitted(fx, lane_index) {
                return false;
            }
            self.submit(fx, lane_index, index, &facts);
        }
    }

    /// Whether the lane may submit now. Ends a drain when everything has come back.
    fn opened(&mut self, fx: &mut Effects<'_>, lane_index: usize) -> bool {
        let lane = &mut self.store.lanes[lane_index];
        match lane.hold {
            Hold::Open => return true,
            Hold::Resting | Hold::Looking => return false,
            Hold::Draining if lane.outstanding > 0 => return false,
            Hold::Draining => {}
        }
        lane.cursor = lane.head;
        lane.hold = Hold::Open;
        if lane.head.is_some_and(|head| self.store.nodes[head].returned) {
            self.rest(fx, lane_index);
            return false;
        }
        true
    }

    /// Lets some time pass before the lane goes on at its head.
    pub(super) fn rest(&mut self, fx: &mut Effects<'_>, lane_index: usize) {
        let lane = &mut self.store.lanes[lane_index];
        lane.hold = Hold::Resting;
        lane.attempt = lane.attempt.saturating_add(1);
        let (id, attempt) = (lane.id, lane.attempt);
        fx.rest(lane_index, id, attempt);
    }

    /// Has the lane wait until the topic is described.
    fn list(&mut self, fx: &mut Effects<'_>, lane_index: usize) {
        let lane = &mut self.store.lanes[lane_index];
        if !lane.listed {
            lane.listed = true;
            self.listed.push((lane_index, lane.id));
        }
        fx.topic.need_facts();
    }

    /// Takes a permit, or puts the lane in line for one.
    fn permitted(&mut self, fx: &mut Effects<'_>, lane_index: usize) -> bool {
        if fx.permit_in_hand {
            fx.permit_in_hand = false;
            return true;
        }
        let lane = &mut self.store.lanes[lane_index];
        if lane.in_line {
            return false;
        }
        let waiter = || LaneRef { topic: Arc::clone(fx.topic), shard: fx.shard, lane: lane_index, id: lane.id };
        let permitted = fx.topic.engine().permits(lane.kind).acquire(waiter);
        lane.in_line = !permitted;
        permitted
    }

    fn submit(&mut self, fx: &mut Effects<'_>, lane_index: usize, index: usize, facts: &Facts) {
        let node = &mut self.store.nodes[index];
        let lane = &mut self.store.lanes[lane_index];
        if !node.sent || node.incarnation != facts.incarnation {
            let one = fx.topic.engine().seam.is(Mutant::OnePartition);
            node.partition = if one { 0 } else { facts.partition_of(node.envelope.key()) };
            node.from = if node.sent { Position::ZERO } else { facts.partition(node.partition).end() };
            node.incarnation = facts.incarnation;
        }
        if node.first_sent.is_none() && facts.resend_window.is_some() {
            node.first_sent = Some(fx.now());
        }
        node.sent = true;
        node.returned = false;
        node.state = State::Outstanding { doomed: None };
        lane.outstanding += 1;
        lane.cursor = node.behind;
        let place = Place { shard: fx.shard, index, generation: node.generation };
        let ticket = Ticket::new(Arc::clone(fx.topic) as _, place.pack());
        let record = Outbound::new(fx.topic.name().clone(), node.partition, node.slot.stamp(), node.envelope.clone());
        fx.submit(facts.partition(node.partition), record, ticket);
    }

    /// Whether what was submitted under this ticket may still be stored. See [`Ticket::stands`].
    pub(super) fn stands(&self, place: Place) -> bool {
        self.store.node(place.index, place.generation).is_some_and(|node| {
            matches!(node.state, State::Outstanding { doomed: None })
                && (self.store.lanes[node.lane].hold == Hold::Open || !self.store.follows_returned(place.index))
        })
    }

    /// A fate came. Nothing happens where the envelope is over already, because the bus was closed.
    pub(super) fn told(&mut self, fx: &mut Effects<'_>, place: Place, fate: Fate) {
        let index = place.index;
        let Some(lane_index) = self.store.node(index, place.generation).map(|node| node.lane) else { return };
        let node = &mut self.store.nodes[index];
        let State::Outstanding { doomed } = std::mem::replace(&mut node.state, State::Waiting) else { return };
        let lane = &mut self.store.lanes[lane_index];
        lane.outstanding -= 1;
        // Before the lane looks for its next one, so that who stands in line comes first.
        fx.release_permit(lane.kind);
        match (fate, doomed) {
            (Fate::Stored { position, duplicate }, doomed) => self.stored(fx, index, position, duplicate, doomed),
            (Fate::NotStored(_) | Fate::Refused(_) | Fate::Unknown(_), Some(root)) => {
                node.state = State::Over(Err(Failure::cascaded(fx.topic.name(), &root)));
            }
            (Fate::NotStored(error), None) => self.returned(fx, index, &error, false),
            (Fate::Unknown(error), None) if fx.topic.engine().seam.is(Mutant::UnknownGivenUp) => {
                node.state = State::Over(Err(Failure::plain(error)));
            }
            (Fate::Unknown(error), None) => self.returned(fx, index, &error, true),
            (Fate::Refused(error), None) if node.unknown => {
                fx.stale_facts(&error);
                node.refused = Some(error);
                node.returned = true;
                self.store.lanes[lane_index].hold = Hold::Draining;
            }
            (Fate::Refused(error), None) => {
                fx.stale_facts(&error);
                self.refuse(fx, index, error);
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
        doomed: Option<Arc<Root>>,
    ) {
        let node = &self.store.nodes[index];
        let lane = &self.store.lanes[node.lane];
        if doomed.is_some() || (lane.hold == Hold::Draining && !node.unknown && self.store.follows_returned(index)) {
            tracing::error!(
                topic = %fx.topic.name(), stamp = %node.slot.stamp(), partition = node.partition, %position,
                "the backend stored an envelope behind one of its key that it had not stored: order is broken (P2)"
            );
        }
        if let Some(facts) = self.facts.as_ref().filter(|facts| facts.incarnation == node.incarnation) {
            facts.partition(node.partition).saw(position);
        }
        self.confirm(fx, index, position, duplicate);
    }

    fn confirm(&mut self, fx: &Effects<'_>, index: usize, position: Position, duplicate: bool) {
        let node = &mut self.store.nodes[index];
        let receipt = Receipt::new(fx.topic.name().clone(), node.partition, position, node.slot.stamp());
        node.state = State::Over(Ok(receipt.duplicate(duplicate)));
        self.store.lanes[node.lane].attempt = 0;
    }

    fn returned(&mut self, fx: &mut Effects<'_>, index: usize, error: &Error, unknown: bool) {
        tracing::debug!(topic = %fx.topic.name(), %error, unknown, "an envelope is to be sent again");
        fx.stale_facts(error);
        let node = &mut self.store.nodes[index];
        node.returned = true;
        node.unknown |= unknown;
        self.store.lanes[node.lane].hold = Hold::Draining;
    }

    /// Ends an envelope and everything of its key behind it (P2).
    pub(super) fn refuse(&mut self, fx: &mut Effects<'_>, index: usize, error: Error) {
        let node = &mut self.store.nodes[index];
        let lane = &mut self.store.lanes[node.lane];
        let failure = fail(fx.topic, lane.key(), node.slot.stamp(), &node.envelope, error);
        lane.hold = Hold::Draining;
        node.state = State::Over(Err(failure.clone()));
        let (kind, mut behind) = (lane.kind, node.behind);
        let key = lane.key().cloned();
        let Some(root) = &failure.root else { return };
        let seam = fx.topic.engine().seam;
        while let Some(later) = behind.filter(|_| !seam.is(Mutant::NoCascade)) {
            let node = &mut self.store.nodes[later];
            behind = node.behind;
            match &mut node.state {
                State::Outstanding { doomed } => *doomed = Some(Arc::clone(root)),
                State::Waiting => node.state = State::Over(Err(Failure::cascaded(fx.topic.name(), root))),
                State::Over(_) => {}
            }
        }
        if let (Kind::Keyed, Some(key)) = (kind, key.filter(|_| !seam.is(Mutant::NoSeal))) {
            self.seal(fx, &key, &failure);
        }
    }

    /// Seals a key by a refusal, as its topic wants it.
    pub(super) fn seal(&mut self, fx: &mut Effects<'_>, key: &Key, failure: &Failure) {
        let Some(root) = &failure.root else { return };
        let sealed = self.seals.seal(&fx.topic.seal, fx.topic.policy(), key, root);
        let key = match sealed {
            Sealed::Key => Some(key.clone()),
            Sealed::Topic => None,
            Sealed::Nothing => return,
        };
        fx.event(Event::Sealed { key, error: failure.error.clone() });
    }

    /// The log was read for an envelope's stamp.
    pub(super) fn searched(&mut self, fx: &mut Effects<'_>, place: Place, found: Result<Found, Error>) {
        let Some(lane_index) = self.store.node(place.index, place.generation).map(|node| node.lane) else { return };
        let node = &mut self.store.nodes[place.index];
        self.store.lanes[lane_index].hold = Hold::Open;
        match found {
            Ok(Found::At(position)) => self.confirm(fx, place.index, position, true),
            Ok(told @ (Found::Absent | Found::Untold)) => {
                // It is not there, so what comes now is as good as a first send.
                (node.unknown, node.first_sent) = (false, None);
                if let Some(error) = node.refused.take() {
                    let error = if told == Found::Untold { perhaps_gone(error) } else { error };
                    self.refuse(fx, place.index, error);
                }
            }
            Err(error) if error.kind() == ErrorKind::UnknownTopic => {
                fx.stale_facts(&error);
                self.refuse(fx, place.index, error);
            }
            Err(error) => {
                tracing::debug!(topic = %fx.topic.name(), %error, "the log could not be read for a stamp");
                fx.stale_facts(&error);
                self.rest(fx, lane_index);
            }
        }
        self.drive(fx, lane_index);
    }

    /// A lane's rest is over.
    pub(super) fn rested(&mut self, fx: &mut Effects<'_>, lane_index: usize, id: u64) {
        if self.store.lane(lane_index, id).is_some_and(|lane| lane.hold == Hold::Resting) {
            let lane = &mut self.store.lanes[lane_index];
            (lane.hold, lane.cursor) = (Hold::Open, lane.head);
            self.drive(fx, lane_index);
        }
    }

    /// Takes an envelope back that was never submitted.
    pub(super) fn withdraw(&mut self, fx: &mut Effects<'_>, place: Place) -> Withdrawal {
        let Some(node) = self.store.node(place.index, place.generation) else { return Withdrawal::TooLate };
        if node.sent || !matches!(node.state, State::Waiting) {
            return Withdrawal::TooLate;
        }
        let lane_index = node.lane;
        let lane = &self.store.lanes[lane_index];
        let (kind, budget_key) = (lane.kind, lane.budget_key());
        let error = Error::new(ErrorKind::Withdrawn, "the publish was withdrawn before it was handed to the broker")
            .with("topic", fx.topic.name());
        let node = self.store.dequeue(place.index);
        let outcome = Err(Failure::plain(error));
        fx.event(Event::Over { ended: Ended::new(node, kind, budget_key), outcome });
        self.drive(fx, lane_index);
        Withdrawal::Withdrawn
    }

    /// Ends everything, because the bus is closed.
    pub(super) fn abandon(&mut self, fx: &mut Effects<'_>) -> usize {
        let mut abandoned = 0;
        let lanes: Vec<usize> = self.store.lanes.iter().map(|(index, _)| index).collect();
        for lane_index in lanes {
            let mut next = self.store.lanes[lane_index].head;
            while let Some(index) = next {
                let node = &mut self.store.nodes[index];
                next = node.behind;
                if !node.is_over() {
                    abandoned += 1;
                    let perhaps_stored = node.unknown || matches!(node.state, State::Outstanding { .. });
                    node.state = State::Over(Err(closed(fx.topic, node, perhaps_stored)));
                }
            }
            self.tell_known(fx, lane_index);
            self.store.close_if_idle(lane_index);
        }
        self.listed = Vec::new();
        abandoned
    }

    /// Whether an envelope with a key is on its way.
    pub(super) fn has_keyed(&self) -> bool {
        self.store.lanes.iter().any(|(_, lane)| lane.kind == Kind::Keyed)
    }
}

/// Whether the log has to be read before this envelope is sent again (P3).
fn needs_look(node: &Node, facts: &Facts) -> bool {
    if node.refused.is_some() {
        return true;
    }
    let Some(window) = facts.resend_window.filter(|_| node.unknown) else { return false };
    node.first_sent.is_none_or(|first| first.elapsed() >= window)
}

/// Sent again it was refused, and whether it was stored before cannot be known any more. Those behind it fail all the same:
/// they may not be stored behind a hole.
fn perhaps_gone(refusal: Error) -> Error {
    let message = "sent again it was refused, and the log no longer tells whether it was stored before";
    Error::new(ErrorKind::Unknown, message).caused_by(refusal)
}

/// The failure of a refused publish, which names itself.
pub(super) fn fail(topic: &TopicLanes, key: Option<&Key>, stamp: Stamp, envelope: &Envelope, error: Error) -> Failure {
    let error = error.about("topic", topic.name());
    let error = if let Some(key) = key { error.about("key", key) } else { error };
    Failure::refused(error, Refusal::new(stamp, envelope.id()))
}

pub(super) fn too_large(topic: &TopicLanes, bytes: usize, most: Option<usize>) -> Error {
    let most = most.unwrap_or_else(|| topic.engine().config.budget_bytes);
    Error::new(ErrorKind::TooLarge, format!("the envelope has {bytes} bytes, expected at most {most}"))
}

fn closed(topic: &TopicLanes, node: &Node, perhaps_stored: bool) -> Failure {
    if perhaps_stored {
        let message = "the bus was closed before the broker answered; the envelope may be stored";
        return Failure::plain(Error::new(ErrorKind::Unknown, message).with("topic", topic.name()));
    }
    let error = Error::new(ErrorKind::Closed, "the bus was closed before the envelope was stored");
    fail(topic, node.envelope.key(), node.slot.stamp(), &node.envelope, error)
}
