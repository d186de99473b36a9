//! Cases 5, 6, 7, 27 and 28: publishing to a broker that refuses, does not answer, or is cut off.

use std::time::Duration;

use eventbus_core::{AfterRefusal, ErrorKind, TopicSpec};

use crate::harness::{Outcome, steadily};
use crate::history::{Kind, PublishOutcome};
use crate::oracle;
use crate::suite::common::{GROUP, TOPIC, expect, keys, millis, subscribe};
use crate::suite::failure::ensure;
use crate::suite::{Ability, Failure, Peer, PublishFault, Publishes, Run, UnderWay};

/// The number of the refused publish, and how many of its key are queued.
const REFUSED: u64 = 3;
const QUEUED: u64 = 6;

/// Counts the refused publishes in the history.
fn refusals(run: &Run) -> usize {
    let refused = |kind: &Kind| matches!(kind, Kind::Published { outcome: PublishOutcome::Refused { .. }, .. });
    run.inspect(|events| events.iter().filter(|event| refused(&event.kind)).count())
}

/// Queues six envelopes of `k` among those of other keys; the third will be refused.
async fn queue_and_refuse(run: &Run, peer: &Peer) -> Result<(Vec<Outcome>, Vec<Outcome>), Failure> {
    run.on_publish(PublishFault::Refuse, Publishes::to(TOPIC).key("k").nth(REFUSED)).await?;
    let (mut of_k, mut others) = (Vec::new(), Vec::new());
    for _ in 0..QUEUED {
        of_k.push(peer.publisher().publish(TOPIC, "k", 0));
        others.extend(keys("other", 20).iter().map(|key| peer.publisher().publish(TOPIC, key, 0)));
    }
    run.until("the refusal and what it takes with it", || refusals(run) >= 4).await;
    Ok((of_k, others))
}

/// Checks the six outcomes of `k`: stored before the refusal, not from there on, and each error names the refusal.
async fn prefix_stored_suffix_not(of_k: Vec<Outcome>) -> Result<(), Failure> {
    let mut named = None;
    for (number, outcome) in (1..).zip(of_k) {
        let result = outcome.await;
        if number < REFUSED {
            result?;
            continue;
        }
        let Err(error) = result else { return Err(Failure::wrong(format!("number {number} was stored"))) };
        let expected = if number == REFUSED { ErrorKind::Refused } else { ErrorKind::Cascaded };
        ensure!(error.kind() == expected, "number {number}: expected {expected}, got {error}");
        let refusal = error.refusal().cloned();
        ensure!(refusal.is_some(), "number {number}: the error names no refused publish: {error}");
        ensure!(named.is_none() || named == refusal, "number {number} names another refusal: {error}");
        named = refusal;
    }
    Ok(())
}

async fn refused(run: &Run, rule: AfterRefusal) -> Result<Peer, Failure> {
    let peer = run.process().await?;
    peer.topic(TopicSpec::new(TOPIC).partitions(4).after_refusal(rule)).await?;
    Ok(peer)
}

async fn finish(run: &Run, peer: &Peer, rule: oracle::AfterRefusal) -> Result<(), Failure> {
    let subscription = peer.subscribe(subscribe(), steadily(millis(1))).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    subscription.drain(Duration::from_secs(5)).await?;
    run.judge(&expect().overlap().after_refusal(TOPIC, rule), &[(TOPIC, &[GROUP])]).await?;
    Ok(())
}

async fn sealed(peer: &Peer) -> Result<(), Failure> {
    let Err(error) = peer.publisher().publish(TOPIC, "k", 0).await else {
        return Err(Failure::wrong("a publish after an unseen refusal was stored"));
    };
    ensure!(error.kind() == ErrorKind::KeySealed, "expected a sealed key, got {error}");
    ensure!(error.refusal().is_some(), "the error names no refused publish: {error}");
    Ok(())
}

