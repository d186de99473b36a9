//! Groups and their members: heartbeats, sessions, fences, wake-ups and events.

use std::collections::BTreeMap;

use eventbus_core::backend::ConnectionState;
use eventbus_core::{Group, Topic};

use super::MemoryState;
use crate::config::Positions;
use crate::faults::FaultKind;
use crate::group::Event;
use crate::step::Step;
use crate::timers::{MemberKey, Timer};

impl MemoryState {
    pub(crate) fn session_over(&mut self, key: &MemberKey, step: &mut Step) {
        if self.connections.broker_down {
            return self.timers_after_restart.push(Timer::Expire(key.clone()));
        }
        if let Some((group, timers)) = self.group_and_timers(&key.topic, &key.group) {
            group.session_over(key.id, timers, step);
        }
    }

    /// Fences a partition that was revoked and not released in time.
    pub(crate) fn fence_late(&mut self, topic: &Topic, name: &Group, partition: u32, ownership: u64, step: &mut Step) {
        if self.connections.broker_down {
            let (topic, group) = (topic.clone(), name.clone());
            return self.timers_after_restart.push(Timer::Fence { topic, group, partition, ownership });
        }
        let Some((group, timers)) = self.group_and_timers(topic, name) else { return };
        let owner = group.partitions.get(partition as usize).and_then(|assigned| assigned.owner.as_ref());
        if owner.is_some_and(|owner| owner.id == ownership) {
            group.fence(partition, timers, step);
        }
    }

    pub(crate) fn wake(&mut self, key: &MemberKey, step: &mut Step) {
        if let Some(group) = self.group(&key.topic, &key.group) {
            if let Some(member) = group.members.get_mut(&key.id) {
                member.wake_at = None;
            }
            group.wake(key.id, step);
        }
    }

    pub(crate) fn resize_groups(&mut self, topic: &Topic, partitions: u32, step: &mut Step) {
        for group in self.groups.get_mut(topic).into_iter().flat_map(BTreeMap::values_mut) {
            group.resize(partitions as usize, &mut self.timers, step);
        }
    }

    pub(crate) fn interrupt_topic(&mut self, topic: &Topic, step: &mut Step) {
        for group in self.groups.get_mut(topic).into_iter().flat_map(BTreeMap::values_mut) {
            let members: Vec<u64> = group.members.keys().copied().collect();
            members.into_iter().for_each(|member| group.interrupt(member, step));
        }
    }

    pub(crate) fn fence_partition(&mut self, key: &MemberKey, partition: u32, step: &mut Step) {
        if let Some((group, timers)) = self.group_and_timers(&key.topic, &key.group)
            && group.owned(partition, key.id).is_some()
        {
            group.fence(partition, timers, step);
        }
    }

    /// Lets a member's heartbeats come again, unless something else still stops them.
    pub(crate) fn heard(&mut self, key: &MemberKey, step: &mut Step) {
        let Some(member) = self.group(&key.topic, &key.group).and_then(|group| group.members.get(&key.id)) else {
            return;
        };
        let (connection, silent) = (member.connection, member.killed || member.muted);
        if silent || self.connections.is_frozen(connection) || self.connections.link(connection).is_err() {
            return;
        }
        if let Some(group) = self.group(&key.topic, &key.group) {
            group.speak(key.id, step);
        }
    }

    pub(crate) fn mute(&mut self, key: &MemberKey, muted: bool, step: &mut Step) {
        let Some((group, timers)) = self.group_and_timers(&key.topic, &key.group) else { return };
        let Some(member) = group.members.get_mut(&key.id).filter(|member| member.muted != muted) else { return };
        member.muted = muted;
        if muted {
            group.silence(key.id, timers, step);
        } else {
            self.heard(key, step);
        }
        let kind = if muted { FaultKind::HeartbeatsStopped } else { FaultKind::HeartbeatsResumed };
        self.report(kind, key, step);
    }

    /// Wakes the members that wait for a record of this partition.
    pub(crate) fn wake_readers(&mut self, topic: &Topic, partition: u32, step: &mut Step) {
        let shared = self.config.positions == Positions::Shared;
        let wake_at = step.now + self.config.caught_up_interval;
        for group in self.groups.get_mut(topic).into_iter().flat_map(|groups| groups.values_mut()) {
            if group.parked == 0 {
                continue;
            }
            let owner = group.partitions.get(partition as usize).and_then(|assigned| assigned.owner.as_ref());
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

    /// Kills a member: its process is gone, sends nothing more, and nobody has told the broker.
    pub(crate) fn kill_member(&mut self, key: &MemberKey, step: &mut Step) -> bool {
        let at_once = self.config.expire_killed_at_once;
        let Some((group, timers)) = self.group_and_timers(&key.topic, &key.group) else { return false };
        let Some(member) = group.members.get_mut(&key.id).filter(|member| !member.killed) else { return false };
        member.killed = true;
        step.faults.extend(group.place_of(key.id).map(|place| FaultKind::Killed.at(place)));
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

    pub(crate) fn wake_all(&mut self, topic: &Topic, step: &mut Step) {
        for group in self.groups.get_mut(topic).into_iter().flat_map(|groups| groups.values_mut()) {
            let members: Vec<u64> = group.members.keys().copied().collect();
            members.into_iter().for_each(|member| group.wake(member, step));
        }
    }

    pub(crate) fn member_named(&self, topic: &str, group: &str, member: &str) -> Option<MemberKey> {
        let (topic, group): (Topic, Group) = (topic.parse().ok()?, group.parse().ok()?);
        let group = self.groups.get(&topic)?.get(&group)?;
        let (id, _) = group.members.iter().find(|(_, m)| m.name == member && !m.killed)?;
        Some(group.key(*id))
    }

    pub(crate) fn report(&mut self, kind: FaultKind, key: &MemberKey, step: &mut Step) {
        let place = self.group(&key.topic, &key.group).and_then(|group| group.place_of(key.id));
        step.faults.extend(place.map(|place| kind.at(place)));
    }
}
