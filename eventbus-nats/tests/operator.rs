//! An operator's hand on a running server: buckets removed and sealed, limits set, subjects purged. Everything is told.
#![allow(clippy::unwrap_used)] // tests, though not every function here is one

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::jetstream::{self, stream};
use common::server::Server;
use common::{connect, publish_one};
use eventbus_core::{
    BusConfig, BusEvent, Delivery, Error, ErrorKind, EventBus, FailurePolicy, Key, OnDataLoss, OnLogReset, Subscribe,
    Subscription, TopicSpec, handler_fn,
};
use eventbus_nats::{NatsConfig, NatsEventBus};
use tokio::sync::mpsc;

const SOON: Duration = Duration::from_secs(20);

async fn operator(config: &NatsConfig) -> jetstream::Context {
    jetstream::new(async_nats::connect(config.servers().to_vec()).await.unwrap())
}

async fn change(operator: &jetstream::Context, name: &str, change: impl FnOnce(&mut stream::Config)) {
    let mut config = operator.get_stream(name).await.unwrap().get_info().await.unwrap().config;
    change(&mut config);
    operator.update_stream(config).await.unwrap();
}

/// Handled payloads' sequence numbers as they come.
async fn subscribe(
    bus: &NatsEventBus,
    options: Subscribe,
) -> (Result<Subscription, Error>, mpsc::UnboundedReceiver<u64>) {
    let (tell, handled) = mpsc::unbounded_channel();
    let handler = handler_fn(move |delivery: Delivery| {
        let _ = tell.send(delivery.envelope().sequence().unwrap_or_default());
        async { Ok(()) }
    });
    (bus.subscribe(options, handler).await, handled)
}

fn group() -> Subscribe {
    Subscribe::to("t").group("g").then(FailurePolicy::Stop)
}

/// A key of this partition of two.
fn key(partition: u32) -> String {
    let of = |key: &String| Key::try_from(key.as_str()).unwrap().partition(2) == partition;
    (0..).map(|n| format!("k{n}")).find(of).unwrap()
}

async fn ended(subscription: Subscription) -> Error {
    tokio::time::timeout(SOON, subscription.closed()).await.expect("it ends").unwrap_err()
}

