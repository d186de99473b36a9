//! Mistakes: each has its own error kind, the same on every backend.

use std::time::Duration;

use eventbus_core::{Envelope, Error, ErrorKind, OnExisting, StartFrom, Subscribe, TopicSpec, Withdrawal};

use crate::harness::steadily;
use crate::suite::common::{GROUP, TOPIC, keys, millis, subscribe};
use crate::suite::failure::ensure;
use crate::suite::p0::members::topic;
use crate::suite::{Failure, PublishFault, Publishes, Run};

fn answers<T: std::fmt::Debug>(what: &str, expected: ErrorKind, result: Result<T, Error>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() == expected => Ok(()),
        other => Err(Failure::wrong(format!("{what}: expected {expected}, got {other:?}"))),
    }
}

fn envelope() -> Result<Envelope, Failure> {
    Ok(Envelope::builder("T", "/s").key("k").build()?)
}

async fn published(
    bus: &std::sync::Arc<dyn eventbus_core::EventBus>,
    topic: &str,
) -> Result<eventbus_core::Receipt, Error> {
    let envelope = Envelope::builder("T", "/s").key("k").build()?;
    bus.publish(topic, envelope).await?.await
}

/// Unknown topics and groups, bad names, closed buses, withdrawn publishes.
pub(in crate::suite) async fn mistakes(run: Run) -> Result<(), Failure> {
    let peer = run.process().await?;
    let bus = peer.bus();
    use ErrorKind::{Closed, GroupActive, InvalidName, UnknownGroup, UnknownTopic};
    answers("publish", UnknownTopic, published(bus, "nowhere").await)?;
    answers("describe", UnknownTopic, bus.describe_topic("nowhere").await)?;
    answers("delete", UnknownTopic, bus.delete_topic("nowhere").await)?;
    answers("groups", UnknownTopic, bus.list_groups("nowhere").await)?;
    let nowhere = Subscribe::to("nowhere");
    answers("subscribe", UnknownTopic, peer.node().subscribe(nowhere, steadily(millis(1))).await)?;
    for name in ["", "a b", "a/b", "ü", &"a".repeat(201)] {
        answers("publish to a bad name", InvalidName, published(bus, name).await)?;
        answers("describe a bad name", InvalidName, bus.describe_topic(name).await)?;
        answers("make a bad name", InvalidName, bus.ensure_topic(&TopicSpec::new(name)).await)?;
        let options = Subscribe::to(TOPIC).group(name);
        answers("join a bad name", InvalidName, peer.node().subscribe(options, steadily(millis(1))).await)?;
    }
    ensure!(bus.list_topics().await?.is_empty(), "a mistake made a topic: {:?}", bus.list_topics().await?);
    topic(&peer, 2).await?;
    answers("describe a group", UnknownGroup, bus.describe_group(TOPIC, "nobody").await)?;
    let subscription = peer.subscribe(subscribe(), steadily(millis(1))).await?;
    answers("reset an active group", GroupActive, bus.reset_group(TOPIC, GROUP, &StartFrom::Earliest).await)?;
    answers("delete an active group", GroupActive, bus.delete_group(TOPIC, GROUP).await)?;
    subscription.drain(Duration::from_secs(5)).await?;
    answers("seek of what is closed", Closed, subscription.seek(StartFrom::Earliest).await)?;
    let other = run.process().await?;
    other.bus().close(Duration::from_secs(5)).await?;
    answers("publish on a closed bus", Closed, published(other.bus(), TOPIC).await)?;
    answers("describe on a closed bus", Closed, other.bus().describe_topic(TOPIC).await)?;
    answers("subscribe on a closed bus", Closed, other.node().subscribe(subscribe(), steadily(millis(1))).await)?;
    // The bus of this process is not closed by that.
    published(bus, TOPIC).await?;
    Ok(())
}

/// A withdrawn publish is reported as withdrawn, and no other is missing.
pub(in crate::suite) async fn withdrawn(run: Run) -> Result<(), Failure> {
    let peer = run.process_with(run.config().budget_envelopes(8)).await?;
    topic(&peer, 1).await?;
    let armed = run.on_publish(PublishFault::LoseConfirmation, Publishes::to(TOPIC).key("k").all()).await?;
    // The key's share is one place: the others wait for room, and have not been sent.
    let first = peer.bus().publish(TOPIC, envelope()?);
    let second = peer.bus().publish(TOPIC, envelope()?);
    let third = peer.bus().publish(TOPIC, envelope()?);
    ensure!(second.cancel() == Withdrawal::Withdrawn, "what was not sent could not be withdrawn");
    let ended = match second.await {
        Ok(confirmation) => confirmation.await,
        Err(error) => Err(error),
    };
    answers("a withdrawn publish", ErrorKind::Withdrawn, ended)?;
    run.fixture().lift(armed).await;
    first.await?.await?;
    let late = third.await?;
    late.await?;
    let records = peer.bus().describe_topic(TOPIC).await?.records;
    ensure!(records == 2, "two of three were to be stored, {records} are");
    Ok(())
}

