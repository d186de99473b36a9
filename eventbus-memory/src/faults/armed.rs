//! Faults that are armed for submissions and commits to come.

use std::time::Duration;

use eventbus_core::Env;

use super::scope::Rules;

/// What happens to a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubmitFault {
    /// It vanishes; told as unknown after the answer time-out.
    Drop,
    /// It takes this much longer to arrive.
    Delay(Duration),
    /// It is refused for good.
    Refuse,
    /// It is not stored, and may be sent again.
    NotStored,
    /// It is stored and its confirmation lost; told as unknown after the answer time-out.
    LoseConfirmation,
    /// It is held in the network until [`Faults::release_held`](super::Faults::release_held); told as unknown after the answer time-out. Released
    /// after the duplicate window it is stored once more, unless partitions are pipelined: then it is discarded, as by a
    /// broker that counts each producer's records.
    Hold,
}

/// What happens to a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CommitFault {
    /// The partition is taken away just before, so that the commit is fenced. The partition is then given out anew.
    Fence,
    /// It does not arrive; a retryable error.
    Unavailable,
    /// It is stored and the answer lost; a retryable error.
    LoseAnswer,
}

/// What becomes of the submissions that a cut finds on their way. All are told as unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnCut {
    /// They are stored.
    Stored,
    /// They are lost.
    Lost,
    /// Each is stored or lost as a random number says.
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

/// What is armed.
#[derive(Debug, Default)]
pub(crate) struct Armed {
    pub(crate) submits: Rules<SubmitFault>,
    pub(crate) commits: Rules<CommitFault>,
}
