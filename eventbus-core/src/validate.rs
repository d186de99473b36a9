//! Checks of settings, and the errors of refused ones (S8).
//!
//! Invariant: a refusal names its setting, what was expected, and what was given unless that is secret.

use std::fmt::{self, Debug};
use std::ops::{Bound, RangeBounds, RangeInclusive};
use std::time::Duration;

use crate::model::{Error, ErrorKind, Result};

/// Makes the `InvalidConfig` error of a setting. `expected` says what was expected, and what was given where that may
/// be told.
#[must_use]
pub fn invalid(setting: &'static str, expected: impl fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidConfig, format!("{setting}: {expected}")).with("setting", setting)
}

/// Makes the `UnsafeConfig` error of a setting. `why` says how it would break the contract.
#[must_use]
pub fn unsafe_setting(setting: &'static str, why: impl fmt::Display) -> Error {
    Error::new(ErrorKind::UnsafeConfig, format!("{setting}: {why}")).with("setting", setting)
}

/// Makes the `Unsupported` error of a setting. `why` says what the backend lacks.
#[must_use]
pub fn unsupported(setting: &'static str, why: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Unsupported, format!("{setting}: {why}")).with("setting", setting)
}

/// Returns a range of times in milliseconds, both ends included.
#[must_use]
pub const fn millis(least: u64, most: u64) -> RangeInclusive<Duration> {
    Duration::from_millis(least)..=Duration::from_millis(most)
}

/// Checks that a value is in its range.
///
/// # Errors
/// `InvalidConfig`, naming the range and the value.
pub fn within<T: PartialOrd + Debug>(setting: &'static str, value: &T, range: impl RangeBounds<T>) -> Result<()> {
    if range.contains(value) {
        return Ok(());
    }
    let expected = match (range.start_bound(), range.end_bound()) {
        (Bound::Included(least), Bound::Included(most)) => format!("{least:?} to {most:?}"),
        (Bound::Included(least), Bound::Unbounded) => format!("at least {least:?}"),
        (least, most) => format!("{least:?} to {most:?}"),
    };
    Err(invalid(setting, format!("expected {expected}, got {value:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(result: Result<()>) -> String {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        error.to_string()
    }

    #[test]
    fn what_is_refused_names_the_setting_what_was_expected_and_what_was_given() {
        assert!(within("w", &1, 1..=3).is_ok() && within("w", &3, 1..=3).is_ok() && within("w", &9, 1..).is_ok());
        let error = message(within("w", &4, 1..=3));
        assert!(error.contains("w: expected 1 to 3, got 4 [setting=w]"), "{error}");
        let error = message(within("w", &0, 1..));
        assert!(error.contains("w: expected at least 1, got 0"), "{error}");
        let error = message(within("t", &Duration::ZERO, millis(10, 60_000)));
        assert!(error.contains("t: expected 10ms to 60s, got 0ns"), "{error}");
    }

    #[test]
    fn what_a_backend_has_not_is_told_by_the_setting() {
        let error = unsupported("storage", "on disk only");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("storage: on disk only [setting=storage]"), "{error}");
    }
}
