//! Failures of handlers over time (S2): outages are waited out, one poisoned event is not, and a handler may wait.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests, which clippy takes for library code

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use eventbus_core::{
    BusConfig, BusEvent, Delivery, Envelope, EventBus, FailurePolicy, Handler, HandlerError, Subscribe, Threads,
    TopicSpec, handler_fn,
};
use eventbus_memory::{MemoryConfig, MemoryEventBus};
use tokio::time::Instant;

const TOPIC: &str = "orders";
const GROUP: &str = "billing";
const SECOND: Duration = Duration::from_secs(1);

/// What the subscription told.
type Told = Arc<Mutex<Vec<String>>>;

async fn bus(memory: MemoryConfig) -> (MemoryEventBus, Told) {
    let told = Told::default();
    let tell = told.clone();
    let hook = move |event: &BusEvent<'_>| match event {
        BusEvent::Suspended { keys, .. } => tell.lock().unwrap().push(format!("suspended by {keys}")),
        BusEvent::OutageOver { .. } => tell.lock().unwrap().push("over".into()),
        _ => {}
    };
    let config = BusConfig::new().threads(Threads::Caller).hook(hook);
    let bus = MemoryEventBus::builder().memory(memory).config(config).build().unwrap();
    bus.ensure_topic(&TopicSpec::new(TOPIC).partitions(4)).await.unwrap();
    (bus, told)
}

async fn publish(bus: &MemoryEventBus, keys: u64, each: u64) {
    for number in 0..each {
        for key in 0..keys {
            let envelope = Envelope::builder("T", "/s").key(format!("k{key}")).sequence(number).build().unwrap();
            drop(bus.publish(TOPIC, envelope).await.unwrap());
        }
    }
}

/// Fails everything until this time.
fn away_until(back: Instant) -> Arc<dyn Handler> {
    handler_fn(move |_| async move {
        if Instant::now() < back { Err(HandlerError::retry("connection refused")) } else { Ok(()) }
    })
}

/// The sequences that were handled, by key, in the order of the handlers' ends.
fn by_key(bus: &MemoryEventBus) -> BTreeMap<String, Vec<u64>> {
    let mut by_key = BTreeMap::<String, Vec<u64>>::new();
    for delivery in bus.handled(TOPIC, GROUP) {
        let envelope = delivery.envelope();
        by_key.entry(envelope.key().unwrap().to_string()).or_default().push(envelope.sequence().unwrap());
    }
    by_key
}

#[tokio::test(start_paused = true)]
async fn an_outage_costs_an_event_or_its_order() {
    for away in [SECOND, 10 * SECOND, 60 * SECOND] {
        let (bus, told) = bus(MemoryConfig::new()).await;
        let back = Instant::now() + away;
        publish(&bus, 1_000, 3).await;
        let options = Subscribe::to(TOPIC).group(GROUP).concurrency(64);
        let subscription = bus.subscribe(options, away_until(back)).await.unwrap();
        // The helpers have less patience.
        tokio::time::sleep_until(back).await;
        bus.wait_until_handled(TOPIC, GROUP, 1).await;
        let first = back.elapsed();
        assert!(first < 5 * SECOND + SECOND / 10, "{away:?} away: the first success came {first:?} after its return");
        bus.wait_until_idle(TOPIC, GROUP).await;
        assert!(back.elapsed() < 7 * SECOND, "{away:?} away: the backlog took {:?}", back.elapsed());
        assert!(bus.dead_letters(TOPIC, GROUP).unwrap().is_empty());
        let handled = by_key(&bus);
        assert_eq!(handled.len(), 1_000);
        assert!(handled.values().all(|numbers| *numbers == [0, 1, 2]), "out of order");
        let told = told.lock().unwrap();
        assert_eq!(*told, ["suspended by 8", "over"], "{away:?} away");
        assert!(!subscription.is_suspended());
        let tries = bus.calls(TOPIC, GROUP).len() - 3_000;
        assert!(tries < 110, "{tries} attempts failed");
    }
}

#[tokio::test(start_paused = true)]
async fn few_keys_lose_their_order_in_an_outage() {
    let (bus, told) = bus(MemoryConfig::new()).await;
    publish(&bus, 5, 4).await;
    let back = Instant::now() + 300 * SECOND;
    let _member = bus.subscribe(Subscribe::to(TOPIC).group(GROUP), away_until(back)).await.unwrap();
    tokio::time::sleep_until(back).await;
    bus.wait_until_handled(TOPIC, GROUP, 20).await;
    assert!(by_key(&bus).values().all(|numbers| *numbers == [0, 1, 2, 3]));
    assert!(bus.dead_letters(TOPIC, GROUP).unwrap().is_empty() && told.lock().unwrap().is_empty());
}

