//! Inspection of the pool: the state of each partition, and which of them stall.

use std::time::Duration;

use tokio::time::Instant;

use super::partition::Partition;
use super::{Pool, PoolState};
use crate::model::{Key, Position};

/// State of one partition, for inspection.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PartitionView {
    /// The partition.
    pub partition: u32,
    /// The ownership epoch.
    pub epoch: u64,
    /// The next position to be handled: everything below is finished.
    pub watermark: Position,
    /// The newest delivered position.
    pub newest: Option<Position>,
    /// Delivered and unfinished records.
    pub unfinished: usize,
    /// The bytes of those records.
    pub bytes: usize,
    /// Running handlers.
    pub running: usize,
    /// The oldest unfinished position, and how long it has been the oldest.
    pub head: Option<(Position, Duration)>,
    /// The key of that record; `None` where it has none.
    pub head_key: Option<Key>,
    /// Whether intake has stopped because the window or the bytes are used up.
    pub full: bool,
    /// Whether the backend vouches for the ownership, so that handlers may start.
    pub lease_valid: bool,
    /// Whether envelopes are handled one at a time, after unclean starts.
    pub one_at_a_time: bool,
}

impl Pool {
    pub(crate) fn view(&self, now: Instant) -> Vec<PartitionView> {
        let state = self.state.lock();
        state.partitions.values().map(|owned| state.view_of(owned, now)).collect()
    }

    /// Returns partitions whose oldest unfinished record has been so for `after`, once for each record.
    pub(crate) fn stalled(&self, after: Duration, now: Instant) -> Vec<PartitionView> {
        let mut state = self.state.lock();
        let mut stalled = Vec::new();
        for owned in state.partitions.values_mut() {
            if let Some((position, since)) = owned.head_since
                && now.duration_since(since) >= after
                && owned.stall_reported != Some(position)
            {
                owned.stall_reported = Some(position);
                stalled.push(owned.context.partition);
            }
        }
        stalled.iter().filter_map(|p| state.partitions.get(*p)).map(|owned| state.view_of(owned, now)).collect()
    }
}

impl PoolState {
    fn view_of(&self, owned: &Partition, now: Instant) -> PartitionView {
        let head = owned.head_since;
        PartitionView {
            partition: owned.context.partition,
            epoch: owned.context.epoch,
            watermark: owned.tracker.watermark(),
            newest: owned.newest,
            unfinished: owned.tracker.outstanding(),
            bytes: owned.bytes,
            running: owned.running,
            head: head.map(|(position, since)| (position, now.duration_since(since))),
            head_key: head.and_then(|(position, _)| self.key_at(owned.context.partition, position)),
            full: owned.full,
            lease_valid: owned.lease.is_valid(),
            one_at_a_time: owned.alone.is_some(),
        }
    }

    /// Returns the key of a lane's head, found by a search: inspection is rare.
    fn key_at(&self, partition: u32, position: Position) -> Option<Key> {
        let mut lanes = self.lanes.iter().map(|(_, lane)| lane).filter(|lane| lane.partition == partition);
        lanes.find(|lane| self.items[lane.head].position == position).and_then(|lane| lane.key.clone())
    }
}
