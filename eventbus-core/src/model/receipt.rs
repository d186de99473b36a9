//! What became of a publish: [`Receipt`], [`Withdrawal`].

use super::position::Position;
use super::stamp::Stamp;
use super::topic::Topic;

/// Where an envelope was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// The topic.
    pub topic: Topic,
    /// The partition.
    pub partition: u32,
    /// The position in the partition.
    pub position: Position,
    /// The broker had it already, from an earlier send of this same publish.
    pub duplicate: bool,
    /// The publish's stamp.
    pub stamp: Stamp,
}

impl Receipt {
    /// A receipt of a first copy.
    #[must_use]
    pub fn new(topic: Topic, partition: u32, position: Position, stamp: Stamp) -> Self {
        Self { topic, partition, position, duplicate: false, stamp }
    }

    /// The same, or not, as found to be stored already.
    #[must_use]
    pub fn duplicate(mut self, duplicate: bool) -> Self {
        self.duplicate = duplicate;
        self
    }
}

/// Whether a withdrawal came in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a withdrawal may come too late"]
pub enum Withdrawal {
    /// The envelope had not been handed to the broker and never will be; its outcome is `Withdrawn`.
    Withdrawn,
    /// It had been, or its outcome is known already. Nothing has changed.
    TooLate,
}
