//! Flow: fairness, bounds, limits, stalls and lag.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use eventbus_core::{BusEvent, ErrorKind, TopicSpec};

use crate::harness::{Step, steadily};
use crate::suite::common::{CONCURRENCY, GROUP, TOPIC, expect, key_is, keys, millis, subscribe, unsteadily};
use crate::suite::failure::ensure;
use crate::suite::gate::{Gate, Gated};
use crate::suite::p0::members::topic;
use crate::suite::p0::order::peak;
use crate::suite::{Failure, Run};

/// A hot key starves nobody.
pub(in crate::suite) async fn hot_key(run: Run) -> Result<(), Failure> {
    const HOT: usize = 1_500;
    let peer = run.process().await?;
    topic(&peer, 1).await?;
    let hot = vec!["hot".to_owned()];
    peer.publish_rounds(TOPIC, &hot, HOT).await?;
    peer.publish_rounds(TOPIC, &keys("order", 100), 3).await?;
    let subscription = peer.subscribe(subscribe().concurrency(4), steadily(millis(1))).await?;
    run.until_calls("all others are done", 300, |call| !call.of("hot") && call.succeeded()).await;
    let done = run.count(|call| call.of("hot") && call.succeeded());
    ensure!(done < HOT, "the others came only when the hot key was through");
    run.settled(TOPIC, &[GROUP]).await?;
    subscription.drain(Duration::from_secs(5)).await?;
    run.judge(&expect().overlap(), &[(TOPIC, &[GROUP])]).await?;
    Ok(())
}

/// Memory is bounded with a stuck handler; at the bound its partition stalls visibly, and others do not.
pub(in crate::suite) async fn stuck_handler(run: Run) -> Result<(), Failure> {
    const BUDGET: usize = 64 << 10;
    const SIZE: usize = 1 << 10;
    // A delivery that is under way comes whole, and so do the records that the backend may still send after a pause.
    const BATCH: usize = 256;
    let full = Arc::new(AtomicUsize::new(0));
    let seen = full.clone();
    let config = run.config().hook(move |event: &BusEvent<'_>| {
        if matches!(event, BusEvent::Stalled { full: true, .. }) {
            seen.fetch_add(1, Ordering::Relaxed);
        }
    });
    let (peer, other) = (run.process_with(config).await?, run.process().await?);
    topic(&peer, 2).await?;
    let gate = Gate::new();
    let script = Gated::new(steadily(millis(1)), &gate, |delivery, _| key_is(delivery, "stuck"));
    let options = subscribe().budget_bytes(BUDGET).stall_after(Duration::from_secs(1));
    let subscription = peer.subscribe(options, script).await?;
    let overshoot = peer.bus().capabilities().overshoot;
    let mut outcomes: Vec<_> = (0..400).map(|_| other.publisher().publish(TOPIC, "stuck", SIZE)).collect();
    outcomes.extend((0..400).flat_map(|_| keys("order", 4)).map(|key| other.publisher().publish(TOPIC, &key, SIZE)));
    for outcome in outcomes {
        outcome.await?;
    }
    let stuck = eventbus_core::Key::try_from("stuck")?.partition(2);
    let beside = |call: &crate::suite::Call| call.start.partition != stuck && call.succeeded();
    let in_other: Vec<String> = keys("order", 4)
        .into_iter()
        .filter(|key| eventbus_core::Key::try_from(key.as_str()).is_ok_and(|key| key.partition(2) != stuck))
        .collect();
    ensure!(!in_other.is_empty(), "no key fell into the other partition");
    run.until_calls("the other partition goes on", in_other.len() * 400, beside).await;
    run.until("the stall is reported", || full.load(Ordering::Relaxed) > 0).await;
    let views = subscription.inspect();
    let Some(view) = views.iter().find(|view| view.partition == stuck) else {
        return Err(Failure::wrong("the stuck partition cannot be inspected"));
    };
    let bound = BUDGET + (overshoot + BATCH) * (SIZE + 512);
    ensure!(view.full && view.bytes <= bound, "{} bytes are held, where {bound} are the most: {view:?}", view.bytes);
    gate.open();
    run.settled(TOPIC, &[GROUP]).await?;
    subscription.drain(Duration::from_secs(5)).await?;
    run.judge(&expect().overlap(), &[(TOPIC, &[GROUP])]).await?;
    Ok(())
}

/// The number of handlers at once reaches its limit and never passes it.
pub(in crate::suite) async fn concurrency_limit(run: Run) -> Result<(), Failure> {
    let peer = run.process().await?;
    topic(&peer, 4).await?;
    let subscription = peer.subscribe(subscribe().concurrency(5), unsteadily(run.seed(), millis(6))).await?;
    peer.publish_rounds(TOPIC, &keys("order", 100), 5).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    subscription.drain(Duration::from_secs(5)).await?;
    run.judge(&expect().overlap().spread(100, 4), &[(TOPIC, &[GROUP])]).await?;
    let most = peak(&run, 0, usize::MAX);
    ensure!(most == 5, "five at once were asked for, {most} ran");
    ensure!(subscription.set_concurrency(0).is_err(), "no handler at once was accepted");
    Ok(())
}

