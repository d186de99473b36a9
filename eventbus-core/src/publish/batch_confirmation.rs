//! Batches: several envelopes published together. Each is its own publish; one future listens to all of them.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::completion::{BatchRefused, PlacedBatch};
use super::confirmation::{Placement, Publishing};
use super::seal::{Failure, PublishOutcome};
use crate::model::{Envelope, Error, Key, Receipt, Result, Withdrawal};

#[derive(Debug)]
struct BatchEntry {
    key: Option<Key>,
    place: Placement,
}

/// A batch whose envelopes have their places, all of them or none (P5). It resolves into a [`BatchConfirmation`] when
/// room was granted to all, or into the error by which the batch was refused as a whole.
///
/// Cancel safe: dropping the future withdraws nothing.
#[derive(Debug)]
#[must_use = "the envelopes are on their way, but nobody learns of a failure; `drop` it where that is meant"]
pub struct BatchPublishing(std::result::Result<BatchEntries, BatchRefused>);

/// The envelopes of a batch, polled from the first to the last, so that a batch of n costs n wakes and not n².
#[derive(Debug, Default)]
struct BatchEntries {
    list: Vec<BatchEntry>,
    next: usize,
}

impl BatchEntries {
    /// Withdraws from the last to the first, so that a prefix of every key is left.
    fn cancel(&self) -> usize {
        self.list.iter().rev().filter(|entry| entry.place.cancel() == Withdrawal::Withdrawn).count()
    }
}

impl BatchPublishing {
    /// A batch that was refused as a whole.
    pub fn failed(error: Error) -> Self {
        Self(Err(BatchRefused { failure: Failure::plain(error), roots: Vec::new() }))
    }

    /// A batch of single publishes with their keys, in call order: for layers and test doubles.
    pub fn of(publishes: impl IntoIterator<Item = (Option<Key>, Publishing)>) -> Self {
        let entry = |(key, publishing): (Option<Key>, Publishing)| BatchEntry { key, place: publishing.0 };
        Self(Ok(BatchEntries { list: publishes.into_iter().map(entry).collect(), next: 0 }))
    }

    /// Pairs these envelopes with the places that the lanes gave them.
    pub(crate) fn placed(placed: PlacedBatch, envelopes: &[Envelope]) -> Self {
        let entry = |(envelope, placed): (&Envelope, _)| BatchEntry {
            key: envelope.key().cloned(),
            place: Placement::of(placed),
        };
        Self(placed.map(|list| BatchEntries { list: envelopes.iter().zip(list).map(entry).collect(), next: 0 }))
    }

    /// Withdraws the envelopes that are certainly not stored, and returns their number.
    pub fn cancel(&self) -> usize {
        self.0.as_ref().map_or(0, BatchEntries::cancel)
    }
}

impl Future for BatchPublishing {
    type Output = Result<BatchConfirmation>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let entries = match &mut self.0 {
            Ok(entries) => entries,
            Err(whole) => {
                whole.roots.iter().for_each(|root| root.see());
                return Poll::Ready(Err(whole.failure.clone().into_seen()));
            }
        };
        while let Some(entry) = entries.list.get(entries.next) {
            // A publish that failed meanwhile is told with the outcome, in its place.
            let _ = ready!(entry.place.poll_admitted(cx));
            entries.next += 1;
        }
        let list = std::mem::take(&mut entries.list);
        let outcomes = Vec::with_capacity(list.len());
        Poll::Ready(Ok(BatchConfirmation { entries: BatchEntries { list, next: 0 }, outcomes }))
    }
}

/// A batch that the broker has yet to answer. It resolves into its [`BatchOutcome`] when every envelope's fate is
/// known.
///
/// Cancel safe: dropping the future withdraws nothing.
#[derive(Debug)]
#[must_use = "the envelopes are on their way, but nobody learns of a failure; `drop` it where that is meant"]
pub struct BatchConfirmation {
    entries: BatchEntries,
    outcomes: Vec<PublishOutcome>,
}

