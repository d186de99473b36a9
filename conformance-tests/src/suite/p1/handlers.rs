//! Handlers: what they see, and what they may do.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use eventbus_core::dead_letter::{DeadLetter, UNDECODABLE};
use eventbus_core::wire::WireRecord;
use eventbus_core::{BusEvent, Delivery, Envelope, FailurePolicy, HandlerError, Key, TopicSpec, handler_fn};

use crate::harness::{Act, Holding, Publisher, Script, Step, steadily};
use crate::history::FinishedBy;
use crate::oracle::Expectations;
use crate::suite::common::{Collected, GROUP, TOPIC, expect, failing, in_order, keys, millis, subscribe};
use crate::suite::failure::ensure;
use crate::suite::p0::failure::{finished, letters_of};
use crate::suite::p0::members::topic;
use crate::suite::{Failure, Run};

/// A handler that publishes the next envelope of its own key, and waits for the confirmation before it ends.
struct Chain(Publisher);

const LINKS: u64 = 10;

impl Script for Chain {
    fn step(&self, _: &Delivery, _: u64) -> Step {
        Step::succeed(millis(1))
    }

    fn hold(&self, delivery: &Delivery, number: u64) -> Option<Holding> {
        let key = delivery.envelope().key()?.as_str()?.to_owned();
        let publisher = self.0.clone();
        (number < LINKS).then(|| -> Holding {
            Box::pin(async move {
                // The history shows the outcome.
                drop(publisher.publish(TOPIC, &key, 0).await);
            })
        })
    }
}

/// A handler that publishes to its own topic and key.
pub(in crate::suite) async fn publishes_to_its_own_key(run: Run) -> Result<(), Failure> {
    let peer = run.process().await?;
    topic(&peer, 4).await?;
    let all = keys("order", 20);
    let subscription = peer.subscribe(subscribe(), Chain(peer.publisher().clone())).await?;
    peer.publish_rounds(TOPIC, &all, 1).await?;
    run.until_calls("every chain is through", 20, |call| call.start.number == LINKS && call.succeeded()).await;
    run.settled(TOPIC, &[GROUP]).await?;
    subscription.drain(Duration::from_secs(5)).await?;
    run.judge(&expect().overlap(), &[(TOPIC, &[GROUP])]).await?;
    Ok(())
}

/// Attempts are counted from one, and nothing of the envelope changes between them.
pub(in crate::suite) async fn attempts_and_headers(run: Run) -> Result<(), Failure> {
    let peer = run.process().await?;
    topic(&peer, 2).await?;
    let collected = Collected::default();
    let subscription = peer.bus().subscribe(subscribe(), collected.handler(3)).await?;
    let envelope = Envelope::builder("Placed", "/shop")
        .key("k")
        .header("Trace-Me", "one; two")
        .header("x-empty", "")
        .correlation_id("c-1")
        .tenant("acme")
        .payload(Bytes::from_static(b"payload"))
        .build()?;
    peer.bus().publish(TOPIC, envelope.clone()).await?.await?;
    run.until("the fourth attempt", || collected.len() == 4).await;
    run.settled(TOPIC, &[GROUP]).await?;
    subscription.drain(Duration::from_secs(5)).await?;
    let all = collected.all();
    let attempts: Vec<u32> = all.iter().map(Delivery::attempt).collect();
    ensure!(attempts == [1, 2, 3, 4], "expected attempts 1 to 4, got {attempts:?}");
    for delivery in &all {
        ensure!(
            in_order(delivery.envelope()) == in_order(&envelope),
            "attempt {} saw another envelope",
            delivery.attempt()
        );
        ensure!(delivery.position() == all[0].position(), "attempt {} says another position", delivery.attempt());
        ensure!(delivery.epoch() == all[0].epoch(), "attempt {} says another epoch", delivery.attempt());
    }
    Ok(())
}

