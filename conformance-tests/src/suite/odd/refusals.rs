//! Refusals of publishes that pass, or come too late: told while they last, and believed only where nothing is stored.

use std::time::Duration;

use eventbus_core::{BusEvent, Envelope, ErrorKind, TopicSpec};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::suite::common::{TOPIC, millis};
use crate::suite::failure::ensure;
use crate::suite::{Failure, PublishFault, Publishes, Run};

fn envelope(key: &str) -> Result<Envelope, Failure> {
    Ok(Envelope::builder("T", "/s").key(key).build()?)
}

/// A publish that the broker does not store for long is told with its key; other keys go on; and it is stored when the
/// broker takes it.
pub(in crate::suite) async fn late_publish_is_told(run: Run) -> Result<(), Failure> {
    let (told, mut telling) = mpsc::unbounded_channel();
    let hook = move |event: &BusEvent<'_>| match event {
        BusEvent::Retrying(retry) => drop(told.send(retry.to_string())),
        BusEvent::Recovered { operation, .. } => drop(told.send(format!("{operation} recovered"))),
        _ => {}
    };
    let peer = run.process_with(run.config().notice_after(millis(200)).hook(hook)).await?;
    peer.topic(TopicSpec::new(TOPIC).partitions(4)).await?;
    let down = run.on_publish(PublishFault::NotStored, Publishes::to(TOPIC).key("late").all()).await?;
    let late = peer.bus().publish(TOPIC, envelope("late")?).await?;
    let line = telling.recv().await.unwrap_or_default();
    ensure!(line.starts_with("send: topic orders, partition "), "it is told as {line}");
    ensure!(line.contains(", key late: no success for "), "it is told as {line}");
    for key in ["a", "b", "c"] {
        if envelope(key)?.key().map(|key| key.partition(4)) != envelope("late")?.key().map(|key| key.partition(4)) {
            peer.bus().publish(TOPIC, envelope(key)?).await?.await?;
        }
    }
    run.fixture().lift(down).await;
    late.await?;
    while telling.recv().await.is_some_and(|line| line != "send recovered") {}
    peer.bus().close(Duration::from_secs(5)).await?;
    run.judge(&crate::oracle::Expectations::new(1).log_read(), &[(TOPIC, &[])]).await?;
    Ok(())
}

/// A record is stored, its answer is lost, and what is sent again is refused: it is confirmed, and stored once.
pub(in crate::suite) async fn refused_when_sent_again(run: Run) -> Result<(), Failure> {
    let peer = run.process().await?;
    peer.topic(TopicSpec::new(TOPIC).partitions(1)).await?;
    let publisher = peer.publisher();
    publisher.publish(TOPIC, "other", 0).await?;
    run.on_publish(PublishFault::LoseConfirmation, Publishes::to(TOPIC).key("k")).await?;
    run.on_publish(PublishFault::Refuse, Publishes::to(TOPIC).key("k")).await?;
    publisher.publish(TOPIC, "k", 0).await?;
    for key in ["k", "other", "k"] {
        publisher.publish(TOPIC, key, 0).await?;
    }
    ensure!(run.log(TOPIC).await?.len() == 5, "five were published, the log has {}", run.log(TOPIC).await?.len());
    run.judge(&crate::oracle::Expectations::new(1).log_read(), &[(TOPIC, &[])]).await?;
    Ok(())
}

/// The topic's limit is lowered: what is larger is refused, and what is smaller is confirmed meanwhile.
pub(in crate::suite) async fn limit_lowered(run: Run) -> Result<(), Failure> {
    let peer = run.process().await?;
    peer.topic(TopicSpec::new(TOPIC).partitions(1)).await?;
    let of_size = |key: &str, size| Envelope::builder("T", "/s").key(key).payload(vec![7; size]).build();
    peer.bus().publish(TOPIC, of_size("k", 10_000)?).await?.await?;
    run.fixture().operator().limit_records(TOPIC, 4_000).await?;
    let large = peer.bus().publish(TOPIC, of_size("k", 10_000)?).await?;
    for _ in 0..3 {
        peer.bus().publish(TOPIC, of_size("other", 10)?).await?.await?;
    }
    let Err(refused) = large.await else { return Err(Failure::wrong("it is larger than the limit, and was stored")) };
    let told = matches!(refused.kind(), ErrorKind::TooLarge | ErrorKind::Refused);
    ensure!(told, "expected a refusal for its size, got {refused}");
    peer.bus().publish(TOPIC, of_size("k", 10)?).await?.await?;
    let stored = run.log(TOPIC).await?.len();
    ensure!(stored == 5, "five were confirmed, {stored} are stored");
    // A limit that is raised again holds nothing back, though the bus has seen the lower one.
    run.fixture().operator().limit_records(TOPIC, 1_000_000).await?;
    let raised = Instant::now();
    while let Err(error) = peer.bus().publish(TOPIC, of_size("k", 10_000)?).await?.await {
        ensure!(
            matches!(error.kind(), ErrorKind::TooLarge | ErrorKind::Refused),
            "after the limit was raised: {error}"
        );
        ensure!(raised.elapsed() < Duration::from_secs(20), "the limit was raised, and it is not seen: {error}");
        tokio::time::sleep(millis(50)).await;
    }
    Ok(())
}
