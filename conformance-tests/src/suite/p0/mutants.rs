//! Case 1: the suite can fail. Each of these cases, run with one thing broken in the library, must not pass.
//!
//! The drawn schedules of the simulation meet every mutant; here the cases themselves are put to the proof, on whatever
//! backend they run.

use std::time::Duration;

use eventbus_core::Mutant;
use eventbus_core::backend::Pipelining;
use tokio::task::JoinSet;

use super::{failure, log, order, progress, publish, shutdown};
use crate::suite::case::Running;
use crate::suite::failure::ensure;
use crate::suite::p1::flow;
use crate::suite::{Ability, Failure, Run};

type Broken = (Mutant, &'static str, fn(Run) -> Running);

macro_rules! broken {
    ($($mutant:ident => $($part:ident)::+;)*) => {
        &[$((Mutant::$mutant, stringify!($($part)::+), |run| Box::pin($($part)::+(run)))),*]
    };
}

/// Defects, and the cases that show them.
const BROKEN: &[Broken] = broken! {
    KeyNotRouted => order::random_handler_times;
    LanesRoundRobin => order::random_handler_times;
    OneTask => order::random_handler_times;
    OnePartition => order::per_key_order;
    OtherBytes => order::per_key_order;
    CopyBySequence => order::per_key_order;
    RetryAtTail => order::prefetched_do_not_overtake;
    NegativeAcknowledge => order::prefetched_do_not_overtake;
    RetryHoldsSlot => order::failure_holds_no_slot;
    AckBeforeHandling => shutdown::deadline_passes;
    CommitPastHole => flow::stall_is_reported;
    ReverseReplay => flow::hot_key;
    NoteIgnored => progress::fast_tail_is_not_repeated;
    ShutdownAcknowledges => shutdown::drained;
    SeekKeepsCopies => log::seek_back_handles_all_again;
    NoCascade => publish::refusal_seals_until_seen;
    NoSeal => publish::refusal_seals_until_seen;
    NoShare => publish::black_holed_key;
    UnknownGivenUp => publish::lost_confirmation;
    SeveralInFlight => publish::held_past_the_duplicate_window;
    DeadLetterUnconfirmed => failure::dead_letter_topic_down;
    DeadLaneAfterPanic => failure::skipped;
};

/// Time for which a broken case may hang before that counts as its failure.
const PATIENCE: Duration = Duration::from_secs(30);

/// Cases that run at once on a real clock, where most of the time is spent waiting for what never comes; each gets less
/// time there.
const AT_ONCE: usize = 8;
const REAL_PATIENCE: Duration = Duration::from_secs(15);

async fn passes(run: Run, case: fn(Run) -> Running, patience: Duration) -> bool {
    matches!(tokio::time::timeout(patience, tokio::spawn(case(run))).await, Ok(Ok(Ok(()))))
}

/// Case 1. `needs_of` tells the needs of the other cases, by the registry.
pub(in crate::suite) async fn every_defect_is_caught(
    run: Run,
    needs_of: fn(&str) -> Option<&'static [Ability]>,
) -> Result<(), Failure> {
    let pipelined = run.control().await?.capabilities().pipelining == Pipelining::PerPartition;
    // Several records of a key in flight are no defect where any number may be.
    let is_one = |mutant: &Mutant| match mutant {
        Mutant::SeveralInFlight => !pipelined,
        // A bus cannot give up an unknown outcome that it never hears of.
        Mutant::UnknownGivenUp => !run.resolves_by_itself(),
        _ => true,
    };
    // A case that does not run on this backend shows nothing on it either.
    let runs = |name: &str| needs_of(name).is_some_and(|needs| needs.iter().all(|need| run.can(*need)));
    let broken: Vec<&Broken> = BROKEN.iter().filter(|(mutant, name, _)| is_one(mutant) && runs(name)).collect();
    let (at_once, patience) = if run.is_real() { (AT_ONCE, REAL_PATIENCE) } else { (1, PATIENCE) };
    let mut passed = Vec::new();
    for some in broken.chunks(at_once) {
        let mut running = JoinSet::new();
        for (mutant, name, case) in some.iter().copied() {
            let broken = run.broken(*mutant).await?;
            running.spawn(async move { (format!("{name} with {mutant:?}"), passes(broken, *case, patience).await) });
        }
        passed.extend(running.join_all().await.into_iter().filter(|(_, passed)| *passed).map(|(what, _)| what));
    }
    ensure!(passed.is_empty(), "passed although broken: {}", passed.join(", "));
    Ok(())
}
