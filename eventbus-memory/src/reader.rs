//! A reader: how far the delivery of one partition has come.
//!
//! Invariant: a reader goes through its partition's records one by one in the order of positions. It passes a record
//! without delivering it only where retention took the record, and then says so.

use eventbus_core::Position;
use eventbus_core::backend::{Body, Inbound};
use tokio::time::Instant;

use crate::log::PartitionLog;

/// One delivery of one partition.
#[derive(Debug)]
pub(crate) struct Reader {
    /// The index of the next record to look at.
    index: u64,
    /// The position below which nothing is left to be delivered.
    next: Position,
    /// The time at which the member last heard how far its idle partition has come.
    told_at: Option<Instant>,
}

impl Reader {
    pub(crate) fn starting_at(log: &PartitionLog, from: Position) -> Self {
        Self { index: log.index_of(from), next: from, told_at: None }
    }

    /// The position below which nothing is left to be delivered.
    pub(crate) fn next(&self) -> Position {
        self.next
    }

    pub(crate) fn told_at(&self) -> Option<Instant> {
        self.told_at
    }

    /// Whether the log holds records that were not looked at.
    pub(crate) fn has_more(&self, log: &PartitionLog) -> bool {
        self.index < log.end_index()
    }

    /// Notes that the member is told how far its idle partition has come.
    pub(crate) fn caught_up(&mut self, end: Position, now: Instant) {
        self.told_at = Some(now);
        self.next = end;
    }

    /// Catches up with retention. Returns the first position left, if records that were to be delivered are gone.
    pub(crate) fn truncated(&mut self, log: &PartitionLog) -> Option<Position> {
        if self.index >= log.base() {
            return None;
        }
        self.index = log.base();
        let lost = self.next < log.floor();
        self.next = self.next.max(log.floor());
        lost.then_some(log.floor())
    }

    pub(crate) fn take(&mut self, partition: u32, log: &PartitionLog, most: usize, into: &mut Vec<Inbound>) -> usize {
        let mut taken = 0;
        while taken < most
            && let Some(record) = log.at(self.index)
        {
            self.index += 1;
            if record.position < self.next {
                continue;
            }
            self.next = record.position.next();
            let body = Body::Envelope(record.envelope.clone());
            into.push(Inbound::new(partition, record.position, record.stored_at, body).stamped(Some(record.stamp)));
            taken += 1;
        }
        taken
    }
}