/// A hook that panics hurts nobody.
pub(in crate::suite) async fn panicking_hook(run: Run) -> Result<(), Failure> {
    let config = run.config().hook(|_: &BusEvent<'_>| std::panic::resume_unwind(Box::new("told to panic")));
    let peer = run.process_with(config).await?;
    topic(&peer, 2).await?;
    let subscription = peer.subscribe(subscribe().attempts(3), failing("k", 3, Act::Fail, u32::MAX)).await?;
    let mut all = keys("order", 20);
    all.push("k".into());
    peer.publish_rounds(TOPIC, &all, 5).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    subscription.drain(Duration::from_secs(5)).await?;
    ensure!(finished(&run, FinishedBy::DeadLettered) == 1, "the hook behind the one that panics heard nothing");
    run.judge(&expect().overlap(), &[(TOPIC, &[GROUP])]).await?;
    Ok(())
}

/// An undecodable record goes to the failure policy without attempts, in the order of its key, its raw bytes kept.
pub(in crate::suite) async fn undecodable(run: Run) -> Result<(), Failure> {
    let peer = run.process().await?;
    topic(&peer, 4).await?;
    let key = Key::try_from("k")?;
    let k = vec!["k".to_owned()];
    peer.publish_rounds(TOPIC, &k, 2).await?;
    let raw = WireRecord {
        key: Some(key.to_bytes()),
        // A format of events that nobody here reads. (A broker without record keys finds no key in a broken JSON
        // document.)
        headers: vec![("content-type".into(), Bytes::from_static(b"application/cloudevents+avro"))],
        payload: Bytes::from_static(b"{ this is no event \xff"),
    };
    run.fixture().store_raw(TOPIC, key.partition(4), raw.clone()).await?;
    peer.publish_rounds(TOPIC, &k, 2).await?;
    peer.publish_rounds(TOPIC, &keys("order", 20), 3).await?;
    let subscription = peer.subscribe(subscribe().then(FailurePolicy::DeadLetter), steadily(millis(1))).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    subscription.drain(Duration::from_secs(5)).await?;
    let letters = run.log(&letters_of(GROUP)?).await?;
    ensure!(letters.len() == 1, "expected one dead letter, found {}", letters.len());
    let letter = DeadLetter::read(&letters[0])?;
    ensure!(letter.envelope.event_type() == UNDECODABLE, "it is not told for what it is: {letter:?}");
    ensure!(letter.envelope.payload() == &raw.payload, "its bytes were changed: {letter:?}");
    ensure!(letter.envelope.key() == Some(&key), "its key is lost: {letter:?}");
    ensure!(letter.attempts == 0, "it was tried {} times", letter.attempts);
    // The log holds a record that no reader can decode; the rest is judged by the handler calls.
    run.judge(&Expectations::new(16).quiet().overlap(), &[]).await?;
    let handled = run.count(|call| call.of("k") && call.succeeded());
    ensure!(handled == 4, "the four around it were to be handled, {handled} were");
    Ok(())
}

/// A handler's panic is a failed attempt, and its key goes on.
pub(in crate::suite) async fn panicking_handler(run: Run) -> Result<(), Failure> {
    let peer = run.process().await?;
    topic(&peer, 2).await?;
    let subscription = peer.subscribe(subscribe(), failing("k", 3, Act::Panic, 2)).await?;
    let mut all = keys("order", 20);
    all.push("k".into());
    peer.publish_rounds(TOPIC, &all, 6).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    subscription.drain(Duration::from_secs(5)).await?;
    run.judge(&expect().overlap(), &[(TOPIC, &[GROUP])]).await?;
    ensure!(run.count(|call| call.is("k", 3)) == 3, "two panics and a success were expected");
    Ok(())
}

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            std::panic::resume_unwind(Box::new("told to panic when dropped"));
        }
    }
}

struct PanicsWhenShown;

impl std::fmt::Display for PanicsWhenShown {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::panic::resume_unwind(Box::new("told to panic when shown"))
    }
}

/// Panics in the call itself, in the drop of a value that the handler holds, and in the text of its error.
pub(in crate::suite) async fn panics_in_odd_places(run: Run) -> Result<(), Failure> {
    let peer = run.process().await?;
    topic(&peer, 1).await?;
    let seen: Arc<Mutex<Vec<(u64, u32)>>> = Arc::default();
    let kept = seen.clone();
    let handler = handler_fn(move |delivery: Delivery| {
        let (number, attempt) = (delivery.envelope().sequence().unwrap_or_default(), delivery.attempt());
        kept.lock().unwrap_or_else(PoisonError::into_inner).push((number, attempt));
        if number == 1 && attempt == 1 {
            std::panic::resume_unwind(Box::new("told to panic in the call"));
        }
        async move {
            match (number, attempt) {
                (2, 1) => {
                    let _guard = PanicsWhenDropped;
                    tokio::task::yield_now().await;
                    Err(HandlerError::retry("fails, and then its guard panics"))
                }
                (3, 1) => Err(HandlerError::retry(PanicsWhenShown)),
                _ => Ok(()),
            }
        }
    });
    let subscription = peer.bus().subscribe(subscribe(), handler).await?;
    peer.publish_rounds(TOPIC, &["k".to_owned()], 4).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    subscription.drain(Duration::from_secs(5)).await?;
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let expected = [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (3, 2), (4, 1)];
    ensure!(seen == expected, "expected each panic to be a failed attempt, got {seen:?}");
    Ok(())
}

/// A handler that takes too long is a failed attempt, and its future is gone before the next one.
pub(in crate::suite) async fn handler_timeout(run: Run) -> Result<(), Failure> {
    let peer = run.process().await?;
    peer.topic(TopicSpec::new(TOPIC).partitions(2)).await?;
    let options = subscribe().handler_timeout(millis(300));
    let subscription = peer.subscribe(options, failing("k", 3, Act::Hang, 2)).await?;
    let mut all = keys("order", 20);
    all.push("k".into());
    peer.publish_rounds(TOPIC, &all, 6).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    subscription.drain(Duration::from_secs(5)).await?;
    run.judge(&expect().overlap(), &[(TOPIC, &[GROUP])]).await?;
    ensure!(run.count(|call| call.is("k", 3)) == 3, "two time-outs and a success were expected");
    Ok(())
}
