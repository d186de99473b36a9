//! Bus URLs: `SCHEME://AUTHORITY[?PARAMETER=VALUE[&…]]`, and the registry of schemes.
//!
//! Read by hand rather than by a URL library: an authority may be a list of brokers, `a:9092,b:9092`, which is no URL
//! authority. Errors repeat nothing of the authority, where a password may be.

use percent_encoding::percent_decode_str;

use super::knobs::{find, unknown};
use super::{BackendConfig, ConfigError, EventBusConfig, file};

/// A scheme that URLs may have.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Scheme {
    /// Its name.
    pub name: &'static str,
    /// What has to be done to have its backend; none where this program has it.
    pub missing: Option<&'static str>,
    /// Reads what stands between `://` and the parameters.
    backend: fn(&str) -> Result<BackendConfig, ConfigError>,
}

const SCHEMES: &[Scheme] = &[
    Scheme { name: "memory", missing: None, backend: memory },
    Scheme { name: "nats", missing: Some(NOT_YET), backend: none },
    Scheme { name: "kafka", missing: Some(NOT_YET), backend: none },
];

const NOT_YET: &str = "its feature is not enabled, since this version comes without it";

/// All schemes that are known, whether this program has their backend or not.
#[must_use]
pub fn schemes() -> &'static [Scheme] {
    SCHEMES
}

pub(super) fn scheme(name: &str) -> Result<&'static Scheme, ConfigError> {
    let known = || SCHEMES.iter().map(|scheme| scheme.name).collect();
    let scheme = SCHEMES.iter().find(|scheme| scheme.name == name);
    let scheme = scheme.ok_or_else(|| ConfigError::UnknownScheme { scheme: shorten(name), known: known() })?;
    match scheme.missing {
        Some(why) => Err(ConfigError::NotBuilt { scheme: scheme.name, why }),
        None => Ok(scheme),
    }
}

pub(super) fn parse(url: &str) -> Result<EventBusConfig, ConfigError> {
    let Some((name, rest)) = url.split_once("://") else {
        let known: Vec<String> = SCHEMES.iter().map(|scheme| format!("{}://", scheme.name)).collect();
        return Err(problem(format!("expected it to begin with one of {}", known.join(" "))));
    };
    let scheme = scheme(name)?;
    if rest.contains('#') {
        return Err(problem("a fragment (#) has no meaning here"));
    }
    let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
    let backend = (scheme.backend)(authority)?;
    let mut table = toml::Table::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let knob = find("parameter", None, &decode("the name of a parameter", name)?)?;
        let value = knob.read(&decode("the value of a parameter", value)?)?;
        let section = table.entry(knob.section.as_str()).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        if let toml::Value::Table(section) = section
            && section.insert(knob.name.to_owned(), value).is_some()
        {
            return Err(ConfigError::Twice { name: knob.name });
        }
    }
    file::assemble(backend, table)
}

fn memory(authority: &str) -> Result<BackendConfig, ConfigError> {
    if authority.contains('@') {
        return Err(problem("memory:// takes a name, no user or password"));
    }
    let name = decode("the name", authority)?;
    memory_name((!name.is_empty()).then_some(name))
}

/// Checks the name of a log in memory.
pub(super) fn memory_name(name: Option<String>) -> Result<BackendConfig, ConfigError> {
    let odd = |c: &char| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '_' | '-');
    match &name {
        Some(name) if name.is_empty() || name.len() > 200 || name.chars().any(|c| odd(&c)) => {
            Err(problem("the name of a log in memory has 1 to 200 characters of A-Z a-z 0-9 . _ -"))
        }
        _ => Ok(BackendConfig::Memory { name }),
    }
}

/// Stands where a backend's parser will be.
fn none(_: &str) -> Result<BackendConfig, ConfigError> {
    Err(problem("its backend is not part of this program"))
}

fn decode(what: &str, text: &str) -> Result<String, ConfigError> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(Into::into).map_err(|_| problem(format!("{what} is no UTF-8 once its percent-encoding is undone")))
}

fn problem(problem: impl Into<String>) -> ConfigError {
    ConfigError::Url { problem: problem.into() }
}

/// A scheme for an error: what stands before `://` in a wrong URL can be anything, a password too.
fn shorten(name: &str) -> String {
    let plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    let shown: String = name.chars().take_while(plain).take(32).collect();
    if shown.len() == name.len() { shown } else { format!("{shown}…") }
}

/// The error for a table's key that is none of these.
pub(super) fn unknown_key(what: &'static str, name: &str, known: &[&'static str]) -> ConfigError {
    unknown(what, name, known.to_vec())
}
