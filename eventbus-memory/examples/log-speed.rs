//! Speed of the bare log: appends records, then reads them in batches, on one thread, without the engine around it.
//!
//! `cargo run --release -p eventbus-memory --example log-speed`
#![allow(clippy::print_stdout)]

use std::sync::Arc;
use std::time::Instant;

use eventbus_core::backend::{Backend, Fate, GroupEvent, Join, Outbound, ensure_topic};
use eventbus_core::backend::{Ticket, TicketSink};
use eventbus_core::{Envelope, Position, ProducerId, Result, Stamp, TopicSpec};
use eventbus_memory::MemoryWorld;

const RECORDS: u64 = 2_000_000;
const PARTITIONS: u32 = 16;

struct Ignore;

impl TicketSink for Ignore {
    fn told(self: Arc<Self>, _id: u64, _fate: Fate) {}

    fn stands(&self, _id: u64) -> bool {
        true
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let backend = MemoryWorld::new().connect();
    let topic = ensure_topic(&backend, &TopicSpec::new("t").partitions(PARTITIONS)).await?;
    let name: eventbus_core::Topic = "t".parse()?;
    let sink: Arc<dyn TicketSink> = Arc::new(Ignore);
    let envelopes: Vec<Envelope> =
        (0..1_000).map(|n| Envelope::builder("E", "/s").key(format!("k{n}")).build()).collect::<Result<_>>()?;

    let start = Instant::now();
    for number in 0..RECORDS {
        let envelope = envelopes[number as usize % envelopes.len()].clone();
        let stamp = Stamp::new(ProducerId::new(1), number);
        let record = Outbound::new(name.clone(), number as u32 % PARTITIONS, stamp, envelope);
        backend.submit(record, Ticket::new(Arc::clone(&sink), number));
    }
    report("appended", start);

    let member = backend.join(Join::new(topic, "g".parse()?, "m")).await?;
    if let GroupEvent::Assigned(assigned) = member.next().await? {
        for assignment in assigned {
            member.read(assignment.partition, Position::ZERO).await?;
        }
    }
    let start = Instant::now();
    let mut read = 0;
    while read < RECORDS {
        if let GroupEvent::Records(records) = member.next().await? {
            read += records.len() as u64;
        }
    }
    report("read", start);
    Ok(())
}

fn report(what: &str, start: Instant) {
    let seconds = start.elapsed().as_secs_f64();
    println!("{what} {RECORDS} in {seconds:.3} s: {:.2} M/s", RECORDS as f64 / seconds / 1e6);
}
