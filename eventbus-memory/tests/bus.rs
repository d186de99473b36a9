//! The whole bus on this backend, through the helpers for users' tests.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests, which clippy takes for library code

use std::sync::Arc;
use std::time::Duration;

use eventbus_core::backend::Backend;
use eventbus_core::{
    Bus, BusConfig, Envelope, EventBus, FailurePolicy, HandlerError, Subscribe, Threads, TopicSpec, handler_fn,
};
use eventbus_memory::testing::Probe;
use eventbus_memory::{MemoryEventBus, MemoryWorld, OnCut, Scope, SubmitFault};
use futures_util::FutureExt;

const TOPIC: &str = "orders";

async fn bus() -> MemoryEventBus {
    let bus = MemoryEventBus::for_tests().unwrap();
    bus.ensure_topic(&TopicSpec::new(TOPIC).partitions(4)).await.unwrap();
    bus
}

/// Makes two buses in one world, as in two processes.
async fn two_in_one_world() -> (MemoryWorld, MemoryEventBus, MemoryEventBus) {
    let world = MemoryWorld::new();
    let bus = || {
        let config = BusConfig::new().threads(Threads::Caller);
        MemoryEventBus::builder().world(world.clone()).config(config).build().unwrap()
    };
    let (one, two) = (bus(), bus());
    one.ensure_topic(&TopicSpec::new(TOPIC).partitions(4)).await.unwrap();
    (world, one, two)
}

fn placed(key: &str, number: u64) -> Envelope {
    Envelope::builder(format!("Placed{number}"), "/shop").key(key).build().unwrap()
}

async fn publish(bus: &MemoryEventBus, keys: u64, each: u64) {
    for number in 0..each {
        for key in 0..keys {
            drop(bus.publish(TOPIC, placed(&format!("k{key}"), number)).await.unwrap());
        }
    }
}

