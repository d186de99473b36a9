//! [`MemoryMember`]: one member of a group, and the events it is given.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use eventbus_core::backend::{Assignment, Commit, ConnectionState, GroupEvent, Join, LogState, Membership};
use eventbus_core::{Error, ErrorKind, Position, Result, Topic};

use crate::connection::call;
use crate::faults::{FaultKind, Place};
use crate::group::{Event, GroupState, Member};
use crate::reader::{self, Idle, Reader};
use crate::state::State;
use crate::timers::{MemberKey, Timer};
use crate::world::{Step, World};

/// A membership. Dropped without [`leave`](Membership::leave), it counts as killed: its partitions are free for others
/// when its session is over.
pub(crate) struct MemoryMember {
    world: Arc<World>,
    connection: u64,
    key: MemberKey,
}

impl MemoryMember {
    pub(crate) fn join(world: &Arc<World>, connection: u64, join: Join) -> Result<Self> {
        let key = world.step(|state, step| state.join(connection, join, step))?;
        Ok(Self { world: Arc::clone(world), connection, key })
    }
}

#[async_trait]
impl Membership for MemoryMember {
    async fn next(&self) -> Result<GroupEvent> {
        poll_fn(|cx| self.world.step(|state, step| state.poll_next(&self.key, cx, step))).await
    }

    async fn read(&self, partition: u32, from: Position) -> Result<LogState> {
        call(&self.world, self.connection).await?;
        self.world.step(|state, step| state.read(&self.key, partition, from, step))
    }

    fn pause(&self, partition: u32) {
        self.world.step(|state, step| state.set_paused(&self.key, partition, true, step));
    }

    fn resume(&self, partition: u32) {
        self.world.step(|state, step| state.set_paused(&self.key, partition, false, step));
    }

    async fn commit(&self, commit: Commit) -> Result<()> {
        call(&self.world, self.connection).await?;
        self.world.step(|state, step| state.commit(&self.key, commit, step))?;
        call(&self.world, self.connection).await
    }

    async fn release(&self, partition: u32) -> Result<()> {
        call(&self.world, self.connection).await?;
        self.world.step(|state, step| {
            if let Some((group, timers)) = state.group_and_timers(&self.key.topic, &self.key.group) {
                group.release(partition, self.key.id, timers, step);
            }
        });
        Ok(())
    }

    async fn leave(&self) -> Result<()> {
        call(&self.world, self.connection).await?;
        self.world.step(|state, step| {
            if let Some((group, timers)) = state.group_and_timers(&self.key.topic, &self.key.group) {
                group.leave(self.key.id, timers, step);
            }
        });
        Ok(())
    }
}

impl Drop for MemoryMember {
    fn drop(&mut self) {
        self.world.step(|state, step| state.kill_member(&self.key, step));
    }
}

impl fmt::Debug for MemoryMember {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryMember").field("key", &self.key).finish_non_exhaustive()
    }
}

impl State {
    fn join(&mut self, connection: u64, join: Join, step: &mut Step) -> Result<MemberKey> {
        let topic: Topic = join.topic.spec.topic.parse()?;
        let partitions = self.topic(&topic)?.logs.len();
        let id = self.fresh_id();
        let groups = self.groups.entry(topic.clone()).or_default();
        let new = || GroupState::new(topic.clone(), join.group.clone(), partitions);
        let group = groups.entry(join.group.clone()).or_insert_with(new);
        if group.members.values().any(|member| member.name == join.member && !member.killed) {
            let message = "the group has a member of this name; expected one that is unique";
            return Err(Error::new(ErrorKind::InvalidName, message).with("member", join.member));
        }
        let member = Member::new(join.member, connection, join.session_timeout, join.drain_deadline);
        group.members.insert(id, member);
        group.rebalance(&mut self.timers, step);
        Ok(MemberKey { topic, group: join.group, id })
    }

    fn poll_next(&mut self, key: &MemberKey, cx: &mut Context<'_>, step: &mut Step) -> Poll<Result<GroupEvent>> {
        if let Err(error) = self.alive(key) {
            return Poll::Ready(Err(error));
        }
        match self.next_event(key, step) {
            Some(event) => Poll::Ready(Ok(event)),
            None => {
                if let Some(group) = self.group(&key.topic, &key.group) {
                    group.park(key.id, cx.waker());
                }
                Poll::Pending
            }
        }
    }

