//! Facts about publishing: what refuses a record, and whom a refusal takes along.

use std::sync::Arc;
use std::time::Duration;

use conformance_tests::harness::steadily;
use conformance_tests::history::Kind;
use conformance_tests::oracle::Expectations;
use conformance_tests::suite::{PublishFault, Publishes, Run};
use eventbus_core::{Envelope, ErrorKind, OnExisting, TopicSpec};

use super::operator::Operator;
use super::subscribe;
use super::world::{GROUP, TOPIC, Tested, expect, keys, with_topic, wrong};

/// Publishes one large record among fifty innocent ones, on a topic whose limit was lowered under the running producer.
pub(crate) async fn lowered_limit_takes_innocents_along(run: Run, _: Arc<tempfile::TempDir>) -> Tested {
    let publisher = with_topic(&run, 4).await?;
    let all = keys("order", 50);
    publisher.publish_rounds(TOPIC, &all, 2).await?;
    Operator::of(&run).await?.limit(TOPIC, 3_000).await?;
    let publish = |key: &str, size| publisher.publisher().publish(TOPIC, key, size);
    let before: Vec<_> = all.iter().map(|key| publish(key, 0)).collect();
    let large = publish("large", 20_000);
    let behind: Vec<_> = all.iter().map(|key| publish(key, 0)).collect();
    for outcome in before.into_iter().chain(behind) {
        outcome.await?;
    }
    match large.await {
        Err(error) if matches!(error.kind(), ErrorKind::Refused | ErrorKind::TooLarge) => {}
        other => return Err(wrong(format!("a record beyond the limit: {other:?}"))),
    }
    publisher.publish_rounds(TOPIC, &all, 2).await?;
    let subscription = publisher.subscribe(subscribe(), steadily(Duration::from_millis(1))).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    run.judge(&expect(), &[(TOPIC, &[GROUP])]).await?;
    drop(subscription);
    Ok(())
}

/// Deletes a topic while it is published to: publishes to another topic are confirmed, and the deleted one can be
/// written again once it is back.
pub(crate) async fn vanished_topic_takes_another_along(run: Run, _: Arc<tempfile::TempDir>) -> Tested {
    let publisher = with_topic(&run, 4).await?;
    publisher.topic(TopicSpec::new("gone").partitions(2)).await?;
    let (all, operator) = (keys("order", 50), Operator::of(&run).await?);
    publisher.publish_rounds("gone", &all, 2).await?;
    run.note(Kind::TopicRecreated { topic: "gone".into() });
    operator.delete("gone").await?;
    let waiting: Vec<_> = all.iter().map(|key| publisher.publisher().publish("gone", key, 0)).collect();
    for _ in 0..20 {
        publisher.publish_rounds(TOPIC, &all, 1).await?;
    }
    operator.create("gone", 2, &[]).await?;
    for outcome in waiting {
        // Each was stored in the new topic or refused.
        drop(outcome.await);
    }
    publisher.bus().resume("gone", None)?;
    for key in &all {
        while publisher.publisher().publish("gone", key, 0).await.is_err() {
            publisher.publisher().resume("gone", key)?;
        }
    }
    publisher.publish_rounds(TOPIC, &all, 1).await?;
    let subscription = publisher.subscribe(subscribe(), steadily(Duration::from_millis(1))).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    run.judge(&expect(), &[(TOPIC, &[GROUP]), ("gone", &[])]).await?;
    drop(subscription);
    Ok(())
}

