//! P5: fair room, and batches that take all their places or none.

use super::*;
use crate::backend::Pipelining;
use crate::model::Withdrawal;

fn plan(envelopes: usize, share: usize, waiting: usize) -> Plan {
    let mut plan = Plan::new(Pipelining::OnePerKey);
    plan.config.budget_envelopes = envelopes;
    plan.config.share = share;
    plan.config.waiting_limit = waiting;
    plan
}

#[tokio::test(start_paused = true)]
async fn a_key_at_its_share_makes_only_its_own_callers_wait() {
    let world = plan(8, 4, 100).start().await;
    let (_a1, _a2) = (world.confirm("a", "a1"), world.confirm("a", "a2"));
    let mut a3 = world.publish("a", "a3");
    assert!(now(&mut a3).is_none());
    let kept: Vec<_> = ["b", "c", "d", "e"].map(|id| world.confirm(id, id)).into();
    world.fake.store("a1");
    let mut a3 = now(&mut a3).unwrap().unwrap();
    world.fake.store_all();
    assert!(now(&mut a3).unwrap().is_ok());
    drop(kept);
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_room_is_submitted_whether_its_future_is_polled_or_not() {
    let world = plan(1, 1, 100).start().await;
    for i in 0..5 {
        drop(world.publish("k", &i.to_string()));
    }
    world.fake.store_all();
    assert_eq!(world.fake.stored(), ["0", "1", "2", "3", "4"]);
    assert_eq!(world.lanes.pending(), 0);
}

#[tokio::test(start_paused = true)]
async fn room_is_granted_while_answers_come_within_submit() {
    let world = plan(2, 1, 10_000).start().await;
    for i in 0..1_000 {
        drop(world.publish(&(i % 10).to_string(), &i.to_string()));
    }
    world.fake.state().mode = fake::Mode::StoreAtOnce;
    world.fake.store_all();
    assert_eq!((world.fake.stored().len(), world.lanes.pending()), (1_000, 0));
}

#[tokio::test(start_paused = true)]
async fn past_the_hard_limit_publishes_fail_at_once_and_take_no_place() {
    let world = plan(1, 1, 1).start().await;
    let _a = world.confirm("a", "a");
    let b = world.publish("b", "b");
    let error = world.fails("c", "c");
    assert_eq!((error.kind(), error.refusal().unwrap().id.as_str()), (ErrorKind::Overloaded, "c"));
    assert!(error.is_retryable());
    assert_eq!(b.cancel(), Withdrawal::Withdrawn);
    let mut c = world.publish("c", "again");
    assert!(now(&mut c).is_none());
    world.fake.store("a");
    assert!(now(&mut c).unwrap().is_ok());
    assert_eq!(world.fake.held(), ["again"]);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_ends_those_that_wait_for_room_too() {
    let world = plan(1, 1, 10).start().await;
    let mut n = world.confirm("k", "n");
    let mut waiting = world.publish("k", "waiting");
    let mut other = world.publish("other", "other");
    assert!(now(&mut waiting).is_none());
    world.fake.refuse("n");
    assert_eq!(now(&mut waiting).unwrap().unwrap_err().kind(), ErrorKind::Cascaded);
    assert_eq!(kind_of(&mut n), ErrorKind::Refused);
    assert!(now(&mut other).unwrap().is_ok());
    world.fake.store("other");
    let _again = world.confirm("k", "again");
}

#[tokio::test(start_paused = true)]
async fn a_batch_takes_all_its_places_or_none() {
    let world = plan(2, 1, 1).start().await;
    let batch = |ids: &[&str]| ids.iter().map(|id| envelope(&id[..1], id)).collect::<Vec<_>>();
    let mut refused = world.lanes.publish_batch(TOPIC, batch(&["a1", "b1", "a2", "c1"]));
    assert_eq!((world.lanes.pending(), world.fake.held()), (0, vec![]));
    assert_eq!(world.fails("a", "sealed").kind(), ErrorKind::KeySealed);
    let error = now(&mut refused).unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    assert_eq!(world.told.take().iter().filter(|line| line.ends_with("overloaded")).count(), 4);

    let mut taken = world.lanes.publish_batch(TOPIC, batch(&["a1", "b1", "a2"]));
    assert!(now(&mut taken).is_none(), "one of them waits for room");
    world.fake.store("a1");
    let mut confirmation = now(&mut taken).unwrap().unwrap();
    world.fake.store_all();
    let outcome = now(&mut confirmation).unwrap();
    assert!(outcome.is_stored());
    assert_eq!(world.fake.stored(), ["a1", "b1", "a2"]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_tells_the_stored_prefix_of_every_key_and_counts_as_seen_when_returned() {
    let world = start(Pipelining::OnePerKey).await;
    let ids = ["a1", "b1", "a2", "b2", "a3"];
    let batch = ids.iter().map(|id| envelope(&id[..1], id)).collect();
    let mut confirmation = now(world.lanes.publish_batch(TOPIC, batch)).unwrap().unwrap();
    world.fake.store("a1");
    world.fake.refuse("a2");
    assert!(now(&mut confirmation).is_none());
    let mut sealed = world.publish("a", "sealed");
    assert_eq!(world.fake.held(), ["b1"]);
    world.fake.store_all();
    let outcome = now(&mut confirmation).unwrap();
    let kinds: Vec<_> = outcome.results().iter().map(|r| r.as_ref().map_err(|e| e.kind()).err()).collect();
    assert_eq!(kinds, [None, None, Some(ErrorKind::Refused), None, Some(ErrorKind::Cascaded)]);
    let prefixes: Vec<_> = outcome.stored_prefixes().iter().map(|p| (p.key.to_string(), p.stored, p.of)).collect();
    assert_eq!(prefixes, [("a".into(), 1, 3), ("b".into(), 2, 2)]);
    let _keep = world.confirm("a", "after");
    assert!(now(&mut sealed).unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_sealed_key_fails_alone_in_a_batch() {
    let world = start(Pipelining::OnePerKey).await;
    drop(world.publish("a", "n"));
    world.fake.refuse("n");
    let batch = ["a1", "b1", "a2"].iter().map(|id| envelope(&id[..1], id)).collect();
    let mut confirmation = now(world.lanes.publish_batch(TOPIC, batch)).unwrap().unwrap();
    world.fake.store("b1");
    let outcome = now(&mut confirmation).unwrap();
    assert_eq!(outcome.results().iter().filter(|result| result.is_ok()).count(), 1);
    assert_eq!(outcome.results()[2].as_ref().unwrap_err().kind(), ErrorKind::KeySealed);
}

#[tokio::test(start_paused = true)]
async fn a_withdrawn_batch_leaves_a_prefix_of_every_key() {
    let world = start(Pipelining::OnePerKey).await;
    let batch = ["a1", "a2", "a3"].iter().map(|id| envelope("a", id)).collect();
    let confirmation = now(world.lanes.publish_batch(TOPIC, batch)).unwrap().unwrap();
    assert_eq!(confirmation.cancel(), 2);
    world.fake.store_all();
    assert_eq!(world.fake.stored(), ["a1"]);
}

#[tokio::test(start_paused = true)]
async fn an_empty_batch_is_stored() {
    let world = start(Pipelining::OnePerKey).await;
    let confirmation = now(world.lanes.publish_batch(TOPIC, Vec::new())).unwrap().unwrap();
    assert!(now(confirmation).unwrap().is_stored());
}
