//! Retention: records that it removes unhandled are reported as lost, handled ones are not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use eventbus_core::{BusEvent, ErrorKind, Key, OnDataLoss, Position, TopicSpec};

use crate::harness::steadily;
use crate::suite::common::{GROUP, TOPIC, expect, keys, millis, subscribe};
use crate::suite::failure::ensure;
use crate::suite::p0::members::topic;
use crate::suite::{Failure, Peer, Run};

pub(in crate::suite) fn counting(run: &Run) -> (Arc<AtomicUsize>, eventbus_core::BusConfig) {
    let losses = Arc::new(AtomicUsize::new(0));
    let seen = losses.clone();
    let config = run.config().hook(move |event: &BusEvent<'_>| {
        if matches!(event, BusEvent::DataLost { .. }) {
            seen.fetch_add(1, Ordering::Relaxed);
        }
    });
    (losses, config)
}

/// Lets retention remove records that a group had not handled, while the group is away.
async fn robbed(run: &Run, peer: &Peer) -> Result<(), Failure> {
    topic(peer, 2).await?;
    let all = keys("order", 100);
    peer.publish_rounds(TOPIC, &all, 2).await?;
    let subscription = peer.subscribe(subscribe(), steadily(millis(1))).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    subscription.drain(Duration::from_secs(5)).await?;
    peer.publish_rounds(TOPIC, &all, 4).await?;
    let described = peer.bus().describe_group(TOPIC, GROUP).await?;
    for partition in described.partitions {
        // The cut lies between the committed position and the end: some unhandled records go, some remain.
        let next = partition.committed.map_or(0, |committed| committed.next.get());
        let first = next + (partition.log.end.get() - next) / 2;
        run.fault("retention", false);
        run.fixture().truncate(TOPIC, partition.partition, Position::new(first)).await?;
    }
    Ok(())
}

/// Data loss is reported, and by default the subscription stops.
pub(in crate::suite) async fn loss_stops(run: Run) -> Result<(), Failure> {
    let (losses, config) = counting(&run);
    let peer = run.process_with(config).await?;
    robbed(&run, &peer).await?;
    let before = run.calls().len();
    let subscription = peer.subscribe(subscribe(), steadily(millis(1))).await?;
    let Err(error) = subscription.closed().await else { return Err(Failure::wrong("it ended without an error")) };
    ensure!(error.kind() == ErrorKind::DataLost, "expected lost data, got {error}");
    ensure!(losses.load(Ordering::Relaxed) > 0, "the hook heard nothing");
    ensure!(run.calls().len() == before, "it went on behind the hole");
    Ok(())
}

/// A subscription that is told to continue reports the loss and handles the remaining records.
pub(in crate::suite) async fn loss_continues(run: Run) -> Result<(), Failure> {
    let (losses, config) = counting(&run);
    let peer = run.process_with(config).await?;
    robbed(&run, &peer).await?;
    let subscription = peer.subscribe(subscribe().on_data_loss(OnDataLoss::Continue), steadily(millis(1))).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    subscription.drain(Duration::from_secs(5)).await?;
    let heard = losses.load(Ordering::Relaxed);
    ensure!(heard == 2, "two partitions lost records, the hook heard of {heard}");
    let verdict = run.judge(&expect().overlap().spread(100, 2), &[(TOPIC, &[GROUP])]).await?;
    ensure!(verdict.counts.losses == 2, "two losses were to be reported: {:?}", verdict.counts);
    Ok(())
}

/// An idle partition beside a busy one under retention is no loss.
pub(in crate::suite) async fn idle_beside_busy(run: Run) -> Result<(), Failure> {
    let (losses, config) = counting(&run);
    let peer = run.process_with(config).await?;
    // A broker that does not limit records by their number is told what to remove.
    let counts = match peer.topic(TopicSpec::new(TOPIC).partitions(2).max_messages(60)).await {
        Err(Failure::Bus(error)) if error.kind() == ErrorKind::Unsupported => topic(&peer, 2).await.map(|()| false)?,
        made => made.map(|()| true)?,
    };
    let (idle, busy): (Vec<String>, Vec<String>) = keys("order", 40)
        .into_iter()
        .partition(|key| Key::try_from(key.as_str()).is_ok_and(|key| key.partition(2) == 0));
    let subscription = peer.subscribe(subscribe(), steadily(millis(1))).await?;
    peer.publish_rounds(TOPIC, &idle[..5], 1).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    for _ in 0..60 {
        peer.publish_rounds(TOPIC, &busy[..10], 1).await?;
        run.settled(TOPIC, &[GROUP]).await?;
    }
    if !counts {
        let end = peer.bus().describe_topic(TOPIC).await?.partitions.get(1).map_or(Position::ZERO, |log| log.end);
        run.fixture().truncate(TOPIC, 1, end).await?;
    }
    subscription.drain(Duration::from_secs(5)).await?;
    let again = peer.subscribe(subscribe(), steadily(millis(1))).await?;
    peer.publish_rounds(TOPIC, &idle[..5], 2).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    again.drain(Duration::from_secs(5)).await?;
    let heard = losses.load(Ordering::Relaxed);
    ensure!(heard == 0, "all was handled before it was removed, and {heard} losses were reported");
    run.judge(&expect().overlap(), &[(TOPIC, &[GROUP])]).await?;
    Ok(())
}
