use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::{Error, ErrorKind};

fn refused(url: &str) -> ConfigError {
    EventBusConfig::from_url(url).expect_err(url)
}

/// Returns a possible value that is not the default.
fn another(knob: &Knob) -> String {
    match knob.kind {
        KnobKind::Number { least, most } => (least + 4_242).min(most).to_string(),
        KnobKind::Flag => "true".to_owned(),
        KnobKind::Text => "text".to_owned(),
        KnobKind::Word(words) => {
            let defaults = ["own", "full", "dead-letter", "earliest", "stop", "file", "validate", "seal-key"];
            words
                .iter()
                .find(|word| !defaults.contains(*word) || knob.name == "on_log_reset" && **word == "earliest")
                .copied()
                .unwrap_or_default()
                .to_owned()
        }
    }
}

/// Returns what reaches the core, as text.
fn reached(config: &EventBusConfig) -> [String; 3] {
    [format!("{:?}", config.bus()), format!("{:?}", config.subscription("t")), format!("{:?}", config.topic("t"))]
}

#[test]
fn every_knob_reaches_the_core_from_url_and_toml() {
    let default = reached(&EventBusConfig::memory(Some("n")));
    let mut names = BTreeSet::new();
    for knob in knobs() {
        assert!(names.insert(knob.name), "{} is there twice", knob.name);
        let value = another(knob);
        let url = EventBusConfig::from_url(&format!("memory://n?{}={value}", knob.name)).unwrap();
        let written = if matches!(knob.kind, KnobKind::Word(_)) { format!("{value:?}") } else { value };
        let section = knob.section.as_str();
        let toml = format!("[backend]\ntype = \"memory\"\nname = \"n\"\n[{section}]\n{} = {written}\n", knob.name);
        assert_eq!(EventBusConfig::from_toml(&toml).unwrap(), url, "{}", knob.name);
        let changed: Vec<bool> = reached(&url).iter().zip(&default).map(|(now, before)| now != before).collect();
        let mut expected =
            [Section::Publish, Section::Subscribe, Section::Topic].map(|section| section == knob.section);
        // The number of partitions of new topics is also the number that publishes expect.
        expected[0] |= knob.name == "partitions";
        assert_eq!(changed, expected, "{}", knob.name);
    }
}

#[test]
fn every_setting_of_the_sections_is_a_knob() {
    let mut known = BTreeSet::new();
    let config = serde_json::to_value(EventBusConfig::memory(None)).unwrap();
    for section in ["publish", "subscribe", "topic"] {
        known.extend(config[section].as_object().unwrap().keys().cloned());
    }
    let listed: BTreeSet<String> = knobs().iter().map(|knob| knob.name.to_owned()).collect();
    assert_eq!(known, listed);
}

#[test]
fn unknown_schemes_list_the_known_ones() {
    let error = refused("amqp://host");
    assert!(matches!(&error, ConfigError::UnknownScheme { scheme, .. } if scheme == "amqp"), "{error}");
    assert!(error.to_string().contains("memory, nats, tls, kafka"), "{error}");
    assert!(refused("shop").to_string().contains("memory://"));
}

#[test]
fn schemes_without_their_backend_have_an_error_of_their_own() {
    for scheme in schemes().iter().filter(|scheme| scheme.missing.is_some()).map(|scheme| scheme.name) {
        let error = refused(&format!("{scheme}://a:9092,b:9092"));
        assert!(matches!(&error, ConfigError::NotBuilt { scheme: named, .. } if *named == scheme), "{error}");
        assert_eq!(Error::from(error).kind(), ErrorKind::Unsupported);
        let toml = format!("[backend]\ntype = \"{scheme}\"\n");
        assert!(matches!(EventBusConfig::from_toml(&toml), Err(ConfigError::NotBuilt { .. })));
    }
}

