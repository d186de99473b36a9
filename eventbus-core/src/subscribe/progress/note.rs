//! The note that is stored beside a partition's watermark (S3, S5).
//!
//! A watermark alone would make a new owner repeat every record that finished behind a slow head.
//! The note says which records need not be handled again, who wrote it and for which log, and which
//! envelope a crash may have been running.
//!
//! # Invariants
//!
//! - **A note that does not fit loses its high end and nothing else (S3).** Owner, epoch, incarnation
//!   and the rest are written whole or not at all; the finished-beyond set is cut as
//!   [`FinishedSet::below`] cuts.
//! - **A note is read whole or refused.** Bytes of another version, with something missing or left
//!   over, or with an impossible set, are a [`NoteError`]; no record is skipped on the word of such
//!   a note.
//!
//! A note names its watermark. Both are written together; if they differ when read (somebody moved
//! the committed position by hand), the note does not belong to the position resumed at and must be
//! discarded.

use serde::{Deserialize, Serialize};

use super::finished::FinishedSet;
use super::note_format::{self, EncodeError, NoteError};
use crate::model::Position;

/// The version of the format, the first byte of an encoded note.
const VERSION: u8 = 1;

/// Note beside a watermark.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Note {
    /// The watermark that the note was written with: the next position to be handled.
    pub watermark: Position,
    /// The member that wrote the note.
    pub owner: String,
    /// The epoch of the ownership under which the note was written.
    pub epoch: u64,
    /// The topic's identity, as the backend tells it.
    pub incarnation: String,
    /// The finished positions above the watermark, with their horizon.
    pub finished: FinishedSet,
    /// Whether the owner released the partition by plan.
    pub clean: bool,
    /// Starts in a row after a release that was not planned, without progress.
    pub unclean_starts: u32,
    /// The envelope that is handled on its own, where the partition handles one at a time.
    pub trying: Option<Trying>,
    /// The position below which envelopes are handled one at a time: they may have ended a process.
    pub suspect_until: Option<Position>,
}

/// An envelope that is handled alone, written down before its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trying {
    /// The envelope's position.
    pub position: Position,
    /// Attempts so far, counting the one that starts.
    pub attempts: u32,
}

/// All fields but the set, in the order in which they are written.
#[derive(Serialize, Deserialize)]
struct Fixed<'a> {
    watermark: Position,
    #[serde(borrow)]
    owner: &'a str,
    epoch: u64,
    #[serde(borrow)]
    incarnation: &'a str,
    clean: bool,
    unclean_starts: u32,
    trying: Option<(Position, u32)>,
    suspect_until: Option<Position>,
}

impl Note {
    /// Writes the note in at most `limit` bytes, with as much of the finished-beyond set, from its
    /// low end, as fits. A store that holds text only states a limit that allows for its encoding.
    ///
    /// # Errors
    ///
    /// [`NoteError::DoesNotFit`] where the fixed fields alone exceed the limit, and
    /// [`NoteError::NotAbove`] where the set belongs to another watermark.
    pub fn encode(&self, limit: usize) -> Result<Vec<u8>, NoteError> {
        let fixed = Fixed {
            watermark: self.watermark,
            owner: &self.owner,
            epoch: self.epoch,
            incarnation: &self.incarnation,
            clean: self.clean,
            unclean_starts: self.unclean_starts,
            trying: self.trying.map(|trying| (trying.position, trying.attempts)),
            suspect_until: self.suspect_until,
        };
        let bytes = postcard::to_extend(&fixed, vec![VERSION]).map_err(NoteError::Malformed)?;
        let budget = limit.saturating_sub(bytes.len());
        match note_format::encode(&self.finished, self.watermark, budget) {
            Ok(set) => Ok([bytes, set].concat()),
            Err(EncodeError::Needs(set)) => Err(NoteError::DoesNotFit { needed: bytes.len() + set, limit }),
            Err(EncodeError::Set(error)) => Err(error),
        }
    }

