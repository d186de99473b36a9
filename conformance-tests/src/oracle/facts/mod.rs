//! A history resolved: names and keys are small numbers, calls are paired with their ends,
//! deliveries with their sessions, positions with what is stored there.
//!
//! [`HistoryFacts`] judge nothing. They are built in one pass ([`build`]) and read by every rule; a rule
//! walks [`HistoryFacts::steps`], which has one entry per record of the history, in its order.
//!
//! Words, beyond those of the contract:
//! - a *stream* is one key of one topic (replayed deliveries of it are another stream);
//! - a *record* ([`Rec`]) is one number of a stream, a *slot* one place in a log that holds it;
//! - a *view* is a partition as one group sees it;
//! - an *era* counts how often a partition's log was replaced or shortened;
//! - a *segment* is the part of a view's life within which contiguity is demanded.

mod build;
mod late;
mod names;
mod publish;

use crate::history::{Event, Key};

/// "No such thing" among the indices.
pub(super) const NONE: u32 = u32::MAX;

/// One key of one topic.
pub(super) struct Stream<'h> {
    pub(super) topic: u32,
    pub(super) key: &'h Key,
    /// Replayed deliveries; their numbers are positions, since a letter may be replayed twice.
    pub(super) replayed: bool,
    /// The stored records of the stream, by number.
    pub(super) line: Vec<u32>,
    /// Bus and record index of each `resume`.
    pub(super) resumes: Vec<(u32, u32)>,
    /// Whether any publish of it was refused.
    pub(super) refusals: bool,
}

impl Stream<'_> {
    /// Whether order is promised within it.
    pub(super) fn is_keyed(&self) -> bool {
        self.key.bytes().is_some()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Never answered; judged as unknown.
    Pending,
    Confirmed,
    Refused,
    Unknown,
    Withdrawn,
}

/// One number of a stream.
pub(super) struct Rec {
    pub(super) stream: u32,
    pub(super) number: u64,
    pub(super) bus: u32,
    /// Index of the offer, or [`NONE`].
    pub(super) offered: u32,
    pub(super) digest: u64,
    pub(super) fate: Fate,
    /// Index of the outcome.
    pub(super) decided: u32,
    /// Index at which its refusal sealed the key, or [`NONE`] where the history does not say.
    pub(super) sealed: u32,
    /// The number that the refusal names.
    pub(super) root: Option<u64>,
    /// Index at which the outcome was in the caller's hands.
    pub(super) returned: u32,
    /// The first place where it is stored, or [`NONE`].
    pub(super) slot: u32,
    /// Number of places in which it is stored.
    pub(super) slots: u32,
    /// Whether the log, read after the run, holds it.
    pub(super) in_log: bool,
    /// Place in the stream's line, or [`NONE`].
    pub(super) rank: u32,
}

/// One place in a log.
#[derive(Clone, Copy)]
pub(super) struct LogSlot {
    pub(super) part: u32,
    pub(super) position: u64,
    pub(super) rec: u32,
    /// First era in which it is there.
    pub(super) born: u32,
    /// First era in which it is gone, or [`NONE`].
    pub(super) gone: u32,
    /// Index of the record that first showed it.
    pub(super) seen: u32,
    /// Another slot at the same position, of another era.
    next: u32,
}

impl LogSlot {
    pub(super) const fn is_in(&self, era: u32) -> bool {
        self.born <= era && era < self.gone
    }
}

/// A partition's log.
pub(super) struct Part {
    pub(super) topic: u32,
    pub(super) partition: u32,
    pub(super) era: u32,
    /// The log's end when each era but the first began: positions at and above it are gone since.
    ends: Vec<u64>,
    /// Slots by position, once built.
    pub(super) slots: Vec<u32>,
    /// First position that the log held when it was read after the run.
    pub(super) first_kept: u64,
    /// First position that purges have left.
    pub(super) purged: u64,
}

impl Part {
    /// The first era in which a position of an earlier one is gone, or [`NONE`].
    fn gone(&self, position: u64, born: u32) -> u32 {
        let later = (born + 1..).zip(self.ends.iter().skip(born as usize));
        later.filter(|&(_, &end)| position >= end).map(|(era, _)| era).next().unwrap_or(NONE)
    }
}

pub(super) struct Group {
    pub(super) topic: u32,
    pub(super) name: u32,
}

/// A stretch of positions that was reported lost, from a record on.
pub(super) struct Loss {
    pub(super) from: u64,
    /// The end of what can be lost: where purges alone take records, these have taken it.
    pub(super) to: u64,
    /// The end as it was reported.
    pub(super) told: u64,
}

/// A purge of a partition.
pub(super) struct Purge {
    pub(super) part: u32,
    /// The first position that the purges before had left.
    pub(super) from: u64,
    /// The first position that it leaves.
    pub(super) first: u64,
}

