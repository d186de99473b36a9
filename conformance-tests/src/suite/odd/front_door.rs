//! Events of others in odd forms, and a subscriber that comes before its topic.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use eventbus_core::wire::WireRecord;
use eventbus_core::{BusEvent, Key, TopicSpec};
use tokio::sync::Notify;

use crate::suite::common::{Collected, GROUP, TOPIC, subscribe};
use crate::suite::failure::ensure;
use crate::suite::p0::members::topic;
use crate::suite::{Failure, Run};

/// A structured event with a byte order mark before it, and optional attributes in forms that no envelope holds.
const DOCUMENT: &str = concat!(
    "\u{feff}",
    r#"{"specversion":"1.0","id":"odd","source":"/s","type":"T","partitionkey":"k","time":"2026-01-02T03:04:05","#,
    r#""person":{"name":"x"},"list":[1],"tenant":"a\u0007b","kept":"v","data":null}"#
);

/// Optional attributes in odd forms are left out, and the event is handled in its key's line.
pub(in crate::suite) async fn odd_attributes(run: Run) -> Result<(), Failure> {
    let peer = run.process().await?;
    topic(&peer, 1).await?;
    let key = Key::try_from("k")?;
    let structured = WireRecord {
        key: Some(key.to_bytes()),
        headers: vec![("content-type".into(), Bytes::from_static(b"application/cloudevents+json"))],
        payload: Bytes::from_static(DOCUMENT.as_bytes()),
    };
    run.fixture().store_raw(TOPIC, 0, structured).await?;
    let collected = Collected::default();
    let subscription = peer.bus().subscribe(subscribe(), collected.handler(0)).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    subscription.drain(Duration::from_secs(5)).await?;
    let arrived = collected.all();
    ensure!(arrived.len() == 1, "one record was stored, {} arrived", arrived.len());
    let envelope = arrived[0].envelope();
    ensure!((envelope.id(), envelope.key()) == ("odd", Some(&key)), "read as {envelope:?}");
    ensure!(envelope.payload() == "null", "the payload of null is {:?}", envelope.payload());
    let extensions: Vec<_> = envelope.extensions().collect();
    ensure!(extensions == [("kept", "v")] && envelope.tenant().is_none(), "odd ones are kept: {extensions:?}");
    ensure!(envelope.time().unix_timestamp() > 0, "a time without an offset became {}", envelope.time());
    Ok(())
}

/// A subscriber that is told to wait begins when its topic is made, and misses nothing.
pub(in crate::suite) async fn waits_for_its_topic(run: Run) -> Result<(), Failure> {
    let waits = Arc::new(Notify::new());
    let hook = {
        let waits = waits.clone();
        move |event: &BusEvent<'_>| {
            if matches!(event, BusEvent::AwaitingTopic { .. }) {
                waits.notify_one();
            }
        }
    };
    let peer = run.process_with(run.config().hook(hook)).await?;
    let collected = Collected::default();
    let options = subscribe().wait_for_topic(Duration::from_secs(60));
    let made = async {
        waits.notified().await;
        peer.topic(TopicSpec::new(TOPIC).partitions(2)).await?;
        peer.publish_rounds(TOPIC, &["k".to_owned()], 1).await
    };
    let (subscription, made) = tokio::join!(peer.bus().subscribe(options, collected.handler(0)), made);
    made?;
    let subscription = subscription?;
    run.settled(TOPIC, &[GROUP]).await?;
    subscription.drain(Duration::from_secs(5)).await?;
    ensure!(collected.len() == 1, "one envelope was published, {} arrived", collected.len());
    Ok(())
}
