//! Cases 16 and 17: an envelope that cannot be handled moves, and nothing else.

use std::time::Duration;

use eventbus_core::dead_letter::{DeadLetter, topic_of};
use eventbus_core::{FailurePolicy, Subscribe, Subscription, TopicSpec};

use crate::harness::{Act, steadily};
use crate::history::{EndOutcome, FinishedBy, Kind};
use crate::suite::common::{GROUP, TOPIC, expect, failing, keys, millis, subscribe};
use crate::suite::failure::ensure;
use crate::suite::{Failure, Peer, PublishFault, Publishes, Run, UnderWay};

/// Case 16: the failed envelope's later ones wait durably behind it. The library cannot do that yet.
#[allow(clippy::unused_async)]
pub(in crate::suite) async fn park(_: Run) -> Result<(), Failure> {
    Err(Failure::wrong("a fixture says that it can park, and the case is not written"))
}

/// The dead-letter topic of the group.
pub(in crate::suite) fn letters_of(group: &str) -> Result<String, Failure> {
    Ok(topic_of(&TOPIC.parse()?, &group.parse()?)?.to_string())
}

fn dead_lettering() -> Subscribe {
    subscribe().attempts(3).then(FailurePolicy::DeadLetter)
}

/// The number of envelopes that were finished in this way.
pub(in crate::suite) fn finished(run: &Run, by: FinishedBy) -> usize {
    let such = |kind: &Kind| matches!(kind, Kind::Finished { by: found, .. } if *found == by);
    run.inspect(|events| events.iter().filter(|event| such(&event.kind)).count())
}

pub(super) async fn start(run: &Run) -> Result<Peer, Failure> {
    let peer = run.process().await?;
    peer.topic(TopicSpec::new(TOPIC).partitions(4)).await?;
    Ok(peer)
}

pub(super) fn all_keys() -> Vec<String> {
    let mut all = keys("order", 20);
    all.push("k".into());
    all
}

/// Reads the one letter of the group: of the third envelope of `k`, after so many attempts.
async fn one_letter(run: &Run, group: &str, attempts: u32) -> Result<DeadLetter, Failure> {
    let letters = run.log(&letters_of(group)?).await?;
    ensure!(letters.len() == 1, "expected one dead letter, found {}", letters.len());
    let letter = DeadLetter::read(&letters[0])?;
    ensure!(letter.envelope.key().and_then(|key| key.as_str()) == Some("k"), "its key is lost: {letter:?}");
    ensure!(letter.envelope.sequence() == Some(3), "another one moved: {letter:?}");
    ensure!(letter.attempts == attempts, "expected {attempts} attempts: {letter:?}");
    let at =
        run.calls().into_iter().find(|call| call.is("k", 3)).map(|call| (call.start.partition, call.start.position));
    ensure!(at == Some((letter.partition, letter.position.get())), "it does not say where it was: {letter:?}");
    Ok(letter)
}

pub(super) async fn finish(run: &Run, subscriptions: &[&Subscription], groups: &[&str]) -> Result<(), Failure> {
    run.settled(TOPIC, groups).await?;
    for subscription in subscriptions {
        subscription.drain(Duration::from_secs(5)).await?;
    }
    run.judge(&expect().overlap(), &[(TOPIC, groups)]).await?;
    Ok(())
}

/// Case 17: exactly the poison envelope moves.
pub(in crate::suite) async fn dead_letter(run: Run) -> Result<(), Failure> {
    let peer = start(&run).await?;
    let subscription = peer.subscribe(dead_lettering(), failing("k", 3, Act::Fail, u32::MAX)).await?;
    peer.publish_rounds(TOPIC, &all_keys(), 6).await?;
    finish(&run, &[&subscription], &[GROUP]).await?;
    let letter = one_letter(&run, GROUP, 3).await?;
    ensure!(!letter.is_reference && letter.error.contains("told to fail"), "the letter is incomplete: {letter:?}");
    Ok(())
}

