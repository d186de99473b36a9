//! Groups: who owns which partition (S5).
//!
//! Invariants:
//! * a partition has at most one owner, and a new one only after the old one released it or its lease ended;
//! * every ownership has a number of its own, and nothing that was asked or queued under an earlier number counts;
//! * assignments are balanced to within one partition and move as few as that takes.

use std::collections::{BTreeMap, VecDeque};
use std::task::Waker;
use std::time::Duration;

use eventbus_core::backend::{Committed, ConnectionState, Lease};
use eventbus_core::{Error, ErrorKind, Group, Topic};
use tokio::time::Instant;

use crate::faults::Place;
use crate::reader::Reader;
use crate::step::Step;
use crate::timers::{MemberKey, Timer, Timers};

pub(crate) type TopicGroups = BTreeMap<Group, GroupState>;

#[derive(Debug)]
pub(crate) struct GroupState {
    topic: Topic,
    name: Group,
    /// By number, which is the order of joining.
    pub(crate) members: BTreeMap<u64, Member>,
    pub(crate) slots: Vec<Slot>,
    ownerships: u64,
    /// Members that wait in `next`.
    pub(crate) parked: usize,
}

/// A partition as the group sees it.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    pub(crate) committed: Option<Committed>,
    pub(crate) owner: Option<Ownership>,
}

#[derive(Debug)]
pub(crate) struct Ownership {
    pub(crate) id: u64,
    pub(crate) member: u64,
    pub(crate) lease: Lease,
    /// The member has been told.
    pub(crate) announced: bool,
    /// The member has stored an epoch of its own under it.
    pub(crate) claimed: bool,
    /// When a revocation ends; `None` while none is under way.
    fence_at: Option<Instant>,
    pub(crate) reader: Option<Reader>,
    pub(crate) paused: bool,
    /// Records that may still come although paused.
    pub(crate) overshoot: usize,
}

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) connection: u64,
    session_timeout: Duration,
    drain_deadline: Duration,
    pub(crate) events: VecDeque<Event>,
    pub(crate) waker: Option<Waker>,
    /// No heartbeat has come since.
    silent_since: Option<Instant>,
    /// Its session is over; it joins again when it next asks for an event.
    expired: bool,
    pub(crate) killed: bool,
    /// Its heartbeats are suppressed by a fault.
    pub(crate) muted: bool,
    /// Which partition a batch begins with.
    pub(crate) rotation: usize,
    /// Not before this is the next batch fetched.
    pub(crate) fetch_at: Option<Instant>,
    /// A timer will wake it then.
    pub(crate) wake_at: Option<Instant>,
}

/// What waits for a member. Ownerships are looked at again when it is taken out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Partition and ownership.
    Assigned(Vec<(u32, u64)>),
    Revoked(Vec<u32>),
    Lost(Vec<u32>),
    Interrupted(Vec<u32>),
    Connection(ConnectionState),
}

/// As good as for ever, in a form that can be moved to an earlier time.
const UNLIMITED: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

impl Member {
    pub(crate) fn new(name: String, connection: u64, session_timeout: Duration, drain_deadline: Duration) -> Self {
        Self {
            name,
            connection,
            session_timeout,
            drain_deadline,
            events: VecDeque::new(),
            waker: None,
            silent_since: None,
            expired: false,
            killed: false,
            muted: false,
            rotation: 0,
            fetch_at: None,
            wake_at: None,
        }
    }

    /// Until when the member may take its session as alive: a tenth of the time-out before others may take over.
    fn vouched_until(&self) -> Option<Instant> {
        Some(self.silent_since? + self.session_timeout - self.session_timeout / 10)
    }
}

impl Ownership {
    /// Sets the lease by what is known of the member and of a revocation.
    fn renew(&self, member: &Member, now: Instant) {
        let until = [member.vouched_until(), self.fence_at].into_iter().flatten().min();
        self.lease.end_at(until.unwrap_or(now + UNLIMITED));
    }
}

impl GroupState {
    pub(crate) fn new(topic: Topic, name: Group, partitions: usize) -> Self {
        let slots = (0..partitions).map(|_| Slot::default()).collect();
        Self { topic, name, members: BTreeMap::new(), slots, ownerships: 0, parked: 0 }
    }

    pub(crate) fn key(&self, id: u64) -> MemberKey {
        MemberKey { topic: self.topic.clone(), group: self.name.clone(), id }
    }

    /// Where a fault of a member takes effect.
    pub(crate) fn place_of(&self, id: u64) -> Option<Place> {
        let member = self.members.get(&id)?;
        let mut place = Place::topic(&self.topic);
        place.group = Some(self.name.clone());
        place.member = Some(member.name.clone());
        place.connection = Some(member.connection);
        Some(place)
    }

    pub(crate) fn has_progress(&self) -> bool {
        self.slots.iter().any(|slot| slot.committed.is_some())
    }

    pub(crate) fn is_active(&self) -> bool {
        self.members.values().any(|member| !member.expired)
    }

