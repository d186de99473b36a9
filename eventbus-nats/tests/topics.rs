//! Every setting of a topic and of a reader reaches the server; an error names the setting that differs.
#![allow(clippy::unwrap_used)] // tests, though not every function here is one

mod common;

use std::time::Duration;

use async_nats::jetstream::{self, consumer, stream};
use common::server::Server;
use common::{connect, publish_one, sweep};
use eventbus_core::{
    AfterRefusal, Delivery, ErrorKind, EventBus, OnExisting, Storage, Subscribe, TopicSpec, handler_fn,
};
use eventbus_nats::NatsConfig;
use futures_util::{StreamExt, TryStreamExt};

/// Connects a client without the bus.
async fn raw(config: &NatsConfig) -> jetstream::Context {
    jetstream::new(async_nats::connect(config.servers().to_vec()).await.unwrap())
}

/// The streams with this text in their names: buckets and topics.
async fn streams(context: &jetstream::Context, part: &str) -> Vec<stream::Info> {
    let all: Vec<stream::Info> = context.streams().try_collect().await.unwrap();
    all.into_iter().filter(|info| info.config.name.contains(part)).collect()
}

fn spec() -> TopicSpec {
    TopicSpec::new("a.b_c")
        .partitions(5)
        .max_age(Duration::from_secs(3_600))
        .max_bytes(10 << 20)
        .max_messages(1_000)
        .duplicate_window(Duration::from_secs(7))
        .storage(Storage::Memory)
        .after_refusal(AfterRefusal::SealUntilResumed)
        .strict_partitions(true)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_setting_reaches_the_server_and_comes_back() {
    let server = Server::start("");
    let config = server.config();
    let (bus, context) = (connect(&config.clone().prefix("settings")).await, raw(&config).await);
    sweep(&bus).await;
    let described = bus.ensure_topic(&spec()).await.unwrap();
    assert_eq!(described.spec, spec());
    assert_eq!(described.partitions.len(), 5);
    let stream = context.get_stream("settings_T_a_db__c").await.unwrap().get_info().await.unwrap().config;
    let partitions: Vec<String> = (0..5).map(|partition| format!("settings.a_db__c.p0{partition}")).collect();
    assert_eq!(stream.subjects, partitions, "a record of no partition has no place");
    assert_eq!(stream.retention, stream::RetentionPolicy::Limits);
    assert_eq!(stream.discard, stream::DiscardPolicy::Old);
    assert_eq!(stream.storage, stream::StorageType::Memory);
    assert_eq!((stream.max_age, stream.duplicate_window), (Duration::from_secs(3_600), Duration::from_secs(7)));
    assert_eq!((stream.max_bytes, stream.max_messages, stream.num_replicas), (10 << 20, 1_000, 1));
    for (name, value) in [("topic", "a.b_c"), ("partitions", "5"), ("hash", "murmur2")] {
        assert_eq!(stream.metadata[&format!("eventbus-{name}")], value);
    }
    sweep(&bus).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_existing_topic_is_treated_in_the_four_ways_and_a_mismatch_names_the_setting() {
    let server = Server::start("");
    let config = server.config();
    let bus = connect(&config).await;
    let created = bus.ensure_topic(&spec().on_existing(OnExisting::CreateOnly)).await.unwrap();
    let error = bus.ensure_topic(&spec().on_existing(OnExisting::CreateOnly)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TopicExists, "{error}");
    assert_eq!(bus.ensure_topic(&spec()).await.unwrap().incarnation, created.incarnation);
    let day = Duration::from_secs(86_400);
    for (other, setting) in [
        (spec().partitions(6), "partitions"),
        (spec().storage(Storage::File), "storage"),
        (spec().max_age(day), "max_age"),
        (spec().max_bytes(1 << 20), "max_bytes"),
        (spec().max_messages(5), "max_messages"),
        (spec().replicas(3), "replicas"),
        (spec().duplicate_window(Duration::from_secs(8)), "duplicate_window"),
    ] {
        let error = bus.ensure_topic(&other).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TopicMismatch, "{error}");
        assert!(error.context().any(|(name, value)| name == "setting" && value == setting), "{error}");
        let left = bus.ensure_topic(&other.clone().on_existing(OnExisting::LeaveAlone)).await.unwrap();
        assert_eq!(left.spec.partitions, 5);
        let updated = bus.ensure_topic(&other.on_existing(OnExisting::CreateOrUpdate)).await;
        match setting {
            "partitions" | "storage" => assert_eq!(updated.unwrap_err().kind(), ErrorKind::TopicMismatch),
            // One server has no place for several replicas.
            "replicas" => assert_eq!(updated.unwrap_err().kind(), ErrorKind::InvalidConfig),
            _ => {
                let updated = updated.unwrap();
                assert_eq!(updated.incarnation, created.incarnation, "{setting}");
                assert_ne!(updated.spec, created.spec, "{setting}");
                bus.ensure_topic(&spec().on_existing(OnExisting::CreateOrUpdate)).await.unwrap();
            }
        }
    }
    bus.delete_topic("a.b_c").await.unwrap();
    let error = bus.describe_topic("a.b_c").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownTopic);
    let again = bus.ensure_topic(&spec()).await.unwrap();
    assert_ne!(again.incarnation, created.incarnation, "another topic of the same name");
    sweep(&bus).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_would_break_the_contract_is_no_topic() {
    let server = Server::start("");
    let config = server.config();
    let config = config.prefix("foreign");
    let (bus, context) = (connect(&config).await, raw(&config).await);
    let metadata = |hash: &str| {
        [("eventbus-hash", hash), ("eventbus-topic", "t"), ("eventbus-partitions", "2")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    };
    let plain =
        stream::Config { name: "foreign_T_t".into(), subjects: vec!["foreign.t.*".into()], ..Default::default() };
    for (stream, kind, names) in [
        (plain.clone(), ErrorKind::TopicMismatch, "hash"),
        (stream::Config { metadata: metadata("crc32"), ..plain.clone() }, ErrorKind::TopicMismatch, "hash"),
        (
            stream::Config {
                metadata: metadata("murmur2"),
                retention: stream::RetentionPolicy::WorkQueue,
                ..plain.clone()
            },
            ErrorKind::UnsafeConfig,
            "retention",
        ),
        (
            stream::Config { metadata: metadata("murmur2"), no_ack: true, ..plain.clone() },
            ErrorKind::UnsafeConfig,
            "no_ack",
        ),
    ] {
        let _ = context.delete_stream("foreign_T_t").await;
        context.create_stream(stream).await.unwrap();
        for spec in [TopicSpec::new("t").partitions(2), TopicSpec::new("t").on_existing(OnExisting::LeaveAlone)] {
            let error = bus.ensure_topic(&spec).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(names), "{error}");
        }
    }
    context.delete_stream("foreign_T_t").await.unwrap();
    let taken =
        stream::Config { name: "foreign-other".into(), subjects: vec!["foreign.t.>".into()], ..Default::default() };
    context.create_stream(taken).await.unwrap();
    let error = bus.ensure_topic(&TopicSpec::new("t")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TopicMismatch, "{error}");
    context.delete_stream("foreign-other").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_s_settings_reach_the_server_and_readers_and_buckets_are_removed() {
    let server = Server::start("");
    let config = server.config();
    let config = config.max_waiting(9).inactive_threshold(Duration::from_secs(77));
    let (bus, context) = (connect(&config).await, raw(&config).await);
    bus.ensure_topic(&TopicSpec::new("read").partitions(3).storage(Storage::Memory)).await.unwrap();
    let handler = handler_fn(|_: Delivery| async { Ok(()) });
    let subscription = bus.subscribe(Subscribe::to("read").group("g"), handler).await.unwrap();
    let part = format!("{}_", format!("{config:?}").split("prefix: \"").nth(1).unwrap().split('"').next().unwrap());
    let topic = streams(&context, &format!("{part}T_read")).await.remove(0);
    let stream = context.get_stream(&topic.config.name).await.unwrap();
    let mut consumers: Vec<consumer::Info> = Vec::new();
    while consumers.len() < 3 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        consumers = stream.consumers().filter_map(|info| async { info.ok() }).collect().await;
    }
    for consumer in consumers {
        let reader = consumer.config;
        assert_eq!((reader.max_waiting, reader.inactive_threshold), (9, Duration::from_secs(77)));
        assert_eq!(reader.ack_policy, consumer::AckPolicy::None);
        assert!(reader.memory_storage && reader.durable_name.is_none(), "{reader:?}");
    }
    let bucket = streams(&context, &format!("KV_{part}G_read")).await.remove(0).config;
    assert_eq!((bucket.storage, bucket.max_messages_per_subject), (stream::StorageType::Memory, 1));
    assert_eq!(bucket.max_age, Duration::ZERO, "progress never ends by age");
    assert!(bucket.first_sequence.unwrap() > 1_600_000_000_000, "milliseconds of the clock");
    subscription.drain(Duration::from_secs(5)).await.unwrap();
    let mut left = 3;
    while left > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        left = stream.consumer_names().count().await;
    }
    sweep(&bus).await;
    assert_eq!(streams(&context, &part).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_isolated_by_name_and_prefix() {
    let server = Server::start("");
    let config = server.config();
    let bus = connect(&config).await;
    let names = ["a.b", "a_b", "a", "a.1", "a.b.p00"];
    for name in names {
        bus.ensure_topic(&TopicSpec::new(name).partitions(1)).await.unwrap();
        publish_one(&bus, name, "k", 1).await.unwrap();
    }
    for name in names {
        assert_eq!(bus.describe_topic(name).await.unwrap().records, 1, "{name}");
    }
    let mut listed = bus.list_topics().await.unwrap();
    listed.sort();
    assert_eq!(listed, ["a", "a.1", "a.b", "a.b.p00", "a_b"]);
    let other = connect(&config.prefix("elsewhere")).await;
    assert_eq!(other.list_topics().await.unwrap(), Vec::<String>::new());
    sweep(&bus).await;
}
