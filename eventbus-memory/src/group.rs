//! Groups: who owns which partition (S5).
//!
//! Invariants:
//! * a partition has at most one owner, and gets a new one only after the old one released it or its lease ended;
//! * each ownership has its own number, and nothing that was asked or queued under an earlier number counts;
//! * assignments are balanced to within one partition, and move as few partitions as that takes.

use std::collections::{BTreeMap, VecDeque};
use std::task::Waker;
use std::time::Duration;

use eventbus_core::backend::{Committed, ConnectionState, Lease};
use eventbus_core::{Error, ErrorKind, Group, Topic};
use tokio::time::Instant;

use crate::faults::FaultPlace;
use crate::reader::Reader;
use crate::step::Step;
use crate::timers::{MemberKey, Timer, Timers};

pub(crate) type TopicGroups = BTreeMap<Group, GroupState>;

#[derive(Debug)]
pub(crate) struct GroupState {
    topic: Topic,
    name: Group,
    /// Members by number, which is the order of joining.
    pub(crate) members: BTreeMap<u64, Member>,
    pub(crate) partitions: Vec<AssignedPartition>,
    ownerships: u64,
    /// Number of members that wait in `next`.
    pub(crate) parked: usize,
}

/// A partition as the group sees it.
#[derive(Debug, Default)]
pub(crate) struct AssignedPartition {
    pub(crate) committed: Option<Committed>,
    pub(crate) owner: Option<Ownership>,
}

#[derive(Debug)]
pub(crate) struct Ownership {
    pub(crate) id: u64,
    pub(crate) member: u64,
    pub(crate) lease: Lease,
    /// Whether the member has been told.
    pub(crate) announced: bool,
    /// Whether the member has stored an epoch of its own under this ownership.
    pub(crate) claimed: bool,
    /// The end of a revocation under way; `None` without one.
    fence_at: Option<Instant>,
    pub(crate) reader: Option<Reader>,
    pub(crate) paused: bool,
    /// Records that may still come while paused.
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
    /// The time of the last heartbeat; `None` while heartbeats come.
    silent_since: Option<Instant>,
    /// Whether the session is over; the member joins again when it next asks for an event.
    expired: bool,
    pub(crate) killed: bool,
    /// Whether a fault suppresses its heartbeats.
    pub(crate) muted: bool,
    /// Counter that turns the partition with which a batch begins.
    pub(crate) rotation: usize,
    /// The earliest time of the next fetch; `None` allows it at once.
    pub(crate) fetch_at: Option<Instant>,
    /// The time of the timer that will wake the member.
    pub(crate) wake_at: Option<Instant>,
}

/// An event that waits for a member. Its ownerships are checked again when it is taken out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Pairs of partition and ownership.
    Assigned(Vec<(u32, u64)>),
    Revoked(Vec<u32>),
    Lost(Vec<u32>),
    Interrupted(Vec<u32>),
    Connection(ConnectionState),
}

/// As good as for ever, as a time that can be moved to an earlier one.
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

    /// The time until which a silent member may trust its session: a tenth of the time-out before others may take over.
    fn vouched_until(&self) -> Option<Instant> {
        Some(self.silent_since? + self.session_timeout - self.session_timeout / 10)
    }
}

impl Ownership {
    /// Sets the lease's end: by the member's silence or by a revocation, whichever is earlier.
    fn renew(&self, member: &Member, now: Instant) {
        let until = [member.vouched_until(), self.fence_at].into_iter().flatten().min();
        self.lease.end_at(until.unwrap_or(now + UNLIMITED));
    }
}

impl GroupState {
    pub(crate) fn new(topic: Topic, name: Group, partitions: usize) -> Self {
        let partitions = (0..partitions).map(|_| AssignedPartition::default()).collect();
        Self { topic, name, members: BTreeMap::new(), partitions, ownerships: 0, parked: 0 }
    }

    pub(crate) fn key(&self, id: u64) -> MemberKey {
        MemberKey { topic: self.topic.clone(), group: self.name.clone(), id }
    }

    /// The place of a member, for fault events.
    pub(crate) fn place_of(&self, id: u64) -> Option<FaultPlace> {
        let member = self.members.get(&id)?;
        let mut place = FaultPlace::topic(&self.topic);
        place.group = Some(self.name.clone());
        place.member = Some(member.name.clone());
        place.connection = Some(member.connection);
        Some(place)
    }

    pub(crate) fn has_progress(&self) -> bool {
        self.partitions.iter().any(|assigned| assigned.committed.is_some())
    }

    pub(crate) fn is_active(&self) -> bool {
        self.members.values().any(|member| !member.expired)
    }

    /// The ownership of a partition, if this member is the owner.
    pub(crate) fn owned(&mut self, partition: u32, member: u64) -> Option<&mut Ownership> {
        self.partitions.get_mut(partition as usize)?.owner.as_mut().filter(|owner| owner.member == member)
    }

