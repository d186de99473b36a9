//! The backend's promises about delivery: no record skipped, none after a break, pauses, idle partitions, retention.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests, which clippy takes for library code

mod common;

use std::time::Duration;

use common::*;
use eventbus_core::backend::{Backend, GroupEvent, TopicDescription, ensure_topic};
use eventbus_core::{ErrorKind, OnExisting, Position, TopicSpec};
use eventbus_memory::{Latency, MemoryConfig, Positions, Wait};
use tokio::time::{Instant, advance, sleep};

#[tokio::test(start_paused = true)]
async fn a_record_is_delivered_before_read_or_not_after_it() {
    let (_world, backend) = world(1).await;
    let publisher = Publisher::new(&backend);
    publisher.stored(0, 1).await;
    let mut member = join(&backend, "a").await;
    assert_eq!(member.assigned().await, [0]);
    member.hears_nothing().await;
    let log = member.membership.read(0, Position::ZERO).await.unwrap();
    assert_eq!((log.first, log.end), (Position::ZERO, Position::new(1)));
    assert_eq!(member.numbers().await, [1]);
    member.hears_nothing().await;
    publisher.stored(0, 2).await;
    assert_eq!(member.numbers().await, [2]);
    member.membership.read(0, Position::ZERO).await.unwrap();
    assert_eq!(member.numbers().await, [1, 2], "a read begins a new delivery");
    member.membership.read(0, Position::new(1)).await.unwrap();
    assert_eq!(member.numbers().await, [2]);
}

