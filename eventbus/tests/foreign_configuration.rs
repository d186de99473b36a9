//! Configuration by anybody: whatever stands in a URL, a file or a variable, reading it ends with a configuration or an
//! error, and a password is in neither's text.
//!
//! `EVENTBUS_FUZZ_INPUTS` sets the number of inputs to each property; `scripts/fuzz` sets a large one.
#![allow(clippy::unwrap_used)]

use eventbus::EventBusConfig;
use eventbus::config::{Layers, knobs, schemes};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

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
    fn a_url_is_read_or_refused(
        scheme in scheme(), place in "[a-z0-9.:,@\\[\\]%/-]{0,24}", parameters in vec((setting(), value()), 0..4),
        any in "\\PC{0,40}",
    ) {
        EventBusConfig::from_url(&any).ok();
        let parameters: Vec<String> = parameters.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        let url = format!("{scheme}://{place}?{}", parameters.join("&"));
        if let Ok(config) = EventBusConfig::from_url(&url) {
            // What was read can be written as a file, and is the same then.
            let toml = toml_of(&config);
            prop_assert_eq!(EventBusConfig::from_toml(&toml).map_err(|error| error.to_string()), Ok(config), "{}", toml);
        }
    }

    #[test]
    fn a_password_is_in_no_text(scheme in select(vec!["nats", "tls", "kafka"]), host in "[a-z0-9.:,/ ?%-]{0,16}", name in setting(), value in value()) {
        let url = format!("{scheme}://me:{SECRET}@{host}{}{name}={value}&password={SECRET}", if host.contains('?') { '&' } else { '?' });
        let shown = match EventBusConfig::from_url(&url) {
            Ok(config) => format!("{config:?} {}", config.backend),
            Err(error) => format!("{error} {error:?}"),
        };
        prop_assert!(!shown.contains(SECRET), "{}", shown);
    }

    #[test]
    fn a_file_and_variables_are_read_or_refused(
        any in "\\PC{0,60}", scheme in scheme(), settings in vec((select(vec!["publish", "subscribe", "topic", "backend", "odd"]), setting(), value()), 0..5),
    ) {
        EventBusConfig::from_toml(&any).ok();
        let mut text = format!("\u{feff}backend.type = \"{scheme}\"\nbackend.servers = \"a\"\n");
        for (section, name, value) in &settings {
            text.push_str(&format!("{section}.{name} = {value}\n"));
        }
        EventBusConfig::from_toml(&text).ok();
        let variables = settings.iter().map(|(section, name, value)| (format!("EVENTBUS_{section}__{name}").to_uppercase(), value.clone()));
        Layers::new().url("memory://").unwrap().variables(variables).and_then(Layers::build).ok();
    }
}

fn toml_of(config: &EventBusConfig) -> String {
    toml::to_string(config).unwrap()
}
