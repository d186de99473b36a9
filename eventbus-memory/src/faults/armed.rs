//! Faults that are armed for submissions and commits to come.

use std::time::Duration;

use eventbus_core::Env;

use super::scope::Rules;

/// A fault of one submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubmitFault {
    /// Loses the submission; it is told as unknown after the answer time-out.
    Drop,
    /// Delays its arrival by this much.
    Delay(Duration),
    /// Refuses it for good.
    Refuse,
    /// Does not store it; it may be sent again.
    NotStored,
    /// Stores it and loses the confirmation; it is told as unknown after the answer time-out.
    LoseConfirmation,
    /// Holds it in the network until [`Faults::release_held`](super::Faults::release_held); it is told as unknown after
    /// the answer time-out. Released after the duplicate window it is stored once more, unless partitions are
    /// pipelined: then it is discarded, as by a broker that counts each producer's records.
    Hold,
}

/// A fault of one commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CommitFault {
    /// Takes the partition away just before, so that the commit is fenced. The partition is then given out anew.
    Fence,
    /// Loses the commit before it arrives; a retryable error.
    Unavailable,
    /// Stores the commit and loses the answer; a retryable error.
    LoseAnswer,
}

/// Outcome of the submissions that a cut finds on their way. All are told as unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnCut {
    /// All are stored.
    Stored,
    /// All are lost.
    Lost,
    /// Each is stored or lost at random.
    Drawn,
}

impl OnCut {
    pub(crate) fn draw(self, env: &dyn Env) -> bool {
        match self {
            Self::Stored => true,
            Self::Lost => false,
            Self::Drawn => env.random().is_multiple_of(2),
        }
    }
}

/// All armed faults.
#[derive(Debug, Default)]
pub(crate) struct Armed {
    pub(crate) submits: Rules<SubmitFault>,
    pub(crate) commits: Rules<CommitFault>,
}