#[tokio::test(start_paused = true)]
async fn reading_what_is_not_owned_or_there_is_let_through() {
    let (_world, backend) = world(2).await;
    let mut member = join(&backend, "a").await;
    member.assigned().await;
    let mut other = join(&backend, "b").await;
    member.revoked().await;
    let kind = |result: eventbus_core::Result<_>| result.map(drop).unwrap_err().kind();
    assert_eq!(kind(other.membership.read(0, Position::ZERO).await), ErrorKind::Fenced);
    assert_eq!(kind(member.membership.read(9, Position::ZERO).await), ErrorKind::Backend);
    backend.delete_topic(&topic()).await.unwrap();
    assert_eq!(kind(member.membership.read(0, Position::ZERO).await), ErrorKind::UnknownTopic);
    other.hears_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_stored_record_wakes_nobody() {
    let (_world, backend) = world(1).await;
    let mut member = join(&backend, "a").await;
    member.own_the_only(1, 0).await;
    let waiting = tokio::spawn(async move { member.numbers().await });
    tokio::task::yield_now().await;
    Publisher::new(&backend).stored(0, 1).await;
    assert_eq!(waiting.await.unwrap(), [1]);
}

#[tokio::test(start_paused = true)]
async fn more_than_the_overshoot_comes_after_a_pause() {
    for overshoot in [0, 2] {
        let config = MemoryConfig::new().overshoot(overshoot);
        let (_world, backend) = world_with(config, TopicSpec::new(TOPIC).partitions(1)).await;
        let publisher = Publisher::new(&backend);
        let mut member = join(&backend, "a").await;
        member.own_the_only(1, 0).await;
        member.membership.pause(0);
        for number in 1..=5 {
            publisher.stored(0, number).await;
        }
        if overshoot > 0 {
            assert_eq!(member.numbers().await, [1, 2]);
        }
        member.hears_nothing().await;
        member.membership.resume(0);
        assert_eq!(member.numbers().await.last(), Some(&5));
    }
}

#[tokio::test(start_paused = true)]
async fn a_paused_member_does_not_hear_of_a_revocation() {
    let (_world, backend) = world(2).await;
    let mut member = join(&backend, "a").await;
    for partition in member.assigned().await {
        member.claim(partition, 1).await.unwrap();
        member.membership.read(partition, Position::ZERO).await.unwrap();
        member.membership.pause(partition);
    }
    let _other = join(&backend, "b").await;
    assert_eq!(member.revoked().await, [1]);
}

#[tokio::test(start_paused = true)]
async fn one_long_partition_keeps_the_others_out_of_a_batch() {
    let config = MemoryConfig::new().fetch_batch(10);
    let (_world, backend) = world_with(config, TopicSpec::new(TOPIC).partitions(3)).await;
    let publisher = Publisher::new(&backend);
    for number in 1..=100 {
        publisher.stored(0, number).await;
    }
    publisher.stored(1, 101).await;
    publisher.stored(2, 102).await;
    let mut member = join(&backend, "a").await;
    for partition in member.assigned().await {
        member.membership.read(partition, Position::ZERO).await.unwrap();
    }
    let batch = member.records().await;
    assert_eq!(batch.len(), 10, "the batch is filled up");
    for partition in [1, 2] {
        assert_eq!(batch.iter().filter(|record| record.partition == partition).count(), 1);
    }
    let zero: Vec<u64> = batch.iter().filter(|record| record.partition == 0).map(number).collect();
    assert_eq!(zero, (1..=8).collect::<Vec<u64>>());
    assert_eq!(member.numbers().await, (9..=18).collect::<Vec<u64>>());
}

#[tokio::test(start_paused = true)]
async fn an_idle_partition_is_never_told_how_far_the_sequence_is() {
    let config = MemoryConfig::new().positions(Positions::Shared);
    let (_world, backend) = world_with(config, TopicSpec::new(TOPIC).partitions(2)).await;
    let publisher = Publisher::new(&backend);
    let mut member = join(&backend, "a").await;
    for partition in member.assigned().await {
        member.membership.read(partition, Position::new(1)).await.unwrap();
    }
    let start = Instant::now();
    let mut told = Vec::new();
    for number in 1..=50 {
        publisher.stored(1, number).await;
        loop {
            let event = tokio::time::timeout(Duration::from_millis(10), member.membership.next()).await;
            match event {
                Ok(Ok(GroupEvent::Records(records))) => assert!(records.iter().all(|record| record.partition == 1)),
                Ok(Ok(GroupEvent::CaughtUp { partition: 0, next })) => told.push((start.elapsed(), next)),
                Ok(other) => panic!("{other:?}"),
                Err(_) => break,
            }
        }
    }
    assert!(told.len() >= 4, "every 100 ms while the other partition is busy: {told:?}");
    assert!(told.windows(2).all(|two| two[1].0 - two[0].0 >= Duration::from_millis(100)), "{told:?}");
    match member.next().await {
        GroupEvent::CaughtUp { partition: 0, next } => assert_eq!(next, Position::new(51)),
        other => panic!("{other:?}"),
    }
    member.hears_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn being_caught_up_is_told_before_the_records_below_it() {
    let config = MemoryConfig::new().positions(Positions::Shared).fetch_batch(1);
    let (_world, backend) = world_with(config, TopicSpec::new(TOPIC).partitions(2)).await;
    let publisher = Publisher::new(&backend);
    for number in 1..=6 {
        publisher.stored(u32::from(number > 3), number).await;
    }
    let mut member = join(&backend, "a").await;
    member.assigned().await;
    member.membership.read(0, Position::new(1)).await.unwrap();
    for number in 1..=3 {
        assert_eq!(member.numbers().await, [number]);
    }
    let event = member.next().await;
    assert!(matches!(event, GroupEvent::CaughtUp { partition: 0, next } if next == Position::new(7)), "{event:?}");
}

#[tokio::test(start_paused = true)]
async fn records_lost_to_retention_are_skipped_silently() {
    let spec = TopicSpec::new(TOPIC).partitions(1).max_messages(3);
    let (_world, backend) = world_with(MemoryConfig::new(), spec).await;
    let publisher = Publisher::new(&backend);
    let mut member = join(&backend, "a").await;
    member.own_the_only(1, 0).await;
    publisher.stored(0, 1).await;
    assert_eq!(member.numbers().await, [1]);
    for number in 2..=7 {
        publisher.stored(0, number).await;
    }
    let event = member.next().await;
    assert!(matches!(event, GroupEvent::Truncated { partition: 0, first } if first == Position::new(4)), "{event:?}");
    assert_eq!(member.numbers().await, [5, 6, 7]);
    assert_eq!(describe(&backend).await.partitions[0].first, Position::new(4));
}

#[tokio::test(start_paused = true)]
async fn delivered_records_lost_to_retention_are_reported() {
    let (world, backend) = world(1).await;
    let publisher = Publisher::new(&backend);
    let mut member = join(&backend, "a").await;
    member.own_the_only(1, 0).await;
    for number in 1..=3 {
        publisher.stored(0, number).await;
    }
    member.records().await;
    world.faults().truncate(TOPIC, 0, Position::new(3)).unwrap();
    member.hears_nothing().await;
    publisher.stored(0, 4).await;
    assert_eq!(member.numbers().await, [4]);
}

#[tokio::test(start_paused = true)]
async fn retention_keeps_too_much_or_too_little() {
    let (one, other) = (envelope("k", 1).size() as u64, Duration::from_secs(10));
    let cases = [
        (TopicSpec::new(TOPIC).max_messages(4), 4),
        (TopicSpec::new(TOPIC).max_bytes(3 * one + 1), 3),
        (TopicSpec::new(TOPIC).max_age(other), 2),
    ];
    for (spec, kept) in cases {
        let (_world, backend) = world_with(MemoryConfig::new(), spec.partitions(2)).await;
        let publisher = Publisher::new(&backend);
        for number in 1..=8 {
            publisher.stored(number as u32 % 2, number).await;
            if number == 6 {
                advance(other + Duration::from_millis(1)).await;
            }
        }
        let described = describe(&backend).await;
        assert_eq!(described.records, kept);
        assert_eq!(described.bytes, Some(kept * one));
    }
}

#[tokio::test(start_paused = true)]
async fn age_counts_only_when_something_is_stored() {
    let spec = TopicSpec::new(TOPIC).partitions(1).max_age(Duration::from_secs(1));
    let (_world, backend) = world_with(MemoryConfig::new(), spec).await;
    Publisher::new(&backend).stored(0, 1).await;
    sleep(Duration::from_secs(2)).await;
    let described = describe(&backend).await;
    assert_eq!((described.records, described.partitions[0].first), (0, Position::new(1)));
}

#[tokio::test(start_paused = true)]
async fn a_stamp_or_a_time_is_not_found() {
    let (world, backend) = world(1).await;
    let publisher = Publisher::new(&backend);
    for number in 1..=3 {
        publisher.stored(0, number).await;
        sleep(Duration::from_secs(1)).await;
    }
    let find = |from, number| {
        let backend = backend.clone();
        async move { backend.find_stamp(&topic(), 0, Position::new(from), stamp(number)).await.unwrap() }
    };
    assert_eq!(find(0, 2).await, Some(Position::new(1)));
    assert_eq!(find(1, 2).await, Some(Position::new(1)));
    assert_eq!(find(2, 2).await, None);
    assert_eq!(find(9, 2).await, None);
    let now = world.unix_millis();
    let at = |millis| {
        let backend = backend.clone();
        async move { backend.position_at(&topic(), 0, millis).await.unwrap() }
    };
    assert_eq!(at(0).await, Position::ZERO);
    assert_eq!(at(now - 2_000).await, Position::new(1));
    assert_eq!(at(now - 1_999).await, Position::new(2));
    assert_eq!(at(now).await, Position::new(3), "the end of the log");
}

#[tokio::test(start_paused = true)]
async fn an_existing_topic_is_treated_in_another_way_than_asked() {
    let (_world, backend) = world(2).await;
    let spec = || TopicSpec::new(TOPIC).partitions(2);
    let kind = |result: eventbus_core::Result<TopicDescription>| result.unwrap_err();
    let ensure = |spec| {
        let backend = backend.clone();
        async move { ensure_topic(&backend, &spec).await }
    };
    ensure(spec()).await.unwrap();
    assert_eq!(kind(ensure(spec().on_existing(OnExisting::CreateOnly)).await).kind(), ErrorKind::TopicExists);
    let mismatch = kind(ensure(spec().max_messages(5)).await);
    assert_eq!(mismatch.kind(), ErrorKind::TopicMismatch);
    assert!(mismatch.to_string().contains("max_messages"), "{mismatch}");
    let kept = ensure(spec().partitions(9).on_existing(OnExisting::LeaveAlone)).await.unwrap();
    assert_eq!(kept.partitions.len(), 2);
    let update = |spec: TopicSpec| ensure(spec.on_existing(OnExisting::CreateOrUpdate));
    assert_eq!(kind(update(spec().partitions(3)).await).kind(), ErrorKind::TopicMismatch);
    let changed = update(spec().max_messages(5).replicas(3)).await.unwrap();
    assert_eq!((changed.spec.max_messages, changed.spec.replicas), (Some(5), 3));
    assert_eq!(backend.list_topics().await.unwrap(), [topic()]);
    assert_eq!(kind(ensure(TopicSpec::new("no spaces")).await).kind(), ErrorKind::InvalidName);
    backend.delete_topic(&topic()).await.unwrap();
    assert_eq!(backend.delete_topic(&topic()).await.unwrap_err().kind(), ErrorKind::UnknownTopic);
    assert_eq!(kind(backend.describe_topic(&topic()).await).kind(), ErrorKind::UnknownTopic);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_batch_and_giving_up_loses_it() {
    let wait = Wait::between(Duration::from_millis(30), Duration::from_millis(30));
    let mut latency = Latency::default();
    latency.fetch = wait;
    let config = MemoryConfig::new().latency(latency).fetch_batch(2);
    let (_world, backend) = world_with(config, TopicSpec::new(TOPIC).partitions(1)).await;
    let publisher = Publisher::new(&backend);
    for number in 1..=6 {
        publisher.stored(0, number).await;
    }
    let mut member = join(&backend, "a").await;
    member.own_the_only(1, 0).await;
    let mut seen = Vec::new();
    while seen.len() < 6 {
        // `next` is cancel safe: it is dropped and called again all the time.
        if let Ok(event) = tokio::time::timeout(Duration::from_millis(1), member.membership.next()).await {
            match event.unwrap() {
                GroupEvent::Records(records) => seen.extend(records.iter().map(number)),
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(seen, [1, 2, 3, 4, 5, 6]);
}

#[tokio::test(start_paused = true)]
async fn a_closed_backend_answers() {
    let (_world, backend) = world(1).await;
    let mut member = join(&backend, "a").await;
    member.assigned().await;
    backend.close().await.unwrap();
    assert_eq!(member.membership.next().await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(backend.list_topics().await.unwrap_err().kind(), ErrorKind::Closed);
    backend.close().await.unwrap();
}
