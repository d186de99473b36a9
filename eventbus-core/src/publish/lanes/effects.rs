//! What a decision under a shard's lock leaves to be done when the lock is gone.
//!
//! No backend, hook or waker is ever called under a lock of the lanes: they may come back in.

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

/// Made before a shard is locked, [settled](Self::settle) after it was unlocked.
pub(super) struct Effects<'a> {
    pub(super) topic: &'a Arc<TopicLanes>,
    /// The shard that is locked now.
    pub(super) shard: usize,
    /// A permit that came to the lane which is driven.
    pub(super) permit_in_hand: bool,
    /// Partitions with something to submit; nearly always one.
    partition: Option<Arc<Partition>>,
    more: Vec<Arc<Partition>>,
    /// Shards with something to tell, a bit each.
    telling: u64,
    /// Somebody was given a permit.
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

    /// The time of what is decided: the clock is read once.
    pub(super) fn now(&mut self) -> Instant {
        *self.now.get_or_insert_with(Instant::now)
    }

    /// A record came back: its permit goes to who stands in line.
    pub(super) fn release_permit(&mut self, kind: LaneKind) {
        self.ready |= self.topic.shared().release_permit(kind);
    }

    /// To be told, after all that was to be told of this shard before.
    pub(super) fn event(&mut self, event: LaneEvent) {
        self.topic.outbox(self.shard).push(event);
        self.telling |= 1 << self.shard;
    }

    /// To be submitted, after all that was to be submitted to this partition before.
    pub(super) fn submit(&mut self, partition: &Arc<Partition>, record: Outbound, ticket: Ticket) {
        partition.submissions.push((record, ticket));
        match &self.partition {
            Some(first) if Arc::ptr_eq(first, partition) => {}
            Some(_) => self.more.push(Arc::clone(partition)),
            None => self.partition = Some(Arc::clone(partition)),
        }
    }

    /// To be driven again after the back-off that follows so many recoveries.
    pub(super) fn back_off(&mut self, lane: usize, id: u64, attempt: u32) {
        let engine = self.topic.shared();
        let at = Instant::now() + engine.resend_delay(attempt);
        let lane = LaneRef { topic: Arc::clone(self.topic), shard: self.shard, lane, id };
        engine.inbox.push(DriverCommand::BackOff(at, lane));
    }

    /// To be looked for in the log.
    pub(super) fn find_stamp(&mut self, index: usize, queued: &QueuedEnvelope, facts: &TopicMetadata) {
        let same_log = queued.incarnation == facts.incarnation;
        let id = TicketId { shard: self.shard, index, generation: queued.generation };
        let search = StampSearch {
            partition: if same_log { queued.partition } else { facts.partition_of(queued.envelope.key()) },
            from: if same_log { queued.from } else { crate::Position::ZERO },
            stamp: queued.completion.stamp(),
            log: Arc::clone(&facts.log),
        };
        self.topic.shared().inbox.push(DriverCommand::FindStamp(Arc::clone(self.topic), id, search));
    }

    /// Has the topic described anew where an error says that it is not what it was.
    pub(super) fn stale_metadata(&mut self, error: &Error) {
        self.forget |= matches!(error.kind(), ErrorKind::UnknownTopic | ErrorKind::TopicMismatch);
    }

    /// Does it. Not to be called under a lock.
    pub(super) fn settle(mut self) {
        let engine = self.topic.shared();
        if let Some(partition) = self.partition.take() {
            partition.submit_all(&*engine.backend);
        }
        for partition in &self.more {
            partition.submit_all(&*engine.backend);
        }
        while self.telling != 0 {
            self.topic.tell(self.telling.trailing_zeros() as usize);
            self.telling &= self.telling - 1;
        }
        if self.ready {
            engine.work_ready();
        }
        if self.forget {
            self.topic.forget_metadata();
        }
    }
}

/// The wait after so many failures in a row.
pub(super) fn delay(first: Duration, max: Duration, attempt: u32, random: u64) -> Duration {
    Backoff::exponential().initial(first).max(max).jitter(Jitter::Full).delay(attempt, random)
}
