//! [`Effects`]: the work that a decision under a shard's lock leaves for when the lock is gone.
//!
//! No backend, hook or waker is ever called under a lock of the lanes, since it may call the lanes again.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::driver::DriverCommand;
use super::find_stamp::StampSearch;
use super::metadata::{Partition, TopicMetadata};
use super::queues::{LaneKind, QueuedEnvelope};
use super::shard::{LaneEvent, LaneRef, TicketId};
use super::topic::TopicLanes;
use crate::backend::{Outbound, Ticket};
use crate::model::{Error, ErrorKind};
use crate::runtime::{Backoff, Jitter};

/// The effects of decisions: made before a shard is locked, [settled](Self::settle) after it was unlocked.
pub(super) struct Effects<'a> {
    pub(super) topic: &'a Arc<TopicLanes>,
    /// The shard that is locked now.
    pub(super) shard: usize,
    /// Whether the lane that is driven was given a permit which it has not used yet.
    pub(super) permit_in_hand: bool,
    /// The first partition with something to submit, nearly always the only one.
    partition: Option<Arc<Partition>>,
    more: Vec<Arc<Partition>>,
    /// The shards with something to tell, a bit each.
    telling: u64,
    /// Whether a lane in line was given a permit.
    ready: bool,
    forget: bool,
    now: Option<Instant>,
}

impl<'a> Effects<'a> {
    pub(super) fn new(topic: &'a Arc<TopicLanes>, shard: usize) -> Self {
        Self {
            topic,
            shard,
            permit_in_hand: false,
            partition: None,
            more: Vec::new(),
            telling: 0,
            ready: false,
            forget: false,
            now: None,
        }
    }

    /// Returns the instant of the decision: the clock is read once.
    pub(super) fn now(&mut self) -> Instant {
        *self.now.get_or_insert_with(Instant::now)
    }

    /// Returns the permit of a record that came back. It goes to the first lane in line.
    pub(super) fn release_permit(&mut self, kind: LaneKind) {
        self.ready |= self.topic.shared().release_permit(kind);
    }

    /// Leaves an event to be told, after all earlier events of this shard.
    pub(super) fn event(&mut self, event: LaneEvent) {
        self.topic.outbox(self.shard).push(event);
        self.telling |= 1 << self.shard;
    }

    /// Leaves a record to be submitted, after all earlier records of this partition.
    pub(super) fn submit(&mut self, partition: &Arc<Partition>, record: Outbound, ticket: Ticket) {
        partition.submissions.push((record, ticket));
        match &self.partition {
            Some(first) if Arc::ptr_eq(first, partition) => {}
            Some(_) => self.more.push(Arc::clone(partition)),
            None => self.partition = Some(Arc::clone(partition)),
        }
    }

    /// Has the lane driven again after the back-off that follows `attempt` recoveries in a row.
    pub(super) fn back_off(&mut self, lane: usize, id: u64, attempt: u32) {
        let shared = self.topic.shared();
        let at = Instant::now() + shared.resend_delay(attempt);
        let lane = LaneRef { topic: Arc::clone(self.topic), shard: self.shard, lane, id };
        shared.inbox.push(DriverCommand::BackOff(at, lane));
    }

    /// Has the log searched for the envelope's stamp.
    pub(super) fn find_stamp(&mut self, index: usize, queued: &QueuedEnvelope, metadata: &TopicMetadata) {
        let same_log = queued.incarnation == metadata.incarnation;
        let id = TicketId { shard: self.shard, index, generation: queued.generation };
        let search = StampSearch {
            partition: if same_log { queued.partition } else { metadata.partition_of(queued.envelope.key()) },
            from: if same_log { queued.from } else { crate::Position::ZERO },
            stamp: queued.completion.stamp(),
            log: Arc::clone(&metadata.log),
        };
        self.topic.shared().inbox.push(DriverCommand::FindStamp(Arc::clone(self.topic), id, search));
    }

    /// Has the topic described anew where an error says that its description is stale.
    pub(super) fn stale_metadata(&mut self, error: &Error) {
        self.forget |= matches!(error.kind(), ErrorKind::UnknownTopic | ErrorKind::TopicMismatch);
    }

    /// Carries the effects out. Not to be called under a lock.
    pub(super) fn settle(mut self) {
        let shared = self.topic.shared();
        if let Some(partition) = self.partition.take() {
            partition.submit_all(&*shared.backend);
        }
        for partition in &self.more {
            partition.submit_all(&*shared.backend);
        }
        while self.telling != 0 {
            self.topic.tell(self.telling.trailing_zeros() as usize);
            self.telling &= self.telling - 1;
        }
        if self.ready {
            shared.work_ready();
        }
        if self.forget {
            self.topic.forget_metadata();
        }
    }
}

/// Returns the wait after `attempt` failures in a row, with full jitter.
pub(super) fn delay(first: Duration, max: Duration, attempt: u32, random: u64) -> Duration {
    Backoff::exponential().initial(first).max(max).jitter(Jitter::Full).delay(attempt, random)
}
