//! Records that the client under the backend cannot take: none stops its partition, and none is paid for again and
//! again (S1, S2).

#![allow(clippy::unwrap_used)] // tests, though not every function here is one

mod common;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use common::raw::Raw;
use common::server::Server;
use common::{connect, publish_one, topic};
use eventbus_core::dead_letter::{DeadLetter, DeadLetters, topic_of};
use eventbus_core::{
    ConnectionState, Delivery, Envelope, EventBus, FailurePolicy, StartFrom, Subscribe, Subscription, handler_fn,
};
use eventbus_nats::NatsEventBus;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// The header blocks that the client cannot take, each in its own way; it does not survive the last.
const ODD: [&[u8]; 7] = [
    b"NATS/1.0\r\nX-Customer: Caf\xe9\r\n\r\n",
    b"NATS/1.0\r\nX Trace: 7\r\n\r\n",
    b"NATS/1.0\r\nWord\r\n\r\n",
    b"NATS/1.0\r\n: no name\r\n\xff\xfe: 1\r\n\r\n",
    b"NATS/1.0\r\nce-type: \xe9\r\nce-partitionkey: k1\r\n\r\n",
    b"NATS/1.0 what\r\n\r\n",
    b"NATS/1.0\r\nX-Note: a\rb\r\n\r\n",
];

/// What became of each record of a topic, by position: how often it was handled, and the dead letters.
#[derive(Debug, Clone, Default)]
struct Seen(Arc<Mutex<BTreeMap<u64, Vec<u8>>>>);

impl Seen {
    async fn until(&self, positions: &[u64]) {
        let wait = async {
            while !positions.iter().all(|position| self.0.lock().unwrap().contains_key(position)) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(40), wait).await.is_err() {
            let seen = self.0.lock().unwrap();
            let missing: Vec<_> = positions.iter().filter(|position| !seen.contains_key(position)).collect();
            panic!("neither handled nor a dead letter: {missing:?}");
        }
    }
}

/// Handles a topic; its dead letters count as well, under the position of the original.
async fn member(bus: &NatsEventBus, name: &str, seen: &Seen) -> [Subscription; 2] {
    let handled = seen.clone();
    let handler = handler_fn(move |delivery: Delivery| {
        let handled = handled.clone();
        async move {
            let payload = delivery.envelope().payload().to_vec();
            handled.0.lock().unwrap().insert(delivery.position().get(), payload);
            Ok(())
        }
    });
    let options = Subscribe::to(name).group("g").then(FailurePolicy::DeadLetter);
    let member = bus.subscribe(options, handler).await.unwrap();
    let of = topic_of(&name.parse().unwrap(), &"g".parse().unwrap()).unwrap();
    let letters = loop {
        let letters = seen.clone();
        let handler = handler_fn(move |delivery: Delivery| {
            let letters = letters.clone();
            async move {
                let letter = DeadLetter::read(delivery.envelope())?;
                letters.0.lock().unwrap().insert(letter.position.get(), letter.envelope.payload().to_vec());
                Ok(())
            }
        });
        match bus.subscribe(Subscribe::to(of.as_str()).group("letters"), handler).await {
            // The member lost the connection just now.
            Err(error) if error.is_retryable() => tokio::task::yield_now().await,
            subscribed => break subscribed.unwrap(),
        }
    };
    [member, letters]
}

async fn breaks(bus: &NatsEventBus) -> u64 {
    let details = bus.health().await.details;
    details.into_iter().find(|(name, _)| name == "breaks").unwrap().1.parse().unwrap()
}

