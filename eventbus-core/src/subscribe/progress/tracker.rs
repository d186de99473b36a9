//! Ledger of the delivered records of a partition, and its watermark (S3, S4).
//!
//! One tracker lives for one ownership of one partition. It holds the delivered records in delivery
//! order, a done mark for each, and the watermark.
//!
//! # Invariant
//!
//! **The watermark never passes an unfinished record (S4).** One function raises it,
//! `Tracker::settle`: either to one above the last record taken off the front, and a record is
//! taken off the front only when its mark and those of all before it are set; or over positions
//! that hold no record of this partition, and then at most to the first unfinished record. The
//! watermark never falls.
//!
//! Everything is O(1), amortised: a record is pushed once, marked once and taken off once, 64 marks
//! at a time. A finished record behind a slow head costs its position and one bit, never its
//! payload.

use std::collections::VecDeque;

use super::finished::{FinishedSet, Run};
use crate::model::Position;

/// Records for which an empty tracker keeps room; memory beyond it, needed in a stall, is given
/// back.
const KEPT_CAPACITY: usize = 8_192;

const WORD: u64 = 64;

/// A record's number in delivery order, given by [`Tracker::push`].
///
/// It means something only to the tracker that gave it: an ordinal of an earlier ownership must not
/// reach a later one's tracker, so a caller that reports completions compares epochs first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ordinal(u64);

/// The ledger of one partition under one owner. See the [module](self) for the invariant.
#[derive(Debug)]
pub(crate) struct Tracker {
    watermark: Position,
    /// The position below which no record of this partition remains undelivered.
    advanced: Position,
    /// The ordinal of the front of `positions`, which is the first unfinished record.
    base: u64,
    positions: VecDeque<Position>,
    /// The marks: one bit for each ordinal, from the word that holds `base`. Bits at and above the
    /// next ordinal are zero, so a scan for ones stops by itself.
    done: VecDeque<u64>,
    outstanding: usize,
    finished_since_commit: u64,
}

impl Tracker {
    /// Makes a tracker for a partition whose next record to be handled is at `watermark` or above.
    #[must_use]
    pub(crate) fn new(watermark: Position) -> Self {
        Tracker {
            watermark,
            advanced: watermark,
            base: 0,
            positions: VecDeque::new(),
            done: VecDeque::new(),
            outstanding: 0,
            finished_since_commit: 0,
        }
    }

    /// Takes the next delivered record. Returns `None`, and changes nothing, if its position does
    /// not rise, or no watermark could pass it.
    #[inline]
    pub(crate) fn push(&mut self, position: Position) -> Option<Ordinal> {
        if position == Position::MAX || position < self.least_next() {
            return None;
        }
        let ordinal = self.base + self.positions.len() as u64;
        if self.word_of(ordinal) == self.done.len() {
            self.done.push_back(0);
        }
        self.positions.push_back(position);
        self.outstanding += 1;
        Some(Ordinal(ordinal))
    }

    /// Marks a record as finished and returns whether the watermark rose. A second finish, or one
    /// for an ordinal that was never given, changes nothing.
    #[inline]
    pub(crate) fn finish(&mut self, ordinal: Ordinal) -> bool {
        let Some(offset) = ordinal.0.checked_sub(self.base) else {
            return false;
        };
        if offset >= self.positions.len() as u64 {
            return false;
        }
        if offset != 0 {
            let index = self.word_of(ordinal.0);
            let bit = 1 << (ordinal.0 % WORD);
            let word = &mut self.done[index];
            if *word & bit == 0 {
                *word |= bit;
                self.outstanding -= 1;
                self.finished_since_commit += 1;
            }
            return false;
        }
        // The front is unfinished until now, so its mark is neither read nor set: the record is
        // taken off.
        self.outstanding -= 1;
        self.finished_since_commit += 1;
        let last = self.take_finished();
        self.settle(last);
        true
    }

    /// Records that nothing of this partition remains undelivered below `next`: positions there
    /// that were not pushed belong to other partitions or to nobody. Returns whether the watermark
    /// rose; it goes to the first unfinished record, or to `next` where none is pending. The bound
    /// is remembered for records that finish later.
    pub(crate) fn advance_to(&mut self, next: Position) -> bool {
        self.advanced = self.advanced.max(next);
        let before = self.watermark;
        self.settle(None);
        self.watermark > before
    }

    /// Returns the next position to be handled: everything strictly below it is finished.
    #[must_use]
    pub(crate) fn watermark(&self) -> Position {
        self.watermark
    }

    /// Returns the position of the first unfinished record.
    #[must_use]
    pub(crate) fn head(&self) -> Option<Position> {
        self.positions.front().copied()
    }

