//! The finished-beyond set: what finished above a watermark while something below was still running
//! (S3).
//!
//! # Invariant
//!
//! **Below its horizon the set is complete, at and above it the set is empty.** A set that must be made
//! smaller is cut at the high end only ([`FinishedSet::below`]), which lowers the horizon. So for each
//! key what it does not name is a suffix of what was delivered, and what is repeated is too.

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
    /// Rising, not empty, and with at least one position between two of them.
    pub(super) runs: Vec<Run>,
    /// [`Position::MAX`] where nothing was cut.
    pub(super) horizon: Position,
}

impl Default for FinishedSet {
    fn default() -> Self {
        FinishedSet { runs: Vec::new(), horizon: Position::MAX }
    }
}

/// Makes a complete set of any runs: sorted where they are not, overlapping ones joined, empty ones
/// left out.
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
    /// Makes a complete set of runs; see the [`FromIterator`] implementation.
    pub fn from_runs(runs: impl IntoIterator<Item = Run>) -> Self {
        runs.into_iter().collect()
    }

    /// Whether the record at `position` is known to be finished.
    #[must_use]
    pub fn contains(&self, position: Position) -> bool {
        let after = self.runs.partition_point(|run| run.first <= position);
        after.checked_sub(1).and_then(|index| self.runs.get(index)).is_some_and(|run| position <= run.last)
    }

    /// Whether the set names nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The runs, rising.
    pub fn runs(&self) -> impl ExactSizeIterator<Item = Run> + '_ {
        self.runs.iter().copied()
    }

    /// Complete strictly below this position; at and above it everything counts as unfinished.
    /// [`Position::MAX`] where nothing was cut.
    #[must_use]
    pub fn horizon(&self) -> Position {
        self.horizon
    }

    /// Whether something finished was left out above the horizon.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.horizon < Position::MAX
    }

    /// The same set with the horizon at `horizon`, where that is lower.
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
