//! Bare client of Kafka, by `rdkafka`: a producer with its own thread, and a consumer per topic with all partitions
//! assigned to it. Both have the bus's settings, so batches, idempotence and compression are the same. They join no
//! group.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use eventbus::backend::ProducerId;
use eventbus::config::KafkaSection;
use eventbus::kafka::BINDING;
use eventbus::wire::{self, Mode, WireRecord};
use eventbus::{Group, Result, Stamp};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication, TopicResult};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::race::{IN_FLIGHT, Race, Send1, unavailable};
use crate::compare::workloads::INDEX;
use crate::interrupt::Interrupt;

/// How long a broker may take to answer a request other than a record.
const ANSWER: Duration = Duration::from_secs(10);
/// How long a reader waits for a record before it checks whether the run is over.
const LOOK: Duration = Duration::from_millis(100);

/// Context that silences the client's own log: anything that matters also comes as an error.
#[derive(Clone)]
struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, _: KafkaError, _: &str) {}
}

impl ConsumerContext for Quiet {}

pub(super) async fn run(race: &Arc<Race>, section: &KafkaSection, interrupt: &Interrupt) -> Result<bool> {
    let topics = Topics::of(race, section)?;
    let ran = match topics.make(race).await {
        Ok(()) => through(race, section, &topics, interrupt).await,
        Err(error) => Err(error),
    };
    topics.remove().await?;
    ran
}

async fn through(race: &Arc<Race>, section: &KafkaSection, topics: &Topics, interrupt: &Interrupt) -> Result<bool> {
    let config = section.config();
    let group: Group = "compare-bare".parse()?;
    let read: ClientConfig = config.consumer_properties(&group).into_iter().collect();
    let (over, mut readers) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
    let (ready, mut all_ready) = tokio::sync::mpsc::channel(topics.names.len());
    for name in &topics.names {
        let reader = Reader::new(race, &read, name)?;
        let (over, ready) = (Arc::clone(&over), ready.clone());
        readers.spawn_blocking(move || reader.read(&over, &ready));
    }
    drop(ready);
    // A reader that is ready has reached the leader of every partition.
    let started = async { while all_ready.recv().await.is_some() {} };
    let _ = tokio::time::timeout(ANSWER, started).await;
    let sender = Publisher::new(race, section, &topics.names)?;
    let ran = race.run(sender, interrupt).await;
    over.store(true, Ordering::Release);
    readers.join_all().await;
    Ok(ran)
}

/// Topics of a run, and the client that makes and removes them.
struct Topics {
    admin: AdminClient<DefaultClientContext>,
    names: Vec<String>,
}

impl Topics {
    fn of(race: &Race, section: &KafkaSection) -> Result<Self> {
        let mut client: ClientConfig = client_properties(section).collect();
        client.set_log_level(RDKafkaLogLevel::Emerg);
        let admin = client.create().map_err(|error| unavailable("connecting", error))?;
        let prefix = section.prefix.as_deref().unwrap_or_default();
        let names = (0..race.plan.topics.len() as u32).map(|topic| format!("{prefix}{}", race.topic(topic))).collect();
        Ok(Self { admin, names })
    }

    async fn make(&self, race: &Race) -> Result<()> {
        let count = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
        let topic = |name| NewTopic::new(name, count(race.partitions), TopicReplication::Fixed(count(race.replicas)));
        let wanted: Vec<NewTopic<'_>> = self.names.iter().map(|name| topic(name)).collect();
        let made = self.admin.create_topics(&wanted, &options()).await;
        outcome("making a topic", made)
    }

    async fn remove(&self) -> Result<()> {
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        outcome("removing a topic", self.admin.delete_topics(&names, &options()).await)
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(ANSWER)).request_timeout(Some(ANSWER))
}

/// Returns the first error of an answer. A topic that does not exist needs no removal, so that is none.
fn outcome<E>(doing: &str, answer: Result<Vec<TopicResult>, E>) -> Result<()>
where
    E: std::fmt::Display,
{
    let answer = answer.map_err(|error| unavailable(doing, error))?;
    let wrong = answer.into_iter().filter_map(Result::err).find(|(_, code)| *code != Code::UnknownTopicOrPartition);
    wrong.map_or(Ok(()), |(topic, code)| Err(unavailable(doing, format!("{topic}: {code}"))))
}

/// Returns the properties that reach the brokers, without those of a producer or a consumer alone.
fn client_properties(section: &KafkaSection) -> impl Iterator<Item = (String, String)> {
    let shared = ["bootstrap.servers", "client.id"];
    let begins = ["security.", "sasl.", "ssl.", "socket.", "reconnect."];
    let all = section.config().producer_properties().into_iter();
    all.filter(move |(name, _)| shared.contains(&name.as_str()) || begins.iter().any(|begin| name.starts_with(begin)))
}

/// Reader of one topic: all of its partitions, from their beginning.
struct Reader {
    race: Arc<Race>,
    consumer: BaseConsumer<Quiet>,
    /// Whether each partition's end is still to be seen.
    unseen: Vec<bool>,
}

