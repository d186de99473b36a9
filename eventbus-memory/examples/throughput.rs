//! Throughput of the whole bus on memory: envelopes per second and CPU time for each, over numbers of keys. A bare
//! tokio channel hands over the same envelopes in the same run, for comparison. Everything runs under the default
//! configuration; CPU time is the process's. Each figure is the best of three rounds.
//!
//! `cargo run --release -p eventbus-memory --example throughput -- [ENVELOPES [KEYS...]]`
//!
//! CPU time for each envelope should not depend on the number of keys: the last column is its ratio to the first
//! line's.
#![allow(clippy::print_stdout)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use eventbus_core::{Bus, BusConfig, Delivery, Envelope, EventBus, Result, Subscribe, TopicSpec, handler_fn};
use eventbus_memory::MemoryWorld;
use tokio::sync::{Notify, mpsc};

const PAYLOAD: usize = 256;

fn cpu() -> Duration {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(used.tv_sec.unsigned_abs(), u32::try_from(used.tv_nsec).unwrap_or_default())
}

/// Builds `count` envelopes of `keys` keys in turn, beforehand, so that only the bus is measured. Each envelope is an
/// object of its own, as a service makes them, so that runs differ by nothing but their keys.
fn envelopes(count: usize, keys: usize) -> Result<Vec<Envelope>> {
    let payload = Bytes::from(vec![7; PAYLOAD]);
    let build = |key| Envelope::builder("Placed", "/shop").key(format!("order-{key}")).payload(payload.clone()).build();
    (0..count).map(|number| build(number % keys)).collect()
}

/// Result of a run: `rate` in envelopes a second, `each` in microseconds of CPU time per envelope.
#[derive(Clone, Copy)]
struct Seen {
    rate: f64,
    each: f64,
}

impl Seen {
    const NONE: Self = Self { rate: 0.0, each: f64::INFINITY };

    fn better(self, other: Self) -> Self {
        Self { rate: self.rate.max(other.rate), each: self.each.min(other.each) }
    }

    fn since(count: usize, start: Instant, used: Duration) -> Self {
        let each = (cpu() - used).as_secs_f64() * 1e6 / count as f64;
        Self { rate: count as f64 / start.elapsed().as_secs_f64(), each }
    }
}

async fn channel(envelopes: Vec<Envelope>) -> Seen {
    let count = envelopes.len();
    let (send, mut receive) = mpsc::channel::<Envelope>(1_024);
    let (start, used) = (Instant::now(), cpu());
    let receiver = tokio::spawn(async move {
        let mut bytes = 0;
        while let Some(envelope) = receive.recv().await {
            bytes += envelope.payload().len();
        }
        bytes
    });
    for envelope in envelopes {
        if send.send(envelope).await.is_err() {
            break;
        }
    }
    drop(send);
    let _ = receiver.await;
    Seen::since(count, start, used)
}

async fn bus(envelopes: Vec<Envelope>) -> Result<Seen> {
    let bus = Bus::new(Arc::new(MemoryWorld::new().connect()), BusConfig::new())?;
    bus.ensure_topic(&TopicSpec::new("orders")).await?;
    let count = envelopes.len();
    let (left, done) = (Arc::new(AtomicU64::new(count as u64)), Arc::new(Notify::new()));
    let tell = done.clone();
    let handler = handler_fn(move |_: Delivery| {
        let last = left.fetch_sub(1, Ordering::AcqRel) == 1;
        if last {
            tell.notify_one();
        }
        async { Ok(()) }
    });
    let subscription = bus.subscribe(Subscribe::to("orders").group("billing"), handler).await?;
    let (start, used) = (Instant::now(), cpu());
    for envelope in envelopes {
        // `publish` is awaited for its room in the budget, not for the confirmation.
        drop(bus.publish("orders", envelope).await?);
    }
    done.notified().await;
    let seen = Seen::since(count, start, used);
    subscription.drain(Duration::from_secs(10)).await?;
    Ok(seen)
}

/// Rounds of every case. Other load on the machine only ever adds time, so the cheapest run of each case counts.
const ROUNDS: usize = 3;

#[tokio::main]
async fn main() -> Result<()> {
    let mut numbers = std::env::args().skip(1).filter_map(|number| number.parse().ok());
    let count = numbers.next().unwrap_or(1_000_000);
    let keys: Vec<usize> = numbers.filter(|keys| *keys > 0).collect();
    let keys = if keys.is_empty() { vec![1, 100, 10_000, 1_000_000] } else { keys };
    // One run is not measured: the first pays for memory that later ones find allocated.
    bus(envelopes(count, keys[0])?).await?;
    let mut bare = Seen::NONE;
    let mut best = vec![Seen::NONE; keys.len()];
    for _ in 0..ROUNDS {
        bare = bare.better(channel(envelopes(count, keys[0])?).await);
        for (best, keys) in best.iter_mut().zip(&keys) {
            *best = best.better(bus(envelopes(count, *keys)?).await?);
        }
    }
    println!("{:24} {:>13} {:>8} {:>14} {:>9}", "", "envelopes/s", "of mpsc", "us CPU each", "relative");
    println!("{:24} {:>13.0} {:>8.2} {:>14.3}", "tokio mpsc", bare.rate, 1.0, bare.each);
    for (Seen { rate, each }, keys) in best.iter().zip(&keys) {
        let name = format!("bus, {keys} keys");
        println!("{name:24} {rate:>13.0} {:>8.2} {each:>14.3} {:>9.2}", rate / bare.rate, each / best[0].each);
    }
    Ok(())
}
