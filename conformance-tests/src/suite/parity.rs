//! Parity: one drawn script of lost and refused publishes, kills and hand-overs ends in the same way on every backend.
//!
//! Compared are the outcomes that the contract fixes: for each key, how each publish ended and how each envelope was
//! finished, in order. How often an envelope came again, and where, depends on the backend and the moment; the oracle
//! judges that.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use eventbus_core::{FailurePolicy, TopicSpec};

use super::ability::Ability;
use super::common::{GROUP, TOPIC, expect, key_is, keys, millis, subscribe, unsteadily};
use super::failure::Failure;
use super::fixture::{Provider, PublishFault, Publishes, UnderWay};
use super::run::Run;
use crate::harness::{Act, Script, Step};
use crate::history::{EndOutcome, FinishedBy, Kind, PublishOutcome};

/// The abilities that the script needs.
const NEEDS: &[Ability] = &[
    Ability::RefusePublish,
    Ability::LoseConfirmation,
    Ability::TopicDown,
    Ability::KillProcess,
    Ability::CutConnection,
];

/// Outcomes by key and by step (published or finished): of each number, how it ended.
pub type Outcomes = BTreeMap<(String, &'static str), Vec<(u64, String)>>;

/// Envelopes of each key.
const ROUNDS: usize = 8;

/// Runs the script that the seed draws in a world of its own, has the oracle judge it, and returns the outcomes of each
/// key.
///
/// # Errors
/// The first demand that did not hold.
pub async fn drawn_script(provider: Arc<dyn Provider>, seed: u64) -> Result<Outcomes, Failure> {
    let run = Run::start(provider, seed, "", NEEDS).await?;
    let all = keys("order", 40);
    let draw =
        |what: u64, below: u64| crate::history::digest(&[seed.to_be_bytes(), what.to_be_bytes()].concat()) % below;
    let chosen = |what: u64| {
        all[usize::try_from(draw(what, 10)).unwrap_or(0) + 10 * usize::try_from(what % 4).unwrap_or(0)].clone()
    };
    let (refused, lost, delayed, poison) = (chosen(0), chosen(1), chosen(2), chosen(3));
    let publisher = run.process().await?;
    publisher.topic(TopicSpec::new(TOPIC).partitions(6)).await?;
    for (fault, key, what) in [
        (PublishFault::Refuse, &refused, 4),
        (PublishFault::LoseConfirmation, &lost, 5),
        (PublishFault::NotStored, &delayed, 6),
    ] {
        run.on_publish(fault, Publishes::to(TOPIC).key(key).nth(2 + draw(what, 5))).await?;
    }
    let number = 2 + draw(7, 5);
    let script = || {
        let (poison, slow) = (poison.clone(), unsteadily(seed, millis(20)));
        move |delivery: &eventbus_core::Delivery, found: u64| {
            if key_is(delivery, &poison) && found == number {
                return Step { takes: millis(1), then: Act::Fail };
            }
            slow.step(delivery, found)
        }
    };
    let options = || subscribe().attempts(3).then(FailurePolicy::DeadLetter);
    let (first, second) = (run.process().await?, run.process().await?);
    let one = first.subscribe(options(), script()).await?;
    let outcomes: Vec<_> =
        (0..ROUNDS).flat_map(|_| all.iter().map(|key| publisher.publisher().publish(TOPIC, key, 0))).collect();
    let handled = |count: usize| run.until_calls("some are handled", count, |call| call.succeeded());
    handled(40).await;
    let two = second.subscribe(options(), script()).await?;
    handled(80).await;
    first.kill(UnderWay::Either).await?;
    handled(140).await;
    let third = run.process().await?;
    let three = third.subscribe(options(), script()).await?;
    publisher.cut(UnderWay::Either).await?;
    tokio::time::sleep(millis(200)).await;
    publisher.heal().await?;
    handled(200).await;
    three.drain(Duration::from_secs(10)).await?;
    for outcome in outcomes {
        // The history shows how it ended.
        drop(outcome.await);
    }
    run.settled(TOPIC, &[GROUP]).await?;
    two.drain(Duration::from_secs(10)).await?;
    run.judge(&expect().overlap(), &[(TOPIC, &[GROUP])]).await?;
    drop((one, two, three));
    Ok(outcomes_of(&run))
}

fn outcomes_of(run: &Run) -> Outcomes {
    let mut outcomes = Outcomes::new();
    let mut offers = BTreeMap::new();
    let (mut calls, mut places) = (BTreeMap::new(), BTreeMap::new());
    let name = |key: &crate::history::Key| String::from_utf8_lossy(key.bytes().unwrap_or_default()).into_owned();
    for event in run.history().events {
        match event.kind {
            Kind::Offered { call, key, number, .. } => drop(offers.insert((event.process, call), (name(&key), number))),
            Kind::Published { call, outcome } => {
                let Some((key, number)) = offers.get(&(event.process, call)) else { continue };
                outcomes.entry((key.clone(), "published")).or_default().push((*number, word(&outcome)));
            }
            Kind::Start(start) => {
                let what = (name(&start.key), start.number);
                calls.insert((event.process, start.call), what.clone());
                places.insert((start.partition, start.position), what);
            }
            Kind::End { call, outcome: EndOutcome::Ok } => {
                let Some((key, number)) = calls.get(&(event.process, call)) else { continue };
                first(&mut outcomes, key, *number, "handled");
            }
            Kind::Finished { partition, position, by: FinishedBy::DeadLettered, .. } => {
                let Some((key, number)) = places.get(&(partition, position)) else { continue };
                first(&mut outcomes, key, *number, "dead-lettered");
            }
            _ => {}
        }
    }
    // Answers come in any order; publishes are compared in the order of their numbers.
    for ((_, what), of_key) in &mut outcomes {
        if *what == "published" {
            of_key.sort();
        }
    }
    outcomes
}

/// Enters how an envelope was finished, if it is not entered yet.
fn first(outcomes: &mut Outcomes, key: &str, number: u64, how: &str) {
    let of_key = outcomes.entry((key.to_owned(), "finished")).or_default();
    if of_key.iter().all(|(known, _)| *known != number) {
        of_key.push((number, how.to_owned()));
    }
}

fn word(outcome: &PublishOutcome) -> String {
    match outcome {
        PublishOutcome::Confirmed { .. } => "stored".into(),
        PublishOutcome::Unknown => "unknown".into(),
        PublishOutcome::Withdrawn => "withdrawn".into(),
        // Whether a publish was queued at the refusal or called after it depends on the moment.
        PublishOutcome::Refused { class, .. } if matches!(&**class, "cascaded" | "key_sealed") => {
            "behind a refusal".into()
        }
        PublishOutcome::Refused { class, .. } => format!("refused: {class}"),
    }
}
