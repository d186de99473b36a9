//! The finished-beyond set: records that finished above a watermark while one below was still
//! running (S3).
//!
//! # Invariant
//!
//! **Below its horizon the set is complete, at and above it the set is empty.** A set that must be
//! made smaller is cut at the high end only ([`FinishedSet::below`]), which lowers the horizon. So
//! for each key the records that the set does not name are a suffix of those delivered, and so are
//! the repeated ones.

use crate::model::Position;

/// Positions from `first` to `last`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Run {
    /// The lowest position of the run.
    pub first: Position,
    /// The highest position of the run.
    pub last: Position,
}

/// Finished positions above a watermark, complete up to a horizon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinishedSet {
    /// The runs in rising order, not empty, and with at least one position between two of them.
    pub(super) runs: Vec<Run>,
    /// The position up to which the set is complete; [`Position::MAX`] where nothing was cut.
    pub(super) horizon: Position,
}

impl Default for FinishedSet {
    fn default() -> Self {
        FinishedSet { runs: Vec::new(), horizon: Position::MAX }
    }
}

/// Makes a complete set from any runs: sorts them, joins overlapping ones, leaves out empty ones.
impl FromIterator<Run> for FinishedSet {
    fn from_iter<I: IntoIterator<Item = Run>>(runs: I) -> Self {
        let highest = Position::new(Position::MAX.get() - 1);
        let clipped = runs.into_iter().map(|run| Run { last: run.last.min(highest), ..run });
        let mut given: Vec<Run> = clipped.filter(|run| run.first <= run.last).collect();
        if !given.is_sorted_by_key(|run| run.first) {
            given.sort_by_key(|run| run.first);
        }
        given.dedup_by(|run, before| {
            let joined = run.first <= before.last.next();
            if joined {
                before.last = before.last.max(run.last);
            }
            joined
        });
        FinishedSet { runs: given, horizon: Position::MAX }
    }
}

impl FinishedSet {
    /// Makes a complete set from runs; see the [`FromIterator`] implementation.
    pub fn from_runs(runs: impl IntoIterator<Item = Run>) -> Self {
        runs.into_iter().collect()
    }

    /// Returns whether the record at `position` is known to be finished.
    #[must_use]
    pub fn contains(&self, position: Position) -> bool {
        let after = self.runs.partition_point(|run| run.first <= position);
        after.checked_sub(1).and_then(|index| self.runs.get(index)).is_some_and(|run| position <= run.last)
    }

    /// Returns the first position from this one on that the set does not name.
    pub(crate) fn first_unfinished(&self, from: Position) -> Position {
        let within = self.runs().find(|run| (run.first..=run.last).contains(&from));
        within.map_or(from, |run| run.last.next())
    }

    /// Returns whether the set names no position.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Returns the runs in rising order.
    pub fn runs(&self) -> impl ExactSizeIterator<Item = Run> + '_ {
        self.runs.iter().copied()
    }

    /// Returns the position below which the set is complete; at and above it everything counts as
    /// unfinished. [`Position::MAX`] where nothing was cut.
    #[must_use]
    pub fn horizon(&self) -> Position {
        self.horizon
    }

    /// Returns whether a finished position was left out above the horizon.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.horizon < Position::MAX
    }

    /// Returns the same set with its horizon lowered to `horizon`, if that is lower.
    #[must_use]
    pub fn below(&self, horizon: Position) -> Self {
        if horizon >= self.horizon {
            return self.clone();
        }
        let kept = self.runs.iter().take_while(|run| run.first < horizon);
        let highest = Position::new(horizon.get().saturating_sub(1));
        let runs = kept.map(|run| Run { last: run.last.min(highest), ..*run }).collect();
        FinishedSet { runs, horizon }
    }
}