impl Reader {
    fn new(race: &Arc<Race>, config: &ClientConfig, topic: &str) -> Result<Self> {
        let opened = BaseConsumer::from_config_and_context(config, Quiet);
        let consumer = opened.map_err(|error| unavailable("opening a consumer", error))?;
        let mut all = TopicPartitionList::new();
        for partition in 0..race.partitions {
            let added = all.add_partition_offset(topic, partition as i32, Offset::Offset(0));
            added.map_err(|error| unavailable("choosing partitions", error))?;
        }
        consumer.assign(&all).map_err(|error| unavailable("reading", error))?;
        Ok(Self { race: Arc::clone(race), consumer, unseen: vec![true; race.partitions as usize] })
    }

    /// Reads until the run is over. Drops `ready` once every partition has reported its end.
    fn read(mut self, over: &AtomicBool, ready: &tokio::sync::mpsc::Sender<()>) {
        let mut ready = Some(ready.clone());
        while !over.load(Ordering::Acquire) {
            match self.consumer.poll(LOOK) {
                Some(Ok(message)) => self.race.arrived(index(&message), message.partition() as u32),
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    if let Some(unseen) = self.unseen.get_mut(partition as usize) {
                        *unseen = false;
                    }
                    if !self.unseen.contains(&true) {
                        ready = None;
                    }
                }
                // The client recovers by itself; a message that does not come shows as missing.
                Some(Err(_)) | None => {}
            }
        }
        drop(ready);
    }
}

/// Returns the message's place in the plan, found as by [`Plan::index_of`](crate::compare::workloads::Plan::index_of).
fn index(message: &BorrowedMessage<'_>) -> Option<usize> {
    let headers = message.headers()?;
    let attribute = |name: &str| {
        let found = headers.iter().find(|header| header.key.strip_prefix(BINDING.prefix) == Some(name))?;
        std::str::from_utf8(found.value?).ok()?.parse().ok()
    };
    attribute(INDEX).or_else(|| attribute("id"))
}

/// Receiver of the client's delivery reports, called on the client's thread.
struct Reports {
    race: Arc<Race>,
    window: Arc<Semaphore>,
}

impl ClientContext for Reports {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, _: KafkaError, _: &str) {}
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, index: usize) {
        match result {
            Ok(_) => self.race.confirmed(index),
            Err(_) => self.race.failed(),
        }
        self.window.add_permits(1);
    }
}

struct Publisher {
    producer: ThreadedProducer<Reports>,
    names: Vec<String>,
    /// Room for records on their way, so that the client's queue is never full.
    window: Arc<Semaphore>,
}

impl Publisher {
    fn new(race: &Arc<Race>, section: &KafkaSection, names: &[String]) -> Result<Self> {
        let properties: ClientConfig = section.config().producer_properties().into_iter().collect();
        let window = Arc::new(Semaphore::new(IN_FLIGHT));
        let reports = Reports { race: Arc::clone(race), window: Arc::clone(&window) };
        let opened = ThreadedProducer::from_config_and_context(&properties, reports);
        let producer = opened.map_err(|error| unavailable("opening a producer", error))?;
        // The connection is there before the clock starts.
        let reached = producer.client().fetch_metadata(names.first().map(String::as_str), ANSWER);
        reached.map_err(|error| unavailable("connecting", error))?;
        Ok(Self { producer, names: names.to_vec(), window })
    }
}

impl Send1 for Publisher {
    async fn send(&self, race: &Arc<Race>, index: usize) {
        // Nobody closes the semaphore.
        let Ok(room) = self.window.acquire().await else { return race.failed() };
        let item = &race.plan.items[index];
        let stamp = Stamp::new(ProducerId::new(1), index as u64);
        let record = wire::encode(&item.envelope, Some(stamp), &BINDING, Mode::Binary);
        let topic = &self.names[item.topic as usize];
        let partition = race.partition(index) as i32;
        let mut message = BaseRecord::<[u8], [u8], usize>::with_opaque_to(topic, index).partition(partition);
        message.key = record.key.as_deref();
        match self.producer.send(message.payload(&record.payload).headers(headers(&record))) {
            // The delivery report gives the room back.
            Ok(()) => room.forget(),
            Err(_) => race.failed(),
        }
    }
}

fn headers(record: &WireRecord) -> OwnedHeaders {
    let headers = OwnedHeaders::new_with_capacity(record.headers.len());
    record.headers.iter().fold(headers, |all, (key, value)| all.insert(Header { key, value: Some(value.as_ref()) }))
}

/// Returns what is known of the brokers: how many they are, since they do not tell their release.
pub(crate) async fn release(section: &KafkaSection) -> Result<String> {
    let client: ClientConfig = client_properties(section).collect();
    let asked = tokio::task::spawn_blocking(move || {
        let opened: rdkafka::error::KafkaResult<BaseConsumer<Quiet>> =
            BaseConsumer::from_config_and_context(&client, Quiet);
        Ok::<_, KafkaError>(opened?.fetch_metadata(None, ANSWER)?.brokers().len())
    });
    match asked.await {
        Ok(Ok(1)) => Ok("Kafka, one broker".to_owned()),
        Ok(Ok(brokers)) => Ok(format!("Kafka, {brokers} brokers")),
        Ok(Err(error)) => Err(unavailable("connecting", error)),
        Err(error) => Err(unavailable("connecting", error)),
    }
}
