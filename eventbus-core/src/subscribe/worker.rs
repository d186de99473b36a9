//! Workers: as many tasks as handlers may run at once, each taking one envelope after another from the pool (S1, S6).
//!
//! A worker never wakes another: it takes the lane that it makes ready. (The runtime puts a task woken from a worker
//! thread in a slot that no other thread can steal from, and a handler that blocks its thread would hold it there.)

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::dead_letter;
use super::handler::{Delivery, Handler, HandlerError};
use super::options::{FailurePolicy, Settings};
use super::pool::{Attempt, AttemptResult, Charge, DeadJob, NextAttempt, Pool};
use super::retry::{Verdict, after_failure};
use super::shield::{Control, HandlerEnd, Scope, Shielded, panicked};
use super::telemetry::{HandleTelemetry, Observed};
use crate::model::{Envelope, Error, ErrorKind};
use crate::mutant::{Mutant, Seam};
use crate::observe::{BusEvent, Hooks, Location};
use crate::runtime::{Env, Mutex};

/// State that all workers of a subscription share.
pub(crate) struct Workers {
    pub(crate) pool: Arc<Pool>,
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) settings: Settings,
    pub(crate) env: Arc<dyn Env>,
    pub(crate) hooks: Hooks,
    pub(crate) telemetry: HandleTelemetry,
    /// The number of the topic's partitions.
    pub(crate) partitions: u32,
    /// Whether a record in the wrong partition is refused.
    pub(crate) strict_partitions: bool,
    /// The scope that marks a thread as inside a handler of this subscription.
    pub(crate) scope: Scope,
    pub(crate) controls: Mutex<Vec<Arc<Control>>>,
    /// The error with which the subscription must stop, by policy or because a worker died.
    pub(crate) stop: Mutex<Option<Error>>,
    pub(crate) seam: Seam,
}

/// Guard of a worker's task. A task that dies (its runtime was shut down, or something around a handler panicked, where
/// nothing is caught) must not go unnoticed: the envelope that it had taken would never be finished. The subscription
/// stops with an error, and the broker delivers again.
struct WorkerGuard {
    workers: Arc<Workers>,
    worker: usize,
    /// The lane whose head the worker is handling.
    lane: Option<usize>,
    /// Whether the worker left as it was told to.
    left: bool,
}

impl Drop for WorkerGuard {
    fn drop(&mut self) {
        if !self.left {
            let message = "a worker ended: the runtime of the handlers is gone, or something around a handler panicked";
            self.workers.stop.lock().get_or_insert(Error::new(ErrorKind::HandlerFailed, message));
            self.workers.pool.set_paused(true);
            self.workers.pool.worker_died(self.worker, self.lane);
        }
    }
}

