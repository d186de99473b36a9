//! What the run prints in the end.

use std::time::Duration;

use conformance_tests::history::{Kind, PublishOutcome};
use conformance_tests::oracle::Verdict;

use super::{Chaos, say};

pub(crate) fn figures(chaos: &Chaos, verdict: &Verdict, took: Duration) {
    let counts = &verdict.counts;
    say(format_args!("injected: {:?}", chaos.injected));
    if let Some(operator) = &chaos.operator {
        say(format_args!("the operator's hands: {:?}", operator.made));
        say(format_args!("told of them: {:?}", operator.told));
        say(format_args!(
            "{} purges took {} unfinished records; told as lost {} times",
            counts.purges, counts.purged_unfinished, counts.losses
        ));
    }
    say(format_args!(
        "{} confirmed and {} refused of {} offered in {} s; {} copies in the log",
        counts.confirmed,
        counts.refused,
        counts.offered,
        took.as_secs(),
        counts.copies
    ));
    say(format_args!(
        "{} deliveries, {} of them further attempts; {} handlers of superseded owners ran on",
        counts.deliveries, counts.retries, counts.exempt_overlaps
    ));
    say(format_args!(
        "{} sessions, {} of them unexplained; {} commits",
        counts.sessions, counts.unexplained_sessions, counts.commits
    ));
    let again = |kind: &Kind| {
        matches!(kind, Kind::Published { outcome: PublishOutcome::Confirmed { duplicate: true, .. }, .. })
    };
    let again = chaos.run.inspect(|events| events.iter().filter(|event| again(&event.kind)).count());
    say(format_args!("{again} publishes were confirmed by an earlier send of theirs"));
    let sizes = chaos.largest.map(|(memory, threads)| format!("{} MiB and {threads} threads", memory / 1024));
    say(format_args!("largest member by quarter: {}", sizes.join(", ")));
    say("0 violations");
}
