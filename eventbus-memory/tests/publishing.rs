//! The backend's promises to publishers (P1 to P3), each test named after what it refutes.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests, which clippy takes for library code

mod common;

use std::time::Duration;

use common::*;
use eventbus_core::backend::{Backend, Fate, Pipelining, ensure_topic};
use eventbus_core::{ErrorKind, Position, TopicSpec};
use eventbus_memory::{Copies, Latency, MemoryConfig, OnCut, Positions, Scope, SubmitFault, Wait};
use proptest::prelude::*;
use tokio::time::{Instant, advance, sleep};

fn millis(least: u64, most: u64) -> Wait {
    Wait::between(Duration::from_millis(least), Duration::from_millis(most))
}

#[tokio::test(start_paused = true)]
async fn a_submission_is_not_told_inside_the_call() {
    let (_world, backend) = world(2).await;
    let publisher = Publisher::new(&backend);
    let id = publisher.send(1, 1);
    assert_eq!(position(&publisher.fates.get(id).unwrap()), Position::ZERO);
    assert_eq!(publisher.stored(1, 2).await, Position::new(1));
    assert_eq!(publisher.stored(0, 3).await, Position::ZERO, "each partition counts for itself");
}

#[tokio::test(start_paused = true)]
async fn shared_positions_are_contiguous_per_partition() {
    let config = MemoryConfig::new().positions(Positions::Shared);
    let (_world, backend) = world_with(config, TopicSpec::new(TOPIC).partitions(2)).await;
    let publisher = Publisher::new(&backend);
    let at = [
        publisher.stored(0, 1).await.get(),
        publisher.stored(1, 2).await.get(),
        publisher.stored(1, 3).await.get(),
        publisher.stored(0, 4).await.get(),
    ];
    assert_eq!(at, [1, 2, 3, 4]);
    let logs = describe(&backend).await.partitions;
    assert!(logs.iter().all(|log| log.first == Position::new(1) && log.end == Position::new(5)), "{logs:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stamp_sent_again_is_stored_again_inside_the_window() {
    let window = Duration::from_secs(10);
    let spec = TopicSpec::new(TOPIC).partitions(1).duplicate_window(window);
    let (_world, backend) = world_with(MemoryConfig::new(), spec).await;
    let publisher = Publisher::new(&backend);
    let first = publisher.stored(0, 1).await;
    publisher.stored(0, 2).await;
    advance(window - Duration::from_nanos(1)).await;
    let again = publisher.fates.of(publisher.send(0, 1)).await;
    assert!(is_duplicate(&again) && position(&again) == first, "{again:?}");
    advance(Duration::from_nanos(1)).await;
    let late = publisher.fates.of(publisher.send(0, 1)).await;
    assert!(!is_duplicate(&late), "the window is over at its very end: {late:?}");
    let copy = publisher.fates.of(publisher.send(0, 1)).await;
    assert!(is_duplicate(&copy) && position(&copy) == position(&late), "the window runs from the later copy: {copy:?}");
}

#[tokio::test(start_paused = true)]
async fn the_world_cannot_say_that_copies_are_never_or_always_dropped() {
    for (copies, dropped) in [(Copies::Stored, false), (Copies::Dropped, true)] {
        let spec = TopicSpec::new(TOPIC).partitions(1).duplicate_window(Duration::from_secs(1));
        let (_world, backend) = world_with(MemoryConfig::new().copies(copies), spec.clone()).await;
        let publisher = Publisher::new(&backend);
        publisher.stored(0, 1).await;
        if dropped {
            advance(Duration::from_secs(3600)).await;
        }
        assert_eq!(is_duplicate(&publisher.fates.of(publisher.send(0, 1)).await), dropped);
        ensure_topic(&backend, &spec).await.expect("the topic still validates against the same spec");
    }
}

#[tokio::test(start_paused = true)]
async fn refusals_are_retryable_or_unnamed() {
    let config = MemoryConfig::new().max_record_bytes(600);
    let (world, backend) = world_with(config, TopicSpec::new(TOPIC).partitions(1)).await;
    let publisher = Publisher::new(&backend);
    let refusal = |id| match publisher.fates.get(id) {
        Some(Fate::Refused(error)) => error,
        other => panic!("expected refused, got {other:?}"),
    };
    assert_eq!(refusal(publisher.send_key(0, &"k".repeat(700), 1)).kind(), ErrorKind::TooLarge);
    assert_eq!(refusal(publisher.send(9, 2)).kind(), ErrorKind::Backend);
    backend.delete_topic(&topic()).await.unwrap();
    assert_eq!(refusal(publisher.send(0, 3)).kind(), ErrorKind::UnknownTopic);
    backend.close().await.unwrap();
    assert_eq!(refusal(publisher.send(0, 4)).kind(), ErrorKind::Closed);
    drop(world);
}

#[tokio::test(start_paused = true)]
async fn a_latency_is_not_waited_for_or_changes_with_the_run() {
    let run = || async {
        let latency = Latency::everywhere(millis(1, 20));
        let env = std::sync::Arc::new(Seeded(std::sync::Mutex::new(42)));
        let config = MemoryConfig::new().latency(latency).env(env);
        let (_world, backend) = world_with(config, TopicSpec::new(TOPIC).partitions(4)).await;
        let publisher = Publisher::new(&backend);
        let start = Instant::now();
        let mut fates = Vec::new();
        for number in 0..50 {
            fates.push(publisher.send(number as u32 % 4, number));
        }
        for id in &fates {
            publisher.fates.of(*id).await;
        }
        let waited = start.elapsed();
        assert!(waited > Duration::ZERO);
        (waited, publisher.fates.order())
    };
    let (one, other) = (run().await, run().await);
    assert_eq!(one, other);
    assert_ne!(one.1, (0..50).collect::<Vec<u64>>(), "answers of different keys overtake each other");
}

#[derive(Debug)]
struct Seeded(std::sync::Mutex<u64>);

impl eventbus_core::Env for Seeded {
    fn unix_millis(&self) -> u64 {
        1_700_000_000_000
    }

    fn random(&self) -> u64 {
        let mut state = self.0.lock().unwrap();
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[tokio::test(start_paused = true)]
async fn close_leaves_a_ticket_untold() {
    let config = MemoryConfig::new().latency(Latency::everywhere(millis(10, 10)));
    let (_world, backend) = world_with(config, TopicSpec::new(TOPIC).partitions(1)).await;
    let publisher = Publisher::new(&backend);
    let id = publisher.send(0, 1);
    assert!(publisher.fates.get(id).is_none());
    backend.close().await.unwrap();
    assert!(matches!(publisher.fates.get(id), Some(Fate::Unknown(_))));
}

#[tokio::test(start_paused = true)]
async fn a_timer_needs_a_world_that_somebody_keeps() {
    let world = MemoryConfig::new().latency(Latency::everywhere(millis(5, 5))).build().unwrap();
    let backend = world.connect();
    ensure_topic(&backend, &TopicSpec::new(TOPIC)).await.unwrap();
    let publisher = Publisher::new(&backend);
    drop(world);
    let id = publisher.send(0, 1);
    position(&publisher.fates.of(id).await);
}

#[test]
fn timers_die_with_the_runtime_that_drove_them() {
    let world = MemoryConfig::new().latency(Latency::everywhere(millis(5, 5))).build().unwrap();
    let backend = world.connect();
    let publisher = Publisher::new(&backend);
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    let id = first.block_on(async {
        ensure_topic(&backend, &TopicSpec::new(TOPIC)).await.unwrap();
        publisher.send(0, 1)
    });
    drop(first);
    runtime().block_on(async {
        let second = publisher.send(0, 2);
        position(&publisher.fates.of(id).await);
        position(&publisher.fates.of(second).await);
    });
}

#[tokio::test(start_paused = true)]
async fn a_submission_that_crossed_a_failure_is_stored() {
    let config = MemoryConfig::new().pipelining(Pipelining::PerPartition);
    let (_world, backend) = world_with(config, TopicSpec::new(TOPIC).partitions(1)).await;
    let publisher = Publisher::new(&backend);
    publisher.fates.fallen.lock().unwrap().push(0);
    assert!(matches!(publisher.fates.get(publisher.send(0, 1)), Some(Fate::NotStored(_))));
    assert!(matches!(publisher.fates.get(publisher.send(0, 1)), Some(Fate::Stored { duplicate: false, .. })));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// After a record of a partition got another fate than stored, no record submitted later and before that fate was
    /// told may be stored. Stored records are in the order of the calls.
    #[test]
    fn a_pipelined_partition_has_a_hole(
        faults in prop::collection::vec((0u8..8, 1u64..20), 0..4),
        gaps in prop::collection::vec(0u64..30, 20),
        cut_at in prop::option::of(0usize..20),
        seed in any::<u64>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let env = std::sync::Arc::new(Seeded(std::sync::Mutex::new(seed)));
            let config = MemoryConfig::new()
                .pipelining(Pipelining::PerPartition)
                .latency(Latency::everywhere(millis(0, 20)))
                .answer_timeout(Duration::from_millis(50))
                .env(env);
            let (world, backend) = world_with(config, TopicSpec::new(TOPIC).partitions(1)).await;
            for (kind, nth) in faults {
                let fault = match kind {
                    0 => SubmitFault::Drop,
                    1 => SubmitFault::Delay(Duration::from_millis(40)),
                    2 => SubmitFault::Refuse,
                    3 => SubmitFault::NotStored,
                    4 => SubmitFault::LoseConfirmation,
                    _ => SubmitFault::Hold,
                };
                world.faults().submit(fault, Scope::any().nth(nth));
            }
            let publisher = Publisher::new(&backend);
            // For each send, the ids of the fates that had been told when it was made.
            let mut told_before = Vec::new();
            for (number, gap) in gaps.iter().enumerate() {
                told_before.push(publisher.fates.order());
                publisher.send(0, number as u64);
                if cut_at == Some(number) {
                    world.faults().cut_for(&backend, OnCut::Drawn, Duration::from_millis(15));
                }
                sleep(Duration::from_millis(*gap)).await;
                if *gap == 7 {
                    world.faults().release_held();
                }
            }
            sleep(Duration::from_secs(1)).await;
            world.faults().release_held();
            for id in 0..gaps.len() as u64 {
                publisher.fates.of(id).await;
            }
            let stored = |id: u64| match publisher.fates.get(id) { Some(Fate::Stored { position, .. }) => Some(position), _ => None };
            for failed in (0..gaps.len() as u64).filter(|id| stored(*id).is_none()) {
                for later in failed + 1..gaps.len() as u64 {
                    let seen = told_before[later as usize].contains(&failed);
                    prop_assert!(seen || stored(later).is_none(), "{later} is stored behind {failed}, whose fate was not told yet");
                }
            }
            let positions: Vec<Position> = (0..gaps.len() as u64).filter_map(stored).collect();
            prop_assert!(positions.is_sorted(), "{positions:?}");
            Ok(())
        })?;
    }
}