    pub(crate) fn owned_by(&self, member: u64) -> impl Iterator<Item = (u32, &Ownership)> {
        let owners =
            (0..).zip(&self.partitions).filter_map(|(partition, assigned)| Some((partition, assigned.owner.as_ref()?)));
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

    /// Takes the next event; while the broker is out of reach, only one that the client sees by itself.
    pub(crate) fn take_event(&mut self, id: u64, reachable: bool) -> Option<Event> {
        let events = &mut self.members.get_mut(&id)?.events;
        if reachable {
            return events.pop_front();
        }
        let local = |event: &Event| matches!(event, Event::Connection(_) | Event::Interrupted(_));
        let index = events.iter().position(local)?;
        events.remove(index)
    }

    /// Rebalances: asks back partitions from members above their share, and gives free ones to members below it.
    pub(crate) fn rebalance(&mut self, timers: &mut Timers, step: &mut Step) {
        let shares = self.shares();
        for (id, share) in &shares {
            self.revoke_above(*id, *share, timers, step);
        }
        for (id, share) in &shares {
            self.assign_below(*id, *share, step);
        }
    }

    /// Each member's share. The larger ones go to members that hold the most already, so that the fewest partitions
    /// move.
    fn shares(&self) -> Vec<(u64, usize)> {
        let mut held: BTreeMap<u64, usize> =
            self.members.iter().filter(|(_, member)| !member.expired).map(|(id, _)| (*id, 0)).collect();
        for owner in
            self.partitions.iter().filter_map(|assigned| assigned.owner.as_ref()).filter(|o| o.fence_at.is_none())
        {
            if let Some(count) = held.get_mut(&owner.member) {
                *count += 1;
            }
        }
        let mut by_held: Vec<(u64, usize)> = held.into_iter().collect();
        by_held.sort_by_key(|(id, count)| (std::cmp::Reverse(*count), *id));
        let (each, larger) = match by_held.len() {
            0 => (0, 0),
            members => (self.partitions.len() / members, self.partitions.len() % members),
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
                // The member never heard of this ownership.
                self.partitions[partition as usize].owner = None;
                continue;
            }
            let ownership = owner.id;
            let (topic, group) = (self.topic.clone(), self.name.clone());
            let Some(member) = self.members.get(&id) else { continue };
            let fence_at = step.now + member.drain_deadline;
            if let Some(owner) = self.partitions[partition as usize].owner.as_mut() {
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
        let free = (0..).zip(&mut self.partitions).filter(|(_, assigned)| assigned.owner.is_none());
        for (partition, assigned) in free.take(share.saturating_sub(held)) {
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
            assigned.owner = Some(owner);
        }
        if !given.is_empty() {
            self.tell(id, Event::Assigned(given), step);
        }
    }

    /// Takes a partition away from its owner without asking.
    fn take_away(&mut self, partition: u32, step: &mut Step) {
        let Some(owner) = self.partitions.get_mut(partition as usize).and_then(|assigned| assigned.owner.take()) else {
            return;
        };
        owner.lease.revoke();
        if owner.announced {
            self.tell(owner.member, Event::Lost(vec![partition]), step);
        }
    }

    pub(crate) fn fence(&mut self, partition: u32, timers: &mut Timers, step: &mut Step) {
        self.take_away(partition, step);
        self.rebalance(timers, step);
    }

    /// Frees a partition that its owner gives up.
    pub(crate) fn release(&mut self, partition: u32, member: u64, timers: &mut Timers, step: &mut Step) {
        if let Some(owner) = self.owned(partition, member) {
            owner.lease.revoke();
            self.partitions[partition as usize].owner = None;
            self.rebalance(timers, step);
        }
    }

    /// Ends a member's session: takes all its partitions, and leaves it out until it asks again. A killed member is
    /// forgotten.
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
        for assigned in &mut self.partitions {
            if let Some(owner) = assigned.owner.take_if(|owner| owner.member == id && !owner.claimed) {
                owner.lease.revoke();
            }
        }
        // A claimed partition that was not released may have a handler that still runs: it is kept for the session.
        if self.owned_by(id).next().is_some() {
            if let Some(member) = self.members.get_mut(&id) {
                member.killed = true;
            }
            self.silence(id, timers, step);
        } else {
            self.members.remove(&id);
        }
        self.rebalance(timers, step);
    }

    /// Takes back in a member whose session was over. `true` if it was.
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

    /// Notes a member's last heartbeat as now: its leases get an end, and so does its session.
    pub(crate) fn silence(&mut self, id: u64, timers: &mut Timers, step: &mut Step) {
        let key = self.key(id);
        let Some(member) = self.members.get_mut(&id) else { return };
        member.silent_since.get_or_insert(step.now);
        timers.set(step.now + member.session_timeout, Timer::Expire(key));
        self.renew_all(id, step);
    }

    /// Notes a heartbeat: the member's silence is over.
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
        for partition in partitions..self.partitions.len() {
            self.take_away(u32::try_from(partition).unwrap_or(u32::MAX), step);
        }
        self.partitions.resize_with(partitions, AssignedPartition::default);
        self.rebalance(timers, step);
    }

    /// Breaks off the delivery of a member's partitions.
    pub(crate) fn interrupt(&mut self, id: u64, step: &mut Step) {
        let mut broken = Vec::new();
        for (partition, assigned) in (0..).zip(&mut self.partitions) {
            if let Some(owner) = assigned.owner.as_mut().filter(|owner| owner.member == id && owner.announced) {
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