/// A partition as one group sees it.
pub(super) struct View {
    pub(super) group: u32,
    pub(super) part: u32,
    pub(super) first_segment: u32,
    /// The last segment opened.
    pub(super) segment: u32,
    pub(super) losses: Vec<Loss>,
    /// Each epoch's first handler start.
    first_starts: Vec<(u64, u32)>,
    pub(super) sessions: Vec<u32>,
    /// A seek that has not taken effect, with its target.
    pending_seek: Option<Option<u64>>,
    /// One past the highest position handed out in this era.
    reached: u64,
}

impl View {
    pub(super) fn lost(&self, position: u64) -> bool {
        self.losses.iter().any(|loss| (loss.from..loss.to).contains(&position))
    }
}

pub(super) struct Segment {
    pub(super) view: u32,
    /// The epoch that it began with; earlier ones belong to the segment before.
    pub(super) epoch: u64,
    pub(super) floor: u64,
    pub(super) era: u32,
}

pub(super) struct Session {
    pub(super) view: u32,
    pub(super) process: u32,
    pub(super) member: u32,
    pub(super) epoch: u64,
    pub(super) at: u32,
    /// The segment that it opens, or [`NONE`].
    pub(super) opens: u32,
}

/// One handler call.
pub(super) struct Delivery {
    pub(super) rec: u32,
    pub(super) stream: u32,
    pub(super) view: u32,
    pub(super) group: u32,
    /// The slot that it was read from; another record's where the history contradicts itself.
    pub(super) slot: u32,
    pub(super) position: u64,
    pub(super) number: u64,
    pub(super) digest: u64,
    pub(super) attempt: u32,
    pub(super) epoch: u64,
    /// Index from which on it may count as begun: of the ownership check, or of the last record before it.
    pub(super) check: u32,
    pub(super) start: u32,
    /// Index of its end, of its future's drop or of its process's kill, or [`NONE`].
    pub(super) end: u32,
    /// Whether its end finished the envelope.
    pub(super) finished: bool,
    pub(super) session: u32,
    pub(super) segment: u32,
    /// Index of the first start under a later epoch, or [`NONE`].
    pub(super) superseded: u32,
}

impl Delivery {
    /// Whether the delivery passed its start check after its successor had begun to handle.
    pub(super) const fn is_stale(&self) -> bool {
        self.superseded != NONE && self.check >= self.superseded
    }

    pub(super) const fn open_at(&self, index: u32) -> bool {
        self.end == NONE || self.end > index
    }
}

/// A record finished outside a handler call.
pub(super) struct Finish {
    pub(super) view: u32,
    pub(super) process: u32,
    pub(super) segment: u32,
    pub(super) era: u32,
    pub(super) position: u64,
    pub(super) slot: u32,
    pub(super) dropped_copy: bool,
}

/// A commit, or a committed position read after the run.
pub(super) struct CommitFact<'h> {
    pub(super) view: u32,
    pub(super) segment: u32,
    pub(super) position: u64,
    /// `None` where it was read after the run.
    pub(super) epoch: Option<u64>,
    pub(super) beyond: &'h [(u64, u64)],
    pub(super) sent: u32,
    pub(super) confirmed: u32,
}

/// The meaning of a record of the history for the rules.
#[derive(Clone, Copy)]
pub(super) enum Step {
    Nothing,
    Start(u32),
    End(u32),
    Finish(u32),
    Commit(u32),
    Session(u32),
    Segment(u32),
    Loss(u32),
    Purge(u32),
}

#[derive(Default)]
pub(super) struct HistoryFacts<'h> {
    pub(super) events: &'h [Event],
    pub(super) names: Vec<&'h str>,
    pub(super) streams: Vec<Stream<'h>>,
    pub(super) recs: Vec<Rec>,
    pub(super) slots: Vec<LogSlot>,
    pub(super) parts: Vec<Part>,
    pub(super) groups: Vec<Group>,
    pub(super) views: Vec<View>,
    pub(super) segments: Vec<Segment>,
    pub(super) sessions: Vec<Session>,
    pub(super) deliveries: Vec<Delivery>,
    pub(super) finishes: Vec<Finish>,
    pub(super) commits: Vec<CommitFact<'h>>,
    pub(super) purges: Vec<Purge>,
    pub(super) steps: Vec<Step>,
    /// Contradictions: the record, and what is wrong with it.
    pub(super) malformed: Vec<(u32, &'static str)>,
    /// Two records that say different things about one position.
    pub(super) conflicts: Vec<(u32, u32)>,
}

impl HistoryFacts<'_> {
    /// The segment that a step opens.
    pub(super) fn opened(&self, step: Step) -> Option<u32> {
        match step {
            Step::Segment(segment) => Some(segment),
            Step::Session(session) => Some(self.sessions[session as usize].opens).filter(|&opens| opens != NONE),
            _ => None,
        }
    }

    /// The segment that each view begins with.
    pub(super) fn first_segments(&self) -> Vec<u32> {
        self.views.iter().map(|view| view.first_segment).collect()
    }
}
