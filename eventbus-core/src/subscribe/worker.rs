//! Workers: as many tasks as handlers may run at once, each taking one envelope after another from the pool (S1, S6).
//!
//! A worker never wakes another: what it makes ready it takes itself. (The runtime puts a task woken from a worker thread in
//! a slot that no other thread can steal from, and a handler that blocks its thread would hold it there.)
//!
//! A panic is caught around the call of the handler, each poll and the drop of its future, and counts as a failed attempt.

use std::any::Any;
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use tokio::time::Instant;

use super::dead_letter;
use super::handler::{Delivery, Handler, HandlerError};
use super::options::{FailurePolicy, Settings};
use super::pool::Pool;
use super::pool::{DeadJob, Job, Next, Outcome};
use super::retry::{self, after_failure};
use crate::backend::{Body, Inbound};
use crate::model::{Envelope, Error, ErrorKind};
use crate::mutant::{Mutant, Seam};
use crate::observe::{BusEvent, HandleTelemetry, Hooks, Location, Observed};
use crate::runtime::{Env, Mutex};
use crate::wire::{self, DecodeContext};

/// What all workers of a subscription share.
pub(crate) struct Crew {
    pub(crate) pool: Arc<Pool>,
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) settings: Settings,
    pub(crate) env: Arc<dyn Env>,
    pub(crate) hooks: Hooks,
    pub(crate) telemetry: HandleTelemetry,
    /// The topic's partition count.
    pub(crate) partitions: u32,
    /// Whether a record in the wrong partition is refused.
    pub(crate) strict_partitions: bool,
    /// Says which subscription a thread is inside of.
    pub(crate) scope: Scope,
    pub(crate) controls: Mutex<Vec<Arc<Control>>>,
    /// Why the subscription must stop, by policy.
    pub(crate) stop: Mutex<Option<Error>>,
    pub(crate) seam: Seam,
}

/// How the session reaches into a running worker: to drop its future at a deadline (S7).
#[derive(Debug, Default)]
pub(crate) struct Control {
    /// The number of the job whose future must be dropped.
    abandon: AtomicU64,
    waker: AtomicWaker,
}

impl Control {
    pub(crate) fn abandon(&self, job: u64) {
        self.abandon.store(job, Ordering::Release);
        self.waker.wake();
    }

    fn is_abandoned(&self, job: u64) -> bool {
        self.abandon.load(Ordering::Acquire) == job
    }
}

/// A bus and one of its subscriptions, to recognise a wait for oneself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scope {
    pub(crate) bus: u64,
    pub(crate) subscription: u64,
}

thread_local! {
    static INSIDE: Cell<Option<Scope>> = const { Cell::new(None) };
}

impl Scope {
    /// The subscription in whose handler this thread is, if it is in one.
    pub(crate) fn current() -> Option<Self> {
        INSIDE.get()
    }

    fn enter<T>(self, run: impl FnOnce() -> T) -> T {
        // Restored by its drop: a handler that panics must not leave the thread inside for ever.
        let _outside = Outside(INSIDE.replace(Some(self)));
        run()
    }
}

/// The scope to go back to.
struct Outside(Option<Scope>);

impl Drop for Outside {
    fn drop(&mut self) {
        INSIDE.set(self.0);
    }
}

/// How a handler's future ended.
enum End {
    Ok,
    Failed(HandlerError),
    Abandoned,
}

/// What follows an attempt.
enum Conclusion {
    Finished,
    Retry(Instant),
    DeadLetter { attempts: u32, error: String },
    Abandoned,
}

impl Conclusion {
    /// With what the pool needs to act on it.
    fn of(self, job: Job) -> Outcome {
        match self {
            Self::Finished => job.finished(),
            Self::Retry(at) => Outcome::Retry(at, job.record),
            Self::DeadLetter { attempts, error } => {
                let Job { lane, record, context, .. } = job;
                Outcome::DeadLetter(Box::new(DeadJob { lane, record, attempts, error, context }))
            }
            Self::Abandoned => Outcome::Abandoned,
        }
    }
}

/// A worker at its post. One that falls - its runtime was shut down, or something panicked around a handler, where nothing
/// is caught - must not be missed in silence: what it had taken would never be finished. The subscription stops with an
/// error, and the broker delivers again.
struct Post {
    crew: Arc<Crew>,
    worker: usize,
    /// The lane that it has in hand.
    lane: Option<usize>,
    /// It went as it was told to.
    left: bool,
}

impl Drop for Post {
    fn drop(&mut self) {
        if !self.left {
            let message = "a worker ended: the runtime of the handlers is gone, or something around a handler panicked";
            self.crew.stop.lock().get_or_insert(Error::new(ErrorKind::HandlerFailed, message));
            self.crew.pool.set_paused(true);
            self.crew.pool.fallen(self.worker, self.lane);
        }
    }
}

