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

/// How a partition is opened in the pool.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) context: Arc<DeliveryContext>,
    pub(crate) lease: Lease,
    /// The next position to be handled; what comes from below it is only looked at for copies.
    pub(crate) watermark: Position,
    /// What is finished beyond it.
    pub(crate) finished: FinishedSet,
    pub(crate) budget_bytes: usize,
    /// One at a time below this position, because an envelope there may have ended a process (S2).
    pub(crate) suspect_until: Option<Position>,
    /// The envelope that was being tried when the process ended.
    pub(crate) tried: Option<Trying>,
    /// Whether a source and id seen before make a copy, too.
    pub(crate) dedup_by_id: bool,
    pub(crate) seam: Seam,
}

/// A partition that this member owns, in one epoch.
#[derive(Debug)]
pub(crate) struct Partition {
    /// The context's.
    pub(crate) epoch: u64,
    pub(crate) context: Arc<DeliveryContext>,
    pub(crate) lease: Lease,
    pub(crate) tracker: Tracker,
    pub(super) copies: StampWindow,
    recent_ids: Option<Box<RecentIds>>,
    finished: FinishedSet,
    /// Deliveries below it were handled before this session and only feed the memory of copies.
    start: Position,
    /// The highest position that was delivered.
    pub(crate) newest: Option<Position>,
    budget_bytes: usize,
    pub(crate) bytes: usize,
    /// Intake has been asked to pause.
    pub(crate) full: bool,
    /// No handler of it starts any more; what runs finishes.
    pub(crate) draining: bool,
    pub(crate) running: usize,
    /// Lanes that wait for the lease, or for their turn alone, by the position of their head.
    pub(crate) held: BTreeMap<Position, usize>,
    pub(crate) alone: Option<Alone>,
    pub(crate) tried: Option<Trying>,
    /// When the first unfinished record became the first.
    pub(crate) head_since: Option<(Position, Instant)>,
    pub(crate) stall_reported: Option<Position>,
    /// The watermark that the broker has confirmed in this ownership.
    pub(crate) committed: Option<Position>,
    /// Deliveries from this position on are of the read before, until one comes from below it.
    pub(crate) stale_from: Option<Position>,
    /// The delivery before may not have ended yet: what it says of the log's end is not this one's.
    pub(crate) beginning: bool,
    /// A read is under way, and what it says of the log is not known: from this position on nothing starts, since it may
    /// be of another log, or stand behind a loss.
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
    /// Whether the record at this position may run now.
    pub(crate) fn is_granted(&self, position: Position) -> bool {
        matches!(self.turn, OneAtATime::Granted(trying) if trying.position == position)
    }
}

/// Whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OneAtATime {
    /// Nobody's.
    Free,
    /// The note that names this one is being written.
    Writing(Trying),
    /// It was written; the envelope may run.
    Granted(Trying),
}

/// What to do with a delivered record.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admit {
    /// Queue it under this ordinal; whether it is a second copy, to be dropped when its turn comes.
    Queue(Ordinal, bool),
    /// Handled before: finished, or not ours to handle.
    Done,
    /// Delivered before, in this ownership: nothing to do.
    Repeated,
    /// New, and below what was said to hold nothing more: a defect of the backend.
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

    /// Whether the log is known up to this position (S3).
    pub(crate) fn is_read(&self, position: Position) -> bool {
        self.unread.is_none_or(|unread| position < unread)
    }

    /// Lanes that wait although they need not any more.
    pub(crate) fn revived(&mut self) -> BTreeMap<Position, usize> {
        if self.held.is_empty() || !self.lease.is_valid() {
            return BTreeMap::new();
        }
        let waiting = self.unread.map_or_else(BTreeMap::new, |unread| self.held.split_off(&unread));
        std::mem::replace(&mut self.held, waiting)
    }

    /// Ends the turn of what ran alone; whether the partition handles one at a time.
    pub(crate) fn free_turn(&mut self) -> bool {
        self.alone.as_mut().map(|alone| alone.turn = OneAtATime::Free).is_some()
    }

    /// Takes a delivered record into the ledger and says what to do with it.
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
        // The window is kept by pausing intake; the ledger takes whatever still comes, since a record that it refused
        // would be passed by the watermark.
        let ordinal = if before_start { None } else { self.tracker.push(record.position) };
        if !before_start && ordinal.is_none() {
            return Admit::Broken;
        }
        self.newest = Some(record.position);
        // Both are asked: each has to see every record.
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

    /// P3: the same stamp at a lower position of the same partition.
    #[inline]
    fn is_copy(&mut self, record: &Inbound) -> bool {
        let Some(stamp) = record.stamp else { return false };
        let identity = match self.seam.is(Mutant::CopyBySequence) {
            true => self.identity_by_sequence(record, stamp),
            false => (stamp.producer.get(), stamp.number),
        };
        self.copies.observe(identity, record.position) == Sighting::Copy
    }

    /// What a commit says: the next position, and what is finished beyond it. Of what was delivered the ledger knows; of
    /// what was not, the note with which the partition was taken over, which must not be forgotten before it is passed.
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

    /// A record is finished. Returns whether intake may go on after it had stopped.
    #[inline]
    pub(crate) fn finish(&mut self, ordinal: Ordinal, bytes: usize, now: Instant, window: usize) -> bool {
        self.bytes = self.bytes.saturating_sub(bytes);
        if self.tracker.finish(ordinal) {
            self.note_head(now);
        }
        self.full && self.has_room(window)
    }

    /// Whether intake must stop until something is finished (S6).
    pub(crate) fn over_budget(&self, window: usize) -> bool {
        self.tracker.span() >= window || self.bytes >= self.budget_bytes
    }

    /// Whether a paused intake may go on: with half of the budget free, so that it does not flap.
    pub(crate) fn has_room(&self, window: usize) -> bool {
        self.tracker.span() <= window / 2 && self.bytes <= self.budget_bytes / 2
    }

    /// Where delivery goes on after it broke off.
    pub(crate) fn read_from(&self, lookback: u64) -> Position {
        match self.newest {
            Some(newest) => newest.next(),
            None => Position::new(self.start.get().saturating_sub(lookback)),
        }
    }

    /// Whether a commit would store something new.
    pub(crate) fn dirty(&self) -> bool {
        self.tracker.finished_since_commit() > 0 || self.committed.is_some_and(|next| next < self.tracker.watermark())
    }

    /// The first position about which nothing is known yet: above everything delivered, finished or lifted over.
    pub(crate) fn expected(&self) -> Position {
        self.tracker.least_next()
    }

    /// Attempts made at this position by processes that did not survive them.
    pub(crate) fn charged(&self, position: Position) -> u32 {
        self.tried.filter(|tried| tried.position == position).map_or(0, |tried| tried.attempts)
    }
}

/// The owned partitions by number. Looked up several times for every envelope, so by index and not by search: a topic has at
/// most thousands, and one that is not owned costs a pointer.
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

    /// In order of their numbers, as all that walk over them.
    pub(super) fn values(&self) -> impl Iterator<Item = &Partition> {
        self.0.iter().filter_map(Option::as_deref)
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Partition> {
        self.0.iter_mut().filter_map(Option::as_deref_mut)
    }
}
