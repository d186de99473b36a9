//! Modes: faults of a proxy's connections as a whole, in either direction.

use std::time::Duration;

/// One way through the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Direction {
    /// From the client to the broker.
    ToBroker,
    /// From the broker to the client.
    ToClient,
}

/// The mode of a proxy's connections now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mode {
    /// Counts cuts: a link that was made under another count ends.
    pub(super) cuts: u64,
    /// Whether new links are refused.
    pub(super) closed: bool,
    /// Whether nothing is read from the client, or from the broker: connections stay.
    pub(super) stopped: [bool; 2],
    /// Whether passing bytes are thrown away.
    pub(super) deaf: [bool; 2],
    /// The delay of passing bytes.
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
