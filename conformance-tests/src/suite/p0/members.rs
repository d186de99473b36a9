//! Cases 9 to 13: members that are cut off, killed, slow, that come and that go.

use std::time::Duration;

use eventbus_core::TopicSpec;

use crate::harness::steadily;
use crate::history::Kind;
use crate::oracle::Verdict;
use crate::suite::common::{GROUP, TOPIC, expect, key_is, keys, millis, subscribe, unsteadily};
use crate::suite::failure::ensure;
use crate::suite::gate::{Gate, Gated};
use crate::suite::{Failure, Peer, Run, UnderWay};

pub(in crate::suite) async fn topic(peer: &Peer, partitions: u32) -> Result<(), Failure> {
    peer.topic(TopicSpec::new(TOPIC).partitions(partitions)).await
}

/// The number of sessions that a member has begun, as the history shows.
pub(in crate::suite) fn sessions(run: &Run, member: &str) -> usize {
    let of = |kind: &Kind| matches!(kind, Kind::SessionStart { member: found, .. } if &**found == member);
    run.inspect(|events| events.iter().filter(|event| of(&event.kind)).count())
}

/// Waits until one member of group `billing` owns this many partitions of topic `orders`.
///
/// # Errors
/// The broker's error, other than that it cannot be reached.
pub async fn until_owns(run: &Run, member: &str, partitions: usize) -> Result<(), Failure> {
    loop {
        let described = run.described(TOPIC, GROUP).await?.map(|described| described.partitions).unwrap_or_default();
        if described.iter().filter(|one| one.owner.as_deref() == Some(member)).count() == partitions {
            return Ok(());
        }
        tokio::time::sleep(millis(50)).await;
    }
}

async fn settled_and_judged(run: &Run) -> Result<Verdict, Failure> {
    run.settled(TOPIC, &[GROUP]).await?;
    run.judge(&expect().overlap().spread(100, 6), &[(TOPIC, &[GROUP])]).await
}

/// Case 9, in both ways of being cut off.
async fn isolated(run: &Run, frozen: bool) -> Result<(), Failure> {
    let (first, second) = (run.process().await?, run.process().await?);
    topic(&first, 6).await?;
    let one = first.subscribe(subscribe().member("one"), unsteadily(run.seed(), millis(8))).await?;
    let two = second.subscribe(subscribe().member("two"), unsteadily(run.seed(), millis(8))).await?;
    until_owns(run, one.member(), 3).await?;
    until_owns(run, two.member(), 3).await?;
    let publisher = run.process().await?;
    publisher.publish_rounds(TOPIC, &keys("order", 100), 10).await?;
    run.until_calls("both are at it", 100, |call| call.succeeded()).await;
    if frozen {
        first.freeze().await?
    } else {
        first.cut(UnderWay::Either).await?
    }
    until_owns(run, two.member(), 6).await?;
    let at = run.inspect(|events| events.len());
    // Handlers that the first one began before its lease ended may still end; it may begin nothing more.
    run.until("the second has taken over", || sessions(run, two.member()) >= 6).await;
    if frozen {
        first.thaw().await?
    } else {
        first.heal().await?
    }
    until_owns(run, one.member(), 3).await?;
    publisher.publish_rounds(TOPIC, &keys("order", 100), 2).await?;
    settled_and_judged(run).await?;
    let back = run.inspect(|events| {
        let again = |kind: &Kind| matches!(kind, Kind::SessionStart { member, .. } if &**member == one.member());
        events.iter().position(|event| again(&event.kind) && event.at > events[at].at)
    });
    let Some(back) = back else { return Err(Failure::wrong("the member that was healed never came back")) };
    let stale = run.count(|call| &*call.start.member == one.member() && (at..back).contains(&call.began));
    ensure!(stale == 0, "{stale} handlers began in a member that had lost its session");
    drop((one, two));
    Ok(())
}

/// Case 9, frozen.
pub(in crate::suite) async fn frozen_past_its_session(run: Run) -> Result<(), Failure> {
    isolated(&run, true).await
}

/// Case 9, cut off.
pub(in crate::suite) async fn cut_off_past_its_session(run: Run) -> Result<(), Failure> {
    isolated(&run, false).await
}

/// Case 10.
pub(in crate::suite) async fn killed_mid_key(run: Run) -> Result<(), Failure> {
    let (first, second) = (run.process().await?, run.process().await?);
    topic(&first, 6).await?;
    second.publish_rounds(TOPIC, &keys("order", 100), 10).await?;
    let one = first.subscribe(subscribe().member("one"), unsteadily(run.seed(), millis(10))).await?;
    run.until_calls("it is in the middle", 300, |call| call.succeeded()).await;
    first.kill(UnderWay::Either).await?;
    let two = second.subscribe(subscribe().member("two"), unsteadily(run.seed(), millis(10))).await?;
    let verdict = settled_and_judged(&run).await?;
    ensure!(verdict.counts.repeats > 0, "something was running when the member was killed, and none was repeated");
    drop((one, two));
    Ok(())
}

