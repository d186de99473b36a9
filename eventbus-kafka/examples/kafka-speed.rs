//! Speed of the bus beside the bare client, interleaved in one run: ratios, not rates.
//!
//! ```text
//! cargo run --release -p eventbus-kafka --example kafka-speed -- localhost:9092 [MESSAGES [ROUNDS [SECONDS]]]
//! ```
//!
//! | workload | bus, default configuration | bare client |
//! |---|---|---|
//! | publish | strict, 1 000 keys, all confirmed | a producer of librdkafka's with the bus's own settings and headers |
//! | consume | keyed, concurrency 16, commits | one loop that copies key, payload and headers, and commits as often |
//! | both | the two at once on one bus | the two at once |
//! | p99 | SECONDS at 1 000/s | the same, lingering 0, 1 (as the bus does) and 5 ms: the best counts |
#![allow(clippy::print_stdout)] // a program's output

#[path = "../../eventbus-nats/examples/speed/beside.rs"]
mod beside;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use beside::{BusSide, Contestant, Failure, Goals, KEYS, PARTITIONS, Payloads, Plan, Role, Seen, Side, Table};
use bytes::Bytes;
use eventbus_core::wire::{self, Mode};
use eventbus_core::{Envelope, EventBus, ProducerId, Stamp, TopicSpec};
use eventbus_kafka::{BINDING, KafkaConfig, KafkaEventBus};
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfig, FromClientConfigAndContext};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, NoCustomPartitioner, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

const USAGE: &str = "\
kafka-speed BROKERS [MESSAGES [ROUNDS [SECONDS]]]

Puts the bus beside the bare client on the cluster of BROKERS (localhost:9092).
Defaults: 200000 messages, 3 rounds, latency for 10 seconds (0: not at all).";

/// A subscription's default for commits: after so many records, or after this time.
const COMMIT_EVERY: usize = 5_000;
const COMMIT_INTERVAL: Duration = Duration::from_millis(200);

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let Some(brokers) = arguments.next().filter(|brokers| !brokers.starts_with('-')) else {
        println!("{USAGE}");
        return Ok(());
    };
    let plan = Plan::parse(arguments)?;
    let mut table = Table::new(Goals { publish: 0.9, consume: 0.8, both: 0.8, p99: 2.0 });
    for round in 0..plan.rounds {
        let prefix = format!("speed-{:08x}-", rand::random::<u32>());
        let config = KafkaConfig::new(&*brokers).prefix(&*prefix);
        let mut sides = vec![Contestant::new("bus", Role::Bus, bus(&config, "bus").await?)?];
        for (name, linger, role) in [
            ("bare, linger 1 ms", "1", Role::Bare),
            ("bare, linger 0 ms", "0", Role::BareLatency),
            ("bare, linger 5 ms", "5", Role::BareLatency),
        ] {
            if role == Role::Bare || plan.seconds > 0 {
                sides.push(Contestant::new(name, role, Bare::new(&config, &prefix, linger).await?)?);
            }
        }
        beside::round(round, sides, &plan, &mut table).await?;
    }
    table.print();
    Ok(())
}

/// Connects a bus, and makes its topic.
async fn bus(config: &KafkaConfig, topic: &str) -> Result<BusSide, Failure> {
    let bus = KafkaEventBus::connect(config.clone()).await?;
    bus.ensure_topic(&TopicSpec::new(topic)).await?;
    Ok(BusSide::new(bus, topic))
}

/// The bare client as a side. A bus makes its topic, so that it is like the other's, and is idle then.
struct Bare {
    topics: BusSide,
    producer: ThreadedProducer<Reports>,
    consumer: ClientConfig,
    topic: String,
    headers: Vec<(String, Bytes)>,
    reader: Option<Reader>,
}

struct Reader {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<(), KafkaError>>,
}

/// A count of the records that were not stored.
#[derive(Default)]
struct Reports {
    failed: AtomicUsize,
}

impl ClientContext for Reports {}

