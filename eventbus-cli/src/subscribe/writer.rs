//! The one writer of stdout, on a thread of its own: a slow reader holds up handlers, not the runtime.
//!
//! **Invariant.** A line is answered only when it was written and flushed. Lines that wait are written together, and each
//! key's are in order, since the next of a key is handed in only when the one before was answered.

use std::io::{self, Write};

use tokio::sync::{mpsc, oneshot, watch};

/// Lines that wait to be written.
const WAITING: usize = 1_024;

type Job = (Vec<u8>, oneshot::Sender<()>);

/// Hands lines to the thread.
#[derive(Debug)]
pub(super) struct Writer {
    lines: mpsc::Sender<Job>,
    broken: watch::Receiver<Option<String>>,
}

impl Writer {
    /// Starts the thread.
    pub(super) fn start() -> io::Result<Self> {
        let (lines, mut waiting) = mpsc::channel::<Job>(WAITING);
        let (tell, broken) = watch::channel(None);
        let write = move || {
            let mut jobs = Vec::new();
            while waiting.blocking_recv_many(&mut jobs, WAITING) > 0 {
                if let Err(error) = write_all(&jobs) {
                    let _ = tell.send(Some(error.to_string()));
                    return;
                }
                for (_, written) in jobs.drain(..) {
                    let _ = written.send(());
                }
            }
        };
        std::thread::Builder::new().name("stdout".into()).spawn(write)?;
        Ok(Self { lines, broken })
    }

    /// Writes a line; returns when it is flushed, and never if it cannot be.
    pub(super) async fn write(&self, line: Vec<u8>) {
        let (written, answer) = oneshot::channel();
        if self.lines.send((line, written)).await.is_err() || answer.await.is_err() {
            // Neither finished nor failed: the command is about to end.
            std::future::pending::<()>().await;
        }
    }

    /// Waits until nothing can be written any more, and says why.
    pub(super) async fn broken(&self) -> String {
        let mut broken = self.broken.clone();
        let error = broken.wait_for(Option::is_some).await.ok().and_then(|error| error.clone());
        match error {
            Some(error) => error,
            None => std::future::pending().await,
        }
    }
}

fn write_all(jobs: &[Job]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let together: Vec<u8> = jobs.iter().flat_map(|(line, _)| line).copied().collect();
    out.write_all(&together)?;
    out.flush()
}
