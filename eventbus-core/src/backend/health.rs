//! Health of a connection: [`ConnectionState`], [`Health`].

use std::fmt;

/// State of the connection to the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionState {
    /// Connected, or nothing to connect to.
    Connected,
    /// No connection; the backend goes on trying.
    Disconnected,
    /// Closed by the bus.
    Closed,
}

/// Health of the bus, as [`EventBus::health`](crate::EventBus::health) reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// The state of the connection.
    pub connection: ConnectionState,
    /// The broker's own name and version, as the broker tells them.
    pub server: Option<String>,
    /// Further facts for operators, by name: limits, warnings.
    pub details: Vec<(String, String)>,
}

impl Health {
    /// Makes a report without details.
    #[must_use]
    pub fn new(connection: ConnectionState) -> Self {
        Self { connection, server: None, details: Vec::new() }
    }

    /// Adds a detail.
    pub fn detail(&mut self, name: impl Into<String>, value: impl fmt::Display) {
        self.details.push((name.into(), value.to_string()));
    }

    /// Returns whether the broker answered.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.connection == ConnectionState::Connected
    }
}