    /// Reads a note that [`Note::encode`] wrote.
    ///
    /// # Errors
    ///
    /// [`NoteError`] for anything else; it never panics.
    pub fn decode(bytes: &[u8]) -> Result<Note, NoteError> {
        let rest = match bytes.split_first() {
            None => return Err(NoteError::Empty),
            Some((&found, _)) if found < VERSION => {
                return Err(NoteError::Older { found, known: VERSION });
            }
            Some((&found, _)) if found > VERSION => {
                return Err(NoteError::Newer { found, known: VERSION });
            }
            Some((_, rest)) => rest,
        };
        let (fixed, rest): (Fixed<'_>, _) = postcard::take_from_bytes(rest).map_err(NoteError::Malformed)?;
        let (finished, rest) = note_format::decode(rest, fixed.watermark)?;
        if !rest.is_empty() {
            return Err(NoteError::Trailing(rest.len()));
        }
        Ok(Note {
            watermark: fixed.watermark,
            owner: fixed.owner.to_owned(),
            epoch: fixed.epoch,
            incarnation: fixed.incarnation.to_owned(),
            finished,
            clean: fixed.clean,
            unclean_starts: fixed.unclean_starts,
            trying: fixed.trying.map(|(position, attempts)| Trying { position, attempts }),
            suspect_until: fixed.suspect_until,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::subscribe::progress::finished::Run;
    use crate::subscribe::progress::tracker::Tracker;

    fn at(position: u64) -> Position {
        Position::new(position)
    }

    fn run(first: u64, last: u64) -> Run {
        Run { first: at(first), last: at(last) }
    }

    fn note() -> Note {
        Note {
            watermark: at(7),
            owner: "billing-1".to_owned(),
            epoch: 1_700_000_000_000,
            incarnation: "orders@12".to_owned(),
            finished: FinishedSet::from_runs([run(9, 9), run(12, 40)]),
            clean: true,
            unclean_starts: 2,
            trying: Some(Trying { position: at(7), attempts: 3 }),
            suspect_until: Some(at(41)),
        }
    }

    /// A tracker over `positions`, with the records at the `finished` indexes finished.
    fn tracked(positions: &[u64], finished: impl Fn(usize) -> bool) -> Tracker {
        let mut tracker = Tracker::new(Position::ZERO);
        let ordinals: Vec<_> = positions.iter().map(|position| tracker.push(at(*position)).unwrap()).collect();
        for (index, ordinal) in ordinals.into_iter().enumerate() {
            if finished(index) {
                tracker.finish(ordinal);
            }
        }
        tracker
    }

    fn written(tracker: &Tracker, limit: usize) -> Result<FinishedSet, NoteError> {
        let note = Note { watermark: tracker.watermark(), finished: tracker.finished_set(), ..note() };
        let bytes = note.encode(limit)?;
        assert!(bytes.len() <= limit, "{} bytes with a limit of {limit}", bytes.len());
        let read = Note::decode(&bytes).unwrap();
        assert_eq!(
            Note { finished: FinishedSet::default(), ..read.clone() },
            Note { finished: FinishedSet::default(), ..note }
        );
        Ok(read.finished)
    }

    #[test]
    fn a_note_that_fits_is_changed_by_nothing() {
        let bytes = note().encode(4_096).unwrap();
        assert_eq!(Note::decode(&bytes).unwrap(), note());
        assert_eq!(note().encode(bytes.len()).unwrap(), bytes);
        let cut = Note::decode(&note().encode(bytes.len() - 1).unwrap()).unwrap();
        assert!(cut.finished.is_cut());
    }

    #[test]
    fn a_note_with_holes_is_never_written_for_every_second_of_100_000() {
        let positions: Vec<u64> = (0..100_000).collect();
        let tracker = tracked(&positions, |index| index % 2 == 1);
        let set = written(&tracker, 4_096).unwrap();
        assert!(set.is_cut());
        assert!(set.horizon() > at(30_000), "the bitmap reaches further than {}", set.horizon());
        for &position in &positions {
            let expected = position % 2 == 1 && at(position) < set.horizon();
            assert_eq!(set.contains(at(position)), expected, "position {position}");
        }
    }

    #[test]
    fn one_stuck_record_does_not_cut_the_note() {
        let positions: Vec<u64> = (0..100_000).map(|position| position * 16).collect();
        let tracker = tracked(&positions, |index| index != 0);
        let set = written(&tracker, 128).unwrap();
        assert!(!set.is_cut());
        assert_eq!(set.runs().collect::<Vec<_>>(), [run(16, 99_999 * 16)]);
    }

    #[test]
    fn fixed_fields_that_do_not_fit_are_named_not_cut() {
        let needed = match note().encode(0) {
            Err(NoteError::DoesNotFit { needed, limit: 0 }) => needed,
            other => panic!("{other:?}"),
        };
        let error = note().encode(needed - 1).unwrap_err();
        assert_eq!(error, NoteError::DoesNotFit { needed, limit: needed - 1 });
        let read = Note::decode(&note().encode(needed).unwrap()).unwrap();
        assert_eq!((read.finished.is_empty(), read.finished.horizon()), (true, at(9)));
    }

    #[test]
    fn notes_of_other_versions_are_told_apart() {
        let mut bytes = note().encode(4_096).unwrap();
        assert_eq!(Note::decode(&[]), Err(NoteError::Empty));
        bytes[0] = 0;
        assert_eq!(Note::decode(&bytes), Err(NoteError::Older { found: 0, known: 1 }));
        bytes[0] = 2;
        assert_eq!(Note::decode(&bytes), Err(NoteError::Newer { found: 2, known: 1 }));
    }

    #[test]
    fn left_over_or_missing_bytes_are_refused() {
        let bytes = note().encode(4_096).unwrap();
        assert_eq!(Note::decode(&[&bytes[..], &[0]].concat()), Err(NoteError::Trailing(1)));
        for length in 1..bytes.len() {
            assert!(Note::decode(&bytes[..length]).is_err(), "{length} of {} bytes", bytes.len());
        }
    }

    #[test]
    fn a_set_of_another_watermark_is_refused() {
        let note = Note { watermark: at(9), ..note() };
        let error = NoteError::NotAbove { position: at(9), watermark: at(9) };
        assert_eq!(note.encode(4_096), Err(error));
    }

    #[test]
    fn sets_that_cannot_be_are_refused() {
        let bare = Note { watermark: at(1), ..Note::default() };
        // A note without a set ends in three bytes: no horizon, the form, no runs.
        let bytes = bare.encode(100).unwrap();
        let fixed = &bytes[..bytes.len() - 3];
        let runs = |horizon: Option<u64>, pairs: &[(u64, u64)]| {
            let set = postcard::to_stdvec(&(horizon, 0_u8, pairs)).unwrap();
            Note::decode(&[fixed, &set].concat())
        };
        assert_eq!(runs(None, &[]), Ok(bare.clone()));
        assert!(runs(None, &[(0, 0), (0, 5)]).is_ok());
        assert_eq!(runs(None, &[(u64::MAX, 0)]), Err(NoteError::OutOfRange));
        assert_eq!(runs(None, &[(0, u64::MAX - 2)]), Err(NoteError::OutOfRange));
        assert_eq!(runs(None, &[(0, u64::MAX - 4), (0, 5)]), Err(NoteError::OutOfRange));
        assert_eq!(runs(Some(u64::MAX), &[]), Err(NoteError::OutOfRange));
        let above = NoteError::AboveHorizon { position: at(7), horizon: at(7) };
        assert_eq!(runs(Some(5), &[(0, 5)]), Err(above));
        let last = Note { watermark: Position::MAX, ..Note::default() };
        assert_eq!(Note::decode(&last.encode(100).unwrap()), Ok(last));
    }

    #[test]
    fn runs_in_any_order_make_the_same_set() {
        let set = FinishedSet::from_runs([run(8, 9), run(1, 3), run(4, 4), run(7, 6), run(2, 2)]);
        assert_eq!(set.runs().collect::<Vec<_>>(), [run(1, 4), run(8, 9)]);
        assert!(!set.is_empty() && FinishedSet::default().is_empty());
        let held: Vec<u64> = (0..12).filter(|position| set.contains(at(*position))).collect();
        assert_eq!(held, [1, 2, 3, 4, 8, 9]);
    }

    /// Positions with gaps, in stretches that are all finished or all unfinished.
    fn partition() -> impl Strategy<Value = Vec<(u64, bool)>> {
        let stretch = (1..60_usize, prop_oneof![Just(1), Just(1), 2..20_u64, Just(1 << 20)], any::<bool>());
        prop::collection::vec(stretch, 0..60).prop_map(|stretches| {
            let mut position = 0;
            let mut records = Vec::new();
            for (count, step, finished) in stretches {
                for _ in 0..count {
                    position += step;
                    records.push((position, finished));
                }
            }
            records
        })
    }

    proptest! {
        #[test]
        fn a_cut_set_is_exactly_the_true_one_below_its_horizon(records in partition(), limit in 40..400_usize) {
            let positions: Vec<u64> = records.iter().map(|(position, _)| *position).collect();
            let tracker = tracked(&positions, |index| records[index].1);
            let set = match written(&tracker, limit) {
                Ok(set) => set,
                Err(NoteError::DoesNotFit { needed, .. }) => {
                    prop_assert!(needed > limit && needed < 70);
                    return Ok(());
                }
                Err(error) => return Err(TestCaseError::fail(error.to_string())),
            };
            let truth = tracker.finished_set();
            for &(position, finished) in &records {
                let position = at(position);
                let named = set.contains(position);
                prop_assert!(!named || finished, "{position} is not finished");
                if position >= tracker.watermark() && position < set.horizon() {
                    prop_assert_eq!(named, finished, "{} is below the horizon", position);
                }
                if position >= set.horizon() {
                    prop_assert!(!named);
                }
            }
            prop_assert_eq!(set.is_cut(), set != truth);
            prop_assert_eq!(&set, &truth.below(set.horizon()));
        }

        #[test]
        fn a_larger_limit_never_lowers_the_horizon(records in partition(), limit in 60..300_usize) {
            let positions: Vec<u64> = records.iter().map(|(position, _)| *position).collect();
            let tracker = tracked(&positions, |index| records[index].1);
            if let Ok(smaller) = written(&tracker, limit) {
                prop_assert!(written(&tracker, limit + 1).unwrap().horizon() >= smaller.horizon());
            }
        }

        #[test]
        fn a_note_that_was_read_is_written_the_same(records in partition(), limit in 80..300_usize) {
            let positions: Vec<u64> = records.iter().map(|(position, _)| *position).collect();
            let tracker = tracked(&positions, |index| records[index].1);
            let whole = Note { watermark: tracker.watermark(), finished: tracker.finished_set(), ..note() };
            let read = Note::decode(&whole.encode(limit).unwrap()).unwrap();
            prop_assert_eq!(&Note::decode(&read.encode(4_096).unwrap()).unwrap(), &read);
        }

        #[test]
        fn random_bytes_do_not_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), known in any::<bool>()) {
            if let (Some(first), true) = (bytes.first_mut(), known) {
                *first = VERSION;
            }
            if let Ok(note) = Note::decode(&bytes) {
                prop_assert_eq!(Note::decode(&note.encode(1 << 20).unwrap()).unwrap(), note);
            }
        }

        #[test]
        fn a_damaged_note_does_not_panic(at_byte in any::<prop::sample::Index>(), value in any::<u8>()) {
            let mut bytes = note().encode(4_096).unwrap();
            let index = at_byte.index(bytes.len());
            bytes[index] = value;
            if let Ok(note) = Note::decode(&bytes) {
                prop_assert_eq!(Note::decode(&note.encode(1 << 20).unwrap()).unwrap(), note);
            }
        }
    }
}
