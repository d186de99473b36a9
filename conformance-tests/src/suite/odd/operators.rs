//! An operator who deletes and changes what a bus works with: it is told, and what may go on goes on.

use std::time::Duration;

use eventbus_core::{
    BusEvent, Envelope, Error, ErrorKind, FailurePolicy, Key, OnExisting, OnLogReset, Receipt, TopicSpec,
};
use tokio::sync::mpsc;

use crate::harness::{Act, steadily};
use crate::suite::common::{GROUP, TOPIC, expect, failing, keys, millis, subscribe, unsteadily};
use crate::suite::failure::ensure;
use crate::suite::p0::failure::letters_of;
use crate::suite::p0::log::note_seek;
use crate::suite::p0::members::topic;
use crate::suite::{Failure, Peer, Run};

const PARTITIONS: u32 = 2;

/// A topic that is deleted under a member ends its subscription, with the topic's name.
pub(in crate::suite) async fn topic_deleted_under_a_member(run: Run) -> Result<(), Failure> {
    let (peer, operator) = (run.process().await?, run.process().await?);
    topic(&peer, PARTITIONS).await?;
    let subscription = peer.subscribe(subscribe(), steadily(millis(1))).await?;
    peer.publish_rounds(TOPIC, &keys("order", 20), 2).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    run.fault("topic deleted", true);
    operator.bus().delete_topic(TOPIC).await?;
    let Err(error) = subscription.closed().await else { return Err(Failure::wrong("it ended without an error")) };
    let told = matches!(error.kind(), ErrorKind::UnknownTopic | ErrorKind::LogReset);
    ensure!(told && error.to_string().contains(TOPIC), "expected that the topic is gone, got {error}");
    Ok(())
}

async fn send(peer: &Peer) -> Result<Receipt, Error> {
    let envelope = Envelope::builder("T", "/s").key("k").build()?;
    peer.bus().publish(TOPIC, envelope).await?.await
}

/// A topic that is deleted under a publisher refuses its publishes; made again, it takes them.
pub(in crate::suite) async fn topic_deleted_under_a_publisher(run: Run) -> Result<(), Failure> {
    let (peer, operator) = (run.process().await?, run.process().await?);
    topic(&peer, PARTITIONS).await?;
    send(&peer).await?;
    operator.bus().delete_topic(TOPIC).await?;
    // A broker may go on with what it has for a moment.
    let refused = loop {
        if let Err(error) = send(&peer).await {
            break error;
        }
    };
    ensure!(refused.kind() == ErrorKind::UnknownTopic, "expected that the topic is unknown, got {refused}");
    operator.topic(TopicSpec::new(TOPIC).partitions(PARTITIONS)).await?;
    let mut stored = Vec::new();
    while stored.len() < 10 {
        match send(&peer).await {
            Ok(receipt) => stored.push(receipt.position),
            Err(error) if error.kind() == ErrorKind::UnknownTopic => tokio::time::sleep(millis(20)).await,
            Err(error) => return Err(error.into()),
        }
    }
    ensure!(stored.is_sorted(), "positions of one key do not rise: {stored:?}");
    let records = operator.bus().describe_topic(TOPIC).await?.records;
    ensure!(records == 10, "ten were confirmed, {records} are stored");
    Ok(())
}

/// The dead-letter topic is deleted: a key waits until its letter is written, and the others go on.
pub(in crate::suite) async fn dead_letter_topic_deleted(run: Run) -> Result<(), Failure> {
    let (peer, operator) = (run.process().await?, run.process().await?);
    topic(&peer, PARTITIONS).await?;
    let letters = letters_of(GROUP)?;
    let options = subscribe().attempts(2).then(FailurePolicy::DeadLetter);
    let subscription = peer.subscribe(options, failing("k", 2, Act::Fail, u32::MAX)).await?;
    operator.bus().delete_topic(&letters).await?;
    let mut all = keys("order", 20);
    all.push("k".into());
    peer.publish_rounds(TOPIC, &all, 3).await?;
    let others = |call: &crate::suite::Call| !call.of("k") && call.succeeded();
    run.until_calls("all other keys are done", 60, others).await;
    operator.topic(TopicSpec::new(&letters).partitions(PARTITIONS).on_existing(OnExisting::LeaveAlone)).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    subscription.drain(Duration::from_secs(5)).await?;
    let found = run.log(&letters).await?.len();
    ensure!(found == 1, "one dead letter was to be written, {found} were");
    run.judge(&expect().overlap(), &[(TOPIC, &[GROUP])]).await?;
    Ok(())
}

/// Progress that is removed under a member ends its subscription, and a group begins anew only where it is told to.
pub(in crate::suite) async fn progress_removed(run: Run) -> Result<(), Failure> {
    let peer = run.process().await?;
    topic(&peer, PARTITIONS).await?;
    let subscription = peer.subscribe(subscribe(), steadily(millis(1))).await?;
    peer.publish_rounds(TOPIC, &keys("order", 20), 2).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    run.fault("progress removed", true);
    run.fixture().operator().remove_progress(TOPIC).await?;
    let Err(error) = subscription.closed().await else { return Err(Failure::wrong("it ended without an error")) };
    ensure!(error.kind() == ErrorKind::LogReset, "expected a log reset, got {error}");
    let before = run.calls().len();
    let refused = match peer.subscribe(subscribe(), steadily(millis(1))).await {
        Err(Failure::Bus(error)) => error,
        Err(other) => return Err(other),
        Ok(begun) => match begun.closed().await {
            Err(error) => error,
            Ok(()) => return Err(Failure::wrong("it began anew, and nobody asked for it")),
        },
    };
    ensure!(refused.kind() == ErrorKind::LogReset, "expected a log reset, got {refused}");
    ensure!(run.calls().len() == before, "something was handled again, and nobody asked for it");
    note_seek(&run, PARTITIONS);
    let options = subscribe().on_log_reset(OnLogReset::Earliest);
    let again = peer.subscribe(options, steadily(millis(1))).await?;
    run.until_calls("all is handled again", 80, |call| call.succeeded()).await;
    run.settled(TOPIC, &[GROUP]).await?;
    again.drain(Duration::from_secs(5)).await?;
    Ok(())
}

