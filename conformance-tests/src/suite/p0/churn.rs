//! Cases 14 and 21: members that come and go at random, and the repeats that it may cost.

use std::collections::BTreeSet;
use std::time::Duration;

use eventbus_core::{Subscription, TopicSpec};

use crate::history::{Event, Kind};
use crate::suite::common::{GROUP, TOPIC, expect, keys, millis, subscribe, unsteadily};
use crate::suite::failure::ensure;
use crate::suite::p0::broker::restart;
use crate::suite::p0::members::topic;
use crate::suite::{Failure, Peer, Run, UnderWay};

struct Joined {
    peer: Peer,
    subscription: Subscription,
    frozen: bool,
}

async fn join(run: &Run) -> Result<Joined, Failure> {
    let peer = run.process().await?;
    let options = subscribe().session_timeout(Duration::from_secs(1)).drain_deadline(Duration::from_secs(2));
    let subscription = peer.subscribe(options, unsteadily(run.random(), millis(10))).await?;
    Ok(Joined { peer, subscription, frozen: false })
}

async fn one_change(run: &Run, members: &mut Vec<Joined>, gone: &mut Vec<Joined>) -> Result<(), Failure> {
    let draw = run.random();
    let index = usize::try_from(draw >> 32).unwrap_or(0) % members.len().max(1);
    match draw % 8 {
        0 | 1 if members.len() < 4 => members.push(join(run).await?),
        2 if members.len() > 1 => {
            let member = members.swap_remove(index);
            if member.frozen {
                member.peer.thaw().await?;
            }
            // Envelopes that it left behind at the deadline come again; the oracle judges that.
            drop(member.subscription.drain(millis(50)).await);
            gone.push(member);
        }
        3 if members.len() > 1 => {
            let member = members.swap_remove(index);
            member.peer.kill(UnderWay::Either).await?;
            gone.push(member);
        }
        4 => {
            let Some(member) = members.get(index) else { return Ok(()) };
            run.fault("a session expires", false);
            run.fixture().expire(TOPIC, GROUP, member.subscription.member()).await?;
        }
        5 => {
            let Some(member) = members.get(index) else { return Ok(()) };
            let partition = u32::try_from(run.random() % 6).unwrap_or(0);
            run.fault("a partition is taken away", false);
            run.fixture().take_away(TOPIC, GROUP, member.subscription.member(), partition).await?;
        }
        _ => {
            let Some(member) = members.get_mut(index) else { return Ok(()) };
            if member.frozen {
                member.peer.thaw().await?
            } else {
                member.peer.freeze().await?
            }
            member.frozen = !member.frozen;
        }
    }
    Ok(())
}

/// Case 14.
pub(in crate::suite) async fn soak(run: Run) -> Result<(), Failure> {
    let publisher = run.process().await?;
    topic(&publisher, 6).await?;
    let (mut members, mut gone) = (vec![join(&run).await?], Vec::new());
    let all = keys("order", 100);
    for _ in 0..40 {
        publisher.publish_rounds(TOPIC, &all, 1).await?;
        one_change(&run, &mut members, &mut gone).await?;
        tokio::time::sleep(Duration::from_micros(run.random() % 400_000)).await;
    }
    for member in &members {
        if member.frozen {
            member.peer.thaw().await?;
        }
    }
    run.settled(TOPIC, &[GROUP]).await?;
    let verdict = run.judge(&expect().overlap().spread(100, 6), &[(TOPIC, &[GROUP])]).await?;
    ensure!(verdict.counts.sessions > 10, "too few sessions to show anything: {:?}", verdict.counts);
    Ok(())
}

/// Case 21.
pub(in crate::suite) async fn duplicates_are_bounded(run: Run) -> Result<(), Failure> {
    let publisher = run.process().await?;
    publisher.topic(TopicSpec::new(TOPIC).partitions(4)).await?;
    let all = keys("order", 100);
    let mut joined = join(&run).await?;
    for fault in 0..5 {
        publisher.publish_rounds(TOPIC, &all, 3).await?;
        let before = run.count(|call| call.succeeded());
        run.until_calls("it is at work", before + 100, |call| call.succeeded()).await;
        let member = joined.subscription.member().to_owned();
        match fault {
            0 => {
                joined.peer.kill(UnderWay::Either).await?;
                joined = join(&run).await?;
            }
            1 => {
                run.fault("a session expires", false);
                run.fixture().expire(TOPIC, GROUP, &member).await?;
            }
            2 => {
                for partition in 0..4 {
                    // A coordinator may take all that a member has: then each of these ends sessions.
                    run.fault("a partition is taken away", false);
                    run.fixture().take_away(TOPIC, GROUP, &member, partition).await?;
                }
            }
            3 => {
                joined.peer.cut(UnderWay::Either).await?;
                tokio::time::sleep(Duration::from_secs(3)).await;
                joined.peer.heal().await?;
            }
            _ => restart(&run, UnderWay::Either, millis(500)).await?,
        }
    }
    run.settled(TOPIC, &[GROUP]).await?;
    let verdict = run.judge(&expect().overlap().spread(100, 4), &[(TOPIC, &[GROUP])]).await?;
    let bound = run.inspect(may_come_again);
    let repeats = verdict.counts.repeats;
    ensure!(repeats > 0, "five faults in the middle of work repeated nothing: the case shows nothing");
    ensure!(repeats <= bound, "{repeats} came again, where {bound} were running or finished since a commit");
    Ok(())
}

/// The most deliveries that may be repeats: a record that had begun when a session ended, and that no commit before the
/// next session had named, may come again, once a session. To a group that begins without progress all may come again.
#[must_use]
pub fn may_come_again(events: &[Event]) -> usize {
    let (mut begun, mut all) = (BTreeSet::new(), BTreeSet::new());
    let mut may = 0;
    for event in events {
        match &event.kind {
            Kind::Start(start) => {
                all.insert((start.partition, start.position));
                begun.insert((start.partition, start.position));
            }
            Kind::StartPosition { partition, position, .. } => {
                begun.extend(all.range((*partition, *position)..(*partition + 1, 0)).copied());
            }
            Kind::CommitConfirmed(commit) => {
                let named = |position: u64| {
                    position < commit.position
                        || commit.beyond.iter().any(|(from, to)| (*from..*to).contains(&position))
                };
                begun.retain(|(partition, position)| *partition != commit.partition || !named(*position));
            }
            Kind::SessionStart { partition, .. } => may += begun.iter().filter(|(of, _)| of == partition).count(),
            _ => {}
        }
    }
    may
}
