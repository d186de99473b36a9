//! Resumption: the position at which handling of a partition goes on (S3).
//!
//! **Invariants.** Handling resumes at the committed watermark. It skips only records that the note names as
//! finished, and only if that note was written for this log: its incarnation and its watermark must be those that are
//! found. A log of another incarnation, or one that ends below the watermark, is a reset; records that retention took
//! are a loss; neither is passed over in silence.

use crate::backend::{Committed, LogState};
use crate::model::{Error, ErrorKind, Position, Result};
use crate::mutant::{Mutant, Seam};
use crate::subscribe::options::{OnDataLoss, OnLogReset, Settings};
use crate::subscribe::progress::finished::FinishedSet;
use crate::subscribe::progress::note::Note;

/// Point at which handling resumes, as found from earlier progress.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ResumePoint {
    /// The next position to handle; `None` where the group has no progress and its start decides.
    pub(crate) next: Option<Position>,
    /// The finished positions beyond `next`.
    pub(crate) finished: FinishedSet,
    /// The note, where it was written for this log.
    pub(crate) note: Option<Note>,
    /// The epoch under which the progress was committed.
    pub(crate) epoch: u64,
    /// Whether the log was another one, so that its progress is discarded.
    pub(crate) reset: bool,
    /// The records lost to retention: from, to.
    pub(crate) lost: Option<(Position, Position)>,
}

/// Compares the committed progress with the log. Returns a loss without judging it: the loss is reported before
/// [`check_loss`] decides.
///
/// # Errors
/// `LogReset` where the subscription is to stop on it.
pub(crate) fn find(
    committed: Option<&Committed>,
    log: &LogState,
    settings: &Settings,
    seam: Seam,
) -> Result<ResumePoint> {
    let Some(committed) = committed else {
        return Ok(ResumePoint { next: None, finished: nothing(), note: None, epoch: 0, reset: false, lost: None });
    };
    let note = read_note(committed);
    let foreign = note.as_ref().is_some_and(|note| log.is_another_than(&note.incarnation));
    let reset = (foreign || committed.next > log.end) && !seam.is(Mutant::ForeignNote);
    if reset {
        if settings.on_log_reset == OnLogReset::Stop {
            return Err(log_reset(committed.next, log));
        }
        let epoch = committed.epoch;
        return Ok(ResumePoint { next: Some(log.first), finished: nothing(), note: None, epoch, reset, lost: None });
    }
    let mut found = ResumePoint {
        next: Some(committed.next),
        finished: note
            .as_ref()
            .filter(|_| !seam.is(Mutant::NoteIgnored))
            .map_or_else(nothing, |note| note.finished.clone()),
        note,
        epoch: committed.epoch,
        reset,
        lost: None,
    };
    if log.first > committed.next {
        found.lost = Some((committed.next, log.first));
        let (next, finished) = above(log.first, &found.finished);
        (found.next, found.finished) = (Some(next), finished);
    }
    Ok(found)
}

/// Decides whether the subscription goes on after a loss of records.
///
/// # Errors
/// `DataLost` where the subscription is to stop.
pub(crate) fn check_loss(from: Position, to: Position, settings: &Settings) -> Result<()> {
    match settings.on_data_loss {
        OnDataLoss::Continue => Ok(()),
        OnDataLoss::Stop => {
            let message = "records were removed that were not handled, by retention or by hand";
            Err(Error::new(ErrorKind::DataLost, message).with("from", from).with("to", to))
        }
    }
}

pub(crate) fn log_reset(next: Position, log: &LogState) -> Error {
    Error::new(ErrorKind::LogReset, "the log is not the one that the group's progress was written for")
        .with("committed", next)
        .with("first", log.first)
        .with("end", log.end)
        .with("incarnation", &log.incarnation)
}

/// Returns the note, unless it cannot be read or belongs to another watermark: then no record is skipped by it.
fn read_note(committed: &Committed) -> Option<Note> {
    if committed.note.is_empty() {
        return None;
    }
    match Note::decode(&committed.note) {
        Ok(note) if note.watermark == committed.next => Some(note),
        Ok(_) => None,
        Err(error) => {
            tracing::warn!(target: "eventbus", %error, "the note beside a watermark cannot be read; nothing is skipped by it");
            None
        }
    }
}

