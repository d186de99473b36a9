//! S5 and S7 where the broker is in trouble: a member at its end is not asked again, a drain has all its time for the
//! last commit, and a partition that cannot be read can be given back.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests, which clippy takes for library code

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use eventbus_core::backend::{Backend, Commit, GroupEvent, Join, LogState, Membership};
use eventbus_core::backend::{ForwardBackend, ForwardMember};
use eventbus_core::{
    Bus, BusConfig, Envelope, Error, ErrorKind, EventBus, Handler, Position, Result, Subscribe, Threads, TopicSpec,
    handler_fn,
};
use eventbus_memory::MemoryWorld;
use eventbus_memory::testing::Probe;
use tokio::sync::Notify;

/// Trouble for the members of a test, and counts of what they did.
#[derive(Debug, Default)]
struct Trouble {
    /// Notified when a member comes to its end.
    end: Notify,
    /// Calls of `next` that were answered with the member's end.
    told: AtomicU64,
    /// Time that the broker takes for a commit.
    commits_take: Duration,
    /// Whether reads hang.
    reads_hang: bool,
    reads: Notify,
    released: AtomicU64,
}

#[derive(Debug)]
struct Troubled(Arc<dyn Backend>, Arc<Trouble>);

#[async_trait]
impl ForwardBackend for Troubled {
    fn inner(&self) -> &dyn Backend {
        &*self.0
    }

    async fn join(&self, join: Join) -> Result<Arc<dyn Membership>> {
        Ok(Arc::new(TroubledMember(self.0.join(join).await?, self.1.clone(), AtomicBool::new(false))))
    }
}

#[derive(Debug)]
struct TroubledMember(Arc<dyn Membership>, Arc<Trouble>, AtomicBool);

#[async_trait]
impl ForwardMember for TroubledMember {
    fn inner(&self) -> &dyn Membership {
        &*self.0
    }

    async fn next(&self) -> Result<GroupEvent> {
        let Self(inner, trouble, over) = self;
        if !over.load(Ordering::Relaxed) {
            tokio::select! {
                event = inner.next() => return event,
                () = trouble.end.notified() => over.store(true, Ordering::Relaxed),
            }
        }
        // A caller that asks again would do so for ever, without time going by: better a panic than a test that hangs.
        assert!(trouble.told.fetch_add(1, Ordering::Relaxed) < 100, "asked on and on");
        Err(Error::new(ErrorKind::Unavailable, "the member is at its end"))
    }

    async fn commit(&self, commit: Commit) -> Result<()> {
        tokio::time::sleep(self.1.commits_take).await;
        self.0.commit(commit).await
    }

    async fn read(&self, partition: u32, from: Position) -> Result<LogState> {
        if self.1.reads_hang {
            self.1.reads.notify_one();
            std::future::pending::<()>().await;
        }
        self.0.read(partition, from).await
    }

    async fn release(&self, partition: u32) -> Result<()> {
        self.1.released.fetch_add(1, Ordering::Relaxed);
        self.0.release(partition).await
    }
}

async fn bus_in(world: &MemoryWorld, trouble: &Arc<Trouble>) -> Bus {
    let backend = Arc::new(Troubled(Arc::new(world.connect()), trouble.clone()));
    let bus = Bus::connect(backend, BusConfig::new().threads(Threads::Caller)).await.unwrap();
    bus.ensure_topic(&TopicSpec::new("orders").partitions(2)).await.unwrap();
    bus
}

async fn bus(trouble: &Arc<Trouble>) -> Bus {
    bus_in(&MemoryWorld::new(), trouble).await
}

async fn publish(bus: &Bus, key: &str) {
    let envelope = Envelope::builder("Placed", "/shop").key(key).build().unwrap();
    drop(bus.publish("orders", envelope).await.unwrap());
}

fn quick() -> Arc<dyn Handler> {
    handler_fn(|_| async { Ok(()) })
}

#[tokio::test(start_paused = true)]
async fn a_member_at_its_end_is_not_asked_again_while_its_handlers_run() {
    let (trouble, started) = (Arc::new(Trouble::default()), Arc::new(Notify::new()));
    let bus = bus(&trouble).await;
    let (running, starts) = (Arc::new(()), started.clone());
    let runs = Arc::downgrade(&running);
    let handler = handler_fn(move |_| {
        let (running, starts) = (runs.upgrade(), starts.clone());
        async move {
            starts.notify_one();
            std::future::pending::<()>().await;
            drop(running);
            Ok(())
        }
    });
    let subscription = bus.subscribe(Subscribe::to("orders").group("billing"), handler).await.unwrap();
    publish(&bus, "k").await;
    started.notified().await;
    trouble.end.notify_one();
    let why =
        tokio::time::timeout(Duration::from_secs(600), subscription.closed()).await.expect("it goes on").unwrap_err();
    assert_eq!(why.kind(), ErrorKind::Unavailable, "{why}");
    assert_eq!(trouble.told.load(Ordering::Relaxed), 1);
    assert_eq!(Arc::strong_count(&running), 1, "its handler is gone");
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_its_last_commit_as_long_as_it_may() {
    let trouble = Arc::new(Trouble { commits_take: Duration::from_secs(4), ..Trouble::default() });
    let bus = bus(&trouble).await;
    let probe = Probe::new();
    let subscription = bus.subscribe(Subscribe::to("orders").group("billing"), probe.around(quick())).await.unwrap();
    publish(&bus, "k").await;
    probe.wait_until_handled(1).await;
    subscription.drain(Duration::from_secs(10)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_given_back_all_the_same() {
    let (world, trouble) = (MemoryWorld::new(), Arc::new(Trouble { reads_hang: true, ..Trouble::default() }));
    let (stuck, other) = (bus_in(&world, &trouble).await, bus_in(&world, &Arc::default()).await);
    let options = || Subscribe::to("orders").group("billing");
    let _stuck = stuck.subscribe(options(), quick()).await.unwrap();
    trouble.reads.notified().await;
    for key in 0..20 {
        publish(&stuck, &format!("k{key}")).await;
    }
    let probe = Probe::new();
    let _other = other.subscribe(options(), probe.around(quick())).await.unwrap();
    probe.wait_until_handled(1).await;
    assert_eq!(trouble.released.load(Ordering::Relaxed), 1, "taken, not given back");
}
