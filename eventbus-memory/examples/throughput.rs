//! Envelopes per second through the whole bus on memory, and what a bare tokio channel needs to hand over the same
//! envelopes, in the same run. Everything under the default configuration; CPU time is the process's.
//!
//! `cargo run --release -p eventbus-memory --example throughput -- [ENVELOPES]`
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

/// As many envelopes as asked for, of that many keys in turn. Made beforehand: what is measured is the bus.
fn envelopes(count: usize, keys: usize) -> Result<Vec<Envelope>> {
    let payload = Bytes::from(vec![7; PAYLOAD]);
    let build = |key| Envelope::builder("Placed", "/shop").key(format!("order-{key}")).payload(payload.clone()).build();
    let distinct: Vec<Envelope> = (0..keys.min(count)).map(build).collect::<Result<_>>()?;
    Ok((0..count).map(|number| distinct[number % distinct.len()].clone()).collect())
}

fn report(what: &str, count: usize, start: Instant, used: Duration) -> f64 {
    let seconds = start.elapsed().as_secs_f64();
    let each = (cpu() - used).as_secs_f64() * 1e6 / count as f64;
    println!("{what:24} {:>10.0} envelopes/s  {each:6.3} us CPU each", count as f64 / seconds);
    count as f64 / seconds
}

async fn channel(envelopes: Vec<Envelope>) -> f64 {
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
    report("tokio mpsc", count, start, used)
}

async fn bus(envelopes: Vec<Envelope>, keys: usize) -> Result<f64> {
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
        // Room is awaited, the confirmation is not.
        drop(bus.publish("orders", envelope).await?);
    }
    done.notified().await;
    let rate = report(&format!("bus, {keys} keys"), count, start, used);
    subscription.close(Duration::from_secs(10)).await?;
    Ok(rate)
}

#[tokio::main]
async fn main() -> Result<()> {
    let count = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(1_000_000);
    let bare = channel(envelopes(count, 1_000)?).await;
    for keys in [1, 10, 1_000, 1_000_000] {
        let rate = bus(envelopes(count, keys)?, keys).await?;
        println!("{:24} {:>10.2} of the channel's rate", "", rate / bare);
    }
    Ok(())
}
