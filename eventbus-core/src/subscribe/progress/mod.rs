//! Progress of one partition under one owner: the ledger of delivered and finished records, and the note that stores
//! it.
//!
//! `tracker` keeps the watermark (S4); `finished` is the set of records finished beyond it; `note` is stored beside a
//! watermark (S3), and `note_format` writes the set into its bytes.

pub(crate) mod finished;
pub(crate) mod note;
pub(crate) mod note_format;
pub(crate) mod tracker;

pub(crate) use finished::FinishedSet;
pub(crate) use note::Note;
