//! Standard streams as the program was given them, open or closed.
//!
//! Rust puts `/dev/null` in the place of a closed stream before `main`: what is written there succeeds, and nobody sees
//! it. So the streams are looked at before that.

use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::fcntl_getfd;

use crate::exit::Failure;

static INPUT_CLOSED: AtomicBool = AtomicBool::new(false);
static OUTPUT_CLOSED: AtomicBool = AtomicBool::new(false);

#[ctor::ctor]
fn look() {
    INPUT_CLOSED.store(fcntl_getfd(rustix::stdio::stdin()).is_err(), Ordering::Relaxed);
    OUTPUT_CLOSED.store(fcntl_getfd(rustix::stdio::stdout()).is_err(), Ordering::Relaxed);
}

/// Refuses to read from a closed standard input, which would pass for an empty one.
pub(crate) fn input_is_open() -> Result<(), Failure> {
    open("standard input", &INPUT_CLOSED)
}

/// Refuses to write to a closed standard output, where nobody would see it.
pub(crate) fn output_is_open() -> Result<(), Failure> {
    open("standard output", &OUTPUT_CLOSED)
}

fn open(stream: &str, closed: &AtomicBool) -> Result<(), Failure> {
    if closed.load(Ordering::Relaxed) { Err(Failure::failed(format!("{stream} is closed"))) } else { Ok(()) }
}
