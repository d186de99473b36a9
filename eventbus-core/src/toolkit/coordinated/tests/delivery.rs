//! Records that are delivered, and those that are not (S3, S6).

use std::sync::atomic::Ordering;

use super::*;
use crate::toolkit::coordinated::delivery::{BATCH, SETTLES, WAITING};

#[tokio::test(start_paused = true)]
async fn what_an_earlier_read_fetched_is_not_delivered() {
    let mut rig = Rig::new();
    rig.given(&[0]).await;
    rig.broker.comes([record(0, 0)]);
    rig.turn();
    rig.read(0, 0).await.unwrap();
    rig.broker.comes([record(0, 0), record(0, 1), Polled::End(0, None)]);
    rig.turn();
    rig.read(0, 1).await.unwrap();
    rig.broker.comes([record(0, 1), record(0, 2), Polled::End(0, None)]);
    rig.turn();
    assert_eq!(positions(rig.event().await), [1, 2]);
    assert!(matches!(rig.event().await, GroupEvent::CaughtUp { partition: 0, next } if next == Position::new(3)));
    rig.silent();
}

#[tokio::test(start_paused = true)]
async fn what_stands_behind_the_last_record_and_is_none_is_caught_up_with() {
    let mut rig = Rig::new();
    rig.given(&[0]).await;
    rig.read(0, 0).await.unwrap();
    let upto = async |rig: &Rig| match rig.event().await {
        GroupEvent::CaughtUp { next, .. } => next.get(),
        other => panic!("{other:?}"),
    };
    // A transaction's marker follows on the record.
    rig.broker.comes([record(0, 4), Polled::End(0, Some(Position::new(6)))]);
    rig.turn();
    assert_eq!(positions(rig.event().await), [4]);
    assert_eq!(upto(&rig).await, 6);
    // A client that knows less than was delivered takes nothing back.
    rig.broker.comes([Polled::End(0, Some(Position::new(2)))]);
    rig.turn();
    assert_eq!(upto(&rig).await, 5);
}

#[tokio::test(start_paused = true)]
async fn what_was_queued_of_an_ownership_that_is_over_is_not_delivered() {
    let mut rig = Rig::new();
    rig.given(&[0, 1]).await;
    rig.read(0, 0).await.unwrap();
    rig.read(1, 0).await.unwrap();
    rig.broker.comes([record(0, 0), record(1, 0), Polled::End(0, None)]);
    rig.turn();
    rig.listener.release(0);
    assert_eq!(positions(rig.event().await).len(), 1);
    rig.silent();
}

#[tokio::test(start_paused = true)]
async fn positions_only_rise_and_begin_where_the_read_did() {
    let mut rig = Rig::new();
    rig.given(&[0]).await;
    rig.read(0, 3).await.unwrap();
    rig.broker.comes([2, 3, 3, 7, 5, 8].map(|position| record(0, position)));
    rig.turn();
    assert_eq!(positions(rig.event().await), [3, 7, 8]);
}

#[tokio::test(start_paused = true)]
async fn a_read_begins_in_the_log_and_without_a_pause() {
    let mut rig = Rig::new();
    rig.given(&[0, 1]).await;
    rig.broker.first.store(10, Ordering::Release);
    let log = rig.read(0, 3).await.unwrap();
    assert_eq!((log.first, log.end), (Position::new(10), Position::new(100)));
    rig.read(1, 500).await.unwrap();
    assert_eq!(rig.broker.said(), ["seek 0 10", "pause 0 false", "seek 1 100", "pause 1 false"]);
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_read_delivers_nothing_more() {
    let mut rig = Rig::new();
    rig.given(&[0, 1]).await;
    rig.read(0, 0).await.unwrap();
    rig.broker.comes([record(0, 0), Polled::Interrupted, record(0, 1), Polled::End(0, None)]);
    (0..4).for_each(|_| rig.turn());
    let GroupEvent::Interrupted(broken) = rig.event().await else { panic!("an interruption") };
    assert_eq!(broken, [0], "only what was read");
    rig.silent();
    rig.read(0, 0).await.unwrap();
    rig.broker.comes([record(0, 0)]);
    rig.turn();
    assert_eq!(positions(rig.event().await), [0]);
}

#[tokio::test(start_paused = true)]
async fn while_the_core_has_enough_to_take_no_more_is_polled() {
    let mut rig = Rig::new();
    rig.given(&[0]).await;
    rig.read(0, 0).await.unwrap();
    rig.broker.polls.store(0, Ordering::Relaxed);
    rig.broker.comes((0..10_000).map(|position| record(0, position)));
    (0..30).for_each(|_| rig.turn());
    let full = (WAITING / BATCH + 1) * BATCH;
    assert_eq!(rig.broker.polls.load(Ordering::Relaxed), full);
    assert_eq!(positions(rig.event().await).len(), BATCH);
    rig.turn();
    assert_eq!(rig.broker.polls.load(Ordering::Relaxed), full + BATCH);
}

#[tokio::test(start_paused = true)]
async fn a_change_of_the_connection_is_told_once() {
    let mut rig = Rig::new();
    let (down, up) = ("reached false", "reached true");
    rig.broker.comes([Polled::Disconnected, Polled::Disconnected, record(0, 0), record(0, 1)]);
    (0..4).for_each(|_| rig.turn());
    assert_eq!(rig.broker.said(), [down, up]);
    assert!(matches!(rig.event().await, GroupEvent::Connection(crate::ConnectionState::Disconnected)));
    assert!(matches!(rig.event().await, GroupEvent::Connection(crate::ConnectionState::Connected)));
    rig.silent();
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_ended_a_partition_joins_anew_once_all_is_handed_over() {
    let mut rig = Rig::new();
    rig.given(&[0]).await;
    rig.broker.stuck.store(true, Ordering::Release);
    let (listener, client) = (rig.listener.clone(), rig.client.clone().unwrap());
    let begins = spawn_blocking(move || listener.begin(&client, 0, Position::ZERO).unwrap_err());
    while rig.broker.said().is_empty() {
        yield_now().await;
    }
    advance(SETTLES).await;
    assert_eq!(begins.await.unwrap().kind(), ErrorKind::Unavailable);
    rig.broker.said();
    rig.turn();
    rig.turn();
    assert_eq!(rig.broker.said(), ["unsubscribe"]);
    // The client hands over as if the coordinator had asked.
    assert_eq!(rig.listener.revoked(&[0], false), Revocation::Later);
    rig.turn();
    assert_eq!(revoked(rig.event().await), [0]);
    rig.listener.release(0);
    rig.turn();
    assert_eq!(rig.broker.said(), ["unassign [0]", "subscribe"]);
}
