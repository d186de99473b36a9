//! Decision after a failed attempt (S2).
//!
//! **Invariant.** A failed envelope is tried again in place or goes to the policy; it is never given back to the
//! broker. The decision depends only on the attempt, the error, the options and the jitter, so it is the same on every
//! backend.

use std::time::Duration;

use super::options::{FailurePolicy, Settings};

/// Decision about an envelope whose attempt failed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The envelope is tried again after this wait.
    Again(Duration),
    /// The attempts are used up: the policy decides.
    Policy(FailurePolicy),
}

/// Decides after attempt number `attempt` (from 1 on) failed. `random` feeds the jitter.
pub(crate) fn after_failure(settings: &Settings, attempt: u32, permanent: bool, random: u64) -> Verdict {
    if permanent || attempt >= settings.attempts {
        return Verdict::Policy(settings.policy);
    }
    Verdict::Again(settings.backoff.delay(attempt, random))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_decides_exactly_when_attempts_are_used_up() {
        let settings = Settings { attempts: 3, ..Settings::default() };
        assert!(matches!(after_failure(&settings, 2, false, 0), Verdict::Again(_)));
        assert_eq!(after_failure(&settings, 3, false, 0), Verdict::Policy(FailurePolicy::DeadLetter));
        assert_eq!(after_failure(&settings, 1, true, 0), Verdict::Policy(FailurePolicy::DeadLetter));
    }
}
