//! Refusals of a coordinator that may pass: when to try again, and when to tell (S5).
//!
//! Invariants: another member is made at once only after the first failure, and then after waits that double; nothing
//! is refused in silence for longer than [`NOTICE`].

use std::time::Duration;

use tokio::time::Instant;

use crate::backend::GroupEvent;
use crate::model::Error;
use crate::runtime::{Backoff, Jitter};

/// The time of failures in a row after which the core is told, and the first wait until it is told again.
pub(super) const NOTICE: Duration = Duration::from_secs(5);

/// The waits between members that fail one after another: the first, and the longest.
const WAITS: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(10)];

/// Refusals in a row.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    count: u32,
    first: Option<Instant>,
    last: Option<Instant>,
    told: u32,
}

impl Refusals {
    /// Counts a refusal. Returns what the core is to be told, if it is time.
    pub(super) fn refused(&mut self, error: &Error) -> Option<GroupEvent> {
        let now = Instant::now();
        // What went well for that long was no failure.
        if self.last.is_some_and(|last| now - last > WAITS[1] * 3) {
            self.over();
        }
        (self.count, self.last) = (self.count.saturating_add(1), Some(now));
        let age = now - *self.first.get_or_insert(now);
        let due = age >= NOTICE * 2_u32.pow(self.told);
        due.then(|| {
            self.told = (self.told + 1).min(6);
            GroupEvent::Waiting { partition: None, age, error: error.clone() }
        })
    }

    /// Returns how long to wait before the next try.
    pub(super) fn wait(&self) -> Duration {
        let waits = Backoff::exponential().initial(WAITS[0]).max(WAITS[1]).jitter(Jitter::None);
        waits.delay(self.count.saturating_sub(1), 0)
    }

    /// Forgets the refusals: the coordinator has taken the member.
    pub(super) fn over(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::model::ErrorKind;

    #[tokio::test(start_paused = true)]
    async fn within_a_session_few_members_are_made_and_the_broker_s_words_are_told() {
        let (mut refusals, begun) = (Refusals::default(), Instant::now());
        let (mut made, mut told) = (0, Vec::new());
        while begun.elapsed() < Duration::from_secs(45) {
            let error = Error::new(ErrorKind::Unavailable, format!("try {made}"));
            if let Some(GroupEvent::Waiting { partition: None, age, error }) = refusals.refused(&error) {
                told.push((age.as_secs(), error.message().to_owned()));
            }
            made += 1;
            if made == 1 {
                assert_eq!(refusals.wait(), Duration::ZERO, "the first may have been chance");
            }
            advance(refusals.wait()).await;
        }
        assert!(made <= 10, "{made} members");
        assert!((2..=4).contains(&told.len()) && told[0].0 <= 8, "{told:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_taken_once_begins_anew() {
        let mut refusals = Refusals::default();
        let error = Error::new(ErrorKind::Unavailable, "full");
        for over in [true, false] {
            for _ in 0..5 {
                let _ = refusals.refused(&error);
            }
            assert!(refusals.wait() > WAITS[0]);
            if over {
                refusals.over()
            } else {
                advance(WAITS[1] * 4).await
            }
            let _ = refusals.refused(&error);
            assert_eq!(refusals.wait(), Duration::ZERO);
        }
    }
}
