//! Handler: prints the envelope, after running the command if there is one.

use std::sync::Mutex;
use std::sync::PoisonError;

use async_trait::async_trait;
use eventbus::{Delivery, Handler, HandlerError};
use tokio::sync::watch;
use tokio::time::Instant;

use super::counted::Counted;
use super::exec::Exec;
use super::writer::Writer;
use crate::record::{self, DeliveryPlace, Nothing};

pub(super) struct Handling {
    writer: Writer,
    exec: Option<Exec>,
    counted: Option<Counted>,
    count: Option<u64>,
    finished: watch::Sender<u64>,
    traffic: Mutex<Traffic>,
}

/// Attempts that run, and when one last began or ended.
struct Traffic {
    last: Instant,
    running: usize,
    failed: u64,
}

/// Attempt under way, counted as traffic until it is dropped.
struct Running<'a>(&'a Handling);

impl<'a> Running<'a> {
    fn begin(handling: &'a Handling) -> Self {
        handling.with_traffic(|traffic| {
            traffic.running += 1;
            traffic.last = Instant::now();
        });
        Self(handling)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.with_traffic(|traffic| {
            traffic.running -= 1;
            traffic.last = Instant::now();
        });
    }
}

impl Handling {
    pub(super) fn new(writer: Writer, exec: Option<Exec>, count: Option<u64>) -> Self {
        Self {
            writer,
            exec,
            counted: count.map(Counted::new),
            count,
            finished: watch::Sender::new(0),
            traffic: Mutex::new(Traffic { last: Instant::now(), running: 0, failed: 0 }),
        }
    }

    fn with_traffic<T>(&self, look: impl FnOnce(&mut Traffic) -> T) -> T {
        look(&mut self.traffic.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn finished(&self) -> u64 {
        *self.finished.borrow()
    }

    pub(super) fn failed(&self) -> u64 {
        self.with_traffic(|traffic| traffic.failed)
    }

    /// Returns the time since which no attempt runs; `None` while one does.
    pub(super) fn quiet_since(&self) -> Option<Instant> {
        self.with_traffic(|traffic| (traffic.running == 0).then_some(traffic.last))
    }

    /// Waits until the number of lines of `--count` is printed; for ever without one.
    pub(super) async fn counted(&self) {
        let mut finished = self.finished.subscribe();
        let reached = |finished: &u64| self.count.is_some_and(|count| *finished >= count);
        if finished.wait_for(reached).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until stdout cannot be written any more, and returns why.
    pub(super) async fn output_broken(&self) -> String {
        self.writer.broken().await
    }

    /// Whether attempts may be held back, as with `--count`.
    pub(super) const fn holds_back(&self) -> bool {
        self.counted.is_some()
    }

    pub(super) fn held(&self) -> usize {
        self.counted.as_ref().map_or(0, Counted::held)
    }

    async fn attempt(&self, delivery: &Delivery) -> Result<(), HandlerError> {
        let line = record::line(delivery.envelope(), &DeliveryPlace::of(delivery), &Nothing {});
        let line = line.map_err(HandlerError::permanent)?;
        if let Some(exec) = &self.exec {
            exec.run(delivery, &line).await.map_err(HandlerError::retry)?;
        }
        self.writer.write(line).await;
        Ok(())
    }
}

#[async_trait]
impl Handler for Handling {
    async fn handle(&self, delivery: Delivery) -> Result<(), HandlerError> {
        let claim = match &self.counted {
            Some(counted) => Some(counted.claim().await),
            None => None,
        };
        let _running = Running::begin(self);
        match self.attempt(&delivery).await {
            Ok(()) => {
                if let Some(claim) = claim {
                    claim.used();
                }
                self.finished.send_modify(|finished| *finished += 1);
                Ok(())
            }
            Err(error) => {
                self.with_traffic(|traffic| traffic.failed += 1);
                Err(error)
            }
        }
    }
}
