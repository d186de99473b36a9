//! Cases 26 and 29: the log is another one, or is read again.

use std::time::Duration;

use eventbus_core::{ErrorKind, OnLogReset, Position, StartFrom, TopicSpec};

use crate::harness::steadily;
use crate::history::{FinishedBy, Kind};
use crate::suite::common::{GROUP, TOPIC, expect, keys, millis, subscribe};
use crate::suite::failure::ensure;
use crate::suite::p0::failure::finished;
use crate::suite::p0::members::topic;
use crate::suite::{Failure, Peer, Run, UnderWay};

/// Makes a group with progress on a log that is going to be replaced.
async fn with_progress(run: &Run) -> Result<Peer, Failure> {
    let peer = run.process().await?;
    topic(&peer, 4).await?;
    peer.publish_rounds(TOPIC, &keys("order", 100), 5).await?;
    let subscription = peer.subscribe(subscribe(), steadily(millis(1))).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    subscription.drain(Duration::from_secs(5)).await?;
    Ok(peer)
}

async fn recreate(run: &Run) -> Result<(), Failure> {
    run.note(Kind::TopicRecreated { topic: TOPIC.into() });
    run.fixture().recreate(TOPIC).await?;
    Ok(())
}

/// Case 26: the other log is noticed, and nothing is skipped on the word of the old note.
pub(in crate::suite) async fn recreated_topic_stops(run: Run) -> Result<(), Failure> {
    let peer = with_progress(&run).await?;
    recreate(&run).await?;
    let other = run.process().await?;
    other.topic(TopicSpec::new(TOPIC).partitions(4)).await?;
    other.publish_rounds(TOPIC, &keys("order", 100), 2).await?;
    let before = run.calls().len();
    let subscription = peer.subscribe(subscribe(), steadily(millis(1))).await?;
    let Err(error) = subscription.closed().await else { return Err(Failure::wrong("it ended without an error")) };
    ensure!(error.kind() == ErrorKind::LogReset, "expected a log reset, got {error}");
    ensure!(run.calls().len() == before, "something of the other log was handled");
    Ok(())
}

/// Case 26: a subscription that is told to begin again handles all that the new log holds.
pub(in crate::suite) async fn recreated_topic_begins_again(run: Run) -> Result<(), Failure> {
    let peer = with_progress(&run).await?;
    recreate(&run).await?;
    let other = run.process().await?;
    other.topic(TopicSpec::new(TOPIC).partitions(4)).await?;
    other.publish_rounds(TOPIC, &keys("order", 100), 2).await?;
    let options = subscribe().on_log_reset(OnLogReset::Earliest);
    let subscription = peer.subscribe(options, steadily(millis(1))).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    run.until_calls("all of the new log is handled", 700, |call| call.succeeded()).await;
    subscription.drain(Duration::from_secs(5)).await?;
    run.judge(&expect().overlap().spread(100, 4), &[(TOPIC, &[GROUP])]).await?;
    Ok(())
}

/// Case 26: the topic is recreated under a running member.
pub(in crate::suite) async fn recreated_under_a_member(run: Run) -> Result<(), Failure> {
    let peer = with_progress(&run).await?;
    let options = subscribe().on_log_reset(OnLogReset::Earliest);
    let subscription = peer.subscribe(options, steadily(millis(1))).await?;
    peer.publish_rounds(TOPIC, &keys("order", 100), 1).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    recreate(&run).await?;
    let other = run.process().await?;
    other.topic(TopicSpec::new(TOPIC).partitions(4)).await?;
    other.publish_rounds(TOPIC, &keys("order", 100), 2).await?;
    run.until_calls("all of the new log is handled", 800, |call| call.succeeded()).await;
    run.settled(TOPIC, &[GROUP]).await?;
    drop(subscription);
    run.judge(&expect().overlap().spread(100, 4), &[(TOPIC, &[GROUP])]).await?;
    Ok(())
}

