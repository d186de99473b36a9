//! Modes: what is done to the connections of a proxy as a whole, in either direction.

use std::time::Duration;

/// One way through the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Direction {
    /// What the client sends.
    ToBroker,
    /// What the broker sends.
    ToClient,
}

/// What a proxy does to its connections now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mode {
    /// Counts cuts: a link that was made under another count ends.
    pub(super) cuts: u64,
    /// No new links.
    pub(super) closed: bool,
    /// Nothing is read from the client, or from the broker: connections stay.
    pub(super) stopped: [bool; 2],
    /// What passes is thrown away.
    pub(super) deaf: [bool; 2],
    /// What passes waits so long.
    pub(super) delay: [Duration; 2],
}

impl Mode {
    pub(super) const fn of(direction: Direction) -> usize {
        match direction {
            Direction::ToBroker => 0,
            Direction::ToClient => 1,
        }
    }
}
