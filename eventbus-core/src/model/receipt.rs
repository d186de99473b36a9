//! [`Receipt`] of a stored publish, and [`Withdrawal`] of a cancelled one.

use super::position::Position;
use super::stamp::Stamp;
use super::topic::Topic;

/// The receipt of a stored envelope: its place in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// The topic that the envelope was published to.
    pub topic: Topic,
    /// The partition that stores the envelope.
    pub partition: u32,
    /// The position in that partition.
    pub position: Position,
    /// Whether the broker had the envelope already, from an earlier send of this same publish.
    pub duplicate: bool,
    /// The publish's stamp, the same on every re-send.
    pub stamp: Stamp,
}

impl Receipt {
    /// Makes the receipt of a first copy.
    #[must_use]
    pub fn new(topic: Topic, partition: u32, position: Position, stamp: Stamp) -> Self {
        Self { topic, partition, position, duplicate: false, stamp }
    }

    /// Sets whether the envelope was found to be stored already.
    #[must_use]
    pub fn duplicate(mut self, duplicate: bool) -> Self {
        self.duplicate = duplicate;
        self
    }
}

/// The answer to a cancellation: whether it came in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a withdrawal may come too late"]
pub enum Withdrawal {
    /// The envelope is certainly not stored and never will be; its outcome is `Withdrawn`.
    Withdrawn,
    /// The envelope is with the broker or may be stored, or its outcome is known already. Nothing has changed.
    TooLate,
}