    /// The ownership of a partition, if it is this member's.
    pub(crate) fn owned(&mut self, partition: u32, member: u64) -> Option<&mut Ownership> {
        self.slots.get_mut(partition as usize)?.owner.as_mut().filter(|owner| owner.member == member)
    }

    pub(crate) fn owned_by(&self, member: u64) -> impl Iterator<Item = (u32, &Ownership)> {
        let owners = (0..).zip(&self.slots).filter_map(|(partition, slot)| Some((partition, slot.owner.as_ref()?)));
        owners.filter(move |(_, owner)| owner.member == member)
    }

    pub(crate) fn wake(&mut self, id: u64, step: &mut Step) {
        if let Some(waker) = self.members.get_mut(&id).and_then(|member| member.waker.take()) {
            self.parked -= 1;
            step.wakers.push(waker);
        }
    }

    pub(crate) fn park(&mut self, id: u64, waker: &Waker) {
        if let Some(member) = self.members.get_mut(&id) {
            self.parked += usize::from(member.waker.is_none());
            member.waker = Some(waker.clone());
        }
    }

    pub(crate) fn tell(&mut self, id: u64, event: Event, step: &mut Step) {
        let Some(member) = self.members.get_mut(&id) else { return };
        match (member.events.back_mut(), event) {
            (Some(Event::Assigned(more)), Event::Assigned(new)) => more.extend(new),
            (Some(Event::Revoked(more)), Event::Revoked(new))
            | (Some(Event::Lost(more)), Event::Lost(new))
            | (Some(Event::Interrupted(more)), Event::Interrupted(new)) => more.extend(new),
            (_, event) => member.events.push_back(event),
        }
        self.wake(id, step);
    }

    /// The next event; of an unreachable broker's only what the client sees by itself.
    pub(crate) fn take_event(&mut self, id: u64, reachable: bool) -> Option<Event> {
        let events = &mut self.members.get_mut(&id)?.events;
        if reachable {
            return events.pop_front();
        }
        let local = |event: &Event| matches!(event, Event::Connection(_) | Event::Interrupted(_));
        let index = events.iter().position(local)?;
        events.remove(index)
    }

    /// Puts the assignment right: gives what is free to those below their share, and asks back what is above.
    pub(crate) fn rebalance(&mut self, timers: &mut Timers, step: &mut Step) {
        let shares = self.shares();
        for (id, share) in &shares {
            self.revoke_above(*id, *share, timers, step);
        }
        for (id, share) in &shares {
            self.assign_below(*id, *share, step);
        }
    }

    /// Each member's share. The larger ones go to who holds the most already, so that the fewest partitions move.
    fn shares(&self) -> Vec<(u64, usize)> {
        let mut held: BTreeMap<u64, usize> =
            self.members.iter().filter(|(_, member)| !member.expired).map(|(id, _)| (*id, 0)).collect();
        for owner in self.slots.iter().filter_map(|slot| slot.owner.as_ref()).filter(|o| o.fence_at.is_none()) {
            if let Some(count) = held.get_mut(&owner.member) {
                *count += 1;
            }
        }
        let mut by_held: Vec<(u64, usize)> = held.into_iter().collect();
        by_held.sort_by_key(|(id, count)| (std::cmp::Reverse(*count), *id));
        let (each, larger) = match by_held.len() {
            0 => (0, 0),
            members => (self.slots.len() / members, self.slots.len() % members),
        };
        let share = |(n, (id, _))| (id, each + usize::from(n < larger));
        by_held.into_iter().enumerate().map(share).collect()
    }

    fn revoke_above(&mut self, id: u64, share: usize, timers: &mut Timers, step: &mut Step) {
        let held: Vec<u32> =
            self.owned_by(id).filter(|(_, owner)| owner.fence_at.is_none()).map(|(partition, _)| partition).collect();
        let mut asked_back = Vec::new();
        for partition in held.into_iter().skip(share) {
            let Some(owner) = self.owned(partition, id) else { continue };
            if !owner.announced {
                // The member never heard of it.
                self.slots[partition as usize].owner = None;
                continue;
            }
            let ownership = owner.id;
            let (topic, group) = (self.topic.clone(), self.name.clone());
            let Some(member) = self.members.get(&id) else { continue };
            let fence_at = step.now + member.drain_deadline;
            if let Some(owner) = self.slots[partition as usize].owner.as_mut() {
                owner.fence_at = Some(fence_at);
                owner.renew(member, step.now);
            }
            timers.set(fence_at, Timer::Fence { topic, group, partition, ownership });
            asked_back.push(partition);
        }
        if !asked_back.is_empty() {
            self.tell(id, Event::Revoked(asked_back), step);
        }
    }

