//! Fault by fault: what each one does, where it strikes, and that observers hear of it.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests, which clippy takes for library code

mod common;

use std::time::Duration;

use common::*;
use eventbus_core::backend::{Backend, Fate, Pipelining, ensure_topic};
use eventbus_core::{ErrorKind, Position, TopicSpec};
use eventbus_memory::{
    CommitFault, FaultKind, Latency, MemoryBackend, MemoryConfig, MemoryWorld, OnCut, Scope, SubmitFault, Wait,
};
use tokio::time::{Instant, advance, sleep};

async fn one() -> (MemoryWorld, MemoryBackend, Publisher) {
    let (world, backend) = world(1).await;
    let publisher = Publisher::new(&backend);
    (world, backend, publisher)
}

async fn records(backend: &MemoryBackend) -> u64 {
    describe(backend).await.records
}

#[tokio::test(start_paused = true)]
async fn a_dropped_submission_is_stored_or_told_at_once() {
    let (world, backend, publisher) = one().await;
    let seen = watch(&world);
    world.faults().submit(SubmitFault::Drop, Scope::any());
    let start = Instant::now();
    let id = publisher.send(0, 1);
    assert!(publisher.fates.get(id).is_none());
    assert!(matches!(publisher.fates.of(id).await, Fate::Unknown(_)));
    assert_eq!(start.elapsed().as_millis(), 1_000);
    assert_eq!(records(&backend).await, 0);
    assert_eq!(*seen.lock().unwrap(), [FaultKind::Dropped]);
}

