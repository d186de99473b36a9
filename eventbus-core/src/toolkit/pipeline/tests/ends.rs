//! Submissions before the start and at the end.

use super::fake::{self, Broker, Told, until};
use super::{Bench, topic};
use crate::model::{Envelope, Stamp};
use crate::toolkit::pipeline::failure::DeliveryErrorKind;
use crate::toolkit::pipeline::limits::TopicLimits;
use crate::toolkit::pipeline::producer::Producer;
use futures_util::FutureExt;

#[tokio::test]
async fn at_the_end_every_ticket_is_told_once_and_then_nothing_is_taken() {
    for purges in [false, true] {
        let bench = Bench::new();
        if purges {
            bench.broker.purge();
        }
        bench.submit(0, 1..=4);
        bench.submit(1, 10..=12);
        bench.broker.store(0, 1, 1);
        bench.producer.close().await;
        let unknown = [1, 2, 3, 4, 11, 12].map(|number| (number, "unknown"));
        let mut expected = [&unknown[..], &[(10, "stored")]].concat();
        expected.sort_unstable();
        assert_eq!(bench.told.take(), expected);
        bench.submit(0, [5]);
        bench.producer.prepare(&topic());
        assert_eq!(bench.told.take(), [(5, "closed")]);
        assert!(bench.broker.clients() == 1 && bench.broker.is_ended(0));
        bench.producer.close().await;
        drop(bench.producer);
        assert!(bench.told.take().is_empty());
    }
}

#[tokio::test]
async fn a_client_that_gets_no_further_is_replaced_once_and_what_it_had_is_told() {
    let bench = Bench::new();
    bench.begin(0, 1);
    bench.submit(0, 2..=3);
    bench.broker.over(0);
    bench.broker.over(0);
    bench.told(3).await;
    assert!(bench.broker.is_ended(0));
    assert_eq!(bench.told.take(), [(1, "stored"), (2, "unknown"), (3, "unknown")]);
    bench.submit(0, [2]);
    bench.broker.store(1, 0, 1);
    assert_eq!((bench.broker.log(0), bench.broker.clients()), (vec![1, 2], 2));
    // The client's last word may come late: the next one is then replaced for nothing, and nothing is lost.
    bench.broker.over(0);
    bench.submit(0, [3]);
    bench.producer.close().await;
    assert_eq!(bench.told.take().first(), Some(&(2, "stored")));
}

#[tokio::test]
async fn the_end_waits_for_a_client_that_is_being_replaced() {
    let bench = Bench::new();
    let learned = bench.broker.hold_learning();
    bench.submit(0, 1..=3);
    bench.broker.store(0, 0, 1);
    bench.broker.fail(0, 0, 1, super::BATCH);
    until(|| bench.broker.learned() == 1).await;
    let mut closing = Box::pin(bench.producer.close());
    assert!(closing.as_mut().now_or_never().is_none(), "not all is told");
    learned.send(true).unwrap();
    closing.await;
    assert_eq!(bench.told.take(), [(1, "stored"), (2, "unknown"), (3, "unknown")]);
}

#[tokio::test]
async fn what_is_submitted_while_the_end_begins_is_not_given_to_a_client() {
    let bench = Bench::new();
    let producer = bench.producer.clone();
    bench.broker.when_measured(move || assert!(producer.close().now_or_never().is_some()));
    bench.submit(0, [1]);
    assert_eq!((bench.told.take(), bench.broker.clients()), (vec![(1, "closed")], 0));
}

#[tokio::test]
async fn tickets_may_submit_from_inside() {
    let bench = Bench::new();
    let (producer, told) = (bench.producer.clone(), bench.told.clone());
    bench.told.when_told(move |id| {
        if id < 100 {
            producer.submit(fake::record(0, id + 100), told.ticket(id + 100));
        }
    });
    bench.submit(0, 1..=3);
    bench.broker.store(0, 0, 1);
    bench.broker.store(0, 0, 2);
    assert_eq!(bench.broker.given(0, 0), [101, 102]);
    bench.broker.store(0, 0, 2);
    assert_eq!(bench.broker.log(0), [1, 2, 3, 101, 102]);
    bench.producer.close().await;
    assert_eq!(bench.told.take().last(), Some(&(103, "unknown")));
}

#[tokio::test]
async fn before_the_start_nothing_is_taken() {
    let (producer, told) = (Producer::<Broker>::new(), std::sync::Arc::<Told>::default());
    producer.submit(fake::record(0, 1), told.ticket(1));
    producer.prepare(&topic());
    assert_eq!(told.take(), [(1, "closed")]);
}

#[tokio::test]
async fn a_client_is_made_once_before_the_first_record_or_for_it() {
    let bench = Bench::new();
    bench.producer.prepare(&"unknown".parse().unwrap());
    assert_eq!(bench.broker.clients(), 0);
    bench.broker.make_none(true);
    bench.producer.prepare(&topic());
    bench.submit(0, [1]);
    assert_eq!(bench.told.take(), [(1, "invalid_config")], "what stays is not waited for");
    bench.broker.make_none(false);
    bench.producer.prepare(&topic());
    bench.producer.prepare(&topic());
    bench.submit(0, [1]);
    assert_eq!((bench.broker.clients(), bench.broker.given(0, 0)), (1, vec![1]));
}

#[tokio::test]
async fn what_the_topic_refuses_is_told_before_a_client_is_needed() {
    let bench = Bench::new();
    let record = |stamp, key: &str, payload: usize| {
        let mut envelope = Envelope::builder("T", "/t").payload(vec![0; payload]);
        if !key.is_empty() {
            envelope = envelope.key(key);
        }
        crate::backend::Outbound::new(
            topic(),
            0,
            Stamp::new(crate::ProducerId::new(1), stamp),
            envelope.build().unwrap(),
        )
    };
    bench.producer.known().set(&topic(), TopicLimits::new("t", 1_000, true));
    bench.producer.submit(record(1, "k", 1_100), bench.told.ticket(1));
    bench.producer.submit(record(2, "", 1), bench.told.ticket(2));
    assert_eq!((bench.told.take(), bench.broker.clients()), (vec![(1, "too_large"), (2, "refused")], 0));
    // The first estimate, twice the size, is too much; the true size is not.
    bench.producer.submit(record(3, "k", 800), bench.told.ticket(3));
    assert_eq!(bench.broker.given(0, 0), [3]);
}

#[tokio::test]
async fn what_a_client_says_of_its_end_counts_for_all_of_which_nothing_else_is_known() {
    let bench = Bench::new();
    bench.submit(0, 1..=3);
    bench.broker.store(0, 0, 1);
    bench.broker.says_at_its_end(DeliveryErrorKind::Forbidden);
    bench.broker.fail(0, 0, 1, DeliveryErrorKind::Unclear);
    bench.told(3).await;
    assert_eq!(bench.told.take(), [(1, "stored"), (2, "doubtful"), (3, "doubtful")]);
}