impl ProducerContext<NoCustomPartitioner> for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_err() {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Bare {
    async fn new(config: &KafkaConfig, prefix: &str, linger: &str) -> Result<Self, Failure> {
        let name = format!("bare-{linger}");
        let mut producer: ClientConfig = config.producer_properties().into_iter().collect();
        producer.set("linger.ms", linger);
        let mut consumer: ClientConfig =
            config.consumer_properties(&format!("{name}-g").parse()?).into_iter().collect();
        consumer.set("auto.offset.reset", "earliest").set("enable.partition.eof", "false");
        let (topics, topic) = (bus(config, &name).await?, format!("{prefix}{name}"));
        let producer = ThreadedProducer::from_config_and_context(&producer, Reports::default())?;
        Ok(Self { topics, producer, consumer, topic, headers: headers()?, reader: None })
    }
}

/// Names and values of the headers that the bus gives a record of this program.
fn headers() -> Result<Vec<(String, Bytes)>, Failure> {
    let envelope = Envelope::builder("Speed", "/speed").key("key-0").build()?;
    let record = wire::encode(&envelope, Some(Stamp::new(ProducerId::new(u128::MAX), 1)), &BINDING, Mode::Binary);
    Ok(record.headers.into_iter().map(|(name, value)| (name.into_owned(), value)).collect())
}

#[async_trait(?Send)]
impl Side for Bare {
    async fn publish(&self, payloads: Payloads<'_>) -> Result<(), Failure> {
        for (n, payload) in payloads.enumerate() {
            let key = format!("key-{}", n % KEYS);
            let headers = self
                .headers
                .iter()
                .fold(OwnedHeaders::new_with_capacity(self.headers.len()), |headers, (key, value)| {
                    headers.insert(Header { key, value: Some(&**value) })
                });
            let partition = i32::try_from(n % KEYS % PARTITIONS)?;
            let record = BaseRecord::to(&self.topic).partition(partition).key(&key).payload(&*payload);
            let mut record = record.headers(headers);
            while let Err((error, again)) = self.producer.send(record) {
                if error.rdkafka_error_code() != Some(Code::QueueFull) {
                    return Err(error.into());
                }
                std::thread::sleep(Duration::from_millis(1));
                record = again;
            }
        }
        self.producer.flush(Duration::from_secs(60))?;
        match self.producer.context().failed.load(Ordering::Relaxed) {
            0 => Ok(()),
            failed => Err(format!("{failed} records were not stored").into()),
        }
    }

    async fn read(&mut self, seen: Arc<Seen>) -> Result<(), Failure> {
        let consumer = BaseConsumer::from_config(&self.consumer)?;
        consumer.subscribe(&[&self.topic])?;
        let stop = Arc::new(AtomicBool::new(false));
        let (topic, stopped) = (self.topic.clone(), Arc::clone(&stop));
        let thread = std::thread::spawn(move || read(&consumer, &topic, &seen, &stopped));
        self.reader = Some(Reader { stop, thread });
        Ok(())
    }

    async fn close(&mut self) -> Result<(), Failure> {
        if let Some(Reader { stop, thread }) = self.reader.take() {
            stop.store(true, Ordering::Relaxed);
            thread.join().map_err(|_| "the reader panicked")??;
        }
        self.topics.close().await
    }
}

fn read(consumer: &BaseConsumer, topic: &str, seen: &Seen, stop: &AtomicBool) -> Result<(), KafkaError> {
    let (mut next, mut finished, mut committed) = ([None; PARTITIONS], 0, Instant::now());
    while !stop.load(Ordering::Relaxed) {
        let idle = match consumer.poll(Duration::from_millis(10)) {
            Some(record) => {
                // The client's own copy of key, payload and headers.
                let record = record?.detach();
                seen.take(record.payload().unwrap_or_default());
                if let Some(next) = usize::try_from(record.partition()).ok().and_then(|at| next.get_mut(at)) {
                    *next = Some(record.offset() + 1);
                }
                finished += 1;
                false
            }
            None => true,
        };
        // Looks at the clock only now and then.
        let look = idle || finished % 64 == 0;
        if finished >= COMMIT_EVERY || (look && finished > 0 && committed.elapsed() >= COMMIT_INTERVAL) {
            let mut offsets = TopicPartitionList::new();
            for (partition, next) in (0..).zip(&mut next) {
                if let Some(next) = next.take() {
                    offsets.add_partition_offset(topic, partition, Offset::Offset(next))?;
                }
            }
            consumer.commit(&offsets, CommitMode::Async)?;
            (finished, committed) = (0, Instant::now());
        }
    }
    Ok(())
}
