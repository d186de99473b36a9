//! Records of one partition: stored in their order, and none behind a hole.

use super::{Bench, LIMIT};
use crate::toolkit::pipeline::failure::{DeliveryErrorKind, Rejected};

#[tokio::test]
async fn a_partition_keeps_its_order_though_its_client_fails_in_the_middle() {
    let bench = Bench::new();
    bench.submit(0, 1..=6);
    assert_eq!(bench.broker.given(0, 0), [1], "one until the first is stored");
    bench.broker.store(0, 0, 1);
    assert_eq!(bench.broker.given(0, 0), [2, 3, 4, 5, 6]);
    bench.broker.store(0, 0, 2);
    bench.broker.fail(0, 0, 1, DeliveryErrorKind::Unclear);
    bench.told(6).await;
    let (stored, unknown) = ("stored", "unknown");
    assert_eq!(bench.told.take(), [(1, stored), (2, stored), (3, stored), (4, unknown), (5, unknown), (6, unknown)]);
    bench.submit(0, 4..=6);
    bench.broker.store(1, 0, 1);
    bench.broker.store(1, 0, 2);
    assert_eq!(bench.broker.log(0), [1, 2, 3, 4, 5, 6]);
    assert!(bench.broker.is_ended(0) && !bench.broker.is_ended(1));
}

#[tokio::test]
async fn after_its_first_failed_report_a_client_is_given_nothing() {
    let bench = Bench::new();
    bench.begin(0, 1);
    bench.begin(1, 10);
    bench.submit(0, 2..=3);
    bench.submit(1, 11..=13);
    assert_eq!((bench.broker.given(0, 0), bench.broker.given(0, 1)), (vec![2], vec![11]));
    bench.broker.fail(0, 0, 1, DeliveryErrorKind::Unclear);
    // A record stored now would let the others follow; the client panics where they do.
    bench.broker.store(0, 1, 1);
    bench.submit(0, [4]);
    bench.submit(1, [14]);
    bench.submit(2, [20]);
    assert_eq!(bench.broker.log(1), [10, 11]);
    bench.told(10).await;
    for (number, fate) in bench.told.take() {
        let expected = match number {
            1 | 10 | 11 => "stored",
            2 | 3 => "unknown",
            _ => "not stored",
        };
        assert_eq!(fate, expected, "{number}");
    }
    assert_eq!(bench.broker.clients(), 1, "the next is made when it is needed");
}

#[tokio::test]
async fn a_client_is_replaced_only_once_all_that_it_had_is_told() {
    let bench = Bench::new();
    bench.begin(0, 1);
    bench.submit(0, 2..=3);
    let (producer, told) = (bench.producer.clone(), bench.told.clone());
    let number = std::sync::atomic::AtomicU64::new(100);
    bench.told.when_told(move |_| {
        let next = number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        producer.submit(super::fake::record(0, next), told.ticket(next));
    });
    bench.broker.fail(0, 0, 1, DeliveryErrorKind::Unclear);
    bench.told(5).await;
    let (unknown, not) = ("unknown", "not stored");
    assert_eq!(bench.told.take(), [(1, "stored"), (2, unknown), (3, unknown), (100, not), (101, not)]);
    assert_eq!(bench.broker.clients(), 1);
}

#[tokio::test]
async fn what_waits_behind_a_record_that_was_not_taken_comes_back_with_it() {
    for (turned, fate) in [
        (Rejected::TooLarge, "too_large"),
        (Rejected::Full, "not stored"),
        (Rejected::Over("over".into()), "not stored"),
    ] {
        let bench = Bench::new();
        bench.begin(0, 1);
        bench.submit(0, 2..=5);
        bench.broker.turn(3, turned);
        bench.broker.store(0, 0, 1);
        // The record's fate is still to be told: until then none may come before it.
        bench.submit(0, [6]);
        bench.told(6).await;
        let not = "not stored";
        let told = bench.told.take();
        assert_eq!(told, [(1, "stored"), (2, "stored"), (3, fate), (4, not), (5, not), (6, not)]);
        assert_eq!(bench.broker.log(0), [1, 2]);
        bench.begin(0, 7);
        assert_eq!((bench.broker.log(0), bench.broker.clients()), (vec![1, 2, 7], 2));
    }
}

