//! Layers of configuration: a file, variables of the environment and a URL, laid over one another.
//!
//! **Invariants.** A later layer overrides an earlier one, setting by setting, and each value keeps its origin. A URL
//! names a backend, so it replaces the file's `[backend]` as a whole: the file's settings for one server, its
//! credentials among them, never go to another server.
//!
//! The layers are merged by hand rather than by a library. Each is checked against the one list of settings as it is
//! read, so that an error names the source and never repeats a secret. What remains is to merge maps.

use std::fmt;
use std::path::Path;

use super::knobs::{Given, Knob, Section};
use super::scheme::schemes;
use super::sections::knobs;
use super::source::{Origin, Source, TYPE};
use super::{ConfigError, EventBusConfig, file, url};

/// The beginning of every variable's name.
const PREFIX: &str = "EVENTBUS_";
const URL: &str = "EVENTBUS_URL";
/// The text shown in place of a secret.
const MASK: &str = "********";

/// Sources of a configuration. A later one overrides an earlier one: first the file, then variables, then the URL.
///
/// A variable is named after section and setting: `EVENTBUS_SUBSCRIBE__CONCURRENCY=64`. Variables without two
/// underscores are ignored, apart from `EVENTBUS_URL`, which is the URL if no other is given; one that would be a setting
/// with two is refused.
///
/// ```
/// use eventbus::config::{Layers, Origin};
///
/// let variables = [("EVENTBUS_URL", "memory://shop"), ("EVENTBUS_SUBSCRIBE__CONCURRENCY", "64")];
/// let in_force = Layers::new().variables(variables)?.build()?;
/// let concurrency = in_force.settings().find(|setting| setting.knob.name == "concurrency");
/// let concurrency = concurrency.ok_or("it is always listed")?;
/// assert_eq!(concurrency.value, "64");
/// assert_eq!(concurrency.origin, Origin::Variable("EVENTBUS_SUBSCRIBE__CONCURRENCY".into()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Default)]
#[must_use]
pub struct Layers {
    file: Option<Source>,
    /// The variables: section, setting, the variable's name, its value.
    variables: Vec<(Section, String, String, String)>,
    url: Option<Source>,
}

impl fmt::Debug for Layers {
    /// Shows no value, since some are secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layers").finish_non_exhaustive()
    }
}

impl Layers {
    /// Starts without any source.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a TOML file, which need not name a backend if another source does.
    ///
    /// # Errors
    /// [`ConfigError::File`] if it cannot be read; otherwise what is wrong in it, with the file's name.
    pub fn file(mut self, path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let source = file::read(&file::text(path)?, Origin::File(path.to_owned()));
        self.file = Some(source.map_err(|error| error.of(path.display()))?);
        Ok(self)
    }

    /// Adds the variables of this process's environment.
    ///
    /// # Errors
    /// As [`variables`](Self::variables); also for a value that is not UTF-8.
    pub fn environment(self) -> Result<Self, ConfigError> {
        let mut variables = Vec::new();
        for (name, value) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with(PREFIX) && (name == URL || name.contains("__") || one_short(&name).is_some()) {
                let no_text = |_| ConfigError::url("its value is no UTF-8").of(&name);
                let value = value.into_string().map_err(no_text)?;
                variables.push((name, value));
            }
        }
        self.variables(variables)
    }

    /// Adds variables as an environment holds them. Empty ones, and those of other programs, are ignored.
    ///
    /// # Errors
    /// A section that does not exist, or a setting behind one underscore, naming the variable; an `EVENTBUS_URL` that
    /// cannot be read.
    pub fn variables<N: AsRef<str>, V: Into<String>>(
        mut self,
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Result<Self, ConfigError> {
        for (name, value) in variables {
            let (name, value) = (name.as_ref(), value.into());
            let Some(rest) = name.strip_prefix(PREFIX).filter(|_| !value.is_empty()) else { continue };
            if name == URL {
                let source = url::read(&value, Origin::Variable(URL.into())).map_err(|error| error.of(URL))?;
                self.url = self.url.take().filter(|url| url.origin == Origin::Url).or(Some(source));
            } else if let Some((section, setting)) = rest.split_once("__") {
                let section = Section::named(&section.to_ascii_lowercase()).map_err(|error| error.of(name))?;
                self.variables.push((section, setting.to_ascii_lowercase(), name.to_owned(), value));
            } else if let Some((setting, meant)) = one_short(name) {
                let expected = format!("two underscores between section and setting, {meant}");
                return Err(ConfigError::value(setting, expected, "one").of(name));
            }
        }
        Ok(self)
    }

    /// Adds a URL, which overrides everything else.
    ///
    /// # Errors
    /// As [`EventBusConfig::from_url`].
    pub fn url(mut self, url: &str) -> Result<Self, ConfigError> {
        self.url = Some(url::read(url, Origin::Url)?);
        Ok(self)
    }

    /// Merges the sources into the configuration in force.
    ///
    /// # Errors
    /// No backend; a setting that the backend in force does not have; values that are impossible together.
    pub fn build(mut self) -> Result<InForce, ConfigError> {
        let mut laid = self.file.unwrap_or_default();
        if let Some(url) = &self.url {
            laid.settings.retain(|(section, _), _| *section != Section::Backend);
            laid.backend = url.backend.clone();
        }
        // The backend's type comes first: it decides which other settings exist.
        self.variables.sort_by_key(|(section, setting, ..)| (*section != Section::Backend, setting != TYPE));
        for (section, setting, variable, value) in self.variables {
            laid.origin = Origin::Variable(variable.clone());
            laid.set(section, &setting, Given::Text(value)).map_err(|error| error.of(variable))?;
        }
        if let Some(url) = self.url {
            laid.backend = url.backend;
            laid.settings.extend(url.settings);
        }
        let config = EventBusConfig::of(laid.clone())?;
        let (own, origin) =
            laid.backend.map_or((&[][..], Origin::Default), |(scheme, _, origin)| (scheme.knobs, origin));
        let settings = own.iter().chain(knobs()).map(|knob| Setting::of(knob, laid.settings.remove(&knob.key())));
        Ok(InForce { backend: (config.backend.to_string(), origin), settings: settings.collect(), config })
    }
}

