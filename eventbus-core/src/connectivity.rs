//! The state of a backend's connection, for everybody who relies on it.
//!
//! Invariants: what was closed stays closed; and the count of breaks rises with every loss, before the state does.

use tokio::sync::watch;

use crate::backend::ConnectionState;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};

/// The state of one connection, which a backend keeps: what its client says goes in, and the bus, its members and
/// [`health`](crate::backend::Backend::health) read it. Begins as disconnected.
///
/// ```
/// use eventbus_core::{Connectivity, ConnectionState};
///
/// let connection = Connectivity::default();
/// connection.connected();
/// let before = connection.breaks();
/// connection.lost();
/// assert_eq!((connection.state(), connection.breaks()), (ConnectionState::Disconnected, before + 1));
/// connection.closed();
/// connection.connected();
/// assert_eq!(connection.state(), ConnectionState::Closed);
/// ```
#[derive(Debug)]
pub struct Connectivity {
    state: watch::Sender<ConnectionState>,
    breaks: AtomicU64,
    trouble: Mutex<Option<String>>,
}

impl Default for Connectivity {
    fn default() -> Self {
        let state = watch::Sender::new(ConnectionState::Disconnected);
        Self { state, breaks: AtomicU64::new(0), trouble: Mutex::new(None) }
    }
}

impl Connectivity {
    /// There is a connection. What was in its way is forgotten.
    pub fn connected(&self) {
        *self.trouble.lock() = None;
        self.becomes(ConnectionState::Connected);
    }

    /// There is none any more. Call it before anything of the next connection arrives.
    pub fn lost(&self) {
        self.breaks.fetch_add(1, Ordering::AcqRel);
        self.becomes(ConnectionState::Disconnected);
    }

    /// It was closed, for good.
    pub fn closed(&self) {
        self.becomes(ConnectionState::Closed);
    }

    /// An attempt to connect again came to nothing. No secret may be in `why`.
    pub fn failed(&self, why: String) {
        *self.trouble.lock() = Some(why);
    }

    fn becomes(&self, state: ConnectionState) {
        self.state.send_if_modified(|now| {
            let changes = *now != state && *now != ConnectionState::Closed;
            if changes {
                *now = state;
            }
            changes
        });
    }

    /// The state now.
    #[must_use]
    pub fn state(&self) -> ConnectionState {
        *self.state.borrow()
    }

    /// The state, and every change of it.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<ConnectionState> {
        self.state.subscribe()
    }

    /// How often it was lost: the same before and after something says that there was no break between.
    #[must_use]
    pub fn breaks(&self) -> u64 {
        self.breaks.load(Ordering::Acquire)
    }

    /// Why there is no connection, as far as that is known.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_counted_before_it_is_seen_and_the_same_state_is_no_change() {
        let connection = Connectivity::default();
        let mut seen = connection.watch();
        connection.connected();
        assert!(seen.has_changed().unwrap());
        seen.mark_unchanged();
        connection.connected();
        assert!(!seen.has_changed().unwrap());
        connection.lost();
        connection.lost();
        assert_eq!((connection.breaks(), *seen.borrow_and_update()), (2, ConnectionState::Disconnected));
        connection.failed("refused".into());
        assert_eq!(connection.trouble().as_deref(), Some("refused"));
        connection.connected();
        assert_eq!(connection.trouble(), None);
    }

    #[test]
    fn what_was_closed_stays_closed() {
        let connection = Connectivity::default();
        connection.closed();
        connection.connected();
        connection.lost();
        assert_eq!(connection.state(), ConnectionState::Closed);
    }
}
