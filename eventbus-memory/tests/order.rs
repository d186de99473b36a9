//! The whole bus on memory: publish, pool, handler.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use eventbus_core::{
    Bus, BusConfig, Delivery, Envelope, EventBus, HandlerError, Subscribe, Threads, TopicSpec, handler_fn,
};
use eventbus_memory::MemoryWorld;

/// Handles 100 keys of 20 envelopes each on two members, failing every seventh attempt.
async fn order_is_kept(threads: Threads) {
    let world = MemoryWorld::new();
    let bus = |world: &MemoryWorld| Bus::new(Arc::new(world.connect()), BusConfig::new().threads(threads)).unwrap();
    let (one, two) = (bus(&world), bus(&world));
    one.ensure_topic(&TopicSpec::new("orders").partitions(8)).await.unwrap();

    let handled = Arc::new(Mutex::new(BTreeMap::<String, Vec<u64>>::new()));
    let calls = Arc::new(Mutex::new(0_u32));
    let handler = || {
        let (handled, calls) = (handled.clone(), calls.clone());
        handler_fn(move |delivery: Delivery| {
            let (handled, calls) = (handled.clone(), calls.clone());
            async move {
                let call = {
                    let mut calls = calls.lock().unwrap();
                    *calls += 1;
                    *calls
                };
                tokio::task::yield_now().await;
                if call % 7 == 0 {
                    return Err(HandlerError::retry("every seventh"));
                }
                let envelope = delivery.envelope();
                let key = envelope.key().unwrap().to_string();
                handled.lock().unwrap().entry(key).or_default().push(envelope.sequence().unwrap());
                Ok(())
            }
        })
    };
    let options = || Subscribe::to("orders").group("billing").concurrency(16).attempts(50);
    let first = one.subscribe(options(), handler()).await.unwrap();
    let second = two.subscribe(options(), handler()).await.unwrap();

    let mut confirmations = Vec::new();
    for sequence in 1..=20 {
        for key in 0..100 {
            let envelope = Envelope::builder("T", "/t").key(format!("k{key}")).sequence(sequence).build().unwrap();
            confirmations.push(one.publish("orders", envelope).await.unwrap());
        }
    }
    for confirmation in confirmations {
        confirmation.await.unwrap();
    }
    loop {
        let lag: u64 = first.lag().await.unwrap().iter().map(|partition| partition.lag).sum();
        if lag == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    first.drain(Duration::from_secs(5)).await.unwrap();
    second.drain(Duration::from_secs(5)).await.unwrap();
    let handled = handled.lock().unwrap();
    assert_eq!(handled.len(), 100);
    for (key, numbers) in handled.iter() {
        assert_eq!(*numbers, (1..=20).collect::<Vec<_>>(), "{key}");
    }
}

#[tokio::test(start_paused = true)]
async fn keys_are_handled_in_order_on_one_thread() {
    order_is_kept(Threads::Caller).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_handled_in_order_on_many_threads() {
    order_is_kept(Threads::Own).await;
}
