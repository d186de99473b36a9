//! Connectivity: the state of a backend's connection, for all that rely on it.
//!
//! Invariants: a closed connection stays closed; and the count of breaks rises with every loss, before the state
//! changes.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Weak};
use std::time::Duration;

use metrics::gauge;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::backend::{ConnectionState, Health};
use crate::model::Result;
use crate::runtime::Mutex;
use crate::runtime::sync::atomic::{AtomicU64, Ordering};

const DENIALS: usize = 64;

/// Listener that must know at once of a lost connection, such as a producer with records sent and not answered.
pub trait OnConnection: fmt::Debug + Send + Sync {
    /// The connection was lost: records sent and not answered may have been stored.
    fn lost(self: Arc<Self>);

    /// The broker did not let the bus use this, and does not say for which request.
    fn denied(self: Arc<Self>, what: &str);
}

/// The state of one connection, kept by a backend. The backend enters what its client reports; the bus, the members and
/// [`health`](crate::backend::Backend::health) read it. Begins as disconnected.
///
/// ```
/// use eventbus_core::ConnectionState;
/// use eventbus_core::toolkit::Connectivity;
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
    /// The names that the broker did not let the bus use, newest last.
    denied: Mutex<VecDeque<(Instant, String)>>,
    listener: Option<Weak<dyn OnConnection>>,
}

impl Default for Connectivity {
    fn default() -> Self {
        let state = watch::Sender::new(ConnectionState::Disconnected);
        let (trouble, denied) = (Mutex::new(None), Mutex::new(VecDeque::new()));
        Self { state, breaks: AtomicU64::new(0), trouble, denied, listener: None }
    }
}

impl Connectivity {
    /// Makes a state with a listener, which is told as long as it exists.
    #[must_use]
    pub fn heard_by(listener: Weak<dyn OnConnection>) -> Self {
        Self { listener: Some(listener), ..Self::default() }
    }

    fn listener(&self) -> Option<Arc<dyn OnConnection>> {
        self.listener.as_ref()?.upgrade()
    }

    /// Marks the connection as up, and forgets why it was down.
    pub fn connected(&self) {
        *self.trouble.lock() = None;
        self.becomes(ConnectionState::Connected);
    }

    /// Marks the connection as lost. The backend must call this before anything of the next connection arrives.
    pub fn lost(&self) {
        self.breaks.fetch_add(1, Ordering::AcqRel);
        self.becomes(ConnectionState::Disconnected);
        if let Some(listener) = self.listener() {
            listener.lost();
        }
    }

    /// Sets the state for a client that reports only whether it has a connection: only a change counts.
    pub fn set(&self, up: bool) {
        match (self.state(), up) {
            (ConnectionState::Connected, false) => self.lost(),
            (ConnectionState::Disconnected, true) => self.connected(),
            _ => {}
        }
    }

    /// Records that the broker did not let the bus use this. The last 64 denials are remembered.
    pub fn denied(&self, what: &str) {
        {
            let mut denied = self.denied.lock();
            if denied.len() == DENIALS {
                denied.pop_front();
            }
            denied.push_back((Instant::now(), what.to_owned()));
        }
        if let Some(listener) = self.listener() {
            listener.denied(what);
        }
    }

    /// Returns whether a use of this was denied since then: permissions change.
    #[must_use]
    pub fn denied_since(&self, what: &str, since: Instant) -> bool {
        self.denied.lock().iter().any(|(when, denied)| *when >= since && denied == what)
    }

    /// Marks the connection as closed, for good.
    pub fn closed(&self) {
        self.becomes(ConnectionState::Closed);
    }

    /// Records why an attempt to connect again failed. `why` must hold no secret.
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

    /// Returns the state now.
    #[must_use]
    pub fn state(&self) -> ConnectionState {
        *self.state.borrow()
    }

    /// Subscribes to the state and its changes.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<ConnectionState> {
        self.state.subscribe()
    }

    /// Counts the losses so far: the same count before and after a step says that there was no break in between.
    #[must_use]
    pub fn breaks(&self) -> u64 {
        self.breaks.load(Ordering::Acquire)
    }

    /// Asks twice, with this pause in between, and returns an answer only if both were definite and the connection did
    /// not break: a broker that recovers gives wrong answers for a moment. Else returns `None`, which is also what
    /// `ask` returns for an answer that is not definite. Cancel safe.
    pub async fn told_twice<T, F>(&self, pause: Duration, mut ask: impl FnMut() -> F) -> Option<T>
    where
        F: Future<Output = Option<T>>,
    {
        let before = self.breaks();
        ask().await?;
        if self.breaks() != before {
            return None;
        }
        tokio::time::sleep(pause).await;
        let told = ask().await?;
        (self.breaks() == before).then_some(told)
    }

    /// Returns why there is no connection, if that is known.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().clone()
    }

    /// Reports what is known without asking, for [`health`](crate::backend::Backend::health): the state, the number of
    /// losses (`breaks`), and why there is no connection (`connection_error`).
    ///
    /// ```
    /// use eventbus_core::ConnectionState;
    /// use eventbus_core::toolkit::Connectivity;
    ///
    /// let connection = Connectivity::default();
    /// connection.lost();
    /// connection.failed("refused".into());
    /// let health = connection.health();
    /// assert_eq!(health.connection, ConnectionState::Disconnected);
    /// assert_eq!(health.details, [("breaks", "1"), ("connection_error", "refused")].map(|(n, v)| (n.into(), v.into())));
    /// ```
    #[must_use]
    pub fn health(&self) -> Health {
        let mut health = Health::new(self.state());
        health.detail("breaks", self.breaks());
        if let Some(trouble) = self.trouble() {
            health.detail("connection_error", trouble);
        }
        health
    }

    /// Reports what a broker's answer says of it and of the connection: its name and these facts, or why there is no
    /// answer (`error`). Sets the state by the answer.
    ///
    /// ```
    /// use eventbus_core::ConnectionState;
    /// use eventbus_core::toolkit::Connectivity;
    ///
    /// let connection = Connectivity::default();
    /// let health = connection.answered("broker 1.0", Ok([("topics", 3)]));
    /// assert_eq!((health.connection, health.server.as_deref()), (ConnectionState::Connected, Some("broker 1.0")));
    /// assert_eq!(health.details, [("breaks", "0"), ("topics", "3")].map(|(n, v)| (n.into(), v.into())));
    /// ```
    pub fn answered<V: fmt::Display>(
        &self,
        server: &str,
        answer: Result<impl IntoIterator<Item = (&'static str, V)>>,
    ) -> Health {
        match &answer {
            Ok(_) => self.connected(),
            Err(_) => self.set(false),
        }
        let mut health = self.health();
        match answer {
            Ok(facts) => {
                health.server = Some(server.to_owned());
                facts.into_iter().for_each(|(name, value)| health.detail(name, value));
            }
            Err(error) => health.detail("error", error),
        }
        health
    }
}