/// Case 5: the key is sealed until the caller has seen the refusal.
pub(in crate::suite) async fn refusal_seals_until_seen(run: Run) -> Result<(), Failure> {
    let peer = refused(&run, AfterRefusal::SealKey).await?;
    let (of_k, others) = queue_and_refuse(&run, &peer).await?;
    // Nobody has awaited an outcome: this publish fails, and by its error the caller has seen the refusal.
    sealed(&peer).await?;
    peer.publisher().publish(TOPIC, "k", 0).await?;
    for outcome in others {
        outcome.await?;
    }
    prefix_stored_suffix_not(of_k).await?;
    finish(&run, &peer, oracle::AfterRefusal::Seal).await
}

/// Case 5: the key is sealed until it is resumed.
pub(in crate::suite) async fn refusal_seals_until_resumed(run: Run) -> Result<(), Failure> {
    let peer = refused(&run, AfterRefusal::SealUntilResumed).await?;
    let (of_k, others) = queue_and_refuse(&run, &peer).await?;
    prefix_stored_suffix_not(of_k).await?;
    // The refusal was seen, and the key is sealed all the same.
    sealed(&peer).await?;
    sealed(&peer).await?;
    peer.publisher().resume(TOPIC, "k")?;
    peer.publisher().publish(TOPIC, "k", 0).await?;
    for outcome in others {
        outcome.await?;
    }
    finish(&run, &peer, oracle::AfterRefusal::SealUntilResumed).await
}

/// Case 5: the topic goes on after a refusal.
pub(in crate::suite) async fn refusal_seals_nothing_where_told(run: Run) -> Result<(), Failure> {
    let peer = refused(&run, AfterRefusal::Continue).await?;
    let (of_k, others) = queue_and_refuse(&run, &peer).await?;
    peer.publisher().publish(TOPIC, "k", 0).await?;
    prefix_stored_suffix_not(of_k).await?;
    for outcome in others {
        outcome.await?;
    }
    finish(&run, &peer, oracle::AfterRefusal::Continue).await
}

/// Case 6.
pub(in crate::suite) async fn lost_confirmation(run: Run) -> Result<(), Failure> {
    let peer = run.process().await?;
    peer.topic(TopicSpec::new(TOPIC).partitions(4)).await?;
    let subscription = peer.subscribe(subscribe(), steadily(millis(1))).await?;
    run.on_publish(PublishFault::LoseConfirmation, Publishes::to(TOPIC).key("k").nth(3)).await?;
    let mut all = keys("order", 20);
    all.push("k".into());
    let publisher = peer.publisher();
    let outcomes: Vec<_> =
        (0..6).flat_map(|_| all.iter().map(|key| (key == "k", publisher.publish(TOPIC, key, 0)))).collect();
    let mut duplicates = 0;
    for (is_k, outcome) in outcomes {
        let receipt = outcome.await?;
        duplicates += usize::from(is_k && receipt.duplicate);
    }
    if run.can(Ability::DuplicateWindow) {
        ensure!(duplicates == 1, "the one re-sent was to be recognised, {duplicates} were");
    }
    run.settled(TOPIC, &[GROUP]).await?;
    subscription.drain(Duration::from_secs(5)).await?;
    let verdict = run.judge(&expect().overlap(), &[(TOPIC, &[GROUP])]).await?;
    ensure!(verdict.counts.deliveries == 126, "one copy of each was to be handled: {:?}", verdict.counts);
    Ok(())
}

/// Case 7.
pub(in crate::suite) async fn cut_between_publishes(run: Run) -> Result<(), Failure> {
    let (publishing, handling) = (run.process().await?, run.process().await?);
    publishing.topic(TopicSpec::new(TOPIC).partitions(4)).await?;
    let subscription = handling.subscribe(subscribe(), steadily(millis(1))).await?;
    let all = keys("order", 30);
    for under_way in [UnderWay::Stored, UnderWay::Lost, UnderWay::Either] {
        let publisher = publishing.publisher();
        let outcomes: Vec<_> = (0..8).flat_map(|_| all.iter().map(|key| publisher.publish(TOPIC, key, 0))).collect();
        let before = confirmed(&run);
        run.until("some are confirmed", || confirmed(&run) > before + 20).await;
        publishing.cut(under_way).await?;
        // These are published while cut off: they wait behind publishes whose outcome is unknown.
        let later: Vec<_> = all.iter().map(|key| publisher.publish(TOPIC, key, 0)).collect();
        tokio::time::sleep(millis(300)).await;
        publishing.heal().await?;
        for outcome in outcomes.into_iter().chain(later) {
            outcome.await?;
        }
    }
    run.settled(TOPIC, &[GROUP]).await?;
    subscription.drain(Duration::from_secs(5)).await?;
    let verdict = run.judge(&expect().overlap(), &[(TOPIC, &[GROUP])]).await?;
    ensure!(verdict.counts.confirmed == 30 * 9 * 3, "every publish was to be confirmed: {:?}", verdict.counts);
    Ok(())
}