async fn stays_well(bus: &NatsEventBus, name: &str, seen: &Seen, members: [Subscription; 2]) {
    let envelope = Envelope::builder("T", "/s").key("last").payload("x").build().unwrap();
    let receipt = bus.publish(name, envelope).await.unwrap().confirmed().await.unwrap();
    seen.until(&[receipt.position.get()]).await;
    assert_eq!(bus.health().await.connection, ConnectionState::Connected);
    for member in members {
        member.drain(Duration::from_secs(10)).await.unwrap();
    }
    let group = bus.describe_group(name, "g").await.unwrap();
    assert_eq!(group.partitions.iter().map(|partition| partition.lag).sum::<u64>(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_record_that_the_client_cannot_take_costs_one_connection_and_stops_nothing() {
    let server = Server::start("");
    let bus = connect(&server.config()).await;
    let mut raw = Raw::connect(server.port);
    for (number, block) in ODD.into_iter().enumerate() {
        let name = format!("t{number}");
        topic(&bus, &name, 2).await;
        let mut positions = Vec::new();
        for round in 0..3_u8 {
            for partition in ["p00", "p01"] {
                let subject = format!("eventbus.{name}.{partition}");
                positions.push(raw.store_bare(&subject, "before").unwrap());
                // Both partitions have one, so that both are at fault at once.
                positions.push(raw.store(&subject, block, &[round]).unwrap());
            }
        }
        let (seen, before) = (Seen::default(), breaks(&bus).await);
        let members = member(&bus, &name, &seen).await;
        // Those that are stored while it is read are no other case.
        positions.push(raw.store(&format!("eventbus.{name}.p00"), block, b"late").unwrap());
        seen.until(&positions).await;
        stays_well(&bus, &name, &seen, members).await;
        let lost = breaks(&bus).await - before;
        // The first costs one connection; and one more each partition, whose read may have ended at a good record, or may
        // find another one behind its stretch.
        let least = u64::from(stores_as_given(&server, &name, positions[1], block).await);
        assert!((least..=3 * least).contains(&lost), "{block:?}: the connection was lost {lost} times");
        for position in &positions {
            assert!(!seen.0.lock().unwrap()[position].is_empty(), "the payload of {position}");
        }
    }
}

/// Whether the server has stored this header block as it was given: new servers take a status off, and what is left is
/// not odd.
async fn stores_as_given(server: &Server, topic: &str, position: u64, block: &[u8]) -> bool {
    let client = async_nats::connect(server.config().servers().to_vec()).await.unwrap();
    let request = format!("{{\"seq\":{position}}}");
    let answer = client.request(format!("$JS.API.STREAM.MSG.GET.eventbus_T_{topic}"), request.into()).await.unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&answer.payload).unwrap();
    let given = base64::engine::general_purpose::STANDARD.encode(block);
    assert_eq!(answer["message"]["seq"], position, "{answer}");
    answer["message"]["hdrs"] == given
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_records_among_dead_letters_and_leases_and_in_searches_stop_nothing() {
    let server = Server::start("");
    let bus = connect(&server.config()).await;
    topic(&bus, "t", 1).await;
    let mut raw = Raw::connect(server.port);
    let seen = Seen::default();
    let members = member(&bus, "t", &seen).await;
    publish_one(&bus, "t", "k", 1).await.unwrap();
    let between = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    // A time search whose only answer is a record that cannot be taken, and one behind it.
    let odd = raw.store("eventbus.t.p00", ODD[6], b"odd").unwrap();
    seen.until(&[odd]).await;
    let after = raw.store_bare("eventbus.t.p00", "after").unwrap();
    seen.until(&[after]).await;
    for member in members {
        member.drain(Duration::from_secs(10)).await.unwrap();
    }
    let searching = connect(&server.config()).await;
    let all = Seen::default();
    let handled = all.clone();
    let handler = handler_fn(move |delivery: Delivery| {
        let handled = handled.clone();
        async move {
            handled.0.lock().unwrap().insert(delivery.position().get(), Vec::new());
            Ok(())
        }
    });
    let between = StartFrom::Time(u64::try_from(between.as_millis()).unwrap());
    let options = Subscribe::to("t").group("by-time").start(between);
    let by_time = searching.subscribe(options, handler).await.unwrap();
    all.until(&[odd, after]).await;
    by_time.drain(Duration::from_secs(10)).await.unwrap();
    // Among the groups' records: every look at the group reads them all.
    raw.store("$KV.eventbus_G_t.g.m.odd", ODD[6], b"{}").unwrap();
    raw.store("$KV.eventbus_G_t.g.m.odder", ODD[0], b"{}").unwrap();
    let fresh = Arc::new(connect(&server.config()).await);
    for _ in 0..3 {
        assert_eq!(fresh.describe_group("t", "g").await.unwrap().partitions.len(), 1);
    }
    assert!(breaks(&fresh).await <= 2);
    let seen = Seen::default();
    let members = member(&fresh, "t", &seen).await;
    stays_well(&fresh, "t", &seen, members).await;
    // Among dead letters.
    raw.store("eventbus.dead-letter_d1_dt_dg.p00", ODD[6], b"odd").unwrap();
    let letters = DeadLetters::of(fresh.clone(), "t", "g").unwrap().read(None).await.unwrap();
    assert!(letters.is_empty(), "{letters:?}");
    assert_eq!(fresh.health().await.connection, ConnectionState::Connected);
}

/// Any bytes as headers, sometimes with a beginning that makes them worse.
fn block(random: &mut StdRng) -> Vec<u8> {
    const PARTS: [&[u8]; 16] = [
        b"\r\n",
        b"\r",
        b"\n",
        b": ",
        b":",
        b"ce-id",
        b"ce-partitionkey",
        b"Nats-Msg-Id",
        b"eventbus-headers",
        b"content-type",
        b"application/cloudevents+json",
        b"\xc3\xa9",
        b"\xe9",
        b" ",
        b"%0A",
        b"\0",
    ];
    let mut block = match random.random_range(0..10) {
        0 => Vec::new(),
        1 => format!("NATS/1.0 {} odd\r\n", random.random_range(0..1_200)).into_bytes(),
        _ => b"NATS/1.0\r\n".to_vec(),
    };
    for _ in 0..random.random_range(0..40) {
        match random.random_range(0..4) {
            0 => block.push(random.random()),
            1 => block.extend((0..random.random_range(0..30)).map(|_| random.random_range(b' '..=b'~'))),
            _ => block.extend_from_slice(PARTS[random.random_range(0..PARTS.len())]),
        }
    }
    if random.random_range(0..50) == 0 {
        block.extend(std::iter::repeat_n(b"a:\r\n", 10_000).flatten());
    }
    block.extend_from_slice(b"\r\n\r\n");
    block
}

/// `EVENTBUS_ODD_RECORDS` sets the number of records; `scripts/fuzz` sets a large one.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_handles_or_puts_aside_records_with_any_bytes_as_headers() {
    let seed = std::env::var("EVENTBUS_ODD_SEED").map_or(1, |seed| seed.parse().unwrap());
    let records = std::env::var("EVENTBUS_ODD_RECORDS").map_or(200, |records| records.parse().unwrap());
    println!("EVENTBUS_ODD_SEED={seed} EVENTBUS_ODD_RECORDS={records}");
    let mut random = StdRng::seed_from_u64(seed);
    let server = Server::start("");
    let bus = connect(&server.config()).await;
    topic(&bus, "t", 4).await;
    let seen = Seen::default();
    let members = member(&bus, "t", &seen).await;
    let mut raw = Raw::connect(server.port);
    let mut positions = Vec::new();
    for number in 0..records {
        let subject = format!("eventbus.t.p{:02}", random.random_range(0..4));
        let size = if random.random_range(0..20) == 0 { 300_000 } else { 10 };
        let stored = match random.random_range(0..3) {
            0 => raw.store_bare(&subject, "plain"),
            _ => raw.store(&subject, &block(&mut random), &vec![b'x'; size]),
        };
        match stored {
            Ok(position) => positions.push(position),
            // The server refuses some, and closes the connection for others.
            Err(why) if why.starts_with('{') => {}
            Err(_) => raw = Raw::connect(server.port),
        }
        if number % 50 == 0 {
            publish_one(&bus, "t", "k", 1).await.unwrap();
        }
    }
    assert!(positions.len() > records / 2, "only {} of {records} were stored", positions.len());
    seen.until(&positions).await;
    stays_well(&bus, "t", &seen, members).await;
    let lost = breaks(&bus).await;
    assert!((1..=60).contains(&lost), "the connection was lost {lost} times for {} records", positions.len());
}