/// Case 26: a watermark above the log's end.
pub(in crate::suite) async fn shortened_log_stops(run: Run) -> Result<(), Failure> {
    let peer = with_progress(&run).await?;
    // A log that was cut at its end leaves a group with progress that the log does not hold.
    let control = run.control().await?;
    let described = control.describe_topic(&TOPIC.parse()?).await?;
    let above: Vec<(u32, Position)> = (0..)
        .zip(&described.partitions)
        .map(|(partition, log)| (partition, Position::new(log.end.get() + 100)))
        .collect();
    control.reset_group(&TOPIC.parse()?, &GROUP.parse()?, &above).await?;
    let before = run.calls().len();
    let subscription = peer.subscribe(subscribe(), steadily(millis(1))).await?;
    let Err(error) = subscription.closed().await else { return Err(Failure::wrong("it ended without an error")) };
    ensure!(error.kind() == ErrorKind::LogReset, "expected a log reset, got {error}");
    ensure!(run.calls().len() == before, "something was handled on the word of a watermark above the end");
    Ok(())
}

/// Records that the test asks for a seek of all partitions.
pub(in crate::suite) fn note_seek(run: &Run, partitions: u32) {
    for partition in 0..partitions {
        run.note(Kind::Seek { topic: TOPIC.into(), group: GROUP.into(), partition, to: None });
    }
}

/// Case 29: a seek back.
pub(in crate::suite) async fn seek_back_handles_all_again(run: Run) -> Result<(), Failure> {
    let peer = run.process().await?;
    topic(&peer, 4).await?;
    let subscription = peer.subscribe(subscribe(), steadily(millis(1))).await?;
    peer.publish_rounds(TOPIC, &keys("order", 100), 5).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    note_seek(&run, 4);
    subscription.seek(StartFrom::Earliest).await?;
    peer.publish_rounds(TOPIC, &keys("order", 100), 1).await?;
    run.until_calls("all is handled again", 1_100, |call| call.succeeded()).await;
    run.settled(TOPIC, &[GROUP]).await?;
    subscription.drain(Duration::from_secs(5)).await?;
    run.judge(&expect().overlap().spread(100, 4), &[(TOPIC, &[GROUP])]).await?;
    ensure!(finished(&run, FinishedBy::DroppedCopy) == 0, "what is read again was taken for copies");
    Ok(())
}

/// Case 29: second copies before and after a kill.
pub(in crate::suite) async fn copies_across_a_kill(run: Run) -> Result<(), Failure> {
    let (first, second) = (run.process().await?, run.process().await?);
    first.topic(TopicSpec::new(TOPIC).partitions(2).duplicate_window(millis(200))).await?;
    let one = first.subscribe(subscribe(), steadily(millis(1))).await?;
    let all = keys("order", 20);
    second.publish_rounds(TOPIC, &all, 3).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    let original = |run: &Run, number: u64| {
        let found = run.calls().into_iter().find(|call| call.is("order-7", number));
        found.map(|call| (call.start.partition, Position::new(call.start.position)))
    };
    let Some((partition, position)) = original(&run, 2) else { return Err(Failure::wrong("it was not handled")) };
    run.fixture().store_copy(TOPIC, partition, position).await?;
    run.until("the copy is dropped", || finished(&run, FinishedBy::DroppedCopy) == 1).await;
    run.settled(TOPIC, &[GROUP]).await?;
    first.kill(UnderWay::Stored).await?;
    // The copy lies before the successor's first read; its original before the watermark.
    run.fixture().store_copy(TOPIC, partition, position).await?;
    let two = second.subscribe(subscribe(), steadily(millis(1))).await?;
    run.until("the copy is dropped by the successor", || finished(&run, FinishedBy::DroppedCopy) == 2).await;
    run.fixture().store_copy(TOPIC, partition, position).await?;
    run.until("and one more", || finished(&run, FinishedBy::DroppedCopy) == 3).await;
    second.publish_rounds(TOPIC, &all, 1).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    let verdict = run.judge(&expect().copies_allowed().overlap(), &[(TOPIC, &[GROUP])]).await?;
    ensure!(verdict.counts.copies == 3, "three copies were to be in the log: {:?}", verdict.counts);
    let handled = run.count(|call| call.is("order-7", 2));
    ensure!(handled == 1, "one original with three copies was handled {handled} times");
    drop((one, two));
    Ok(())
}
