//! One owned partition as the pool sees it: its ledger, its memory of copies, its budget.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::time::Instant;

use crate::backend::{Inbound, Lease};
use crate::model::Position;
use crate::mutant::{Mutant, Seam};
use crate::subscribe::dedup::{RecentIds, Sighting, StampWindow};
use crate::subscribe::handler::DeliveryContext;
use crate::subscribe::progress::finished::{FinishedSet, Run};
use crate::subscribe::progress::note::Trying;
use crate::subscribe::progress::tracker::{Ordinal, Tracker};

/// Parameters of a partition that is opened in the pool.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) context: Arc<DeliveryContext>,
    pub(crate) lease: Lease,
    /// The next position to be handled; records from below it only feed the memory of copies.
    pub(crate) watermark: Position,
    /// The finished positions beyond the watermark.
    pub(crate) finished: FinishedSet,
    pub(crate) budget_bytes: usize,
    /// The position below which envelopes are handled one at a time, because one may have ended a process (S2).
    pub(crate) suspect_until: Option<Position>,
    /// The envelope that was running alone when the process ended.
    pub(crate) tried: Option<Trying>,
    /// Whether a known source and id make a copy, too.
    pub(crate) dedup_by_id: bool,
    pub(crate) seam: Seam,
}

/// A partition that this member owns, in one epoch.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) epoch: u64,
    pub(crate) context: Arc<DeliveryContext>,
    pub(crate) lease: Lease,
    pub(crate) tracker: Tracker,
    pub(super) copies: StampWindow,
    recent_ids: Option<Box<RecentIds>>,
    finished: FinishedSet,
    /// The watermark at opening: records below it were handled before this session and only feed the memory of copies.
    start: Position,
    /// The highest delivered position.
    pub(crate) newest: Option<Position>,
    budget_bytes: usize,
    pub(crate) bytes: usize,
    /// Whether the backend was asked to pause intake.
    pub(crate) full: bool,
    /// Whether the partition is draining: no handler of it starts any more, and running ones finish.
    pub(crate) draining: bool,
    pub(crate) running: usize,
    /// Lanes that wait for the lease, a read, or their turn alone, by the position of their head.
    pub(crate) held: BTreeMap<Position, usize>,
    pub(crate) alone: Option<Alone>,
    pub(crate) tried: Option<Trying>,
    /// The first unfinished record, and when it became the first.
    pub(crate) head_since: Option<(Position, Instant)>,
    pub(crate) stall_reported: Option<Position>,
    /// The watermark that the broker has confirmed in this ownership.
    pub(crate) committed: Option<Position>,
    /// Deliveries from this position on belong to the old read, until one comes from below it.
    pub(crate) stale_from: Option<Position>,
    /// Whether the old delivery may still go on: its news of the log's end is not about the new one.
    pub(crate) beginning: bool,
    /// The position from which nothing starts while a read is under way: until the read reports the log, records from
    /// there on may be of another log, or stand behind a loss.
    pub(crate) unread: Option<Position>,
    seam: Seam,
}

/// One-at-a-time handling after unclean starts (S2).
#[derive(Debug)]
pub(crate) struct Alone {
    pub(crate) until: Position,
    pub(crate) turn: OneAtATime,
}

impl Alone {
    pub(crate) fn is_granted(&self, position: Position) -> bool {
        matches!(self.turn, OneAtATime::Granted(trying) if trying.position == position)
    }
}

/// State of the turn to run alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OneAtATime {
    /// No envelope has the turn.
    Free,
    /// The note that names this envelope is being written.
    Writing(Trying),
    /// The note is written, and the envelope may run.
    Granted(Trying),
}

/// Verdict on a delivered record.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admit {
    /// The record is queued under this ordinal. If true, it is a second copy, to be dropped when its turn comes.
    Queue(Ordinal, bool),
    /// The record is not to be handled: it is finished, from below the start, or of the old read.
    Done,
    /// The record was delivered before, in this ownership: nothing to do.
    Repeated,
    /// The record is new, but below a position up to which none was said to be left: a defect of the backend.
    Broken,
}