/// Case 17: a failure for good, and a panic.
pub(in crate::suite) async fn dead_letter_at_once(run: Run) -> Result<(), Failure> {
    let peer = start(&run).await?;
    let subscription = peer.subscribe(dead_lettering(), failing("k", 3, Act::FailForGood, u32::MAX)).await?;
    peer.publish_rounds(TOPIC, &all_keys(), 6).await?;
    finish(&run, &[&subscription], &[GROUP]).await?;
    one_letter(&run, GROUP, 1).await?;
    Ok(())
}

/// Case 17: the next one waits for the write.
pub(in crate::suite) async fn dead_letter_topic_down(run: Run) -> Result<(), Failure> {
    let peer = start(&run).await?;
    let subscription = peer.subscribe(dead_lettering(), failing("k", 3, Act::Fail, u32::MAX)).await?;
    let down = run.on_publish(PublishFault::NotStored, Publishes::to(letters_of(GROUP)?).all()).await?;
    peer.publish_rounds(TOPIC, &all_keys(), 6).await?;
    let others = |call: &crate::suite::Call| !call.of("k") && call.succeeded();
    run.until_calls("all other keys are done", 120, others).await;
    run.until_calls("the attempts are used up", 3, |call| call.is("k", 3) && call.end.is_some()).await;
    // Long enough for a bus that gave the letter up, or did not wait for it, to go on.
    tokio::time::sleep(Duration::from_secs(3)).await;
    ensure!(run.count(|call| call.is("k", 4)) == 0, "the next one began before the letter was written");
    run.fixture().lift(down).await;
    finish(&run, &[&subscription], &[GROUP]).await?;
    one_letter(&run, GROUP, 3).await?;
    Ok(())
}

/// Case 17: the reserve of a full budget.
pub(in crate::suite) async fn dead_letter_with_budgets_full(run: Run) -> Result<(), Failure> {
    let peer = run.process_with(run.config().budget_envelopes(8)).await?;
    peer.topic(TopicSpec::new(TOPIC).partitions(4)).await?;
    peer.topic(TopicSpec::new("other").partitions(1)).await?;
    let other = run.process().await?;
    other.publish_rounds(TOPIC, &all_keys(), 6).await?;
    // Every place of the budget, and many more that wait, in publishes that get no answer.
    let armed = run.on_publish(PublishFault::LoseConfirmation, Publishes::to("other").all()).await?;
    let stuck: Vec<_> = keys("stuck", 50).iter().map(|key| peer.publisher().publish("other", key, 0)).collect();
    let subscription = peer.subscribe(dead_lettering(), failing("k", 3, Act::Fail, u32::MAX)).await?;
    run.until("the letter is written all the same", || finished(&run, FinishedBy::DeadLettered) == 1).await;
    run.settled(TOPIC, &[GROUP]).await?;
    run.fixture().lift(armed).await;
    for outcome in stuck {
        outcome.await?;
    }
    subscription.drain(Duration::from_secs(5)).await?;
    run.judge(&expect().overlap(), &[(TOPIC, &[GROUP]), ("other", &[])]).await?;
    one_letter(&run, GROUP, 3).await?;
    Ok(())
}

/// Case 17: a record that is too large together with what a letter adds.
pub(in crate::suite) async fn dead_letter_too_large(run: Run) -> Result<(), Failure> {
    const LIMIT: usize = 4_096;
    let run = run.elsewhere(|setup| setup.max_record_bytes = Some(LIMIT)).await?;
    let peer = start(&run).await?;
    let subscription = peer.subscribe(dead_lettering(), failing("k", 3, Act::Fail, u32::MAX)).await?;
    for number in 1..=6 {
        let size = if number == 3 { LIMIT - 160 } else { 64 };
        peer.publisher().publish(TOPIC, "k", size).await?;
        peer.publish_rounds(TOPIC, &keys("order", 20), 1).await?;
    }
    finish(&run, &[&subscription], &[GROUP]).await?;
    let letter = one_letter(&run, GROUP, 3).await?;
    ensure!(letter.is_reference, "a letter that is too large goes as a reference: {letter:?}");
    ensure!(letter.to_replay().is_err(), "a reference has no payload to replay");
    Ok(())
}

