//! Reads of one partition, fed by hand.

use std::sync::atomic::Ordering;

use super::store::{FakeSource, Feed};
use super::*;
use crate::backend::{Body, Inbound};
use crate::toolkit::lease::{SourceEvent, mapped, scan};
use crate::wire::{Binding, WireRecord};

static BINDING: Binding = Binding::new("ce-");

fn record(delivery: u64, position: u64) -> SourceEvent {
    record_of(delivery, position, 1)
}

fn record_of(delivery: u64, position: u64, bytes: usize) -> SourceEvent {
    let record = WireRecord { key: None, headers: Vec::new(), payload: vec![b'x'; bytes].into() };
    let body = Body::Encoded { record, binding: &BINDING };
    SourceEvent::Record { delivery, left: 0, record: Inbound::new(0, Position::new(position), 0, body) }
}

/// A member that owns partition 0 and reads it from 5 on.
async fn reading(store: &Arc<Fake>) -> (Arc<dyn Membership>, Arc<Feed>) {
    let member = member(store, "a").await;
    assert!(matches!(event(&member, LEASE).await, GroupEvent::Assigned(_)));
    member.read(0, Position::new(5)).await.unwrap();
    assert_eq!(store.feed().from, Position::new(5));
    (member, store.feed())
}

async fn positions(member: &Arc<dyn Membership>) -> Vec<u64> {
    match event(member, LEASE).await {
        GroupEvent::Records(records) => records.iter().map(|record| record.position.get()).collect(),
        other => panic!("{other:?}"),
    }
}

async fn interrupted(member: &Arc<dyn Membership>) {
    let event = event(member, LEASE).await;
    assert!(matches!(&event, GroupEvent::Interrupted(partitions) if partitions == &[0]), "{event:?}");
}

#[tokio::test(start_paused = true)]
async fn after_a_gap_nothing_comes_but_the_interruption() {
    let store = Fake::new(1);
    let (member, feed) = reading(&store).await;
    for pulled in [record(1, 5), record(2, 7), record(4, 9), record(5, 10)] {
        feed.send.send(pulled).unwrap();
    }
    assert_eq!(positions(&member).await, [5, 7]);
    interrupted(&member).await;
    silent(&member, LEASE).await;
}

#[tokio::test(start_paused = true)]
async fn a_position_that_does_not_rise_breaks_a_read_off() {
    let store = Fake::new(1);
    let (member, feed) = reading(&store).await;
    feed.send.send(record(1, 6)).unwrap();
    feed.send.send(record(2, 6)).unwrap();
    assert_eq!(positions(&member).await, [6]);
    interrupted(&member).await;
}

