//! Bus URLs: `SCHEME://AUTHORITY[?PARAMETER=VALUE[&…]]`, and the registry of schemes.
//!
//! Read by hand rather than by a URL library: an authority may be a list of brokers, `a:9092,b:9092`, which is no URL
//! authority. Errors repeat nothing of the authority, where a password may be.

use percent_encoding::percent_decode_str;

use super::knobs::{Knob, find, unknown};
use super::parts::Parts;
use super::{BackendConfig, ConfigError};

/// A scheme that URLs may have.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Scheme {
    /// Its name.
    pub name: &'static str,
    /// What has to be done to have its backend; none where this program has it.
    pub missing: Option<&'static str>,
    /// The setting of `[backend]` that holds what stands between `://` and the parameters.
    pub(super) place: &'static str,
    /// What else may be set of its backend alone.
    pub(super) knobs: &'static [Knob],
    /// Reads what stands between `://` and the parameters.
    authority: fn(&str) -> Result<Option<String>, ConfigError>,
    /// Why a setting has no place here, if it is one that would break the contract.
    refused: fn(&str) -> Option<ConfigError>,
    /// Makes the configuration of the place and of settings that were checked.
    pub(super) build: fn(Option<String>, toml::Table) -> Result<BackendConfig, ConfigError>,
}

impl Scheme {
    /// What stands in its URLs between `://` and the parameters.
    pub(super) fn place_about(&self) -> &'static str {
        if self.needs_place() {
            "HOST[:PORT] of the broker, several with commas between them"
        } else {
            "one log per process and name; without a name a log of this bus's own"
        }
    }

    /// Whether it must be told where the broker is.
    pub(super) fn needs_place(&self) -> bool {
        self.place == "servers"
    }

    /// Whether the two have the same settings.
    pub(super) fn has_knobs_of(&self, other: &Self) -> bool {
        self.knobs == other.knobs
    }

    #[cfg(not(all(feature = "nats", feature = "kafka")))]
    const fn missing(name: &'static str, why: &'static str) -> Self {
        let authority = |_: &str| Err(problem("its backend is not part of this program"));
        let build = |_, _| Err(problem("its backend is not part of this program"));
        Self { name, missing: Some(why), place: "servers", knobs: &[], authority, refused: |_| None, build }
    }

    #[cfg(any(feature = "nats", feature = "kafka"))]
    const fn brokers(
        name: &'static str,
        knobs: &'static [Knob],
        refused: fn(&str) -> Option<ConfigError>,
        build: fn(Option<String>, toml::Table) -> Result<BackendConfig, ConfigError>,
    ) -> Self {
        let authority = |hosts: &str| Ok(Some(hosts.to_owned()));
        Self { name, missing: None, place: "servers", knobs, authority, refused, build }
    }
}

const SCHEMES: &[Scheme] = &[
    Scheme {
        name: "memory",
        missing: None,
        place: "name",
        knobs: &[],
        authority: memory_authority,
        refused: |_| None,
        build: |name, _| memory(name),
    },
    #[cfg(feature = "nats")]
    Scheme::brokers("nats", super::nats::KNOBS, super::nats::refused, nats),
    #[cfg(feature = "nats")]
    Scheme::brokers("tls", super::nats::KNOBS, super::nats::refused, tls),
    #[cfg(not(feature = "nats"))]
    Scheme::missing("nats", "build it with the feature `nats`"),
    #[cfg(not(feature = "nats"))]
    Scheme::missing("tls", "build it with the feature `nats`"),
    #[cfg(feature = "kafka")]
    Scheme::brokers("kafka", super::kafka::KNOBS, super::kafka::refused, kafka),
    #[cfg(not(feature = "kafka"))]
    Scheme::missing("kafka", "build it with the feature `kafka`"),
];

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

/// What a URL says.
pub(super) fn read(url: &str) -> Result<Parts, ConfigError> {
    let Some((name, rest)) = url.split_once("://") else {
        let known: Vec<String> = SCHEMES.iter().map(|scheme| format!("{}://", scheme.name)).collect();
        return Err(problem(format!("expected it to begin with one of {}", known.join(" "))));
    };
    let scheme = scheme(name)?;
    if rest.contains('#') {
        return Err(problem("a fragment (#) has no meaning here"));
    }
    let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
    let place = (scheme.authority)(authority)?;
    let mut parts = Parts { backend: Some((scheme, place)), ..Parts::default() };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decode("the name of a parameter", name)?;
        unsafe_setting(scheme, &name)?;
        let knob = find("parameter", None, scheme.knobs, &name)?;
        let value = knob.read(&decode("the value of a parameter", value)?)?;
        if parts.settings.insert((knob.section, knob.name), value).is_some() {
            return Err(ConfigError::Twice { name: knob.name });
        }
    }
    Ok(parts)
}

/// Refuses what would break the contract, with the reason. A setting of the backend's own may have such a name, too.
pub(super) fn unsafe_setting(scheme: &Scheme, name: &str) -> Result<(), ConfigError> {
    if scheme.knobs.iter().any(|knob| knob.name == name) {
        return Ok(());
    }
    (scheme.refused)(name).map_or(Ok(()), Err)
}

#[cfg(feature = "nats")]
fn tls(servers: Option<String>, settings: toml::Table) -> Result<BackendConfig, ConfigError> {
    let encrypted = |host: &str| if host.contains("://") { host.to_owned() } else { format!("tls://{}", host.trim()) };
    let all = |hosts: String| hosts.split(',').map(encrypted).collect::<Vec<_>>().join(",");
    nats(servers.filter(|servers| !servers.is_empty()).map(all), settings)
}

#[cfg(feature = "nats")]
fn nats(servers: Option<String>, settings: toml::Table) -> Result<BackendConfig, ConfigError> {
    let section: super::NatsSection = on_servers(servers, settings)?;
    section.check()?;
    Ok(BackendConfig::Nats(Box::new(section)))
}

#[cfg(feature = "kafka")]
fn kafka(servers: Option<String>, settings: toml::Table) -> Result<BackendConfig, ConfigError> {
    let section: super::KafkaSection = on_servers(servers, settings)?;
    section.check()?;
    Ok(BackendConfig::Kafka(Box::new(section)))
}

/// The section of a backend that is somewhere.
#[cfg(any(feature = "nats", feature = "kafka"))]
fn on_servers<S: serde::de::DeserializeOwned>(
    servers: Option<String>,
    mut settings: toml::Table,
) -> Result<S, ConfigError> {
    let servers = servers.filter(|servers| !servers.is_empty());
    let missing = || ConfigError::Missing { name: "servers", expected: "HOST[:PORT], several with commas".into() };
    settings.insert("servers".into(), toml::Value::String(servers.ok_or_else(missing)?));
    // Every setting was checked; the message of an error could repeat what is secret.
    settings.try_into().map_err(|_| problem("settings that cannot be read"))
}

fn memory_authority(authority: &str) -> Result<Option<String>, ConfigError> {
    if authority.contains('@') {
        return Err(problem("memory:// takes a name, no user or password"));
    }
    let name = decode("the name", authority)?;
    Ok((!name.is_empty()).then_some(name))
}

/// Checks the name of a log in memory.
fn memory(name: Option<String>) -> Result<BackendConfig, ConfigError> {
    let odd = |c: &char| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '_' | '-');
    match &name {
        Some(name) if name.is_empty() || name.len() > 200 || name.chars().any(|c| odd(&c)) => {
            Err(problem("the name of a log in memory has 1 to 200 characters of A-Z a-z 0-9 . _ -"))
        }
        _ => Ok(BackendConfig::Memory { name }),
    }
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
