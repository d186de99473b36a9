//! Histories in files: one line, one append, before the recorded thing goes on.
//!
//! The line is handed to the operating system by a single write, so what was recorded survives a
//! kill -9 of the process (not a power cut of the host, which no rule is about).

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{Clock, Event, History, Kind, Recorder};

/// A recorder that appends to a file as NDJSON.
pub struct FileRecorder {
    clock: Clock,
    /// The clock's time at an instant.
    anchor: OnceLock<(u64, Instant)>,
    state: Mutex<RecorderState>,
}

struct RecorderState {
    file: File,
    line: Vec<u8>,
    failed: Option<io::Error>,
}

impl FileRecorder {
    /// Opens (or creates) the file for appending. Each process writes to a file of its own.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn append(path: impl AsRef<Path>, clock: Clock) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self {
            clock,
            anchor: OnceLock::new(),
            state: Mutex::new(RecorderState { file, line: Vec::with_capacity(512), failed: None }),
        })
    }

    /// Checks that every record was written. To be called before the history is believed.
    ///
    /// # Errors
    /// The first failure to write; it is handed out once.
    pub fn check(&self) -> io::Result<()> {
        match self.lock().failed.take() {
            None => Ok(()),
            Some(error) => Err(error),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, RecorderState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recorder for FileRecorder {
    fn record(&self, process: u32, kind: Kind) {
        let mut state = self.lock();
        let state = &mut *state;
        // The clock is read under the lock: times in one file never fall.
        let at = (self.clock)();
        state.line.clear();
        let written = serde_json::to_writer(&mut state.line, &Event { at, process, kind })
            .map_err(io::Error::from)
            .and_then(|()| {
                state.line.push(b'\n');
                state.file.write_all(&state.line)
            });
        if let Err(error) = written {
            state.failed.get_or_insert(error);
        }
    }

    fn time_of(&self, instant: Instant) -> Option<u64> {
        let &(time, anchor) = self.anchor.get_or_init(|| anchored(&self.clock));
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let later = nanos(instant.saturating_duration_since(anchor));
        let earlier = nanos(anchor.saturating_duration_since(instant));
        Some(time.saturating_add(later).saturating_sub(earlier))
    }
}

/// The clock's time at an instant, and that instant: the closest of some looks, since a thread may be held up between
/// the two.
fn anchored(clock: &Clock) -> (u64, Instant) {
    let look = |_| {
        let (before, instant) = (clock(), Instant::now());
        (clock().saturating_sub(before), before, instant)
    };
    let closest = (0..100).map(look).min_by_key(|(apart, ..)| *apart);
    closest.map_or_else(|| (clock(), Instant::now()), |(_, time, instant)| (time, instant))
}

impl fmt::Debug for FileRecorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileRecorder").finish_non_exhaustive()
    }
}

/// The reason why a file is no history.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The file cannot be read.
    #[error("cannot read the history {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A line is not a record.
    #[error("line {line} of the history {path} is not a record: {source}")]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The parser's error.
        source: serde_json::Error,
    },
}

impl History {
    /// Reads a history that a [`FileRecorder`] or [`write_ndjson`](Self::write_ndjson) wrote.
    ///
    /// A last line without its line feed is left out: a killed process did not get to record it. Every other line must
    /// be a record.
    ///
    /// # Errors
    /// When the file cannot be read, or one of its lines is not a record.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, ReadError> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|source| ReadError::Io { path: path.to_owned(), source })?;
        let mut events = Vec::new();
        for (index, line) in bytes.split_inclusive(|&byte| byte == b'\n').enumerate() {
            let Some(line) = line.strip_suffix(b"\n") else {
                break;
            };
            let event = serde_json::from_slice(line).map_err(|source| ReadError::Line {
                path: path.to_owned(),
                line: index + 1,
                source,
            })?;
            events.push(event);
        }
        Ok(Self { events })
    }
}
