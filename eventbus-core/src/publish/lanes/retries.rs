//! Late publishes of a topic: those that the broker has not stored for a while, though they were sent, and the topic's
//! description, if it cannot be had. See [`RetryNotices`](crate::observe::RetryNotices).
//!
//! Invariant: nothing here decides about an envelope. The lanes are only looked at, one shard at a time.

use tokio::time::Instant;

use super::queues::{EnvelopeState, LaneState, SendRetry};
use super::shard::Shard;
use super::topic::{SHARDS, TopicLanes};
use crate::model::{Error, ErrorKind, Key};
use crate::observe::Retry;

/// The head of a lane that has been waiting for its fate for too long.
struct LateHead {
    partition: u32,
    key: Option<Key>,
    retry: SendRetry,
}

impl TopicLanes {
    /// Tells the oldest retry of the topic, if it is late.
    pub(super) fn tell_retries(&self, now: Instant) {
        let (mut oldest, mut count): (Option<LateHead>, usize) = (None, 0);
        let mut waits_for_topic = false;
        for index in 0..SHARDS {
            let shard = self.lock(index);
            waits_for_topic |= shard.metadata.is_none() && !shard.listed.is_empty();
            shard.late_heads(|head| {
                if now.saturating_duration_since(head.retry.since) >= self.notices.after() {
                    count += 1;
                    if oldest.as_ref().is_none_or(|known| head.retry.since < known.retry.since) {
                        oldest = Some(head);
                    }
                }
            });
        }
        if let Some(LateHead { partition, key, retry: SendRetry { since, error } }) = oldest {
            let retry = Retry::new("send", self.name(), now.saturating_duration_since(since), &error);
            let (partition, key) = (Some(partition), key.as_ref());
            return self.notices.look(Some(&Retry { partition, key, others: count - 1, ..retry }));
        }
        match self.undescribed().filter(|_| waits_for_topic) {
            Some(SendRetry { since, error }) => {
                let age = now.saturating_duration_since(since);
                self.notices.look(Some(&Retry::new("send", self.name(), age, &error)));
            }
            None => self.notices.look(None),
        }
    }
}

impl Shard {
    /// Hands over each lane's head that was sent and is neither stored nor refused.
    fn late_heads(&self, mut each: impl FnMut(LateHead)) {
        for (_, lane) in &self.queues.lanes {
            let Some(queued) = lane.head.and_then(|head| self.queues.envelopes.get(head)) else { continue };
            let retry = match (&queued.retry, &queued.state, queued.first_sent) {
                (_, EnvelopeState::Over(_), _) => continue,
                (Some(retry), ..) => SendRetry::clone(retry),
                (None, EnvelopeState::Outstanding { .. }, Some(since)) => unanswered(since),
                (None, _, Some(since)) if lane.state == LaneState::FindingStamp => unanswered(since),
                _ => continue,
            };
            each(LateHead { partition: queued.partition, key: lane.key().cloned(), retry });
        }
    }
}

fn unanswered(since: Instant) -> SendRetry {
    SendRetry {
        since,
        error: Error::new(ErrorKind::Unavailable, "the broker has neither stored nor refused it so far"),
    }
}
