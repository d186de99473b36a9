//! Schedules of threads on the shipped pool: workers that take and finish while another thread offers, drains, loses
//! and reopens. A worker that is never woken is a deadlock, and shuttle says so.
//!
//! Each lock of the pool is a point at which shuttle may switch threads. Run with the feature `shuttle`; all other
//! tests of the crate need it off.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use shuttle::future::block_on;
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::sync::{Condvar, Mutex};
use shuttle::thread;
use tokio::time::Instant;

use super::rig::{opening, record};
use crate::backend::Lease;
use crate::model::Position;
use crate::mutant::Seam;
use crate::subscribe::pool::Pool;
use crate::subscribe::pool::job::{Attempt, AttemptResult, NextAttempt};

/// Schedules of each scheduler and scenario.
const SCHEDULES: usize = 500;

/// History by which a schedule is judged: intervals of handlers and the order of each key.
#[derive(Default)]
struct History {
    running: BTreeMap<String, u64>,
    /// The last finished position, by key.
    finished: BTreeMap<String, u64>,
    handled: usize,
    closed: bool,
}

struct Stage {
    pool: Pool,
    history: Mutex<History>,
    changed: Condvar,
    start: Instant,
}

impl Stage {
    fn new(concurrency: usize) -> Arc<Self> {
        Arc::new(Self {
            // A commit is never due: the session must not be notified without need.
            pool: Pool::new(concurrency, 4, u64::MAX, Seam::default()),
            history: Mutex::new(History::default()),
            changed: Condvar::new(),
            start: Instant::now(),
        })
    }

    fn spawn_workers(self: &Arc<Self>, concurrency: usize) -> Vec<thread::JoinHandle<()>> {
        let missing = self.pool.set_concurrency(concurrency);
        missing
            .into_iter()
            .map(|worker| {
                let stage = self.clone();
                thread::spawn(move || block_on(stage.work(worker)))
            })
            .collect()
    }

    async fn work(&self, worker: usize) {
        let mut done = None;
        loop {
            match self.pool.next(worker, done.take(), self.start) {
                NextAttempt::Run(job) => done = Some((job.lane, self.handle(job).await)),
                NextAttempt::Idle => {
                    poll_fn(|cx| if self.pool.sleep(worker, cx.waker()) { Poll::Pending } else { Poll::Ready(()) })
                        .await;
                }
                NextAttempt::Exit => return,
            }
        }
    }

    /// Handles a record. Every third one fails once, and waits for the session to look at the clock.
    async fn handle(&self, job: Attempt) -> AttemptResult {
        let position = job.record.position.get();
        let key = job.record.key.as_ref().map(ToString::to_string).unwrap_or_default();
        {
            let mut history = self.history.lock().unwrap();
            let other = history.running.insert(key.clone(), position);
            assert_eq!(other, None, "two handlers of {key} at once");
            let last = history.finished.get(&key).copied().unwrap_or_default();
            assert!(position > last, "{position} of {key} started after {last} was finished");
        }
        shuttle::future::yield_now().await;
        let mut history = self.history.lock().unwrap();
        history.running.remove(&key);
        if position.is_multiple_of(3) && job.attempt == 1 {
            return AttemptResult::Retry(self.start + Duration::from_millis(1), job.record);
        }
        history.finished.insert(key, position);
        history.handled += 1;
        self.changed.notify_all();
        job.finished()
    }

    /// Runs the session: it looks when it is notified, and when a retry is due.
    fn look_when_told(self: &Arc<Self>) -> thread::JoinHandle<()> {
        let stage = self.clone();
        thread::spawn(move || {
            let mut now = stage.start;
            loop {
                let duties = stage.pool.duties(now);
                if stage.history.lock().unwrap().closed {
                    return;
                }
                match duties.timer {
                    Some(due) => now = now.max(due),
                    None => block_on(stage.pool.session.notified()),
                }
            }
        })
    }

