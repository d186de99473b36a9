//! The load: publishes at a steady rate, whatever their outcomes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use conformance_tests::suite::{Failure, Peer};
use eventbus_core::Error;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::task::{JoinHandle, JoinSet};

use super::{KEYS, TOPIC, wrong};

/// A publish that failed: when it was called, and when its caller was told.
#[derive(Clone, Debug)]
pub(crate) struct Refused {
    pub(crate) called: Instant,
    pub(crate) told: Instant,
    pub(crate) error: Error,
}

/// Refusals as they come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Refusals(Arc<Mutex<Vec<Refused>>>);

impl Refusals {
    pub(crate) fn all(&self) -> Vec<Refused> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add(&self, called: Instant, error: Error) {
        let refused = Refused { called, told: Instant::now(), error };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(refused);
    }
}

/// A load under way.
pub(crate) struct Load {
    pub(crate) refusals: Refusals,
    stop: Arc<AtomicBool>,
    task: JoinHandle<(usize, JoinSet<()>)>,
}

/// Publishes whose load has ended, and which may have no outcome yet.
pub(crate) struct Offered {
    pub(crate) count: usize,
    waiting: JoinSet<()>,
}

impl Load {
    pub(crate) fn start(publisher: Arc<Peer>, rate: u64, seed: u64) -> Self {
        let (refusals, stop) = (Refusals::default(), Arc::new(AtomicBool::new(false)));
        let task = tokio::spawn(publish(publisher, (rate, seed), stop.clone(), refusals.clone()));
        Self { refusals, stop, task }
    }

    /// Ends the load.
    pub(crate) async fn stop(self) -> Result<Offered, Failure> {
        self.stop.store(true, Ordering::Relaxed);
        let (count, waiting) = self.task.await.map_err(wrong)?;
        Ok(Offered { count, waiting })
    }
}

impl Offered {
    /// Waits until each has its outcome.
    pub(crate) async fn outcomes(mut self) -> Result<(), Failure> {
        while let Some(ended) = self.waiting.join_next().await {
            ended.map_err(wrong)?;
        }
        Ok(())
    }
}

/// Publishes until told to stop. Every outcome is awaited as soon as it may come: a refusal seals its key until its
/// caller has it.
async fn publish(
    publisher: Arc<Peer>,
    (rate, seed): (u64, u64),
    stop: Arc<AtomicBool>,
    refusals: Refusals,
) -> (usize, JoinSet<()>) {
    let mut draws = ChaCha8Rng::seed_from_u64(seed);
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    let (mut count, mut waiting) = (0, JoinSet::new());
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        for _ in 0..(rate / 50).max(1) {
            let key = format!("order-{}", draws.random_range(0..KEYS));
            let called = Instant::now();
            let (outcome, refusals) = (publisher.publisher().publish(TOPIC, &key, 100), refusals.clone());
            count += 1;
            waiting.spawn(async move {
                if let Err(error) = outcome.await {
                    refusals.add(called, error);
                }
            });
        }
        while waiting.try_join_next().is_some() {}
    }
    (count, waiting)
}
