//! An operator who removes records while members run: what was not handled is told as lost, nothing else is (S3).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use eventbus_core::{ErrorKind, FailurePolicy, OnDataLoss, Position};

use crate::harness::steadily;
use crate::history::{Event, Kind};
use crate::oracle::Expectations;
use crate::suite::common::{CONCURRENCY, GROUP, TOPIC, expect, keys, millis, subscribe};
use crate::suite::failure::ensure;
use crate::suite::p0::members::topic;
use crate::suite::p1::retention::counting;
use crate::suite::{Failure, Peer, Run, UnderWay};

const PARTITIONS: u32 = 2;

/// Removes half of what was stored behind a group's progress in each partition, and returns by how much.
async fn purge_half(run: &Run, publisher: &Peer) -> Result<(), Failure> {
    let described = publisher.bus().describe_group(TOPIC, GROUP).await?;
    for partition in described.partitions {
        let next = partition.committed.map_or(0, |committed| committed.next.get());
        let first = next + (partition.log.end.get() - next) / 2;
        run.fault("purge", false);
        run.fixture().truncate(TOPIC, partition.partition, Position::new(first)).await?;
    }
    Ok(())
}

/// A member whose connection is cut while records are stored and half of them purged.
async fn purged(
    run: &Run,
    policy: OnDataLoss,
) -> Result<(Peer, eventbus_core::Subscription, Arc<AtomicUsize>), Failure> {
    let (losses, config) = counting(run);
    let (member, publisher) = (run.process_with(config).await?, run.process().await?);
    topic(&publisher, PARTITIONS).await?;
    // A session long enough for the member to keep its partitions.
    let options = subscribe().on_data_loss(policy).session_timeout(Duration::from_secs(30));
    let subscription = member.subscribe(options, steadily(millis(1))).await?;
    publisher.publish_rounds(TOPIC, &keys("order", 50), 2).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    member.cut(UnderWay::Either).await?;
    publisher.publish_rounds(TOPIC, &keys("order", 50), 4).await?;
    purge_half(run, &publisher).await?;
    member.heal().await?;
    Ok((member, subscription, losses))
}

/// A member that is told to go on tells each partition's loss, and handles the rest. (Where it had to claim a partition
/// anew before anything was committed, it tells the loss again.)
pub(in crate::suite) async fn purged_under_a_member(run: Run) -> Result<(), Failure> {
    let (member, subscription, _) = purged(&run, OnDataLoss::Continue).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    subscription.drain(Duration::from_secs(5)).await?;
    let lost = |event: &Event| match event.kind {
        Kind::DataLost { partition, .. } => Some(partition),
        _ => None,
    };
    let told: BTreeSet<u32> = run.inspect(|events| events.iter().filter_map(lost).collect());
    ensure!(told.len() == PARTITIONS as usize, "{PARTITIONS} partitions lost records, told are {told:?}");
    run.judge(&expect().overlap().spread(50, PARTITIONS as usize), &[(TOPIC, &[GROUP])]).await?;
    drop(member);
    Ok(())
}

/// By default the subscription of a running member ends.
pub(in crate::suite) async fn purge_stops_a_member(run: Run) -> Result<(), Failure> {
    let (member, subscription, losses) = purged(&run, OnDataLoss::Stop).await?;
    let Err(error) = subscription.closed().await else { return Err(Failure::wrong("it ended without an error")) };
    ensure!(error.kind() == ErrorKind::DataLost, "expected lost data, got {error}");
    ensure!(losses.load(Ordering::Relaxed) > 0, "the hook heard nothing");
    drop(member);
    Ok(())
}

/// What was handled may go at any time.
pub(in crate::suite) async fn handled_head_purged(run: Run) -> Result<(), Failure> {
    let (losses, config) = counting(&run);
    let peer = run.process_with(config).await?;
    topic(&peer, PARTITIONS).await?;
    let subscription = peer.subscribe(subscribe(), steadily(millis(1))).await?;
    for _ in 0..3 {
        peer.publish_rounds(TOPIC, &keys("order", 50), 2).await?;
        run.settled(TOPIC, &[GROUP]).await?;
        let described = peer.bus().describe_group(TOPIC, GROUP).await?;
        for partition in described.partitions {
            let next = partition.committed.map_or(Position::ZERO, |committed| committed.next);
            run.fault("purge", false);
            run.fixture().truncate(TOPIC, partition.partition, next).await?;
        }
    }
    peer.publish_rounds(TOPIC, &keys("order", 50), 2).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    subscription.drain(Duration::from_secs(5)).await?;
    let heard = losses.load(Ordering::Relaxed);
    ensure!(heard == 0, "all was handled before it went, and {heard} losses were told");
    run.judge(&expect().overlap(), &[(TOPIC, &[GROUP])]).await?;
    Ok(())
}

/// One record removed from the middle of a log is a loss.
pub(in crate::suite) async fn one_record_removed(run: Run) -> Result<(), Failure> {
    let (losses, config) = counting(&run);
    let peer = run.process_with(config).await?;
    topic(&peer, 1).await?;
    peer.publish_rounds(TOPIC, &keys("order", 10), 1).await?;
    let first = peer.subscribe(subscribe(), steadily(millis(1))).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    first.drain(Duration::from_secs(5)).await?;
    let end = peer.bus().describe_topic(TOPIC).await?.partitions.first().map_or(0, |log| log.end.get());
    peer.publish_rounds(TOPIC, &keys("order", 10), 3).await?;
    run.fault("a record removed", false);
    run.fixture().operator().remove_record(TOPIC, 0, Position::new(end + 7)).await?;
    let before = run.calls().len();
    let stops = peer.subscribe(subscribe().then(FailurePolicy::Stop), steadily(millis(1))).await?;
    let Err(error) = stops.closed().await else { return Err(Failure::wrong("it ended without an error")) };
    ensure!(error.kind() == ErrorKind::DataLost, "expected lost data, got {error}");
    let past = |call: &crate::suite::Call| call.began >= before && call.start.position > end + 7;
    ensure!(run.count(past) == 0, "it went on behind the hole");
    let told = losses.load(Ordering::Relaxed);
    let goes_on = peer.subscribe(subscribe().on_data_loss(OnDataLoss::Continue), steadily(millis(1))).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    goes_on.drain(Duration::from_secs(5)).await?;
    ensure!(told == 1 && losses.load(Ordering::Relaxed) == 2, "told {told} times, then {losses:?}");
    // The log lacks what was confirmed, by the operator's hand; the handler calls are judged.
    run.judge(&Expectations::new(CONCURRENCY).quiet().overlap(), &[]).await?;
    let handled = run.count(|call| call.succeeded());
    ensure!(handled == 39, "39 of forty were left, {handled} were handled");
    Ok(())
}
