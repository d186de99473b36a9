//! Configuration by anybody: whatever stands in a URL, a file or a variable, reading it ends with a configuration or an
//! error, and a password is in neither's text.
//!
//! `EVENTBUS_FUZZ_INPUTS` sets the number of inputs to each property; `scripts/fuzz` sets a large one.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use eventbus::EventBusConfig;
use eventbus::config::{ConfigError, Layers, knobs, schemes};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestCaseResult;

const SECRET: &str = "hunter2";

fn inputs() -> ProptestConfig {
    let cases = std::env::var("EVENTBUS_FUZZ_INPUTS").ok().and_then(|inputs| inputs.parse().ok()).unwrap_or(500);
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 10_000, ..ProptestConfig::default() }
}

fn scheme() -> impl Strategy<Value = &'static str> {
    select(schemes().iter().map(|scheme| scheme.name).collect::<Vec<_>>())
}

fn setting() -> impl Strategy<Value = String> {
    let known = knobs().iter().map(|knob| knob.name).chain(["prefix", "servers", "name", "type", "tls_required"]);
    prop_oneof![4 => select(known.collect::<Vec<_>>()).prop_map(str::to_owned), 1 => "[a-z_.%]{0,12}"]
}

fn value() -> impl Strategy<Value = String> {
    let long = "-?[0-9]{1,25}";
    prop_oneof![
        "[0-9]{0,5}",
        long,
        "(true|false|file|memory|stop|earliest|full|none|binary)",
        "[ -~]{0,8}",
        "%[0-9A-F]{2}"
    ]
}

proptest! {
    #![proptest_config(inputs())]

    #[test]
    fn a_foreign_url_is_read_or_refused(
        scheme in scheme(), place in "[a-z0-9.:,@\\[\\]%/-]{0,24}", parameters in vec((setting(), value()), 0..4),
        any in "\\PC{0,40}",
    ) {
        check(EventBusConfig::from_url(&any), &any)?;
        let parameters: Vec<String> = parameters.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        let url = format!("{scheme}://{place}?{}", parameters.join("&"));
        check(EventBusConfig::from_url(&url), &url)?;
    }

    #[test]
    fn a_password_is_in_no_text_about_a_foreign_url(scheme in select(vec!["nats", "tls", "kafka"]), host in "[a-z0-9.:,/ ?%-]{0,16}", name in setting(), value in value()) {
        let url = format!("{scheme}://me:{SECRET}@{host}{}{name}={value}&password={SECRET}", if host.contains('?') { '&' } else { '?' });
        let shown = match EventBusConfig::from_url(&url) {
            Ok(config) => format!("{config:?} {}", config.backend),
            Err(error) => format!("{error} {error:?}"),
        };
        prop_assert!(!shown.contains(SECRET), "{}", shown);
    }

    #[test]
    fn a_foreign_file_and_variables_are_read_or_refused(
        any in "\\PC{0,60}", scheme in scheme(), settings in vec((select(vec!["publish", "subscribe", "topic", "backend", "odd"]), setting(), value()), 0..5),
    ) {
        check(EventBusConfig::from_toml(&any), &any)?;
        let mut text = format!("\u{feff}backend.type = \"{scheme}\"\nbackend.servers = \"a\"\n");
        for (section, name, value) in &settings {
            text.push_str(&format!("{section}.{name} = {value}\n"));
        }
        check(EventBusConfig::from_toml(&text), &text)?;
        let variables = settings.iter().map(|(section, name, value)| (format!("EVENTBUS_{section}__{name}").to_uppercase(), value.clone()));
        let given: Vec<_> = variables.collect();
        let built = Layers::new().url("memory://").unwrap().variables(given.clone()).and_then(Layers::build);
        check(built.map(|in_force| in_force.config), &format!("{given:?}"))?;
    }
}

/// What was read can be written as a file, and is the same then; what is refused is refused in so many words.
fn check(read: Result<EventBusConfig, ConfigError>, given: &str) -> TestCaseResult {
    match read {
        Ok(config) => {
            let toml = toml::to_string(&config).unwrap();
            prop_assert_eq!(
                EventBusConfig::from_toml(&toml).map_err(|error| error.to_string()),
                Ok(config),
                "{}",
                toml
            );
        }
        Err(error) => {
            let said = error.to_string();
            // All names that there are, and a part of what was given.
            prop_assert!(!said.is_empty() && said.len() < 8_192 + given.len(), "{}", said);
        }
    }
    Ok(())
}

/// The square of the size of any of these would take minutes.
#[test]
fn large_foreign_configuration_costs_no_more_than_their_size() {
    const SIZE: usize = 1 << 20;
    let begun = Instant::now();
    let fill = |text: &str| text.repeat(SIZE / text.len());
    for scheme in schemes() {
        let scheme = scheme.name;
        for part in ["a", "a,", "%41", "@", ":", "[", "ü", "a@b,", "a:b@c,"].map(fill) {
            EventBusConfig::from_url(&format!("{scheme}://{part}")).ok();
            EventBusConfig::from_url(&format!("{scheme}://a?{part}=1")).ok();
            EventBusConfig::from_url(&format!("{scheme}://a?prefix={part}&client_id={part}")).ok();
        }
        EventBusConfig::from_url(&format!("{scheme}://a?{}", fill("&"))).ok();
        EventBusConfig::from_url(&format!("{scheme}://a?{}", fill("partitions=2&"))).ok();
    }
    for text in [
        fill("["),
        fill("a="),
        fill("a.a."),
        fill("[a]\n"),
        format!("[publish]\n{} = 1", fill("a")),
        format!("backend = {}", fill("[")),
    ] {
        EventBusConfig::from_toml(&text).ok();
    }
    let names = (0..20_000).map(|n| (format!("EVENTBUS_TOPIC__X{n}"), "1"));
    Layers::new().url("memory://").unwrap().variables(names).and_then(Layers::build).unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(120), "{:?}", begun.elapsed());
}
