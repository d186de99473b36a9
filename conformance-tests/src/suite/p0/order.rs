//! Cases 2, 3, 4, 24 and 25: each key in order, while the others go on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use eventbus_core::{Delivery, TopicSpec};

use crate::harness::{Act, Holding, Script, Step, steadily};
use crate::history::{EndOutcome, Kind};
use crate::suite::common::{CONCURRENCY, GROUP, TOPIC, expect, failing, keys, millis, subscribe, unsteadily};
use crate::suite::failure::ensure;
use crate::suite::{Failure, Run};

/// Case 2.
pub(in crate::suite) async fn per_key_order(run: Run) -> Result<(), Failure> {
    let peer = run.process().await?;
    peer.topic(TopicSpec::new(TOPIC).partitions(8)).await?;
    let subscription = peer.subscribe(subscribe(), steadily(millis(1))).await?;
    peer.publish_rounds(TOPIC, &keys("order", 120), 10).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    subscription.drain(Duration::from_secs(5)).await?;
    let verdict = run.judge(&expect().overlap().spread(120, 8), &[(TOPIC, &[GROUP])]).await?;
    ensure!(verdict.counts.deliveries == 1_200, "without a fault nothing is repeated: {:?}", verdict.counts);
    Ok(())
}

/// Case 3: handlers that take random times.
pub(in crate::suite) async fn random_handler_times(run: Run) -> Result<(), Failure> {
    let peer = run.process().await?;
    peer.topic(TopicSpec::new(TOPIC).partitions(4)).await?;
    let subscription = peer.subscribe(subscribe(), unsteadily(run.seed(), millis(20))).await?;
    peer.publish_rounds(TOPIC, &keys("order", 100), 8).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    subscription.drain(Duration::from_secs(5)).await?;
    run.judge(&expect().overlap().spread(100, 4), &[(TOPIC, &[GROUP])]).await?;
    Ok(())
}

/// A blocking meeting of two threads: each waits for the other, 30 s at the most.
#[derive(Default)]
struct Meeting {
    there: Mutex<usize>,
    changed: Condvar,
}

impl Meeting {
    fn meet(&self) -> bool {
        let mut there = self.there.lock().unwrap_or_else(PoisonError::into_inner);
        *there += 1;
        self.changed.notify_all();
        let waited = self.changed.wait_timeout_while(there, Duration::from_secs(30), |there| *there < 2);
        waited.is_ok_and(|(there, _)| *there >= 2)
    }
}

struct Meets(Arc<Meeting>, Arc<AtomicBool>);

impl Script for Meets {
    fn step(&self, _: &Delivery, _: u64) -> Step {
        Step::succeed(Duration::ZERO)
    }

    fn hold(&self, _: &Delivery, _: u64) -> Option<Holding> {
        let (meeting, met) = (self.0.clone(), self.1.clone());
        Some(Box::pin(async move {
            if meeting.meet() {
                met.store(true, Ordering::Release);
            }
        }))
    }
}

/// Case 3: the barrier.
pub(in crate::suite) async fn blocking_barrier(run: Run) -> Result<(), Failure> {
    let peer = run.process().await?;
    peer.topic(TopicSpec::new(TOPIC).partitions(1)).await?;
    let met = Arc::new(AtomicBool::new(false));
    let script = Meets(Arc::default(), met.clone());
    let subscription = peer.subscribe(subscribe(), script).await?;
    // Both records are in one batch of one partition: only the pool brings them onto two threads.
    peer.publish_rounds(TOPIC, &keys("order", 2), 1).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    ensure!(met.load(Ordering::Acquire), "two handlers of different keys never ran at the same time on two threads");
    subscription.drain(Duration::from_secs(5)).await?;
    run.judge(&expect().overlap(), &[(TOPIC, &[GROUP])]).await?;
    Ok(())
}

