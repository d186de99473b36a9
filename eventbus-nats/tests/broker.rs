//! Order and single copies while the server is killed, frozen, out of reach or unwilling (P2, P3, S3).

#![allow(clippy::unwrap_used)] // tests, though not every function here is one

mod common;

use std::time::Duration;

use common::server::Server;
use common::{Handled, connect, publish, publish_one, topic};
use eventbus_core::{Delivery, Envelope, ErrorKind, EventBus, EventBusExt, Subscribe, TopicSpec, handler_fn};
use eventbus_nats::NatsEventBus;

async fn subscribe(bus: &NatsEventBus, name: &str, handled: &Handled) -> eventbus_core::Subscription {
    let seen = handled.clone();
    let handler = handler_fn(move |delivery: Delivery| {
        let seen = seen.clone();
        async move {
            tokio::task::yield_now().await;
            seen.push(&delivery);
            Ok(())
        }
    });
    bus.subscribe(Subscribe::to(name).group("g").concurrency(16), handler).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_reordered_or_stored_twice_when_the_server_is_killed() {
    let mut server = Server::start("");
    let bus = connect(&server.config()).await;
    topic(&bus, "t", 8).await;
    let handled = Handled::default();
    let subscription = subscribe(&bus, "t", &handled).await;
    let publishing = tokio::spawn(async move {
        publish(&bus, "t", 100, 1, 300).await;
        bus
    });
    for round in 1..=3 {
        handled.until(round * 4_000).await;
        server.kill();
        server.restart();
    }
    let bus = publishing.await.unwrap();
    handled.until(30_000).await;
    subscription.drain(Duration::from_secs(10)).await.unwrap();
    handled.assert_ordered();
    assert_eq!(bus.describe_topic("t").await.unwrap().records, 30_000, "one copy of each is stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_server_delays_and_changes_nothing() {
    let server = Server::start("");
    let bus = connect(&server.config()).await;
    topic(&bus, "t", 4).await;
    let handled = Handled::default();
    let subscription = subscribe(&bus, "t", &handled).await;
    let publishing = tokio::spawn(async move {
        publish(&bus, "t", 50, 1, 200).await;
        bus
    });
    handled.until(3_000).await;
    server.signal("-STOP");
    tokio::time::sleep(Duration::from_secs(4)).await;
    server.signal("-CONT");
    let bus = publishing.await.unwrap();
    handled.until(10_000).await;
    subscription.drain(Duration::from_secs(10)).await.unwrap();
    handled.assert_ordered();
    assert_eq!(bus.describe_topic("t").await.unwrap().records, 10_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_that_waits_longer_than_the_duplicate_window_is_stored_once() {
    let server = Server::start("");
    let bus = connect(&server.config().publish_timeout(Duration::from_millis(300))).await;
    let spec = TopicSpec::new("t").partitions(2).duplicate_window(Duration::from_millis(500));
    bus.ensure_topic(&spec).await.unwrap();
    publish_one(&bus, "t", "k", 1).await.unwrap();
    server.signal("-STOP");
    let confirmations: Vec<_> = [2, 3]
        .map(|number| {
            let envelope = Envelope::builder("T", "/s").key("k").sequence(number).payload("x").build().unwrap();
            bus.publish("t", envelope)
        })
        .into();
    tokio::time::sleep(Duration::from_secs(2)).await;
    server.signal("-CONT");
    for confirmation in confirmations {
        confirmation.await.unwrap().await.unwrap();
    }
    assert_eq!(bus.describe_topic("t").await.unwrap().records, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_permission_refuses_the_publish_and_seals_its_key_alone() {
    let users = r#"authorization { users = [
        { user: all, password: p }
        { user: some, password: p, permissions: { publish: { deny: ["eventbus.denied.>"] } } }
        { user: api, password: p, permissions: { publish: { deny: ["$JS.API.>"] } } }
        { user: inbox, password: p, permissions: { subscribe: { deny: ["_INBOX.>"] } } }
    ] }"#;
    let server = Server::start(users);
    let url = |user: &str| eventbus_nats::NatsConfig::new(format!("nats://{user}:p@127.0.0.1:{}", server.port));
    let all = connect(&url("all")).await;
    topic(&all, "denied", 2).await;
    topic(&all, "free", 2).await;
    let bus = connect(&url("some")).await;
    let begun = std::time::Instant::now();
    let error = publish_one(&bus, "denied", "k", 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    assert!(begun.elapsed() < Duration::from_secs(10));
    publish_one(&bus, "free", "k", 1).await.unwrap();
    assert_eq!(all.describe_topic("denied").await.unwrap().records, 0);
    for user in ["api", "inbox"] {
        let error = NatsEventBus::connect(url(user)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{user}: {error}");
    }
    let error = NatsEventBus::connect(url("nobody")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_topic_refuses_and_another_goes_on() {
    let server = Server::start("");
    let bus = connect(&server.config()).await;
    topic(&bus, "gone", 2).await;
    topic(&bus, "there", 2).await;
    publish_one(&bus, "gone", "k", 1).await.unwrap();
    connect(&server.config()).await.delete_topic("gone").await.unwrap();
    let error = publish_one(&bus, "gone", "k", 2).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownTopic, "{error}");
    publish_one(&bus, "there", "k", 1).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_refused_before_it_is_sent_and_the_connection_stays() {
    let server = Server::start("max_payload: 2000");
    let bus = connect(&server.config()).await;
    topic(&bus, "t", 2).await;
    for (bytes, fits) in [(1_000, true), (1_500, false), (1_700, false), (5_000, false)] {
        let envelope = Envelope::builder("T", "/s").key(format!("{bytes}")).payload(vec![b'x'; bytes]).build().unwrap();
        let published = bus.publish_confirmed("t", envelope).await;
        match published {
            Ok(_) => assert!(fits, "{bytes}"),
            Err(error) => assert!(!fits && error.kind() == ErrorKind::TooLarge, "{bytes}: {error}"),
        }
    }
    // Attributes count, too, as they are on the wire.
    let odd = Envelope::builder("T", "/s").key("%".repeat(600)).payload("x").build().unwrap();
    let error = bus.publish_confirmed("t", odd).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
    publish_one(&bus, "t", "after", 1).await.unwrap();
    let breaks = bus.health().await.details.into_iter().find(|(name, _)| name == "breaks").unwrap();
    assert_eq!(breaks.1, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_jetstream_or_out_of_reach_is_told_apart() {
    let mut server = Server::start("accounts { A { users: [ { user: a, password: p } ] } }");
    let url = eventbus_nats::NatsConfig::new(format!("nats://a:p@127.0.0.1:{}", server.port));
    let error = NatsEventBus::connect(url.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    server.kill();
    let error = NatsEventBus::connect(url).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.is_retryable());
}