/// A stall is detected, reported with its key, and ends.
pub(in crate::suite) async fn stall_is_reported(run: Run) -> Result<(), Failure> {
    let stalled = Arc::new(Mutex::new(Vec::new()));
    let seen = stalled.clone();
    let config = run.config().hook(move |event: &BusEvent<'_>| {
        if let BusEvent::Stalled { at, .. } = event {
            let key = at.key.as_ref().and_then(|key| key.as_str()).unwrap_or_default().to_owned();
            seen.lock().unwrap_or_else(PoisonError::into_inner).push(key);
        }
    });
    let peer = run.process_with(config).await?;
    topic(&peer, 2).await?;
    let gate = Gate::new();
    let script = Gated::new(steadily(millis(1)), &gate, |delivery, number| key_is(delivery, "slow") && number == 2);
    let subscription = peer.subscribe(subscribe().stall_after(Duration::from_secs(2)), script).await?;
    let mut all = keys("order", 20);
    all.push("slow".into());
    peer.publish_rounds(TOPIC, &all, 4).await?;
    let reported = || stalled.lock().unwrap_or_else(PoisonError::into_inner).clone();
    run.until("the stall is reported", || !reported().is_empty()).await;
    ensure!(reported() == ["slow"], "the report names {:?}", reported());
    let head = subscription.inspect().into_iter().find_map(|view| Some((view.head_key?, view.head?.1)));
    let Some((key, age)) = head else { return Err(Failure::wrong("no partition shows its head")) };
    ensure!(key.as_str() == Some("slow") && age >= Duration::from_secs(2), "the head is {key:?} of {age:?}");
    gate.open();
    run.settled(TOPIC, &[GROUP]).await?;
    run.until("nothing is unfinished", || subscription.inspect().iter().all(|view| view.head.is_none())).await;
    subscription.drain(Duration::from_secs(5)).await?;
    run.judge(&expect().overlap(), &[(TOPIC, &[GROUP])]).await?;
    Ok(())
}

/// Lag is a count of records, and right before, between and after.
pub(in crate::suite) async fn lag_is_right(run: Run) -> Result<(), Failure> {
    let peer = run.process().await?;
    topic(&peer, 4).await?;
    let lag = async || -> Result<u64, Failure> {
        let described = peer.bus().describe_group(TOPIC, GROUP).await?;
        Ok(described.partitions.iter().map(|partition| partition.lag).sum())
    };
    match peer.bus().describe_group(TOPIC, GROUP).await {
        Err(error) if error.kind() == ErrorKind::UnknownGroup => {}
        other => return Err(Failure::wrong(format!("a group that nobody joined was described: {other:?}"))),
    }
    peer.publish_rounds(TOPIC, &keys("order", 100), 3).await?;
    let gate = Gate::new();
    let script = Gated::new(|_: &_, _| Step::succeed(millis(1)), &gate, |_, number| number == 3);
    let subscription = peer.subscribe(subscribe().concurrency(200), script).await?;
    run.until_calls("two thirds are done", 200, |call| call.succeeded()).await;
    let known: u64 = subscription.lag().await?.iter().map(|partition| partition.lag).sum();
    ensure!((100..=300).contains(&known), "100 of 300 are unfinished, the lag is {known}");
    gate.open();
    run.settled(TOPIC, &[GROUP]).await?;
    ensure!(lag().await? == 0, "all is done, and the lag is {}", lag().await?);
    subscription.drain(Duration::from_secs(5)).await?;
    peer.publish_rounds(TOPIC, &keys("order", 37), 1).await?;
    ensure!(lag().await? == 37, "37 were published to a group that is away, the lag is {}", lag().await?);
    let again = peer.subscribe(subscribe(), steadily(millis(1))).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    again.drain(Duration::from_secs(5)).await?;
    run.judge(&crate::oracle::Expectations::new(200.max(CONCURRENCY)).quiet().log_read(), &[(TOPIC, &[GROUP])]).await?;
    Ok(())
}

/// A paused subscription starts nothing more, and goes on where it stood when it is resumed.
pub(in crate::suite) async fn paused_and_resumed(run: Run) -> Result<(), Failure> {
    let peer = run.process().await?;
    peer.topic(TopicSpec::new(TOPIC).partitions(4)).await?;
    let subscription = peer.subscribe(subscribe(), steadily(millis(5))).await?;
    peer.publish_rounds(TOPIC, &keys("order", 100), 5).await?;
    run.until_calls("some are done", 60, |call| call.succeeded()).await;
    subscription.pause();
    run.until("what ran has ended", || run.count(|call| call.end.is_none()) == 0).await;
    let started = run.calls().len();
    tokio::time::sleep(millis(500)).await;
    ensure!(run.calls().len() == started, "handlers began in a paused subscription");
    subscription.resume();
    run.settled(TOPIC, &[GROUP]).await?;
    subscription.drain(Duration::from_secs(5)).await?;
    run.judge(&expect().overlap().spread(100, 4), &[(TOPIC, &[GROUP])]).await?;
    Ok(())
}
