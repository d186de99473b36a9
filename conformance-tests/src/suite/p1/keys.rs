//! Keys and ids: which of them relate envelopes, and which do not.

use std::collections::BTreeSet;
use std::time::Duration;

use eventbus_core::{Delivery, Envelope, ErrorKind, Key, Subscribe, Topic, TopicSpec};
use tokio::sync::watch;

use crate::harness::{Holding, Script, Step};
use crate::suite::common::{Collected, GROUP, TOPIC, expect, key_is, millis, subscribe, unsteadily};
use crate::suite::failure::ensure;
use crate::suite::{Failure, Run};

/// Keys of all sorts, and no key.
pub(in crate::suite) async fn odd_keys(run: Run) -> Result<(), Failure> {
    let peer = run.process().await?;
    peer.topic(TopicSpec::new(TOPIC).partitions(4)).await?;
    let mut odd: Vec<String> =
        ["a.b", "a b", "a*b", "a>b", "a/b", "ключ", "鍵", "\u{1f511}", "%20", "\"", "\\", "é", "e\u{301}"]
            .map(str::to_owned)
            .into();
    odd.push("k".repeat(1 << 10));
    // An empty name is no key: related to nothing.
    odd.push(String::new());
    let subscription = peer.subscribe(subscribe(), unsteadily(run.seed(), millis(5))).await?;
    peer.publish_rounds(TOPIC, &odd, 8).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    subscription.drain(Duration::from_secs(5)).await?;
    run.judge(&expect().overlap(), &[(TOPIC, &[GROUP])]).await?;
    for key in &odd {
        let arrived = run.count(|call| call.of(key) && call.succeeded());
        ensure!(arrived == 8, "{key:?}: 8 were published, {arrived} arrived");
    }
    let empty = Key::try_from("").map(drop).map_err(|error| error.kind());
    ensure!(empty == Err(ErrorKind::InvalidName), "an empty key is not none, and was not refused: {empty:?}");
    let built = Envelope::builder("T", "/s").key("").build();
    ensure!(built.is_err(), "an envelope with an empty key was built");
    Ok(())
}

/// Ends each topic's first envelope of the key when the other topic's has begun: never, if both were in one order.
#[derive(Clone)]
struct Meeting(watch::Sender<BTreeSet<Topic>>);

impl Script for Meeting {
    fn step(&self, _: &Delivery, _: u64) -> Step {
        Step::succeed(millis(10))
    }

    fn hold(&self, delivery: &Delivery, number: u64) -> Option<Holding> {
        if !key_is(delivery, "k") || number != 1 {
            return None;
        }
        self.0.send_if_modified(|begun| begun.insert(delivery.topic().clone()));
        let mut begun = self.0.subscribe();
        Some(Box::pin(async move { drop(begun.wait_for(|begun| begun.len() == 2).await) }))
    }
}

/// The same key in two topics is two keys.
pub(in crate::suite) async fn same_key_in_two_topics(run: Run) -> Result<(), Failure> {
    let peer = run.process().await?;
    for topic in [TOPIC, "other"] {
        peer.topic(TopicSpec::new(topic).partitions(2)).await?;
    }
    let both = Meeting(watch::Sender::default());
    let one = peer.subscribe(subscribe(), both.clone()).await?;
    let two = peer.subscribe(Subscribe::to("other").group(GROUP), both).await?;
    let keys = vec!["k".to_owned(), "l".to_owned()];
    for _ in 0..10 {
        for topic in [TOPIC, "other"] {
            peer.publish_rounds(topic, &keys, 1).await?;
        }
    }
    run.settled(TOPIC, &[GROUP]).await?;
    run.settled("other", &[GROUP]).await?;
    for subscription in [one, two] {
        subscription.drain(Duration::from_secs(5)).await?;
    }
    run.judge(&expect().group("other", GROUP).overlap(), &[(TOPIC, &[GROUP]), ("other", &[GROUP])]).await?;
    Ok(())
}

/// Distinct publishes are never taken for copies, whatever ids their users chose.
pub(in crate::suite) async fn equal_ids(run: Run) -> Result<(), Failure> {
    let peer = run.process().await?;
    peer.topic(TopicSpec::new(TOPIC).partitions(2)).await?;
    let collected = Collected::default();
    let subscription = peer.bus().subscribe(subscribe(), collected.handler(0)).await?;
    for source in ["/one", "/two", "/one"] {
        let envelope = Envelope::builder("T", source).id("the-same").key("k").sequence(7).build()?;
        let receipt = peer.bus().publish(TOPIC, envelope).await?.await?;
        ensure!(!receipt.duplicate, "a publish of its own was taken for a copy");
    }
    run.until("all three are handled", || collected.len() == 3).await;
    run.settled(TOPIC, &[GROUP]).await?;
    subscription.drain(Duration::from_secs(5)).await?;
    let sources: Vec<String> = collected.all().iter().map(|delivery| delivery.envelope().source().to_owned()).collect();
    ensure!(sources == ["/one", "/two", "/one"], "expected all three in order, got {sources:?}");
    Ok(())
}
