//! Refused batches: only the culprit is condemned, and only its partition waits.

use std::time::Duration;

use super::fake::{self, until};
use super::{BATCH, Bench, LIMIT, topic};
use crate::toolkit::pipeline::failure::DeliveryErrorKind;
use crate::toolkit::pipeline::limits::TopicLimits;

/// A partition whose second to fourth record were refused as a batch. Client 0 has failed.
async fn refused() -> Bench {
    let bench = Bench::new();
    bench.submit(0, 1..=4);
    bench.broker.store(0, 0, 1);
    bench.broker.fail(0, 0, 3, BATCH);
    bench.told(4).await;
    let un = "unknown";
    assert_eq!(bench.told.take(), [(1, "stored"), (2, un), (3, un), (4, un)], "the log is read before they come again");
    bench
}

#[tokio::test]
async fn a_refused_batch_is_narrowed_down_and_only_the_culprit_is_refused() {
    let bench = refused().await;
    assert_eq!(bench.broker.learned(), 1, "the limit may have been lowered");
    bench.submit(0, 2..=4);
    assert_eq!((bench.broker.is_alone(1), bench.broker.given(1, 0)), (true, vec![2]));
    bench.broker.store(1, 0, 1);
    bench.broker.fail(1, 0, 1, BATCH);
    // The client has failed, and the record that waited for it was never sent.
    bench.told(3).await;
    assert_eq!(bench.told.take(), [(2, "stored"), (3, "doubtful"), (4, "unknown")]);
    assert_eq!(bench.broker.learned(), 1, "of what is refused alone nothing is left to ask");
    bench.submit(0, [4]);
    assert!(bench.broker.is_alone(2));
    bench.broker.store(2, 0, 1);
    until(|| bench.broker.is_ended(2)).await;
    bench.submit(0, [5]);
    assert_eq!((bench.broker.is_alone(3), bench.broker.given(3, 0)), (false, vec![5]));
    bench.broker.store(3, 0, 1);
    assert_eq!(bench.broker.log(0), [1, 2, 4, 5]);
}

#[tokio::test]
async fn other_partitions_do_not_wait_for_one_under_suspicion() {
    let bench = refused().await;
    bench.submit(0, [2]);
    bench.submit(1, 10..=12);
    assert_eq!((bench.broker.given(1, 0), bench.broker.given(2, 1)), (vec![2], vec![10]));
    bench.broker.store(2, 1, 1);
    bench.broker.store(2, 1, 2);
    assert_eq!((bench.broker.log(0), bench.broker.log(1)), (vec![1], vec![10, 11, 12]));
    assert!(bench.broker.is_alone(1) && !bench.broker.is_alone(2));
}

#[tokio::test]
async fn a_partition_under_suspicion_goes_by_its_own_line_only_once_all_that_failed_is_told() {
    let bench = Bench::new();
    let learned = bench.broker.hold_learning();
    bench.submit(0, 1..=4);
    bench.broker.store(0, 0, 1);
    bench.broker.fail(0, 0, 2, BATCH);
    until(|| bench.broker.learned() == 1).await;
    bench.told.take();
    // A record that follows the failed ones, whose fates are still to be told.
    bench.submit(0, [5]);
    assert_eq!(bench.told.take(), [(5, "not stored")]);
    let (producer, told) = (bench.producer.clone(), bench.told.clone());
    bench.told.when_told(move |id| producer.submit(fake::record(0, id + 10), told.ticket(id + 10)));
    learned.send(true).unwrap();
    bench.told(6).await;
    let (not, un) = ("not stored", "unknown");
    let expected = [(2, un), (3, un), (4, un), (12, not), (13, not), (14, not)];
    assert_eq!((bench.told.take(), bench.broker.clients()), (expected.to_vec(), 1));
}

#[tokio::test]
async fn with_its_last_suspect_a_partition_goes_back_to_the_others() {
    let bench = refused().await;
    bench.submit(0, 2..=4);
    for _ in 2..=4 {
        assert!(!bench.broker.is_ended(1));
        bench.broker.store(1, 0, 1);
    }
    until(|| bench.broker.is_ended(1)).await;
    bench.submit(0, 5..=6);
    assert_eq!((bench.broker.is_alone(2), bench.broker.given(2, 0)), (false, vec![5]));
    assert!(bench.producer.quarantine.lock().lines().is_empty());
}

#[tokio::test]
async fn a_suspect_that_comes_again_is_still_one() {
    let bench = refused().await;
    bench.submit(0, 2..=4);
    bench.broker.store(1, 0, 1);
    bench.broker.store(1, 0, 1);
    bench.broker.fail(1, 0, 1, DeliveryErrorKind::Unclear);
    bench.told(3).await;
    bench.submit(0, [4]);
    assert!(bench.broker.is_alone(2), "the last suspect was not found innocent");
}