impl Crew {
    /// One worker's life. It is at its post from the call on: a runtime that is gone drops a task that was never polled.
    pub(crate) fn work(self: Arc<Self>, worker: usize) -> impl Future<Output = ()> + Send + 'static {
        let mut post = Post { crew: self, worker, lane: None, left: false };
        async move {
            let crew = post.crew.clone();
            crew.take_jobs(&mut post).await;
        }
    }

    async fn take_jobs(&self, post: &mut Post) {
        let worker = post.worker;
        let control = self.control(worker);
        let mut done = None;
        // The end of one attempt is the start of the next.
        let mut now = Instant::now();
        loop {
            match self.pool.next(worker, done.take(), now) {
                Next::Run(job) => {
                    post.lane = Some(job.lane);
                    let conclusion = self.attempt(&control, &job, &mut now).await;
                    done = Some((job.lane, conclusion.of(job)));
                    post.lane = None;
                    // Handlers that are always ready must not keep the thread from everybody else.
                    tokio::task::coop::consume_budget().await;
                }
                Next::Idle => {
                    poll_fn(|cx| self.idle(worker, cx)).await;
                    now = Instant::now();
                }
                Next::Exit => {
                    post.left = true;
                    return;
                }
            }
        }
    }

    fn idle(&self, worker: usize, cx: &Context<'_>) -> Poll<()> {
        if self.pool.sleep(worker, cx.waker()) { Poll::Pending } else { Poll::Ready(()) }
    }

    fn control(&self, worker: usize) -> Arc<Control> {
        let mut controls = self.controls.lock();
        if controls.len() <= worker {
            controls.resize_with(worker + 1, Default::default);
        }
        controls[worker].clone()
    }

    /// Makes one attempt and says what follows. `now` is moved on to its end.
    async fn attempt(&self, control: &Control, job: &Job, now: &mut Instant) -> Conclusion {
        if job.copy {
            self.drop_copy(job);
            return Conclusion::Finished;
        }
        if let Some(error) = self.misplaced(job) {
            return self.give_up(job, 0, error);
        }
        let envelope = match self.decode(job) {
            Ok(envelope) => envelope,
            // No attempt can help: the policy decides, with the raw bytes kept.
            Err(error) => return self.give_up(job, 0, error.to_string()),
        };
        if dead_letter::is_replay_for_others(&envelope, job.context.group.as_str()) {
            self.hooks.emit(&BusEvent::ReplayIgnored { at: &self.location(job) });
            self.telemetry.replay_ignored();
            return Conclusion::Finished;
        }
        if job.attempt > self.settings.attempts {
            return self.give_up(job, self.settings.attempts, "its handler ended the process".into());
        }
        let replayed = dead_letter::is_replay(&envelope);
        let delivery = Delivery {
            envelope,
            context: job.context.clone(),
            position: job.record.position,
            attempt: job.attempt,
            checked_at: job.checked,
            replayed,
        };
        if self.seam.is(Mutant::RetryHoldsSlot) {
            return self.attempt_until_decided(control, job, delivery, now).await;
        }
        let observed = self.telemetry.start(&delivery, *now);
        let end = self.run(control, job.number, delivery, &observed).await;
        *now = observed.end(matches!(end, End::Ok));
        match end {
            End::Ok => Conclusion::Finished,
            End::Abandoned => Conclusion::Abandoned,
            End::Failed(error) => self.failed(job, &error, *now),
        }
    }

    /// The mutant's: the wait for the next attempt is spent in the slot.
    async fn attempt_until_decided(
        &self,
        control: &Control,
        job: &Job,
        delivery: Delivery,
        now: &mut Instant,
    ) -> Conclusion {
        loop {
            let observed = self.telemetry.start(&delivery, *now);
            let end = self.run(control, job.number, delivery.clone(), &observed).await;
            *now = observed.end(matches!(end, End::Ok));
            match end {
                End::Ok => return Conclusion::Finished,
                End::Abandoned => return Conclusion::Abandoned,
                End::Failed(error) => match self.failed(job, &error, *now) {
                    Conclusion::Retry(at) => tokio::time::sleep_until(at).await,
                    conclusion => return conclusion,
                },
            }
        }
    }

    fn failed(&self, job: &Job, error: &HandlerError, now: Instant) -> Conclusion {
        if self.hooks.any() {
            let at = self.location(job);
            self.hooks.emit(&BusEvent::AttemptFailed { at: &at, attempt: job.attempt, error: error.message() });
        }
        match after_failure(&self.settings, job.attempt, error.is_permanent(), self.env.random()) {
            retry::Verdict::Again(wait) => Conclusion::Retry(now + wait),
            retry::Verdict::Policy(_) => self.give_up(job, job.attempt, error.message().to_owned()),
        }
    }

    /// The attempts are used up (S2).
    fn give_up(&self, job: &Job, attempts: u32, error: String) -> Conclusion {
        match self.settings.policy {
            // Another owner handles it again: nothing is reported that has no effect (S5).
            FailurePolicy::Skip if !self.pool.owns(&job.context) => Conclusion::Abandoned,
            FailurePolicy::Skip => {
                let at = self.location(job);
                self.hooks.emit(&BusEvent::Skipped { at: &at, attempts, error: &error });
                self.telemetry.skipped();
                Conclusion::Finished
            }
            FailurePolicy::Stop => {
                let at = &job.record;
                let stop = Error::new(ErrorKind::HandlerFailed, error)
                    .with("topic", &job.context.topic)
                    .with("group", &job.context.group)
                    .with("partition", at.partition)
                    .with("position", at.position)
                    .with("attempts", attempts);
                self.stop.lock().get_or_insert(stop);
                self.pool.set_paused(true);
                Conclusion::Abandoned
            }
            FailurePolicy::DeadLetter => Conclusion::DeadLetter { attempts, error },
        }
    }

    fn decode(&self, job: &Job) -> Result<Envelope, Error> {
        let envelope = match &job.record.body {
            Body::Envelope(envelope) => envelope.clone(),
            Body::Encoded { record, binding } => {
                let Inbound { partition, position, stored_at, .. } = *job.record;
                let at = DecodeContext { topic: &job.context.topic, partition, position, stored_at };
                wire::decode(record, binding, &at)?.envelope
            }
        };
        if self.seam.is(Mutant::OtherBytes) {
            return envelope.into_builder().payload("other").build();
        }
        Ok(envelope)
    }

    /// P3: a second copy is dropped and counted, in its place in the key's line.
    fn drop_copy(&self, job: &Job) {
        self.telemetry.copy_dropped();
        if let Some(stamp) = job.record.stamp {
            self.hooks.emit(&BusEvent::CopyDropped { at: &self.location(job), stamp });
        }
    }

    /// Counts a record that its key's hash puts elsewhere; the error where the topic refuses it.
    fn misplaced(&self, job: &Job) -> Option<String> {
        let expected = job.record.key.as_ref()?.partition(self.partitions);
        if expected == job.record.partition {
            return None;
        }
        self.telemetry.misplaced();
        self.hooks.emit(&BusEvent::Misplaced { at: &self.location(job) });
        self.strict_partitions.then(|| format!("its key belongs to partition {expected}"))
    }

    /// Has the future of a running job dropped.
    pub(crate) fn abandon(&self, worker: usize, job: u64) {
        if let Some(control) = self.controls.lock().get(worker) {
            control.abandon(job);
        }
    }

    fn location(&self, job: &Job) -> Location {
        dead_letter::location(&job.context, &job.record)
    }

    /// Runs the handler's future, with its panics caught, its time limited, and open to being abandoned.
    async fn run(&self, control: &Control, number: u64, delivery: Delivery, observed: &Observed<'_>) -> End {
        let called = catch_unwind(AssertUnwindSafe(|| self.scope.enter(|| self.handler.handle(delivery))));
        let mut running = match called {
            Ok(future) => Shielded { future: Some(future), scope: self.scope, seam: self.seam },
            Err(panic) => return End::Failed(panicked(panic)),
        };
        let end = {
            let attempt = poll_fn(|cx| {
                if control.is_abandoned(number) {
                    return Poll::Ready(End::Abandoned);
                }
                let polled = observed.in_span(|| running.poll(cx));
                if polled.is_pending() {
                    control.waker.register(cx.waker());
                    // It may have come before there was anybody to wake.
                    if control.is_abandoned(number) {
                        return Poll::Ready(End::Abandoned);
                    }
                }
                polled
            });
            match self.settings.handler_timeout {
                None => attempt.await,
                Some(limit) => match tokio::time::timeout(limit, attempt).await {
                    Ok(end) => end,
                    Err(_) => End::Failed(HandlerError::retry(format!("took longer than {limit:?}"))),
                },
            }
        };
        match running.discard() {
            Some(panic) if matches!(end, End::Ok) => End::Failed(panic),
            _ => end,
        }
    }
}

