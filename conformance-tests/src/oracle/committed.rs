//! What groups had committed, as a walk over the steps goes on: the newest watermark that the broker had confirmed, and
//! the set finished beyond it.
//!
//! The newest confirmed set counts: an older one may have reached further (a note is cut at its high end to fit). A
//! seek, a start position or a log reset begins anew at its position.

use super::facts::{HistoryFacts, Step};

/// What a group had committed of a partition.
#[derive(Clone, Copy, Default)]
pub(super) struct Committed<'h> {
    pub(super) watermark: u64,
    pub(super) beyond: &'h [(u64, u64)],
    epoch: u64,
    /// Index of the commit.
    pub(super) record: Option<u32>,
}

impl Committed<'_> {
    /// Whether it names this position as finished.
    pub(super) fn covers(&self, position: u64) -> bool {
        let after = self.beyond.partition_point(|run| run.0 <= position);
        let in_set = after > 0 && position < self.beyond[after - 1].1;
        position < self.watermark || in_set
    }
}

/// The walk.
pub(super) struct CommittedWalk<'f, 'h> {
    facts: &'f HistoryFacts<'h>,
    /// The current segment of each view.
    pub(super) segments: Vec<u32>,
    /// By view.
    pub(super) committed: Vec<Committed<'h>>,
}

impl<'f, 'h> CommittedWalk<'f, 'h> {
    pub(super) fn new(facts: &'f HistoryFacts<'h>) -> Self {
        Self { facts, segments: facts.first_segments(), committed: vec![Committed::default(); facts.views.len()] }
    }

    pub(super) fn step(&mut self, index: u32, step: Step) {
        let facts = self.facts;
        if let Some(opened) = facts.opened(step) {
            let segment = &facts.segments[opened as usize];
            self.segments[segment.view as usize] = opened;
            self.committed[segment.view as usize] = Committed { watermark: segment.floor, ..Committed::default() };
        }
        let Step::Commit(commit) = step else { return };
        let commit = &facts.commits[commit as usize];
        let known = &mut self.committed[commit.view as usize];
        let current = self.segments[commit.view as usize] == commit.segment;
        let Some(epoch) = commit.epoch.filter(|&epoch| epoch >= known.epoch) else { return };
        if current && commit.confirmed == index {
            let watermark = known.watermark.max(commit.position);
            *known = Committed { watermark, beyond: commit.beyond, epoch, record: Some(index) };
        }
    }
}
