//! The bus beside the bare client, in one run, interleaved: ratios, not rates.
//!
//! ```text
//! cargo run --release -p eventbus-nats --example speed -- nats://localhost:4222 [MESSAGES] [ROUNDS]
//! ```
//!
//! | row | bus | bare client |
//! |---|---|---|
//! | publish | strict, 1 000 keys, all confirmed | the client's own pipelined publish, 4 000 unacknowledged, no order under failure |
//! | consume | keyed, concurrency 16, commits | 16 pull loops, one a partition, that acknowledge cumulatively each 500 |
#![allow(clippy::print_stdout)] // a program's output

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, consumer, stream};
use eventbus_core::wire::Mode;
use eventbus_core::{Delivery, Envelope, EventBus, Subscribe, TopicSpec, handler_fn};
use eventbus_nats::{NatsConfig, NatsEventBus};
use futures_util::{StreamExt, TryStreamExt};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const KEYS: usize = 1_000;
const PARTITIONS: usize = 16;
const BYTES: usize = 256;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().unwrap_or_else(|| "nats://localhost:4222".into());
    let messages: usize = arguments.next().map_or(Ok(200_000), |text| text.parse())?;
    let rounds: usize = arguments.next().map_or(Ok(3), |text| text.parse())?;
    let rate = |took: Duration| messages as f64 / took.as_secs_f64() / 1_000.0;
    let mut ratios: Vec<(&str, Vec<f64>)> = Vec::new();
    for round in 0..rounds {
        let prefix = format!("speed-{:08x}", rand::random::<u32>());
        let bare = Bare::new(&url, &format!("{prefix}-bare")).await?;
        let bare_publish = rate(bare.publish(messages).await?);
        let bare_consume = rate(bare.consume(messages).await?);
        bare.remove().await?;
        for (mode, name) in [(Mode::Binary, "binary"), (Mode::Structured, "structured")] {
            let config = NatsConfig::new(&*url).prefix(format!("{prefix}-{}", &name[..1])).mode(mode);
            let bus = NatsEventBus::connect(config).await?;
            bus.ensure_topic(&TopicSpec::new("speed")).await?;
            let publish = rate(publish(&bus, messages).await?);
            let consume = rate(consume(&bus, messages).await?);
            bus.delete_group("speed", "g").await?;
            bus.delete_topic("speed").await?;
            println!(
                "round {round} {name:10}: publish {publish:.0} k/s (bare {bare_publish:.0}), \
                 consume {consume:.0} k/s (bare {bare_consume:.0})"
            );
            note(
                &mut ratios,
                if mode == Mode::Binary { "publish, binary" } else { "publish, structured" },
                publish / bare_publish,
            );
            note(
                &mut ratios,
                if mode == Mode::Binary { "consume, binary" } else { "consume, structured" },
                consume / bare_consume,
            );
        }
    }
    for (row, mut ratios) in ratios {
        ratios.sort_by(f64::total_cmp);
        println!("{row:20} {:.2} of the bare client (median of {})", ratios[ratios.len() / 2], ratios.len());
    }
    Ok(())
}

fn note(ratios: &mut Vec<(&'static str, Vec<f64>)>, row: &'static str, ratio: f64) {
    match ratios.iter_mut().find(|(known, _)| *known == row) {
        Some((_, known)) => known.push(ratio),
        None => ratios.push((row, vec![ratio])),
    }
}

async fn publish(bus: &NatsEventBus, messages: usize) -> Result<Duration, Failure> {
    let payload = bytes::Bytes::from(vec![b'x'; BYTES]);
    let begun = Instant::now();
    let mut confirmations = Vec::with_capacity(messages);
    for n in 0..messages {
        let envelope = Envelope::builder("Speed", "/speed").key(format!("key-{}", n % KEYS)).payload(payload.clone());
        confirmations.push(bus.publish("speed", envelope.build()?).await?);
    }
    for confirmation in confirmations {
        confirmation.await?;
    }
    Ok(begun.elapsed())
}

async fn consume(bus: &NatsEventBus, messages: usize) -> Result<Duration, Failure> {
    let (seen, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(tokio::sync::Notify::new()));
    let (count, tell) = (seen.clone(), done.clone());
    let handler = handler_fn(move |delivery: Delivery| {
        let (count, tell) = (count.clone(), tell.clone());
        async move {
            if !delivery.envelope().payload().is_empty() && count.fetch_add(1, Ordering::Relaxed) + 1 == messages {
                tell.notify_one();
            }
            Ok(())
        }
    });
    let begun = Instant::now();
    let subscription = bus.subscribe(Subscribe::to("speed").group("g"), handler).await?;
    done.notified().await;
    let took = begun.elapsed();
    subscription.close(Duration::from_secs(10)).await?;
    Ok(took)
}

/// The client alone.
struct Bare {
    context: jetstream::Context,
    name: String,
}

impl Bare {
    async fn new(url: &str, name: &str) -> Result<Self, Failure> {
        let client = async_nats::ConnectOptions::new().subscription_capacity(1 << 20).connect(url).await?;
        let context = jetstream::ContextBuilder::new().max_ack_inflight(4_000).build(client);
        let subjects = vec![format!("{name}.*")];
        context.create_stream(stream::Config { name: name.into(), subjects, ..Default::default() }).await?;
        Ok(Self { context, name: name.into() })
    }

    async fn publish(&self, messages: usize) -> Result<Duration, Failure> {
        let payload = bytes::Bytes::from(vec![b'x'; BYTES]);
        let begun = Instant::now();
        let mut window = std::collections::VecDeque::with_capacity(4_000);
        for n in 0..messages {
            if window.len() == 4_000
                && let Some(oldest) = window.pop_front()
            {
                let oldest: jetstream::context::PublishAckFuture = oldest;
                oldest.await?;
            }
            let message = jetstream::message::PublishMessage::build()
                .payload(payload.clone())
                .message_id(format!("{:032x}-{n}", 7))
                .header("key", format!("key-{}", n % KEYS).as_str());
            let subject = format!("{}.p{:02}", self.name, n % KEYS % PARTITIONS);
            window.push_back(self.context.send_publish(subject, message).await?);
        }
        for ack in window {
            ack.await?;
        }
        Ok(begun.elapsed())
    }

    async fn consume(&self, messages: usize) -> Result<Duration, Failure> {
        let stream = self.context.get_stream(&self.name).await?;
        let begun = Instant::now();
        let readers = (0..PARTITIONS).map(|partition| {
            let (stream, subject) = (stream.clone(), format!("{}.p{partition:02}", self.name));
            let mine = (0..messages).filter(|n| n % KEYS % PARTITIONS == partition).count();
            tokio::spawn(async move {
                let config = consumer::pull::Config {
                    filter_subject: subject,
                    ack_policy: consumer::AckPolicy::All,
                    max_ack_pending: 100_000,
                    ..Default::default()
                };
                let reader = stream.create_consumer(config).await?;
                let mut records = reader.stream().max_messages_per_batch(1_000).messages().await?;
                for n in 1..=mine {
                    let Some(record) = records.next().await else { break };
                    let record = record?;
                    if n % 500 == 0 || n == mine {
                        record.ack().await?;
                    }
                }
                Ok::<(), Failure>(())
            })
        });
        futures_util::stream::iter(readers).buffer_unordered(PARTITIONS).map(|read| read?).try_collect::<()>().await?;
        Ok(begun.elapsed())
    }

    async fn remove(&self) -> Result<(), Failure> {
        self.context.delete_stream(&self.name).await?;
        Ok(())
    }
}
