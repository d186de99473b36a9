//! Shield between a handler and its worker: catches panics, lets a running future be dropped, and knows who is inside.
//!
//! Panics are caught around the call of the handler, each poll and the drop of its future; each counts as a failed
//! attempt.

use std::any::Any;
use std::cell::Cell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

use super::handler::HandlerError;
use crate::mutant::{Mutant, Seam};

/// Control over a running worker: the session has its future dropped at a deadline (S7).
#[derive(Debug, Default)]
pub(crate) struct Control {
    /// The number of the job whose future must be dropped.
    abandon: AtomicU64,
    pub(super) waker: AtomicWaker,
}

impl Control {
    pub(crate) fn abandon(&self, job: u64) {
        self.abandon.store(job, Ordering::Release);
        self.waker.wake();
    }

    pub(super) fn is_abandoned(&self, job: u64) -> bool {
        self.abandon.load(Ordering::Acquire) == job
    }
}

/// A bus and one of its subscriptions, by which a handler that waits for itself is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scope {
    pub(crate) bus: u64,
    pub(crate) subscription: u64,
}

thread_local! {
    static INSIDE: Cell<Option<Scope>> = const { Cell::new(None) };
}

impl Scope {
    /// Returns the subscription in whose handler this thread runs, if any.
    pub(crate) fn current() -> Option<Self> {
        INSIDE.get()
    }

    pub(super) fn enter<T>(self, run: impl FnOnce() -> T) -> T {
        // The scope is restored by a drop: a handler that panics must not leave the thread inside for ever.
        let _outside = Outside(INSIDE.replace(Some(self)));
        run()
    }
}

/// The scope to restore.
struct Outside(Option<Scope>);

impl Drop for Outside {
    fn drop(&mut self) {
        INSIDE.set(self.0);
    }
}

pub(super) enum HandlerEnd {
    Ok,
    Failed(HandlerError),
    Abandoned,
}

pub(super) type Running<'a> = Pin<Box<dyn Future<Output = Result<(), HandlerError>> + Send + 'a>>;

/// A handler's future whose panics are caught.
pub(super) struct Shielded<'a> {
    pub(super) future: Option<Running<'a>>,
    pub(super) scope: Scope,
    pub(super) seam: Seam,
}

impl Shielded<'_> {
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<HandlerEnd> {
        let Some(future) = &mut self.future else {
            return Poll::Ready(HandlerEnd::Failed(HandlerError::retry("polled after its end")));
        };
        let scope = self.scope;
        match catch_unwind(AssertUnwindSafe(|| scope.enter(|| future.as_mut().poll(cx)))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(Ok(()))) => Poll::Ready(HandlerEnd::Ok),
            Ok(Poll::Ready(Err(error))) => Poll::Ready(HandlerEnd::Failed(error)),
            Err(panic) if self.seam.is(Mutant::DeadLaneAfterPanic) => {
                drop(panicked(panic));
                Poll::Ready(HandlerEnd::Abandoned)
            }
            Err(panic) => Poll::Ready(HandlerEnd::Failed(panicked(panic))),
        }
    }

    /// Drops the future, and returns the error if the drop panicked.
    pub(super) fn discard(&mut self) -> Option<HandlerError> {
        let future = self.future.take()?;
        let scope = self.scope;
        catch_unwind(AssertUnwindSafe(|| scope.enter(|| drop(future)))).err().map(panicked)
    }
}

impl Drop for Shielded<'_> {
    fn drop(&mut self) {
        let _ = self.discard();
    }
}

pub(super) fn panicked(panic: Box<dyn Any + Send>) -> HandlerError {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let error = HandlerError::retry(format!("panicked: {}", text.unwrap_or("with something that is no text")));
    // A payload whose own drop panics must not get past here either.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(panic)));
    error
}
