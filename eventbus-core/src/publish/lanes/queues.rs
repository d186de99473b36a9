//! Lanes and the envelopes queued in them: plain data, no decisions.
//!
//! A lane exists only while its key has work. Its queue is a linked list through a slab, so that a key's first envelope
//! allocates nothing once the slab has grown, and memory returns when the keys have gone.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashTable;
use slab::Slab;
use tokio::time::Instant;

use crate::model::{Envelope, Error, Key, Position};
use crate::publish::completion::Completion;
use crate::publish::seal::{PublishOutcome, RefusalRoot};

/// The capacity that an idle shard keeps.
const KEPT_CAPACITY: usize = 256;

/// The kind of a lane, by its envelopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LaneKind {
    /// The envelopes of a key.
    Keyed,
    /// A single keyless envelope, in a lane of its own, since it is related to nothing.
    Free,
    /// A single envelope that the bus itself writes, under a given stamp and in the reserve.
    Reserved,
}

/// The state of a lane: whether it may submit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LaneState {
    Open,
    /// Closed after an envelope came back or was refused: nothing more goes out before everything outstanding has come
    /// back.
    Draining,
    /// Closed until a timer ends.
    BackingOff,
    /// Closed while the log is searched for the first envelope's stamp.
    FindingStamp,
}

/// A lane: the queue of one key.
#[derive(Debug)]
pub(super) struct Lane {
    /// The number of the publish that opened the lane; never used twice.
    pub(super) id: u64,
    pub(super) kind: LaneKind,
    key: Option<(u64, Key)>,
    pub(super) head: Option<usize>,
    tail: Option<usize>,
    /// The envelope to be submitted next; those before it are outstanding or over.
    pub(super) cursor: Option<usize>,
    pub(super) outstanding: usize,
    pub(super) state: LaneState,
    /// Recoveries since an envelope of this lane was last stored.
    pub(super) attempt: u32,
    /// Whether the lane is in line for a permit.
    pub(super) in_line: bool,
    /// Whether the lane is listed as waiting for the topic's description.
    pub(super) listed: bool,
}

impl Lane {
    pub(super) fn key(&self) -> Option<&Key> {
        self.key.as_ref().map(|(_, key)| key)
    }

    /// Returns the lane's key in the budget; `None` for all but keyed lanes, which alone have a share.
    pub(super) fn budget_key(&self) -> Option<u64> {
        (self.kind == LaneKind::Keyed).then_some(self.id)
    }
}

/// The state of a queued envelope.
#[derive(Debug)]
pub(super) enum EnvelopeState {
    /// In the queue, not outstanding.
    Waiting,
    /// With the backend. `doomed`: an earlier envelope was refused, so this one must come back without being stored.
    Outstanding { doomed: Option<Arc<RefusalRoot>> },
    /// The outcome is known, and is told when everything before it is.
    Over(PublishOutcome),
}

#[derive(Debug)]
pub(super) struct QueuedEnvelope {
    pub(super) completion: Arc<Completion>,
    pub(super) envelope: Envelope,
    pub(super) bytes: usize,
    pub(super) number: u64,
    pub(super) generation: u32,
    pub(super) lane: usize,
    before: Option<usize>,
    pub(super) behind: Option<usize>,
    pub(super) state: EnvelopeState,
    /// Whether the envelope holds room in the budget.
    pub(super) admitted: bool,
    /// Whether the envelope was submitted at least once, so that it is too late to withdraw.
    pub(super) sent: bool,
    /// Whether the envelope came back unstored since it was last submitted.
    pub(super) returned: bool,
    /// Whether the envelope may be in the log from an earlier submission.
    pub(super) unknown: bool,
    /// A refusal that does not count before the log was read, since the envelope may be there.
    pub(super) refused: Option<Error>,
    pub(super) partition: u32,
    /// The topic's incarnation, as a count, that `partition` and `from` belong to.
    pub(super) incarnation: u32,
    /// The end of the partition as known before the first submission.
    pub(super) from: Position,
    pub(super) first_sent: Option<Instant>,
    /// The broker's last answer, where it did not store the envelope and the envelope is sent again.
    pub(super) retry: Option<Box<SendRetry>>,
}

/// An envelope's retry: since when, and the last error.
#[derive(Debug, Clone)]
pub(super) struct SendRetry {
    pub(super) since: Instant,
    pub(super) error: Error,
}

impl QueuedEnvelope {
    pub(super) fn new(
        completion: Arc<Completion>,
        envelope: Envelope,
        bytes: usize,
        number: u64,
        admitted: bool,
    ) -> Self {
        Self {
            completion,
            envelope,
            bytes,
            number,
            generation: 0,
            lane: 0,
            before: None,
            behind: None,
            state: EnvelopeState::Waiting,
            admitted,
            sent: false,
            returned: false,
            unknown: false,
            refused: None,
            partition: 0,
            incarnation: 0,
            from: Position::ZERO,
            first_sent: None,
            retry: None,
        }
    }

    /// Notes why the envelope has to be sent again.
    pub(super) fn failed(&mut self, now: Instant, error: &Error) {
        let since = self.retry.as_ref().map_or(self.first_sent.unwrap_or(now), |retry| retry.since);
        self.retry = Some(Box::new(SendRetry { since, error: error.clone() }));
    }

