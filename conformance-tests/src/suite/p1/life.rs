//! Life cycle: starting again, closing in every way, independent groups, replays.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use eventbus_core::{
    Delivery, Envelope, ErrorKind, EventBus, FailurePolicy, HandlerError, Position, StartFrom, Subscription, handler_fn,
};

use crate::harness::{Act, steadily};
use crate::suite::common::{Collected, GROUP, TOPIC, expect, failing, keys, millis, subscribe};
use crate::suite::failure::ensure;
use crate::suite::p0::members::topic;
use crate::suite::{Failure, Run};

/// Subscriptions start again after drains and drops, many times.
pub(in crate::suite) async fn started_again(run: Run) -> Result<(), Failure> {
    let peer = run.process().await?;
    topic(&peer, 4).await?;
    for round in 0..6 {
        let before = run.count(|call| call.succeeded());
        let subscription = peer.subscribe(subscribe(), steadily(millis(2))).await?;
        peer.publish_rounds(TOPIC, &keys("order", 100), 2).await?;
        run.until_calls("some are done", before + 60, |call| call.succeeded()).await;
        match round % 2 {
            0 => subscription.drain(Duration::from_secs(5)).await?,
            _ => drop(subscription),
        }
    }
    let subscription = peer.subscribe(subscribe(), steadily(millis(1))).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    subscription.drain(Duration::from_secs(5)).await?;
    run.judge(&expect().overlap().spread(100, 4), &[(TOPIC, &[GROUP])]).await?;
    Ok(())
}

/// Several callers close at once.
pub(in crate::suite) async fn concurrent_close(run: Run) -> Result<(), Failure> {
    let peer = run.process().await?;
    topic(&peer, 4).await?;
    let subscription = peer.subscribe(subscribe(), steadily(millis(5))).await?;
    peer.publish_rounds(TOPIC, &keys("order", 100), 4).await?;
    run.until_calls("some are done", 50, |call| call.succeeded()).await;
    let long = Duration::from_secs(10);
    let closes = tokio::join!(
        subscription.drain(long),
        subscription.drain(long),
        peer.bus().close(long),
        peer.bus().close(long),
        subscription.closed(),
    );
    for result in [closes.0, closes.1, closes.2, closes.3, closes.4] {
        result?;
    }
    peer.bus().close(long).await?;
    let published = peer.bus().publish(TOPIC, Envelope::builder("T", "/s").build()?).await;
    ensure!(published.is_err_and(|error| error.kind() == ErrorKind::Closed), "a closed bus took a publish");
    let again = peer.subscribe(subscribe(), steadily(millis(1))).await;
    let closed = matches!(&again, Err(Failure::Bus(error)) if error.kind() == ErrorKind::Closed);
    ensure!(closed, "a closed bus took a subscription: {again:?}");
    let other = run.process().await?;
    let rest = other.subscribe(subscribe(), steadily(millis(1))).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    rest.drain(long).await?;
    run.judge(&expect().overlap().spread(100, 4), &[(TOPIC, &[GROUP])]).await?;
    Ok(())
}

/// Closing inside a handler is an error at once, and nothing hangs.
pub(in crate::suite) async fn close_inside_a_handler(run: Run) -> Result<(), Failure> {
    let peer = run.process().await?;
    topic(&peer, 1).await?;
    let own: Arc<Mutex<Option<Arc<Subscription>>>> = Arc::default();
    let answers: Arc<Mutex<Vec<Option<ErrorKind>>>> = Arc::default();
    let (bus, known, said): (Arc<dyn EventBus>, _, _) = (peer.bus().clone(), own.clone(), answers.clone());
    let handler = handler_fn(move |_: Delivery| {
        let (bus, known, said) = (bus.clone(), known.clone(), said.clone());
        async move {
            let Some(own) = known.lock().unwrap_or_else(PoisonError::into_inner).clone() else {
                return Err(HandlerError::retry("not yet"));
            };
            let long = Duration::from_secs(30);
            let kind = |result: eventbus_core::Result<()>| result.err().map(|error| error.kind());
            let all = [kind(own.drain(long).await), kind(own.closed().await), kind(bus.close(long).await)];
            said.lock().unwrap_or_else(PoisonError::into_inner).extend(all);
            Ok(())
        }
    });
    let subscription = Arc::new(peer.bus().subscribe(subscribe().attempts(1_000), handler).await?);
    *own.lock().unwrap_or_else(PoisonError::into_inner) = Some(subscription.clone());
    peer.publish_rounds(TOPIC, &["k".to_owned()], 1).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    let answers = answers.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let expected = [Some(ErrorKind::WouldDeadlock); 3];
    ensure!(answers == expected, "expected WouldDeadlock of drain, closed and close, got {answers:?}");
    own.lock().unwrap_or_else(PoisonError::into_inner).take();
    subscription.drain(Duration::from_secs(5)).await?;
    Ok(())
}