impl Workers {
    /// Runs one worker. The guard exists from the call on: a runtime that is gone drops a task without ever polling it.
    pub(crate) fn work(self: Arc<Self>, worker: usize) -> impl Future<Output = ()> + Send + 'static {
        let mut guard = WorkerGuard { workers: self, worker, lane: None, left: false };
        async move {
            let workers = guard.workers.clone();
            workers.take_jobs(&mut guard).await;
        }
    }

    async fn take_jobs(&self, guard: &mut WorkerGuard) {
        let worker = guard.worker;
        let control = self.control(worker);
        let mut done = None;
        // The end of one attempt is the start of the next.
        let mut now = Instant::now();
        loop {
            match self.pool.next(worker, done.take(), now) {
                NextAttempt::Run(job) => {
                    guard.lane = Some(job.lane);
                    let lane = job.lane;
                    done = Some((lane, self.attempt(&control, job, &mut now).await));
                    guard.lane = None;
                    // Handlers that are always ready must not keep the thread from other tasks.
                    tokio::task::coop::consume_budget().await;
                }
                NextAttempt::Idle => {
                    poll_fn(|cx| self.idle(worker, cx)).await;
                    now = Instant::now();
                }
                NextAttempt::Exit => {
                    guard.left = true;
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

    /// Makes one attempt and returns its result. Moves `now` on to the end of the attempt.
    async fn attempt(&self, control: &Control, job: Attempt, now: &mut Instant) -> AttemptResult {
        if job.copy {
            self.drop_copy(&job);
            return job.passed_over();
        }
        if let Some(error) = self.misplaced(&job) {
            return self.give_up(job, 0, ErrorKind::HandlerFailed, error);
        }
        let envelope = match self.decode(&job) {
            Ok(envelope) => envelope,
            // No attempt can help: the policy decides, with the raw bytes kept.
            Err(error) => return self.give_up(job, 0, error.kind(), error.to_string()),
        };
        if dead_letter::is_replay_for_others(&envelope, job.context.group.as_str()) {
            self.hooks.emit(&BusEvent::ReplayIgnored { at: &self.location(&job) });
            self.telemetry.replay_ignored();
            return job.passed_over();
        }
        if job.charge().unclean >= self.settings.attempts {
            let error = "its handler ended the process".into();
            return self.give_up(job, self.settings.attempts, ErrorKind::HandlerFailed, error);
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
        *now = observed.end(&end);
        match end {
            HandlerEnd::Ok => job.finished(),
            HandlerEnd::Abandoned => AttemptResult::Abandoned,
            // Nothing is given up while what the handlers need is away.
            HandlerEnd::Failed(error) => match self.failed(&job, &error, *now) {
                Verdict::Policy if self.pool.is_suspended() => AttemptResult::Retry(*now, job.record),
                Verdict::Again(wait) => AttemptResult::Retry(*now + wait, job.record),
                Verdict::Wait(wait) => AttemptResult::Wait(*now + wait, job.record),
                Verdict::Policy => self.give_up_after(job, &error),
            },
        }
    }

    /// Decides what follows an attempt that did not succeed, and reports it.
    pub(super) fn failed(&self, job: &Attempt, error: &HandlerError, now: Instant) -> Verdict {
        let Charge { attempts, since, .. } = job.charge();
        let failing_for = since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let verdict = after_failure(&self.settings, attempts, failing_for, error, self.env.random());
        if self.hooks.any() {
            let (at, error) = (&self.location(job), error.message());
            self.hooks.emit(&match verdict {
                Verdict::Wait(wait) => BusEvent::AttemptDeferred { at, wait, reason: error },
                _ => BusEvent::AttemptFailed { at, attempt: job.attempt, error },
            });
        }
        verdict
    }

    pub(super) fn give_up_after(&self, job: Attempt, error: &HandlerError) -> AttemptResult {
        let attempts = job.attempt;
        self.give_up(job, attempts, ErrorKind::HandlerFailed, error.message().to_owned())
    }

    /// Applies the policy to an envelope whose attempts are used up, or that no attempt can help (S2). The kind is that
    /// of the error with which a subscription stops.
    fn give_up(&self, job: Attempt, attempts: u32, kind: ErrorKind, error: String) -> AttemptResult {
        match self.settings.policy {
            // Another owner handles the envelope again: an event without effect is not reported (S5).
            FailurePolicy::Skip if !self.pool.owns(&job.context) => AttemptResult::Abandoned,
            FailurePolicy::Skip => {
                let at = self.location(&job);
                self.hooks.emit(&BusEvent::Skipped { at: &at, attempts, error: &error });
                self.telemetry.skipped();
                job.passed_over()
            }
            FailurePolicy::Stop => {
                let at = &job.record;
                let mut stop = Error::new(kind, error)
                    .with("topic", &job.context.topic)
                    .with("group", &job.context.group)
                    .with("partition", at.partition)
                    .with("position", at.position)
                    .with("attempts", attempts);
                if let Some(key) = &at.key {
                    stop = stop.with("key", key);
                }
                self.stop.lock().get_or_insert(stop);
                self.pool.set_paused(true);
                AttemptResult::Abandoned
            }
            FailurePolicy::DeadLetter => {
                let Attempt { lane, record, context, .. } = job;
                AttemptResult::DeadLetter(Box::new(DeadJob { lane, record, attempts, error, context }))
            }
        }
    }

    fn decode(&self, job: &Attempt) -> Result<Envelope, Error> {
        let envelope = job.record.envelope(&job.context.topic)?;
        if self.seam.is(Mutant::OtherBytes) {
            return envelope.into_builder().payload("other").build();
        }
        Ok(envelope)
    }

    /// P3: drops and counts a second copy, in its place in the key's line.
    fn drop_copy(&self, job: &Attempt) {
        self.telemetry.copy_dropped();
        if let Some(stamp) = job.record.stamp {
            self.hooks.emit(&BusEvent::CopyDropped { at: &self.location(job), stamp });
        }
    }

    /// Counts a record in another partition than its key's hash says. Returns an error where the topic refuses it.
    fn misplaced(&self, job: &Attempt) -> Option<String> {
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

    fn location(&self, job: &Attempt) -> Location {
        dead_letter::location(&job.context, &job.record)
    }

    /// Runs the handler's future: catches its panics, limits its time, and ends it when it is abandoned.
    pub(super) async fn run(
        &self,
        control: &Control,
        number: u64,
        delivery: Delivery,
        observed: &Observed<'_>,
    ) -> HandlerEnd {
        let called = catch_unwind(AssertUnwindSafe(|| self.scope.enter(|| self.handler.handle(delivery))));
        let mut running = match called {
            Ok(future) => Shielded { future: Some(future), scope: self.scope, seam: self.seam },
            Err(panic) => return HandlerEnd::Failed(panicked(panic)),
        };
        let end = {
            let attempt = poll_fn(|cx| {
                if control.is_abandoned(number) {
                    return Poll::Ready(HandlerEnd::Abandoned);
                }
                let polled = observed.in_span(|| running.poll(cx));
                if polled.is_pending() {
                    control.waker.register(cx.waker());
                    // The request may have come before there was a waker to wake.
                    if control.is_abandoned(number) {
                        return Poll::Ready(HandlerEnd::Abandoned);
                    }
                }
                polled
            });
            match self.settings.handler_timeout {
                None => attempt.await,
                Some(limit) => match tokio::time::timeout(limit, attempt).await {
                    Ok(end) => end,
                    Err(_) => HandlerEnd::Failed(HandlerError::retry(format!("took longer than {limit:?}"))),
                },
            }
        };
        match running.discard() {
            Some(panic) if matches!(end, HandlerEnd::Ok) => HandlerEnd::Failed(panic),
            _ => end,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt;
    use std::future::{Future, pending, poll_fn};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll};
    use std::time::Duration;

    use tokio::sync::mpsc;
    use tokio::time::{Instant, sleep_until};

    use std::pin::Pin;

    use super::*;
    use crate::backend::{Body, Inbound};
    use crate::bench;
    use crate::subscribe::handler::handler_fn;
    use crate::subscribe::pool::PartitionView;

    /// A future that is ready at once and panics when it is dropped.
    struct Bomb;

    impl Future for Bomb {
        type Output = Result<(), HandlerError>;

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
            Poll::Ready(Ok(()))
        }
    }

    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("at the drop");
        }
    }

    /// An error whose text cannot be read.
    #[derive(Debug)]
    struct Unspeakable;

    impl fmt::Display for Unspeakable {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            panic!("in the error's display");
        }
    }

    impl std::error::Error for Unspeakable {}

    type Attempt = Pin<Box<dyn Future<Output = Result<(), HandlerError>> + Send>>;

    /// Records with these keys, at positions 1, 2, ...
    fn records(keys: &[&str]) -> Vec<Inbound> {
        let record = |(position, key): (u64, &&str)| {
            let envelope = Envelope::builder("Tested", "/worker").key(*key).build().unwrap();
            Inbound::new(0, crate::Position::new(position), 0, Body::Envelope(envelope))
        };
        (1..).zip(keys).map(record).collect()
    }

    /// Two workers and a session that looks when it is notified, on the paused clock.
    fn start(handler: Arc<dyn Handler>, change: impl FnOnce(&mut Settings)) -> Arc<Workers> {
        let mut settings = Settings { concurrency: 2, ..Settings::default() };
        change(&mut settings);
        let workers = Arc::new(bench::workers(handler, settings).unwrap());
        for worker in 0..2 {
            tokio::spawn(workers.clone().work(worker));
        }
        let session = workers.clone();
        tokio::spawn(async move {
            loop {
                let duties = session.pool.duties(Instant::now());
                let far = Instant::now() + Duration::from_secs(3_600);
                tokio::select! {
                    biased;
                    () = session.pool.session.notified() => {}
                    () = sleep_until(duties.timer.unwrap_or(far)) => {}
                }
            }
        });
        workers
    }

    #[test]
    fn a_worker_whose_runtime_ended_before_its_first_poll_is_missed_in_silence() {
        let workers = Arc::new(bench::workers(Arc::new(handler_fn(|_| pending())), Settings::default()).unwrap());
        workers.pool.set_concurrency(1);
        drop(workers.clone().work(0));
        let stop = workers.stop.lock().take().expect("nobody would know");
        assert_eq!(stop.kind(), ErrorKind::HandlerFailed);
    }

    fn view(workers: &Workers) -> PartitionView {
        workers.pool.view(Instant::now()).remove(0)
    }

    /// Lets the first attempt at the first record misbehave; every record must be handled all the same, in order.
    async fn survives(first: impl Fn() -> Attempt + Send + Sync + 'static, timeout: Option<Duration>) {
        let (tell, mut told) = mpsc::unbounded_channel();
        let handler = handler_fn(move |delivery: Delivery| -> Attempt {
            let (position, attempt) = (delivery.position().get(), delivery.attempt());
            if (position, attempt) == (1, 1) {
                return first();
            }
            let tell = tell.clone();
            Box::pin(async move {
                tell.send((position, attempt)).map_err(HandlerError::retry)?;
                Ok(())
            })
        });
        let workers = start(handler, |settings| settings.handler_timeout = timeout);
        workers.pool.offer(records(&["a", "a", "b"]), Instant::now());
        let mut seen = Vec::new();
        for _ in 0..3 {
            seen.push(told.recv().await.unwrap());
        }
        assert_eq!(seen, [(3, 1), (1, 2), (2, 1)], "another key went on, the head was tried again, then the next");
        while view(&workers).watermark < crate::Position::new(4) {
            tokio::task::yield_now().await;
        }
        assert_eq!(view(&workers).running, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_at_the_call_never_kills_the_lane() {
        survives(|| panic!("at the call"), None).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_at_a_poll_never_kills_the_lane() {
        survives(|| Box::pin(async { panic!("at a poll") }), None).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_at_the_drop_never_kills_the_lane_nor_counts_as_success() {
        survives(|| Box::pin(Bomb), None).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_in_an_error_s_display_never_kills_the_lane() {
        survives(|| Box::pin(async { Err(Unspeakable)? }), None).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_with_something_that_is_no_text_never_kills_the_lane() {
        survives(|| std::panic::panic_any(7_u32), None).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_handler_that_never_ends_never_outlives_its_time() {
        survives(|| Box::pin(pending()), Some(Duration::from_secs(1))).await;
    }

    /// Counts how often a future was dropped.
    struct Dropped(Arc<[AtomicUsize; 4]>, usize);

    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0[self.1].fetch_add(1, Ordering::Relaxed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn abandoning_a_job_never_drops_another() {
        let dropped: Arc<[AtomicUsize; 4]> = Arc::default();
        let counts = dropped.clone();
        let handler = handler_fn(move |delivery: Delivery| {
            let guard = Dropped(counts.clone(), delivery.position().get() as usize);
            async move {
                let _guard = guard;
                pending().await
            }
        });
        let workers = start(handler, |_| {});
        workers.pool.offer(records(&["a", "b", "c"]), Instant::now());
        let running = |workers: &Workers| workers.pool.busy_with(0);
        poll_until(|| running(&workers).len() == 2).await;
        let (worker, job, position) = running(&workers)[0];
        // The number of another job, as of one that ended just before.
        workers.abandon(worker, job + 7);
        settle().await;
        assert_eq!(running(&workers).len(), 2);
        workers.abandon(worker, job);
        poll_until(|| running(&workers).len() == 1).await;
        let counts: Vec<usize> = dropped.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let expected: Vec<usize> = (0..4).map(|at| usize::from(at == position.get())).collect();
        assert_eq!(counts, expected, "only the one that was named is dropped, and nothing of its partition follows");
    }

    async fn settle() {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    async fn poll_until(mut condition: impl FnMut() -> bool) {
        poll_fn(|cx| {
            if condition() {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}
