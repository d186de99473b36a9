//! Registry of schemes: the part of a URL before `://`, which is also the `type` of `[backend]` in a file.

use super::ConfigError;
use super::knobs::Knob;

/// A scheme that URLs may have.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Scheme {
    /// The name.
    pub name: &'static str,
    /// The way to get its backend; `None` if this program has it.
    pub missing: Option<&'static str>,
    /// The type of its backend: the name of the backend's main scheme.
    pub(super) backend: &'static str,
    /// The setting of `[backend]` that holds what stands between `://` and the parameters.
    pub(super) place: &'static str,
    /// The settings that only its backend has, without the place.
    pub(super) knobs: &'static [Knob],
    /// Settings that are refused because they would break the contract, each with the reason.
    refused: &'static [(&'static str, &'static str)],
}

#[cfg(feature = "nats")]
const NATS: Scheme = Scheme::new("nats", super::nats::KNOBS, eventbus_nats::REFUSED);
#[cfg(not(feature = "nats"))]
const NATS: Scheme = Scheme { missing: Some("build it with the feature `nats`"), ..Scheme::new("nats", &[], &[]) };
#[cfg(feature = "kafka")]
const KAFKA: Scheme = Scheme::new("kafka", super::kafka::KNOBS, eventbus_kafka::REFUSED);
#[cfg(not(feature = "kafka"))]
const KAFKA: Scheme = Scheme { missing: Some("build it with the feature `kafka`"), ..Scheme::new("kafka", &[], &[]) };

const SCHEMES: &[Scheme] =
    &[Scheme { place: "name", ..Scheme::new("memory", &[], &[]) }, NATS, Scheme { name: "tls", ..NATS }, KAFKA];

/// Returns all known schemes, whether this program has their backend or not.
#[must_use]
pub fn schemes() -> &'static [Scheme] {
    SCHEMES
}

/// Returns the backends that this program has, each by its main scheme.
pub(super) fn backends() -> impl Iterator<Item = &'static Scheme> {
    SCHEMES.iter().filter(|scheme| scheme.missing.is_none() && scheme.name == scheme.backend)
}

/// Lists the names of all schemes, as the types of backends.
pub(super) fn types() -> String {
    let names: Vec<&str> = SCHEMES.iter().map(|scheme| scheme.name).collect();
    format!("one of {}", names.join(", "))
}

impl Scheme {
    const fn new(name: &'static str, knobs: &'static [Knob], refused: &'static [(&'static str, &'static str)]) -> Self {
        Self { name, missing: None, backend: name, place: "servers", knobs, refused }
    }

    /// Returns the scheme of this name, if this program has its backend.
    pub(super) fn named(name: &str) -> Result<&'static Self, ConfigError> {
        let known = || SCHEMES.iter().map(|scheme| scheme.name).collect();
        let scheme = SCHEMES.iter().find(|scheme| scheme.name == name);
        let scheme = scheme.ok_or_else(|| ConfigError::UnknownScheme { scheme: shorten(name), known: known() })?;
        match scheme.missing {
            Some(why) => Err(ConfigError::NotBuilt { scheme: scheme.name, why }),
            None => Ok(scheme),
        }
    }

    /// Returns what the text between `://` and the parameters means.
    pub(super) fn place_about(&self) -> &'static str {
        if self.needs_place() {
            "HOST[:PORT] of the broker, several with commas between them"
        } else {
            "one log per process and name; without a name a log of this bus's own"
        }
    }

    /// Returns whether the URL must name the place of the broker.
    pub(super) fn needs_place(&self) -> bool {
        self.place == "servers"
    }

    /// Turns the place into the form that the backend takes.
    pub(super) fn read_place(&self, given: Option<String>) -> Result<Option<String>, ConfigError> {
        if !self.needs_place() {
            return Ok(given);
        }
        let missing = || ConfigError::Missing { name: "servers", expected: "HOST[:PORT], several with commas".into() };
        let servers = given.filter(|servers| !servers.is_empty()).ok_or_else(missing)?;
        let encrypted =
            |host: &str| if host.contains("://") { host.to_owned() } else { format!("tls://{}", host.trim()) };
        match self.name {
            "tls" => Ok(Some(servers.split(',').map(encrypted).collect::<Vec<_>>().join(","))),
            _ => Ok(Some(servers)),
        }
    }

    /// Refuses a setting that would break the contract, with the reason. The backend's own settings pass, even under
    /// such a name.
    pub(super) fn refuse(&self, name: &str) -> Result<(), ConfigError> {
        if self.knobs.iter().any(|knob| knob.name == name) {
            return Ok(());
        }
        ConfigError::refuse(self.refused, name)
    }
}

/// Cuts a scheme for an error: the part before `://` of a wrong URL can be anything, even a password.
fn shorten(name: &str) -> String {
    let plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    let shown: String = name.chars().take_while(plain).take(32).collect();
    if shown.len() == name.len() { shown } else { format!("{shown}…") }
}
