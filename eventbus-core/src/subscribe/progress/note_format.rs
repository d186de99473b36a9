//! Format of a finished-beyond set within the bytes of a note (S3).
//!
//! Invariant: the set is written below a horizon, as far as it fits; reading returns exactly the written set, or an
//! error.

use serde::{Deserialize, Serialize};

use super::finished::{FinishedSet, Run};
use crate::model::Position;

/// Error of a note that was not written or not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoteError {
    /// The note has no bytes.
    #[error("the note is empty: at least a version byte was expected")]
    Empty,
    /// The note was written by a version before the oldest that is understood.
    #[error("the note has version {found}, which is older than {known}, the only one known here")]
    Older {
        /// The version found.
        found: u8,
        /// The version expected.
        known: u8,
    },
    /// The note was written by a later version of this library.
    #[error("the note has version {found}, which is newer than {known}, the only one known here")]
    Newer {
        /// The version found.
        found: u8,
        /// The version expected.
        known: u8,
    },
    /// The bytes are not those of a note.
    #[error("the note cannot be read: {0}")]
    Malformed(postcard::Error),
    /// Bytes are left over behind the note.
    #[error("{0} bytes were left over behind the note")]
    Trailing(usize),
    /// The set leaves the range of positions.
    #[error("the note's finished-beyond set leaves the range of positions")]
    OutOfRange,
    /// The set names a position at or below the watermark.
    #[error("the finished-beyond set names {position}, which is not above the watermark {watermark}")]
    NotAbove {
        /// The lowest position of the set.
        position: Position,
        /// The note's watermark.
        watermark: Position,
    },
    /// The set names a position at or above its horizon.
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

/// Form of a written set, relative to the watermark beside it: `base` is one above the watermark, the lowest position
/// that the set can name (the watermark itself is the next to be handled).
///
/// No form can express falling positions: distances are unsigned. Sets that a form can express but that cannot exist
/// (with positions past the highest, or above the horizon) are refused by [`decode`].
#[derive(Debug, Serialize, Deserialize)]
enum Form {
    /// Runs: for each, how far it begins above the lowest place where it could, and its length less one.
    Runs(Vec<(u64, u64)>),
    /// Bits: one for each position from `base`, lowest bit first.
    Bitmap(Vec<u8>),
}

/// Plan to write the set or a cut of it, measured before it is built.
struct Plan {
    horizon: Position,
    size: usize,
    bitmap: bool,
}

/// Writes as much of `set` as fits in `budget` bytes: in the form that reaches further, and of two that reach equally
/// far in the smaller. `Err` holds the bytes that the smallest cut needs.
pub(crate) fn encode(set: &FinishedSet, watermark: Position, budget: usize) -> Result<Vec<u8>, EncodeError> {
    let base = watermark.get().saturating_add(1);
    if let Some(run) = set.runs.first().filter(|run| run.first.get() < base) {
        return Err(EncodeError::Set(NoteError::NotAbove { position: run.first, watermark }));
    }
    let runs = plan_runs(set, base, budget).map_err(EncodeError::Needs)?;
    let plan = match plan_bitmap(set, base, budget) {
        Some(bits) if (bits.horizon, runs.size) > (runs.horizon, bits.size) => bits,
        _ => runs,
    };
    let cut = set.below(plan.horizon);
    let form = if plan.bitmap { bitmap_of(&cut, base) } else { runs_of(&cut, base) };
    let horizon = relative(plan.horizon, base);
    postcard::to_stdvec(&(horizon, form)).map_err(|error| EncodeError::Set(NoteError::Malformed(error)))
}

pub(crate) enum EncodeError {
    /// The smallest cut needs this many bytes.
    Needs(usize),
    /// The set does not belong to the watermark.
    Set(NoteError),
}

/// Reads a set that [`encode`] wrote from the front of `bytes`, and returns the bytes behind it.
pub(crate) fn decode(bytes: &[u8], watermark: Position) -> Result<(FinishedSet, &[u8]), NoteError> {
    let base = watermark.get().saturating_add(1);
    let ((horizon, form), rest): ((Option<u64>, Form), _) =
        postcard::take_from_bytes(bytes).map_err(NoteError::Malformed)?;
    let horizon = match horizon {
        Some(distance) => Position::new(base.checked_add(distance).ok_or(NoteError::OutOfRange)?),
        None => Position::MAX,
    };
    let runs = match form {
        Form::Runs(distances) => runs_from(&distances, base)?,
        Form::Bitmap(bytes) => runs_from_bitmap(&bytes, base)?,
    };
    match runs.last() {
        Some(run) if run.last >= horizon => Err(NoteError::AboveHorizon { position: run.last, horizon }),
        _ => Ok((FinishedSet { runs, horizon }, rest)),
    }
}