impl Partition {
    pub(crate) fn new(opening: Opening) -> Self {
        Self {
            tracker: Tracker::new(opening.watermark),
            copies: StampWindow::default(),
            recent_ids: opening.dedup_by_id.then(Box::default),
            finished: opening.finished,
            start: opening.watermark,
            newest: None,
            budget_bytes: opening.budget_bytes,
            bytes: 0,
            full: false,
            draining: false,
            running: 0,
            held: BTreeMap::new(),
            alone: opening.suspect_until.map(|until| Alone { until, turn: OneAtATime::Free }),
            tried: opening.tried,
            head_since: None,
            stall_reported: None,
            committed: Some(opening.watermark),
            epoch: opening.context.epoch,
            context: opening.context,
            lease: opening.lease,
            stale_from: None,
            beginning: false,
            unread: None,
            seam: opening.seam,
        }
    }

    /// Returns whether the log is known up to this position (S3).
    pub(crate) fn is_read(&self, position: Position) -> bool {
        self.unread.is_none_or(|unread| position < unread)
    }

    /// Takes out the lanes that need not wait any more.
    pub(crate) fn revived(&mut self) -> BTreeMap<Position, usize> {
        if self.held.is_empty() || !self.lease.is_valid() {
            return BTreeMap::new();
        }
        let waiting = self.unread.map_or_else(BTreeMap::new, |unread| self.held.split_off(&unread));
        std::mem::replace(&mut self.held, waiting)
    }

    /// Ends the turn of the envelope that ran alone. Returns whether the partition handles one at a time.
    pub(crate) fn free_turn(&mut self) -> bool {
        self.alone.as_mut().map(|alone| alone.turn = OneAtATime::Free).is_some()
    }

    /// Takes a delivered record into the ledger and returns what to do with it.
    #[inline]
    pub(crate) fn admit(&mut self, record: &Inbound) -> Admit {
        if self.newest.is_some_and(|newest| record.position <= newest) {
            return Admit::Repeated;
        }
        if self.stale_from.is_some_and(|stale| record.position >= stale) {
            return Admit::Done;
        }
        self.stale_from = None;
        let before_start = record.position < self.start;
        // Pausing intake keeps the window. The ledger takes every record that still comes: a record that it refused
        // would be passed by the watermark.
        let ordinal = if before_start { None } else { self.tracker.push(record.position) };
        if !before_start && ordinal.is_none() {
            return Admit::Broken;
        }
        self.newest = Some(record.position);
        // Both memories are asked: each has to see every record.
        let known = self.recent_ids.as_mut().is_some_and(|ids| ids.observe(record));
        let copy = self.is_copy(record) || known;
        let Some(ordinal) = ordinal else { return Admit::Done };
        if self.finished.contains(record.position) {
            self.tracker.finish(ordinal);
            return Admit::Done;
        }
        self.bytes += record.bytes;
        Admit::Queue(ordinal, copy)
    }

    /// Returns whether the same stamp was seen at a lower position of the partition (P3).
    #[inline]
    fn is_copy(&mut self, record: &Inbound) -> bool {
        let Some(stamp) = record.stamp else { return false };
        let identity = match self.seam.is(Mutant::CopyBySequence) {
            true => self.identity_by_sequence(record, stamp),
            false => (stamp.producer.get(), stamp.number),
        };
        self.copies.observe(identity, record.position) == Sighting::Copy
    }

    /// Returns the progress to commit: the next position, and the finished positions beyond it. The ledger knows the
    /// delivered records. For the others the note with which the partition was taken over is kept, until it is passed.
    pub(crate) fn progress(&self) -> (Position, FinishedSet) {
        let mut watermark = self.tracker.watermark();
        let delivered = self.newest.map_or(self.start, Position::next).max(watermark);
        if delivered == watermark && self.finished.contains(watermark) {
            let passed = self.finished.runs().find(|run| run.last >= watermark);
            watermark = passed.map_or(watermark, |run| run.last.next());
        }
        let beyond = delivered.max(watermark.next());
        let inherited = self.finished.runs().filter(|run| run.last >= beyond);
        let inherited = inherited.map(|run| Run { first: run.first.max(beyond), last: run.last });
        (watermark, self.tracker.finished_set().runs().chain(inherited).collect())
    }