    fn assign_below(&mut self, id: u64, share: usize, step: &mut Step) {
        let held = self.owned_by(id).filter(|(_, owner)| owner.fence_at.is_none()).count();
        let Some(member) = self.members.get(&id) else { return };
        let mut given = Vec::new();
        let free = (0..).zip(&mut self.slots).filter(|(_, slot)| slot.owner.is_none());
        for (partition, slot) in free.take(share.saturating_sub(held)) {
            self.ownerships += 1;
            let owner = Ownership {
                id: self.ownerships,
                member: id,
                lease: Lease::unlimited(),
                announced: false,
                claimed: false,
                fence_at: None,
                reader: None,
                paused: false,
                overshoot: 0,
            };
            if member.silent_since.is_some() {
                owner.renew(member, step.now);
            }
            given.push((partition, owner.id));
            slot.owner = Some(owner);
        }
        if !given.is_empty() {
            self.tell(id, Event::Assigned(given), step);
        }
    }

    /// Takes a partition away from its owner without asking.
    fn take_away(&mut self, partition: u32, step: &mut Step) {
        let Some(owner) = self.slots.get_mut(partition as usize).and_then(|slot| slot.owner.take()) else { return };
        owner.lease.revoke();
        if owner.announced {
            self.tell(owner.member, Event::Lost(vec![partition]), step);
        }
    }

    pub(crate) fn fence(&mut self, partition: u32, timers: &mut Timers, step: &mut Step) {
        self.take_away(partition, step);
        self.rebalance(timers, step);
    }

    /// Gives up a partition by its owner's wish.
    pub(crate) fn release(&mut self, partition: u32, member: u64, timers: &mut Timers, step: &mut Step) {
        if let Some(owner) = self.owned(partition, member) {
            owner.lease.revoke();
            self.slots[partition as usize].owner = None;
            self.rebalance(timers, step);
        }
    }

    /// Takes everything away from a member and leaves it out until it asks again; a dead one is forgotten.
    pub(crate) fn expire(&mut self, id: u64, timers: &mut Timers, step: &mut Step) {
        let held: Vec<u32> = self.owned_by(id).map(|(partition, _)| partition).collect();
        for partition in held {
            self.take_away(partition, step);
        }
        let Some(member) = self.members.get_mut(&id) else { return };
        member.expired = true;
        self.wake(id, step);
        if self.members.get(&id).is_some_and(|member| member.killed) {
            self.members.remove(&id);
        }
        self.rebalance(timers, step);
    }

    pub(crate) fn leave(&mut self, id: u64, timers: &mut Timers, step: &mut Step) {
        self.wake(id, step);
        self.members.remove(&id);
        for slot in &mut self.slots {
            if let Some(owner) = slot.owner.take_if(|owner| owner.member == id) {
                owner.lease.revoke();
            }
        }
        self.rebalance(timers, step);
    }

    /// Takes a member in again whose session was over. Whether it was.
    pub(crate) fn rejoin(&mut self, id: u64, timers: &mut Timers, step: &mut Step) -> bool {
        match self.members.get_mut(&id) {
            Some(member) if member.expired => {
                member.expired = false;
                member.silent_since = None;
                self.rebalance(timers, step);
                true
            }
            _ => false,
        }
    }

    /// The last heartbeat of a member was now: its leases have an end, and so does its session.
    pub(crate) fn silence(&mut self, id: u64, timers: &mut Timers, step: &mut Step) {
        let key = self.key(id);
        let Some(member) = self.members.get_mut(&id) else { return };
        member.silent_since.get_or_insert(step.now);
        timers.set(step.now + member.session_timeout, Timer::Expire(key));
        self.renew_all(id, step);
    }

    /// A heartbeat came.
    pub(crate) fn speak(&mut self, id: u64, step: &mut Step) {
        let Some(member) = self.members.get_mut(&id) else { return };
        member.silent_since = None;
        self.renew_all(id, step);
        self.wake(id, step);
    }

    fn renew_all(&self, id: u64, step: &Step) {
        if let Some(member) = self.members.get(&id) {
            self.owned_by(id).for_each(|(_, owner)| owner.renew(member, step.now));
        }
    }

    pub(crate) fn session_over(&mut self, id: u64, timers: &mut Timers, step: &mut Step) {
        let over =
            |member: &Member| member.silent_since.is_some_and(|since| step.now >= since + member.session_timeout);
        if self.members.get(&id).is_some_and(over) {
            self.expire(id, timers, step);
        }
    }

    pub(crate) fn resize(&mut self, partitions: usize, timers: &mut Timers, step: &mut Step) {
        for partition in partitions..self.slots.len() {
            self.take_away(u32::try_from(partition).unwrap_or(u32::MAX), step);
        }
        self.slots.resize_with(partitions, Slot::default);
        self.rebalance(timers, step);
    }

    /// Breaks off the delivery of a member's partitions.
    pub(crate) fn interrupt(&mut self, id: u64, step: &mut Step) {
        let mut broken = Vec::new();
        for (partition, slot) in (0..).zip(&mut self.slots) {
            if let Some(owner) = slot.owner.as_mut().filter(|owner| owner.member == id && owner.announced) {
                owner.reader = None;
                broken.push(partition);
            }
        }
        if !broken.is_empty() {
            self.tell(id, Event::Interrupted(broken), step);
        }
    }
}

pub(crate) fn not_owned() -> Error {
    Error::new(ErrorKind::Fenced, "the partition is not owned by this member")
}
