//! Polling: asking again until an answer stands.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::Result;

/// The interval between two looks.
const AGAIN: Duration = Duration::from_millis(50);

/// The interval between two questions where asking blocks a thread.
const AGAIN_BLOCKING: Duration = Duration::from_millis(20);

/// Looks until an answer is the last word (`again` is false), for at most `patience`: brokers accept a change before
/// all of them act by it. Returns the last answer. Looks at least once, and begins a look only within the time.
///
/// Cancel safe, as far as `look` is.
pub async fn poll_until<T, F: Future<Output = Result<T>>>(
    patience: Duration,
    again: impl Fn(&Result<T>) -> bool,
    look: impl Fn() -> F,
) -> Result<T> {
    let until = Instant::now() + patience;
    loop {
        let seen = look().await;
        if !again(&seen) || Instant::now() >= until {
            return seen;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Asks until an answer is the last word, as [`poll_until`] does, but blocks: for a thread that may. `ask` is told what
/// is left of the time. Returns the last answer; asks at least once.
pub fn poll_until_blocking<T>(patience: Duration, again: impl Fn(&T) -> bool, mut ask: impl FnMut(Duration) -> T) -> T {
    let until = std::time::Instant::now() + patience;
    loop {
        let answer = ask(until.saturating_duration_since(std::time::Instant::now()));
        if !again(&answer) || std::time::Instant::now() >= until {
            return answer;
        }
        std::thread::sleep(AGAIN_BLOCKING);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[test]
    fn the_last_answer_is_given_and_one_is_asked_for_at_least() {
        let mut asked = 0;
        let mut count = |_| {
            asked += 1;
            asked
        };
        assert_eq!(poll_until_blocking(PATIENCE, |answer| *answer < 2, &mut count), 2);
        assert_eq!(poll_until_blocking(Duration::ZERO, |_| true, &mut count), 3);
        assert!(poll_until_blocking(PATIENCE, |_| false, |left| left) > PATIENCE / 2);
    }
}
