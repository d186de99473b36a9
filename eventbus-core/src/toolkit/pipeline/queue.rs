//! Queue of one partition for one client: records that wait, that may be given, that are under way.

use std::collections::VecDeque;
use std::sync::Arc;

use super::limits::TopicLimits;
use crate::backend::Outbound;

/// A record to be given to the client, which writes it only then.
pub(super) struct QueuedSubmission {
    pub(super) limits: Arc<TopicLimits>,
    pub(super) record: Outbound,
}

/// Queue of one partition for one client.
#[derive(Default)]
pub(super) struct PartitionQueue {
    /// Whether the broker has stored a record of this client. Only from then on the broker holds the client to its
    /// order: before, it may store a record behind a refused one.
    begun: bool,
    /// Records given to the client and not reported as stored.
    under_way: usize,
    /// Records not given yet, in order.
    waiting: VecDeque<(usize, QueuedSubmission)>,
    /// Waiting records that may be given.
    due: usize,
}

impl PartitionQueue {
    /// Waiting records that make a batch of their own, which need not wait for others.
    const BATCH: usize = 500;

    /// Queues a record behind the others.
    pub(super) fn line_up(&mut self, index: usize, ready: QueuedSubmission) {
        self.waiting.push_back((index, ready));
    }

    /// Fixes how many of the waiting records may be given now. Returns whether any may.
    pub(super) fn open(&mut self) -> bool {
        if !self.begun {
            self.due = usize::from(self.under_way == 0);
        } else if self.under_way == 0 || self.waiting.len() >= Self::BATCH {
            self.due = self.waiting.len();
        }
        self.due > 0
    }

    pub(super) fn is_due(&self) -> bool {
        self.due > 0
    }

    pub(super) fn is_idle(&self) -> bool {
        self.under_way == 0 && self.waiting.is_empty()
    }

    pub(super) fn next(&mut self) -> Option<(usize, QueuedSubmission)> {
        self.due = self.due.checked_sub(1)?;
        let next = self.waiting.pop_front()?;
        self.under_way += 1;
        Some(next)
    }

    pub(super) fn stored(&mut self) {
        self.begun = true;
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// Takes back the record given last, which the client did not take; nothing waits behind it.
    pub(super) fn turned(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// Stops giving: the waiting records come back, and count as under way until their fates are told.
    pub(super) fn stop(&mut self) -> impl Iterator<Item = usize> + use<> {
        self.due = 0;
        self.under_way += self.waiting.len();
        std::mem::take(&mut self.waiting).into_iter().map(|(index, _)| index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Envelope, ProducerId, Stamp};

    fn line_up(queue: &mut PartitionQueue, indices: std::ops::Range<usize>) {
        let limits = Arc::new(TopicLimits::new("t", 1_000, false));
        let envelope = Envelope::builder("T", "/t").build().unwrap();
        for n in indices {
            let stamp = Stamp::new(ProducerId::new(1), n as u64);
            let record = Outbound::new("t".parse().unwrap(), 0, stamp, envelope.clone());
            queue.line_up(n, QueuedSubmission { limits: Arc::clone(&limits), record });
        }
    }

    /// Gives all records that may be given now, and returns them.
    fn given(queue: &mut PartitionQueue) -> Vec<usize> {
        queue.open();
        std::iter::from_fn(|| queue.next().map(|(index, _)| index)).collect()
    }

    #[test]
    fn until_a_client_has_stored_one_there_is_one_under_way() {
        let mut queue = PartitionQueue::default();
        line_up(&mut queue, 0..2 * PartitionQueue::BATCH);
        assert_eq!(given(&mut queue), [0]);
        assert!(given(&mut queue).is_empty());
        queue.stored();
        assert_eq!(given(&mut queue).len(), 2 * PartitionQueue::BATCH - 1);
    }

    #[test]
    fn what_comes_while_others_are_under_way_gathers_to_a_batch() {
        let mut queue = PartitionQueue::default();
        line_up(&mut queue, 0..3);
        assert_eq!(given(&mut queue), [0]);
        queue.stored();
        assert_eq!(given(&mut queue), [1, 2]);
        line_up(&mut queue, 3..2 + PartitionQueue::BATCH);
        for _ in 0..2 {
            assert!(given(&mut queue).is_empty(), "{} are under way", queue.under_way);
            queue.stored();
        }
        assert_eq!(given(&mut queue).len(), PartitionQueue::BATCH - 1);
        line_up(&mut queue, 0..PartitionQueue::BATCH);
        assert_eq!(given(&mut queue).len(), PartitionQueue::BATCH, "a batch of its own");
    }

    #[test]
    fn behind_one_that_was_not_taken_nothing_is_given_and_none_is_forgotten() {
        let mut queue = PartitionQueue { begun: true, ..PartitionQueue::default() };
        line_up(&mut queue, 0..4);
        queue.open();
        assert_eq!(queue.next().map(|(index, _)| index), Some(0));
        assert_eq!(queue.stop().collect::<Vec<_>>(), [1, 2, 3]);
        assert!(queue.next().is_none() && !queue.is_due());
        assert_eq!((queue.under_way, queue.is_idle()), (4, false));
    }

    #[test]
    fn one_that_was_turned_away_when_it_came_leaves_nothing_behind() {
        let mut queue = PartitionQueue::default();
        line_up(&mut queue, 0..1);
        assert_eq!(given(&mut queue), [0]);
        queue.turned();
        assert!(queue.is_idle() && !queue.begun);
    }
}
