//! Durations as options take them.

use std::time::Duration;

/// The longest duration: a year.
const MOST: f64 = 366.0 * 24.0 * 3_600.0;

/// Reads seconds, with or without a fraction.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds: &f64| (0.0..=MOST).contains(seconds));
    let seconds = seconds.ok_or_else(|| "expected seconds, such as 10 or 0.5".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_time_is_refused() {
        assert_eq!(parse("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(parse("0"), Ok(Duration::ZERO));
        for text in ["", "-1", "NaN", "inf", "1e300", "10s"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
