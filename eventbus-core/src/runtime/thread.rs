//! [`OwnThread`]: a thread with a runtime of its own, for work that no handler may starve and that must starve no
//! handler.
//!
//! Invariant: futures given to the thread are polled and dropped on it, never on a caller's thread.

use std::future::Future;

use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::model::{Error, ErrorKind, Result};

/// A thread with a runtime of its own, on which clock and network can be used. The thread ends when this is dropped;
/// futures that still run are dropped on the thread.
///
/// ```
/// use eventbus_core::toolkit::OwnThread;
///
/// # async fn example() -> eventbus_core::Result<()> {
/// let thread = OwnThread::start("client")?;
/// let name = thread.run(async { std::thread::current().name().map(str::to_owned) }).await;
/// assert_eq!(name.flatten().as_deref(), Some("client"));
/// # Ok(())
/// # }
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(example()).unwrap();
/// ```
#[derive(Debug)]
pub struct OwnThread {
    handle: Handle,
    _alive: watch::Sender<()>,
}

impl OwnThread {
    /// Starts a thread under this name.
    ///
    /// # Errors
    /// `Unavailable` where the system gives no thread.
    pub fn start(name: &'static str) -> Result<Self> {
        let failed = |error: std::io::Error| {
            Error::new(ErrorKind::Unavailable, "no thread can be started").with("thread", name).caused_by(error)
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let handle = runtime.handle().clone();
        let (alive, mut gone) = watch::channel(());
        let run = move || {
            runtime.block_on(async { while gone.changed().await.is_ok() {} });
            // Futures are dropped here, off every caller's thread.
            drop(runtime);
        };
        std::thread::Builder::new().name(name.into()).spawn(run).map_err(failed)?;
        Ok(Self { handle, _alive: alive })
    }

    /// Spawns a future on the thread.
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        drop(self.handle.spawn(future));
    }

    /// Runs a future on the thread and returns its output; `None` where the future panicked, or the thread ended before
    /// it did. When this call is cancelled, the future goes on as long as the thread.
    pub async fn run<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> Option<T> {
        self.handle.spawn(future).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    struct Dropped(Arc<AtomicBool>, std::sync::mpsc::Sender<()>);

    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.store(std::thread::current().name() == Some("own"), Ordering::Relaxed);
            let _ = self.1.send(());
        }
    }

    #[tokio::test]
    async fn what_runs_is_dropped_on_its_thread_when_that_ends() {
        let thread = OwnThread::start("own").unwrap();
        assert_eq!(thread.run(async { 7 }).await, Some(7));
        let (there, (dropped, seen)) = (Arc::new(AtomicBool::new(false)), std::sync::mpsc::channel());
        let held = Dropped(there.clone(), dropped);
        thread.spawn(async move {
            let _held = held;
            std::future::pending::<()>().await;
        });
        drop(thread);
        seen.recv_timeout(std::time::Duration::from_secs(10)).unwrap();
        assert!(there.load(Ordering::Relaxed));
    }
}
