//! Interrupts, by SIGINT or SIGTERM: the command drains and ends with 130.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::exit::Exit;

/// Interrupt of the program, to look at or to wait for.
#[derive(Debug, Clone)]
pub(crate) struct Interrupt(watch::Receiver<bool>);

impl Interrupt {
    /// Listens for the signals from now on. A second signal ends the process at once, undrained.
    pub(crate) fn listen() -> io::Result<Self> {
        let (mut int, mut term) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let (tell, seen) = watch::channel(false);
        tokio::spawn(async move {
            let mut either = async || {
                tokio::select! { biased; _ = int.recv() => {}, _ = term.recv() => {} }
            };
            either().await;
            // Sending fails only if the program is ending anyway.
            let _ = tell.send(true);
            either().await;
            std::process::exit(Exit::Interrupted.code().into());
        });
        Ok(Self(seen))
    }

    pub(crate) fn is_set(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits for an interrupt; for ever, if none comes.
    pub(crate) async fn wait(&self) {
        if self.0.clone().wait_for(|set| *set).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
