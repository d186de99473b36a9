//! P2 and P3: an unknown fate is found out, in the log where the broker may have forgotten the stamp.

use std::time::Duration;

use super::fake::WINDOW;
use super::*;
use crate::backend::Pipelining;
use crate::model::Error;

async fn with_window(pipelining: Pipelining, window: Duration) -> World {
    let mut plan = Plan::new(pipelining);
    plan.fake.capabilities.resend_window = Some(window);
    plan.fake.spec = plan.fake.spec.duplicate_window(WINDOW);
    plan.start().await
}

#[tokio::test(start_paused = true)]
async fn inside_the_window_the_same_stamp_is_sent_again_and_no_log_is_read() {
    let world = with_window(Pipelining::OnePerKey, WINDOW).await;
    let mut a = world.confirm("k", "a");
    let _b = world.confirm("k", "b");
    world.fake.lose_answer("a");
    rest().await;
    world.fake.store("a");
    let receipt = now(&mut a).unwrap().unwrap();
    assert!(receipt.duplicate);
    assert_eq!((world.fake.stored(), world.fake.held()), (vec!["a".to_string()], vec!["b".to_string()]));
    assert!(world.fake.state().looked_from.is_empty());
}

#[tokio::test(start_paused = true)]
async fn past_the_window_a_stored_one_is_found_from_the_end_known_before_its_first_send() {
    let world = with_window(Pipelining::OnePerKey, WINDOW).await;
    let first = world.confirm("other", "first");
    world.fake.store("first");
    let before = now(first).unwrap().unwrap().position;
    let mut a = world.confirm("k", "a");
    let _b = world.confirm("k", "b");
    tokio::time::sleep(WINDOW).await;
    world.fake.state().removes_copies = false;
    world.fake.lose_answer("a");
    assert_eq!(world.fake.held(), [""; 0], "b waits for the fate of a");
    rest().await;
    let receipt = now(&mut a).unwrap().unwrap();
    assert!(receipt.duplicate && receipt.position > before);
    assert_eq!(world.fake.state().looked_from, [before.next()]);
    assert_eq!(world.fake.state().submitted, ["first", "a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn past_the_window_what_is_not_found_is_sent_again_once_and_in_order() {
    for pipelining in BOTH {
        let world = with_window(pipelining, Duration::ZERO).await;
        let (mut a, mut b) = (world.confirm("k", "a"), world.confirm("k", "b"));
        world.fake.lose("a");
        if pipelining == Pipelining::PerPartition {
            world.fake.lose("b");
        }
        world.fake.state().look_errors.push(Error::new(ErrorKind::Unavailable, "not now"));
        rest().await;
        rest().await;
        assert_eq!(world.fake.held().first().map(String::as_str), Some("a"));
        world.fake.store("a");
        rest().await;
        world.fake.store("b");
        assert!(now(&mut a).unwrap().is_ok() && now(&mut b).unwrap().is_ok());
        assert_eq!(world.fake.stored(), ["a", "b"]);
    }
}

#[tokio::test(start_paused = true)]
async fn refused_on_a_re_send_does_not_hide_that_the_first_send_was_stored() {
    let world = start(Pipelining::OnePerKey).await;
    let (mut a, mut b) = (world.confirm("k", "a"), world.confirm("k", "b"));
    world.fake.lose_answer("a");
    rest().await;
    world.fake.refuse("a");
    rest().await;
    assert!(now(&mut a).unwrap().unwrap().duplicate);
    world.fake.lose("b");
    rest().await;
    world.fake.refuse("b");
    rest().await;
    assert_eq!(kind_of(&mut b), ErrorKind::Refused, "the log does not have this one");
    assert_eq!(world.fake.stored(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn refused_on_a_re_send_is_believed_though_retention_took_the_first_send() {
    let world = start(Pipelining::OnePerKey).await;
    let (mut a, mut b) = (world.confirm("k", "a"), world.confirm("k", "b"));
    world.fake.lose_answer("a");
    world.fake.retain_from(world.fake.end());
    rest().await;
    world.fake.refuse("a");
    rest().await;
    assert_eq!(kind_of(&mut a), ErrorKind::Unknown);
    assert_eq!(kind_of(&mut b), ErrorKind::Cascaded, "nothing may follow on what is perhaps a hole");
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_the_callers_waiting_and_nothing_else() {
    let world = start(Pipelining::OnePerKey).await;
    let mut a = world.confirm("k", "a");
    let error = a.confirmed_within(Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unknown);
    assert!(error.refusal().is_none());
    let _b = world.confirm("k", "b");
    assert_eq!(world.fake.held(), ["a"]);
    world.fake.store("a");
    assert!(a.confirmed().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn one_keys_black_hole_delays_no_other_key() {
    for pipelining in BOTH {
        let world = start(pipelining).await;
        let _hole = world.confirm("k", "hole");
        for i in 0..100 {
            drop(world.publish("other", &i.to_string()));
            world.fake.store(&i.to_string());
        }
        assert_eq!((world.fake.stored().len(), world.fake.held().len()), (100, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn recovery_waits_longer_from_time_to_time_and_starts_anew_after_a_success() {
    let mut plan = Plan::new(Pipelining::OnePerKey);
    plan.config.retry_first = Duration::from_millis(100);
    plan.config.retry_max = Duration::from_millis(400);
    let world = plan.start().await;
    let _a = world.confirm("k", "a");
    for _ in 0..20 {
        world.fake.not_stored("a");
        tokio::time::sleep(Duration::from_millis(400)).await;
        settle().await;
        assert_eq!(world.fake.held(), ["a"], "no wait is above the longest");
    }
}