#[tokio::test(start_paused = true)]
async fn suspects_that_stay_away_are_not_waited_for_forever() {
    let bench = refused().await;
    bench.submit(0, [2]);
    bench.broker.store(1, 0, 1);
    tokio::time::advance(Duration::from_secs(4)).await;
    bench.submit(0, [5]);
    assert_eq!(bench.broker.given(1, 0), [5]);
    bench.broker.store(1, 0, 1);
    tokio::time::advance(Duration::from_secs(6)).await;
    bench.submit(0, [6]);
    assert!(!bench.broker.is_alone(2));
    until(|| bench.broker.is_ended(1)).await;
}

#[tokio::test]
async fn suspects_that_the_topic_is_known_to_refuse_by_now_are_waited_for_no_longer() {
    let bench = refused().await;
    bench.producer.known().set(&topic(), TopicLimits::new("t", 1, false));
    bench.submit(0, 2..=4);
    let large = "too_large";
    assert_eq!(bench.told.take(), [(2, large), (3, large), (4, large)]);
    bench.limit(LIMIT);
    bench.submit(0, [5]);
    assert!(!bench.broker.is_alone(1));
}

#[tokio::test]
async fn what_is_said_of_topic_or_user_condemns_each_record_and_narrows_nothing() {
    for (verdict, gone, fate) in [
        (DeliveryErrorKind::Forbidden, false, "doubtful"),
        (DeliveryErrorKind::Vanished, true, "unknown_topic"),
        (DeliveryErrorKind::Vanished, false, "unknown"),
    ] {
        let bench = Bench::new();
        bench.submit(0, 1..=3);
        bench.broker.store(0, 0, 1);
        if gone {
            bench.broker.topic_is_gone();
        }
        bench.broker.fail(0, 0, 2, verdict);
        bench.told(3).await;
        assert_eq!(bench.told.take(), [(1, "stored"), (2, fate), (3, fate)], "{verdict:?}");
        bench.submit(0, [4]);
        assert_eq!((bench.broker.is_alone(1), bench.broker.learned()), (false, 0));
    }
}

#[tokio::test]
async fn a_topic_that_takes_nothing_of_the_user_is_told_to_all_its_records_at_once() {
    let bench = Bench::new();
    bench.begin(0, 1);
    bench.submit(0, 2..=4);
    bench.broker.fail(0, 0, 1, DeliveryErrorKind::Forbidden);
    bench.told(4).await;
    let doubt = "doubtful";
    assert_eq!(
        bench.told.take(),
        [(1, "stored"), (2, doubt), (3, doubt), (4, doubt)],
        "each would be refused in its turn"
    );
}

#[tokio::test]
async fn a_limit_that_was_raised_is_read_again_and_not_for_each_record() {
    let bench = Bench::new();
    bench.limit(1);
    bench.submit(0, [1]);
    assert_eq!(bench.told.take().len(), 1);
    until(|| bench.broker.learned() == 1).await;
    bench.submit(0, 2..=1_000);
    assert_eq!((bench.told.take().len(), bench.broker.clients()), (999, 0), "each is refused before it is given");
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.broker.learned(), 1, "the broker is asked for each");
}

#[tokio::test]
async fn a_partition_under_load_leaves_its_own_line_when_its_suspects_are_settled() {
    let bench = refused().await;
    bench.submit(0, 2..=5);
    bench.broker.store(1, 0, 1);
    bench.broker.store(1, 0, 2);
    assert_eq!(bench.broker.given(1, 0), [5], "no suspect, but on its way by the partition's own line");
    bench.told.take();
    bench.submit(0, [6]);
    assert_eq!(bench.told.take(), [(6, "not stored")], "or the line would never be empty");
    bench.broker.store(1, 0, 1);
    until(|| bench.broker.is_ended(1)).await;
    bench.submit(0, [6]);
    assert_eq!((bench.broker.is_alone(2), bench.broker.given(2, 0)), (false, vec![6]));
}

#[tokio::test]
async fn a_partition_keeps_a_line_of_its_own_whose_limit_was_raised() {
    let bench = refused().await;
    bench.submit(0, 2..=3);
    assert_eq!((bench.broker.limit(1), bench.broker.given(1, 0)), (LIMIT, vec![2]));
    bench.limit(2 * LIMIT);
    bench.told.take();
    bench.submit(0, [4]);
    assert_eq!(bench.told.take(), [(4, "not stored")], "the old line has to end first");
    bench.broker.store(1, 0, 1);
    bench.broker.store(1, 0, 1);
    bench.submit(0, [4]);
    assert_eq!((bench.broker.is_alone(2), bench.broker.limit(2)), (true, 2 * LIMIT));
    assert_eq!(bench.broker.given(2, 0), [4]);
    until(|| bench.broker.is_ended(1)).await;
}
