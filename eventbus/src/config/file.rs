//! Configuration from TOML.
//!
//! Every value is checked against the list of settings before the whole is read. So the error for a refused value says
//! what its setting takes, and repeats no text that may be secret.

use std::path::Path;

use toml::Value;

use super::ConfigError;
use super::knobs::{Given, Section, type_of};
use super::scheme::types;
use super::source::{Origin, Source, TYPE};

pub(super) fn text(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|source| ConfigError::File { path: path.to_owned(), source })
}

/// Reads a TOML document. It need not name a backend, since another source may.
pub(super) fn read(text: &str, origin: Origin) -> Result<Source, ConfigError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().and_then(|span| text.get(..span.start)).map(|before| before.matches('\n').count() + 1);
        ConfigError::Toml { line, message: error.message().to_owned() }
    })?;
    let mut source = Source { origin, ..Source::default() };
    for (name, settings) in table {
        let section = Section::named(&name)?;
        let is_backend = section == Section::Backend;
        let Value::Table(mut settings) = settings else {
            let with = if is_backend { format!(" with a type, {}", types()) } else { String::new() };
            return Err(ConfigError::value(section.as_str(), format!("a table{with}"), type_of(&settings)));
        };
        if is_backend {
            let missing = || ConfigError::Missing { name: "backend.type", expected: types() };
            source.set(section, TYPE, Given::Toml(settings.remove(TYPE).ok_or_else(missing)?))?;
        }
        for (name, value) in settings {
            source.set(section, &name, Given::Toml(value))?;
        }
    }
    Ok(source)
}