    fn alive(&mut self, key: &MemberKey) -> Result<()> {
        let gone = || Error::new(ErrorKind::Closed, "the member has left its group").with("group", &key.group);
        let group = self.group(&key.topic, &key.group).ok_or_else(gone)?;
        let member = group.members.get(&key.id).filter(|member| !member.killed).ok_or_else(gone)?;
        let connection = member.connection;
        self.open(connection)
    }

    fn next_event(&mut self, key: &MemberKey, step: &mut Step) -> Option<GroupEvent> {
        let connection = self.group(&key.topic, &key.group)?.members.get(&key.id)?.connection;
        if self.is_frozen(connection) {
            return None;
        }
        let reachable = self.link(connection).is_ok();
        loop {
            while let Some(event) = self.group(&key.topic, &key.group)?.take_event(key.id, reachable) {
                if let Some(event) = self.announce(key, event) {
                    return Some(event);
                }
            }
            let (group, timers) = self.group_and_timers(&key.topic, &key.group)?;
            if !reachable || !group.rejoin(key.id, timers, step) {
                break;
            }
        }
        if reachable { self.delivery(key, step) } else { None }
    }

    /// An event as it is true now.
    fn announce(&mut self, key: &MemberKey, event: Event) -> Option<GroupEvent> {
        let topic = self.topics.get(&key.topic);
        let group = self.groups.get_mut(&key.topic)?.get_mut(&key.group)?;
        let mut mine = |partitions: Vec<u32>| {
            let kept: Vec<u32> = partitions.into_iter().filter(|p| group.owned(*p, key.id).is_some()).collect();
            (!kept.is_empty()).then_some(kept)
        };
        match event {
            Event::Revoked(partitions) => mine(partitions).map(GroupEvent::Revoked),
            Event::Interrupted(partitions) => mine(partitions).map(GroupEvent::Interrupted),
            Event::Lost(partitions) => Some(GroupEvent::Lost(partitions)),
            Event::Connection(state) => Some(GroupEvent::Connection(state)),
            Event::Assigned(given) => {
                let mut assigned = Vec::new();
                for (partition, ownership) in given {
                    let log = topic.map(|topic| topic.log_state(partition as usize)).unwrap_or_default();
                    let Some(slot) = group.slots.get_mut(partition as usize) else { continue };
                    let Some(owner) = slot.owner.as_mut().filter(|owner| owner.id == ownership) else { continue };
                    owner.announced = true;
                    assigned.push(Assignment::new(partition, log, slot.committed.clone(), owner.lease.clone()));
                }
                (!assigned.is_empty()).then_some(GroupEvent::Assigned(assigned))
            }
        }
    }

    /// Records, or what else the logs have to say.
    fn delivery(&mut self, key: &MemberKey, step: &mut Step) -> Option<GroupEvent> {
        let topic = self.topics.get_mut(&key.topic)?;
        topic.retain(step.unix_millis);
        let group = self.groups.get_mut(&key.topic)?.get_mut(&key.group)?;
        let (config, id) = (&self.config, key.id);
        if let Some(event) = reader::truncated(topic, group, id) {
            return Some(event);
        }
        let wake_at = match group.members.get(&id)?.fetch_at.filter(|at| *at > step.now) {
            Some(fetch_at) => fetch_at,
            None => {
                if let Some(event) = reader::batch(topic, group, id, config.fetch_batch) {
                    if !config.latency.fetch.is_none() {
                        let wait = config.latency.fetch.draw(&*config.env);
                        group.members.get_mut(&id)?.fetch_at = Some(step.now + wait);
                    }
                    return Some(event);
                }
                match reader::caught_up(topic, group, id, config, step.now) {
                    Idle::Tell(event) => return Some(event),
                    Idle::Later(at) => at,
                    Idle::Nothing => return None,
                }
            }
        };
        let member = group.members.get_mut(&id)?;
        if member.wake_at.is_none_or(|set| wake_at < set) {
            member.wake_at = Some(wake_at);
            self.timers.set(wake_at, Timer::Wake(key.clone()));
        }
        None
    }

