//! Helpers shared by the tests on a real server.
#![allow(dead_code, unreachable_pub, missing_debug_implementations)] // each test file uses its own part
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)] // tests, though no function here is one

pub mod proxy;
pub mod raw;
pub mod server;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use eventbus_core::{Delivery, Envelope, EventBus, EventBusExt, TopicSpec};
use eventbus_nats::{NatsConfig, NatsEventBus};

/// Connects another bus.
pub async fn connect(config: &NatsConfig) -> NatsEventBus {
    NatsEventBus::connect(config.clone()).await.expect("the server can be reached")
}

/// Removes the topics that a test left behind, and their groups.
pub async fn sweep(bus: &NatsEventBus) {
    for topic in bus.list_topics().await.unwrap_or_default() {
        for group in bus.list_groups(&topic).await.unwrap_or_default() {
            bus.delete_group(&topic, &group).await.unwrap();
        }
        bus.delete_topic(&topic).await.unwrap();
    }
}

/// The numbers of each key's handled envelopes, in order, without failed attempts.
#[derive(Debug, Clone, Default)]
pub struct Handled(Arc<Mutex<BTreeMap<String, Vec<u64>>>>);

impl Handled {
    pub fn push(&self, delivery: &Delivery) {
        let envelope = delivery.envelope();
        let key = envelope.key().map(ToString::to_string).unwrap_or_default();
        let number = envelope.sequence().unwrap_or_default();
        self.0.lock().unwrap().entry(key).or_default().push(number);
    }

    pub fn count(&self) -> usize {
        self.0.lock().unwrap().values().map(Vec::len).sum()
    }

    /// Counts distinct envelopes.
    pub fn distinct(&self) -> usize {
        let keys = self.0.lock().unwrap();
        keys.values().map(|numbers| numbers.iter().collect::<std::collections::BTreeSet<_>>().len()).sum()
    }

    /// Asserts that each key's numbers are runs that ascend by one, each begun at most one above the end of the run
    /// before.
    pub fn assert_ordered(&self) {
        for (key, numbers) in self.0.lock().unwrap().iter() {
            let mut last = 0;
            for number in numbers {
                assert!(*number <= last + 1, "key {key}: {number} after {last} in {numbers:?}");
                last = *number;
            }
        }
    }

    /// Waits until `count` distinct envelopes were handled.
    pub async fn until(&self, count: usize) {
        let wait = async {
            while self.distinct() < count {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(60), wait).await.is_err() {
            panic!("handled {} of {count}", self.distinct());
        }
    }
}

/// Publishes envelopes `from` to `to` (from 1 on) of each of `keys` keys, in turns, and waits until all are confirmed.
pub async fn publish(bus: &NatsEventBus, topic: &str, keys: usize, from: u64, to: u64) {
    let mut confirmations = Vec::new();
    for number in from..=to {
        for key in 0..keys {
            let envelope = Envelope::builder("Counted", "/test").key(format!("key {key}.*"));
            let envelope = envelope.sequence(number).payload(format!("{key}/{number}")).build().unwrap();
            confirmations.push(bus.publish(topic, envelope).await.unwrap());
        }
    }
    for confirmation in confirmations {
        confirmation.await.unwrap();
    }
}

/// Makes a topic.
pub async fn topic(bus: &NatsEventBus, name: &str, partitions: u32) {
    bus.ensure_topic(&TopicSpec::new(name).partitions(partitions)).await.unwrap();
}

/// Publishes one envelope, and waits for its confirmation.
pub async fn publish_one(bus: &NatsEventBus, topic: &str, key: &str, number: u64) -> eventbus_core::Result<()> {
    let envelope = Envelope::builder("Counted", "/test").key(key).sequence(number).payload("x").build().unwrap();
    bus.publish_confirmed(topic, envelope).await.map(drop)
}
