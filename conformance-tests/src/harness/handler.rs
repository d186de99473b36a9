//! The recording handler: does what a [`Script`] says, and records when.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use eventbus_core::{Delivery, Handler, HandlerError};

use super::process::Process;
use crate::history::{EndOutcome, HandlerCall, Key, Kind, Recorder, Start, digest, parse_payload};

/// The end of a handler call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Act {
    /// Succeeds.
    Succeed,
    /// Fails; trying again may help.
    Fail,
    /// Fails for good.
    FailForGood,
    /// Panics.
    Panic,
    /// Never ends by itself.
    Hang,
    /// Kills its process.
    Kill,
}

/// The course of a handler call: it waits, then acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)] // written by every test
pub struct Step {
    /// Duration of the call; a call that takes no time does not yield either.
    pub takes: Duration,
    /// The end of the call.
    pub then: Act,
}

impl Step {
    /// Succeeds after this time.
    #[must_use]
    pub const fn succeed(takes: Duration) -> Self {
        Self { takes, then: Act::Succeed }
    }
}

/// A script that decides what handler calls do. Any `Fn(&Delivery, u64) -> Step` is one; the number is the envelope's
/// within its key.
pub trait Script: Send + Sync + 'static {
    /// The course of this call.
    fn step(&self, delivery: &Delivery, number: u64) -> Step;

    /// A future that the call awaits after it has begun, before the time that its step takes. Default: none.
    fn hold(&self, delivery: &Delivery, number: u64) -> Option<Holding> {
        let _ = (delivery, number);
        None
    }
}

/// A future that a handler call awaits.
pub type Holding = Pin<Box<dyn Future<Output = ()> + Send>>;

impl<F: Fn(&Delivery, u64) -> Step + Send + Sync + 'static> Script for F {
    fn step(&self, delivery: &Delivery, number: u64) -> Step {
        self(delivery, number)
    }
}

/// The script of handlers that always succeed after this time.
pub fn steadily(takes: Duration) -> impl Script {
    move |_: &Delivery, _: u64| Step::succeed(takes)
}

/// A handler that records every call. A call whose future is dropped is recorded as abandoned, one that panics as
/// panicked.
pub struct RecordingHandler {
    process: Arc<Process>,
    script: Arc<dyn Script>,
}

impl RecordingHandler {
    /// The handler of a process.
    #[must_use]
    pub fn new(process: Arc<Process>, script: impl Script) -> Self {
        Self { process, script: Arc::new(script) }
    }

    fn begin(&self, delivery: &Delivery, number: u64) -> HandlerCall {
        let envelope = delivery.envelope();
        let start = Start {
            call: self.process.next_call(),
            topic: delivery.topic().as_str().into(),
            group: delivery.group().as_str().into(),
            key: envelope.key().map_or(Key::none(), |key| Key::new(key.as_bytes())),
            number,
            digest: digest(envelope.payload()),
            attempt: delivery.attempt(),
            member: delivery.member().into(),
            epoch: delivery.epoch(),
            partition: delivery.partition(),
            position: delivery.position().get(),
            replayed: delivery.is_replayed(),
            checked: self.process.time_of(delivery.checked_at()),
        };
        // The pool checks ownership and then calls, without a wait in between; but a process may be stopped there. So
        // the time of the check is recorded if the recorder can tell it.
        if start.checked.is_none() {
            self.process.note(Kind::StartChecked { call: start.call });
        }
        HandlerCall::begin(self.process.clone(), self.process.number(), start)
    }
}

#[async_trait]
impl Handler for RecordingHandler {
    async fn handle(&self, delivery: Delivery) -> Result<(), HandlerError> {
        // A payload without a number was not published by a test: the oracle will say so.
        let number = parse_payload(delivery.envelope().payload()).map_or(0, |numbered| numbered.number);
        let step = self.script.step(&delivery, number);
        let call = self.begin(&delivery, number);
        if let Some(holding) = self.script.hold(&delivery, number) {
            holding.await;
        }
        if !step.takes.is_zero() {
            tokio::time::sleep(step.takes).await;
        }
        if step.then == Act::Kill {
            self.process.kill();
        }
        if !self.process.is_alive() || step.then == Act::Hang {
            std::future::pending::<()>().await;
        }
        match step.then {
            Act::Succeed => {
                call.end(EndOutcome::Ok);
                Ok(())
            }
            Act::FailForGood => {
                call.end(EndOutcome::Failed);
                Err(HandlerError::permanent("told to fail for good"))
            }
            // `panic!` is avoided: its hook prints, thousands of times.
            Act::Panic => std::panic::resume_unwind(Box::new("told to panic")),
            _ => {
                call.end(EndOutcome::Failed);
                Err(HandlerError::retry("told to fail"))
            }
        }
    }
}

impl fmt::Debug for RecordingHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordingHandler").field("process", &self.process.number()).finish_non_exhaustive()
    }
}
