//! Speed of the bus beside the bare client, interleaved in one run: ratios, not rates.
//!
//! ```text
//! cargo run --release -p eventbus-nats --example nats-speed -- nats://localhost:4222 [MESSAGES [ROUNDS [SECONDS]]]
//! ```
//!
//! | workload | bus, default configuration | bare client |
//! |---|---|---|
//! | publish | strict, 1 000 keys, all confirmed | the client's own pipelined publish, 4 000 unacknowledged, no order under failure |
//! | consume | keyed, concurrency 16, commits | 16 pull loops, one a partition, that acknowledge cumulatively each 500 |
//! | both | the two at once on one bus | the two at once over one connection |
//! | p99 | SECONDS at 1 000/s | the same |
#![allow(clippy::print_stdout)] // a program's output

#[path = "speed/beside.rs"]
mod beside;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::context::PublishAckFuture;
use async_nats::jetstream::{self, consumer, message::PublishMessage, stream};
use async_trait::async_trait;
use beside::{BusSide, Contestant, Failure, Goals, KEYS, PARTITIONS, Payloads, Plan, Role, Seen, Side, Table};
use eventbus_core::wire::Mode;
use eventbus_core::{EventBus, TopicSpec};
use eventbus_nats::{NatsConfig, NatsEventBus};
use futures_util::StreamExt;
use tokio::task::JoinHandle;

const USAGE: &str = "\
nats-speed URL [MESSAGES [ROUNDS [SECONDS]]]

Puts the bus beside the bare client on the server at URL (nats://localhost:4222).
Defaults: 200000 messages, 3 rounds, latency for 10 seconds (0: not at all).";

/// Unacknowledged records of the bare client, as the goal states.
const UNACKNOWLEDGED: usize = 4_000;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let Some(url) = arguments.next().filter(|url| !url.starts_with('-')) else {
        println!("{USAGE}");
        return Ok(());
    };
    let plan = Plan::parse(arguments)?;
    let mut table = Table::new(Goals { publish: 1.1, consume: 0.9, both: 0.9, p99: 2.0 });
    for round in 0..plan.rounds {
        let prefix = format!("speed-{:08x}", rand::random::<u32>());
        let mut sides = vec![Contestant::new("bare", Role::Bare, Bare::new(&url, &format!("{prefix}-bare")).await?)?];
        for (mode, name) in [(Mode::Binary, "binary"), (Mode::Structured, "structured")] {
            let config = NatsConfig::new(&*url).prefix(format!("{prefix}-{}", &name[..1])).mode(mode);
            let bus = NatsEventBus::connect(config).await?;
            bus.ensure_topic(&TopicSpec::new("speed")).await?;
            sides.push(Contestant::new(name, Role::Bus, BusSide::new(bus, "speed"))?);
        }
        beside::round(round, sides, &plan, &mut table).await?;
    }
    table.print();
    Ok(())
}

/// The bare client as a side.
struct Bare {
    context: jetstream::Context,
    name: String,
    readers: Vec<JoinHandle<Result<(), Failure>>>,
}

impl Bare {
    async fn new(url: &str, name: &str) -> Result<Self, Failure> {
        let client = async_nats::ConnectOptions::new().subscription_capacity(1 << 20).connect(url).await?;
        let context = jetstream::ContextBuilder::new().max_ack_inflight(UNACKNOWLEDGED).build(client);
        let subjects = vec![format!("{name}.*")];
        context.create_stream(stream::Config { name: name.into(), subjects, ..Default::default() }).await?;
        Ok(Self { context, name: name.into(), readers: Vec::new() })
    }
}

#[async_trait(?Send)]
impl Side for Bare {
    async fn publish(&self, payloads: Payloads<'_>) -> Result<(), Failure> {
        let mut window: VecDeque<PublishAckFuture> = VecDeque::with_capacity(UNACKNOWLEDGED);
        // Each call needs other ids, or the server would take its records for copies.
        let call: u128 = rand::random();
        for (n, payload) in payloads.enumerate() {
            if window.len() == UNACKNOWLEDGED
                && let Some(oldest) = window.pop_front()
            {
                oldest.await?;
            }
            let message = PublishMessage::build()
                .payload(payload)
                .message_id(format!("{call:032x}-{n}"))
                .header("key", format!("key-{}", n % KEYS).as_str());
            let subject = format!("{}.p{:02}", self.name, n % KEYS % PARTITIONS);
            window.push_back(self.context.send_publish(subject, message).await?);
        }
        for ack in window {
            ack.await?;
        }
        Ok(())
    }

    async fn read(&mut self, seen: Arc<Seen>) -> Result<(), Failure> {
        let stream = self.context.get_stream(&self.name).await?;
        for partition in 0..PARTITIONS {
            let config = consumer::pull::Config {
                filter_subject: format!("{}.p{partition:02}", self.name),
                ack_policy: consumer::AckPolicy::All,
                // Records left unacknowledged between two workloads must not come again.
                ack_wait: Duration::from_secs(3_600),
                max_ack_pending: 100_000,
                ..Default::default()
            };
            let (stream, seen) = (stream.clone(), Arc::clone(&seen));
            self.readers.push(tokio::spawn(async move {
                let reader = stream.create_consumer(config).await?;
                let mut records = reader.stream().max_messages_per_batch(1_000).messages().await?;
                let mut count = 0_usize;
                while let Some(record) = records.next().await {
                    let record = record?;
                    seen.take(&record.payload);
                    count += 1;
                    if count.is_multiple_of(500) {
                        record.ack().await?;
                    }
                }
                Ok(())
            }));
        }
        Ok(())
    }

    async fn close(&mut self) -> Result<(), Failure> {
        for reader in self.readers.drain(..) {
            // A reader that ended by itself says why; the others go on for ever.
            if reader.is_finished() {
                reader.await??;
            } else {
                reader.abort();
            }
        }
        self.context.delete_stream(&self.name).await?;
        Ok(())
    }
}