/// Returns the first position from `first` on that is not finished, and the finished positions beyond it.
fn above(first: Position, finished: &FinishedSet) -> (Position, FinishedSet) {
    let next = finished.first_unfinished(first);
    let beyond = finished.runs().filter(|run| run.first > next).collect::<FinishedSet>();
    (next, beyond.below(finished.horizon()))
}

fn nothing() -> FinishedSet {
    FinishedSet::from_runs([])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subscribe::progress::finished::Run;

    fn log(incarnation: &str, first: u64, end: u64) -> LogState {
        LogState { incarnation: incarnation.into(), first: Position::new(first), end: Position::new(end) }
    }

    fn committed(next: u64, incarnation: &str) -> Committed {
        let run = Run { first: Position::new(next + 2), last: Position::new(next + 3) };
        let note = Note {
            watermark: Position::new(next),
            incarnation: incarnation.into(),
            finished: FinishedSet::from_runs([run]),
            ..Note::default()
        };
        let note = note.encode(1_000).unwrap().into();
        Committed { next: Position::new(next), epoch: 4, note }
    }

    fn settings(reset: OnLogReset, loss: OnDataLoss) -> Settings {
        Settings { on_log_reset: reset, on_data_loss: loss, ..Settings::default() }
    }

    #[test]
    fn a_note_of_another_incarnation_skips_nothing() {
        let earliest = settings(OnLogReset::Earliest, OnDataLoss::Stop);
        let found = find(Some(&committed(5, "one")), &log("two", 0, 100), &earliest, Seam::default()).unwrap();
        assert!(found.reset && found.finished.is_empty() && found.next == Some(Position::ZERO));
        let error = find(Some(&committed(5, "one")), &log("two", 0, 100), &Settings::default(), Seam::default());
        assert_eq!(error.unwrap_err().kind(), ErrorKind::LogReset);
    }

    #[test]
    fn a_watermark_above_the_end_is_a_reset() {
        let found = find(Some(&committed(50, "one")), &log("one", 0, 10), &Settings::default(), Seam::default());
        assert_eq!(found.unwrap_err().kind(), ErrorKind::LogReset);
    }

    #[test]
    fn a_note_that_was_written_for_another_watermark_skips_nothing() {
        let moved = Committed { next: Position::new(3), ..committed(5, "one") };
        let found = find(Some(&moved), &log("one", 0, 100), &Settings::default(), Seam::default()).unwrap();
        assert!(found.finished.is_empty() && found.next == Some(Position::new(3)));
    }

    #[test]
    fn what_was_finished_within_a_loss_is_neither_named_nor_handled_again() {
        let go_on = settings(OnLogReset::Stop, OnDataLoss::Continue);
        // The positions 7 and 8 were finished beyond 5.
        for (first, next) in [(6, 6), (7, 9), (8, 9), (9, 9)] {
            let found = find(Some(&committed(5, "one")), &log("one", first, 100), &go_on, Seam::default()).unwrap();
            assert_eq!(found.next, Some(Position::new(next)));
            assert_eq!(found.finished.is_empty(), first > 6, "{first}");
            assert!(found.finished.runs().all(|run| run.first > Position::new(next)));
        }
    }

    #[test]
    fn lost_records_are_passed_over_in_silence() {
        let (from, to) = (Position::new(5), Position::new(9));
        assert_eq!(check_loss(from, to, &Settings::default()).unwrap_err().kind(), ErrorKind::DataLost);
        let go_on = settings(OnLogReset::Stop, OnDataLoss::Continue);
        assert!(check_loss(from, to, &go_on).is_ok());
        let found = find(Some(&committed(5, "one")), &log("one", 9, 100), &go_on, Seam::default()).unwrap();
        assert_eq!(found.lost, Some((Position::new(5), Position::new(9))));
        assert_eq!(found.next, Some(Position::new(9)));
    }
}