#[tokio::test(start_paused = true)]
async fn a_delayed_submission_arrives_early_or_holds_up_other_keys() {
    let (world, _backend, publisher) = one().await;
    world.faults().submit(SubmitFault::Delay(Duration::from_secs(3)), Scope::any().key("slow"));
    let slow = publisher.send_key(0, "slow", 1);
    assert_eq!(position(&publisher.fates.get(publisher.send_key(0, "fast", 2)).unwrap()), Position::ZERO);
    let start = Instant::now();
    assert_eq!(position(&publisher.fates.of(slow).await), Position::new(1));
    assert_eq!(start.elapsed().as_secs(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_delay_lets_a_pipelined_partition_overtake() {
    let config = MemoryConfig::new().pipelining(Pipelining::PerPartition);
    let (world, backend) = world_with(config, TopicSpec::new(TOPIC).partitions(2)).await;
    let publisher = Publisher::new(&backend);
    world.faults().submit(SubmitFault::Delay(Duration::from_secs(3)), Scope::any());
    let slow = publisher.send(0, 1);
    let behind = publisher.send(0, 2);
    assert!(publisher.fates.get(publisher.send(1, 3)).is_some(), "another partition goes on");
    assert!(publisher.fates.get(behind).is_none());
    assert_eq!(position(&publisher.fates.of(slow).await), Position::ZERO);
    assert_eq!(position(&publisher.fates.of(behind).await), Position::new(1));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_retryable_or_a_failure_to_store_is_final() {
    let (world, backend, publisher) = one().await;
    world.faults().submit(SubmitFault::Refuse, Scope::topic(TOPIC).nth(2));
    world.faults().submit(SubmitFault::NotStored, Scope::topic(TOPIC).nth(3));
    assert!(matches!(publisher.fates.of(publisher.send(0, 1)).await, Fate::Stored { .. }));
    assert!(matches!(publisher.fates.of(publisher.send(0, 2)).await, Fate::Refused(e) if !e.is_retryable()));
    assert!(matches!(publisher.fates.of(publisher.send(0, 3)).await, Fate::NotStored(e) if e.is_retryable()));
    assert!(matches!(publisher.fates.of(publisher.send(0, 3)).await, Fate::Stored { duplicate: false, .. }));
    assert_eq!(records(&backend).await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_lost_confirmation_stores_nothing_or_a_second_copy() {
    let (world, backend, publisher) = one().await;
    world.faults().submit(SubmitFault::LoseConfirmation, Scope::any());
    let id = publisher.send(0, 1);
    assert_eq!(records(&backend).await, 1);
    assert!(matches!(publisher.fates.of(id).await, Fate::Unknown(_)));
    let again = publisher.fates.of(publisher.send(0, 1)).await;
    assert!(is_duplicate(&again) && position(&again) == Position::ZERO, "{again:?}");
    assert_eq!(records(&backend).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_held_submission_is_dropped_as_a_copy_past_the_window() {
    for (wait, copies) in [(Duration::from_secs(60), 1), (Duration::from_secs(200), 2)] {
        let (world, backend, publisher) = one().await;
        let seen = watch(&world);
        world.faults().submit(SubmitFault::Hold, Scope::any());
        assert!(matches!(publisher.fates.of(publisher.send(0, 1)).await, Fate::Unknown(_)));
        publisher.stored(0, 1).await;
        advance(wait).await;
        assert_eq!(world.faults().release_held(), 1);
        assert_eq!(world.faults().release_held(), 0);
        assert_eq!(records(&backend).await, copies);
        assert_eq!(*seen.lock().unwrap(), [FaultKind::Held, FaultKind::Released]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_held_submission_that_is_released_in_time_stays_unknown() {
    let (world, _backend, publisher) = one().await;
    world.faults().submit(SubmitFault::Hold, Scope::any());
    let id = publisher.send(0, 1);
    sleep(Duration::from_millis(500)).await;
    world.faults().release_held();
    assert!(matches!(publisher.fates.get(id), Some(Fate::Stored { .. })));
    sleep(Duration::from_secs(5)).await;
}

#[tokio::test(start_paused = true)]
async fn a_held_submission_of_a_pipelined_partition_lands_behind_its_resend() {
    let config = MemoryConfig::new().pipelining(Pipelining::PerPartition);
    let (world, backend) = world_with(config, TopicSpec::new(TOPIC).partitions(1)).await;
    let publisher = Publisher::new(&backend);
    world.faults().submit(SubmitFault::Hold, Scope::any());
    let (held, behind) = (publisher.send(0, 1), publisher.send(0, 2));
    assert!(matches!(publisher.fates.of(held).await, Fate::Unknown(_)));
    assert!(matches!(publisher.fates.of(behind).await, Fate::NotStored(_)));
    publisher.stored(0, 1).await;
    publisher.stored(0, 2).await;
    advance(Duration::from_secs(200)).await;
    world.faults().release_held();
    assert_eq!(records(&backend).await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_cut_leaves_a_ticket_untold_or_lets_later_ones_through() {
    let latency = Latency::everywhere(Wait::between(Duration::from_millis(10), Duration::from_millis(10)));
    for (stored, kept) in [(OnCut::Stored, 2), (OnCut::Lost, 0)] {
        let config = MemoryConfig::new().latency(latency);
        let (world, backend) = world_with(config, TopicSpec::new(TOPIC).partitions(1)).await;
        let other = world.connect();
        let publisher = Publisher::new(&backend);
        let ids = [publisher.send_key(0, "a", 1), publisher.send_key(0, "b", 2)];
        assert!(world.faults().cut(&backend, stored));
        assert!(!world.faults().cut(&backend, stored), "it is cut already");
        for id in ids {
            assert!(matches!(publisher.fates.get(id), Some(Fate::Unknown(_))));
        }
        assert!(matches!(publisher.fates.get(publisher.send(0, 3)), Some(Fate::NotStored(_))));
        assert_eq!(records(&other).await, kept, "another connection goes on");
        world.faults().heal(&backend);
        assert!(matches!(publisher.fates.of(publisher.send(0, 3)).await, Fate::Stored { .. }));
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_fault_does_what_another_does() {
    let (world, _backend, _publisher) = one().await;
    let backend = world.connect();
    let mut member = join(&backend, "a").await;
    member.own_the_only(1, 0).await;
    let next = || async {
        let group = "billing".parse().unwrap();
        let description = backend.describe_group(&topic(), &group).await.unwrap();
        description.partitions[0].committed.as_ref().unwrap().next.get()
    };
    let seen = watch(&world);
    let scope = || Scope::topic(TOPIC).group("billing").member("a").partition(0);
    world.faults().commit(CommitFault::Unavailable, scope());
    assert!(member.commit(0, 1, 1).await.unwrap_err().is_retryable());
    assert_eq!(next().await, 0);
    world.faults().commit(CommitFault::LoseAnswer, scope());
    assert!(member.commit(0, 2, 1).await.unwrap_err().is_retryable());
    assert_eq!(next().await, 2);
    world.faults().commit(CommitFault::Fence, scope());
    assert_eq!(member.commit(0, 3, 1).await.unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(next().await, 2);
    assert_eq!(member.lost().await, [0]);
    assert_eq!(member.assigned().await, [0]);
    use FaultKind::{CommitAnswerLost, CommitFenced, CommitUnavailable};
    assert_eq!(*seen.lock().unwrap(), [CommitUnavailable, CommitAnswerLost, CommitFenced]);
}

#[tokio::test(start_paused = true)]
async fn a_scope_strikes_elsewhere_or_too_often() {
    let (world, backend) = world(2).await;
    let other = Publisher::new(&world.connect());
    let publisher = Publisher::new(&backend);
    let faults = world.faults();
    let refused = |publisher: &Publisher, partition, key: &str, number| {
        matches!(publisher.fates.get(publisher.send_key(partition, key, number)), Some(Fate::Refused(_)))
    };
    faults.submit(SubmitFault::Refuse, Scope::topic(TOPIC).partition(1).key("b").from(&backend).times(2));
    assert!(!refused(&publisher, 0, "b", 1));
    assert!(!refused(&publisher, 1, "a", 2));
    assert!(!refused(&other, 1, "b", 3));
    assert!(refused(&publisher, 1, "b", 4));
    assert!(refused(&publisher, 1, "b", 5));
    assert!(!refused(&publisher, 1, "b", 6));
    let always = faults.submit(SubmitFault::Refuse, Scope::topic(TOPIC).always());
    faults.submit(SubmitFault::Refuse, Scope::topic("another").always());
    for number in 7..12 {
        assert!(refused(&publisher, 0, "a", number));
    }
    assert!(faults.disarm(always));
    assert!(!faults.disarm(always));
    assert!(!refused(&publisher, 0, "a", 12));
}

#[tokio::test(start_paused = true)]
async fn a_kill_tells_the_broker_or_loses_what_it_stored() {
    let (world, backend, publisher) = one().await;
    let other = world.connect();
    publisher.stored(0, 1).await;
    let mut dead = join(&backend, "a").await;
    dead.own_the_only(1, 0).await;
    let mut heir = join(&other, "b").await;
    let start = Instant::now();
    world.faults().kill(&backend, OnCut::Lost);
    assert_eq!(heir.assigned().await, [0]);
    assert_eq!(start.elapsed().as_secs(), 10);
    assert_eq!(records(&other).await, 1);
}

#[tokio::test(start_paused = true)]
async fn healing_everything_leaves_a_fault() {
    let (world, backend, publisher) = one().await;
    let faults = world.faults();
    let mut member = join(&backend, "a").await;
    member.own_the_only(1, 0).await;
    faults.submit(SubmitFault::Hold, Scope::any());
    let held = publisher.send(0, 1);
    faults.submit(SubmitFault::Refuse, Scope::any().always());
    faults.stop_heartbeats(TOPIC, "billing", "a");
    faults.cut(&backend, OnCut::Lost);
    faults.freeze(&backend);
    faults.restart_broker(OnCut::Lost, Duration::from_secs(3600));
    faults.heal_all();
    assert!(member.lease_holds(0));
    member.commit(0, 1, 1).await.unwrap();
    assert!(matches!(publisher.fates.get(held), Some(Fate::Unknown(_))));
    assert!(matches!(publisher.fates.of(publisher.send(0, 2)).await, Fate::Stored { .. }));
    sleep(Duration::from_secs(7200)).await;
    assert!(member.lease_holds(0));
}

#[tokio::test(start_paused = true)]
async fn an_observer_that_calls_back_deadlocks() {
    let (world, _backend, publisher) = one().await;
    let faults = world.faults();
    let inner = faults.clone();
    faults.on_fault(move |fault| {
        assert!(fault.to_string().starts_with("refused topic=orders partition=0 key=k"), "{fault}");
        inner.submit(SubmitFault::NotStored, Scope::any());
    });
    faults.submit(SubmitFault::Refuse, Scope::any());
    assert!(matches!(publisher.fates.of(publisher.send(0, 1)).await, Fate::Refused(_)));
    drop(world);
}

#[test]
fn names_share_no_world_or_keep_one_that_was_forgotten() {
    let name = "names_share_no_world";
    let (one, two) = (MemoryWorld::named(name), MemoryWorld::named(name));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        ensure_topic(&one.connect(), &TopicSpec::new(TOPIC)).await.unwrap();
        assert_eq!(two.connect().list_topics().await.unwrap().len(), 1);
        assert!(MemoryWorld::new().connect().list_topics().await.unwrap().is_empty());
        assert!(MemoryWorld::forget(name) && !MemoryWorld::forget(name));
        assert!(MemoryWorld::named(name).connect().list_topics().await.unwrap().is_empty());
    });
}