/// Counts the publishes that are confirmed so far.
pub(in crate::suite) fn confirmed(run: &Run) -> usize {
    let confirmed = |kind: &Kind| matches!(kind, Kind::Published { outcome: PublishOutcome::Confirmed { .. }, .. });
    run.inspect(|events| events.iter().filter(|event| confirmed(&event.kind)).count())
}

/// Case 27.
pub(in crate::suite) async fn held_past_the_duplicate_window(run: Run) -> Result<(), Failure> {
    let peer = run.process().await?;
    let window = Duration::from_secs(2);
    peer.topic(TopicSpec::new(TOPIC).partitions(4).duplicate_window(window)).await?;
    let subscription = peer.subscribe(subscribe(), steadily(millis(1))).await?;
    run.on_publish(PublishFault::Hold, Publishes::to(TOPIC).key("k").nth(2)).await?;
    let mut all = keys("order", 10);
    all.push("k".into());
    // All are confirmed in the end, although one is still in the network: the bus has sent it again.
    peer.publish_rounds(TOPIC, &all, 5).await?;
    tokio::time::sleep(window * 2).await;
    run.fault("release", false);
    run.fixture().release().await?;
    peer.publish_rounds(TOPIC, &all, 5).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    subscription.drain(Duration::from_secs(5)).await?;
    // The broker cannot tell the late copy from a new record; a member can.
    let expected = if run.can(Ability::DuplicateWindow) { expect().copies_allowed() } else { expect() };
    let verdict = run.judge(&expected, &[(TOPIC, &[GROUP])]).await?;
    ensure!(verdict.counts.deliveries == 110, "each was to be handled once: {:?}", verdict.counts);
    if run.can(Ability::DuplicateWindow) {
        ensure!(verdict.counts.copies == 1, "the late copy was to be in the log: {:?}", verdict.counts);
        ensure!(verdict.counts.finished_unhandled == 1, "the copy was to be dropped: {:?}", verdict.counts);
    }
    Ok(())
}

/// Case 28.
pub(in crate::suite) async fn black_holed_key(run: Run) -> Result<(), Failure> {
    let peer = run.process_with(run.config().budget_envelopes(64)).await?;
    peer.topic(TopicSpec::new(TOPIC).partitions(8)).await?;
    let subscription = peer.subscribe(subscribe(), steadily(millis(1))).await?;
    let armed = run.on_publish(PublishFault::LoseConfirmation, Publishes::to(TOPIC).key("hole").all()).await?;
    let hole: Vec<_> = (0..200).map(|_| peer.publisher().publish(TOPIC, "hole", 0)).collect();
    // More envelopes than the budget has places for, while those of the black-holed key wait for room.
    peer.publish_rounds(TOPIC, &keys("order", 100), 10).await?;
    let unanswered = |kind: &Kind| matches!(kind, Kind::Published { .. });
    let answered = run.inspect(|events| events.iter().filter(|event| unanswered(&event.kind)).count());
    ensure!(answered == 1_000, "no publish of the black-holed key was to be answered, {} were", answered - 1_000);
    run.fixture().lift(armed).await;
    for outcome in hole {
        outcome.await?;
    }
    run.settled(TOPIC, &[GROUP]).await?;
    subscription.drain(Duration::from_secs(5)).await?;
    run.judge(&expect().overlap().spread(100, 8), &[(TOPIC, &[GROUP])]).await?;
    Ok(())
}
