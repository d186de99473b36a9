//! Case 15: records that finished behind a slow head are not handled again.

use std::collections::BTreeSet;

use eventbus_core::{Backoff, Delivery};

use crate::harness::{Act, Step, steadily};
use crate::history::{Event, Kind};
use crate::suite::common::{GROUP, TOPIC, expect, keys, millis, subscribe};
use crate::suite::failure::ensure;
use crate::suite::p0::members::topic;
use crate::suite::{Call, Failure, Run, UnderWay};

/// A back-off that is as good as for ever: a key that failed once stays unfinished for the rest of the case, and holds
/// no handler's place.
const NEVER: Backoff = Backoff::fixed(std::time::Duration::from_secs(24 * 3600));

/// Room for all records that stay unfinished, whatever a backend holds of each in memory.
const ROOM: usize = 256 << 20;

/// Returns the watermark of the last confirmed commit, and the runs that it names beyond.
fn last_commit(events: &[Event]) -> (u64, Vec<(u64, u64)>) {
    let commits = events.iter().rev().filter_map(|event| match &event.kind {
        Kind::CommitConfirmed(commit) => Some((commit.position, commit.beyond.clone())),
        _ => None,
    });
    commits.take(1).next().unwrap_or_default()
}

fn named(runs: &[(u64, u64)]) -> u64 {
    runs.iter().map(|(from, to)| to - from).sum()
}

fn is_slow(delivery: &Delivery) -> bool {
    delivery.envelope().key().is_some_and(|key| key.as_bytes().starts_with(b"slow"))
}

/// Handles `fast` while the heads of `slow` stay unfinished, and kills the member when no more can finish and the
/// commits say nothing new; another member handles the rest. Returns the positions that were handled twice, and the
/// runs that the last commit before the kill named.
async fn killed_behind_slow_heads(
    run: &Run,
    slow: &[String],
    fast: &[String],
    rounds: usize,
) -> Result<(BTreeSet<u64>, Vec<(u64, u64)>), Failure> {
    let (first, second) = (run.process().await?, run.process().await?);
    topic(&first, 1).await?;
    // The first head lies before all others; if there are as many slow keys as fast ones, the two alternate.
    second.publish_rounds(TOPIC, &slow[..1], 1).await?;
    let mut mixed: Vec<String> = Vec::with_capacity(slow.len() + fast.len());
    let (mut slow_left, mut fast_left) = (slow[1..].iter(), fast.iter());
    loop {
        let pair = (slow_left.next(), fast_left.next());
        mixed.extend([pair.0, pair.1].into_iter().flatten().cloned());
        if pair == (None, None) {
            break;
        }
    }
    for chunk in mixed.chunks(1_000) {
        second.publish_rounds(TOPIC, chunk, rounds).await?;
    }
    let script = |delivery: &Delivery, _: u64| {
        let then = if is_slow(delivery) { Act::Fail } else { Act::Succeed };
        Step { takes: millis(1), then }
    };
    let one =
        first.subscribe(subscribe().concurrency(16).attempts(9).backoff(NEVER).budget_bytes(ROOM), script).await?;
    let done = fast.len() * rounds;
    let ends = |events: &[Event]| events.iter().filter(|event| matches!(event.kind, Kind::End { .. })).count();
    run.until("the heads have failed, the tail is done", || run.inspect(ends) >= done + slow.len()).await;
    let names_enough = || named(&run.inspect(last_commit).1) >= 1_000;
    run.until("a commit names what finished behind the heads", names_enough).await;
    // The next commit interval has passed: the commit names as many runs as the note has room for.
    tokio::time::sleep(millis(1_000)).await;
    let (_, runs) = run.inspect(last_commit);
    first.kill(UnderWay::Stored).await?;
    let before = run.inspect(|events| events.len());
    let two = second.subscribe(subscribe(), steadily(millis(1))).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    let again =
        |call: &&Call| call.began >= before && !call.start.key.bytes().is_some_and(|key| key.starts_with(b"slow"));
    let repeated = run.calls().iter().filter(again).map(|call| call.start.position).collect();
    drop((one, two));
    Ok((repeated, runs))
}

/// Case 15.
pub(in crate::suite) async fn fast_tail_is_not_repeated(run: Run) -> Result<(), Failure> {
    let (repeated, runs) = killed_behind_slow_heads(&run, &keys("slow", 1), &keys("fast", 100), 10).await?;
    ensure!(named(&runs) == 1_000, "all that finished was to be named by the note, {} were", named(&runs));
    ensure!(repeated.is_empty(), "{} were done again that a commit had named", repeated.len());
    run.judge(&expect().overlap(), &[(TOPIC, &[GROUP])]).await?;
    Ok(())
}

/// Case 15: every second of 100 000 records is unfinished.
pub(in crate::suite) async fn cut_note_repeats_a_suffix(run: Run) -> Result<(), Failure> {
    let (repeated, runs) = killed_behind_slow_heads(&run, &keys("slow", 50_000), &keys("fast", 50_000), 1).await?;
    ensure!(named(&runs) >= 1_000, "the note names too few to show anything: {}", named(&runs));
    ensure!(!repeated.is_empty(), "50 000 holes were to be more than a note can name");
    let horizon = runs.last().map_or(0, |(_, to)| *to);
    let below = repeated.iter().filter(|position| **position < horizon).count();
    ensure!(below == 0, "{below} were done again below the horizon of the note");
    run.judge(&expect().overlap(), &[(TOPIC, &[GROUP])]).await?;
    Ok(())
}
