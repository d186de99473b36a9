//! Seams at which the conformance suite breaks exactly one thing of the shipped code, to show that a rule catches it.
//!
//! Without the feature `mutants` every question is answered `false` at compile time and nothing remains of this.

/// One deliberate defect. The comment names the rule that must catch it.
#[cfg_attr(not(feature = "mutants"), allow(dead_code, unreachable_pub))] // exported, and all of it used, with the feature
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mutant {
    /// Every envelope gets a lane of its own (O1, O4).
    KeyNotRouted,
    /// A key's envelopes go round-robin to four lanes (O1, O4).
    LanesRoundRobin,
    /// An envelope counts as finished when its handler starts (O7).
    AckBeforeHandling,
    /// The newest finished position is committed, whatever is unfinished below (O7).
    CommitPastHole,
    /// A failed envelope is tried again behind its key's later ones (O1).
    RetryAtTail,
    /// A failed envelope keeps its slot while it waits (progress of other keys; the case "failed handler holds its key").
    RetryHoldsSlot,
    /// A panic leaves its key's lane for dead (O5).
    DeadLaneAfterPanic,
    /// All handlers run on one task (O9).
    OneTask,
    /// The note drops runs in the middle of its set instead of at the high end (O2).
    NoteWithHoles,
    /// A note is applied whatever incarnation it names (O5).
    ForeignNote,
    /// A member goes on after it lost a partition (O4).
    StaleOwner,
    /// What was queued at shutdown is acknowledged (O5, O7).
    ShutdownAcknowledges,
    /// What is delivered again comes in reverse (O1, O2).
    ReverseReplay,
    /// Copies are recognised by the user's sequence (O5).
    CopyBySequence,
    /// A seek keeps the memory of copies (O5).
    SeekKeepsCopies,
    /// A failed envelope is put back to the broker behind what was prefetched (O1).
    NegativeAcknowledge,
    /// Several envelopes of a key are in flight on a producer that promises one (O8).
    SeveralInFlight,
    /// A bus instance does not draw a fresh producer id, so its counter starts again (O5).
    CounterRestarted,
    /// A refusal does not fail what was queued behind it (O8).
    NoCascade,
    /// A refusal does not seal its key (O8).
    NoSeal,
    /// One key may take the whole publish budget (the case of one key's held acknowledgements, P5).
    NoShare,
    /// The start check does not look at the lease (O4).
    NoStartCheck,
    /// Dead letters are not waited for (O1).
    DeadLetterUnconfirmed,
    /// An unknown publish is given up and the next one sent (O8).
    UnknownGivenUp,
    /// The epoch stays the same at a change of owner: no store that fences takes its claim, and it owns nothing (O5).
    EpochKept,
    /// The finished-beyond set of a note is not applied (O3).
    NoteIgnored,
    /// Handlers are given other bytes than were published (O6).
    OtherBytes,
    /// Every key goes to the first partition (O10).
    OnePartition,
}

/// The defect in force, if any.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seam(#[cfg(feature = "mutants")] pub(crate) Option<Mutant>);

impl Seam {
    /// Whether this defect is in force.
    #[cfg(feature = "mutants")]
    pub(crate) fn is(self, mutant: Mutant) -> bool {
        self.0 == Some(mutant)
    }

    /// Never, without the feature.
    #[cfg(not(feature = "mutants"))]
    #[inline(always)]
    pub(crate) const fn is(self, _: Mutant) -> bool {
        false
    }
}