/// A setting by which records leave the middle of the log is refused by name, at each beginning.
pub(in crate::suite) async fn settings_spoiled(run: Run) -> Result<(), Failure> {
    let peer = run.process().await?;
    topic(&peer, PARTITIONS).await?;
    let setting = run.fixture().operator().spoil(TOPIC).await?;
    let other = run.process().await?;
    let begun = other.subscribe(subscribe(), steadily(millis(1))).await;
    let ended = match begun {
        Ok(subscription) => subscription.closed().await.err(),
        Err(Failure::Bus(error)) => Some(error),
        Err(failure) => return Err(failure),
    };
    let ensured = other.bus().ensure_topic(&TopicSpec::new(TOPIC).partitions(PARTITIONS)).await.err();
    for error in [ended, ensured] {
        let named = error
            .as_ref()
            .is_some_and(|error| error.kind() == ErrorKind::UnsafeConfig && error.to_string().contains(setting));
        ensure!(named, "expected that {setting} is refused, got {error:?}");
    }
    ensure!(run.calls().is_empty(), "something was handled of a topic that is refused");
    Ok(())
}

/// Readers that are removed at the broker are made again, and nothing comes twice.
pub(in crate::suite) async fn readers_removed(run: Run) -> Result<(), Failure> {
    let peer = run.process().await?;
    topic(&peer, PARTITIONS).await?;
    let subscription = peer.subscribe(subscribe(), unsteadily(run.seed(), millis(3))).await?;
    for round in 1..=5 {
        peer.publish_rounds(TOPIC, &keys("order", 50), 2).await?;
        run.until_calls("it is at it", round * 60, |call| call.succeeded()).await;
        run.fault("readers removed", false);
        run.fixture().operator().remove_readers(TOPIC).await?;
    }
    peer.publish_rounds(TOPIC, &keys("order", 50), 2).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    subscription.drain(Duration::from_secs(5)).await?;
    let verdict = run.judge(&expect().overlap().spread(50, 2), &[(TOPIC, &[GROUP])]).await?;
    ensure!(verdict.counts.repeats == 0, "a reader that was made again repeated: {:?}", verdict.counts);
    Ok(())
}

/// More partitions: publishes with a key are refused until the number is accepted, and all partitions are handled.
pub(in crate::suite) async fn partitions_added(run: Run) -> Result<(), Failure> {
    let (tell, mut told) = mpsc::unbounded_channel();
    let hook = move |event: &BusEvent<'_>| {
        if let BusEvent::PartitionsChanged { in_force, found, .. } = event {
            let _ = tell.send((*in_force, *found));
        }
    };
    let peer = run.process_with(run.config().recount(millis(500)).hook(hook)).await?;
    topic(&peer, PARTITIONS).await?;
    let subscription = peer.subscribe(subscribe(), steadily(millis(1))).await?;
    peer.publish_rounds(TOPIC, &keys("order", 20), 2).await?;
    run.fault("partitions added", true);
    run.fixture().operator().add_partitions(TOPIC, 4).await?;
    ensure!(told.recv().await == Some((PARTITIONS, 4)), "another change was told");
    let kind = send(&peer).await.err().map(|error| error.kind());
    ensure!(kind == Some(ErrorKind::PartitionsChanged), "expected a refusal, got {kind:?}");
    run.settled(TOPIC, &[GROUP]).await?;
    peer.bus().accept_partitions(TOPIC, 4).await?;
    let key = (0..)
        .map(|n| format!("new-{n}"))
        .find(|key| Key::try_from(key.as_str()).is_ok_and(|key| key.partition(4) == 3));
    peer.publish_rounds(TOPIC, &[key.unwrap_or_default()], 3).await?;
    run.until_calls("the new partition is handled", 3, |call| call.start.partition == 3 && call.succeeded()).await;
    subscription.drain(Duration::from_secs(5)).await?;
    Ok(())
}

/// A group that was deleted begins where a new one begins.
pub(in crate::suite) async fn group_deleted(run: Run) -> Result<(), Failure> {
    let (peer, operator) = (run.process().await?, run.process().await?);
    topic(&peer, PARTITIONS).await?;
    peer.publish_rounds(TOPIC, &keys("order", 20), 2).await?;
    let subscription = peer.subscribe(subscribe(), steadily(millis(1))).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    subscription.drain(Duration::from_secs(5)).await?;
    operator.bus().delete_group(TOPIC, GROUP).await?;
    note_seek(&run, PARTITIONS);
    let again = peer.subscribe(subscribe(), steadily(millis(1))).await?;
    run.until_calls("all is handled again", 80, |call| call.succeeded()).await;
    run.settled(TOPIC, &[GROUP]).await?;
    again.drain(Duration::from_secs(5)).await?;
    run.judge(&expect().overlap(), &[(TOPIC, &[GROUP])]).await?;
    Ok(())
}