    fn offer(&self, from: u64, to: u64) {
        for position in from..to {
            let key = ["a", "b", "c"][(position % 5 % 3) as usize];
            self.pool.offer(vec![record(0, position, Some(key))], self.start);
        }
    }

    fn wait_handled(&self, count: usize) {
        let mut history = self.history.lock().unwrap();
        while history.handled < count {
            history = self.changed.wait(history).unwrap();
        }
    }

    fn close(&self, threads: Vec<thread::JoinHandle<()>>) {
        self.history.lock().unwrap().closed = true;
        self.pool.close();
        self.pool.session.notify_one();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

fn explore(scenario: fn()) {
    fn run(scheduler: impl Scheduler + 'static, scenario: fn()) {
        let mut config = shuttle::Config::new();
        config.stack_size = 1 << 18;
        shuttle::Runner::new(scheduler, config).run(scenario);
    }
    run(RandomScheduler::new(SCHEDULES), scenario);
    run(PctScheduler::new(3, SCHEDULES), scenario);
}

#[test]
fn no_schedule_loses_a_wake_up_or_breaks_a_key_s_order() {
    explore(|| {
        let stage = Stage::new(2);
        stage.pool.open(opening(0, 1, &Lease::unlimited(), None));
        let mut threads = stage.spawn_workers(2);
        threads.push(stage.look_when_told());
        stage.offer(1, 9);
        stage.wait_handled(8);
        stage.close(threads);
    });
}

#[test]
fn no_schedule_of_a_hand_over_starts_early_or_loses_a_record() {
    explore(|| {
        let stage = Stage::new(3);
        stage.pool.open(opening(0, 1, &Lease::unlimited(), None));
        let mut threads = stage.spawn_workers(3);
        threads.push(stage.look_when_told());
        stage.offer(1, 7);
        stage.pool.drain(0);
        block_on(stage.pool.at_rest(0));
        assert!(stage.history.lock().unwrap().running.is_empty(), "at rest");
        let handled = stage.history.lock().unwrap().handled;
        let progress = stage.pool.progress_of(0).unwrap();
        assert_eq!(progress.count, handled as u64, "what finished counts, and nothing else");
        stage.pool.remove(0);
        let mut next = opening(0, 2, &Lease::unlimited(), None);
        next.watermark = progress.next;
        next.finished = progress.finished;
        stage.pool.open(next);
        stage.offer(progress.next.get(), 10);
        stage.wait_handled(9);
        stage.close(threads);
    });
}

#[test]
fn no_schedule_lets_a_lost_ownership_count_or_overlap_the_next() {
    explore(|| {
        let stage = Stage::new(2);
        let lease = Lease::unlimited();
        stage.pool.open(opening(0, 1, &lease, None));
        let mut threads = stage.spawn_workers(2);
        threads.push(stage.look_when_told());
        stage.offer(1, 5);
        lease.revoke();
        stage.pool.remove(0);
        block_on(stage.pool.at_rest(0));
        stage.pool.open(opening(0, 2, &Lease::unlimited(), None));
        // Nothing was committed: all records come again.
        let mut history = stage.history.lock().unwrap();
        (history.handled, history.finished) = (0, BTreeMap::new());
        drop(history);
        stage.offer(1, 5);
        stage.wait_handled(4);
        stage.close(threads);
        assert_eq!(stage.pool.progress_of(0).unwrap().next, Position::new(5));
    });
}

#[test]
fn no_schedule_of_retiring_workers_leaves_work_to_sleepers() {
    explore(|| {
        let stage = Stage::new(3);
        stage.pool.open(opening(0, 1, &Lease::unlimited(), None));
        let mut threads = stage.spawn_workers(3);
        threads.push(stage.look_when_told());
        stage.offer(1, 4);
        threads.extend(stage.spawn_workers(1));
        stage.offer(4, 7);
        stage.wait_handled(5);
        threads.extend(stage.spawn_workers(2));
        stage.offer(7, 9);
        stage.wait_handled(8);
        stage.close(threads);
    });
}