/// Groups are independent: one fails and stops, another is slow, a third is done.
pub(in crate::suite) async fn groups_are_independent(run: Run) -> Result<(), Failure> {
    let peer = run.process().await?;
    topic(&peer, 4).await?;
    let all = keys("order", 100);
    let done = peer.subscribe(subscribe(), steadily(millis(1))).await?;
    let slow = peer.subscribe(subscribe().group("slow").concurrency(4), steadily(millis(20))).await?;
    let options = subscribe().group("stops").attempts(1).then(FailurePolicy::Stop);
    let stops = peer.subscribe(options, failing("order-3", 2, Act::Fail, u32::MAX)).await?;
    peer.publish_rounds(TOPIC, &all, 4).await?;
    ensure!(stops.closed().await.is_err(), "it was to stop");
    run.settled(TOPIC, &[GROUP]).await?;
    let behind = run.count(|call| &*call.start.group == "slow" && call.succeeded());
    ensure!(behind < 400, "the slow group was as fast as the other: the case shows nothing");
    run.settled(TOPIC, &["slow"]).await?;
    for subscription in [done, slow] {
        subscription.drain(Duration::from_secs(5)).await?;
    }
    let again = peer.subscribe(subscribe().group("stops"), steadily(millis(1))).await?;
    run.settled(TOPIC, &["stops"]).await?;
    again.drain(Duration::from_secs(5)).await?;
    let expected = expect().group(TOPIC, "slow").group(TOPIC, "stops").overlap().spread(100, 4);
    run.judge(&expected, &[(TOPIC, &[GROUP, "slow", "stops"])]).await?;
    Ok(())
}

fn numbers(collected: &Collected) -> Vec<u64> {
    collected.all().iter().filter_map(|delivery| delivery.envelope().sequence()).collect()
}

/// Replays: a new group from a position, from a time and from the end; a group that is reset; a group that is deleted.
pub(in crate::suite) async fn replays(run: Run) -> Result<(), Failure> {
    let peer = run.process().await?;
    topic(&peer, 1).await?;
    let key = vec!["k".to_owned()];
    peer.publish_rounds(TOPIC, &key, 10).await?;
    tokio::time::sleep(millis(50)).await;
    let between = run.unix_millis();
    tokio::time::sleep(millis(50)).await;
    peer.publish_rounds(TOPIC, &key, 10).await?;
    let log = peer.bus().describe_topic(TOPIC).await?.partitions.swap_remove(0);
    let fifth = Position::new(log.first.get() + 5);
    let cases = [
        ("earliest", StartFrom::Earliest, 1),
        ("position", StartFrom::Positions(BTreeMap::from([(0, fifth)])), 6),
        ("time", StartFrom::Time(between), 11),
        ("latest", StartFrom::Latest, 21),
    ];
    let mut subscriptions = Vec::new();
    for (group, start, first) in cases {
        let collected = Collected::default();
        let options = subscribe().group(group).start(start);
        let subscription = peer.bus().subscribe(options, collected.handler(0)).await?;
        run.settled(TOPIC, &[group]).await?;
        subscriptions.push((group, subscription, collected, first));
    }
    run.until("every group owns the partition", || {
        subscriptions.iter().all(|(_, subscription, ..)| subscription.inspect().len() == 1)
    })
    .await;
    peer.publish_rounds(TOPIC, &key, 1).await?;
    for (group, subscription, collected, first) in &subscriptions {
        run.settled(TOPIC, &[group]).await?;
        let expected: Vec<u64> = (*first..=21).collect();
        ensure!(numbers(collected) == expected, "{group}: expected {expected:?}, got {:?}", numbers(collected));
        subscription.drain(Duration::from_secs(5)).await?;
    }
    // The group is reset while it has no members.
    peer.bus().reset_group(TOPIC, "latest", &StartFrom::Time(between)).await?;
    let collected = Collected::default();
    let subscription = peer.bus().subscribe(subscribe().group("latest"), collected.handler(0)).await?;
    run.until("it is a member", || subscription.inspect().len() == 1).await;
    let active = peer.bus().reset_group(TOPIC, "latest", &StartFrom::Earliest).await;
    ensure!(active.is_err_and(|error| error.kind() == ErrorKind::GroupActive), "a group with members was put back");
    run.settled(TOPIC, &["latest"]).await?;
    let expected: Vec<u64> = (11..=21).collect();
    ensure!(numbers(&collected) == expected, "put back: expected {expected:?}, got {:?}", numbers(&collected));
    subscription.drain(Duration::from_secs(5)).await?;
    peer.bus().delete_group(TOPIC, "latest").await?;
    let groups = peer.bus().list_groups(TOPIC).await?;
    ensure!(!groups.contains(&"latest".to_owned()), "a forgotten group is listed: {groups:?}");
    Ok(())
}
