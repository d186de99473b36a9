//! Workers against handlers that misbehave. Each test is named for what it refutes.

use std::fmt;
use std::future::{Future, pending, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::*;
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

/// An error whose text cannot be had.
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

/// Two workers and a session that looks when it is told, on the paused clock.
fn start(handler: Arc<dyn Handler>, change: impl FnOnce(&mut Settings)) -> Arc<Crew> {
    let mut settings = Settings { concurrency: 2, ..Settings::default() };
    change(&mut settings);
    let crew = Arc::new(bench::crew(handler, settings).unwrap());
    for worker in 0..2 {
        tokio::spawn(crew.clone().work(worker));
    }
    let session = crew.clone();
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
    crew
}

#[test]
fn a_worker_whose_runtime_ended_before_its_first_poll_is_missed_in_silence() {
    let crew = Arc::new(bench::crew(Arc::new(handler_fn(|_| pending())), Settings::default()).unwrap());
    crew.pool.set_concurrency(1);
    drop(crew.clone().work(0));
    let stop = crew.stop.lock().take().expect("nobody would know");
    assert_eq!(stop.kind(), ErrorKind::HandlerFailed);
}

fn view(crew: &Crew) -> PartitionView {
    crew.pool.view(Instant::now()).remove(0)
}

/// Lets the first attempt at the first record misbehave; everything must be handled all the same, in order.
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
    let crew = start(handler, |settings| settings.handler_timeout = timeout);
    crew.pool.offer(records(&["a", "a", "b"]), Instant::now());
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(told.recv().await.unwrap());
    }
    assert_eq!(seen, [(3, 1), (1, 2), (2, 1)], "another key went on, the head was tried again, then the next");
    while view(&crew).watermark < crate::Position::new(4) {
        tokio::task::yield_now().await;
    }
    assert_eq!(view(&crew).running, 0);
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
    let crew = start(handler, |_| {});
    crew.pool.offer(records(&["a", "b", "c"]), Instant::now());
    let running = |crew: &Crew| crew.pool.busy_with(0);
    poll_until(|| running(&crew).len() == 2).await;
    let (worker, job, position) = running(&crew)[0];
    // A number of another job, as one that ended just before would have.
    crew.abandon(worker, job + 7);
    settle().await;
    assert_eq!(running(&crew).len(), 2);
    crew.abandon(worker, job);
    poll_until(|| running(&crew).len() == 1).await;
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
