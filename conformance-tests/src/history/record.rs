//! Recorders, which take the records of a run that is under way.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use super::{Event, History, Kind};

/// A monotonic clock, in nanoseconds.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The host's monotonic clock: comparable among all processes of one host.
#[must_use]
pub fn monotonic_clock() -> Clock {
    Arc::new(|| {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
        let nanos = u64::try_from(now.tv_nsec).unwrap_or_default();
        seconds * 1_000_000_000 + nanos
    })
}

/// A recorder of a run.
///
/// When `record` returns, the record is kept: by this process for a [`MemoryRecorder`], by the
/// operating system for a [`FileRecorder`](super::FileRecorder).
pub trait Recorder: Send + Sync + fmt::Debug {
    /// Appends a record of the given process, stamped with the recorder's clock.
    fn record(&self, process: u32, kind: Kind);

    /// The time of the recorder's clock at an instant. `None` where the place of a record says more than its time:
    /// several processes share the recorder, or its clock stands still.
    fn time_of(&self, instant: Instant) -> Option<u64> {
        let _ = instant;
        None
    }
}

/// A recorder in memory, which keeps the records in the order in which they came.
///
/// Several simulated processes share one, so that their records have one order even where the
/// simulation's clock stands still.
pub struct MemoryRecorder {
    clock: Clock,
    events: Mutex<Vec<Event>>,
}

impl MemoryRecorder {
    /// An empty recorder that stamps with `clock`.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock, events: Mutex::default() }
    }

    /// The records so far; the recorder keeps them too.
    #[must_use]
    pub fn snapshot(&self) -> History {
        History::new(self.lock().clone())
    }

    /// Looks at the records so far without copying them.
    pub fn inspect<R>(&self, look: impl FnOnce(&[Event]) -> R) -> R {
        look(&self.lock())
    }

    /// Takes the records so far, and leaves the recorder empty.
    #[must_use]
    pub fn take(&self) -> History {
        History::new(std::mem::take(&mut *self.lock()))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Event>> {
        // A handler that panics while recording leaves a whole vector behind.
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recorder for MemoryRecorder {
    fn record(&self, process: u32, kind: Kind) {
        let mut events = self.lock();
        let at = (self.clock)();
        events.push(Event { at, process, kind });
    }
}

impl fmt::Debug for MemoryRecorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryRecorder").field("records", &self.lock().len()).finish_non_exhaustive()
    }
}