#[tokio::test]
async fn a_record_that_is_turned_away_when_it_is_submitted_costs_no_other_one_its_client() {
    let bench = Bench::new();
    bench.begin(0, 1);
    bench.submit(1, [10]);
    bench.broker.turn(2, Rejected::Full);
    bench.broker.turn(3, Rejected::TooLarge);
    bench.submit(0, 2..=4);
    assert_eq!(bench.told.take(), [(1, "stored"), (2, "not stored"), (3, "too_large")]);
    assert_eq!((bench.broker.given(0, 0), bench.broker.given(0, 1)), (vec![4], vec![10]));
    bench.broker.store(0, 1, 1);
    bench.broker.store(0, 0, 1);
    bench.broker.turn(5, Rejected::Over("over".into()));
    bench.submit(0, [5, 6]);
    bench.told(4).await;
    assert_eq!(bench.told.take(), [(4, "stored"), (5, "not stored"), (6, "not stored"), (10, "stored")]);
    assert!(bench.broker.is_ended(0));
}

#[tokio::test]
async fn what_stands_no_longer_is_not_given() {
    let bench = Bench::new();
    bench.told.fall(1);
    bench.submit(0, [1]);
    assert_eq!(bench.told.take(), [(1, "not stored")]);
    assert_eq!(bench.broker.clients(), 0);
    bench.begin(0, 2);
    bench.submit(0, 3..=5);
    bench.told.fall(4);
    bench.broker.store(0, 0, 1);
    bench.told(4).await;
    assert_eq!(bench.told.take(), [(2, "stored"), (3, "stored"), (4, "not stored"), (5, "not stored")]);
    assert_eq!(bench.broker.log(0), [2, 3]);
}

#[tokio::test]
async fn a_topic_whose_limit_changes_goes_by_another_client_once_the_first_has_none_of_it() {
    let bench = Bench::new();
    bench.begin(0, 1);
    bench.submit(0, 2..=3);
    for (client, limit, first) in [(1, LIMIT / 2, 4), (0, LIMIT, 7)] {
        bench.limit(limit);
        bench.told.take();
        bench.submit(0, [first]);
        bench.submit(1, [first]);
        assert_eq!(bench.told.take(), [(first, "not stored"), (first, "not stored")]);
        let before = 1 - client;
        bench.broker.store(before, 0, 1);
        bench.submit(1, [first]);
        assert_eq!(bench.told.take(), [(first - 2, "stored"), (first, "not stored")]);
        bench.broker.store(before, 0, 1);
        bench.submit(0, first..first + 3);
        assert_eq!((bench.broker.given(client, 0), bench.broker.limit(client)), (vec![first], limit));
        bench.broker.store(client, 0, 1);
    }
    assert_eq!((bench.broker.log(0), bench.broker.clients()), ((1..=7).collect(), 2));
}

#[tokio::test]
async fn a_client_that_has_failed_keeps_the_topic_until_all_is_told() {
    let bench = Bench::new();
    bench.begin(0, 1);
    bench.submit(0, 2..=3);
    bench.broker.fail(0, 0, 1, DeliveryErrorKind::Unclear);
    bench.limit(LIMIT / 2);
    let (producer, told) = (bench.producer.clone(), bench.told.clone());
    bench.told.when_told(move |id| producer.submit(super::fake::record(0, id + 10), told.ticket(id + 10)));
    bench.told(5).await;
    let (unknown, not) = ("unknown", "not stored");
    assert_eq!(bench.told.take(), [(1, "stored"), (2, unknown), (3, unknown), (12, not), (13, not)]);
    assert_eq!(bench.broker.clients(), 1);
    bench.begin(0, 2);
    assert_eq!((bench.broker.log(0), bench.broker.limit(1)), (vec![1, 2], LIMIT / 2));
}
