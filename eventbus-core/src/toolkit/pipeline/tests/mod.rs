//! The pipeline over clients in memory, which store and fail when a test says so. Each test is named for what it keeps.

use std::sync::Arc;

use super::failure::DeliveryErrorKind;
use super::limits::TopicLimits;
use super::producer::Producer;
use crate::model::{ErrorKind, Topic};

mod ends;
mod fake;
mod order;
mod suspects;
mod weather;

use fake::{Broker, Told, until};

/// A refusal of a batch whose culprit is not known.
const BATCH: DeliveryErrorKind = DeliveryErrorKind::SomeOfBatch(ErrorKind::Refused);

const LIMIT: usize = 10_000;

fn topic() -> Topic {
    "t".parse().unwrap()
}

/// A started producer, its clients, and the fates that tickets were told.
struct Bench {
    producer: Arc<Producer<Broker>>,
    broker: Broker,
    told: Arc<Told>,
}

impl Bench {
    fn new() -> Self {
        let bench = Self { producer: Producer::new(), broker: Broker::default(), told: Arc::default() };
        bench.producer.start(bench.broker.clone());
        bench.limit(LIMIT);
        bench
    }

    fn limit(&self, limit: usize) {
        self.producer.known().set(&topic(), TopicLimits::new("t", limit, false));
    }

    fn submit(&self, partition: u32, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            self.producer.submit(fake::record(partition, number), self.told.ticket(number));
        }
    }

    /// Makes a client that has stored one record already, so that it may be given several of the partition.
    fn begin(&self, partition: u32, number: u64) {
        self.submit(partition, [number]);
        let client = self.broker.clients() - 1;
        self.broker.store(client, partition, 1);
    }

    /// Waits for that many fates, and until failed clients are replaced.
    async fn told(&self, count: usize) {
        until(|| self.told.len() == count && !self.is_replacing()).await;
    }

    fn is_replacing(&self) -> bool {
        let mut lines = self.producer.quarantine.lock().lines();
        lines.extend(self.producer.lines.lock().values().cloned());
        lines.iter().any(|line| line.state.lock().failing)
    }
}
