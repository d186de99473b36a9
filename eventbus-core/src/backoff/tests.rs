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
