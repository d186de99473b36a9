//! [`Backoff`]: the waits between tries (S2).
//!
//! A wait is a pure function of the attempt and a random number, so that a seeded run repeats itself.

use std::time::Duration;

use serde::{Deserialize, Serialize};

const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// A back-off: how waiting times grow from attempt to attempt.
///
/// The default is [`Backoff::exponential`]: 100 ms, doubling up to 30 s, with full jitter. Durations
/// are used in milliseconds; each must lie between 1 ms and 24 hours.
///
/// As configuration, a back-off is a table with `kind` (`exponential`, `fixed` or `none`), the durations in
/// milliseconds, and `jitter` (`full` or `none`):
///
/// ```
/// use std::time::Duration;
/// use eventbus_core::{Backoff, Jitter};
///
/// let read: Backoff = serde_json::from_str(
///     r#"{ "kind": "exponential", "initial_ms": 50, "max_ms": 5000, "jitter": "none" }"#,
/// )?;
/// let built = Backoff::exponential()
///     .initial(Duration::from_millis(50))
///     .max(Duration::from_secs(5))
///     .jitter(Jitter::None);
/// assert_eq!(read, built);
/// assert_eq!(built.delay(3, 0), Duration::from_millis(200));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Fields", into = "Fields")]
pub struct Backoff {
    shape: Shape,
    jitter: Jitter,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    None,
    Fixed(Duration),
    Exponential { initial: Duration, max: Duration, factor: u32 },
}

/// The effect of chance on a waiting time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Jitter {
    /// Any time from zero to the computed one, each equally likely, so that tries which failed together do not come
    /// back together. The default.
    #[default]
    Full,
    /// The computed time itself, without chance.
    None,
}

/// The reason why a [`Backoff`] is refused where it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BackoffError {
    /// A duration is outside of its range.
    #[error("back-off: {name} is {given:?}, expected 1 ms to 24 hours")]
    Duration {
        /// The name of the value in the configuration.
        name: &'static str,
        /// The duration that was given.
        given: Duration,
    },
    /// The upper bound is below the first waiting time.
    #[error("back-off: max_ms ({max:?}) is below initial_ms ({initial:?})")]
    MaxBelowInitial {
        /// The first waiting time.
        initial: Duration,
        /// The upper bound.
        max: Duration,
    },
    /// The factor is zero, so that times would shrink to zero.
    #[error("back-off: factor is 0, expected 1 or more")]
    ZeroFactor,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff::exponential()
    }
}

impl Backoff {
    /// Makes a back-off of 100 ms after the first failure, doubling up to 30 s, with full jitter.
    #[must_use]
    pub const fn exponential() -> Self {
        let (initial, max) = (Duration::from_millis(100), Duration::from_secs(30));
        Backoff { shape: Shape::Exponential { initial, max, factor: 2 }, jitter: Jitter::Full }
    }

    /// Makes a back-off of the same time after each failure, without jitter.
    #[must_use]
    pub const fn fixed(delay: Duration) -> Self {
        Backoff { shape: Shape::Fixed(delay), jitter: Jitter::None }
    }

    /// Makes a back-off without waiting.
    #[must_use]
    pub const fn none() -> Self {
        Backoff { shape: Shape::None, jitter: Jitter::None }
    }

    /// Sets the time after the first failure; for a fixed back-off, after each. No effect on
    /// [`Backoff::none`].
    #[must_use]
    pub const fn initial(mut self, delay: Duration) -> Self {
        match &mut self.shape {
            Shape::Exponential { initial, .. } | Shape::Fixed(initial) => *initial = delay,
            Shape::None => {}
        }
        self
    }

    /// Sets the longest time of an exponential back-off. No effect on others.
    #[must_use]
    pub const fn max(mut self, delay: Duration) -> Self {
        if let Shape::Exponential { max, .. } = &mut self.shape {
            *max = delay;
        }
        self
    }

    /// Sets the factor by which an exponential back-off grows from failure to failure. No effect on others.
    #[must_use]
    pub const fn factor(mut self, by: u32) -> Self {
        if let Shape::Exponential { factor, .. } = &mut self.shape {
            *factor = by;
        }
        self
    }

    /// Sets the jitter. No effect on [`Backoff::none`].
    #[must_use]
    pub const fn jitter(mut self, jitter: Jitter) -> Self {
        if !matches!(self.shape, Shape::None) {
            self.jitter = jitter;
        }
        self
    }

    /// Refuses impossible values. Whatever takes a `Backoff` calls this when it is built; reading one from
    /// configuration does, too.
    ///
    /// # Errors
    ///
    /// [`BackoffError`], naming the value and what was expected.
    pub fn validate(&self) -> Result<(), BackoffError> {
        match self.shape {
            Shape::None => Ok(()),
            Shape::Fixed(delay) => within("delay_ms", delay),
            Shape::Exponential { initial, max, factor } => {
                within("initial_ms", initial)?;
                within("max_ms", max)?;
                if factor == 0 {
                    Err(BackoffError::ZeroFactor)
                } else if max < initial {
                    Err(BackoffError::MaxBelowInitial { initial, max })
                } else {
                    Ok(())
                }
            }
        }
    }

