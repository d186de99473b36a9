//! A publish that is sent again and again is told, and at a deadline it is said what is known of it.

use std::time::Duration;

use super::*;
use crate::backend::Pipelining;
use crate::model::{Error, Withdrawal};

/// Fails all submissions that are there, again and again, for this long.
async fn fail_for(world: &World, time: Duration, fail: impl Fn(&Fake, &str)) {
    let begin = tokio::time::Instant::now();
    while begin.elapsed() < time {
        world.fake.held().iter().for_each(|id| fail(&world.fake, id));
        tokio::time::sleep(Duration::from_millis(100)).await;
        settle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_publish_that_is_not_stored_for_long_is_told_with_the_brokers_words_and_so_is_its_end() {
    for pipelining in BOTH {
        let world = start(pipelining).await;
        let (a, b) = (world.confirm("k", "a"), world.confirm("other", "b"));
        fail_for(&world, Duration::from_secs(4), Fake::not_stored).await;
        assert_eq!(world.told.take(), [""; 0], "it is not late yet");
        fail_for(&world, Duration::from_secs(8), Fake::not_stored).await;
        let told = world.told.take();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].starts_with("send: topic orders, partition 0, key "), "{told:?}");
        assert!(told[0].ends_with(" nor for 1 more; it is tried again: unavailable: cut"), "{told:?}");
        rest().await;
        world.fake.store_all();
        assert!(now(a).unwrap().is_ok() && now(b).unwrap().is_ok());
        rest().await;
        let told = world.told.take();
        assert!(told.iter().any(|line| line.starts_with("recovered after 1")), "{told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_come_and_a_topic_that_cannot_be_described_are_told_too() {
    let mut plan = Plan::new(Pipelining::OnePerKey);
    plan.fake.capabilities.resend_window = Some(Duration::from_secs(60));
    let world = plan.start().await;
    let _a = world.confirm("k", "a");
    tokio::time::sleep(Duration::from_secs(7)).await;
    let told = world.told.take();
    assert!(told[0].ends_with("key k: no success for 5 s; it is tried again: unavailable: the broker has neither stored nor refused it so far"), "{told:?}");

    let (world, driver) = Plan::new(Pipelining::OnePerKey).build();
    let down = || Error::new(ErrorKind::Unavailable, "down");
    world.fake.state().describe_errors = std::iter::repeat_with(down).take(1_000).collect();
    tokio::spawn(driver.run());
    let _a = world.confirm("k", "a");
    tokio::time::sleep(Duration::from_secs(7)).await;
    let told = world.told.take();
    assert!(told[0].ends_with("topic orders: no success for 5 s; it is tried again: unavailable: down"), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn what_came_back_and_is_certainly_not_stored_can_be_withdrawn() {
    for pipelining in BOTH {
        let world = start(pipelining).await;
        let (mut a, b) = (world.confirm("k", "a"), world.confirm("k", "b"));
        world.fake.not_stored("a");
        let error = a.confirmed_within(Duration::ZERO).await.unwrap_err();
        assert!(error.to_string().contains("the last answer: unavailable: cut"), "{error}");
        if pipelining == Pipelining::PerPartition {
            assert_eq!(a.cancel(), Withdrawal::TooLate, "b is on its way behind it");
            world.fake.not_stored("b");
        }
        assert_eq!(a.cancel(), Withdrawal::Withdrawn);
        let error = now(&mut a).unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Withdrawn);
        assert!(error.to_string().contains("is not stored; the last answer: unavailable: cut"), "{error}");
        rest().await;
        world.fake.store("b");
        assert!(now(b).unwrap().is_ok());
        assert_eq!(world.fake.stored(), ["b"]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_be_stored_cannot_be_withdrawn_though_the_last_answer_was_not_stored() {
    let world = start(Pipelining::OnePerKey).await;
    let mut a = world.confirm("k", "a");
    world.fake.lose("a");
    rest().await;
    world.fake.not_stored("a");
    assert_eq!(a.cancel(), Withdrawal::TooLate);
    assert_eq!(world.lanes.close(Duration::ZERO).await, 1);
    let error = now(&mut a).unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unknown);
    assert!(error.to_string().contains("may be stored; the last answer: unavailable: cut"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_what_the_client_may_have_sent_before_is_believed_only_by_the_log() {
    for pipelining in BOTH {
        let world = start(pipelining).await;
        let (mut a, mut b) = (world.confirm("k", "a"), world.confirm("l", "b"));
        world.fake.write_and_doubt("a");
        world.fake.doubt("b");
        rest().await;
        assert!(now(&mut a).unwrap().unwrap().duplicate, "the log has it");
        assert_eq!(kind_of(&mut b), ErrorKind::PermissionDenied, "the log does not have it");
        assert_eq!((world.fake.stored(), world.fake.state().submitted.len()), (vec!["a".to_string()], 2));
    }
}

#[tokio::test(start_paused = true)]
async fn a_log_that_may_not_be_read_ends_what_may_be_stored_and_says_so() {
    let world = start(Pipelining::OnePerKey).await;
    let (mut a, mut b) = (world.confirm("k", "a"), world.confirm("k", "b"));
    let denied = || Error::new(ErrorKind::PermissionDenied, "reading the log of orders");
    world.fake.state().look_errors = std::iter::repeat_with(denied).take(1_000).collect();
    world.fake.doubt("a");
    rest().await;
    assert!(now(&mut a).is_none(), "the right may be given back");
    tokio::time::sleep(Duration::from_secs(10)).await;
    let error = now(&mut a).unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unknown);
    let text = error.to_string();
    assert!(text.contains("may not be read: permission denied: reading the log of orders; sent again it was refused: permission denied: no right to write"), "{text}");
    assert_eq!(kind_of(&mut b), ErrorKind::Cascaded);
}