type Running<'a> = Pin<Box<dyn Future<Output = Result<(), HandlerError>> + Send + 'a>>;

/// A handler's future whose panics stay inside.
struct Shielded<'a> {
    future: Option<Running<'a>>,
    scope: Scope,
    seam: Seam,
}

impl Shielded<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let Some(future) = &mut self.future else {
            return Poll::Ready(End::Failed(HandlerError::retry("polled after its end")));
        };
        let scope = self.scope;
        match catch_unwind(AssertUnwindSafe(|| scope.enter(|| future.as_mut().poll(cx)))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(Ok(()))) => Poll::Ready(End::Ok),
            Ok(Poll::Ready(Err(error))) => Poll::Ready(End::Failed(error)),
            Err(panic) if self.seam.is(Mutant::DeadLaneAfterPanic) => {
                drop(panicked(panic));
                Poll::Ready(End::Abandoned)
            }
            Err(panic) => Poll::Ready(End::Failed(panicked(panic))),
        }
    }

    /// Drops the future; what its drop panicked with.
    fn discard(&mut self) -> Option<HandlerError> {
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

fn panicked(panic: Box<dyn Any + Send>) -> HandlerError {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let error = HandlerError::retry(format!("panicked: {}", text.unwrap_or("with something that is no text")));
    // A payload whose own drop panics must not get past here either.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(panic)));
    error
}

#[cfg(test)]
mod tests;
