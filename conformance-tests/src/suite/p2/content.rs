//! Content: envelopes come out as they went in, and in their own topic only.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use eventbus_core::{Envelope, ErrorKind, Propagator, Subscribe, TopicSpec};

use crate::suite::common::{Collected, GROUP, TOPIC, in_order, subscribe};
use crate::suite::failure::ensure;
use crate::suite::p0::members::topic;
use crate::suite::{Failure, Run};

/// Payloads, headers and attributes come back as they went in, with odd bytes too.
pub(in crate::suite) async fn round_trip(run: Run) -> Result<(), Failure> {
    let peer = run.process().await?;
    topic(&peer, 2).await?;
    let collected = Collected::default();
    let subscription = peer.bus().subscribe(subscribe(), collected.handler(0)).await?;
    let every_byte: Vec<u8> = (0..=255).collect();
    let payloads =
        [Bytes::new(), Bytes::from(every_byte), Bytes::from(vec![0; 100_000]), Bytes::from_static(b"\r\n\r\n")];
    let mut sent = Vec::new();
    for (number, payload) in (1..).zip(payloads) {
        let envelope = Envelope::builder("Odd", "https://shop.example/orders?a=b%20c")
            .key("k")
            .sequence(number)
            .version(3)
            .correlation_id("correlation with spaces")
            .causation_id("ursache-ü")
            .tenant("鍵")
            .content_type("application/octet-stream; charset=\"x\"")
            .extension("odd1", "100% \"quoted\" \\ back")
            .header("Upper-Case", "Value")
            .header("x-unicode", "\u{1f511} und so weiter")
            .header("x-empty", "")
            .payload(payload)
            .build()?;
        peer.bus().publish(TOPIC, envelope.clone()).await?.await?;
        sent.push(envelope);
    }
    // The smallest envelope that there can be.
    let bare = Envelope::builder("Bare", "/").build()?;
    peer.bus().publish(TOPIC, bare.clone()).await?.await?;
    run.settled(TOPIC, &[GROUP]).await?;
    subscription.drain(Duration::from_secs(5)).await?;
    let arrived = collected.all();
    ensure!(arrived.len() == sent.len() + 1, "{} were sent, {} arrived", sent.len() + 1, arrived.len());
    let keyed = arrived.iter().map(|delivery| delivery.envelope()).filter(|found| found.key().is_some());
    for (sent, found) in sent.iter().zip(keyed) {
        // Not every broker keeps the order of headers.
        ensure!(in_order(found) == in_order(sent), "sent {sent:?}, arrived {found:?}");
    }
    let unkeyed = arrived.iter().map(|delivery| delivery.envelope()).find(|found| found.key().is_none());
    ensure!(unkeyed == Some(&bare), "sent {bare:?}, arrived {unkeyed:?}");
    Ok(())
}

/// Topics whose names are alike share nothing.
pub(in crate::suite) async fn topics_are_isolated(run: Run) -> Result<(), Failure> {
    let peer = run.process().await?;
    let mut names = vec!["a", "a.1", "a.b", "a_b", "a-b", "A.B", "a..b", "_a", "a.b.p00"];
    match peer.topic(TopicSpec::new("a.b").partitions(1)).await {
        // A broker may not have two topics that differ only in `.` and `_`: it refuses the second by its name.
        Ok(()) => match peer.topic(TopicSpec::new("a_b").partitions(1)).await {
            Err(Failure::Bus(error)) if error.kind() == ErrorKind::InvalidName => names.retain(|name| *name != "a_b"),
            made => made?,
        },
        made => made?,
    }
    let mut subscriptions = Vec::new();
    for name in names.iter().copied() {
        peer.topic(TopicSpec::new(name).partitions(1)).await?;
        let collected = Collected::default();
        let options = Subscribe::to(name).group(GROUP);
        subscriptions.push((name, peer.bus().subscribe(options, collected.handler(0)).await?, collected));
    }
    for name in names.iter().copied() {
        for number in 1..=3 {
            let envelope = Envelope::builder(name, "/s").key("k").sequence(number).build()?;
            let receipt = peer.bus().publish(name, envelope).await?.await?;
            ensure!(receipt.topic.as_str() == name, "published to {name}, the receipt says {}", receipt.topic);
        }
    }
    for (name, subscription, collected) in subscriptions {
        run.settled(name, &[GROUP]).await?;
        subscription.drain(Duration::from_secs(5)).await?;
        let types: Vec<String> = collected.all().iter().map(|found| found.envelope().event_type().to_owned()).collect();
        ensure!(types == [name; 3], "{name} was to get its own three, it got {types:?}");
        let described = peer.bus().describe_topic(name).await?;
        ensure!(described.records == 3, "{name} holds {} records", described.records);
    }
    // The deletion of one takes no other with it.
    peer.bus().delete_topic("a").await?;
    let left = peer.bus().list_topics().await?;
    let missing: Vec<&str> = names.into_iter().skip(1).filter(|name| !left.iter().any(|found| found == name)).collect();
    ensure!(missing.is_empty() && !left.contains(&"a".to_owned()), "after deleting a: {left:?}, missing {missing:?}");
    Ok(())
}

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const OTHER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

struct Tracing {
    linked: Arc<AtomicUsize>,
}

impl Propagator for Tracing {
    fn current(&self) -> Option<String> {
        Some(TRACE.into())
    }

    fn link(&self, _: &tracing::Span, traceparent: &str) {
        if traceparent == TRACE || traceparent == OTHER {
            self.linked.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Trace context crosses the broker; a context that an envelope carries is never overwritten.
pub(in crate::suite) async fn trace_context(run: Run) -> Result<(), Failure> {
    let linked = Arc::new(AtomicUsize::new(0));
    let peer = run.process_with(run.config().propagator(Tracing { linked: linked.clone() })).await?;
    topic(&peer, 1).await?;
    let collected = Collected::default();
    let subscription = peer.bus().subscribe(subscribe(), collected.handler(0)).await?;
    let plain = Envelope::builder("T", "/s").key("k").build()?;
    let traced = Envelope::builder("T", "/s").key("k").traceparent(OTHER).tracestate("vendor=1").build()?;
    for envelope in [plain, traced] {
        peer.bus().publish(TOPIC, envelope).await?.await?;
    }
    run.settled(TOPIC, &[GROUP]).await?;
    subscription.drain(Duration::from_secs(5)).await?;
    let found: Vec<(Option<String>, Option<String>)> = collected
        .all()
        .iter()
        .map(|found| (found.envelope().traceparent().map(Into::into), found.envelope().tracestate().map(Into::into)))
        .collect();
    let expected = [(Some(TRACE.to_owned()), None), (Some(OTHER.to_owned()), Some("vendor=1".to_owned()))];
    ensure!(found == expected, "expected {expected:?}, got {found:?}");
    let linked = linked.load(Ordering::Relaxed);
    ensure!(linked == 2, "both handler spans were to be linked, {linked} were");
    Ok(())
}
