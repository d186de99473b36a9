//! What one source of configuration says, checked setting by setting, before anything is made of it.

use std::collections::BTreeMap;

use super::file::{assemble, names};
use super::url::Scheme;
use super::{ConfigError, EventBusConfig, Section};

/// The settings of one source, or of several laid over one another.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// Which backend, and where.
    pub(super) backend: Option<(&'static Scheme, Option<String>)>,
    /// Every setting that was given, a checked value each.
    pub(super) settings: BTreeMap<(Section, &'static str), toml::Value>,
}

impl Parts {
    /// Makes the configuration.
    ///
    /// # Errors
    /// Without a backend, and what no single setting shows to be impossible.
    pub(super) fn build(self) -> Result<EventBusConfig, ConfigError> {
        let (scheme, place) = self.backend.ok_or_else(|| ConfigError::Missing {
            name: "backend",
            expected: format!("a table with a type, one of {}", names().join(", ")),
        })?;
        let mut table = toml::Table::new();
        for ((section, name), value) in self.settings {
            let section = table.entry(section.as_str()).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            if let toml::Value::Table(section) = section {
                section.insert(name.to_owned(), value);
            }
        }
        let settings = match table.remove(Section::Backend.as_str()) {
            Some(toml::Value::Table(settings)) => settings,
            _ => toml::Table::new(),
        };
        assemble((scheme.build)(place, settings)?, table)
    }
}