impl BatchConfirmation {
    /// Waits for all answers, as awaiting the confirmation itself does.
    pub async fn confirmed(self) -> BatchOutcome {
        self.await
    }

    /// Withdraws the envelopes that are certainly not stored, and returns their number.
    pub fn cancel(&self) -> usize {
        self.entries.cancel()
    }
}

impl Future for BatchConfirmation {
    type Output = BatchOutcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        while let Some(entry) = this.entries.list.get(this.entries.next) {
            let outcome = ready!(entry.place.poll_outcome(cx));
            this.outcomes.push(outcome);
            this.entries.next += 1;
        }
        let results = std::mem::take(&mut this.outcomes).into_iter().map(|o| o.map_err(Failure::into_seen));
        let keys = std::mem::take(&mut this.entries.list).into_iter().map(|entry| entry.key);
        Poll::Ready(BatchOutcome { results: results.collect(), keys: keys.collect::<Vec<_>>().into() })
    }
}

/// The outcome of a batch: one result for each envelope.
///
/// An outcome that nobody looks at hides the envelopes that are not stored, so the compiler warns of it:
///
/// ```compile_fail
/// #![deny(unused_must_use)]
/// # async fn send(bus: std::sync::Arc<dyn eventbus_core::EventBus>) -> Result<(), eventbus_core::Error> {
/// bus.publish_batch("orders", Vec::new()).await?.confirmed().await;
/// # Ok(())
/// # }
/// ```
#[must_use = "envelopes of the batch may not be stored; `into_receipts` returns the first error"]
#[derive(Debug, Clone)]
pub struct BatchOutcome {
    results: Vec<Result<Receipt>>,
    keys: Arc<[Option<Key>]>,
}

/// The stored prefix of a key: how many of its envelopes in a batch are stored, counted from the first one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredPrefix {
    /// The key of these envelopes.
    pub key: Key,
    /// Envelopes of the key that are stored, up to the first one that is not.
    pub stored: usize,
    /// Envelopes of the key in the batch.
    pub of: usize,
}

impl BatchOutcome {
    /// The results, in the batch's order.
    pub fn results(&self) -> &[Result<Receipt>] {
        &self.results
    }

    /// Returns the results, in the batch's order.
    #[must_use]
    pub fn into_results(self) -> Vec<Result<Receipt>> {
        self.results
    }

    /// Whether every envelope is stored.
    #[must_use]
    pub fn is_stored(&self) -> bool {
        self.results.iter().all(Result::is_ok)
    }

    /// Returns all receipts, or the first error.
    ///
    /// # Errors
    /// The error of the first envelope that is not stored.
    pub fn into_receipts(self) -> Result<Vec<Receipt>> {
        self.results.into_iter().collect()
    }

    /// Returns the stored prefix of each key, in order of the keys' first envelopes. After a failure, go on with a key
    /// at the envelope behind its prefix.
    #[must_use]
    pub fn stored_prefixes(&self) -> Vec<StoredPrefix> {
        let mut order = Vec::<StoredPrefix>::new();
        let mut known = HashMap::<&Key, usize>::new();
        for (key, result) in self.keys.iter().zip(&self.results) {
            let Some(key) = key else { continue };
            let index = *known.entry(key).or_insert_with(|| {
                order.push(StoredPrefix { key: key.clone(), stored: 0, of: 0 });
                order.len() - 1
            });
            let prefix = &mut order[index];
            if result.is_ok() && prefix.stored == prefix.of {
                prefix.stored += 1;
            }
            prefix.of += 1;
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::confirmation::Confirmation;

    #[test]
    fn futures_of_publishing_can_be_stored_and_sent_anywhere() {
        fn check<T: Send + Unpin + 'static>() {}
        check::<Publishing>();
        check::<Confirmation>();
        check::<BatchPublishing>();
        check::<BatchConfirmation>();
    }
}