/// Case 11.
pub(in crate::suite) async fn slower_than_the_session(run: Run) -> Result<(), Failure> {
    let peer = run.process().await?;
    topic(&peer, 2).await?;
    // The handlers of one key take far longer than a member may be silent; those of others do not.
    let slow = |delivery: &eventbus_core::Delivery, _: u64| {
        let takes = if key_is(delivery, "slow") { Duration::from_secs(8) } else { millis(1) };
        crate::harness::Step::succeed(takes)
    };
    let subscription = peer.subscribe(subscribe().session_timeout(Duration::from_secs(1)), slow).await?;
    let mut all = keys("order", 30);
    all.push("slow".into());
    peer.publish_rounds(TOPIC, &all, 3).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    subscription.drain(Duration::from_secs(30)).await?;
    let verdict = run.judge(&expect().overlap(), &[(TOPIC, &[GROUP])]).await?;
    ensure!(
        verdict.counts.repeats == 0 && verdict.counts.deliveries == 93,
        "none was to come twice: {:?}",
        verdict.counts
    );
    Ok(())
}

/// Case 12.
pub(in crate::suite) async fn planned_hand_over(run: Run) -> Result<(), Failure> {
    let (first, second) = (run.process().await?, run.process().await?);
    topic(&first, 6).await?;
    let one = first.subscribe(subscribe().member("one"), unsteadily(run.seed(), millis(15))).await?;
    second.publish_rounds(TOPIC, &keys("order", 100), 12).await?;
    run.until_calls("the first is at it", 150, |call| call.succeeded()).await;
    let two = second.subscribe(subscribe().member("two"), unsteadily(run.seed(), millis(15))).await?;
    // However long the hand-over takes, there is work left for both.
    let publisher = run.process().await?;
    while run.count(|call| call.succeeded() && &*call.start.member == two.member()) < 100 {
        publisher.publish_rounds(TOPIC, &keys("later", 100), 1).await?;
        tokio::time::sleep(millis(20)).await;
    }
    publisher.publish_rounds(TOPIC, &keys("later", 100), 3).await?;
    two.drain(Duration::from_secs(10)).await?;
    let left = run.inspect(|events| events.len());
    settled_and_judged(&run).await?;
    one.drain(Duration::from_secs(10)).await?;
    let verdict = run.judge(&expect(), &[]).await?;
    ensure!(verdict.counts.repeats == 0, "a planned hand-over repeats nothing: {:?}", verdict.counts);
    ensure!(verdict.counts.exempt_overlaps == 0, "a planned hand-over waits for handlers: {:?}", verdict.counts);
    let stayed = run.count(|call| call.began > left && &*call.start.member == one.member());
    ensure!(stayed > 0, "the second left when all was done: the case shows nothing");
    Ok(())
}

/// Case 13.
pub(in crate::suite) async fn taken_and_given_back(run: Run) -> Result<(), Failure> {
    let peer = run.process().await?;
    topic(&peer, 6).await?;
    let gate = Gate::new();
    let script = Gated::new(steadily(millis(2)), &gate, |delivery, number| {
        // Only one envelope waits: the case is about the hand-over, not the wait.
        key_is(delivery, "k") && number == 2
    });
    let subscription = peer.subscribe(subscribe(), script).await?;
    let mut all = keys("order", 110);
    all.push("k".into());
    peer.publish_rounds(TOPIC, &all, 4).await?;
    run.until_calls("the handler stands", 1, |call| call.is("k", 2)).await;
    let partition = run.calls().iter().find(|call| call.is("k", 2)).map_or(0, |call| call.start.partition);
    let epochs = |run: &Run| {
        let of = |kind: &Kind| match kind {
            Kind::SessionStart { partition: of, epoch, .. } if *of == partition => Some(*epoch),
            _ => None,
        };
        run.inspect(|events| events.iter().filter_map(|event| of(&event.kind)).max())
    };
    let before = epochs(&run);
    run.fault("partition taken away", false);
    run.fixture().take_away(TOPIC, GROUP, subscription.member(), partition).await?;
    // The partition is claimed anew, while the handler under the old epoch still stands.
    run.until("the same member has it again", || epochs(&run) > before).await;
    ensure!(run.count(|call| call.is("k", 3)) == 0, "the key went on beside the handler of its earlier envelope");
    gate.open();
    let verdict = settled_and_judged(&run).await?;
    ensure!(verdict.counts.repeats > 0, "the running envelope was to come again: {:?}", verdict.counts);
    Ok(())
}
