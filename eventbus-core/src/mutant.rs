//! Seams at which the conformance suite breaks exactly one thing of the shipped code, to show that a rule catches it.
//!
//! Without the feature `mutants` every seam answers `false` at compile time, and nothing of this remains.

/// One deliberate defect. Its comment names the rule that must catch it.
#[cfg_attr(not(feature = "mutants"), allow(dead_code, unreachable_pub))] // with the feature all of it is exported and used
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mutant {
    /// Every envelope gets a lane of its own (O1, O4).
    KeyNotRouted,
    /// A key's envelopes go round-robin to four lanes (O1, O4).
    LanesRoundRobin,
    /// An envelope counts as finished when its handler starts (O7).
    AckBeforeHandling,
    /// The newest finished position is committed, even with unfinished ones below (O7).
    CommitPastHole,
    /// A failed envelope is tried again behind its key's later ones (O1).
    RetryAtTail,
    /// A failed envelope keeps its slot while it waits (progress of other keys; the case "failed handler holds its
    /// key").
    RetryHoldsSlot,
    /// A panic leaves its key's lane dead (O5).
    DeadLaneAfterPanic,
    /// All handlers run on one task (O9).
    OneTask,
    /// The note drops runs in the middle of its set instead of at the high end (O2).
    NoteWithHoles,
    /// A note is applied even if it names another incarnation (O5).
    ForeignNote,
    /// A member goes on after it lost a partition (O4).
    StaleOwner,
    /// Envelopes queued at shutdown are acknowledged (O5, O7).
    ShutdownAcknowledges,
    /// Records that are delivered again come in reverse (O1, O2).
    ReverseReplay,
    /// Copies are recognised by the user's sequence (O5).
    CopyBySequence,
    /// A seek keeps the memory of copies (O5).
    SeekKeepsCopies,
    /// A failed envelope is put back to the broker, behind records that were prefetched (O1).
    NegativeAcknowledge,
    /// Several envelopes of a key are in flight on a producer that promises one (O8).
    SeveralInFlight,
    /// A bus instance does not draw a fresh producer id, so its counter starts again (O5).
    CounterRestarted,
    /// A refusal does not fail the envelopes queued behind it (O8).
    NoCascade,
    /// A refusal does not seal its key (O8).
    NoSeal,
    /// One key may take the whole publish budget (the case of one key's held acknowledgements, P5).
    NoShare,
    /// The start check does not look at the lease (O4).
    NoStartCheck,
    /// The confirmation of a dead letter is not waited for (O1).
    DeadLetterUnconfirmed,
    /// A publish of unknown fate is given up, and the next one is sent (O8).
    UnknownGivenUp,
    /// The epoch stays the same at a change of owner: a store that fences refuses the claim, and the new owner owns
    /// nothing (O5).
    EpochKept,
    /// The finished-beyond set of a note is not applied (O3).
    NoteIgnored,
    /// Handlers are given other bytes than those published (O6).
    OtherBytes,
    /// Every key goes to the first partition (O10).
    OnePartition,
}

/// The seam, which holds the defect in force, if any.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seam(#[cfg(feature = "mutants")] pub(crate) Option<Mutant>);

impl Seam {
    #[cfg(feature = "mutants")]
    pub(crate) fn is(self, mutant: Mutant) -> bool {
        self.0 == Some(mutant)
    }

    /// Returns false: without the feature no defect is in force.
    #[cfg(not(feature = "mutants"))]
    #[inline(always)]
    pub(crate) const fn is(self, _: Mutant) -> bool {
        false
    }
}
