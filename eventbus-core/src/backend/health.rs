//! What is told of a connection: [`ConnectionState`], [`Health`].

use std::fmt;

use crate::connectivity::Connectivity;
use crate::error::Result;

/// State of the connection to the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionState {
    /// Connected, or nothing to connect to.
    Connected,
    /// Not connected; the backend goes on trying.
    Disconnected,
    /// Closed by us.
    Closed,
}

/// What [`EventBus::health`](crate::EventBus::health) reports.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// The connection.
    pub connection: ConnectionState,
    /// The broker's own name and version, as it tells them.
    pub server: Option<String>,
    /// Facts worth reading: limits, warnings.
    pub details: Vec<(String, String)>,
}

impl Health {
    /// A state without details.
    #[must_use]
    pub fn new(connection: ConnectionState) -> Self {
        Self { connection, server: None, details: Vec::new() }
    }

    /// What is known of a connection without asking: its state, how often it was lost (`breaks`), and why there is none
    /// (`connection_error`).
    ///
    /// ```
    /// use eventbus_core::{ConnectionState, Connectivity, Health};
    ///
    /// let connection = Connectivity::default();
    /// connection.lost();
    /// connection.failed("refused".into());
    /// let health = Health::of(&connection);
    /// assert_eq!(health.connection, ConnectionState::Disconnected);
    /// assert_eq!(health.details, [("breaks", "1"), ("connection_error", "refused")].map(|(n, v)| (n.into(), v.into())));
    /// ```
    #[must_use]
    pub fn of(connection: &Connectivity) -> Self {
        let mut health = Self::new(connection.state());
        health.detail("breaks", connection.breaks());
        if let Some(trouble) = connection.trouble() {
            health.detail("connection_error", trouble);
        }
        health
    }

    /// What a broker's answer says of it and of the connection: its name, and these facts; or that there is no answer, and why
    /// (`error`).
    ///
    /// ```
    /// use eventbus_core::{ConnectionState, Connectivity, Health};
    ///
    /// let connection = Connectivity::default();
    /// let health = Health::answered(&connection, "broker 1.0", Ok([("topics", 3)]));
    /// assert_eq!((health.connection, health.server.as_deref()), (ConnectionState::Connected, Some("broker 1.0")));
    /// assert_eq!(health.details, [("breaks", "0"), ("topics", "3")].map(|(n, v)| (n.into(), v.into())));
    /// ```
    pub fn answered<V: fmt::Display>(
        connection: &Connectivity,
        server: &str,
        answer: Result<impl IntoIterator<Item = (&'static str, V)>>,
    ) -> Self {
        match &answer {
            Ok(_) => connection.connected(),
            Err(_) => connection.set(false),
        }
        let mut health = Self::of(connection);
        match answer {
            Ok(facts) => {
                health.server = Some(server.to_owned());
                facts.into_iter().for_each(|(name, value)| health.detail(name, value));
            }
            Err(error) => health.detail("error", error),
        }
        health
    }

    /// Adds a fact.
    pub fn detail(&mut self, name: impl Into<String>, value: impl fmt::Display) {
        self.details.push((name.into(), value.to_string()));
    }

    /// Whether the broker answered.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.connection == ConnectionState::Connected
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, ErrorKind};

    #[test]
    fn an_answer_is_a_connection_and_none_is_a_loss() {
        let connection = Connectivity::default();
        connection.failed("refused".into());
        let up = Health::answered(&connection, "b", Ok([("n", 1)]));
        assert!(up.is_up() && up.details.iter().all(|(name, _)| name != "connection_error"), "{up:?}");
        let answer: Result<[(&str, u8); 0]> = Err(Error::new(ErrorKind::Unavailable, "silent"));
        let down = Health::answered(&connection, "b", answer);
        assert_eq!((down.is_up(), down.server.as_deref()), (false, None));
        let error = ("error".to_owned(), "unavailable: silent".to_owned());
        assert_eq!(down.details, [("breaks".to_owned(), "1".to_owned()), error]);
    }
}
