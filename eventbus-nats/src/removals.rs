//! Removals at the server of what the backend is done with, in the background.
//!
//! Invariant: a removal is asked for again where nobody knows whether it was done, and closing waits for the removals
//! under way: a program that describes a group and ends leaves nothing behind.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::RwLock;

/// Waits before the attempts. After the last, the server has to remove the rest.
const WAITS: [Duration; 4] = [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(30)];

/// The removals of a connection that are under way.
#[derive(Debug, Default)]
pub(crate) struct Cleanup {
    /// Read-locked by the removals under way, write-locked by a caller that waits for them.
    under_way: Arc<RwLock<()>>,
}

impl Cleanup {
    /// Begins a removal. To be called on a runtime, also from a `Drop`; outside of a runtime nothing happens. The
    /// attempt is made at once, and again 1 s, 5 s and 30 s after the one before, until it is answered: until its
    /// future gives `true`, whatever the answer was.
    pub(crate) fn begin<F>(&self, mut attempt: impl FnMut() -> F + Send + 'static)
    where
        F: Future<Output = bool> + Send,
    {
        let Ok(runtime) = Handle::try_current() else { return };
        // A removal that begins while somebody waits is not waited for.
        let held = Arc::clone(&self.under_way).try_read_owned().ok();
        runtime.spawn(async move {
            let _held = held;
            for wait in WAITS {
                tokio::time::sleep(wait).await;
                if attempt().await {
                    return;
                }
            }
        });
    }

    /// Waits for all removals under way, at most so long. Cancel safe: they go on.
    pub(crate) async fn ended(&self, at_most: Duration) {
        let _ = tokio::time::timeout(at_most, self.under_way.write()).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;
    use tokio::time::Instant;

    use super::*;

    /// Begins a removal that is answered at the attempt of this number. Returns when each attempt was made, in seconds.
    fn begin(removals: &Cleanup, answered: usize) -> mpsc::UnboundedReceiver<u64> {
        let (made, attempts) = mpsc::unbounded_channel();
        let (begun, mut number) = (Instant::now(), 0);
        removals.begin(move || {
            number += 1;
            made.send(begun.elapsed().as_secs()).unwrap();
            let answer = number == answered;
            async move { answer }
        });
        attempts
    }

    async fn all(mut attempts: mpsc::UnboundedReceiver<u64>) -> Vec<u64> {
        let mut all = Vec::new();
        while let Some(attempt) = attempts.recv().await {
            all.push(attempt);
        }
        all
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_answered_is_asked_for_again_and_not_for_ever() {
        let removals = Cleanup::default();
        assert_eq!(all(begin(&removals, 1)).await, [0]);
        assert_eq!(all(begin(&removals, 3)).await, [0, 1, 6]);
        assert_eq!(all(begin(&removals, 9)).await, [0, 1, 6, 36]);
    }

    #[tokio::test(start_paused = true)]
    async fn closing_waits_for_what_is_under_way_and_not_for_ever() {
        let (removals, begun) = (Cleanup::default(), Instant::now());
        removals.ended(Duration::from_secs(2)).await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
        let attempts = begin(&removals, 2);
        removals.ended(Duration::from_secs(2)).await;
        assert_eq!((begun.elapsed().as_secs(), all(attempts).await), (1, vec![0, 1]));
        let _attempts = begin(&removals, 9);
        removals.ended(Duration::from_secs(2)).await;
        assert_eq!(begun.elapsed().as_secs(), 3);
    }

    #[test]
    fn outside_of_a_runtime_nothing_begins() {
        Cleanup::default().begin(|| async { panic!("no attempt") });
    }
}