fn poison(key: &'static str) -> Arc<dyn Handler> {
    handler_fn(move |delivery: Delivery| async move {
        let envelope = delivery.envelope();
        let poisoned = envelope.key().unwrap().to_string() == key && envelope.sequence() == Some(0);
        if poisoned { Err(HandlerError::retry("poison")) } else { Ok(()) }
    })
}

#[tokio::test(start_paused = true)]
async fn one_poisoned_event_suspends_all_or_is_tried_for_ever() {
    let (bus, told) = bus(MemoryConfig::new()).await;
    publish(&bus, 20, 3).await;
    let start = Instant::now();
    let _member = bus.subscribe(Subscribe::to(TOPIC).group(GROUP), poison("k7")).await.unwrap();
    bus.wait_until_handled(TOPIC, GROUP, 57).await;
    assert!(start.elapsed() < SECOND, "the others waited");
    tokio::time::sleep(590 * SECOND).await;
    assert!(bus.dead_letters(TOPIC, GROUP).unwrap().is_empty(), "given up before its time");
    tokio::time::sleep(60 * SECOND).await;
    bus.wait_until_idle(TOPIC, GROUP).await;
    let letters = bus.dead_letters(TOPIC, GROUP).unwrap();
    assert_eq!(letters.len(), 1);
    assert!(letters[0].attempts > 5 && letters[0].error == "poison", "{letters:?}");
    assert_eq!(by_key(&bus)["k7"], [1, 2]);
    assert!(told.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_waits_uses_up_its_attempts() {
    let (bus, _) = bus(MemoryConfig::new()).await;
    publish(&bus, 1, 2).await;
    let start = Instant::now();
    let handler = handler_fn(move |_| async move {
        match start.elapsed() < 60 * SECOND {
            true => Err(HandlerError::wait(7 * SECOND, "429")),
            false => Ok(()),
        }
    });
    let options = Subscribe::to(TOPIC).group(GROUP).attempts(2).then(FailurePolicy::DeadLetter);
    let _member = bus.subscribe(options, handler).await.unwrap();
    tokio::time::sleep(60 * SECOND).await;
    bus.wait_until_handled(TOPIC, GROUP, 2).await;
    assert_eq!(by_key(&bus)["k0"], [0, 1]);
    let calls = bus.calls(TOPIC, GROUP);
    assert_eq!(calls.len(), 9 + 2, "each wait lasts as long as it was asked to");
    assert!(bus.dead_letters(TOPIC, GROUP).unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_waits_is_never_given_up() {
    let (bus, _) = bus(MemoryConfig::new()).await;
    publish(&bus, 1, 1).await;
    let start = Instant::now();
    let handler = handler_fn(|_| async { Err(HandlerError::wait(7 * SECOND, "429")) });
    let options = Subscribe::to(TOPIC).group(GROUP).give_up_after(60 * SECOND).attempts(3);
    let _member = bus.subscribe(options, handler).await.unwrap();
    tokio::time::sleep(59 * SECOND).await;
    assert!(bus.dead_letters(TOPIC, GROUP).unwrap().is_empty());
    bus.wait_until_idle(TOPIC, GROUP).await;
    assert_eq!(bus.dead_letters(TOPIC, GROUP).unwrap().len(), 1);
    assert!(start.elapsed() >= 60 * SECOND && start.elapsed() < 70 * SECOND, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_letter_whose_headers_are_too_large_holds_its_key_for_ever() {
    let large = || {
        let envelope = Envelope::builder("T", "/s").id("1").key("k0").sequence(0);
        envelope.header("more", "x".repeat(3_000)).payload(vec![b'p'; 100]).build().unwrap()
    };
    let (bus, _) = bus(MemoryConfig::new().max_record_bytes(large().size())).await;
    drop(bus.publish(TOPIC, large()).await.unwrap());
    publish(&bus, 2, 3).await;
    let options = Subscribe::to(TOPIC).group(GROUP).attempts(1).then(FailurePolicy::DeadLetter);
    let handler = handler_fn(|delivery: Delivery| async move {
        if delivery.envelope().id() == "1" { Err(HandlerError::retry("poison")) } else { Ok(()) }
    });
    let _member = bus.subscribe(options, handler).await.unwrap();
    bus.wait_until_idle(TOPIC, GROUP).await;
    let letters = bus.dead_letters(TOPIC, GROUP).unwrap();
    let [letter] = letters.as_slice() else { panic!("expected one letter: {letters:?}") };
    assert!(letter.is_reference && letter.envelope.headers().next().is_none(), "{letter:?}");
    assert_eq!((letter.envelope.id(), letter.error.as_str(), letter.attempts), ("1", "poison", 1));
    assert_eq!(by_key(&bus)["k0"], [0, 1, 2]);
}