/// Wrong credentials are refused as wrong credentials.
pub(in crate::suite) async fn credentials(run: Run) -> Result<(), Failure> {
    let refused = match run.fixture().connect_unauthorized().await? {
        Err(error) => error,
        Ok(connection) => match connection.backend().list_topics().await {
            Err(error) => error,
            Ok(_) => return Err(Failure::wrong("wrong credentials were accepted")),
        },
    };
    ensure!(refused.kind() == ErrorKind::Unauthorized, "expected wrong credentials, got {refused}");
    Ok(())
}

/// A topic's life, step by step, with the same answers from every server.
pub(in crate::suite) async fn topics(run: Run) -> Result<(), Failure> {
    let peer = run.process().await?;
    let bus = peer.bus();
    let spec = || TopicSpec::new(TOPIC).partitions(3);
    let made = bus.ensure_topic(&spec()).await?;
    ensure!(made.spec.partitions == 3 && made.partitions.len() == 3 && made.records == 0, "made as asked: {made:?}");
    let again = bus.ensure_topic(&spec()).await?;
    ensure!(again.incarnation == made.incarnation, "asking again made another: {again:?}");
    answers(
        "create what exists",
        ErrorKind::TopicExists,
        bus.ensure_topic(&spec().on_existing(OnExisting::CreateOnly)).await,
    )?;
    answers(
        "other partitions",
        ErrorKind::TopicMismatch,
        bus.ensure_topic(&TopicSpec::new(TOPIC).partitions(4)).await,
    )?;
    let left = bus.ensure_topic(&TopicSpec::new(TOPIC).partitions(4).on_existing(OnExisting::LeaveAlone)).await?;
    ensure!(left.spec.partitions == 3, "left alone, it was changed: {left:?}");
    let more = spec().partitions(4).on_existing(OnExisting::CreateOrUpdate);
    answers("more partitions", ErrorKind::TopicMismatch, bus.ensure_topic(&more).await)?;
    // Positions rise within a partition, and the description follows.
    let mut last = [None; 3];
    for key in keys("order", 60) {
        let envelope = Envelope::builder("T", "/s").key(key.as_str()).build()?;
        let partition = envelope.key().map(|key| key.partition(3));
        let receipt = bus.publish(TOPIC, envelope).await?.await?;
        ensure!(Some(receipt.partition) == partition, "{key} was stored in partition {}", receipt.partition);
        let last = &mut last[receipt.partition as usize];
        ensure!(*last < Some(receipt.position), "position {} after {last:?}", receipt.position);
        *last = Some(receipt.position);
    }
    let described = bus.describe_topic(TOPIC).await?;
    ensure!(described.records == 60, "60 were stored, described are {}", described.records);
    for (log, last) in described.partitions.iter().zip(last) {
        ensure!(last.is_some_and(|last| log.first <= last && last < log.end), "{log:?} does not hold {last:?}");
    }
    ensure!(bus.list_topics().await? == [TOPIC], "the list is {:?}", bus.list_topics().await?);
    ensure!(bus.health().await.is_up(), "the broker answers, and health says {:?}", bus.health().await);
    bus.delete_topic(TOPIC).await?;
    answers("describe what was deleted", ErrorKind::UnknownTopic, bus.describe_topic(TOPIC).await)?;
    answers("publish to what was deleted", ErrorKind::UnknownTopic, published(bus, TOPIC).await)?;
    let anew = bus.ensure_topic(&spec()).await?;
    // Some brokers' clients do not tell incarnations.
    let is_another = made.incarnation.is_empty() || anew.incarnation != made.incarnation;
    ensure!(is_another && anew.records == 0, "made anew, it is the old one: {anew:?}");
    published(bus, TOPIC).await?;
    Ok(())
}

/// A record that is larger than the broker takes is refused before it takes a place.
pub(in crate::suite) async fn too_large(run: Run) -> Result<(), Failure> {
    let run = run.elsewhere(|setup| setup.max_record_bytes = Some(2_000)).await?;
    let peer = run.process_with(run.config().budget_bytes(1_500)).await?;
    topic(&peer, 1).await?;
    let of_size = |size: usize| Envelope::builder("T", "/s").key("k").payload(vec![7; size]).build();
    // The bus knows the topic: nothing takes a place.
    answers("above the budget", ErrorKind::TooLarge, peer.bus().publish(TOPIC, of_size(1_800)?).await)?;
    let other = run.process().await?;
    topic(&other, 1).await?;
    answers("above the broker's limit", ErrorKind::TooLarge, other.bus().publish(TOPIC, of_size(3_000)?).await)?;
    // The bus does not know the topic yet.
    let third = run.process().await?;
    let ended = match third.bus().publish(TOPIC, of_size(3_000)?).await {
        Ok(confirmation) => confirmation.await,
        Err(error) => Err(error),
    };
    answers("above the broker's limit, not yet known", ErrorKind::TooLarge, ended)?;
    // Every failed publish is a refusal, and its error was seen: the key is not sealed.
    for (process, size) in [(&peer, 10), (&other, 1_500), (&third, 1_500)] {
        process.bus().publish(TOPIC, of_size(size)?).await?.await?;
    }
    ensure!(run.log(TOPIC).await?.len() == 3, "what was refused was stored");
    Ok(())
}
