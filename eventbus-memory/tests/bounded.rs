//! S6 on the whole bus: neither memory nor tasks grow with keys or messages. A separate program, since it counts what
//! the allocator gives out.

use std::alloc::System;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use eventbus_core::{Bus, BusConfig, Delivery, Envelope, EventBus, Subscribe, Threads, TopicSpec, handler_fn};
use eventbus_memory::MemoryWorld;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::runtime::Handle;
use tokio::sync::Notify;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Envelopes published before the test waits for them.
const ROUND: u64 = 5_000;
/// Bytes that may be left of a million keys: half a word for each is the most that passes.
const SLACK: usize = 4 << 20;

/// Bytes allocated and not freed.
fn in_use() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated.saturating_sub(stats.bytes_deallocated)
}

fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

struct Rounds {
    bus: Bus,
    handled: Arc<AtomicU64>,
    through: Arc<Notify>,
    published: u64,
}

impl Rounds {
    fn next(&mut self) -> Envelope {
        self.published += 1;
        Envelope::builder("Placed", "/shop").key(format!("order-{}", self.published)).build().unwrap()
    }

    /// Publishes a round of new keys in one of the three ways, then waits until all are handled. Returns the most tasks
    /// seen.
    async fn run(&mut self, way: u64) -> usize {
        let envelopes: Vec<Envelope> = (0..ROUND).map(|_| self.next()).collect();
        let most = match way % 3 {
            0 => {
                let mut confirmations = Vec::new();
                for envelope in envelopes {
                    confirmations.push(self.bus.publish("orders", envelope).await.unwrap());
                }
                let most = tasks();
                for confirmation in confirmations {
                    confirmation.await.unwrap();
                }
                most
            }
            1 => {
                let batch = self.bus.publish_batch("orders", envelopes);
                let most = tasks();
                let _ = batch.await.unwrap().await;
                most
            }
            _ => {
                envelopes.into_iter().for_each(|envelope| drop(self.bus.publish("orders", envelope)));
                tasks()
            }
        };
        loop {
            let through = self.through.notified();
            if self.handled.load(Ordering::Acquire) == self.published {
                return most;
            }
            through.await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_million_keys_never_leave_memory_or_tasks_behind() {
    let bus = Bus::new(Arc::new(MemoryWorld::new().connect()), BusConfig::new().threads(Threads::Caller)).unwrap();
    // The memory of the stand-in for the broker must not count: its log keeps a few rounds, its duplicate window a
    // moment.
    let topic = TopicSpec::new("orders").partitions(4).max_messages(4 * ROUND);
    bus.ensure_topic(&topic.duplicate_window(Duration::from_millis(100))).await.unwrap();
    let (handled, through) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
    let (count, tell) = (handled.clone(), through.clone());
    let handler = handler_fn(move |_: Delivery| {
        let (count, tell) = (count.clone(), tell.clone());
        async move {
            if (count.fetch_add(1, Ordering::AcqRel) + 1).is_multiple_of(ROUND) {
                tell.notify_waiters();
            }
            Ok(())
        }
    });
    let subscription = bus.subscribe(Subscribe::to("orders").group("billing"), handler).await.unwrap();
    let mut rounds = Rounds { bus, handled, through, published: 0 };
    // Warm-up, until the log is full and every queue has been as long as it gets.
    for way in 0..12 {
        rounds.run(way).await;
    }
    let (memory, before) = (in_use(), tasks());
    let mut most = 0;
    for way in 0..1_000_000 / ROUND {
        most = most.max(rounds.run(way).await);
    }
    let (after, left) = (in_use(), tasks());
    assert!(after <= memory + SLACK, "{memory} bytes before, {after} after");
    assert_eq!((before, most), (left, left), "tasks before, at most, and after");
    // The last handler counts before the pool has heard that it ended.
    let unfinished = || subscription.inspect().iter().any(|partition| partition.unfinished > 0);
    let finished = async {
        while unfinished() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), finished).await.unwrap();
    drop(subscription);
}
