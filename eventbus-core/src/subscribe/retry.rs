//! Decision after a failed attempt (S2).
//!
//! **Invariant.** A failed envelope is tried again in place or goes to the policy; it is never given back to the
//! broker. It goes to the policy when its attempts *and* its time are used up, or at once where no attempt can help. The
//! decision depends only on the attempt, the time since the first failure in this ownership, the error, the options and
//! the jitter, so it is the same on every backend.

use std::time::Duration;

use super::handler::HandlerError;
use super::options::{GIVE_UP_AFTER, Settings};

/// A handler that asks for no wait must not be called without a pause.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

/// Decision about an envelope whose attempt did not succeed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The attempt failed; the envelope is tried again after this wait.
    Again(Duration),
    /// The handler could not work yet. The attempt is not charged; the envelope is handed over again after this wait.
    Wait(Duration),
    /// The attempts and the time are used up: the policy decides.
    Policy,
}

/// Decides after an attempt did not succeed, with so many charged, itself among them, and this long after the envelope's
/// first failure or wait. `random` feeds the jitter.
pub(crate) fn after_failure(
    settings: &Settings,
    charged: u32,
    failing_for: Duration,
    error: &HandlerError,
    random: u64,
) -> Verdict {
    if error.is_permanent() {
        return Verdict::Policy;
    }
    if let Some(wait) = error.wait_time() {
        let left = longest_wait(settings).saturating_sub(failing_for);
        if !left.is_zero() {
            return Verdict::Wait(wait.max(SHORTEST_WAIT).min(left));
        }
    }
    if charged >= settings.attempts && failing_for >= settings.give_up_after {
        return Verdict::Policy;
    }
    Verdict::Again(settings.backoff.delay(charged, random))
}

/// Returns how long an envelope may wait in all: where only the attempts are limited, a wait still has an end.
fn longest_wait(settings: &Settings) -> Duration {
    if settings.give_up_after.is_zero() { GIVE_UP_AFTER } else { settings.give_up_after }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn settings(attempts: u32, give_up_after: Duration) -> Settings {
        Settings { attempts, give_up_after, ..Settings::default() }
    }

    fn failed() -> HandlerError {
        HandlerError::retry("refused")
    }

    #[test]
    fn an_envelope_with_attempts_left_goes_to_the_policy() {
        let settings = settings(3, Duration::ZERO);
        assert!(matches!(after_failure(&settings, 2, SECOND, &failed(), 0), Verdict::Again(_)));
        assert_eq!(after_failure(&settings, 3, Duration::ZERO, &failed(), 0), Verdict::Policy);
        assert_eq!(after_failure(&settings, 1, Duration::ZERO, &HandlerError::permanent("no"), 0), Verdict::Policy);
    }

    #[test]
    fn an_envelope_with_time_left_goes_to_the_policy() {
        let settings = settings(3, 10 * SECOND);
        assert!(matches!(after_failure(&settings, 1_000, 9 * SECOND, &failed(), 0), Verdict::Again(_)));
        assert!(matches!(after_failure(&settings, 2, 11 * SECOND, &failed(), 0), Verdict::Again(_)));
        assert_eq!(after_failure(&settings, 3, 10 * SECOND, &failed(), 0), Verdict::Policy);
    }

    #[test]
    fn a_wait_is_charged_or_lasts_for_ever() {
        let wait = |time| HandlerError::wait(time, "later");
        for (settings, longest) in
            [(settings(3, 10 * SECOND), 10 * SECOND), (settings(3, Duration::ZERO), GIVE_UP_AFTER)]
        {
            let after = |charged, failing_for, time| after_failure(&settings, charged, failing_for, &wait(time), 0);
            assert_eq!(after(3, Duration::ZERO, SECOND), Verdict::Wait(SECOND));
            assert_eq!(after(3, longest - SECOND, 5 * SECOND), Verdict::Wait(SECOND), "no longer than is left");
            assert_eq!(after(3, longest, SECOND), Verdict::Policy);
            assert!(matches!(after(2, longest, SECOND), Verdict::Again(_)), "an attempt like any other");
        }
    }
}
