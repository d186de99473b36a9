//! Delivery to a member: batches over all its partitions, truncations, and how far idle partitions have come.

use eventbus_core::backend::{GroupEvent, Inbound};
use tokio::time::Instant;

use crate::config::{MemoryConfig, Positions};
use crate::group::{GroupState, Ownership};
use crate::log::PartitionLog;
use crate::topic::TopicState;

impl Ownership {
    /// Room for records: no bound while the partition runs, the rest of the overshoot while it is paused.
    fn room(&self) -> usize {
        if self.paused { self.overshoot } else { usize::MAX }
    }

    fn readable(&self, log: &PartitionLog) -> bool {
        self.room() > 0 && self.reader.as_ref().is_some_and(|reader| reader.has_more(log))
    }

    fn take(&mut self, partition: u32, log: &PartitionLog, most: usize, into: &mut Vec<Inbound>) {
        let most = most.min(self.room());
        if let Some(reader) = &mut self.reader {
            let taken = reader.take(partition, log, most, into);
            if self.paused {
                self.overshoot -= taken;
            }
        }
    }
}

/// Finds the first of a member's partitions that lost undelivered records to retention.
pub(crate) fn truncated(topic: &TopicState, group: &mut GroupState, member: u64) -> Option<GroupEvent> {
    owned_logs(topic, group, member).find_map(|(partition, owner, log)| {
        let first = owner.reader.as_mut()?.truncated(log)?;
        Some(GroupEvent::Truncated { partition, first })
    })
}

/// Takes a batch of records, shared fairly among the partitions that have some.
pub(crate) fn batch(topic: &TopicState, group: &mut GroupState, member: u64, most: usize) -> Option<GroupEvent> {
    let mut readable: Vec<u32> =
        owned_logs(topic, group, member).filter(|(_, owner, log)| owner.readable(log)).map(|(p, ..)| p).collect();
    if readable.is_empty() {
        return None;
    }
    let rotation = &mut group.members.get_mut(&member)?.rotation;
    *rotation = rotation.wrapping_add(1);
    let first = *rotation % readable.len();
    readable.rotate_left(first);
    let share = (most / readable.len()).max(1);
    let mut records = Vec::new();
    // The first round gives each partition its share, the second the rest of the batch to partitions that have more.
    for share in [share, usize::MAX] {
        for partition in &readable {
            let (log, assigned) =
                (topic.logs.get(*partition as usize)?, group.partitions.get_mut(*partition as usize)?);
            let left = most - records.len();
            if let Some(owner) = assigned.owner.as_mut().filter(|_| left > 0) {
                owner.take(*partition, log, share.min(left), &mut records);
            }
        }
    }
    (!records.is_empty()).then_some(GroupEvent::Records(records))
}

/// A report to an idle partition of how far its topic has come.
pub(crate) enum Idle {
    Tell(GroupEvent),
    /// Nothing is due before this instant.
    Later(Instant),
    Nothing,
}

/// Finds a member's first idle partition that is behind the end of its log and due to hear so.
pub(crate) fn caught_up(
    topic: &TopicState,
    group: &mut GroupState,
    member: u64,
    config: &MemoryConfig,
    now: Instant,
) -> Idle {
    let mut later: Option<Instant> = None;
    for (partition, owner, log) in owned_logs(topic, group, member) {
        let Some(reader) = &mut owner.reader else { continue };
        let end = topic.end(partition as usize);
        if reader.has_more(log) || reader.next() >= end {
            continue;
        }
        let due = match (config.positions, reader.told_at()) {
            (Positions::Shared, Some(told_at)) => told_at + config.caught_up_interval,
            _ => now,
        };
        if due <= now {
            reader.caught_up(end, now);
            return Idle::Tell(GroupEvent::CaughtUp { partition, next: end });
        }
        later = Some(later.map_or(due, |earliest| earliest.min(due)));
    }
    later.map_or(Idle::Nothing, Idle::Later)
}

fn owned_logs<'a>(
    topic: &'a TopicState,
    group: &'a mut GroupState,
    member: u64,
) -> impl Iterator<Item = (u32, &'a mut Ownership, &'a PartitionLog)> {
    let slots = (0..).zip(group.partitions.iter_mut()).zip(&topic.logs);
    slots
        .filter_map(|((partition, assigned), log)| Some((partition, assigned.owner.as_mut()?, log)))
        .filter(move |(_, owner, _)| owner.member == member)
}