/// Returns the message of the panic that a helper ends with.
async fn panic_of(helper: impl Future<Output = ()>) -> String {
    let panic = std::panic::AssertUnwindSafe(helper).catch_unwind().await.expect_err("the helper passed");
    panic.downcast_ref::<String>().cloned().unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn order_is_lost_under_faults_on_both_sides() {
    let bus = bus().await;
    for nth in [3, 50, 77] {
        bus.faults().submit(SubmitFault::LoseConfirmation, Scope::topic(TOPIC).nth(nth));
        bus.faults().submit(SubmitFault::NotStored, Scope::topic(TOPIC).nth(nth + 1));
        bus.faults().submit(SubmitFault::Drop, Scope::topic(TOPIC).nth(nth + 2));
    }
    let failing = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let handler = handler_fn(move |_| {
        let fails = failing.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % 7 == 3;
        async move { if fails { Err(HandlerError::retry("now and then")) } else { Ok(()) } }
    });
    let options = Subscribe::to(TOPIC).group("billing").concurrency(8).attempts(20);
    let _billing = bus.subscribe(options, handler).await.unwrap();
    publish(&bus, 10, 20).await;
    bus.wait_until_handled(TOPIC, "billing", 100).await;
    bus.faults().cut_for(bus.backend(), OnCut::Drawn, Duration::from_secs(2));
    bus.wait_until_handled(TOPIC, "billing", 200).await;
    bus.wait_until_idle(TOPIC, "billing").await;
    bus.assert_handled_in_order(TOPIC, "billing");
    assert_eq!(bus.published(TOPIC).len(), 200, "one copy of each");
    let types: Vec<String> = (0..20).map(|number| format!("Placed{number}")).collect();
    bus.assert_published(TOPIC, "k3", &types.iter().map(String::as_str).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_member_that_expired_loses_or_shuffles_what_it_had() {
    let (world, one, two) = two_in_one_world().await;
    let probe = Probe::new();
    let slow = || {
        handler_fn(|_| async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            Ok(())
        })
    };
    let options = || Subscribe::to(TOPIC).group("billing");
    let first = one.subscribe(options(), probe.around(slow())).await.unwrap();
    let _second = two.subscribe(options(), probe.around(slow())).await.unwrap();
    publish(&one, 20, 20).await;
    probe.wait_until_handled(100).await;
    assert!(world.faults().expire_session(TOPIC, "billing", first.member()));
    one.wait_until_idle(TOPIC, "billing").await;
    let mut places: Vec<_> = probe.handled().iter().map(|d| (d.partition(), d.position())).collect();
    places.sort();
    places.dedup();
    assert_eq!(places.len(), 400);
    one.assert_handled_in_order(TOPIC, "billing");
    two.assert_handled_in_order(TOPIC, "billing");
}

/// A count of running handlers, by the reference that each holds.
#[derive(Clone, Default)]
struct Running(Arc<()>);

impl Running {
    fn count(&self) -> usize {
        Arc::strong_count(&self.0) - 1
    }

    /// Makes a handler that never ends by itself. It holds nothing before it is called.
    fn forever(&self) -> Arc<dyn eventbus_core::Handler> {
        let running = Arc::downgrade(&self.0);
        handler_fn(move |_| {
            let held = running.upgrade();
            async move {
                std::future::pending::<()>().await;
                drop(held);
                Ok(())
            }
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_of_a_lost_partition_outlives_its_subscription() {
    let (world, one, two) = two_in_one_world().await;
    let (running, quick) = (Running::default(), Probe::new());
    let options = || Subscribe::to(TOPIC).group("billing").concurrency(20);
    let first = one.subscribe(options(), running.forever()).await.unwrap();
    publish(&one, 20, 1).await;
    while running.count() < 20 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let _second = two.subscribe(options(), quick.around(handler_fn(|_| async { Ok(()) }))).await.unwrap();
    assert!(world.faults().expire_session(TOPIC, "billing", first.member()));
    quick.wait_until_handled(5).await;
    assert_eq!(running.count(), 20, "what runs goes on, though nothing comes of it");
    let abandoned = first.drain(Duration::from_secs(3)).await.unwrap_err();
    assert_eq!(running.count(), 0, "after: {abandoned}");
}

#[tokio::test(start_paused = true)]
async fn a_down_dead_letter_topic_lets_the_next_of_the_key_through() {
    let bus = bus().await;
    let poison = handler_fn(|delivery: eventbus_core::Delivery| async move {
        match delivery.envelope().event_type() {
            "Placed0" => Err(HandlerError::permanent("poison")),
            _ => Ok(()),
        }
    });
    let options = Subscribe::to(TOPIC).group("billing").then(FailurePolicy::DeadLetter);
    let letters = eventbus_core::dead_letter::topic_of(&TOPIC.parse().unwrap(), &"billing".parse().unwrap()).unwrap();
    let down = bus.faults().submit(SubmitFault::NotStored, Scope::topic(letters.as_str()).always());
    let _billing = bus.subscribe(options, poison).await.unwrap();
    publish(&bus, 1, 2).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(bus.handled(TOPIC, "billing").is_empty(), "the key waits for its dead letter");
    bus.faults().disarm(down);
    bus.wait_until_idle(TOPIC, "billing").await;
    let letters = bus.dead_letters(TOPIC, "billing").unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].attempts, letters[0].error.as_str()), (1, "poison"));
    assert_eq!(bus.handled(TOPIC, "billing").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn helpers_pass_or_fail_without_saying_why() {
    let bus = bus().await;
    let fails = handler_fn(|_| async { Err(HandlerError::retry("no stock")) });
    let options = Subscribe::to(TOPIC).group("stock").attempts(2).then(FailurePolicy::Skip);
    let _stock = bus.subscribe(options, fails).await.unwrap();
    publish(&bus, 1, 1).await;
    let said = panic_of(async { drop(bus.wait_until_handled(TOPIC, "stock", 1).await) }).await;
    for part in ["stock on orders: expected 1 handled of 1 published, got 0", "k0 Placed0", "attempt 2: no stock"] {
        assert!(said.contains(part), "{said}");
    }
    let said = panic_of(async { bus.wait_until_idle(TOPIC, "nobody").await }).await;
    assert!(said.contains("nobody on orders is not idle: unknown group"), "{said}");
    let said = panic_of(async { bus.assert_published(TOPIC, "k0", &["Other"]) }).await;
    assert!(said.contains("what was published under k0"), "{said}");
    assert!(bus.dead_letters("no spaces", "stock").is_err());
    assert!(bus.published("nothing").is_empty());
}

#[test]
fn named_buses_share_no_log_or_private_ones_do() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let (one, two) = (MemoryEventBus::named("shop").unwrap(), MemoryEventBus::named("shop").unwrap());
        one.ensure_topic(&TopicSpec::new(TOPIC).partitions(2)).await.unwrap();
        let probe = Probe::new();
        let handling = two.subscribe(Subscribe::to(TOPIC).group("g"), Arc::new(probe.clone())).await.unwrap();
        one.publish(TOPIC, placed("k", 1)).await.unwrap().await.unwrap();
        probe.wait_until_handled(1).await;
        handling.drain(Duration::from_secs(10)).await.unwrap();
        assert!(MemoryEventBus::new().unwrap().list_topics().await.unwrap().is_empty());
        assert!(!one.backend().capabilities().durable);
        one.close(Duration::from_secs(10)).await.unwrap();
    });
}

#[test]
fn a_bus_cannot_be_sent_or_shared() {
    fn check<T: Send + Sync + Unpin + 'static>() {}
    check::<MemoryEventBus>();
    check::<MemoryWorld>();
    check::<eventbus_memory::MemoryBackend>();
    check::<eventbus_memory::Faults>();
    check::<Probe>();
}

#[test]
fn a_subscription_whose_handlers_runtime_is_gone_seems_to_run() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (handlers, tests) = (runtime(), runtime());
    let (_bus, subscription) = handlers.block_on(async {
        let world = MemoryWorld::new();
        let bus = Arc::new(Bus::connect(Arc::new(world.connect()), BusConfig::new()).await.unwrap());
        bus.ensure_topic(&TopicSpec::new(TOPIC)).await.unwrap();
        let handler = handler_fn(|_| std::future::pending::<Result<(), HandlerError>>());
        let options = Subscribe::to(TOPIC).group("billing").drain_deadline(Duration::from_millis(100));
        let subscription = bus.subscribe(options, handler).await.unwrap();
        bus.publish(TOPIC, placed("k", 1)).await.unwrap().confirmed().await.unwrap();
        (bus, subscription)
    });
    handlers.shutdown_timeout(Duration::from_secs(10));
    let ended = tests.block_on(async { tokio::time::timeout(Duration::from_secs(60), subscription.closed()).await });
    let error = ended.expect("it goes on without anybody to handle anything").unwrap_err();
    assert_eq!(error.kind(), eventbus_core::ErrorKind::HandlerFailed);
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_does_not_exist_yet_is_waited_for_and_it_is_told() {
    let world = MemoryWorld::new();
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let hook = {
        let told = told.clone();
        move |event: &eventbus_core::BusEvent<'_>| {
            if let eventbus_core::BusEvent::AwaitingTopic { topic, patience, .. } = event {
                told.lock().unwrap().push((topic.to_string(), *patience));
            }
        }
    };
    let config = BusConfig::new().threads(Threads::Caller).hook(hook);
    let bus = MemoryEventBus::builder().world(world.clone()).config(config).build().unwrap();
    let handler = || handler_fn(|_| async { Ok(()) });
    let begun = tokio::time::Instant::now();
    let error = bus.subscribe(Subscribe::to(TOPIC), handler()).await.unwrap_err();
    assert_eq!((error.kind(), begun.elapsed()), (eventbus_core::ErrorKind::UnknownTopic, Duration::ZERO));
    let patience = Duration::from_secs(60);
    let options = || Subscribe::to(TOPIC).wait_for_topic(patience);
    let error = bus.subscribe(options(), handler()).await.unwrap_err();
    assert_eq!(error.kind(), eventbus_core::ErrorKind::UnknownTopic);
    assert_eq!(begun.elapsed().as_secs(), 60);
    assert!(error.to_string().contains("waited=60s"), "{error}");
    assert_eq!(std::mem::take(&mut *told.lock().unwrap()), [(TOPIC.to_owned(), patience)], "once, not at each look");

    let makes = async {
        tokio::time::sleep(Duration::from_secs(10)).await;
        bus.ensure_topic(&TopicSpec::new(TOPIC).partitions(4)).await.unwrap();
    };
    let (subscription, ()) = tokio::join!(bus.subscribe(options(), handler()), makes);
    subscription.unwrap().drain(Duration::from_secs(1)).await.unwrap();
    assert!(begun.elapsed() < patience + Duration::from_secs(15));
    // A longest wait overflows nothing.
    let options = Subscribe::to(TOPIC).wait_for_topic(Duration::MAX);
    bus.subscribe(options, handler()).await.unwrap().drain(Duration::from_secs(1)).await.unwrap();
}
