//! The record of one handler call, closed by a drop guard.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{EndOutcome, Kind, Recorder, Start};

/// A source of call numbers, unique within a process.
#[derive(Debug, Default)]
pub struct CallIds(AtomicU64);

impl CallIds {
    /// A source that begins at 1.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// The next number.
    pub fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// A handler call under way: records its start when made, and its end when told or dropped.
///
/// Kept inside the handler's future: a future that is dropped, or whose handler panics, still
/// records where its interval ends.
#[derive(Debug)]
#[must_use = "dropping it records the call as abandoned"]
pub struct HandlerCall {
    recorder: Arc<dyn Recorder>,
    process: u32,
    call: u64,
    open: bool,
}

impl HandlerCall {
    /// Records the start. The handler's own work begins after this returns.
    pub fn begin(recorder: Arc<dyn Recorder>, process: u32, start: Start) -> Self {
        let call = start.call;
        recorder.record(process, Kind::Start(start));
        Self { recorder, process, call, open: true }
    }

    /// Records the end. The handler returns after this.
    pub fn end(mut self, outcome: EndOutcome) {
        self.close(outcome);
    }

    fn close(&mut self, outcome: EndOutcome) {
        if std::mem::take(&mut self.open) {
            let call = self.call;
            self.recorder.record(self.process, Kind::End { call, outcome });
        }
    }
}

impl Drop for HandlerCall {
    fn drop(&mut self) {
        let outcome = if std::thread::panicking() { EndOutcome::Panicked } else { EndOutcome::Abandoned };
        self.close(outcome);
    }
}