/// Finds the setting whose variable has this name but for an underscore. Returns it with the right name.
fn one_short(name: &str) -> Option<(&'static str, String)> {
    let rest = name.strip_prefix(PREFIX)?.to_ascii_lowercase();
    let mut all = schemes().iter().flat_map(|scheme| scheme.knobs).chain(knobs());
    let meant = all.find(|knob| format!("{}_{}", knob.section.as_str(), knob.name) == rest)?;
    let right = format!("{}__{}", meant.section.as_str(), meant.name).to_ascii_uppercase();
    Some((meant.name, format!("{PREFIX}{right}")))
}

/// Setting in force: its value, and where that came from.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Setting {
    /// The setting.
    pub knob: &'static Knob,
    /// The value; where no source gives one, the default in words. A secret is masked.
    pub value: String,
    /// Whether a source gave the value.
    pub is_set: bool,
    /// The source of the value.
    pub origin: Origin,
}

impl Setting {
    fn of(knob: &'static Knob, given: Option<(toml::Value, Origin)>) -> Self {
        let Some((value, origin)) = given else {
            return Self { knob, value: knob.default_text().to_owned(), is_set: false, origin: Origin::Default };
        };
        let value = match value {
            _ if knob.is_secret() => MASK.to_owned(),
            toml::Value::String(text) => text,
            other => other.to_string(),
        };
        Self { knob, value, is_set: true, origin }
    }
}

/// Configuration in force, with the origin of each value.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct InForce {
    /// The configuration.
    pub config: EventBusConfig,
    /// The backend's URL, without parameters and secrets, and the last source that named it.
    pub backend: (String, Origin),
    settings: Vec<Setting>,
}

