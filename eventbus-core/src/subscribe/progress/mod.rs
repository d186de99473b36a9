//! Progress of one partition under one owner: the ledger of what was delivered and finished, and the note in which it is stored.
//!
//! `tracker` keeps the watermark (S4); `finished` is the set of what finished beyond it; `note` is what stands beside a
//! watermark (S3), and `note_format` how the set is written into its bytes.

pub(crate) mod finished;
pub(crate) mod note;
pub(crate) mod note_format;
pub(crate) mod tracker;

pub(crate) use finished::FinishedSet;
pub(crate) use note::Note;
