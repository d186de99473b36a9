//! Writer of stdout, the only one, on a thread of its own: a slow reader holds up handlers, not the runtime.
//!
//! **Invariant.** A line is answered only when it was written and flushed. Lines that wait are written together. Each
//! key's lines are in order, since the key's next line is handed in only after the one before was answered.

use std::io::{self, Write};

use tokio::sync::{mpsc, oneshot, watch};

/// The most lines that wait to be written.
const WAITING: usize = 1_024;

type QueuedLine = (Vec<u8>, oneshot::Sender<()>);

/// Handle that passes lines to the thread.
#[derive(Debug)]
pub(super) struct Writer {
    lines: mpsc::Sender<QueuedLine>,
    broken: watch::Receiver<Option<String>>,
}

impl Writer {
    pub(super) fn start() -> io::Result<Self> {
        let (lines, mut waiting) = mpsc::channel::<QueuedLine>(WAITING);
        let (tell, broken) = watch::channel(None);
        let write = move || {
            let mut lines = Vec::new();
            while waiting.blocking_recv_many(&mut lines, WAITING) > 0 {
                if let Err(error) = write_all(&lines) {
                    let _ = tell.send(Some(error.to_string()));
                    return;
                }
                for (_, written) in lines.drain(..) {
                    let _ = written.send(());
                }
            }
        };
        std::thread::Builder::new().name("stdout".into()).spawn(write)?;
        Ok(Self { lines, broken })
    }

    /// Writes a line. Returns when it is flushed, and never if it cannot be.
    pub(super) async fn write(&self, line: Vec<u8>) {
        let (written, answer) = oneshot::channel();
        if self.lines.send((line, written)).await.is_err() || answer.await.is_err() {
            // The attempt neither finishes nor fails: the command is about to end.
            std::future::pending::<()>().await;
        }
    }

    /// Waits until stdout cannot be written any more, and returns why.
    pub(super) async fn broken(&self) -> String {
        let mut broken = self.broken.clone();
        let error = broken.wait_for(Option::is_some).await.ok().and_then(|error| error.clone());
        match error {
            Some(error) => error,
            None => std::future::pending().await,
        }
    }
}

fn write_all(lines: &[QueuedLine]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let together: Vec<u8> = lines.iter().flat_map(|(line, _)| line).copied().collect();
    out.write_all(&together)?;
    out.flush()
}