/// Case 17: killed between the letter's write and the commit.
pub(in crate::suite) async fn dead_letter_then_killed(run: Run) -> Result<(), Failure> {
    let (first, second) = (start(&run).await?, run.process().await?);
    let options = || dead_lettering().commit_interval(Duration::from_secs(600));
    let one = first.subscribe(options(), failing("k", 3, Act::Fail, u32::MAX)).await?;
    second.publish_rounds(TOPIC, &all_keys(), 6).await?;
    run.until("the letter is written", || finished(&run, FinishedBy::DeadLettered) == 1).await;
    first.kill(UnderWay::Stored).await?;
    let two = second.subscribe(dead_lettering(), failing("k", 3, Act::Fail, u32::MAX)).await?;
    run.until("it is given up once more", || finished(&run, FinishedBy::DeadLettered) == 2).await;
    finish(&run, &[&two], &[GROUP]).await?;
    drop(one);
    // One letter for readers on this library, however many the log holds.
    let reader = run.process().await?;
    let options = Subscribe::to(letters_of(GROUP)?).group("letters").then(FailurePolicy::Skip);
    let letters = letters_of(GROUP)?;
    let reading = reader.subscribe(options, steadily(Duration::ZERO)).await?;
    run.settled(&letters, &["letters"]).await?;
    let read = run.count(|call| &*call.start.group == "letters" && call.end.is_some());
    ensure!(read == 1, "readers saw {read} letters of one envelope");
    reading.drain(Duration::from_secs(5)).await?;
    Ok(())
}

/// Case 17: a failure in another group is none in this one.
pub(in crate::suite) async fn dead_letter_by_group(run: Run) -> Result<(), Failure> {
    let peer = start(&run).await?;
    let one = peer.subscribe(dead_lettering(), failing("k", 3, Act::Fail, u32::MAX)).await?;
    let two = peer.subscribe(dead_lettering().group("shipping"), steadily(millis(1))).await?;
    peer.publish_rounds(TOPIC, &all_keys(), 6).await?;
    finish(&run, &[&one, &two], &[GROUP, "shipping"]).await?;
    one_letter(&run, GROUP, 3).await?;
    let letters = run.log(&letters_of("shipping")?).await?;
    ensure!(letters.is_empty(), "the other group has {} letters", letters.len());
    let handled = run.count(|call| &*call.start.group == "shipping" && call.of("k") && call.succeeded());
    ensure!(handled == 6, "the other group was to handle all six, it handled {handled}");
    Ok(())
}

/// S2: skipped by policy, and counted.
pub(in crate::suite) async fn skipped(run: Run) -> Result<(), Failure> {
    let peer = start(&run).await?;
    let options = subscribe().attempts(2).then(FailurePolicy::Skip);
    let subscription = peer.subscribe(options, failing("k", 3, Act::Panic, u32::MAX)).await?;
    peer.publish_rounds(TOPIC, &all_keys(), 6).await?;
    finish(&run, &[&subscription], &[GROUP]).await?;
    ensure!(finished(&run, FinishedBy::Skipped) == 1, "one was to be skipped");
    let panicked = run.count(|call| call.is("k", 3) && matches!(call.end, Some((EndOutcome::Panicked, _))));
    ensure!(panicked == 2, "two attempts were to panic, {panicked} did");
    Ok(())
}

/// S2: stopped by policy, nothing past it acknowledged.
pub(in crate::suite) async fn stopped(run: Run) -> Result<(), Failure> {
    let peer = start(&run).await?;
    let options = || subscribe().attempts(2).then(FailurePolicy::Stop);
    let subscription = peer.subscribe(options(), failing("k", 3, Act::Fail, u32::MAX)).await?;
    peer.publish_rounds(TOPIC, &all_keys(), 6).await?;
    let Err(error) = subscription.closed().await else { return Err(Failure::wrong("it ended without its error")) };
    ensure!(error.kind() == eventbus_core::ErrorKind::HandlerFailed, "expected the handler's failure, got {error}");
    ensure!(run.count(|call| call.is("k", 4)) == 0, "the key went on behind the failed envelope");
    // A repaired subscription, begun again after the stop, goes on where the first stood.
    let again = peer.subscribe(options(), steadily(millis(1))).await?;
    finish(&run, &[&again], &[GROUP]).await
}
