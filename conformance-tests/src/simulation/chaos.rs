//! Kinds of trouble, and the draw of those that a schedule may meet.

use super::dice::Dice;

/// A kind of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chaos {
    Drop,
    Delay,
    Refuse,
    NotStored,
    LoseConfirmation,
    Hold,
    Release,
    CommitFence,
    CommitUnavailable,
    CommitLoseAnswer,
    Cut,
    Freeze,
    BrokerRestart,
    Kill,
    Expire,
    StopHeartbeats,
    TakeAway,
    Join,
    Leave,
    DropSubscription,
    Seek,
    Concurrency,
    Pause,
    ResumeKey,
    Truncate,
    Recreate,
    DeadLettersDown,
}

const ALL: [Chaos; 27] = [
    Chaos::Drop,
    Chaos::Delay,
    Chaos::Refuse,
    Chaos::NotStored,
    Chaos::LoseConfirmation,
    Chaos::Hold,
    Chaos::Release,
    Chaos::CommitFence,
    Chaos::CommitUnavailable,
    Chaos::CommitLoseAnswer,
    Chaos::Cut,
    Chaos::Freeze,
    Chaos::BrokerRestart,
    Chaos::Kill,
    Chaos::Expire,
    Chaos::StopHeartbeats,
    Chaos::TakeAway,
    Chaos::Join,
    Chaos::Leave,
    Chaos::DropSubscription,
    Chaos::Seek,
    Chaos::Concurrency,
    Chaos::Pause,
    Chaos::ResumeKey,
    Chaos::Truncate,
    Chaos::Recreate,
    Chaos::DeadLettersDown,
];

impl Chaos {
    /// Draws the troubles that a schedule may meet: a third of all, on average.
    pub(super) fn draw(dice: &mut Dice) -> Vec<Self> {
        let share = dice.one_of(&[10, 30, 60]);
        let mut met: Vec<Self> = ALL.into_iter().filter(|_| dice.percent(share)).collect();
        if met.contains(&Self::Hold) {
            // A copy whose original is gone from the log cannot be recognised, and is not promised to be.
            // Nor can a refusal be taken back when an earlier try of the same publish, held all the while, arrives.
            met.retain(|chaos| !matches!(chaos, Self::Truncate | Self::Recreate | Self::Refuse));
            met.push(Self::Release);
        }
        met
    }
}
