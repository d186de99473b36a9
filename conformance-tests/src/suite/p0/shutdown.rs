//! Cases 18 and 19: a member that leaves of its own accord.

use std::time::Duration;

use eventbus_core::{ErrorKind, TopicSpec};

use crate::harness::{Act, steadily};
use crate::history::{EndOutcome, FinishedBy};
use crate::suite::common::{GROUP, TOPIC, expect, failing, keys, millis, subscribe};
use crate::suite::failure::ensure;
use crate::suite::p0::failure::finished;
use crate::suite::{Failure, Run};

/// Case 18.
pub(in crate::suite) async fn drained(run: Run) -> Result<(), Failure> {
    let peer = run.process().await?;
    peer.topic(TopicSpec::new(TOPIC).partitions(4)).await?;
    peer.publish_rounds(TOPIC, &keys("order", 100), 8).await?;
    let mut handled = 0;
    for part in 1..=4 {
        let subscription = peer.subscribe(subscribe(), steadily(millis(10))).await?;
        run.until_calls("some are done", handled + 60, |call| call.succeeded()).await;
        subscription.drain(Duration::from_secs(10)).await?;
        let open = run.count(|call| call.end.is_none());
        ensure!(open == 0, "part {part}: {open} handlers still ran when the drain was over");
        handled = run.count(|call| call.succeeded());
        ensure!(handled < 800, "all was done before the drain: the case shows nothing");
    }
    let subscription = peer.subscribe(subscribe(), steadily(millis(1))).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    subscription.drain(Duration::from_secs(10)).await?;
    let verdict = run.judge(&expect().overlap().spread(100, 4), &[(TOPIC, &[GROUP])]).await?;
    ensure!(verdict.counts.repeats == 0, "a drain repeats nothing: {:?}", verdict.counts);
    ensure!(verdict.counts.deliveries == 800, "each was to be handled once: {:?}", verdict.counts);
    Ok(())
}

/// Case 19.
pub(in crate::suite) async fn deadline_passes(run: Run) -> Result<(), Failure> {
    let peer = run.process().await?;
    peer.topic(TopicSpec::new(TOPIC).partitions(4)).await?;
    let mut all = keys("order", 30);
    all.push("k".into());
    peer.publish_rounds(TOPIC, &all, 6).await?;
    let subscription = peer.subscribe(subscribe(), failing("k", 3, Act::Hang, u32::MAX)).await?;
    run.until_calls("one hangs", 1, |call| call.is("k", 3)).await;
    let Err(error) = subscription.drain(millis(500)).await else {
        return Err(Failure::wrong("a drain that left a handler behind said nothing of it"));
    };
    ensure!(error.kind() == ErrorKind::DeadlineExceeded, "expected the deadline, got {error}");
    let hung = run.calls().into_iter().find(|call| call.is("k", 3));
    let place = hung.as_ref().map(|call| format!("{}:{}", call.start.partition, call.start.position));
    let named = error.context().any(|(name, value)| name == "abandoned" && Some(value) == place.as_deref());
    ensure!(named, "the error does not say that {place:?} was abandoned: {error}");
    let end = hung.and_then(|call| call.end).map(|(outcome, _)| outcome);
    ensure!(end == Some(EndOutcome::Abandoned), "its future was to be dropped by then, it ended as {end:?}");
    drop(subscription);
    let again = peer.subscribe(subscribe(), steadily(millis(1))).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    again.drain(Duration::from_secs(5)).await?;
    run.judge(&expect().overlap(), &[(TOPIC, &[GROUP])]).await?;
    ensure!(finished(&run, FinishedBy::DeadLettered) == 0, "abandoned work is never dead-lettered");
    ensure!(run.count(|call| call.is("k", 3) && call.succeeded()) == 1, "abandoned work is delivered again");
    Ok(())
}
