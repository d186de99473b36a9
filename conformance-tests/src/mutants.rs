//! Deliberate defects, each the shipped code with one thing broken at a seam, and the rule that must catch it.
//!
//! A suite that cannot fail proves nothing. For every rule O1 to O10 there is a mutant here, and for every mutant a
//! rule; two are about progress that no rule of the oracle measures, and belong to conformance cases.

use eventbus_core::Mutant;

use crate::oracle::Rule;
use crate::simulation::{Options, Outcome, simulate};

/// The check that catches a mutant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CaughtBy {
    /// A rule, in drawn schedules.
    Rule(Rule),
    /// A rule, in schedules without faults that have enough traffic for it.
    Steady(Rule),
    /// A conformance case, by its name.
    Case(&'static str),
}

/// Every mutant, and the check that catches it.
pub const REGISTRY: &[(Mutant, CaughtBy)] = &[
    (Mutant::KeyNotRouted, CaughtBy::Rule(Rule::O4)),
    (Mutant::LanesRoundRobin, CaughtBy::Rule(Rule::O1)),
    (Mutant::AckBeforeHandling, CaughtBy::Rule(Rule::O7)),
    (Mutant::CommitPastHole, CaughtBy::Rule(Rule::O7)),
    (Mutant::RetryAtTail, CaughtBy::Rule(Rule::O1)),
    (Mutant::RetryHoldsSlot, CaughtBy::Case("failed handler holds its key")),
    (Mutant::DeadLaneAfterPanic, CaughtBy::Rule(Rule::O5)),
    (Mutant::OneTask, CaughtBy::Steady(Rule::O9)),
    (Mutant::NoteWithHoles, CaughtBy::Rule(Rule::O2)),
    (Mutant::ForeignNote, CaughtBy::Rule(Rule::O5)),
    (Mutant::StaleOwner, CaughtBy::Rule(Rule::O4)),
    (Mutant::ShutdownAcknowledges, CaughtBy::Rule(Rule::O7)),
    (Mutant::ReverseReplay, CaughtBy::Rule(Rule::O1)),
    (Mutant::CopyBySequence, CaughtBy::Rule(Rule::O5)),
    (Mutant::SeekKeepsCopies, CaughtBy::Rule(Rule::O5)),
    (Mutant::NegativeAcknowledge, CaughtBy::Rule(Rule::O1)),
    (Mutant::SeveralInFlight, CaughtBy::Rule(Rule::O8)),
    (Mutant::CounterRestarted, CaughtBy::Rule(Rule::O5)),
    (Mutant::NoCascade, CaughtBy::Rule(Rule::O8)),
    (Mutant::NoSeal, CaughtBy::Rule(Rule::O8)),
    (Mutant::NoShare, CaughtBy::Case("one key's acknowledgements are held, all others at full rate")),
    (Mutant::NoStartCheck, CaughtBy::Rule(Rule::O4)),
    (Mutant::DeadLetterUnconfirmed, CaughtBy::Rule(Rule::O1)),
    (Mutant::UnknownGivenUp, CaughtBy::Rule(Rule::O8)),
    (Mutant::EpochKept, CaughtBy::Rule(Rule::O5)),
    (Mutant::NoteIgnored, CaughtBy::Rule(Rule::O3)),
    (Mutant::OtherBytes, CaughtBy::Rule(Rule::O6)),
    (Mutant::OnePartition, CaughtBy::Steady(Rule::O10)),
];

/// A mutant that was caught.
#[derive(Debug)]
#[non_exhaustive]
pub struct Caught {
    /// Number of schedules that it took.
    pub schedules: u64,
    /// The outcome of the last one.
    pub outcome: Outcome,
}

/// Runs schedules from `first` on, at most `most`, until `rule` catches the mutant.
#[must_use]
pub fn hunt(mutant: Mutant, rule: Rule, steady: bool, first: u64, most: u64) -> Option<Caught> {
    let options = if steady { Options::broken(mutant).steady() } else { Options::broken(mutant) };
    (0..most).find_map(|number| {
        let outcome = simulate(first + number, options);
        (outcome.verdict.count(rule) > 0).then_some(Caught { schedules: number + 1, outcome })
    })
}
