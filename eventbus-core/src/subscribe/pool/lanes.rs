//! Lanes, their queued records, and the ready queue: how a record enters the lane of its key and leaves it. The [module
//! above](super) decides which lane may start.

use std::hash::{BuildHasher, Hasher};
use std::vec;

use hashbrown::hash_table::Entry;
use tokio::time::Instant;

use super::job::OfferResult;
use super::lane::{Lane, LaneState, LedgerEntry, NONE, QueuedRecord};
use super::partition::Admit;
use super::{PoolState, owner};
use crate::backend::Inbound;
use crate::model::Key;
use crate::mutant::Mutant;

/// Verdict on a record that the ledger has taken and that is to be queued.
struct Admitted {
    queued: LedgerEntry,
    epoch: u64,
}

impl PoolState {
    /// Takes the next record of a batch, and puts it into its lane if it is to be handled.
    #[inline]
    pub(super) fn offer_one(&mut self, batch: &mut vec::IntoIter<Inbound>, now: Instant, offered: &mut OfferResult) {
        // The record is looked at in place and moved once: it is large.
        let Some(record) = batch.as_slice().first() else { return };
        let Some(Admitted { queued, epoch }) = self.admit(record, now, offered) else {
            batch.next();
            return;
        };
        let (partition, position, bytes) = (record.partition, record.position, record.bytes);
        let item = self.items.vacant_key();
        let lane = match record.key.as_ref().filter(|_| !self.seam.is(Mutant::KeyNotRouted)) {
            None => Some(self.lanes.insert(Lane::new(partition, epoch, 0, None, item))),
            Some(key) => {
                // The position is mixed: keys that are published in turns may have positions that are all alike by a
                // plain remainder.
                let turn = || position.get().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 62;
                let salt = if self.seam.is(Mutant::LanesRoundRobin) { turn() } else { 0 };
                // The key is hashed here and never again. A key is in one partition, if its producers agree; if not,
                // its lanes collide.
                let mut hasher = self.hasher.build_hasher();
                hasher.write(key.as_bytes());
                let hash = hasher.finish() ^ salt << 32;
                self.append(partition, hash, key, item, epoch)
            }
        };
        let mut record = self.spare.pop().unwrap_or_default();
        if record.0.is_none() {
            *record.0 = batch.next();
        }
        self.items.insert(QueuedRecord { record: Some(record), position, bytes, queued, next: NONE });
        if let Some(lane) = lane {
            self.line_up(lane);
        }
    }

    /// Takes a record into the ledger. Returns `None` if it is not to be queued.
    #[inline]
    fn admit(&mut self, record: &Inbound, now: Instant, offered: &mut OfferResult) -> Option<Admitted> {
        let partition = self.partitions.get_mut(record.partition)?;
        if partition.draining {
            // The record is taken as if it had never come: the last commit must not count it as seen.
            return None;
        }
        let (ordinal, copy) = match partition.admit(record) {
            Admit::Queue(ordinal, copy) => (ordinal, copy),
            Admit::Done | Admit::Repeated => return None,
            Admit::Broken => {
                offered.broken = Some((record.partition, record.position));
                return None;
            }
        };
        if partition.head_since.is_none() {
            partition.note_head(now);
        }
        let queued = LedgerEntry { ordinal, attempts: partition.charged(record.position), copy };
        Some(Admitted { queued, epoch: partition.epoch })
    }

    /// Queues an item behind the others of its key. Returns the lane if it is a new one.
    #[inline]
    fn append(&mut self, partition: u32, hash: u64, key: &Key, item: usize, epoch: u64) -> Option<usize> {
        let lanes = &self.lanes;
        let same = |&lane: &usize| {
            let lane = &lanes[lane];
            lane.hash == hash && lane.partition == partition && lane.key.as_ref() == Some(key)
        };
        match self.index.entry(hash, same, |&lane| lanes[lane].hash) {
            Entry::Occupied(known) => {
                let tail = std::mem::replace(&mut self.lanes[*known.get()].tail, item);
                self.items[tail].next = item;
                None
            }
            Entry::Vacant(place) => {
                let lane = self.lanes.insert(Lane::new(partition, epoch, hash, Some(key.clone()), item));
                place.insert(lane);
                Some(lane)
            }
        }
    }

    /// Puts a lane into the ready queue, unless its partition handles one at a time and another lane has the turn.
    #[inline]
    pub(super) fn make_ready(&mut self, number: usize) {
        self.lanes[number].state = LaneState::Ready;
        self.line_up(number);
    }

    /// Does the same for a lane whose state is ready already.
    #[inline]
    fn line_up(&mut self, number: usize) {
        if !(self.any_alone && self.hold_back(number)) {
            self.ready.push_back(number);
        }
    }

    /// Holds a lane back until its turn, where its partition handles one at a time. Returns whether it did.
    fn hold_back(&mut self, number: usize) -> bool {
        let lane = &mut self.lanes[number];
        let Some(partition) = self.partitions.get_mut(lane.partition) else { return false };
        let head = self.items[lane.head].position;
        let waits = partition.alone.as_ref().is_some_and(|alone| !alone.is_granted(head));
        if waits {
            lane.state = LaneState::Held;
            partition.held.insert(head, number);
        }
        waits
    }

    /// Finishes the head: it leaves the ledger and its lane, and the next of its key becomes ready.
    pub(super) fn finish_head(&mut self, lane: usize, now: Instant) -> bool {
        let Some(partition) = owner(&mut self.partitions, &self.lanes[lane]) else { return false };
        let item = &self.items[self.lanes[lane].head];
        let resumes = partition.finish(item.queued.ordinal, item.bytes, now, self.window);
        self.leave_head(lane) || resumes
    }

    /// Removes a finished head from its lane. Returns whether a commit is due.
    #[inline]
    pub(super) fn leave_head(&mut self, number: usize) -> bool {
        self.forget_failing(number);
        let lane = &mut self.lanes[number];
        let next = self.items.remove(lane.head).next;
        self.finished += 1;
        if next == NONE {
            self.remove_lane(number);
        } else {
            lane.head = next;
            self.make_ready(number);
        }
        // True only once: the session restarts the count when it looks.
        self.finished == self.commit_every
    }

    #[inline]
    fn remove_lane(&mut self, number: usize) {
        self.unindex(number);
        self.lanes.remove(number);
    }

    /// Removes a lane from the index, so that it takes no more envelopes.
    #[inline]
    pub(super) fn unindex(&mut self, number: usize) {
        let lane = &self.lanes[number];
        if lane.key.is_some()
            && let Ok(entry) = self.index.find_entry(lane.hash, |&other| other == number)
        {
            entry.remove();
        }
    }

    /// Forgets a record, unfinished. Returns the number of the one behind it.
    pub(super) fn drop_item(&mut self, item: usize) -> usize {
        self.items.remove(item).next
    }

    /// Forgets a lane with all its queued records, unfinished.
    pub(super) fn drop_lane(&mut self, lane: usize) {
        let mut item = self.lanes[lane].head;
        while item != NONE {
            item = self.drop_item(item);
        }
        self.forget_failing(lane);
        if let LaneState::Timed(at, count) = self.lanes[lane].state {
            self.timers.remove(&(at, count));
        }
        self.remove_lane(lane);
    }
}
