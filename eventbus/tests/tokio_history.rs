//! Real events with a known result: 20 875 changes of 2 400 files, handled by three members with 64 handlers each, some
//! of whose attempts fail. The figures are those of `data/README.md`.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use conformance_tests::file_history::{Change, Tree};
use eventbus::observe::BusEvent;
use eventbus::{Backoff, Delivery, Envelope, EventBusConfig, HandlerError, Subscribe, TopicSpec, handler_fn};
use serde::Deserialize;
use tokio::sync::Notify;

const EVENTS: usize = 20_875;
const KEYS: usize = 2_400;
const FILES: usize = 868;
const SHA256: &str = "c36f550ebdca3751b834c74dc8022b462452237ca04e32f2b86653e771ae7d63";

#[derive(Deserialize)]
struct Line {
    key: String,
    #[serde(rename = "type")]
    event_type: String,
    sequence: u64,
    payload: Change,
}

fn lines() -> Vec<Line> {
    let file = std::fs::File::open(concat!(env!("CARGO_MANIFEST_DIR"), "/../data/tokio-history.ndjson.gz")).unwrap();
    let lines = BufReader::new(flate2::read::GzDecoder::new(file)).lines();
    lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect()
}

struct Shared {
    tree: Mutex<Tree>,
    by_member: Mutex<BTreeMap<String, usize>>,
    failures: AtomicUsize,
    left: AtomicUsize,
    done: Notify,
}

impl Shared {
    async fn handle(&self, delivery: Delivery) -> Result<(), HandlerError> {
        tokio::task::yield_now().await;
        // Of the attempts 5 % fail, at most three of one envelope.
        if delivery.attempt() <= 3 && rand::random_bool(0.05) {
            self.failures.fetch_add(1, Ordering::Relaxed);
            return Err(HandlerError::retry("a random failure"));
        }
        let change: Change = serde_json::from_slice(delivery.envelope().payload())?;
        let (key, sequence) = (delivery.envelope().key().unwrap(), delivery.envelope().sequence().unwrap());
        self.tree.lock().unwrap().fold(key.as_bytes(), sequence, &change);
        *self.by_member.lock().unwrap().entry(delivery.member().to_owned()).or_default() += 1;
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.done.notify_one();
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_whose_handlers_fail_fold_the_history_of_tokio() {
    let lines = lines();
    assert_eq!(lines.len(), EVENTS);
    assert_eq!(lines.iter().filter(|line| line.sequence == 1).count(), KEYS);
    let dead = Arc::new(AtomicUsize::new(0));
    let counted = dead.clone();
    let config = EventBusConfig::memory(None);
    let bus = config.connect_with(|bus| {
        bus.hook(move |event: &BusEvent<'_>| {
            if let BusEvent::DeadLettered { .. } = event {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    let bus = bus.await.unwrap();
    bus.ensure_topic(&TopicSpec::new("tokio")).await.unwrap();

    let shared = Arc::new(Shared {
        tree: Mutex::new(Tree::new()),
        by_member: Mutex::default(),
        failures: AtomicUsize::new(0),
        left: AtomicUsize::new(EVENTS),
        done: Notify::new(),
    });
    let mut members = Vec::new();
    for _ in 0..3 {
        let shared = shared.clone();
        let options = Subscribe::to("tokio")
            .group("folding")
            .concurrency(64)
            .backoff(Backoff::exponential().initial(Duration::from_millis(1)).max(Duration::from_millis(10)));
        let handler = handler_fn(move |delivery: Delivery| {
            let shared = shared.clone();
            async move { shared.handle(delivery).await }
        });
        members.push(bus.subscribe(options, handler).await.unwrap());
    }

    let mut confirmations = Vec::with_capacity(lines.len());
    for line in &lines {
        let envelope = Envelope::builder(&line.event_type, "/tokio").key(line.key.as_str()).sequence(line.sequence);
        let envelope = envelope.json(&line.payload).build().unwrap();
        confirmations.push(bus.publish("tokio", envelope).await.unwrap());
    }
    for confirmation in confirmations {
        confirmation.await.unwrap();
    }
    shared.done.notified().await;
    for member in members {
        member.drain(Duration::from_secs(30)).await.unwrap();
    }

    let tree = shared.tree.lock().unwrap();
    assert_eq!(tree.broken(), [], "order broken");
    assert_eq!(tree.files().len(), FILES);
    assert_eq!(tree.sha256(), SHA256);
    assert_eq!(dead.load(Ordering::Relaxed), 0, "dead-lettered");
    // A run without failures, or with all the work on one member, would prove nothing.
    assert!(shared.failures.load(Ordering::Relaxed) > 500);
    assert_eq!(shared.by_member.lock().unwrap().len(), 3, "every member handled something");
}
