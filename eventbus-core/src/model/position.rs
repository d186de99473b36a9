//! [`Position`]: a record's coordinate inside its partition.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The place of a record in its partition, as the broker counts.
///
/// Positions of one partition rise and are never used twice, but they need not be contiguous: some
/// brokers share one count among all partitions of a topic, and compaction leaves gaps everywhere.
/// So no code may conclude from two positions how many records lie between them.
///
/// Watermarks are positions too, always in the exclusive form: *the next position to be handled*.
/// Everything strictly below a watermark is finished. [`Position::MAX`] is therefore no record's
/// position: a watermark could not pass it.
///
/// ```
/// use eventbus_core::Position;
///
/// let last = Position::new(41);
/// assert_eq!(last.next(), Position::new(42));
/// assert!(last < last.next());
/// assert_eq!(last.to_string(), "41");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(u64);

impl Position {
    /// The lowest position; as a watermark it says that nothing is finished.
    pub const ZERO: Position = Position(0);

    /// The position above every record.
    pub const MAX: Position = Position(u64::MAX);

    /// Makes the position with this coordinate.
    #[must_use]
    pub const fn new(position: u64) -> Self {
        Position(position)
    }

    /// Returns the coordinate as the broker counts it.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Returns the position one above; [`Position::MAX`] stays where it is.
    #[must_use]
    pub const fn next(self) -> Self {
        Position(self.0.saturating_add(1))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<u64> for Position {
    fn from(position: u64) -> Self {
        Position(position)
    }
}

impl From<Position> for u64 {
    fn from(position: Position) -> Self {
        position.0
    }
}
