//! Count of lines for `--count`: exactly so many, and nothing finished beyond them.
//!
//! **Invariant.** An attempt that may end in a line holds one of the lines that are left. An attempt that finds none
//! left is held back, neither finished nor failed, until a line is given back or the subscription ends and lets the
//! attempt go unacknowledged.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Semaphore, SemaphorePermit};

#[derive(Debug)]
pub(super) struct Counted {
    left: Semaphore,
    held: AtomicUsize,
}

/// Claim to one of the lines left; dropping it gives the line back.
#[derive(Debug)]
pub(super) struct Claim<'a>(SemaphorePermit<'a>);

impl Claim<'_> {
    /// Uses the line up: it was printed.
    pub(super) fn used(self) {
        self.0.forget();
    }
}

struct Held<'a>(&'a AtomicUsize);

impl<'a> Held<'a> {
    fn count(held: &'a AtomicUsize) -> Self {
        held.fetch_add(1, Ordering::AcqRel);
        Self(held)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Counted {
    pub(super) fn new(lines: u64) -> Self {
        let lines = usize::try_from(lines).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { left: Semaphore::new(lines), held: AtomicUsize::new(0) }
    }

    /// Takes one of the lines, or waits until one is given back.
    pub(super) async fn claim(&self) -> Claim<'_> {
        if let Ok(permit) = self.left.try_acquire() {
            return Claim(permit);
        }
        let held = Held::count(&self.held);
        let permit = self.left.acquire().await;
        drop(held);
        match permit {
            Ok(permit) => Claim(permit),
            // The semaphore is never closed.
            Err(_) => std::future::pending().await,
        }
    }

    /// Returns the number of attempts that are held back now.
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn a_line_given_back_is_for_the_next_and_a_used_one_for_nobody() {
        let counted = Arc::new(Counted::new(1));
        let first = counted.claim().await;
        let waiting = tokio::spawn({
            let counted = counted.clone();
            async move { counted.claim().await.used() }
        });
        while counted.held() == 0 {
            tokio::task::yield_now().await;
        }
        drop(first);
        waiting.await.unwrap();
        assert_eq!((counted.held(), counted.left.available_permits()), (0, 0));
    }
}