    /// Returns the wait after the failure of `attempt`, counted from 1. `random` is drawn evenly from all numbers; it
    /// matters only with jitter. Attempt 0 has not failed: its wait is zero.
    #[must_use]
    pub fn delay(&self, attempt: u32, random: u64) -> Duration {
        let Some(failures_before) = attempt.checked_sub(1) else {
            return Duration::ZERO;
        };
        let whole = match self.shape {
            Shape::None => Duration::ZERO,
            Shape::Fixed(delay) => delay,
            Shape::Exponential { initial, max, factor } => {
                let grown = factor.checked_pow(failures_before).and_then(|by| initial.checked_mul(by));
                grown.map_or(max, |grown| grown.min(max))
            }
        };
        match self.jitter {
            Jitter::None => whole,
            Jitter::Full => part(whole, random),
        }
    }
}

/// Returns `whole` times `random` over 2^64.
fn part(whole: Duration, random: u64) -> Duration {
    let nanos = u64::try_from(whole.as_nanos()).unwrap_or(u64::MAX);
    let product = u128::from(nanos) * u128::from(random);
    Duration::from_nanos((product >> 64) as u64)
}

fn within(name: &'static str, given: Duration) -> Result<(), BackoffError> {
    if (SHORTEST..=LONGEST).contains(&given) { Ok(()) } else { Err(BackoffError::Duration { name, given }) }
}

/// A back-off as configuration. All variants are struct variants: unknown keys of unit variants would be accepted in
/// silence.
#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
enum Fields {
    None {},
    Fixed {
        delay_ms: u64,
        #[serde(default = "without")]
        jitter: Jitter,
    },
    Exponential {
        #[serde(default = "initial_ms")]
        initial_ms: u64,
        #[serde(default = "max_ms")]
        max_ms: u64,
        #[serde(default = "doubling")]
        factor: u32,
        #[serde(default)]
        jitter: Jitter,
    },
}

fn without() -> Jitter {
    Jitter::None
}

fn initial_ms() -> u64 {
    100
}

fn max_ms() -> u64 {
    30_000
}

fn doubling() -> u32 {
    2
}

impl TryFrom<Fields> for Backoff {
    type Error = BackoffError;

    fn try_from(fields: Fields) -> Result<Self, BackoffError> {
        let backoff = match fields {
            Fields::None {} => Backoff::none(),
            Fields::Fixed { delay_ms, jitter } => Backoff::fixed(Duration::from_millis(delay_ms)).jitter(jitter),
            Fields::Exponential { initial_ms, max_ms, factor, jitter } => Backoff::exponential()
                .initial(Duration::from_millis(initial_ms))
                .max(Duration::from_millis(max_ms))
                .factor(factor)
                .jitter(jitter),
        };
        backoff.validate()?;
        Ok(backoff)
    }
}

