//! Configuration from TOML.
//!
//! The table is checked against the list of settings before it is read, so that a refused value is named together with what
//! its setting takes, and nothing of the text is repeated that might be secret.

use serde::Deserialize;

use super::knobs::{Knob, find, unknown};
use super::parts::Parts;
use super::url::{Scheme, scheme, unknown_key, unsafe_setting};
use super::{BackendConfig, ConfigError, EventBusConfig, Section, schemes};

const SECTIONS: [Section; 3] = [Section::Publish, Section::Subscribe, Section::Topic];

/// What a TOML document says. It need not name a backend.
pub(super) fn read(text: &str) -> Result<Parts, ConfigError> {
    let mut table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().and_then(|span| text.get(..span.start)).map(|before| before.matches('\n').count() + 1);
        ConfigError::Toml { line, message: error.message().to_owned() }
    })?;
    let mut parts = match table.remove("backend") {
        Some(value) => backend(value)?,
        None => Parts::default(),
    };
    for (name, section) in table {
        let known = SECTIONS.into_iter().find(|known| known.as_str() == name);
        let Some(known) = known else {
            return Err(unknown_key("section", &name, &["backend", "publish", "subscribe", "topic"]));
        };
        let toml::Value::Table(section) = section else {
            return Err(ConfigError::Value { name: known.as_str(), expected: "a table".into(), got: kind(&section) });
        };
        for (name, value) in section {
            let knob = find("setting", Some(known), &[], &name)?;
            knob.check(&value)?;
            parts.settings.insert((known, knob.name), value);
        }
    }
    Ok(parts)
}

fn backend(value: toml::Value) -> Result<Parts, ConfigError> {
    let expected = || format!("a table with a type, one of {}", names().join(", "));
    let toml::Value::Table(mut table) = value else {
        return Err(ConfigError::Value { name: "backend", expected: expected(), got: kind(&value) });
    };
    let scheme = match table.remove("type") {
        Some(toml::Value::String(name)) => scheme(&name)?,
        Some(other) => {
            return Err(ConfigError::Value { name: "backend.type", expected: "text".into(), got: kind(&other) });
        }
        None => {
            return Err(ConfigError::Missing {
                name: "backend.type",
                expected: format!("one of {}", names().join(", ")),
            });
        }
    };
    let place = match table.remove(scheme.place) {
        None => None,
        Some(toml::Value::String(place)) => Some(place),
        Some(other) => {
            return Err(ConfigError::Value { name: scheme.place, expected: "text".into(), got: kind(&other) });
        }
    };
    let mut parts = Parts { backend: Some((scheme, place)), ..Parts::default() };
    for (name, value) in table {
        let knob = backend_setting(scheme, &name)?;
        knob.check(&value)?;
        parts.settings.insert((Section::Backend, knob.name), value);
    }
    Ok(parts)
}

/// A setting of `[backend]` by its name.
pub(super) fn backend_setting(scheme: &'static Scheme, name: &str) -> Result<&'static Knob, ConfigError> {
    unsafe_setting(scheme, name)?;
    let known = scheme.knobs.iter().find(|knob| knob.name == name);
    let names = || ["type", scheme.place].into_iter().chain(scheme.knobs.iter().map(|knob| knob.name)).collect();
    known.ok_or_else(|| unknown("setting of [backend]", name, names()))
}

/// Makes the configuration of its backend and of sections whose settings were checked.
pub(super) fn assemble(backend: BackendConfig, sections: toml::Table) -> Result<EventBusConfig, ConfigError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, default)]
    #[derive(Default)]
    struct Sections {
        publish: super::PublishSection,
        subscribe: super::SubscribeSection,
        topic: super::TopicSection,
    }
    let sections: Sections = sections
        .try_into()
        .map_err(|error: toml::de::Error| ConfigError::Toml { line: None, message: error.message().to_owned() })?;
    let Sections { publish, subscribe, topic } = sections;
    EventBusConfig { backend, publish, subscribe, topic }.check_together()
}

pub(super) fn names() -> Vec<&'static str> {
    schemes().iter().map(|scheme| scheme.name).collect()
}

/// What a value is, without the value.
fn kind(value: &toml::Value) -> String {
    format!("a value of type {}", value.type_str())
}
