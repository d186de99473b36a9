//! Publishing without a fault of the broker: confirmations, closing, batches, the edge of the duplicate window.

use std::time::Duration;

use eventbus_core::{Envelope, ErrorKind, TopicSpec};

use crate::harness::steadily;
use crate::history::Kind;
use crate::suite::common::{GROUP, TOPIC, expect, keys, millis, subscribe};
use crate::suite::failure::ensure;
use crate::suite::p0::members::topic;
use crate::suite::{Ability, Failure, PublishFault, Publishes, Run};

/// Confirmations are awaited in reverse, never polled, or dropped at every stage.
pub(in crate::suite) async fn confirmations_in_any_way(run: Run) -> Result<(), Failure> {
    let peer = run.process().await?;
    topic(&peer, 4).await?;
    let subscription = peer.subscribe(subscribe(), steadily(millis(1))).await?;
    let publisher = peer.publisher();
    let (mut reversed, mut kept) = (Vec::new(), Vec::new());
    for round in 0..12_usize {
        for (index, key) in keys("order", 20).iter().enumerate() {
            let mut outcome = publisher.publish(TOPIC, key, 0);
            match (round + index) % 4 {
                0 => reversed.push(outcome),
                1 => kept.push(outcome),
                2 => drop(outcome),
                _ => {
                    outcome.admitted().await?;
                    drop(outcome);
                }
            }
        }
    }
    for outcome in reversed.into_iter().rev() {
        outcome.await?;
    }
    run.until("all are answered, asked for or not", || crate::suite::p0::publish::confirmed(&run) == 240).await;
    run.settled(TOPIC, &[GROUP]).await?;
    subscription.drain(Duration::from_secs(5)).await?;
    drop(kept);
    let verdict = run.judge(&expect().overlap(), &[(TOPIC, &[GROUP])]).await?;
    ensure!(verdict.counts.confirmed == 240, "nobody withdrew anything: {:?}", verdict.counts);
    Ok(())
}

fn answered(run: &Run) -> usize {
    run.inspect(|events| events.iter().filter(|event| matches!(event.kind, Kind::Published { .. })).count())
}

/// The bus is closed with publishes in flight: each resolves, one way or the other.
pub(in crate::suite) async fn closed_in_flight(run: Run) -> Result<(), Failure> {
    let peer = run.process_with(run.config().budget_envelopes(16)).await?;
    topic(&peer, 4).await?;
    peer.topic(TopicSpec::new("hole").partitions(1)).await?;
    run.on_publish(PublishFault::LoseConfirmation, Publishes::to("hole").all()).await?;
    let mut outcomes = Vec::new();
    for _ in 0..10 {
        outcomes.extend(keys("order", 10).iter().map(|key| peer.publisher().publish(TOPIC, key, 0)));
        outcomes.push(peer.publisher().publish("hole", "k", 0));
    }
    let Err(error) = peer.bus().close(Duration::from_secs(2)).await else {
        return Err(Failure::wrong("a close that ended publishes said nothing of it"));
    };
    ensure!(error.kind() == ErrorKind::DeadlineExceeded, "expected the deadline, got {error}");
    let mut stored = 0;
    for outcome in outcomes {
        match outcome.await {
            Ok(_) => stored += 1,
            Err(error) if matches!(error.kind(), ErrorKind::Unknown | ErrorKind::Closed | ErrorKind::Cascaded) => {}
            Err(error) => {
                return Err(Failure::wrong(format!("resolved as neither stored, unknown nor closed: {error}")));
            }
        }
    }
    ensure!(stored == 100, "the ten keys that got answers were to be stored, {stored} of 100 were");
    let after = peer.bus().publish(TOPIC, Envelope::builder("T", "/s").build()?).await;
    ensure!(after.is_err_and(|error| error.kind() == ErrorKind::Closed), "a closed bus took a publish");
    run.judge(&crate::oracle::Expectations::new(16).log_read(), &[(TOPIC, &[]), ("hole", &[])]).await?;
    Ok(())
}

