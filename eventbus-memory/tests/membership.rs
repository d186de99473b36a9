//! S5 and S7: a member that is at its end is at its end. It is not asked again, and what ran for it is waited for no longer than a
//! drain may take; a drain has for its last commit all the time that it was given.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests, which clippy takes for library code

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use eventbus_core::backend::{Backend, Commit, GroupEvent, Join, Membership};
use eventbus_core::forward::{ForwardBackend, ForwardMember};
use eventbus_core::{
    Bus, BusConfig, Envelope, Error, ErrorKind, EventBus, Result, Subscribe, Threads, TopicSpec, handler_fn,
};
use eventbus_memory::MemoryWorld;
use tokio::sync::Notify;

/// What the members of a test share.
#[derive(Debug, Default)]
struct End {
    near: Notify,
    /// Calls that were answered with the end.
    told: AtomicU64,
    /// How long the broker takes for a commit.
    commits_take: Duration,
}

#[derive(Debug)]
struct Ending(Arc<dyn Backend>, Arc<End>);

#[async_trait]
impl ForwardBackend for Ending {
    fn inner(&self) -> &dyn Backend {
        &*self.0
    }

    async fn join(&self, join: Join) -> Result<Arc<dyn Membership>> {
        Ok(Arc::new(EndingMember(self.0.join(join).await?, self.1.clone(), AtomicBool::new(false))))
    }
}

#[derive(Debug)]
struct EndingMember(Arc<dyn Membership>, Arc<End>, AtomicBool);

#[async_trait]
impl ForwardMember for EndingMember {
    fn inner(&self) -> &dyn Membership {
        &*self.0
    }

    async fn next(&self) -> Result<GroupEvent> {
        let Self(inner, end, over) = self;
        if !over.load(Ordering::Relaxed) {
            tokio::select! {
                event = inner.next() => return event,
                () = end.near.notified() => over.store(true, Ordering::Relaxed),
            }
        }
        // Whoever asks on asks without end, and no time goes by: better a panic than a test that hangs.
        assert!(end.told.fetch_add(1, Ordering::Relaxed) < 100, "asked on and on");
        Err(Error::new(ErrorKind::Unavailable, "the member is at its end"))
    }

    async fn commit(&self, commit: Commit) -> Result<()> {
        tokio::time::sleep(self.1.commits_take).await;
        self.0.commit(commit).await
    }
}

async fn bus(end: &Arc<End>) -> Bus {
    let backend = Arc::new(Ending(Arc::new(MemoryWorld::new().connect()), end.clone()));
    let bus = Bus::connect(backend, BusConfig::new().threads(Threads::Caller)).await.unwrap();
    bus.ensure_topic(&TopicSpec::new("orders").partitions(1)).await.unwrap();
    bus
}

async fn publish(bus: &Bus) {
    let envelope = Envelope::builder("Placed", "/shop").key("k").build().unwrap();
    drop(bus.publish("orders", envelope).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_member_at_its_end_is_not_asked_again_while_its_handlers_run() {
    let (end, started) = (Arc::new(End::default()), Arc::new(Notify::new()));
    let bus = bus(&end).await;
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
    publish(&bus).await;
    started.notified().await;
    end.near.notify_one();
    let why =
        tokio::time::timeout(Duration::from_secs(600), subscription.closed()).await.expect("it goes on").unwrap_err();
    assert_eq!(why.kind(), ErrorKind::Unavailable, "{why}");
    assert_eq!(end.told.load(Ordering::Relaxed), 1);
    assert_eq!(Arc::strong_count(&running), 1, "its handler is gone");
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_its_last_commit_as_long_as_it_may() {
    let end = Arc::new(End { commits_take: Duration::from_secs(4), ..End::default() });
    let bus = bus(&end).await;
    let handled = Arc::new(Notify::new());
    let handles = handled.clone();
    let handler = handler_fn(move |_| {
        handles.notify_one();
        async { Ok(()) }
    });
    let subscription = bus.subscribe(Subscribe::to("orders").group("billing"), handler).await.unwrap();
    publish(&bus).await;
    handled.notified().await;
    subscription.drain(Duration::from_secs(10)).await.unwrap();
}
