//! A backend's connection to the world: whether it is up, cut, frozen or closed, and the way of a call through it.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use eventbus_core::backend::ConnectionState;
use eventbus_core::{Error, ErrorKind, Result};
use tokio::runtime::Handle;
use tokio::time::sleep;

use crate::faults::{FaultKind, OnCut, Place};
use crate::state::State;
use crate::timers::Timer;
use crate::world::{Step, World};

#[derive(Debug, Default)]
pub(crate) struct Connection {
    closed: bool,
    cut: bool,
    frozen: bool,
    /// What came while it was frozen.
    backlog: Vec<Timer>,
    /// Calls that wait for the end of a freeze.
    gates: Vec<Waker>,
}

/// One way of a call: its wait, then whether the broker is there. Call it before and after what the broker does.
pub(crate) async fn call(world: &Arc<World>, connection: u64) -> Result<()> {
    let wait = world.step(|state, _| {
        if state.timers.runtime.is_none() {
            state.timers.runtime = Handle::try_current().ok();
        }
        state.config.latency.call.draw(&*state.config.env)
    });
    if !wait.is_zero() {
        sleep(wait).await;
    }
    poll_fn(|cx| world.step(|state, _| state.poll_link(connection, cx))).await
}

impl State {
    pub(crate) fn is_frozen(&self, connection: u64) -> bool {
        self.connections.get(&connection).is_some_and(|connection| connection.frozen)
    }

    /// Where what happens on a frozen connection waits; `None` if it is not frozen.
    pub(crate) fn backlog(&mut self, connection: u64) -> Option<&mut Vec<Timer>> {
        self.connections.get_mut(&connection).filter(|c| c.frozen).map(|c| &mut c.backlog)
    }

    pub(crate) fn open(&self, connection: u64) -> Result<()> {
        match self.connections.get(&connection) {
            Some(connection) if !connection.closed => Ok(()),
            _ => Err(Error::new(ErrorKind::Closed, "the backend is closed")),
        }
    }

    /// Whether the broker can be reached.
    pub(crate) fn link(&self, connection: u64) -> Result<()> {
        self.open(connection)?;
        if self.broker_down || self.connections.get(&connection).is_some_and(|connection| connection.cut) {
            return Err(Error::new(ErrorKind::Unavailable, "the broker cannot be reached"));
        }
        Ok(())
    }

    pub(crate) fn link_state(&self, connection: u64) -> ConnectionState {
        match self.link(connection) {
            Ok(()) => ConnectionState::Connected,
            Err(error) if error.kind() == ErrorKind::Closed => ConnectionState::Closed,
            Err(_) => ConnectionState::Disconnected,
        }
    }

    fn poll_link(&mut self, id: u64, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if let Some(connection) = self.connections.get_mut(&id).filter(|connection| connection.frozen) {
            connection.gates.retain(|gate| !gate.will_wake(cx.waker()));
            connection.gates.push(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(self.link(id))
    }

    /// Cuts a connection. Whether it was up.
    pub(crate) fn cut(&mut self, id: u64, stored: OnCut, step: &mut Step) -> bool {
        if self.link(id).is_err() {
            return false;
        }
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.cut = true;
        }
        step.faults.push(FaultKind::Cut.at(Place::connection(id)));
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
        let Some(connection) = self.connections.get_mut(&id).filter(|connection| connection.cut) else { return };
        connection.cut = false;
        step.faults.push(FaultKind::Healed.at(Place::connection(id)));
        if !self.broker_down {
            self.link_back(id, step);
        }
    }

    fn link_back(&mut self, id: u64, step: &mut Step) {
        for key in self.members_of(id) {
            self.heard(&key, step);
            self.tell_link(&key, true, step);
        }
    }

    /// A member's heartbeat comes again, unless something else keeps it from coming.
    pub(crate) fn heard(&mut self, key: &crate::timers::MemberKey, step: &mut Step) {
        let Some(member) = self.group(&key.topic, &key.group).and_then(|group| group.members.get(&key.id)) else {
            return;
        };
        let (connection, silent) = (member.connection, member.killed || member.muted);
        if silent || self.is_frozen(connection) || self.link(connection).is_err() {
            return;
        }
        if let Some(group) = self.group(&key.topic, &key.group) {
            group.speak(key.id, step);
        }
    }

    /// Stops a backend as a debugger or a suspended machine would. Whether it ran.
    pub(crate) fn freeze(&mut self, id: u64, step: &mut Step) -> bool {
        let Some(connection) = self.connections.get_mut(&id).filter(|c| !c.closed && !c.frozen) else { return false };
        connection.frozen = true;
        step.faults.push(FaultKind::Frozen.at(Place::connection(id)));
        for key in self.members_of(id) {
            if let Some((group, timers)) = self.group_and_timers(&key.topic, &key.group) {
                group.silence(key.id, timers, step);
            }
        }
        true
    }

    pub(crate) fn thaw(&mut self, id: u64, step: &mut Step) {
        let Some(connection) = self.connections.get_mut(&id).filter(|connection| connection.frozen) else { return };
        connection.frozen = false;
        step.wakers.append(&mut connection.gates);
        let backlog = std::mem::take(&mut connection.backlog);
        step.faults.push(FaultKind::Thawed.at(Place::connection(id)));
        backlog.into_iter().for_each(|timer| self.fire(timer, step));
        for key in self.members_of(id) {
            self.heard(&key, step);
            if let Some(group) = self.group(&key.topic, &key.group) {
                group.wake(key.id, step);
            }
        }
    }

    /// Takes the broker down: every connection is cut, and no session runs out until it is back.
    pub(crate) fn broker_stops(&mut self, stored: OnCut, down: Duration, step: &mut Step) {
        let up: Vec<u64> = self.connections.keys().copied().filter(|id| self.link(*id).is_ok()).collect();
        step.faults.push(FaultKind::BrokerDown.at(Place::default()));
        for id in up {
            self.link_lost(id, stored, step);
        }
        self.broker_down = true;
        self.timers.set(step.now + down, Timer::Restart);
    }

    pub(crate) fn restarted(&mut self, step: &mut Step) {
        if !std::mem::take(&mut self.broker_down) {
            return;
        }
        step.faults.push(FaultKind::BrokerUp.at(Place::default()));
        let up: Vec<u64> = self.connections.keys().copied().filter(|id| self.link(*id).is_ok()).collect();
        up.into_iter().for_each(|id| self.link_back(id, step));
        std::mem::take(&mut self.timers_after_restart).into_iter().for_each(|timer| self.fire(timer, step));
    }

    /// Closes a connection: what is outstanding is told as unknown, and members that did not leave are gone without a word.
    pub(crate) fn close(&mut self, id: u64, step: &mut Step) {
        if self.open(id).is_err() {
            return;
        }
        self.thaw(id, step);
        self.cut_flights(id, OnCut::Stored, step);
        for key in self.members_of(id) {
            self.kill_member(&key, step);
        }
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.closed = true;
        }
    }
}