/// Publishes figures that a broker's client reports of itself, as gauges `eventbus.client.NAME` with the labels
/// `messaging.system` and `messaging.client.id`. For backends whose client has such figures.
///
/// ```
/// eventbus_core::toolkit::client_statistics("kafka", "billing-1", &[("queue.messages", 3.0), ("queue.bytes", 768.0)]);
/// ```
pub fn client_statistics(system: &'static str, client: &str, figures: &[(&'static str, f64)]) {
    for (name, value) in figures {
        let client = client.to_owned();
        gauge!(format!("eventbus.client.{name}"), "messaging.system" => system, "messaging.client.id" => client)
            .set(*value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Error, ErrorKind};

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

    /// Calls to the listener, in order.
    #[derive(Debug, Default)]
    struct Heard(Mutex<Vec<String>>);

    impl OnConnection for Heard {
        fn lost(self: Arc<Self>) {
            self.0.lock().push("lost".into());
        }

        fn denied(self: Arc<Self>, what: &str) {
            self.0.lock().push(format!("denied {what}"));
        }
    }

    #[test]
    fn who_listens_is_told_at_once_as_long_as_it_is_there() {
        let heard = Arc::new(Heard::default());
        let listener: Weak<Heard> = Arc::downgrade(&heard);
        let connection = Connectivity::heard_by(listener);
        connection.connected();
        connection.lost();
        connection.denied("a");
        assert_eq!(*heard.0.lock(), ["lost", "denied a"]);
        drop(heard);
        connection.lost();
        connection.denied("b");
        assert_eq!(connection.breaks(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_denial_is_remembered_with_its_time_and_the_oldest_are_forgotten() {
        let (connection, begun) = (Connectivity::default(), Instant::now());
        connection.denied("a");
        assert!(connection.denied_since("a", begun) && !connection.denied_since("b", begun));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!connection.denied_since("a", Instant::now()));
        (1..DENIALS).for_each(|_| connection.denied("b"));
        assert!(connection.denied_since("a", begun));
        connection.denied("b");
        assert!(!connection.denied_since("a", begun) && connection.denied_since("b", begun));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_told_once_or_over_a_break_is_not_believed() {
        let (connection, begun) = (Connectivity::default(), Instant::now());
        let pause = Duration::from_secs(1);
        assert_eq!(connection.told_twice(pause, || async { Some("gone") }).await, Some("gone"));
        assert_eq!(begun.elapsed(), pause);
        for (number, told) in [(1, [None, Some("gone")]), (2, [Some("gone"), None])] {
            let mut answers = told.into_iter();
            let told = connection.told_twice(pause, || std::future::ready(answers.next().unwrap())).await;
            assert_eq!((told, answers.len()), (None, 2 - number));
        }
        for broken in [1, 2] {
            let mut asked = 0;
            let told = connection.told_twice(pause, || {
                asked += 1;
                if asked == broken {
                    connection.lost();
                }
                std::future::ready(Some("gone"))
            });
            assert_eq!((told.await, asked), (None, broken));
        }
    }

    #[test]
    fn only_a_change_is_a_loss() {
        let connection = Connectivity::default();
        connection.set(false);
        assert_eq!(connection.breaks(), 0);
        for up in [true, true, false, false, true] {
            connection.set(up);
        }
        assert_eq!((connection.state(), connection.breaks()), (ConnectionState::Connected, 1));
        connection.closed();
        connection.set(false);
        assert_eq!((connection.state(), connection.breaks()), (ConnectionState::Closed, 1));
    }

    #[test]
    fn what_was_closed_stays_closed() {
        let connection = Connectivity::default();
        connection.closed();
        connection.connected();
        connection.lost();
        assert_eq!(connection.state(), ConnectionState::Closed);
    }

    #[test]
    fn an_answer_is_a_connection_and_none_is_a_loss() {
        let connection = Connectivity::default();
        connection.failed("refused".into());
        let up = connection.answered("b", Ok([("n", 1)]));
        assert!(up.is_up() && up.details.iter().all(|(name, _)| name != "connection_error"), "{up:?}");
        let answer: Result<[(&str, u8); 0]> = Err(Error::new(ErrorKind::Unavailable, "silent"));
        let down = connection.answered("b", answer);
        assert_eq!((down.is_up(), down.server.as_deref()), (false, None));
        let error = ("error".to_owned(), "unavailable: silent".to_owned());
        assert_eq!(down.details, [("breaks".to_owned(), "1".to_owned()), error]);
    }
}
