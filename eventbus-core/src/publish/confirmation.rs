//! The futures of a publish: [`Publishing`] while there is no room, [`Confirmation`] while the broker has not answered,
//! [`Receipt`] in the end. A batch goes through the same three steps.
//!
//! These futures move nothing: the envelope was handed over at the call (P1). Polling only listens, dropping only stops
//! listening, and `cancel` is the one way to withdraw. An error that polling returns counts as seen (P2); an error
//! inside a dropped future does not.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::completion::Completion;
use super::seal::{Failure, PublishOutcome};
use crate::model::{Error, ErrorKind, Receipt, Result, Withdrawal};

/// The place of a publish: in the key lanes, or over before it got there.
#[derive(Clone)]
pub(super) enum Placement {
    Lanes(Arc<Completion>),
    Over(PublishOutcome),
}

impl Placement {
    pub(super) fn of(placed: Result<Arc<Completion>, Failure>) -> Self {
        placed.map_or_else(|failure| Self::Over(Err(failure)), Self::Lanes)
    }

    /// Polls whether room was granted or the publish is over; marks nothing as seen.
    pub(super) fn poll_admitted(&self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        match self {
            Self::Lanes(completion) => completion.poll_admitted(cx),
            Self::Over(outcome) => Poll::Ready(outcome.clone().map(drop)),
        }
    }

    /// Polls whether the publish is over; marks nothing as seen.
    pub(super) fn poll_outcome(&self, cx: &mut Context<'_>) -> Poll<PublishOutcome> {
        match self {
            Self::Lanes(completion) => completion.poll_outcome(cx),
            Self::Over(outcome) => Poll::Ready(outcome.clone()),
        }
    }

    /// Returns the error of a wait that ends before the publish is over.
    fn unresolved(&self) -> Error {
        let answer = match self {
            Self::Lanes(completion) => completion.last_answer(),
            Self::Over(_) => None,
        };
        let message = match answer {
            None => "the broker has not answered yet; the key goes on waiting".into(),
            Some(answer) => format!("not known to be stored yet; the key goes on waiting; the last answer: {answer}"),
        };
        Error::new(ErrorKind::Unknown, message)
    }

    pub(super) fn cancel(&self) -> Withdrawal {
        match self {
            Self::Lanes(completion) => completion.cancel(),
            Self::Over(_) => Withdrawal::TooLate,
        }
    }
}

impl fmt::Debug for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lanes(completion) => completion.fmt(f),
            Self::Over(Ok(receipt)) => receipt.fmt(f),
            Self::Over(Err(failure)) => failure.error.fmt(f),
        }
    }
}

/// A publish that has its place in the key's line. It resolves into a [`Confirmation`] when room was granted (P5), or
/// into the error that ended the publish before that.
///
/// Cancel safe: dropping the future withdraws nothing.
#[derive(Debug)]
#[must_use = "the envelope is on its way, but nobody learns of a failure; `drop` it where that is meant"]
pub struct Publishing(pub(super) Placement);

impl Publishing {
    /// A publish that has failed: for layers that refuse, and for test doubles.
    pub fn failed(error: Error) -> Self {
        Self::over(Err(Failure::plain(error)))
    }

    /// A publish that is stored already: for test doubles.
    pub fn stored(receipt: Receipt) -> Self {
        Self::over(Ok(receipt))
    }

    pub(crate) fn over(outcome: PublishOutcome) -> Self {
        Self(Placement::Over(outcome))
    }

    pub(crate) fn of(placed: Result<Arc<Completion>, Failure>) -> Self {
        Self(Placement::of(placed))
    }

    /// Withdraws the envelope, if it is certainly not stored: not handed to the broker yet, or come back from it. A
    /// withdrawal is no refusal: envelopes queued behind this one go on.
    pub fn cancel(&self) -> Withdrawal {
        self.0.cancel()
    }
}

impl Future for Publishing {
    type Output = Result<Confirmation>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let admitted = ready!(self.0.poll_admitted(cx));
        Poll::Ready(match admitted {
            Ok(()) => Ok(Confirmation(self.0.clone())),
            Err(failure) => Err(failure.into_seen()),
        })
    }
}

/// A publish that the broker has yet to answer. It resolves into its [`Receipt`] or the error that ended it. While the
/// fate is unknown the future waits, and the key with it (P2).
///
/// Cancel safe: dropping the future withdraws nothing, and a failure still reaches the bus's hook.
#[derive(Debug)]
#[must_use = "the envelope is on its way, but nobody learns of a failure; `drop` it where that is meant"]
pub struct Confirmation(Placement);

impl Confirmation {
    /// A publish that has failed: for test doubles.
    pub fn failed(error: Error) -> Self {
        Self::over(Err(Failure::plain(error)))
    }

    /// A publish that is stored already: for test doubles.
    pub fn stored(receipt: Receipt) -> Self {
        Self::over(Ok(receipt))
    }

    pub(crate) fn over(outcome: PublishOutcome) -> Self {
        Self(Placement::Over(outcome))
    }

    pub(crate) fn of(placed: Result<Arc<Completion>, Failure>) -> Self {
        Self(Placement::of(placed))
    }

    /// Waits for the broker's answer, as awaiting the confirmation itself does.
    ///
    /// # Errors
    /// The error that ended the publish: `Refused`, `Cascaded`, `Withdrawn`, `TooLarge`, `UnknownTopic`,
    /// `PartitionsChanged`, `Closed`, `Unknown`.
    pub async fn confirmed(self) -> Result<Receipt> {
        self.await
    }

    /// Waits for the answer, for at most `within`. Needs a tokio runtime with time.
    ///
    /// # Errors
    /// As [`confirmed`](Self::confirmed); and `Unknown` when the time is over. That ends nothing but this wait: the key
    /// still waits for the answer, and so may the caller, by awaiting the confirmation again.
    pub async fn confirmed_within(&mut self, within: Duration) -> Result<Receipt> {
        match tokio::time::timeout(within, &mut *self).await {
            Ok(result) => result,
            Err(_) => Err(self.0.unresolved().with("waited_ms", within.as_millis())),
        }
    }

    /// Withdraws the envelope, if it is certainly not stored: not handed to the broker yet, or come back from it. A
    /// withdrawal is no refusal: envelopes queued behind this one go on.
    pub fn cancel(&self) -> Withdrawal {
        self.0.cancel()
    }
}

impl Future for Confirmation {
    type Output = Result<Receipt>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = ready!(self.0.poll_outcome(cx));
        Poll::Ready(outcome.map_err(Failure::into_seen))
    }
}
