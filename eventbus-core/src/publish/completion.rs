//! [`Completion`]: the state that a publish and its caller share.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::seal::{Failure, PublishOutcome, RefusalRoot};
use crate::model::{Error, Stamp, Withdrawal};
use crate::runtime::Mutex;
use tokio::time::Instant;

/// The lanes as a completion sees them: able to withdraw a publish that is certainly not stored.
pub(super) trait Withdraw: fmt::Debug + Send + Sync {
    fn withdraw(self: Arc<Self>, ticket: u64) -> Withdrawal;

    /// Returns the last answer to a publish that is sent again.
    fn last_answer(&self, ticket: u64) -> Option<Error>;
}

/// The caller's end of a publish: the one allocation that a publish makes.
pub(crate) struct Completion {
    lanes: Arc<dyn Withdraw>,
    /// The id under which the lanes find the envelope.
    ticket: u64,
    stamp: Stamp,
    /// The instant of the call.
    since: Instant,
    progress: Mutex<CompletionState>,
}

/// The places of a batch, of which each envelope has one or failed on its own; or the reason why no envelope was taken.
pub(crate) type PlacedBatch = Result<Vec<Result<Arc<Completion>, Failure>>, BatchRefused>;

/// The reason why no envelope of a batch took a place, and the refusals that count as seen with its error.
#[derive(Debug)]
pub(crate) struct BatchRefused {
    pub(super) failure: Failure,
    pub(super) roots: Vec<Arc<RefusalRoot>>,
}

struct CompletionState {
    admitted: bool,
    outcome: Option<PublishOutcome>,
    waker: Option<Waker>,
}

impl Completion {
    /// Makes the completion of a publish that was called at `since`.
    pub(super) fn new(
        lanes: Arc<dyn Withdraw>,
        ticket: u64,
        stamp: Stamp,
        admitted: bool,
        since: Instant,
    ) -> Arc<Self> {
        let progress = CompletionState { admitted, outcome: None, waker: None };
        Arc::new(Self { lanes, ticket, stamp, since, progress: Mutex::new(progress) })
    }

    pub(super) fn since(&self) -> Instant {
        self.since
    }

    pub(super) fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// Notes that room was granted. Wakes the caller: once the caller has the future, not to be called under a lock.
    pub(super) fn admit(&self) {
        self.change(|progress| progress.admitted = true);
    }

    /// Ends the publish. Wakes the caller: not to be called under a lock.
    pub(super) fn resolve(&self, outcome: PublishOutcome) {
        self.change(|progress| progress.outcome = Some(outcome));
    }

    fn change(&self, change: impl FnOnce(&mut CompletionState)) {
        let waker = {
            let mut progress = self.progress.lock();
            change(&mut progress);
            progress.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(crate) fn poll_admitted(&self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let mut progress = self.progress.lock();
        match &progress.outcome {
            _ if progress.admitted => Poll::Ready(Ok(())),
            Some(outcome) => Poll::Ready(outcome.clone().map(drop)),
            None => progress.wait(cx),
        }
    }

    pub(crate) fn poll_outcome(&self, cx: &mut Context<'_>) -> Poll<PublishOutcome> {
        let mut progress = self.progress.lock();
        match &progress.outcome {
            Some(outcome) => Poll::Ready(outcome.clone()),
            None => progress.wait(cx),
        }
    }

    pub(crate) fn last_answer(&self) -> Option<Error> {
        self.lanes.last_answer(self.ticket)
    }

    pub(crate) fn cancel(&self) -> Withdrawal {
        Arc::clone(&self.lanes).withdraw(self.ticket)
    }
}

impl CompletionState {
    fn wait<T>(&mut self, cx: &Context<'_>) -> Poll<T> {
        match &mut self.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let progress = self.progress.lock();
        f.debug_struct("Publish")
            .field("lanes", &self.lanes)
            .field("stamp", &self.stamp)
            .field("admitted", &progress.admitted)
            .field("over", &progress.outcome.is_some())
            .finish()
    }
}
