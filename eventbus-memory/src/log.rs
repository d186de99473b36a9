//! One partition's log.
//!
//! Invariants: positions rise strictly; records leave only at the front; `floor` is above every record that left. A
//! record also has an *index*, its number in the partition since the beginning, so that a reader finds its place
//! without a search whether or not positions have gaps.

use std::collections::VecDeque;

use eventbus_core::{Envelope, Position, Stamp};

/// A stored record: the envelope itself, shared and never encoded.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) position: Position,
    /// The record's number in its topic, in the order of storing, for retention.
    pub(crate) serial: u64,
    /// Milliseconds since the Unix epoch.
    pub(crate) stored_at: u64,
    pub(crate) bytes: usize,
    pub(crate) stamp: Stamp,
    pub(crate) envelope: Envelope,
}

#[derive(Debug, Default)]
pub(crate) struct PartitionLog {
    records: VecDeque<Stored>,
    /// The index of the first record held.
    base: u64,
    /// A position above every record that was removed.
    floor: Position,
    /// The position one above the newest record ever stored.
    end: Position,
}

impl PartitionLog {
    pub(crate) fn starting_at(first: Position) -> Self {
        Self { floor: first, end: first, ..Self::default() }
    }

    pub(crate) fn push(&mut self, record: Stored) {
        debug_assert!(record.position >= self.end, "positions rise");
        self.end = record.position.next();
        self.records.push_back(record);
    }

    pub(crate) fn pop(&mut self) -> Option<Stored> {
        let record = self.records.pop_front()?;
        self.base += 1;
        self.floor = record.position.next();
        Some(record)
    }

    pub(crate) fn front(&self) -> Option<&Stored> {
        self.records.front()
    }

    pub(crate) fn records(&self) -> impl Iterator<Item = &Stored> {
        self.records.iter()
    }

    pub(crate) fn len(&self) -> u64 {
        self.records.len() as u64
    }

    pub(crate) fn floor(&self) -> Position {
        self.floor
    }

    pub(crate) fn end(&self) -> Position {
        self.end
    }

    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    /// The index that the next record gets.
    pub(crate) fn end_index(&self) -> u64 {
        self.base + self.len()
    }

    /// The record with this index, if it is held.
    pub(crate) fn at(&self, index: u64) -> Option<&Stored> {
        self.records.get(usize::try_from(index.checked_sub(self.base)?).ok()?)
    }

    /// The index of the first record held at or above a position.
    pub(crate) fn index_of(&self, position: Position) -> u64 {
        self.base + self.records.partition_point(|record| record.position < position) as u64
    }

    /// The position of the first record stored at or after a time.
    pub(crate) fn first_stored_at(&self, unix_millis: u64) -> Option<Position> {
        let index = self.records.partition_point(|record| record.stored_at < unix_millis);
        self.records.get(index).map(|record| record.position)
    }

    /// The position of the first record at or above `from` with this stamp.
    pub(crate) fn find(&self, from: Position, stamp: Stamp) -> Option<Position> {
        let start = usize::try_from(self.index_of(from) - self.base).unwrap_or(usize::MAX);
        self.records.range(start.min(self.records.len())..).find(|r| r.stamp == stamp).map(|r| r.position)
    }

    /// Counts the records held at or above a position.
    pub(crate) fn count_from(&self, position: Position) -> u64 {
        self.end_index() - self.index_of(position)
    }
}
