//! Lanes and the records queued in them, as plain data.

use tokio::time::Instant;

use super::job::RecordBox;
use crate::model::{Key, Position};
use crate::subscribe::progress::tracker::Ordinal;

/// A queued or running record.
#[derive(Debug)]
pub(super) struct QueuedRecord {
    /// `None` while it is running, or waits for its dead letter.
    pub(super) record: Option<RecordBox>,
    pub(super) position: Position,
    pub(super) bytes: usize,
    pub(super) queued: LedgerEntry,
    pub(super) next: usize,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct LedgerEntry {
    pub(super) ordinal: Ordinal,
    pub(super) attempts: u32,
    /// Whether the record is a second copy, dropped when its turn comes (P3).
    pub(super) copy: bool,
}

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) partition: u32,
    /// The epoch that the lane belongs to: results of an earlier ownership are ignored.
    pub(super) epoch: u64,
    pub(super) hash: u64,
    pub(super) key: Option<Key>,
    pub(super) head: usize,
    pub(super) tail: usize,
    pub(super) state: LaneState,
}

impl Lane {
    #[inline]
    pub(super) fn new(partition: u32, epoch: u64, hash: u64, key: Option<Key>, item: usize) -> Self {
        Self { partition, epoch, hash, key, head: item, tail: item, state: LaneState::Ready }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LaneState {
    Ready,
    Running,
    Timed(Instant, u64),
    DeadLetter,
    Held,
}

pub(super) const NONE: usize = usize::MAX;