    fn read(&mut self, key: &MemberKey, partition: u32, from: Position, step: &mut Step) -> Result<LogState> {
        self.alive(key)?;
        let topic = self.topics.get_mut(&key.topic).ok_or_else(crate::topics::unknown_topic)?;
        topic.retain(step.unix_millis);
        let reader = Reader::starting_at(topic.log(partition)?, from);
        let log = topic.log_state(partition as usize);
        let group = self.groups.get_mut(&key.topic).and_then(|groups| groups.get_mut(&key.group));
        let group = group.ok_or_else(crate::commit::not_owned)?;
        // A read that was asked for in an ownership before this one, of which the member has not heard yet, is not of it.
        let owner = group.owned(partition, key.id).filter(|owner| owner.announced);
        let owner = owner.ok_or_else(crate::commit::not_owned)?;
        owner.reader = Some(reader);
        group.wake(key.id, step);
        Ok(log)
    }

    fn set_paused(&mut self, key: &MemberKey, partition: u32, paused: bool, step: &mut Step) {
        let overshoot = self.config.overshoot;
        let Some(group) = self.group(&key.topic, &key.group) else { return };
        let Some(owner) = group.owned(partition, key.id) else { return };
        if owner.paused != paused {
            owner.paused = paused;
            owner.overshoot = overshoot;
            group.wake(key.id, step);
        }
    }

    /// Wakes the members that wait for a record of this partition.
    pub(crate) fn wake_readers(&mut self, topic: &Topic, partition: u32, step: &mut Step) {
        let shared = self.config.positions == crate::Positions::Shared;
        let wake_at = step.now + self.config.caught_up_interval;
        for group in self.groups.get_mut(topic).into_iter().flat_map(|groups| groups.values_mut()) {
            if group.parked == 0 {
                continue;
            }
            let owner = group.slots.get(partition as usize).and_then(|slot| slot.owner.as_ref());
            if let Some(member) = owner.filter(|owner| owner.reader.is_some()).map(|owner| owner.member) {
                group.wake(member, step);
            }
            if shared {
                let mut keys = Vec::new();
                for (id, member) in group.members.iter_mut().filter(|(_, m)| m.waker.is_some() && m.wake_at.is_none()) {
                    member.wake_at = Some(wake_at);
                    keys.push(*id);
                }
                keys.into_iter().for_each(|id| self.timers.set(wake_at, Timer::Wake(group.key(id))));
            }
        }
    }

    /// The member's process is gone: it sends nothing more, and nobody has told the broker.
    pub(crate) fn kill_member(&mut self, key: &MemberKey, step: &mut Step) -> bool {
        let at_once = self.config.expire_killed_at_once;
        let Some((group, timers)) = self.group_and_timers(&key.topic, &key.group) else { return false };
        let Some(member) = group.members.get_mut(&key.id).filter(|member| !member.killed) else { return false };
        member.killed = true;
        step.faults.push(FaultKind::Killed.at(Place::member(key, member)));
        group.wake(key.id, step);
        if at_once {
            group.expire(key.id, timers, step);
        } else {
            group.silence(key.id, timers, step);
        }
        true
    }

    /// Tells a member about its connection, and that its deliveries broke off.
    pub(crate) fn tell_link(&mut self, key: &MemberKey, up: bool, step: &mut Step) {
        let state = if up { ConnectionState::Connected } else { ConnectionState::Disconnected };
        if let Some(group) = self.group(&key.topic, &key.group) {
            group.tell(key.id, Event::Connection(state), step);
            group.interrupt(key.id, step);
        }
    }
}

impl GroupState {
    /// The next event; of an unreachable broker's only what the client sees by itself.
    fn take_event(&mut self, id: u64, reachable: bool) -> Option<Event> {
        let events = &mut self.members.get_mut(&id)?.events;
        if reachable {
            return events.pop_front();
        }
        let local = |event: &Event| matches!(event, Event::Connection(_) | Event::Interrupted(_));
        let index = events.iter().position(local)?;
        events.remove(index)
    }
}