/// Plans for the most runs that fit, counted from the lowest.
fn plan_runs(set: &FinishedSet, base: u64, budget: usize) -> Result<Plan, usize> {
    let mut best = Err(usize::MAX);
    let mut payload = 0;
    let mut least = base;
    for count in 0..=set.runs.len() {
        let next = set.runs.get(count);
        let horizon = next.map_or(set.horizon, |run| run.first);
        let size = header(horizon, base, count) + payload;
        match &mut best {
            best if size <= budget => *best = Ok(Plan { horizon, size, bitmap: false }),
            Err(needed) => *needed = size.min(*needed),
            Ok(_) => {}
        }
        if let Some(run) = next {
            payload += varint(run.first.get() - least) + varint(run.last.get() - run.first.get());
            least = run.last.get().saturating_add(2);
        }
        if payload > budget {
            break;
        }
    }
    best
}

/// Plans for the longest bitmap that fits; `None` for an empty set, or where none fits.
fn plan_bitmap(set: &FinishedSet, base: u64, budget: usize) -> Option<Plan> {
    let last = set.runs.last()?.last.get();
    let whole = (last - base) / 8 + 1;
    let mut length = budget.min(usize::try_from(whole).unwrap_or(usize::MAX));
    while length > 0 {
        let horizon = match length as u64 {
            complete if complete == whole => set.horizon,
            cut => Position::new(base + cut * 8),
        };
        let size = header(horizon, base, length) + length;
        if size <= budget {
            return Some(Plan { horizon, size, bitmap: true });
        }
        length -= 1;
    }
    None
}

fn runs_of(set: &FinishedSet, base: u64) -> Form {
    let mut least = base;
    let distance = |run: &Run| {
        let pair = (run.first.get() - least, run.last.get() - run.first.get());
        least = run.last.get().saturating_add(2);
        pair
    };
    Form::Runs(set.runs.iter().map(distance).collect())
}

fn bitmap_of(set: &FinishedSet, base: u64) -> Form {
    let length = set.runs.last().map_or(0, |run| (run.last.get() - base) / 8 + 1);
    let mut bytes = vec![0_u8; length as usize];
    for run in &set.runs {
        for bit in run.first.get() - base..=run.last.get() - base {
            bytes[(bit / 8) as usize] |= 1 << (bit % 8);
        }
    }
    Form::Bitmap(bytes)
}

fn runs_from(distances: &[(u64, u64)], base: u64) -> Result<Vec<Run>, NoteError> {
    let mut runs = Vec::with_capacity(distances.len());
    let mut least = Some(base);
    for &(distance, more) in distances {
        let first = least.and_then(|least| least.checked_add(distance)).ok_or(NoteError::OutOfRange)?;
        let last = first.checked_add(more).filter(|last| *last < u64::MAX).ok_or(NoteError::OutOfRange)?;
        runs.push(Run { first: Position::new(first), last: Position::new(last) });
        least = last.checked_add(2);
    }
    Ok(runs)
}

fn runs_from_bitmap(bytes: &[u8], base: u64) -> Result<Vec<Run>, NoteError> {
    let end = (bytes.len() as u64).checked_mul(8).and_then(|bits| base.checked_add(bits));
    end.ok_or(NoteError::OutOfRange)?;
    let mut runs: Vec<Run> = Vec::new();
    let mut open = false;
    let mut position = Position::new(base);
    for bit in bytes.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1)) {
        match runs.last_mut() {
            Some(run) if bit == 1 && open => run.last = position,
            _ if bit == 1 => runs.push(Run { first: position, last: position }),
            _ => {}
        }
        open = bit == 1;
        position = position.next();
    }
    Ok(runs)
}

/// Converts the horizon to its written form, relative to `base`.
fn relative(horizon: Position, base: u64) -> Option<u64> {
    (horizon < Position::MAX).then(|| horizon.get().saturating_sub(base))
}

/// Counts the bytes of horizon, form and length.
fn header(horizon: Position, base: u64, length: usize) -> usize {
    1 + relative(horizon, base).map_or(0, varint) + 1 + varint(length as u64)
}

/// Counts the bytes of a number, seven bits in each.
fn varint(number: u64) -> usize {
    (64 - (number | 1).leading_zeros() as usize).div_ceil(7)
}