impl InForce {
    /// Returns every setting that exists, those of the backend first.
    pub fn settings(&self) -> impl Iterator<Item = &Setting> {
        self.settings.iter()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn setting<'a>(in_force: &'a InForce, name: &str) -> &'a Setting {
        in_force.settings().find(|setting| setting.knob.name == name).unwrap()
    }

    const TOML: &str =
        "[backend]\ntype = \"memory\"\nname = \"a\"\n[subscribe]\nconcurrency = 1\nattempts = 2\nwindow = 3000\n";

    #[test]
    fn a_later_layer_goes_before_an_earlier_one_setting_by_setting() {
        let file = file(TOML);
        let variables = [("EVENTBUS_SUBSCRIBE__CONCURRENCY", "10"), ("EVENTBUS_SUBSCRIBE__ATTEMPTS", "20")];
        let layers = Layers::new().file(file.path()).unwrap().variables(variables).unwrap();
        let in_force = layers.url("memory://b?attempts=200").unwrap().build().unwrap();
        let expected = EventBusConfig::from_url("memory://b?attempts=200&concurrency=10&window=3000").unwrap();
        assert_eq!(in_force.config, expected);
        let origin = |name| setting(&in_force, name).origin.clone();
        assert_eq!(origin("attempts"), Origin::Url);
        assert_eq!(origin("concurrency"), Origin::Variable("EVENTBUS_SUBSCRIBE__CONCURRENCY".into()));
        assert_eq!(origin("window"), Origin::File(file.path().to_owned()));
        assert_eq!(origin("partitions"), Origin::Default);
        assert_eq!(setting(&in_force, "partitions").value, "16");
        assert_eq!(in_force.backend, ("memory://b".to_owned(), Origin::Url));
    }

    #[test]
    fn a_file_alone_and_variables_alone_are_enough() {
        let toml = file(TOML);
        let in_force = Layers::new().file(toml.path()).unwrap().build().unwrap();
        assert_eq!(in_force.config, EventBusConfig::from_toml(TOML).unwrap());
        let variables =
            [("EVENTBUS_URL", "memory://x"), ("OTHER__THING", "1"), ("EVENTBUS_SEED", "1"), ("EVENTBUS_A__B", "")];
        let in_force = Layers::new().variables(variables).unwrap().build().unwrap();
        assert_eq!(in_force.config, EventBusConfig::from_url("memory://x").unwrap());
        let variables = [("EVENTBUS_BACKEND__NAME", "y"), ("EVENTBUS_BACKEND__TYPE", "memory")];
        let in_force = Layers::new().variables(variables).unwrap().build().unwrap();
        assert_eq!(in_force.config, EventBusConfig::from_url("memory://y").unwrap());
        assert!(Layers::new().build().unwrap_err().to_string().contains("backend is missing"));
        let file = file("[topic]\npartitions = 2\n");
        let layers = Layers::new().file(file.path()).unwrap();
        assert_eq!(
            layers.url("memory://").unwrap().build().unwrap().config,
            EventBusConfig::from_url("memory://?partitions=2").unwrap()
        );
    }

    #[test]
    fn what_is_wrong_is_told_with_its_source() {
        let of = |name: &str, value: &str| {
            let layers = Layers::new().url("memory://").unwrap().variables([(name, value)]);
            layers.and_then(Layers::build).unwrap_err().to_string()
        };
        let error = of("EVENTBUS_SUBSCRIBE__CONCURENCY", "1");
        assert!(error.contains("EVENTBUS_SUBSCRIBE__CONCURENCY: unknown setting"), "{error}");
        assert!(error.contains("did you mean \"concurrency\"?"), "{error}");
        let error = of("EVENTBUS_SUBSCRIBE_ATTEMPTS", "9");
        assert!(error.contains("EVENTBUS_SUBSCRIBE_ATTEMPTS: ") && error.contains("SUBSCRIBE__ATTEMPTS"), "{error}");
        let error = of("EVENTBUS_SUBSCRIBER__CONCURRENCY", "1");
        assert!(error.contains("did you mean \"subscribe\"?"), "{error}");
        let error = of("EVENTBUS_TOPIC__PARTITIONS", "many");
        assert!(error.contains("EVENTBUS_TOPIC__PARTITIONS: partitions: expected a whole number"), "{error}");
        let error = of("EVENTBUS_BACKEND__PASSWORD", "hunter2");
        assert!(error.contains("EVENTBUS_BACKEND__PASSWORD") && !error.contains("hunter2"), "{error}");
        let toml = file("[subscribe]\nconcurrency = 0\n");
        let error = Layers::new().file(toml.path()).unwrap_err().to_string();
        assert!(error.starts_with(&toml.path().display().to_string()), "{error}");
    }

    #[cfg(feature = "nats")]
    #[test]
    fn secrets_are_masked_and_go_to_no_other_server() {
        let toml =
            file("[backend]\ntype = \"nats\"\nservers = \"u:hunter2@a\"\npassword = \"hunter2\"\nuser = \"u\"\n");
        let in_force = Layers::new().file(toml.path()).unwrap().build().unwrap();
        let shown = format!("{in_force:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
        assert_eq!(setting(&in_force, "password").value, MASK);
        // A URL names another server: the file's settings for its own server are dropped, those of variables stay.
        let layers = Layers::new().file(toml.path()).unwrap().url("nats://b").unwrap();
        let in_force = layers.variables([("EVENTBUS_BACKEND__PREFIX", "p")]).unwrap().build().unwrap();
        assert_eq!(in_force.config, EventBusConfig::from_url("nats://b?prefix=p").unwrap());
    }

    #[cfg(feature = "nats")]
    #[test]
    fn layers_are_printed_without_their_values() {
        let variables = [("EVENTBUS_URL", "nats://u:hunter2@a"), ("EVENTBUS_BACKEND__TOKEN", "hunter2")];
        let shown = format!("{:?}", Layers::new().variables(variables).unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn every_setting_has_a_default_in_words() {
        for knob in knobs() {
            assert!(!knob.default_text().is_empty() && !knob.about().is_empty(), "{}", knob.name);
        }
    }
}
