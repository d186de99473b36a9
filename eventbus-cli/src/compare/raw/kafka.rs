//! Kafka by `rdkafka`: a producer with the bus's settings, and a consumer that reads all partitions without a group.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use eventbus::Result;
use eventbus::wire::{self, Binding, Mode};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{DeliveryResult, Header, Headers as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext, Message, Offset, TopicPartitionList};

use super::{Race, Send1, unavailable};
use crate::compare::workloads::INDEX;
use crate::interrupt::Interrupt;

/// What the bus writes.
static BINDING: Binding = Binding::new("ce_").content_type("content-type").keyed(true);

/// How long the broker may take to make and remove topics.
const ADMIN: Duration = Duration::from_secs(20);
/// How long a reader waits before it looks whether it is to end.
const LOOK: Duration = Duration::from_millis(100);

/// What the bus's own producer has, on top of how the brokers are reached.
const PRODUCER: [(&str, &str); 5] = [
    ("enable.idempotence", "true"),
    ("acks", "all"),
    ("max.in.flight.requests.per.connection", "5"),
    ("linger.ms", "1"),
    ("queue.buffering.max.messages", "40000"),
];

/// `client` is how the brokers are reached.
pub(super) async fn run(race: &Arc<Race>, client: &ClientConfig, interrupt: &Interrupt) -> Result<bool> {
    let admin: AdminClient<DefaultClientContext> = client.create().map_err(|error| unavailable("connecting", error))?;
    let topics: Vec<String> = (0..race.plan.topics.len() as u32).map(|topic| race.topic(topic)).collect();
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    let ran = through(race, client, &admin, &names, interrupt).await;
    let options = AdminOptions::new().operation_timeout(Some(ADMIN));
    let removed = admin.delete_topics(&names, &options).await.map_err(|error| unavailable("removing topics", error));
    let ran = ran?;
    removed?;
    Ok(ran)
}

async fn through(
    race: &Arc<Race>,
    client: &ClientConfig,
    admin: &AdminClient<DefaultClientContext>,
    topics: &[&str],
    interrupt: &Interrupt,
) -> Result<bool> {
    let (partitions, replicas) = (race.partitions as i32, race.replicas as i32);
    let wanted = topics.iter().map(|name| NewTopic::new(name, partitions, TopicReplication::Fixed(replicas)));
    let wanted: Vec<NewTopic<'_>> = wanted.collect();
    let made = admin.create_topics(&wanted, &AdminOptions::new().operation_timeout(Some(ADMIN))).await;
    for made in made.map_err(|error| unavailable("making topics", error))? {
        made.map_err(|(topic, code)| unavailable(&format!("making {topic}"), code))?;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let reader = reader(race, client, topics)?;
    let reading = {
        let (race, stop) = (race.clone(), stop.clone());
        tokio::task::spawn_blocking(move || read(&race, &reader, &stop))
    };
    let mut settings = client.clone();
    PRODUCER.into_iter().for_each(|(name, value)| drop(settings.set(name, value)));
    let producer: std::result::Result<ThreadedProducer<Told>, _> =
        settings.create_with_context(Told { race: race.clone() });
    let ran = match producer {
        Ok(producer) => {
            let topics = topics.iter().map(ToString::to_string).collect();
            Ok(race.run(Publisher { producer, topics }, interrupt).await)
        }
        Err(error) => Err(unavailable("making a producer", error)),
    };
    stop.store(true, Ordering::Release);
    // It looks soon.
    let _ = reading.await;
    ran
}

fn reader(race: &Race, client: &ClientConfig, topics: &[&str]) -> Result<BaseConsumer> {
    let mut settings = client.clone();
    // The client demands a group's name, and uses it for nothing here.
    settings.set("group.id", "compare-bare").set("enable.auto.commit", "false");
    settings.set("queued.max.messages.kbytes", "65536");
    let made: std::result::Result<BaseConsumer, _> = settings.create();
    let reader = made.map_err(|error| unavailable("making a consumer", error))?;
    let mut all = TopicPartitionList::new();
    for topic in topics {
        for partition in 0..race.partitions {
            let added = all.add_partition_offset(topic, partition as i32, Offset::Beginning);
            added.map_err(|error| unavailable("reading", error))?;
        }
    }
    reader.assign(&all).map_err(|error| unavailable("reading", error))?;
    Ok(reader)
}

/// Reads on a thread that may block, as the client wants it.
fn read(race: &Race, reader: &BaseConsumer, stop: &AtomicBool) {
    while !stop.load(Ordering::Acquire) {
        // An error is a broker that is away: what does not come shows as missing.
        if let Some(Ok(message)) = reader.poll(LOOK) {
            race.arrived(index(&message), u32::try_from(message.partition()).unwrap_or_default());
        }
    }
}

/// The message's place in the plan, as the plan finds it in an envelope.
fn index(message: &impl Message) -> Option<usize> {
    let headers = message.headers()?;
    let attribute = |name: &str| {
        let header = headers.iter().find(|header| header.key.strip_prefix(BINDING.prefix) == Some(name))?;
        std::str::from_utf8(header.value?).ok()
    };
    attribute(INDEX).or_else(|| attribute("id"))?.parse().ok()
}

/// Learns what became of each record.
struct Told {
    race: Arc<Race>,
}

impl ClientContext for Told {
    /// Brokers that are away show as what is missing.
    fn error(&self, _: KafkaError, _: &str) {}
}

impl ProducerContext for Told {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, index: usize) {
        if result.is_ok() { self.race.confirmed(index) } else { self.race.failed() }
    }
}

struct Publisher {
    producer: ThreadedProducer<Told>,
    topics: Vec<String>,
}

impl Send1 for Publisher {
    async fn send(&self, race: &Arc<Race>, index: usize) {
        let item = &race.plan.items[index];
        let record = wire::encode(&item.envelope, None, &BINDING, Mode::Binary);
        let headers = OwnedHeaders::new_with_capacity(record.headers.len());
        let headers = record
            .headers
            .iter()
            .fold(headers, |headers, (key, value)| headers.insert(Header { key, value: Some(value.as_ref()) }));
        let mut to = BaseRecord::with_opaque_to(&self.topics[item.topic as usize], index)
            .partition(race.partition(index) as i32)
            .payload(&record.payload[..])
            .headers(headers);
        if let Some(key) = &record.key {
            to = to.key(&key[..]);
        }
        loop {
            match self.producer.send(to) {
                Ok(()) => return,
                // Full: the client's threads make room.
                Err((KafkaError::MessageProduction(Code::QueueFull), back)) => to = back,
                Err(_) => return race.failed(),
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        // What is left was given up with the run.
        self.producer.purge(rdkafka::producer::PurgeConfig::default().queue().inflight());
    }
}
