//! Progress.

pub(crate) mod finished;
pub(crate) mod note;
pub(crate) mod note_format;
pub(crate) mod tracker;

pub(crate) use finished::FinishedSet;
pub(crate) use note::Note;