    /// Keeps the time at which the first unfinished record became the first.
    #[inline]
    pub(crate) fn note_head(&mut self, now: Instant) {
        let head = self.tracker.head();
        if self.head_since.map(|(position, _)| position) != head {
            self.head_since = head.map(|position| (position, now));
        }
    }

    /// Finishes a record. Returns whether intake may go on after it had stopped.
    #[inline]
    pub(crate) fn finish(&mut self, ordinal: Ordinal, bytes: usize, now: Instant, window: usize) -> bool {
        self.bytes = self.bytes.saturating_sub(bytes);
        if self.tracker.finish(ordinal) {
            self.note_head(now);
        }
        self.full && self.has_room(window)
    }

    /// Returns whether intake must stop until records are finished (S6).
    pub(crate) fn over_budget(&self, window: usize) -> bool {
        self.tracker.span() >= window || self.bytes >= self.budget_bytes
    }

    /// Returns whether a paused intake may go on: with half of the budget free, so that it does not flap.
    pub(crate) fn has_room(&self, window: usize) -> bool {
        self.tracker.span() <= window / 2 && self.bytes <= self.budget_bytes / 2
    }

    /// Returns the position at which delivery goes on after it broke off.
    pub(crate) fn read_from(&self, lookback: u64) -> Position {
        match self.newest {
            Some(newest) => newest.next(),
            None => Position::new(self.start.get().saturating_sub(lookback)),
        }
    }

    /// Returns the first position from this one on that was not handled before this ownership.
    pub(crate) fn unhandled_from(&self, from: Position) -> Position {
        self.finished.first_unfinished(from.max(self.start))
    }

    /// Returns whether a commit would store something new.
    pub(crate) fn dirty(&self) -> bool {
        self.tracker.finished_since_commit() > 0 || self.committed.is_some_and(|next| next < self.tracker.watermark())
    }

    /// Returns the first position about which nothing is known yet: above all delivered, finished or lifted-over ones.
    pub(crate) fn expected(&self) -> Position {
        self.tracker.least_next()
    }

    /// Returns the attempts made at this position by processes that did not survive them.
    pub(crate) fn charged(&self, position: Position) -> u32 {
        self.tried.filter(|tried| tried.position == position).map_or(0, |tried| tried.attempts)
    }
}

/// The owned partitions by number. They are looked up several times for every envelope, so by index and not by search:
/// a topic has at most thousands, and one that is not owned costs a pointer.
#[derive(Debug, Default)]
pub(super) struct Partitions(Vec<Option<Box<Partition>>>);

impl Partitions {
    #[inline]
    pub(super) fn get(&self, number: u32) -> Option<&Partition> {
        self.0.get(number as usize)?.as_deref()
    }

    #[inline]
    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut Partition> {
        self.0.get_mut(number as usize)?.as_deref_mut()
    }

    pub(super) fn insert(&mut self, number: u32, partition: Partition) {
        let index = number as usize;
        if self.0.len() <= index {
            self.0.resize_with(index + 1, || None);
        }
        self.0[index] = Some(Box::new(partition));
    }

    pub(super) fn remove(&mut self, number: u32) -> Option<Partition> {
        self.0.get_mut(number as usize)?.take().map(|partition| *partition)
    }

    /// Iterates in order of the partitions' numbers.
    pub(super) fn values(&self) -> impl Iterator<Item = &Partition> {
        self.0.iter().filter_map(Option::as_deref)
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Partition> {
        self.0.iter_mut().filter_map(Option::as_deref_mut)
    }
}
