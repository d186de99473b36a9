//! Records that were taken out of the middle of a log, by a purge or a deletion (S3).
//!
//! Invariants: a removal counts as a loss if it was noticed after the group came to the log, at or above the group's
//! watermark, and its record was not delivered. Removals that a group began with are counted in its record, above the
//! watermark: while that stays, more removals only add to the count.

use std::sync::Arc;

use crate::model::Position;

/// Runs of positions in order: the first of each, and the one behind its last.
pub(super) type Runs = Arc<[(Position, Position)]>;

/// Removals that are no news.
#[derive(Debug, Clone, Default)]
pub(super) struct KnownRemovals {
    runs: Runs,
    /// The position from which on none of them counts.
    up_to: Option<Position>,
}

impl KnownRemovals {
    pub(super) fn all(runs: Runs) -> Self {
        Self { runs, up_to: None }
    }

    /// Returns what is no news to a group with this progress that had counted so many removals above it. A group without
    /// progress, or without a count, begins with those that are there.
    pub(super) fn of_group(runs: Runs, next: Option<u64>, counted: Option<u64>) -> Self {
        let known = Self::all(runs);
        match (next.map(Position::new), counted) {
            (Some(next), Some(counted)) if known.count_from(next) > counted => Self { up_to: Some(next), ..known },
            _ => known,
        }
    }

    /// Counts the known removals at `from` or above.
    pub(super) fn count_from(&self, from: Position) -> u64 {
        let end = self.up_to.unwrap_or(Position::new(u64::MAX));
        overlapping(&self.runs, from, end).map(|(from, to)| to.get() - from.get()).sum()
    }

    /// Finds removals from `from` up to `to` that are neither known nor of delivered records. Returns the first of
    /// them, and the position behind the last.
    pub(super) fn news(
        &self,
        runs: &Runs,
        (from, to): (Position, Position),
        delivered: &[(Position, Position)],
    ) -> Option<(Position, Position)> {
        let mut news: Option<(Position, Position)> = None;
        let known_to = self.up_to.map_or(to, |up_to| up_to.min(to));
        for (start, end) in overlapping(runs, from, to) {
            let mut at = start;
            while at < end {
                let known = overlapping(&self.runs, at, known_to).next();
                let taken = overlapping(delivered, at, end).next();
                let covered = [known, taken].into_iter().flatten().find(|run| run.0 <= at);
                let begins = [known, taken].into_iter().flatten().map(|run| run.0).min();
                if let Some((_, behind)) = covered {
                    at = behind;
                    continue;
                }
                let behind = begins.map_or(end, |begins| begins.min(end));
                news = Some((news.map_or(at, |news| news.0), behind));
                at = behind;
            }
        }
        news
    }
}

/// Returns the parts of runs in a range.
fn overlapping(
    runs: &[(Position, Position)],
    from: Position,
    to: Position,
) -> impl Iterator<Item = (Position, Position)> {
    let first = runs.partition_point(|run| run.1 <= from);
    let parts = runs[first..].iter().take_while(move |run| run.0 < to);
    parts.map(move |run| (run.0.max(from), run.1.min(to))).filter(|run| run.0 < run.1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn runs(runs: &[(u64, u64)]) -> Runs {
        runs.iter().map(|(from, to)| (Position::new(*from), Position::new(*to))).collect()
    }

    /// The runs of the set bits.
    fn of_bits(bits: u32) -> Runs {
        let mut found: Vec<(u64, u64)> = Vec::new();
        for at in (0..32).filter(|at| bits >> at & 1 == 1) {
            match found.last_mut() {
                Some(run) if run.1 == at => run.1 += 1,
                _ => found.push((at, at + 1)),
            }
        }
        runs(&found)
    }

    #[test]
    fn what_a_group_began_with_is_no_news_and_one_more_removal_is() {
        let before = runs(&[(5, 8), (20, 21)]);
        for (next, counted) in [(None, None), (Some(6), None), (None, Some(0))] {
            let known = KnownRemovals::of_group(before.clone(), next, counted);
            assert_eq!(known.news(&before, (Position::new(0), Position::new(99)), &[]), None);
        }
        let known = KnownRemovals::of_group(before.clone(), Some(6), Some(3));
        assert_eq!(known.count_from(Position::new(6)), 3);
        assert_eq!(known.news(&before, (Position::new(6), Position::new(99)), &[]), None);
        let known = KnownRemovals::of_group(before.clone(), Some(6), Some(2));
        let news = known.news(&before, (Position::new(6), Position::new(99)), &[]);
        assert_eq!(news, Some((Position::new(6), Position::new(21))));
        assert_eq!(known.count_from(Position::new(6)), 0, "it is told again until the group has passed it");
    }

    proptest! {
        #[test]
        fn news_are_those_that_are_neither_known_nor_delivered(
            known: u32, more: u32, delivered: u32, from in 0..32_u64, long in 0..32_u64, up_to in proptest::option::of(0..32_u64),
        ) {
            let (now, to) = (known | more, (from + long).min(32));
            let judge = KnownRemovals { runs: of_bits(known), up_to: up_to.map(Position::new) };
            let found = judge.news(&of_bits(now), (Position::new(from), Position::new(to)), &of_bits(delivered));
            let is_known = |at: u64| known >> at & 1 == 1 && up_to.is_none_or(|up_to| at < up_to);
            let new: Vec<u64> = (from..to).filter(|at| now >> at & 1 == 1 && !is_known(*at) && delivered >> at & 1 == 0).collect();
            let expected = new.first().zip(new.last()).map(|(first, last)| (Position::new(*first), Position::new(last + 1)));
            prop_assert_eq!(found, expected);
            let counted = (from..32).filter(|at| is_known(*at)).count() as u64;
            prop_assert_eq!(judge.count_from(Position::new(from)), counted);
        }
    }
}
