//! Members of a group: joining, their next event, reads and pauses.

use std::task::{Context, Poll};

use eventbus_core::backend::{Assignment, GroupEvent, Join, LogState};
use eventbus_core::{Error, ErrorKind, Position, Result, Topic};

use super::MemoryState;
use crate::delivery::{self, Idle};
use crate::group::{Event, GroupState, Member, not_owned};
use crate::reader::Reader;
use crate::step::Step;
use crate::timers::{MemberKey, Timer};
use crate::topic::unknown_topic;

impl MemoryState {
    pub(crate) fn join(&mut self, connection: u64, join: Join, step: &mut Step) -> Result<MemberKey> {
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

    pub(crate) fn poll_next(
        &mut self,
        key: &MemberKey,
        cx: &mut Context<'_>,
        step: &mut Step,
    ) -> Poll<Result<GroupEvent>> {
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
        self.connections.open(connection)
    }

    fn next_event(&mut self, key: &MemberKey, step: &mut Step) -> Option<GroupEvent> {
        let connection = self.group(&key.topic, &key.group)?.members.get(&key.id)?.connection;
        if self.connections.is_frozen(connection) {
            return None;
        }
        let reachable = self.connections.link(connection).is_ok();
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

    /// Leaves partitions that the member no longer owns out of a queued event.
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
                    let Some(held) = group.partitions.get_mut(partition as usize) else { continue };
                    let Some(owner) = held.owner.as_mut().filter(|owner| owner.id == ownership) else { continue };
                    owner.announced = true;
                    assigned.push(Assignment::new(partition, log, held.committed.clone(), owner.lease.clone()));
                }
                (!assigned.is_empty()).then_some(GroupEvent::Assigned(assigned))
            }
        }
    }

    /// The next batch of records, a truncation, or how far an idle partition has come.
    fn delivery(&mut self, key: &MemberKey, step: &mut Step) -> Option<GroupEvent> {
        let topic = self.topics.get_mut(&key.topic)?;
        topic.retain(step.unix_millis);
        let group = self.groups.get_mut(&key.topic)?.get_mut(&key.group)?;
        let (config, id) = (&self.config, key.id);
        if let Some(event) = delivery::truncated(topic, group, id) {
            return Some(event);
        }
        let wake_at = match group.members.get(&id)?.fetch_at.filter(|at| *at > step.now) {
            Some(fetch_at) => fetch_at,
            None => {
                if let Some(event) = delivery::batch(topic, group, id, config.fetch_batch) {
                    if !config.latency.fetch.is_none() {
                        let wait = config.latency.fetch.draw(&*config.env);
                        group.members.get_mut(&id)?.fetch_at = Some(step.now + wait);
                    }
                    return Some(event);
                }
                match delivery::caught_up(topic, group, id, config, step.now) {
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

    pub(crate) fn read(
        &mut self,
        key: &MemberKey,
        partition: u32,
        from: Position,
        step: &mut Step,
    ) -> Result<LogState> {
        self.alive(key)?;
        let topic = self.topics.get_mut(&key.topic).ok_or_else(unknown_topic)?;
        topic.retain(step.unix_millis);
        let reader = Reader::starting_at(topic.log(partition)?, from);
        let log = topic.log_state(partition as usize);
        let group = self.groups.get_mut(&key.topic).and_then(|groups| groups.get_mut(&key.group));
        let group = group.ok_or_else(not_owned)?;
        // A read from before the member heard of this ownership belongs to an earlier one.
        let owner = group.owned(partition, key.id).filter(|owner| owner.announced);
        let owner = owner.ok_or_else(not_owned)?;
        owner.reader = Some(reader);
        group.wake(key.id, step);
        Ok(log)
    }

    pub(crate) fn set_paused(&mut self, key: &MemberKey, partition: u32, paused: bool, step: &mut Step) {
        let overshoot = self.config.overshoot;
        let Some(group) = self.group(&key.topic, &key.group) else { return };
        let Some(owner) = group.owned(partition, key.id) else { return };
        if owner.paused != paused {
            owner.paused = paused;
            owner.overshoot = overshoot;
            group.wake(key.id, step);
        }
    }
}