impl From<Backoff> for Fields {
    fn from(backoff: Backoff) -> Self {
        let jitter = backoff.jitter;
        match backoff.shape {
            Shape::None => Fields::None {},
            Shape::Fixed(delay) => Fields::Fixed { delay_ms: milliseconds(delay), jitter },
            Shape::Exponential { initial, max, factor } => {
                Fields::Exponential { initial_ms: milliseconds(initial), max_ms: milliseconds(max), factor, jitter }
            }
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Waits that double from failure to failure, for calls to a broker that are tried again and again.
#[derive(Debug)]
pub(crate) struct Waits {
    backoff: Backoff,
    failures: u32,
}

impl Waits {
    pub(crate) const fn new(first: Duration, longest: Duration) -> Self {
        Self { backoff: Backoff::exponential().initial(first).max(longest).jitter(Jitter::None), failures: 0 }
    }

    /// Waits for the time that follows one more failure.
    pub(crate) async fn wait(&mut self) {
        self.failures = self.failures.saturating_add(1);
        tokio::time::sleep(self.backoff.delay(self.failures, 0)).await;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn the_default_is_not_100_ms_doubling_to_30_s_with_full_jitter() {
        let backoff = Backoff::default();
        let whole: Vec<_> = (0..12).map(|attempt| backoff.jitter(Jitter::None).delay(attempt, 9)).collect();
        let expected = [0, 100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000];
        assert_eq!(whole, expected.map(ms));
        assert_eq!(backoff.delay(1, 0), ms(0));
        assert_eq!(backoff.delay(1, 1 << 63), ms(50));
        assert!(backoff.delay(1, u64::MAX) < ms(100) && backoff.delay(1, u64::MAX) > ms(99));
        assert!(backoff.validate().is_ok());
    }

    #[test]
    fn fixed_and_none_do_not_grow() {
        let fixed = Backoff::fixed(ms(250));
        assert!((1..100).all(|attempt| fixed.delay(attempt, 7) == ms(250)));
        assert!((0..100).all(|attempt| Backoff::none().delay(attempt, 7).is_zero()));
    }

    #[test]
    fn impossible_values_are_accepted_nowhere() {
        let exponential = Backoff::exponential();
        let cases = [
            (Backoff::fixed(Duration::ZERO), "delay_ms is 0ns, expected 1 ms to 24 hours"),
            (exponential.initial(Duration::ZERO), "initial_ms is 0ns, expected 1 ms to 24 hours"),
            (exponential.max(Duration::MAX), "expected 1 ms to 24 hours"),
            (exponential.max(ms(99)), "max_ms (99ms) is below initial_ms (100ms)"),
            (exponential.factor(0), "factor is 0, expected 1 or more"),
        ];
        for (backoff, message) in cases {
            let error = backoff.validate().unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
            let json = serde_json::to_string(&backoff).unwrap();
            let error = serde_json::from_str::<Backoff>(&json).unwrap_err().to_string();
            assert!(error.contains("back-off: "), "{error}");
        }
    }

    #[test]
    fn unknown_keys_and_kinds_are_refused() {
        for (json, named) in [
            (r#"{ "kind": "exponential", "inital_ms": 5 }"#, "inital_ms"),
            (r#"{ "kind": "none", "delay_ms": 5 }"#, "delay_ms"),
            (r#"{ "kind": "fixed", "delay_ms": 5, "max_ms": 7 }"#, "max_ms"),
            (r#"{ "kind": "linear" }"#, "linear"),
            (r#"{ "kind": "fixed" }"#, "delay_ms"),
            (r#"{ "kind": "exponential", "jitter": "some" }"#, "some"),
        ] {
            let error = serde_json::from_str::<Backoff>(json).unwrap_err().to_string();
            assert!(error.contains(named), "{json}: {error}");
        }
    }

    #[test]
    fn left_out_keys_are_not_the_defaults() {
        let read = |json| serde_json::from_str::<Backoff>(json).unwrap();
        assert_eq!(read(r#"{ "kind": "exponential" }"#), Backoff::exponential());
        assert_eq!(read(r#"{ "kind": "fixed", "delay_ms": 5 }"#), Backoff::fixed(ms(5)));
        assert_eq!(read(r#"{ "kind": "none" }"#), Backoff::none());
    }

    fn backoff() -> impl Strategy<Value = Backoff> {
        let any_ms = || prop_oneof![2 => 0..90_000_000_u64, 1 => any::<u64>()].prop_map(ms);
        let shape = prop_oneof![
            Just(Backoff::none()),
            any_ms().prop_map(Backoff::fixed),
            (any_ms(), any_ms(), any::<u32>())
                .prop_map(|(initial, max, factor)| Backoff::exponential().initial(initial).max(max).factor(factor)),
        ];
        (shape, prop_oneof![Just(Jitter::None), Just(Jitter::Full)]).prop_map(|(shape, jitter)| shape.jitter(jitter))
    }

    proptest! {
        #[test]
        fn no_attempt_overflows_even_with_values_that_validate_refuses(
            backoff in backoff(), attempt: u32, random: u64,
        ) {
            let whole = backoff.jitter(Jitter::None);
            prop_assert!(backoff.delay(attempt, random) <= whole.delay(attempt, 0));
        }

        #[test]
        fn waiting_never_shrinks_nor_passes_its_bound(
            initial in 1..100_000_u64, more in 0..1_000_000_u64, factor in 1..10_u32, attempt in 1..u32::MAX,
        ) {
            let backoff = Backoff::exponential().initial(ms(initial)).max(ms(initial + more)).factor(factor);
            prop_assert!(backoff.validate().is_ok());
            let backoff = backoff.jitter(Jitter::None);
            prop_assert!(backoff.delay(attempt, 0) <= backoff.delay(attempt + 1, 0));
            prop_assert!((ms(initial)..=ms(initial + more)).contains(&backoff.delay(attempt, 0)));
        }

        #[test]
        fn what_is_valid_survives_configuration(backoff in backoff()) {
            let json = serde_json::to_string(&backoff).unwrap();
            match (backoff.validate(), serde_json::from_str::<Backoff>(&json)) {
                (Ok(()), read) => prop_assert_eq!(read.unwrap(), backoff),
                (Err(_), read) => prop_assert!(read.is_err()),
            }
        }

        #[test]
        fn random_configuration_does_not_panic(text in "\\PC{0,80}") {
            let _ = serde_json::from_str::<Backoff>(&text);
        }
    }
}
