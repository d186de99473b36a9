//! Containment of panics on a member's own threads: a panic ends the member with an error that is told.
//!
//! Invariant: none of these threads ends in silence. A client's accessor that panics on what a stranger wrote would
//! otherwise leave a member that owns its partitions and handles nothing.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::model::{Error, ErrorKind, Result};

/// Runs work whose panic becomes an error with the panic's words.
pub(super) fn contained<T>(doing: &str, work: impl FnOnce() -> T) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        let text = text.unwrap_or("with something that is no text").to_owned();
        forget(panic);
        Error::new(ErrorKind::Backend, format!("{doing} panicked: {text}"))
    })
}

/// Drops what a panic carried; its own drop may panic, too.
fn forget(panic: Box<dyn Any + Send>) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(panic)));
}

/// The error of a call that a thread took and never answered: the member's end is told by its next event.
pub(super) fn unanswered() -> Error {
    Error::new(ErrorKind::Unavailable, "the member came to its end before it answered")
}