/// Runs case 4 with as many failing keys as handlers may run at once.
async fn failing_keys(run: &Run, concurrency: usize) -> Result<(), Failure> {
    let peer = run.process().await?;
    peer.topic(TopicSpec::new(TOPIC).partitions(4)).await?;
    let bad = keys("bad", concurrency);
    let good = keys("good", 100);
    let healthy = Arc::new(AtomicBool::new(false));
    let healed = healthy.clone();
    let script = move |delivery: &Delivery, number: u64| {
        let poisoned = number == 2 && delivery.envelope().key().is_some_and(|key| key.as_bytes().starts_with(b"bad"));
        let then = if poisoned && !healed.load(Ordering::Acquire) { Act::Fail } else { Act::Succeed };
        Step { takes: millis(1), then }
    };
    let options = subscribe().concurrency(concurrency).attempts(1_000_000);
    let subscription = peer.subscribe(options, script).await?;
    peer.publish_rounds(TOPIC, &bad, 4).await?;
    let failed = |call: &crate::suite::Call| matches!(call.end, Some((EndOutcome::Failed, _)));
    run.until_calls("every bad key has failed", concurrency, |call| failed(call) && call.start.attempt == 1).await;
    peer.publish_rounds(TOPIC, &good, 5).await?;
    // All bad keys fail over and over meanwhile.
    let is_good = |call: &crate::suite::Call| call.start.key.bytes().is_some_and(|key| key.starts_with(b"good"));
    run.until_calls("all good keys are done beside the failing ones", 500, |call| is_good(call) && call.succeeded())
        .await;
    for key in &bad {
        ensure!(run.count(|call| call.is(key, 3)) == 0, "{key} went on behind its failed envelope");
    }
    healthy.store(true, Ordering::Release);
    run.settled(TOPIC, &[GROUP]).await?;
    subscription.drain(Duration::from_secs(5)).await?;
    let expected = expect().spread(100 + concurrency, 4);
    run.judge(&if concurrency > 1 { expected.overlap() } else { expected }, &[(TOPIC, &[GROUP])]).await?;
    Ok(())
}

/// Case 4: as many failing keys as handlers may run at once.
pub(in crate::suite) async fn failures_hold_their_keys_only(run: Run) -> Result<(), Failure> {
    failing_keys(&run, 8).await
}

/// Case 4: one handler may run at once.
pub(in crate::suite) async fn failure_holds_no_slot(run: Run) -> Result<(), Failure> {
    failing_keys(&run, 1).await
}

/// Case 25.
pub(in crate::suite) async fn prefetched_do_not_overtake(run: Run) -> Result<(), Failure> {
    let peer = run.process().await?;
    peer.topic(TopicSpec::new(TOPIC).partitions(2)).await?;
    let mut all = keys("order", 10);
    all.push("k".into());
    // All records are there before anybody subscribes, so they come in one batch.
    peer.publish_rounds(TOPIC, &all, 20).await?;
    let subscription = peer.subscribe(subscribe(), failing("k", 5, Act::Fail, 3)).await?;
    run.until_calls("the fifth has failed", 1, |call| call.is("k", 5) && call.end.is_some()).await;
    let held: usize = subscription.inspect().iter().map(|partition| partition.unfinished).sum();
    ensure!(held >= 15, "the later ones were to be prefetched, and {held} records are");
    run.settled(TOPIC, &[GROUP]).await?;
    subscription.drain(Duration::from_secs(5)).await?;
    run.judge(&expect().overlap(), &[(TOPIC, &[GROUP])]).await?;
    let attempts = run.count(|call| call.is("k", 5));
    ensure!(attempts == 4, "expected three failures and a success of the fifth, found {attempts} attempts");
    Ok(())
}

/// Case 24.
pub(in crate::suite) async fn resized_with_work_queued(run: Run) -> Result<(), Failure> {
    let peer = run.process().await?;
    peer.topic(TopicSpec::new(TOPIC).partitions(4)).await?;
    peer.publish_rounds(TOPIC, &keys("order", 100), 10).await?;
    let subscription = peer.subscribe(subscribe().concurrency(2), unsteadily(run.seed(), millis(10))).await?;
    run.until_calls("some are done", 50, |call| call.succeeded()).await;
    subscription.set_concurrency(CONCURRENCY as usize)?;
    run.until_calls("more are done", 300, |call| call.succeeded()).await;
    subscription.set_concurrency(1)?;
    run.until("what ran above the new limit has ended", || running(&run) <= 1).await;
    let from = run.inspect(|events| events.len());
    run.until_calls("more are done, one by one", 400, |call| call.succeeded()).await;
    let to = run.inspect(|events| events.len());
    subscription.set_concurrency(CONCURRENCY as usize)?;
    run.settled(TOPIC, &[GROUP]).await?;
    subscription.drain(Duration::from_secs(5)).await?;
    run.judge(&expect().overlap().spread(100, 4), &[(TOPIC, &[GROUP])]).await?;
    let alone = peak(&run, from, to);
    ensure!(alone == 1, "one handler at once was asked for, {alone} ran");
    let most = peak(&run, 0, usize::MAX);
    ensure!((3..=CONCURRENCY as usize).contains(&most), "expected up to {CONCURRENCY} at once, found {most}");
    Ok(())
}

fn running(run: &Run) -> usize {
    run.count(|call| call.end.is_none())
}

/// Returns the most handlers that ran at once between two indices of the history.
pub(in crate::suite) fn peak(run: &Run, from: usize, to: usize) -> usize {
    run.inspect(|events| {
        let (mut now, mut most) = (0_usize, 0);
        for (index, event) in events.iter().enumerate() {
            match event.kind {
                Kind::Start(_) => now += 1,
                Kind::End { .. } => now -= 1,
                _ => {}
            }
            if (from..to).contains(&index) {
                most = most.max(now);
            }
        }
        most
    })
}
