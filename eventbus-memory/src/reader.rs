//! Delivery to a member: batches over all its partitions, and what else a log can say.
//!
//! Invariant: a reader goes through its partition's records one by one in the order of positions. It passes one without
//! delivering it only where retention took it, and then says so.

use eventbus_core::Position;
use eventbus_core::backend::{Body, GroupEvent, Inbound};
use tokio::time::Instant;

use crate::config::{MemoryConfig, Positions};
use crate::group::{GroupState, Ownership};
use crate::log::PartitionLog;
use crate::topics::TopicState;

/// One delivery of one partition.
#[derive(Debug)]
pub(crate) struct Reader {
    /// The index of the next record to look at.
    index: u64,
    /// Nothing below this is left to be delivered.
    next: Position,
    /// When the member last heard how far an idle partition has come.
    told_at: Option<Instant>,
}

impl Reader {
    pub(crate) fn starting_at(log: &PartitionLog, from: Position) -> Self {
        Self { index: log.index_of(from), next: from, told_at: None }
    }

    /// Sees what retention took: the first position left, if records that were to be delivered are gone.
    fn truncated(&mut self, log: &PartitionLog) -> Option<Position> {
        if self.index >= log.base() {
            return None;
        }
        self.index = log.base();
        let lost = self.next < log.floor();
        self.next = self.next.max(log.floor());
        lost.then_some(log.floor())
    }

    fn take(&mut self, partition: u32, log: &PartitionLog, most: usize, into: &mut Vec<Inbound>) -> usize {
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

impl Ownership {
    /// How many records may be delivered now.
    fn room(&self) -> usize {
        if self.paused { self.overshoot } else { usize::MAX }
    }

    fn readable(&self, log: &PartitionLog) -> bool {
        self.room() > 0 && self.reader.as_ref().is_some_and(|reader| reader.index < log.end_index())
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

/// The first partition of a member whose log gave up records that were not delivered.
pub(crate) fn truncated(topic: &TopicState, group: &mut GroupState, member: u64) -> Option<GroupEvent> {
    owned_logs(topic, group, member).find_map(|(partition, owner, log)| {
        let first = owner.reader.as_mut()?.truncated(log)?;
        Some(GroupEvent::Truncated { partition, first })
    })
}

/// A batch of records, shared fairly among the partitions that have some.
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
    // Each partition gets its share; then what is left of the batch goes to those that have more.
    for share in [share, usize::MAX] {
        for partition in &readable {
            let (log, slot) = (topic.logs.get(*partition as usize)?, group.slots.get_mut(*partition as usize)?);
            let left = most - records.len();
            if let Some(owner) = slot.owner.as_mut().filter(|_| left > 0) {
                owner.take(*partition, log, share.min(left), &mut records);
            }
        }
    }
    (!records.is_empty()).then_some(GroupEvent::Records(records))
}

/// What an idle partition is told.
pub(crate) enum Idle {
    Tell(GroupEvent),
    /// Nothing before this.
    Later(Instant),
    Nothing,
}

/// The first idle partition of a member whose log has gone on without it.
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
        if reader.index < log.end_index() || reader.next >= end {
            continue;
        }
        let due = match (config.positions, reader.told_at) {
            (Positions::Shared, Some(told_at)) => told_at + config.caught_up_interval,
            _ => now,
        };
        if due <= now {
            reader.told_at = Some(now);
            reader.next = end;
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
    let slots = (0..).zip(group.slots.iter_mut()).zip(&topic.logs);
    slots
        .filter_map(|((partition, slot), log)| Some((partition, slot.owner.as_mut()?, log)))
        .filter(move |(_, owner, _)| owner.member == member)
}