/// The last handle is dropped with publishes in flight: the hook hears of each.
pub(in crate::suite) async fn dropped_in_flight(run: Run) -> Result<(), Failure> {
    let peer = run.process().await?;
    topic(&peer, 4).await?;
    run.on_publish(PublishFault::LoseConfirmation, Publishes::to(TOPIC).all()).await?;
    for _ in 0..5 {
        for key in keys("order", 10) {
            drop(peer.publisher().publish(TOPIC, &key, 0));
        }
    }
    tokio::time::sleep(millis(20)).await;
    ensure!(answered(&run) == 0, "the case is about publishes without an answer, {} have one", answered(&run));
    drop(peer);
    run.until("each of the fifty is told", || answered(&run) == 50).await;
    run.judge(&crate::oracle::Expectations::new(16).log_read(), &[(TOPIC, &[])]).await?;
    Ok(())
}

/// A batch says how much of each key is stored.
pub(in crate::suite) async fn batch_prefixes(run: Run) -> Result<(), Failure> {
    let peer = run.process().await?;
    topic(&peer, 4).await?;
    run.on_publish(PublishFault::Refuse, Publishes::to(TOPIC).key("k").nth(3)).await?;
    let mut batch = Vec::new();
    for number in 1..=5 {
        for key in ["a", "k", "b"] {
            batch.push(Envelope::builder("T", "/s").key(key).sequence(number).build()?);
        }
    }
    let outcome = peer.bus().publish_batch(TOPIC, batch).await?.await;
    ensure!(!outcome.is_stored(), "a batch with a refused envelope is not stored as a whole");
    let prefixes: Vec<(String, usize, usize)> = outcome
        .stored_prefixes()
        .into_iter()
        .map(|prefix| (prefix.key.as_str().unwrap_or_default().to_owned(), prefix.stored, prefix.of))
        .collect();
    let expected = [("a".to_owned(), 5, 5), ("k".to_owned(), 2, 5), ("b".to_owned(), 5, 5)];
    ensure!(prefixes == expected, "expected {expected:?}, got {prefixes:?}");
    let in_log = run.log(TOPIC).await?;
    let of = |key: &str| in_log.iter().filter(|found| found.key().and_then(|key| key.as_str()) == Some(key)).count();
    ensure!((of("a"), of("k"), of("b")) == (5, 2, 5), "the log holds {}, {}, {}", of("a"), of("k"), of("b"));
    Ok(())
}

/// The edge of the duplicate window: one copy, whenever the publish is sent again.
pub(in crate::suite) async fn edge_of_the_window(run: Run) -> Result<(), Failure> {
    let peer = run.process().await?;
    let mut topics = Vec::new();
    // Windows around the time after which the bus or its client sends an unanswered publish again, whatever that time
    // is.
    for window in [100, 300, 900, 990, 999, 1_000, 1_001, 1_010, 1_020, 1_030, 1_100, 2_000] {
        let name = format!("window-{window}");
        let spec = TopicSpec::new(&name).partitions(2);
        // A broker without a window drops copies regardless of time.
        let has_one = run.can(Ability::DuplicateWindow);
        peer.topic(if has_one { spec.duplicate_window(millis(window)) } else { spec }).await?;
        run.on_publish(PublishFault::LoseConfirmation, Publishes::to(&name).key("k").nth(2).times(2)).await?;
        topics.push(name);
    }
    let publisher = peer.publisher();
    let outcomes: Vec<_> = (0..5).flat_map(|_| topics.iter().map(|topic| publisher.publish(topic, "k", 0))).collect();
    for outcome in outcomes {
        outcome.await?;
    }
    let read: Vec<(&str, &[&str])> = topics.iter().map(|topic| (topic.as_str(), &[] as &[&str])).collect();
    run.judge(&crate::oracle::Expectations::new(16).log_read(), &read).await?;
    Ok(())
}
