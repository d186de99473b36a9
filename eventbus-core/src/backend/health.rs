//! What is told of a connection: [`ConnectionState`], [`Health`].

use std::fmt;

use crate::connectivity::Connectivity;

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