/// A record that the topic's settings forbid is refused before it is sent, and touches nothing else.
pub(crate) async fn keyless_on_a_compacted_topic_ends_the_producer(run: Run, _: Arc<tempfile::TempDir>) -> Tested {
    let publisher = with_topic(&run, 4).await?;
    Operator::of(&run).await?.create("compacted", 2, &[("cleanup.policy", "compact")]).await?;
    let all = keys("order", 50);
    let others: Vec<_> = all.iter().map(|key| publisher.publisher().publish(TOPIC, key, 0)).collect();
    let keyed = publisher.publisher().publish("compacted", "k", 0);
    let keyless = publisher.publisher().publish("compacted", "", 0).await;
    if !keyless.as_ref().is_err_and(|error| !error.is_retryable()) {
        return Err(wrong(format!("keyless on a compacted topic: {keyless:?}")));
    }
    keyed.await?;
    for outcome in others {
        outcome.await?;
    }
    publisher.publisher().publish("compacted", "k", 0).await?;
    // A change of its settings leaves it compacted: keys are asked for as before, also by a bus that learns them anew.
    let changed = TopicSpec::new("compacted").partitions(2).max_age(Duration::from_secs(3_600));
    publisher.topic(changed.on_existing(OnExisting::CreateOrUpdate)).await?;
    let other = run.process().await?;
    let keyless = other.publisher().publish("compacted", "", 0).await;
    match keyless.as_ref().is_err_and(|error| !error.is_retryable()) {
        true => Ok(()),
        false => Err(wrong(format!("the topic was changed into one that is not compacted: {keyless:?}"))),
    }
}

/// The largest record that the bus takes is stored, one byte more is refused at once, and many small records do not
/// count as a large one.
pub(crate) async fn largest_legal_event_is_refused(run: Run, _: Arc<tempfile::TempDir>) -> Tested {
    let publisher = with_topic(&run, 1).await?;
    let operator = Operator::of(&run).await?;
    operator.create("small", 1, &[("max.message.bytes", "5000")]).await?;
    for topic in [TOPIC, "small"] {
        let described = publisher.bus().describe_topic(topic).await?;
        let limit = described.max_record_bytes.ok_or_else(|| wrong("the topic states no limit"))?;
        let of_size = |size: usize| {
            let plain = Envelope::builder("T", "/s").key("k").build()?;
            Envelope::builder("T", "/s").key("k").id(plain.id()).payload(vec![b'x'; size - plain.size()]).build()
        };
        publisher.bus().publish(topic, of_size(limit)?).await?.await?;
        let publish = async || publisher.bus().publish(topic, of_size(limit + 1)?).await?.await;
        let larger = publish().await;
        if !larger.as_ref().is_err_and(|error| error.kind() == ErrorKind::TooLarge) {
            return Err(wrong(format!("a byte more than {topic} takes: {larger:?}")));
        }
    }
    publisher.publish_rounds("small", &keys("order", 100), 20).await?;
    Ok(())
}

/// The first record of a client in a partition is refused while more of its key are on the wire: before the broker has
/// stored a record of the client, it takes any number.
pub(crate) async fn first_refused_lets_others_in(run: Run, _: Arc<tempfile::TempDir>) -> Tested {
    with_topic(&run, 6).await?;
    for round in 0..12 {
        // Each round has a client of its own, made before its first record of the key.
        let publisher = run.process().await?;
        publisher.topic(TopicSpec::new(TOPIC).partitions(6)).await?;
        let key = format!("refused-{round}");
        publisher.publish_rounds(TOPIC, &keys(&format!("other-{round}"), 1), 1).await?;
        run.on_publish(PublishFault::Refuse, Publishes::to(TOPIC).key(&key)).await?;
        let mut outcomes = Vec::new();
        for _ in 0..12 {
            outcomes.push(publisher.publisher().publish(TOPIC, &key, 0));
            // The pause sends each in a batch of its own.
            tokio::time::sleep(Duration::from_micros(700)).await;
        }
        let first = outcomes.remove(0).await;
        if first.is_ok() {
            return Err(wrong("nothing was refused"));
        }
        for outcome in outcomes {
            drop(outcome.await);
        }
    }
    run.judge(&Expectations::new(16).quiet().log_read(), &[(TOPIC, &[])]).await?;
    Ok(())
}