/// A topic of two partitions with one envelope in each, and a member that has handled both.
async fn member(bus: &NatsEventBus) -> (Subscription, mpsc::UnboundedReceiver<u64>) {
    bus.ensure_topic(&TopicSpec::new("t").partitions(2)).await.unwrap();
    for partition in [1, 0] {
        publish_one(bus, "t", &key(partition), 1).await.unwrap();
    }
    let (subscription, mut handled) = subscribe(bus, group()).await;
    for _ in 0..2 {
        handled.recv().await.unwrap();
    }
    (subscription.unwrap(), handled)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_bucket_ends_its_members_and_a_group_begins_anew_only_where_it_is_told_to() {
    let server = Server::start("");
    let (bus, operator) = (connect(&server.config()).await, operator(&server.config()).await);
    let (subscription, _handled) = member(&bus).await;
    operator.delete_stream("KV_eventbus_G_t").await.unwrap();
    let error = ended(subscription).await;
    assert_eq!(error.kind(), ErrorKind::LogReset, "{error}");
    let (refused, _) = subscribe(&bus, group()).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::LogReset, "{refused}");
    assert!(refused.to_string().contains("KV_eventbus_G_t"), "{refused}");
    let (anew, mut handled) = subscribe(&bus, group().on_log_reset(OnLogReset::Earliest)).await;
    assert_eq!((handled.recv().await, handled.recv().await), (Some(1), Some(1)));
    anew.unwrap().drain(SOON).await.unwrap();
    let (again, _) = subscribe(&bus, group()).await;
    again.expect("the bucket is there again").drain(SOON).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_bucket_ends_its_members_with_the_servers_words() {
    let server = Server::start("");
    let (bus, operator) = (connect(&server.config()).await, operator(&server.config()).await);
    let (subscription, _handled) = member(&bus).await;
    change(&operator, "KV_eventbus_G_t", |config| config.sealed = true).await;
    let error = ended(subscription).await;
    assert!(error.to_string().contains("sealed"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_comes_to_lose_records_of_the_middle_is_no_topic_any_more() {
    let server = Server::start("");
    let (bus, operator) = (connect(&server.config()).await, operator(&server.config()).await);
    let (subscription, _handled) = member(&bus).await;
    change(&operator, "eventbus_T_t", |config| config.max_messages_per_subject = 100).await;
    let error = ended(subscription).await;
    assert_eq!(error.kind(), ErrorKind::UnsafeConfig, "{error}");
    assert!(error.to_string().contains("max_msgs_per_subject"), "{error}");
    for refused in [
        subscribe(&bus, group()).await.0.map(drop).unwrap_err(),
        bus.ensure_topic(&TopicSpec::new("t").partitions(2)).await.map(drop).unwrap_err(),
    ] {
        assert_eq!(refused.kind(), ErrorKind::UnsafeConfig, "{refused}");
    }
    change(&operator, "eventbus_T_t", |config| {
        config.max_messages_per_subject = -1;
        config.subjects.retain(|subject| subject != "eventbus.t.p01");
    })
    .await;
    let refused = subscribe(&bus, group()).await.0.map(drop).unwrap_err();
    assert!(refused.to_string().contains("eventbus.t.p01"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_of_one_partition_is_told_as_a_loss_and_one_that_a_group_began_with_is_not() {
    let server = Server::start("");
    let (bus, operator) = (connect(&server.config()).await, operator(&server.config()).await);
    let (subscription, _handled) = member(&bus).await;
    subscription.drain(SOON).await.unwrap();
    for number in 2..=20 {
        publish_one(&bus, "t", &key(0), number).await.unwrap();
    }
    let stream = operator.get_stream("eventbus_T_t").await.unwrap();
    stream.purge().filter("eventbus.t.p00").keep(5).await.unwrap();
    let (subscription, mut handled) = subscribe(&bus, group()).await;
    let error = ended(subscription.unwrap()).await;
    assert_eq!(error.kind(), ErrorKind::DataLost, "{error}");
    assert_eq!(handled.try_recv().ok(), None, "nothing behind the hole was handled");
    let (told, losses) = (Arc::new(Mutex::new(0)), server.config());
    let heard = told.clone();
    let hooked = BusConfig::default().hook(move |event: &BusEvent<'_>| {
        if matches!(event, BusEvent::DataLost { .. }) {
            *heard.lock().unwrap() += 1;
        }
    });
    let careless = NatsEventBus::connect_with(losses, hooked).await.unwrap();
    let (going_on, mut handled) = subscribe(&careless, group().on_data_loss(OnDataLoss::Continue)).await;
    let mut numbers = Vec::new();
    while numbers.len() < 5 {
        let next = tokio::time::timeout(SOON, handled.recv()).await;
        numbers.push(next.unwrap_or_else(|_| panic!("only {numbers:?}")).unwrap());
    }
    going_on.unwrap().drain(SOON).await.unwrap();
    assert!(*told.lock().unwrap() > 0, "the hook heard nothing");
    assert_eq!(numbers, [16, 17, 18, 19, 20]);
    // A group that comes afterwards, goes and comes back has lost nothing.
    for _ in 0..2 {
        let (other, _handled) = subscribe(&bus, group().group("other")).await;
        let other = other.unwrap();
        publish_one(&bus, "t", &key(1), 9).await.unwrap();
        while bus.describe_group("t", "other").await.map_or(1, |group| group.partitions.iter().map(|p| p.lag).sum()) > 0
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        other.drain(SOON).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_demands_sizes_takes_all_that_the_bus_makes_beside_a_topic() {
    let server = Server::start(
        "accounts { A { users: [{user: a, password: a}], jetstream { max_file: 64MB, max_mem: 8MB, max_bytes_required: true } } }",
    );
    let config = NatsConfig::new(format!("nats://a:a@127.0.0.1:{}", server.port));
    let bus = connect(&config).await;
    let refused = bus.ensure_topic(&TopicSpec::new("t").partitions(2)).await.unwrap_err();
    assert!(refused.context().any(|named| named == ("setting", "max_bytes")), "{refused}");
    bus.ensure_topic(&TopicSpec::new("t").partitions(2).max_bytes(2 << 20)).await.unwrap();
    publish_one(&bus, "t", "k", 1).await.unwrap();
    let (subscription, mut handled) = subscribe(&bus, Subscribe::to("t").group("g")).await;
    assert_eq!(handled.recv().await, Some(1));
    subscription.unwrap().drain(SOON).await.unwrap();
    let letters = bus.list_topics().await.unwrap().into_iter().find(|topic| topic.starts_with("dead-letter")).unwrap();
    assert_eq!(bus.describe_topic(&letters).await.unwrap().spec.max_bytes, Some(2 << 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_consumers_is_said_in_the_servers_words_and_passes() {
    let server = Server::start("");
    let (tell, mut told) = mpsc::unbounded_channel();
    let hooked = BusConfig::default().hook(move |event: &BusEvent<'_>| {
        if let BusEvent::Retrying(retry) = event {
            let _ = tell.send(retry.error.to_string());
        }
    });
    let bus = NatsEventBus::connect_with(server.config(), hooked).await.unwrap();
    let operator = operator(&server.config()).await;
    bus.ensure_topic(&TopicSpec::new("t").partitions(1)).await.unwrap();
    // The limit of a stream cannot be changed: the topic's stream is made again with it.
    let mut config = operator.get_stream("eventbus_T_t").await.unwrap().get_info().await.unwrap().config;
    operator.delete_stream("eventbus_T_t").await.unwrap();
    config.max_consumers = 1;
    let stream = operator.create_stream(config).await.unwrap();
    let taken = stream.create_consumer(jetstream::consumer::pull::Config::default()).await.unwrap();
    let (subscription, mut handled) = subscribe(&bus, group().session_timeout(Duration::from_secs(1))).await;
    let words = tokio::time::timeout(SOON, told.recv()).await.unwrap().unwrap();
    assert!(words.contains("maximum consumers limit"), "{words}");
    stream.delete_consumer(&taken.cached_info().name).await.unwrap();
    publish_one(&bus, "t", "k", 7).await.unwrap();
    assert_eq!(tokio::time::timeout(SOON, handled.recv()).await.unwrap(), Some(7));
    subscription.unwrap().drain(SOON).await.unwrap();
}