#[test]
fn unknown_names_tell_the_nearest_and_the_known() {
    let error = refused("memory://n?partition=3").to_string();
    assert!(error.contains("did you mean \"partitions\"?") && error.contains("concurrency, attempts"), "{error}");
    assert!(!refused("memory://n?zzzzzz=3").to_string().contains("did you mean"));
    for (toml, says) in [
        ("[backend]\ntype = \"memory\"\n[topc]\n", "unknown section \"topc\", did you mean \"topic\"?"),
        ("[backend]\ntype = \"memory\"\n[topic]\nconcurrency = 3\n", "unknown setting \"concurrency\""),
        ("[backend]\ntype = \"memory\"\nnme = 3\n", "did you mean \"name\"?"),
        ("[backend]\ntype = \"memry\"\n", "unknown scheme \"memry\""),
        ("[topic]\npartitions = 3\n", "backend is missing"),
        ("backend = \"memory\"\n", "backend: expected a table"),
        ("[backend\n", "no valid TOML, line 1"),
    ] {
        let error = EventBusConfig::from_toml(toml).expect_err(toml).to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn impossible_values_name_the_setting_and_what_it_takes() {
    for (query, says) in [
        ("partitions=0", "partitions: expected a whole number of 1 to 4096, got 0"),
        ("partitions=four", "partitions: expected a whole number of 1 to 4096, got \"four\""),
        ("partitions=-1", "got -1"),
        ("attempts=99999999999", "attempts: expected"),
        ("concurrency=", "concurrency: expected"),
        ("concurrency", "concurrency: expected"),
        ("then=forget", "then: expected one of dead-letter, skip, stop"),
        ("dedup_by_id=yes", "dedup_by_id: expected true or false"),
        ("window=999", "window: expected a whole number of at least 1000"),
        ("backoff_ms=60000", "backoff_max_ms: expected at least backoff_ms, which is 60000"),
        ("resend_ms=50&resend_max_ms=40", "resend_max_ms: expected at least resend_ms"),
        ("attempts=3&attempts=4", "\"attempts\" is given twice"),
        ("%ff=1", "no UTF-8"),
    ] {
        let error = refused(&format!("memory://n?{query}")).to_string();
        assert!(error.contains(says), "{query}: {error}");
    }
    for url in ["memory://a/b", "memory://ü", "memory://n#x", "memory://a b"] {
        assert!(matches!(refused(url), ConfigError::Url { .. }), "{url}");
    }
}

#[test]
fn passwords_are_never_repeated() {
    for url in [
        "memory://user:hunter2@shop",
        "nats://user:hunter2@host:4222?concurrency=0",
        "kafka://user:hunter2@a:9092,b:9092?concurrency=0",
        "user:hunter2@host",
        "user:hunter2@memory://shop",
        "amqp://user:hunter2@host",
    ] {
        let error = refused(url);
        let shown = format!("{error} {error:?} {:?}", Error::from(refused(url)));
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    for toml in
        ["[backend]\ntype = \"memory\"\nname = \"user:hunter2@host\"", "[backend]\npassword = \"hunter2", "hunter2"]
    {
        let error = EventBusConfig::from_toml(toml).expect_err(toml);
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let error = EventBusConfig::from_file("/nowhere/bus.toml").unwrap_err();
    assert!(error.to_string().contains("/nowhere/bus.toml"), "{error}");
}

#[test]
fn the_same_data_through_serde() {
    let config = EventBusConfig::from_url("memory://n?partitions=4&then=skip&jitter=none").unwrap();
    let written = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<EventBusConfig>(&written).unwrap(), config);
    assert_eq!(EventBusConfig::from_toml(&toml::to_string(&config).unwrap()).unwrap(), config);
    let error = serde_json::from_str::<EventBusConfig>(r#"{"backend":{"type":"memory"},"topics":{}}"#).unwrap_err();
    assert!(error.to_string().contains("unknown field `topics`"), "{error}");
}

proptest! {
    #[test]
    fn no_bytes_make_a_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let text = String::from_utf8_lossy(&bytes);
        let _ = EventBusConfig::from_url(&text);
        let _ = EventBusConfig::from_toml(&text);
    }

    #[test]
    fn no_url_makes_the_parser_panic(
        scheme in "(memory|nats|kafka|[a-z+]{0,8})",
        authority in ".{0,20}",
        query in "(([a-z_]{0,12}|partitions|%[0-9a-f]{0,2})=?.{0,6}&?){0,4}",
    ) {
        let _ = EventBusConfig::from_url(&format!("{scheme}://{authority}?{query}"));
    }

    #[test]
    fn no_toml_makes_the_parser_panic(
        kind in "(\"memory\"|\"[a-z]{0,6}\"|[0-9]{0,3}|\\{\\}|\\[\\])",
        section in "(topic|publish|subscribe|[a-z]{0,6})",
        lines in prop::collection::vec(("(partitions|then|share|[a-z_]{0,8})", "(-?[0-9]{1,20}|true|\"[^\"]{0,6}\"|1e3|\\[1\\])"), 0..4),
    ) {
        let mut text = format!("[backend]\ntype = {kind}\n[{section}]\n");
        for (name, value) in lines {
            text += &format!("{name} = {value}\n");
        }
        let _ = EventBusConfig::from_toml(&text);
    }

    #[test]
    fn any_number_is_taken_or_refused_by_its_range(value in any::<i64>()) {
        for knob in knobs() {
            let KnobKind::Number { least, most } = knob.kind else { continue };
            // The bounds of these two settings depend on each other.
            if ["backoff_ms", "backoff_max_ms"].contains(&knob.name) {
                continue;
            }
            let possible = u64::try_from(value).is_ok_and(|value| (least..=most).contains(&value));
            let read = EventBusConfig::from_url(&format!("memory://n?{}={value}", knob.name));
            prop_assert_eq!(read.is_ok(), possible, "{}", knob.name);
        }
    }
}
