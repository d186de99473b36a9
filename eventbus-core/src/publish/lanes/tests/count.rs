//! Topics that have another number of partitions than their keys go by.

use std::time::Duration;

use super::fake::Mode;
use super::*;
use crate::backend::Pipelining;

const EVERY: Duration = Duration::from_secs(30);

/// Plans a topic of two partitions that may grow.
fn growing() -> Plan {
    let mut plan = Plan::new(Pipelining::PerPartition);
    plan.fake.spec = plan.fake.spec.partitions(2);
    plan.fake.capabilities.partitions_change = true;
    plan
}

/// Returns a key that eight partitions put elsewhere than two do.
fn moving() -> String {
    let moves = |name: &String| key(name).partition(2) != key(name).partition(8);
    (0..).map(|n| format!("k{n}")).find(moves).unwrap()
}

async fn grow(world: &World) {
    world.fake.state().grown = Some(8);
    tokio::time::sleep(EVERY + Duration::from_secs(1)).await;
    settle().await;
}

fn partitions(world: &World) -> Vec<(String, u32)> {
    world.fake.state().log.iter().map(|stored| (stored.id.clone(), stored.partition)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_key_moves_only_when_it_was_accepted_and_all_that_was_before_is_over() {
    let world = growing().start().await;
    let name = moving();
    let (old, new) = (key(&name).partition(2), key(&name).partition(8));
    let mut before = world.confirm(&name, "before");
    grow(&world).await;
    assert_eq!(world.fails(&name, "stopped").kind(), ErrorKind::PartitionsChanged);
    let told = world.told.take();
    assert!(told[0].starts_with("PartitionsChanged") && told[0].contains("in_force: 2, found: 8"), "{told:?}");
    assert_eq!(told[1..], ["stopped partitions_changed".to_owned(), format!("seal {name}")]);

    let lanes = world.lanes.clone();
    let topic: crate::Topic = TOPIC.parse().unwrap();
    let wrong = lanes.accept_partitions(&topic, 7).await.unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::TopicMismatch, "{wrong}");
    let accepting = tokio::spawn(async move { lanes.accept_partitions(&topic, 8).await });
    tokio::time::sleep(EVERY).await;
    assert!(!accepting.is_finished(), "one of its keys is on its way");
    assert_eq!(world.fails(&name, "still").kind(), ErrorKind::PartitionsChanged);
    world.fake.not_stored("before");
    rest().await;
    world.fake.store_all();
    assert!(now(&mut before).unwrap().is_ok());
    accepting.await.unwrap().unwrap();

    world.fake.state().mode = Mode::StoreAtOnce;
    let mut after = world.confirm(&name, "after");
    assert!(now(&mut after).unwrap().is_ok());
    assert_eq!(partitions(&world), [("before".into(), old), ("after".into(), new)]);
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_nobody_has_seen_is_not_overtaken_once_the_number_is_accepted() {
    let world = growing().start().await;
    world.fake.state().mode = Mode::StoreAtOnce;
    grow(&world).await;
    drop(world.publish("k", "unseen"));
    world.lanes.accept_partitions(&TOPIC.parse().unwrap(), 8).await.unwrap();
    assert_eq!(world.fails("k", "behind").kind(), ErrorKind::KeySealed);
    assert!(now(&mut world.confirm("k", "seen")).unwrap().is_ok());
    assert_eq!(world.fake.stored(), ["seen"]);
}

#[tokio::test(start_paused = true)]
async fn what_has_no_key_goes_on_and_finds_the_new_partitions() {
    let world = growing().start().await;
    world.fake.state().mode = Mode::StoreAtOnce;
    grow(&world).await;
    for n in 0..8 {
        let mut free = now(world.lanes.publish(TOPIC, keyless(&n.to_string()))).unwrap().unwrap();
        assert!(now(&mut free).unwrap().is_ok());
    }
    let mut used: Vec<u32> = partitions(&world).into_iter().map(|(_, partition)| partition).collect();
    used.sort_unstable();
    assert_eq!(used, (0..8).collect::<Vec<_>>());
    let batch = vec![keyless("x"), envelope("k", "y")];
    let refused = now(world.lanes.publish_batch(TOPIC, batch)).unwrap().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::PartitionsChanged, "all or none of a batch");
    assert_eq!(world.fake.stored().len(), 8);
}

#[tokio::test(start_paused = true)]
async fn what_is_expected_goes_before_what_is_found() {
    let mut plan = growing();
    plan.config.partitions = Some(4);
    let (world, driver) = plan.build();
    let mut waiting = world.confirm("k", "waiting");
    let mut free = now(world.lanes.publish(TOPIC, keyless("free"))).unwrap().unwrap();
    tokio::spawn(driver.run());
    settle().await;
    assert_eq!(kind_of(&mut waiting), ErrorKind::PartitionsChanged);
    assert_eq!(world.fails("other", "x").kind(), ErrorKind::PartitionsChanged);
    world.fake.store_all();
    assert!(now(&mut free).unwrap().is_ok());
    world.lanes.accept_partitions(&TOPIC.parse().unwrap(), 2).await.unwrap();
    world.fake.state().mode = Mode::StoreAtOnce;
    assert!(now(&mut world.confirm("other", "y")).unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_was_ensured_or_made_again_has_the_number_that_it_has() {
    let mut plan = growing();
    plan.config.partitions = Some(4);
    let world = plan.start().await;
    world.fake.state().mode = Mode::StoreAtOnce;
    assert!(now(&mut world.confirm("k", "ensured")).unwrap().is_ok());

    let world = growing().start().await;
    world.fake.state().mode = Mode::StoreAtOnce;
    world.lanes.forget_topic(&TOPIC.parse().unwrap());
    world.fake.state().grown = Some(8);
    let (name, mut again) = (moving(), world.confirm(&moving(), "again"));
    settle().await;
    assert!(now(&mut again).unwrap().is_ok());
    assert_eq!(partitions(&world), [("again".into(), key(&name).partition(8))]);
}
