//! What is told of a connection: [`ConnectionState`], [`Health`].

use std::fmt;

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
