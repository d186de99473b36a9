//! The backend's promises about ownership and progress (S3 to S5), each test named after what it refutes.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests, which clippy takes for library code

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::*;
use eventbus_core::backend::{Backend, Commit, ConnectionState, GroupEvent};
use eventbus_core::{ErrorKind, Group, Position, TopicSpec};
use eventbus_memory::{MemoryConfig, OnCut};
use tokio::time::{Instant, advance, sleep};

fn group() -> Group {
    "billing".parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_second_member_gets_a_partition_before_the_first_released_it() {
    let (_world, backend) = world(4).await;
    let mut first = join(&backend, "a").await;
    assert_eq!(first.assigned().await, [0, 1, 2, 3]);
    let mut second = join(&backend, "b").await;
    assert_eq!(first.revoked().await, [2, 3]);
    second.hears_nothing().await;
    first.membership.release(3).await.unwrap();
    assert_eq!(second.assigned().await, [3]);
    second.hears_nothing().await;
    first.membership.release(2).await.unwrap();
    assert_eq!(second.assigned().await, [2]);
}

#[tokio::test(start_paused = true)]
async fn a_hand_over_waits_past_the_drain_deadline_or_ends_before_it() {
    let (_world, backend) = world(2).await;
    let drain = Duration::from_secs(7);
    let mut first = join_as(&backend, "a", |join| join.drain_deadline = drain).await;
    first.assigned().await;
    first.claim(1, 5).await.unwrap();
    let mut second = join(&backend, "b").await;
    let asked = Instant::now();
    assert_eq!(first.revoked().await, [1]);
    first.commit(1, 3, 5).await.expect("a revoked partition is still owned");
    assert!(first.lease_holds(1));
    assert_eq!(second.assigned().await, [1]);
    assert_eq!(asked.elapsed().as_secs(), drain.as_secs());
    assert!(!first.lease_holds(1), "the lease must end before another owns");
    assert_eq!(second.owned[&1].committed.as_ref().unwrap().next, Position::new(3));
    assert_eq!(first.commit(1, 9, 5).await.unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(first.lost().await, [1]);
}

#[tokio::test(start_paused = true)]
async fn an_assignment_is_unbalanced_or_moves_more_than_it_must() {
    let (_world, backend) = world(10).await;
    let mut a = join(&backend, "a").await;
    a.assigned().await;
    let mut b = join(&backend, "b").await;
    let moved = a.revoked().await;
    assert_eq!(moved.len(), 5);
    for partition in moved {
        a.membership.release(partition).await.unwrap();
    }
    assert_eq!(b.assigned().await.len(), 5);
    let mut c = join(&backend, "c").await;
    let (from_a, from_b) = (a.revoked().await, b.revoked().await);
    assert_eq!(from_a.len() + from_b.len(), 3, "10 over 3 members is 4, 3, 3: only three may move");
    for partition in from_a {
        a.membership.release(partition).await.unwrap();
    }
    for partition in from_b {
        b.membership.release(partition).await.unwrap();
    }
    assert_eq!(c.assigned().await.len(), 3);
    b.membership.leave().await.unwrap();
    let shares = [a.assigned().await.len(), c.assigned().await.len()];
    assert_eq!(shares.iter().sum::<usize>(), 3, "what the third member had: {shares:?}");
    let owners = backend.describe_group(&topic(), &group()).await.unwrap();
    let of = |name: &str| owners.partitions.iter().filter(|p| p.owner.as_deref() == Some(name)).count();
    assert_eq!((of("a"), of("c")), (5, 5));
    assert_eq!(owners.members, ["a", "c"]);
}

#[tokio::test(start_paused = true)]
async fn a_partition_taken_back_while_its_release_was_waited_for_is_never_given_again() {
    let (_world, backend) = world(2).await;
    let mut first = join(&backend, "a").await;
    first.assigned().await;
    let second = join(&backend, "b").await;
    assert_eq!(first.revoked().await, [1]);
    second.membership.leave().await.unwrap();
    first.membership.release(1).await.unwrap();
    assert_eq!(first.assigned().await, [1]);
    assert!(first.lease_holds(1));
}

#[tokio::test(start_paused = true)]
async fn a_stale_epoch_changes_progress() {
    let (_world, backend) = world(1).await;
    let mut member = join(&backend, "a").await;
    member.assigned().await;
    assert_eq!(member.commit(0, 1, 5).await.unwrap_err().kind(), ErrorKind::Fenced, "nothing was claimed");
    member.claim(0, 5).await.unwrap();
    member.claim(0, 5).await.expect("a claim whose answer was lost is made again");
    member.commit(0, 3, 5).await.unwrap();
    for epoch in [4, 6] {
        assert_eq!(member.commit(0, 9, epoch).await.unwrap_err().kind(), ErrorKind::Fenced);
    }
    member.claim(0, 8).await.expect("a seek claims again within one ownership");
    assert_eq!(member.commit(0, 9, 5).await.unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(member.claim(0, 7).await.unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(member.commit(9, 9, 5).await.unwrap_err().kind(), ErrorKind::Fenced);
}

#[tokio::test(start_paused = true)]
async fn a_commit_of_an_earlier_ownership_counts_when_the_partition_came_back() {
    let (world, backend) = world(1).await;
    let mut member = join(&backend, "a").await;
    member.own_the_only(5, 0).await;
    assert!(world.faults().take_away(TOPIC, "billing", "a", 0));
    assert_eq!(member.lost().await, [0]);
    assert_eq!(member.assigned().await, [0]);
    assert_eq!(
        member.commit(0, 9, 5).await.unwrap_err().kind(),
        ErrorKind::Fenced,
        "epoch 5 was of the ownership before"
    );
    assert_eq!(member.claim(0, 5).await.unwrap_err().kind(), ErrorKind::Fenced, "an epoch is strictly greater");
    member.claim(0, 6).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_silent_member_keeps_its_partitions_or_its_lease_outlives_them() {
    let (world, backend) = world(1).await;
    let session = Duration::from_secs(10);
    let mut silent = join_as(&backend, "a", |join| join.session_timeout = session).await;
    silent.own_the_only(1, 0).await;
    let mut waiting = join(&backend, "b").await;
    sleep(3 * session).await;
    assert!(silent.lease_holds(0), "heartbeats come by themselves");
    world.faults().stop_heartbeats(TOPIC, "billing", "a");
    let stopped = Instant::now();
    sleep(session * 9 / 10 - Duration::from_millis(1)).await;
    assert!(silent.lease_holds(0));
    sleep(Duration::from_millis(2)).await;
    assert!(!silent.lease_holds(0), "the lease ends before others may take over");
    assert_eq!(waiting.assigned().await, [0]);
    assert_eq!(stopped.elapsed().as_secs(), session.as_secs());
    assert_eq!(silent.commit(0, 7, 1).await.unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(silent.lost().await, [0]);
}

#[tokio::test(start_paused = true)]
async fn heartbeats_that_come_back_in_time_cost_the_ownership() {
    let (world, backend) = world(1).await;
    let mut member = join(&backend, "a").await;
    member.own_the_only(1, 0).await;
    world.faults().stop_heartbeats(TOPIC, "billing", "a");
    sleep(Duration::from_millis(9_500)).await;
    assert!(!member.lease_holds(0));
    world.faults().resume_heartbeats(TOPIC, "billing", "a");
    assert!(member.lease_holds(0));
    sleep(Duration::from_secs(60)).await;
    assert!(member.lease_holds(0));
    member.commit(0, 1, 1).await.unwrap();
    member.hears_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn an_expired_member_never_joins_again() {
    let (world, backend) = world(2).await;
    let mut a = join(&backend, "a").await;
    a.assigned().await;
    world.faults().expire_session(TOPIC, "billing", "a");
    assert!(a.owned.values().all(|assignment| !assignment.lease.is_valid()));
    assert_eq!(a.lost().await, [0, 1]);
    assert_eq!(a.assigned().await, [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_member_is_never_replaced() {
    let (_world, backend) = world(1).await;
    let mut killed = join(&backend, "a").await;
    killed.own_the_only(1, 0).await;
    killed.commit(0, 4, 1).await.unwrap();
    let mut heir = join(&backend, "b").await;
    let start = Instant::now();
    drop(killed);
    assert_eq!(heir.assigned().await, [0]);
    assert_eq!(start.elapsed().as_secs(), 10);
    assert_eq!(heir.owned[&0].committed.as_ref().unwrap().next, Position::new(4));
}

#[tokio::test(start_paused = true)]
async fn killing_at_once_waits_for_the_session() {
    let config = MemoryConfig::new().expire_killed_at_once(true);
    let (world, backend) = world_with(config, TopicSpec::new(TOPIC).partitions(1)).await;
    let mut killed = join(&backend, "a").await;
    killed.own_the_only(1, 0).await;
    let mut heir = join(&backend, "b").await;
    let start = Instant::now();
    assert!(world.faults().kill_member(TOPIC, "billing", "a"));
    assert_eq!(heir.assigned().await, [0]);
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert!(!killed.lease_holds(0));
    assert_eq!(killed.membership.next().await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(killed.commit(0, 1, 1).await.unwrap_err().kind(), ErrorKind::Fenced);
}

#[tokio::test(start_paused = true)]
async fn two_members_of_one_name_are_let_in() {
    let (_world, backend) = world(1).await;
    let first = join(&backend, "a").await;
    let join = eventbus_core::backend::Join::new(describe(&backend).await, group(), "a");
    assert_eq!(backend.join(join.clone()).await.unwrap_err().kind(), ErrorKind::InvalidName);
    first.membership.leave().await.unwrap();
    backend.join(join).await.unwrap();
    assert_eq!(first.membership.next().await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn administrators_change_a_group_under_its_members() {
    let (_world, backend) = world(2).await;
    let (topic, group) = (topic(), group());
    let kind = |result: eventbus_core::Result<()>| result.unwrap_err().kind();
    assert_eq!(kind(backend.delete_group(&topic, &group).await), ErrorKind::UnknownGroup);
    assert_eq!(backend.describe_group(&topic, &group).await.unwrap_err().kind(), ErrorKind::UnknownGroup);
    let mut member = join(&backend, "a").await;
    member.assigned().await;
    member.claim(0, 9).await.unwrap();
    member.commit(0, 2, 9).await.unwrap();
    assert_eq!(kind(backend.reset_group(&topic, &group, &[(0, Position::ZERO)]).await), ErrorKind::GroupActive);
    assert_eq!(kind(backend.delete_group(&topic, &group).await), ErrorKind::GroupActive);
    member.membership.release(0).await.unwrap();
    member.membership.leave().await.unwrap();
    backend.reset_group(&topic, &group, &[(0, Position::new(1)), (1, Position::new(7))]).await.unwrap();
    let partitions = backend.describe_group(&topic, &group).await.unwrap().partitions;
    let kept = partitions[0].committed.clone().unwrap();
    assert_eq!((kept.next, kept.epoch, kept.note), (Position::new(1), 9, Bytes::new()), "epoch kept, note cleared");
    assert_eq!(partitions[1].committed.as_ref().unwrap().epoch, 0);
    assert_eq!(backend.list_groups(&topic).await.unwrap(), std::slice::from_ref(&group));
    backend.delete_group(&topic, &group).await.unwrap();
    assert!(backend.list_groups(&topic).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn lag_is_a_difference_of_positions() {
    let config = MemoryConfig::new().positions(eventbus_memory::Positions::Shared);
    let (_world, backend) = world_with(config, TopicSpec::new(TOPIC).partitions(2)).await;
    let publisher = Publisher::new(&backend);
    publisher.stored(0, 1).await;
    for number in 2..=10 {
        publisher.stored(1, number).await;
    }
    publisher.stored(0, 11).await;
    backend.reset_group(&topic(), &group(), &[(0, Position::new(2))]).await.unwrap();
    let lag: Vec<u64> =
        backend.describe_group(&topic(), &group()).await.unwrap().partitions.iter().map(|p| p.lag).collect();
    assert_eq!(lag, [1, 9], "one record is left of partition 0, and all nine of partition 1");
}

#[tokio::test(start_paused = true)]
async fn a_note_above_the_limit_is_stored() {
    let (_world, backend) = world(1).await;
    let mut member = join(&backend, "a").await;
    member.own_the_only(1, 0).await;
    let commit = |bytes| Commit::new(0, Position::new(1), 1, Bytes::from(vec![0; bytes]));
    member.membership.commit(commit(3_072)).await.unwrap();
    let error = member.membership.commit(commit(3_073)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(!error.is_retryable());
}

#[tokio::test(start_paused = true)]
async fn progress_is_forgotten_with_the_topic() {
    let (world, backend) = world(2).await;
    let before = describe(&backend).await.incarnation;
    let mut member = join(&backend, "a").await;
    member.assigned().await;
    member.claim(0, 1).await.unwrap();
    member.membership.read(0, Position::ZERO).await.unwrap();
    member.commit(0, 5, 1).await.unwrap();
    world.faults().recreate(TOPIC).unwrap();
    assert_eq!(member.interrupted().await, [0, 1]);
    let log = member.membership.read(0, Position::new(5)).await.unwrap();
    assert_ne!(log.incarnation, before);
    assert_eq!(log.end, Position::ZERO);
    let kept = backend.describe_group(&topic(), &group()).await.unwrap().partitions[0].committed.clone();
    assert_eq!(kept.unwrap().next, Position::new(5));
}

#[tokio::test(start_paused = true)]
async fn a_cut_member_hears_of_its_group_or_commits() {
    let (world, backend) = world(1).await;
    let other_process = world.connect();
    let mut cut = join(&backend, "a").await;
    cut.own_the_only(1, 0).await;
    let mut heir = join(&other_process, "b").await;
    assert!(world.faults().cut(&backend, OnCut::Lost));
    let state = cut.next().await;
    assert!(matches!(state, GroupEvent::Connection(ConnectionState::Disconnected)), "{state:?}");
    assert_eq!(cut.interrupted().await, [0]);
    let error = cut.commit(0, 1, 1).await.unwrap_err();
    assert!(error.is_retryable() && error.kind() == ErrorKind::Unavailable, "{error}");
    assert!(cut.membership.read(0, Position::ZERO).await.unwrap_err().is_retryable());
    assert_eq!(heir.assigned().await, [0]);
    heir.claim(0, 2).await.unwrap();
    assert!(!cut.lease_holds(0));
    cut.hears_nothing().await;
    world.faults().heal(&backend);
    assert_eq!(cut.commit(0, 1, 1).await.unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(cut.lost().await, [0]);
    let state = cut.next().await;
    assert!(matches!(state, GroupEvent::Connection(ConnectionState::Connected)), "{state:?}");
    cut.hears_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_short_cut_costs_the_ownership_or_its_records() {
    let (world, backend) = world(1).await;
    let publisher = Publisher::new(&world.connect());
    let mut member = join(&backend, "a").await;
    member.own_the_only(1, 0).await;
    publisher.stored(0, 1).await;
    assert_eq!(member.numbers().await, [1]);
    world.faults().cut_for(&backend, OnCut::Lost, Duration::from_secs(5));
    publisher.stored(0, 2).await;
    member.next().await;
    assert_eq!(member.interrupted().await, [0]);
    member.hears_nothing().await;
    let state = member.next().await;
    assert!(matches!(state, GroupEvent::Connection(ConnectionState::Connected)), "{state:?}");
    assert_eq!(member.interrupted().await, [0]);
    member.hears_nothing().await;
    assert!(member.lease_holds(0));
    member.membership.read(0, Position::new(1)).await.unwrap();
    assert_eq!(member.numbers().await, [2]);
    member.commit(0, 2, 1).await.expect("the same epoch goes on");
}

#[tokio::test(start_paused = true)]
async fn a_frozen_backend_hears_or_says_anything() {
    let (world, backend) = world(1).await;
    let mut frozen = join(&backend, "a").await;
    frozen.own_the_only(1, 0).await;
    let mut heir = join(&world.connect(), "b").await;
    let publisher = Publisher::new(&backend);
    assert!(world.faults().freeze(&backend));
    let id = publisher.send(0, 1);
    frozen.hears_nothing().await;
    let membership = std::sync::Arc::clone(&frozen.membership);
    let commit =
        tokio::spawn(async move { membership.commit(Commit::new(0, Position::new(7), 1, Bytes::new())).await });
    assert_eq!(heir.assigned().await, [0]);
    assert!(!frozen.lease_holds(0));
    assert!(publisher.fates.get(id).is_none() && !commit.is_finished());
    world.faults().thaw(&backend);
    position(&publisher.fates.of(id).await);
    assert_eq!(commit.await.unwrap().unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(frozen.lost().await, [0]);
}

#[tokio::test(start_paused = true)]
async fn a_broker_restart_loses_ownership_or_progress() {
    let (world, backend) = world(1).await;
    let mut member = join(&backend, "a").await;
    member.own_the_only(1, 0).await;
    member.commit(0, 3, 1).await.unwrap();
    world.faults().restart_broker(OnCut::Lost, Duration::from_secs(60));
    assert!(backend.list_topics().await.unwrap_err().is_retryable());
    assert!(!backend.health().await.is_up());
    sleep(Duration::from_secs(59)).await;
    assert!(!member.lease_holds(0), "the member cannot know that nobody took over");
    sleep(Duration::from_millis(1_001)).await;
    assert!(member.lease_holds(0) && backend.health().await.is_up());
    member.commit(0, 4, 1).await.unwrap();
    advance(Duration::from_secs(60)).await;
    assert!(member.lease_holds(0));
}
