//! The note that is stored beside a partition's watermark (S3, S5).
//!
//! A watermark alone would make a new owner repeat everything that finished behind a slow head. The
//! note says what need not be done again, who wrote it and for which log, and what a crash may have
//! been running.
//!
//! # Invariants
//!
//! - **A note that does not fit loses its high end and nothing else (S3).** Owner, epoch, incarnation
//!   and the rest are written whole or not at all; the finished-beyond set is cut as
//!   [`FinishedSet::below`] cuts.
//! - **A note is read whole or refused.** Bytes of another version, with something missing or left over,
//!   or with a set that cannot be, are a [`NoteError`]; nothing is skipped on the word of such a note.
//!
//! A note names its watermark. Both are written together; where they are read apart (somebody moved
//! the committed position by hand), the note is not about what is being resumed and must be discarded.

use serde::{Deserialize, Serialize};

use crate::finished::{self, EncodeError};
pub use crate::finished::{FinishedSet, Run};
use crate::position::Position;

/// The first byte of what [`Note::encode`] writes.
const VERSION: u8 = 1;

/// What is stored beside a watermark.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Note {
    /// The watermark that the note was written with: the next position to be handled.
    pub watermark: Position,
    /// The member that wrote it.
    pub owner: String,
    /// The ownership under which it was written.
    pub epoch: u64,
    /// The topic's identity, or what stands for it.
    pub incarnation: String,
    /// What finished above the watermark, with its horizon.
    pub finished: FinishedSet,
    /// The owner released the partition by plan.
    pub clean: bool,
    /// Starts in a row after a release that was not planned, without progress.
    pub unclean_starts: u32,
    /// The envelope that is being handled on its own, where the partition handles one at a time.
    pub trying: Option<Trying>,
    /// Envelopes below this position are handled one at a time: they may have ended a process.
    pub suspect_until: Option<Position>,
}

/// An envelope that was started alone, written down before its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trying {
    /// Its position.
    pub position: Position,
    /// Attempts so far, with the one that is starting.
    pub attempts: u32,
}

/// Why a note was not written or not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoteError {
    /// There are no bytes.
    #[error("the note is empty: at least a version byte was expected")]
    Empty,
    /// Written by a version before the oldest that is understood.
    #[error("the note has version {found}, which is older than {known}, the only one known here")]
    Older {
        /// The version found.
        found: u8,
        /// The version expected.
        known: u8,
    },
    /// Written by a later version of this library.
    #[error("the note has version {found}, which is newer than {known}, the only one known here")]
    Newer {
        /// The version found.
        found: u8,
        /// The version expected.
        known: u8,
    },
    /// The bytes are not a note's.
    #[error("the note cannot be read: {0}")]
    Malformed(postcard::Error),
    /// Bytes are left over.
    #[error("{0} bytes were left over behind the note")]
    Trailing(usize),
    /// A position past the highest.
    #[error("the note's finished-beyond set leaves the range of positions")]
    OutOfRange,
    /// A finished position at or below the watermark.
    #[error("the finished-beyond set names {position}, which is not above the watermark {watermark}")]
    NotAbove {
        /// The lowest position of the set.
        position: Position,
        /// The note's watermark.
        watermark: Position,
    },
    /// A finished position above the horizon.
    #[error("the finished-beyond set names {position}, which is not below its horizon {horizon}")]
    AboveHorizon {
        /// The highest position of the set.
        position: Position,
        /// The set's horizon.
        horizon: Position,
    },
    /// The note does not fit even with an empty set.
    #[error("the note needs at least {needed} bytes, and the limit is {limit}")]
    DoesNotFit {
        /// Bytes needed without any finished position.
        needed: usize,
        /// The store's limit in bytes.
        limit: usize,
    },
}

/// Everything but the set, in the order in which it is written.
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
    /// Writes the note in at most `limit` bytes, with as much of the finished-beyond set, from its low
    /// end, as fits. A store that holds text only states a limit that allows for its encoding.
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
        match finished::encode(&self.finished, self.watermark, budget) {
            Ok(set) => Ok([bytes, set].concat()),
            Err(EncodeError::Needs(set)) => Err(NoteError::DoesNotFit { needed: bytes.len() + set, limit }),
            Err(EncodeError::Set(error)) => Err(error),
        }
    }

    /// Reads what [`Note::encode`] wrote.
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
        let (finished, rest) = finished::decode(rest, fixed.watermark)?;
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
mod tests;
