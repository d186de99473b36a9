//! Outages: connections that are cut, frozen or closed, a broker that is down, and their ends.
//!
//! A freeze and a broker that is down hold timers back, and fire them at their end. So the effect of each timer is told
//! here.

use std::time::Duration;

use super::MemoryState;
use crate::faults::{FaultKind, FaultPlace, OnCut};
use crate::step::Step;
use crate::timers::Timer;

impl MemoryState {
    pub(crate) fn fire(&mut self, timer: Timer, step: &mut Step) {
        match timer {
            Timer::Arrive(flight) => self.arrived(flight, step),
            Timer::Answer(flight) => self.answered(flight, step),
            Timer::Expire(member) => self.session_over(&member, step),
            Timer::Fence { topic, group, partition, ownership } => {
                self.fence_late(&topic, &group, partition, ownership, step);
            }
            Timer::Wake(member) => self.wake(&member, step),
            Timer::Heal(connection) => self.heal(connection, step),
            Timer::Thaw(connection) => self.thaw(connection, step),
            Timer::Restart => self.restarted(step),
        }
    }

    /// Cuts a connection. `true` if it was up.
    pub(crate) fn cut(&mut self, id: u64, stored: OnCut, step: &mut Step) -> bool {
        if self.connections.link(id).is_err() {
            return false;
        }
        if let Some(connection) = self.connections.get_mut(id) {
            connection.cut = true;
        }
        step.faults.push(FaultKind::Cut.at(FaultPlace::connection(id)));
        self.link_lost(id, stored, step);
        true
    }

    fn link_lost(&mut self, id: u64, stored: OnCut, step: &mut Step) {
        self.cut_flights(id, stored, step);
        for key in self.members_of(id) {
            if let Some((group, timers)) = self.group_and_timers(&key.topic, &key.group) {
                group.silence(key.id, timers, step);
            }
            self.tell_link(&key, false, step);
        }
    }

    pub(crate) fn heal(&mut self, id: u64, step: &mut Step) {
        let Some(connection) = self.connections.get_mut(id).filter(|connection| connection.cut) else { return };
        connection.cut = false;
        step.faults.push(FaultKind::Healed.at(FaultPlace::connection(id)));
        if !self.connections.broker_down {
            self.link_back(id, step);
        }
    }

    fn link_back(&mut self, id: u64, step: &mut Step) {
        for key in self.members_of(id) {
            self.heard(&key, step);
            self.tell_link(&key, true, step);
        }
    }

    /// Stops a backend as a debugger or a suspended machine would. `true` if it was running.
    pub(crate) fn freeze(&mut self, id: u64, step: &mut Step) -> bool {
        let Some(connection) = self.connections.get_mut(id).filter(|c| !c.closed && !c.frozen) else { return false };
        connection.frozen = true;
        step.faults.push(FaultKind::Frozen.at(FaultPlace::connection(id)));
        for key in self.members_of(id) {
            if let Some((group, timers)) = self.group_and_timers(&key.topic, &key.group) {
                group.silence(key.id, timers, step);
            }
        }
        true
    }

    pub(crate) fn thaw(&mut self, id: u64, step: &mut Step) {
        let Some(connection) = self.connections.get_mut(id).filter(|connection| connection.frozen) else { return };
        connection.frozen = false;
        step.wakers.append(&mut connection.gates);
        let backlog = std::mem::take(&mut connection.backlog);
        step.faults.push(FaultKind::Thawed.at(FaultPlace::connection(id)));
        backlog.into_iter().for_each(|timer| self.fire(timer, step));
        for key in self.members_of(id) {
            self.heard(&key, step);
            if let Some(group) = self.group(&key.topic, &key.group) {
                group.wake(key.id, step);
            }
        }
    }

    /// Takes the broker down: every connection is cut, and no session runs out until the broker is back.
    pub(crate) fn broker_stops(&mut self, stored: OnCut, down: Duration, step: &mut Step) {
        let up = self.connections.up();
        step.faults.push(FaultKind::BrokerDown.at(FaultPlace::default()));
        for id in up {
            self.link_lost(id, stored, step);
        }
        self.connections.broker_down = true;
        self.timers.set(step.now + down, Timer::Restart);
    }

    pub(crate) fn restarted(&mut self, step: &mut Step) {
        if !std::mem::take(&mut self.connections.broker_down) {
            return;
        }
        step.faults.push(FaultKind::BrokerUp.at(FaultPlace::default()));
        let up = self.connections.up();
        up.into_iter().for_each(|id| self.link_back(id, step));
        std::mem::take(&mut self.timers_after_restart).into_iter().for_each(|timer| self.fire(timer, step));
    }

    /// Closes a connection: outstanding submissions are told as unknown, and members that did not leave are killed.
    pub(crate) fn close(&mut self, id: u64, step: &mut Step) {
        if self.connections.open(id).is_err() {
            return;
        }
        self.thaw(id, step);
        self.cut_flights(id, OnCut::Stored, step);
        for key in self.members_of(id) {
            self.kill_member(&key, step);
        }
        if let Some(connection) = self.connections.get_mut(id) {
            connection.closed = true;
        }
    }
}