    #[must_use]
    pub(crate) fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Counts the records from the first unfinished one to the newest, both included.
    #[must_use]
    pub(crate) fn span(&self) -> usize {
        self.positions.len()
    }

    /// Iterates over the records finished above the first unfinished one, as rising runs of
    /// positions. Every record of this partition inside a run is finished; positions of other
    /// partitions may lie inside too.
    pub(crate) fn finished_beyond(&self) -> FinishedBeyond<'_> {
        FinishedBeyond { tracker: self, offset: 0 }
    }

    /// Collects [`Tracker::finished_beyond`] into the set that goes into the note.
    #[must_use]
    pub(crate) fn finished_set(&self) -> FinishedSet {
        self.finished_beyond().collect()
    }

    /// Counts the finished records that no confirmed commit covers yet.
    #[must_use]
    pub(crate) fn finished_since_commit(&self) -> u64 {
        self.finished_since_commit
    }

    /// Confirms a commit that was taken when [`Tracker::finished_since_commit`] returned
    /// `finished`.
    pub(crate) fn committed(&mut self, finished: u64) {
        self.finished_since_commit = self.finished_since_commit.saturating_sub(finished);
    }

    /// Returns the lowest position that can be delivered next.
    #[must_use]
    pub(crate) fn least_next(&self) -> Position {
        let newest = self.positions.back().map_or(Position::ZERO, |newest| newest.next());
        newest.max(self.advanced).max(self.watermark)
    }

    /// Returns the index into `done`; meaningful for ordinals from `base` on.
    fn word_of(&self, ordinal: u64) -> usize {
        (ordinal / WORD - self.base / WORD) as usize
    }

    /// Takes off the front and the finished records behind it, and returns the position of the
    /// last.
    #[inline]
    fn take_finished(&mut self) -> Option<Position> {
        let mut last = self.positions.pop_front();
        self.pass(1);
        // Most records finish in order: then nothing behind the front is finished.
        if self.outstanding < self.positions.len() {
            last = self.take_run().or(last);
        }
        if self.positions.is_empty() {
            self.give_back_memory();
        }
        last
    }

    #[inline(never)]
    fn take_run(&mut self) -> Option<Position> {
        let mut last = None;
        while let Some(word) = self.done.front() {
            let run = u64::from((word >> (self.base % WORD)).trailing_ones());
            if run == 0 {
                break;
            }
            last = self.positions.drain(..run as usize).next_back();
            self.pass(run);
        }
        last
    }

    // Rarely does anything: inlined, it costs every finished record instructions.
    #[inline(never)]
    fn give_back_memory(&mut self) {
        if self.positions.capacity() > KEPT_CAPACITY {
            self.positions.shrink_to(KEPT_CAPACITY);
            self.done.shrink_to(KEPT_CAPACITY / WORD as usize);
        }
    }

    /// Moves the base on, at most to the next word of marks.
    #[inline]
    fn pass(&mut self, records: u64) {
        self.base += records;
        if self.base.is_multiple_of(WORD) {
            self.done.pop_front();
        }
    }

    /// Raises the watermark; nothing else does. `last` was finished with all before it.
    fn settle(&mut self, last: Option<Position>) {
        if let Some(last) = last {
            self.watermark = self.watermark.max(last.next());
        }
        let bound = self.head().map_or(self.advanced, |head| head.min(self.advanced));
        self.watermark = self.watermark.max(bound);
    }

    /// Returns the offset of the first record from `offset` on whose mark is `finished`, or the
    /// span.
    fn find(&self, offset: usize, finished: bool) -> usize {
        let passed = (self.base % WORD) as usize;
        let end = passed + self.positions.len();
        let mut bit = passed + offset;
        while bit < end {
            let word = self.done[bit / 64];
            let wanted = (if finished { word } else { !word }) >> (bit % 64);
            if wanted != 0 {
                bit += wanted.trailing_zeros() as usize;
                break;
            }
            bit = (bit / 64 + 1) * 64;
        }
        bit.min(end) - passed
    }
}

/// Rising runs of finished positions above the first unfinished record. See
/// [`Tracker::finished_beyond`].
#[derive(Debug, Clone)]
pub(crate) struct FinishedBeyond<'a> {
    tracker: &'a Tracker,
    offset: usize,
}

impl Iterator for FinishedBeyond<'_> {
    type Item = Run;

    fn next(&mut self) -> Option<Run> {
        let from = self.tracker.find(self.offset, true);
        let first = *self.tracker.positions.get(from)?;
        self.offset = self.tracker.find(from, false);
        let last = *self.tracker.positions.get(self.offset - 1)?;
        Some(Run { first, last })
    }
}

#[cfg(test)]
#[path = "tests/tracker.rs"]
mod tests;
