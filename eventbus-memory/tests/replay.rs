//! Replay of dead letters (S2).
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use eventbus_core::dead_letter::{DeadLetters, Letter, Replayed, Tell};
use eventbus_core::{
    Delivery, Envelope, ErrorKind, EventBus, EventBusExt, HandlerError, Key, Subscribe, Subscription, TopicSpec,
    handler_fn,
};
use eventbus_memory::MemoryEventBus;

/// Deliveries to a group: key, sequence, whether it was replayed.
type Seen = Arc<Mutex<Vec<(String, u64, bool)>>>;

async fn bus() -> Arc<dyn EventBus> {
    let bus: Arc<dyn EventBus> = Arc::new(MemoryEventBus::new().unwrap());
    bus.ensure_topic(&TopicSpec::new("orders").partitions(4)).await.unwrap();
    bus
}

async fn publish(bus: &Arc<dyn EventBus>, key: &str, sequence: u64) {
    let envelope = Envelope::builder("T", "/s").key(key).sequence(sequence).payload("p").build().unwrap();
    bus.publish_confirmed("orders", envelope).await.unwrap();
}

/// Subscribes a member. With `fails`, it fails every delivery that is not a replay.
async fn member(bus: &Arc<dyn EventBus>, group: &str, seen: &Seen, fails: bool) -> Subscription {
    let seen = seen.clone();
    let handler = handler_fn(move |delivery: Delivery| {
        let seen = seen.clone();
        async move {
            let key = delivery.envelope().key().map(ToString::to_string).unwrap_or_default();
            let sequence = delivery.envelope().sequence().unwrap_or_default();
            seen.lock().unwrap().push((key, sequence, delivery.is_replayed()));
            if fails && !delivery.is_replayed() { Err(HandlerError::permanent("poison")) } else { Ok(()) }
        }
    });
    bus.subscribe(Subscribe::to("orders").group(group), handler).await.unwrap()
}

async fn settled(bus: &Arc<dyn EventBus>, group: &str) {
    loop {
        let described = bus.describe_group("orders", group).await.unwrap();
        if described.partitions.iter().all(|partition| partition.lag == 0) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Makes dead letters of two keys, three each, in turn. Returns them and the member that made them.
async fn dead_letters(bus: &Arc<dyn EventBus>, seen: &Seen) -> (DeadLetters, Subscription) {
    for sequence in 1..=3 {
        publish(bus, "a", sequence).await;
        publish(bus, "b", sequence).await;
    }
    let member = member(bus, "billing", seen, true).await;
    settled(bus, "billing").await;
    seen.lock().unwrap().clear();
    (DeadLetters::of(bus.clone(), "orders", "billing").unwrap(), member)
}

fn nobody() -> Tell {
    Arc::new(|_, _| {})
}

fn of_key(letters: &[Letter], key: &str) -> Vec<u64> {
    let of_key = letters.iter().filter(|letter| letter.letter.envelope.key().unwrap().to_string() == key);
    of_key.map(|letter| letter.letter.envelope.sequence().unwrap()).collect()
}

fn all(done: u64) -> Replayed {
    let mut all = Replayed::default();
    all.done = done;
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_loses_the_order_or_comes_twice_or_to_others() {
    let (bus, seen, others) = (bus().await, Seen::default(), Seen::default());
    let (letters, _member) = dead_letters(&bus, &seen).await;
    let _other = member(&bus, "other", &others, false).await;
    settled(&bus, "other").await;
    others.lock().unwrap().clear();

    let read = letters.read(None).await.unwrap();
    assert_eq!((of_key(&read, "a"), of_key(&read, "b")), (vec![1, 2, 3], vec![1, 2, 3]));
    assert!(read.iter().all(|letter| letter.letter.error == "poison" && letter.letter.attempts == 1), "{read:?}");

    let told = Arc::new(Mutex::new(0));
    let tell: Tell = {
        let told = told.clone();
        Arc::new(move |_, result| *told.lock().unwrap() += u64::from(result.is_ok_and(|receipt| receipt.is_some())))
    };
    assert_eq!(letters.replay(None, tell).await.unwrap(), all(6));
    assert_eq!(*told.lock().unwrap(), 6);
    settled(&bus, "billing").await;
    let handled = seen.lock().unwrap().clone();
    for key in ["a", "b"] {
        let of_key: Vec<_> =
            handled.iter().filter(|(of, ..)| of == key).map(|(_, n, replayed)| (*n, *replayed)).collect();
        assert_eq!(of_key, [(1, true), (2, true), (3, true)], "key {key}");
    }
    settled(&bus, "other").await;
    assert!(others.lock().unwrap().is_empty(), "another group was given replays");
    assert!(letters.read(None).await.unwrap().is_empty());
    assert_eq!(letters.replay(None, nobody()).await.unwrap(), all(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_of_other_keys_are_touched() {
    let (bus, seen) = (bus().await, Seen::default());
    let (letters, _member) = dead_letters(&bus, &seen).await;
    let (a, b) = (Key::new("a").unwrap(), Key::new("b").unwrap());
    assert_eq!(letters.replay(Some(&b), nobody()).await.unwrap(), all(3));
    let left = letters.read(None).await.unwrap();
    assert_eq!((of_key(&left, "a"), of_key(&left, "b")), (vec![1, 2, 3], vec![]));
    assert!(letters.read(Some(&b)).await.unwrap().is_empty());
    // New letters of the key come behind, and only they are left of it.
    publish(&bus, "b", 4).await;
    settled(&bus, "billing").await;
    assert_eq!(of_key(&letters.read(None).await.unwrap(), "b"), [4]);
    assert_eq!(letters.purge(Some(&a), nobody()).await.unwrap(), all(3));
    let left = letters.read(None).await.unwrap();
    assert_eq!((of_key(&left, "a"), of_key(&left, "b")), (vec![], vec![4]));
    assert_eq!(letters.purge(None, nobody()).await.unwrap(), all(1));
    assert!(letters.read(None).await.unwrap().is_empty());
    settled(&bus, "billing").await;
    assert!(
        !seen.lock().unwrap().iter().any(|(key, _, replayed)| key == "a" && *replayed),
        "a purged letter came back"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_cannot_be_replayed_is_passed_over() {
    let (bus, seen) = (bus().await, Seen::default());
    let (letters, member) = dead_letters(&bus, &seen).await;
    member.drain(Duration::from_secs(5)).await.unwrap();
    bus.delete_topic("orders").await.unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell: Tell = {
        let told = told.clone();
        Arc::new(move |letter: &Letter, result| {
            told.lock().unwrap().push((of_key(std::slice::from_ref(letter), "a"), result.unwrap_err().kind()));
        })
    };
    let mut expected = Replayed::default();
    (expected.failed, expected.held_back) = (2, 4);
    assert_eq!(letters.replay(None, tell).await.unwrap(), expected);
    let told = std::mem::take(&mut *told.lock().unwrap());
    assert!(told.iter().all(|(_, kind)| *kind == ErrorKind::UnknownTopic), "{told:?}");
    assert_eq!(letters.read(None).await.unwrap().len(), 6, "what failed is still there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_without_letters_has_an_error() {
    let bus = bus().await;
    let letters = DeadLetters::of(bus.clone(), "orders", "nobody").unwrap();
    assert!(letters.read(None).await.unwrap().is_empty());
    assert_eq!(letters.replay(None, nobody()).await.unwrap(), all(0));
    let letters = DeadLetters::of(bus, "missing", "nobody").unwrap();
    assert_eq!(letters.read(None).await.unwrap_err().kind(), ErrorKind::UnknownTopic);
}
