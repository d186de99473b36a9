//! Connections to a world: whether each is up, cut, frozen or closed.

use std::collections::BTreeMap;
use std::task::{Context, Poll, Waker};

use eventbus_core::backend::ConnectionState;
use eventbus_core::{Error, ErrorKind, Result};

use crate::timers::Timer;

#[derive(Debug, Default)]
pub(crate) struct Connection {
    pub(crate) closed: bool,
    pub(crate) cut: bool,
    pub(crate) frozen: bool,
    /// Timers that ran out during a freeze; they fire at the thaw.
    pub(crate) backlog: Vec<Timer>,
    /// Calls that wait for the end of a freeze.
    pub(crate) gates: Vec<Waker>,
}

/// All connections by number, and whether the broker is down.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    by_id: BTreeMap<u64, Connection>,
    pub(crate) broker_down: bool,
}

impl Connections {
    pub(crate) fn add(&mut self, id: u64) {
        self.by_id.insert(id, Connection::default());
    }

    pub(crate) fn get_mut(&mut self, id: u64) -> Option<&mut Connection> {
        self.by_id.get_mut(&id)
    }

    pub(crate) fn ids(&self) -> Vec<u64> {
        self.by_id.keys().copied().collect()
    }

    /// The connections over which the broker can be reached.
    pub(crate) fn up(&self) -> Vec<u64> {
        self.by_id.keys().copied().filter(|id| self.link(*id).is_ok()).collect()
    }

    pub(crate) fn is_frozen(&self, id: u64) -> bool {
        self.by_id.get(&id).is_some_and(|connection| connection.frozen)
    }

    /// The backlog of a frozen connection, which takes timers until the thaw; `None` if it is not frozen.
    pub(crate) fn backlog(&mut self, id: u64) -> Option<&mut Vec<Timer>> {
        self.by_id.get_mut(&id).filter(|connection| connection.frozen).map(|connection| &mut connection.backlog)
    }

    pub(crate) fn open(&self, id: u64) -> Result<()> {
        match self.by_id.get(&id) {
            Some(connection) if !connection.closed => Ok(()),
            _ => Err(Error::new(ErrorKind::Closed, "the backend is closed")),
        }
    }

    /// Checks that the broker can be reached: `Closed` or `Unavailable` if not.
    pub(crate) fn link(&self, id: u64) -> Result<()> {
        self.open(id)?;
        if self.broker_down || self.by_id.get(&id).is_some_and(|connection| connection.cut) {
            return Err(Error::new(ErrorKind::Unavailable, "the broker cannot be reached"));
        }
        Ok(())
    }

    pub(crate) fn link_state(&self, id: u64) -> ConnectionState {
        match self.link(id) {
            Ok(()) => ConnectionState::Connected,
            Err(error) if error.kind() == ErrorKind::Closed => ConnectionState::Closed,
            Err(_) => ConnectionState::Disconnected,
        }
    }

    /// Polls for the answer of [`link`](Self::link), and waits while the connection is frozen.
    pub(crate) fn poll_link(&mut self, id: u64, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if let Some(connection) = self.by_id.get_mut(&id).filter(|connection| connection.frozen) {
            connection.gates.retain(|gate| !gate.will_wake(cx.waker()));
            connection.gates.push(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(self.link(id))
    }
}