#[tokio::test(start_paused = true)]
async fn silence_of_the_broker_breaks_a_read_off_and_a_sign_of_life_does_not() {
    let store = Fake::new(1);
    let (member, feed) = reading(&store).await;
    let begun = Instant::now();
    sleep(Duration::from_secs(1)).await;
    feed.send.send(SourceEvent::Alive).unwrap();
    interrupted(&member).await;
    assert_eq!(begun.elapsed().as_secs(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_read_queued_is_not_handed_out() {
    let store = Fake::new(1);
    let (member, feed) = reading(&store).await;
    feed.send.send(record(1, 5)).unwrap();
    sleep(Duration::from_millis(10)).await;
    member.read(0, Position::new(5)).await.unwrap();
    let newer = store.feed();
    assert!(!Arc::ptr_eq(&feed, &newer));
    newer.send.send(record(1, 6)).unwrap();
    assert_eq!(positions(&member).await, [6]);
}

#[tokio::test(start_paused = true)]
async fn a_paused_read_asks_for_nothing_more_and_no_more_is_on_its_way_than_the_bound() {
    let store = Fake::new(1);
    let (member, feed) = reading(&store).await;
    sleep(Duration::from_millis(10)).await;
    let first = feed.asked.load(Ordering::Relaxed);
    assert_eq!(first, 64, "little before the size of records is known");
    member.pause(0);
    (1..=64).for_each(|n| feed.send.send(record(n, 4 + n)).unwrap());
    assert_eq!(positions(&member).await.len(), 64);
    sleep(Duration::from_millis(10)).await;
    assert_eq!(feed.asked.load(Ordering::Relaxed), first);
    member.resume(0);
    sleep(Duration::from_millis(10)).await;
    assert_eq!(feed.asked.load(Ordering::Relaxed), first + 100);
    // The broker's side has taken them, the member has not: they are still on their way.
    (65..=164).for_each(|n| feed.send.send(record(n, 4 + n)).unwrap());
    sleep(Duration::from_millis(10)).await;
    assert_eq!(feed.asked.load(Ordering::Relaxed), first + 100);
    assert_eq!(positions(&member).await.len(), 100);
    sleep(Duration::from_millis(10)).await;
    assert_eq!(feed.asked.load(Ordering::Relaxed), first + 200);
}

#[tokio::test(start_paused = true)]
async fn records_that_grow_while_a_request_is_open_are_bounded_in_bytes() {
    const MIB: usize = 1 << 20;
    let store = Fake::new(1);
    let (member, feed) = reading(&store).await;
    (1..=64).for_each(|n| feed.send.send(record(n, 4 + n)).unwrap());
    assert_eq!(positions(&member).await.len(), 64);
    sleep(Duration::from_millis(10)).await;
    let limits = || feed.limits.lock().unwrap().clone();
    assert!(limits().iter().all(|limit| limit.is_some_and(|bytes| bytes <= 8 * MIB)), "{:?}", limits());
    let asked = feed.asked.load(Ordering::Relaxed);
    // A large record comes and is not taken yet: the next one does not fit.
    feed.send.send(record_of(65, 69, MIB)).unwrap();
    feed.send.send(SourceEvent::Full(99)).unwrap();
    sleep(Duration::from_millis(10)).await;
    assert_eq!(feed.asked.load(Ordering::Relaxed), asked, "nothing is asked for while anything waits to be taken");
    assert_eq!(positions(&member).await, [69]);
    sleep(Duration::from_millis(10)).await;
    assert_eq!(
        (feed.asked.load(Ordering::Relaxed), limits().last().copied()),
        (asked + 1, Some(None)),
        "one, of any size"
    );
    // By now the size of records is known.
    feed.send.send(record_of(66, 70, 9 * MIB)).unwrap();
    sleep(Duration::from_millis(10)).await;
    assert_eq!(feed.asked.load(Ordering::Relaxed), asked + 1, "it takes more than there is room");
    assert_eq!(positions(&member).await, [70]);
    sleep(Duration::from_millis(10)).await;
    assert!(limits().last().unwrap().is_some_and(|bytes| bytes <= 8 * MIB), "{:?}", limits());
    assert!(feed.asked.load(Ordering::Relaxed) <= asked + 101);
}

#[tokio::test(start_paused = true)]
async fn an_idle_partition_is_told_how_far_it_has_come_and_nothing_undelivered_is_passed_over() {
    let store = Fake::new(1);
    let (member, feed) = reading(&store).await;
    // Others' records fill the log, and one of this partition is still on its way.
    store.set_log(1, 100, Some(40));
    let alive = async {
        loop {
            sleep(Duration::from_millis(500)).await;
            feed.send.send(SourceEvent::Alive).unwrap();
        }
    };
    let waited = async {
        silent(&member, Duration::from_secs(3)).await;
        feed.send.send(record(1, 40)).unwrap();
        assert_eq!(positions(&member).await, [40]);
        let told = event(&member, LEASE).await;
        assert!(matches!(told, GroupEvent::CaughtUp { partition: 0, next } if next.get() == 100), "{told:?}");
        // Records that retention took below that are nobody's loss.
        store.set_log(90, 100, None);
        silent(&member, Duration::from_secs(3)).await;
    };
    tokio::select! {
        () = alive => {}
        () = waited => {}
    }
}

#[tokio::test(start_paused = true)]
async fn what_retention_took_before_it_was_delivered_is_told() {
    let store = Fake::new(1);
    let (member, feed) = reading(&store).await;
    store.set_log(50, 100, Some(60));
    sleep(Duration::from_millis(1_500)).await;
    feed.send.send(SourceEvent::Alive).unwrap();
    let told = event(&member, LEASE).await;
    assert!(matches!(told, GroupEvent::Truncated { partition: 0, first } if first.get() == 50), "{told:?}");
}

/// Sends signs of life until `waited` is over.
async fn alive_while(feed: &Feed, waited: impl Future<Output = ()>) {
    let alive = async {
        loop {
            sleep(Duration::from_millis(500)).await;
            feed.send.send(SourceEvent::Alive).unwrap();
        }
    };
    tokio::select! {
        () = alive => {}
        () = waited => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_partition_beside_a_busy_one_under_retention_has_lost_nothing() {
    let store = Fake::new(1);
    let (member, feed) = reading(&store).await;
    sleep(Duration::from_millis(10)).await;
    member.pause(0);
    (1..=64).for_each(|n| feed.send.send(record(n, 4 + n)).unwrap());
    assert_eq!(positions(&member).await.len(), 64);
    // All of the partition is delivered; others' records come and go.
    for busy in 1..20 {
        store.set_log(1 + 60 * (busy - 1), 69 + 60 * busy, None);
        sleep(Duration::from_secs(1)).await;
    }
    let mut told = Vec::new();
    while let Ok(event) = timeout(Duration::from_secs(1), member.next()).await {
        told.push(event.unwrap());
    }
    let lifted = told.iter().all(|event| matches!(event, GroupEvent::CaughtUp { partition: 0, .. }));
    assert!(lifted && !told.is_empty(), "{told:?}");
    // A record of its own that retention takes before it is asked for is a loss.
    store.set_log(1_200, 1_300, Some(1_280));
    sleep(Duration::from_millis(1_500)).await;
    store.set_log(1_290, 1_400, None);
    let told = event(&member, LEASE).await;
    assert!(matches!(told, GroupEvent::CaughtUp { next, .. } if next.get() == 1_280), "{told:?}");
    let told = event(&member, LEASE).await;
    assert!(matches!(told, GroupEvent::Truncated { first, .. } if first.get() == 1_290), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_look_that_a_record_overtakes_passes_over_those_behind_it() {
    let store = Fake::new(1);
    let (member, feed) = reading(&store).await;
    // Of this partition are 40 and 60; others' records fill the log.
    store.set_log(1, 100, Some(40));
    let looks = store.slow_looks(Duration::from_millis(300));
    let waited = async {
        while store.looks() == looks {
            sleep(Duration::from_millis(10)).await;
        }
        feed.send.send(record(1, 40)).unwrap();
        assert_eq!(positions(&member).await, [40]);
        silent(&member, Duration::from_millis(400)).await;
        feed.send.send(record(2, 60)).unwrap();
        assert_eq!(positions(&member).await, [60]);
    };
    alive_while(&feed, waited).await;
}

#[tokio::test(start_paused = true)]
async fn a_removal_between_delivered_records_is_told_and_one_after_delivery_is_not() {
    let store = Fake::new(1);
    let (member, feed) = reading(&store).await;
    let waited = async {
        for (n, position) in [(1, 5), (2, 6), (3, 9)] {
            feed.send.send(record(n, position)).unwrap();
        }
        store.set_log(1, 10, None);
        store.set_removals(&[(6, 7)]);
        assert_eq!(positions(&member).await, [5, 6, 9]);
        silent(&member, Duration::from_millis(3_300)).await;
        feed.send.send(record(4, 12)).unwrap();
        assert_eq!(positions(&member).await, [12]);
        store.set_log(1, 13, None);
        store.set_removals(&[(6, 7), (10, 12)]);
        let told = event(&member, LEASE).await;
        let GroupEvent::Removed { partition: 0, from, to } = told else { panic!("{told:?}") };
        assert_eq!((from.get(), to.get()), (10, 12));
        silent(&member, Duration::from_secs(3)).await;
    };
    alive_while(&feed, waited).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_removed_while_a_group_was_away_is_told_before_the_records_behind_it() {
    let store = Fake::new(1);
    store.set_log(1, 100, Some(99));
    store.set_removals(&[(20, 30)]);
    let claimed = |member: Arc<dyn Membership>, epoch| async move {
        assert!(matches!(event(&member, LEASE).await, GroupEvent::Assigned(_)));
        member.commit(claim(0, epoch, 10)).await.unwrap();
        member.read(0, Position::new(1)).await.unwrap();
        member
    };
    let first = claimed(member(&store, "a").await, 1).await;
    store.feed().send.send(record(1, 10)).unwrap();
    assert_eq!(positions(&first).await, [10], "what was removed before the group came is not its loss");
    first.release(0).await.unwrap();
    first.leave().await.unwrap();
    let second = claimed(member(&store, "b").await, 2).await;
    store.feed().send.send(record(1, 10)).unwrap();
    assert_eq!(positions(&second).await, [10], "nor for the next member");
    second.release(0).await.unwrap();
    second.leave().await.unwrap();
    store.set_removals(&[(20, 30), (40, 41)]);
    let third = claimed(member(&store, "c").await, 3).await;
    let told = event(&third, LEASE).await;
    assert!(matches!(told, GroupEvent::Removed { partition: 0, to, .. } if to.get() == 41), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_scan_ends_with_the_last_record_of_the_moment_and_fails_where_one_is_missing() {
    let numbered = |delivery, left| SourceEvent::Record { delivery, left, record: delivery };
    for (pulled, seen, ends_well) in [
        (vec![numbered(1, 2), SourceEvent::Alive, numbered(2, 1), numbered(3, 0)], vec![1, 2, 3], true),
        (vec![numbered(1, 2), numbered(2, 5), numbered(3, 4), numbered(4, 3)], vec![1, 2, 3], true),
        (vec![numbered(1, 2), numbered(2, 0)], vec![1, 2], true),
        (vec![numbered(1, 2), SourceEvent::Ended(2)], vec![1], true),
        (vec![numbered(1, 2), numbered(3, 0)], vec![1], false),
        (vec![numbered(1, 2), SourceEvent::Broken("gone".into())], vec![1], false),
        (vec![numbered(1, 2)], vec![1], false),
    ] {
        let (mut source, feed) = FakeSource::new();
        pulled.into_iter().for_each(|pulled| feed.send(pulled).unwrap());
        let mut found = Vec::new();
        let scanned = scan(&mut source, 3, LEASE, |number| {
            found.push(number);
            true
        });
        let scanned = scanned.await;
        assert_eq!((found, scanned.is_ok()), (seen, ends_well), "{scanned:?}");
    }
    let (mut source, feed) = FakeSource::new();
    (1..=3).for_each(|n| feed.send(numbered(n, 3 - n)).unwrap());
    let mut last = 0;
    let scanned = scan(&mut source, 3, LEASE, |number| {
        last = number;
        number < 2
    });
    scanned.await.unwrap();
    assert_eq!(last, 2, "it stops when it is told to");
}

#[tokio::test(start_paused = true)]
async fn a_mapped_source_reads_its_records_and_touches_nothing_else() {
    let (source, feed) = FakeSource::new();
    let mut source = mapped(source, |record: u64| record * 10);
    for pulled in [
        SourceEvent::Alive,
        SourceEvent::Record { delivery: 1, left: 1, record: 1 },
        SourceEvent::Record { delivery: 2, left: 0, record: 2 },
    ] {
        feed.send(pulled).unwrap();
    }
    let mut found = Vec::new();
    let scanned = scan(&mut source, 5, LEASE, |record| {
        found.push(record);
        true
    });
    scanned.await.unwrap();
    assert_eq!(found, [10, 20]);
    feed.send(SourceEvent::Broken("gone".into())).unwrap();
    let error = scan(&mut source, 1, LEASE, |_| true).await.unwrap_err();
    assert_eq!(error.message(), "gone");
}
