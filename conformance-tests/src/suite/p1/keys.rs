//! Keys and identities: what relates envelopes, and what does not.

use std::time::Duration;

use eventbus_core::{Envelope, ErrorKind, Key, Subscribe, TopicSpec};

use crate::harness::steadily;
use crate::history::Kind;
use crate::suite::common::{Collected, GROUP, TOPIC, expect, millis, subscribe, unsteadily};
use crate::suite::run::ensure;
use crate::suite::{Failure, Run};

/// Keys of all sorts, and none.
pub(in crate::suite) async fn odd_keys(run: Run) -> Result<(), Failure> {
    let peer = run.process().await?;
    peer.topic(TopicSpec::new(TOPIC).partitions(4)).await?;
    let mut odd: Vec<String> =
        ["a.b", "a b", "a*b", "a>b", "a/b", "ключ", "鍵", "\u{1f511}", "%20", "\"", "\\", "é", "e\u{301}"]
            .map(str::to_owned)
            .into();
    odd.push("k".repeat(1 << 10));
    // None: related to nothing.
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

/// The same key in two topics is two keys.
pub(in crate::suite) async fn same_key_in_two_topics(run: Run) -> Result<(), Failure> {
    let peer = run.process().await?;
    for topic in [TOPIC, "other"] {
        peer.topic(TopicSpec::new(topic).partitions(2)).await?;
    }
    let one = peer.subscribe(subscribe(), steadily(millis(10))).await?;
    let two = peer.subscribe(Subscribe::to("other").group(GROUP), steadily(millis(10))).await?;
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
    let topics = run.inspect(|events| {
        let mut open: Vec<(u64, String)> = Vec::new();
        let mut together = false;
        for event in events {
            match &event.kind {
                Kind::Start(start) if start.key == crate::history::Key::from("k") => {
                    together |= open.iter().any(|(_, topic)| **topic != *start.topic);
                    open.push((start.call, start.topic.to_string()));
                }
                Kind::End { call, .. } => open.retain(|(open, _)| open != call),
                _ => {}
            }
        }
        together
    });
    ensure!(topics, "the same key of two topics never ran at the same time, as if it were one");
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