    /// Whether the envelope has been sent again for this long.
    pub(super) fn is_late(&self, now: Instant, after: Duration) -> bool {
        self.retry.as_ref().is_some_and(|retry| now.saturating_duration_since(retry.since) >= after)
    }

    /// Whether the envelope may be in the log.
    pub(super) fn perhaps_stored(&self) -> bool {
        self.unknown || matches!(self.state, EnvelopeState::Outstanding { .. })
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, EnvelopeState::Over(_))
    }
}

/// A key and its hash, computed once outside of the lock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hashed<'a> {
    pub(super) hash: u64,
    pub(super) key: &'a Key,
}

/// The lanes of one shard. They are looked up by key, and walked only in order of the slab, so that the order of hashes
/// never shows.
#[derive(Debug, Default)]
pub(super) struct LaneQueues {
    index: HashTable<usize>,
    pub(super) lanes: Slab<Lane>,
    pub(super) envelopes: Slab<QueuedEnvelope>,
    generation: u32,
}

impl LaneQueues {
    /// Returns the lane of a key, opened with this id where there is none. Without a key it always opens a lane.
    pub(super) fn lane_of(&mut self, key: Option<Hashed<'_>>, kind: LaneKind, id: u64) -> usize {
        let lanes = &mut self.lanes;
        let known = |lane: &usize| {
            let (lane, wanted) = (lanes.get(*lane).and_then(Lane::key), key.map(|hashed| hashed.key));
            lane.is_some() && lane == wanted
        };
        if let Some(lane) = key.and_then(|hashed| self.index.find(hashed.hash, known)) {
            return *lane;
        }
        let lane = lanes.insert(Lane {
            id,
            kind,
            key: key.map(|hashed| (hashed.hash, hashed.key.clone())),
            head: None,
            tail: None,
            cursor: None,
            outstanding: 0,
            state: LaneState::Open,
            attempt: 0,
            in_line: false,
            listed: false,
        });
        if let Some(hashed) = key {
            let hash = |lane: &usize| lanes.get(*lane).and_then(|lane| lane.key.as_ref()).map_or(0, |(hash, _)| *hash);
            self.index.insert_unique(hashed.hash, lane, hash);
        }
        lane
    }

    /// Returns the lane, if it is still the one with this id.
    pub(super) fn lane(&self, lane: usize, id: u64) -> Option<&Lane> {
        self.lanes.get(lane).filter(|lane| lane.id == id)
    }

    /// Returns the envelope, if it is still the one of this generation.
    pub(super) fn queued(&self, queued: usize, generation: u32) -> Option<&QueuedEnvelope> {
        self.envelopes.get(queued).filter(|queued| queued.generation == generation)
    }

    /// Returns the index and the generation of the next envelope.
    pub(super) fn next_ticket_id(&self) -> (usize, u32) {
        (self.envelopes.vacant_key(), self.generation)
    }

    pub(super) fn enqueue(&mut self, lane_index: usize, mut queued: QueuedEnvelope) -> usize {
        let lane = &mut self.lanes[lane_index];
        (queued.lane, queued.before, queued.generation) = (lane_index, lane.tail, self.generation);
        self.generation = (self.generation + 1) & 0x00ff_ffff;
        let index = self.envelopes.insert(queued);
        if let Some(tail) = lane.tail {
            self.envelopes[tail].behind = Some(index);
        }
        lane.tail = Some(index);
        lane.head = lane.head.or(Some(index));
        lane.cursor = lane.cursor.or(Some(index));
        index
    }

    pub(super) fn dequeue(&mut self, index: usize) -> QueuedEnvelope {
        let queued = self.envelopes.remove(index);
        let lane = &mut self.lanes[queued.lane];
        if lane.cursor == Some(index) {
            lane.cursor = queued.behind;
        }
        match queued.before {
            Some(before) => self.envelopes[before].behind = queued.behind,
            None => lane.head = queued.behind,
        }
        match queued.behind {
            Some(behind) => self.envelopes[behind].before = queued.before,
            None => lane.tail = queued.before,
        }
        queued
    }

    /// Whether an earlier envelope of the lane came back unstored.
    pub(super) fn follows_returned(&self, index: usize) -> bool {
        let mut before = self.envelopes.get(index).and_then(|queued| queued.before);
        while let Some(queued) = before.and_then(|index| self.envelopes.get(index)) {
            if queued.returned {
                return true;
            }
            before = queued.before;
        }
        false
    }

    /// Forgets a lane that has no work, and after the last lane the memory of a burst.
    pub(super) fn close_if_idle(&mut self, index: usize) {
        if self.lanes.get(index).is_none_or(|lane| lane.head.is_some()) {
            return;
        }
        let lane = self.lanes.remove(index);
        if let Some((hash, _)) = lane.key
            && let Ok(entry) = self.index.find_entry(hash, |known| *known == index)
        {
            entry.remove();
        }
        if self.lanes.is_empty() && self.envelopes.capacity().max(self.lanes.capacity()) > KEPT_CAPACITY {
            (self.index, self.lanes, self.envelopes) = (HashTable::new(), Slab::new(), Slab::new());
        }
    }
}
