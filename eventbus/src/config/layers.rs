//! Several sources laid over one another: a file, variables of the environment, a URL.
//!
//! **Invariants.** What is said in a later layer goes before what an earlier one says, setting by setting, and each value is
//! known by where it came from. A URL names a backend, so it replaces the file's `[backend]` as a whole: what a file says of
//! one server, its credentials among it, never goes to another one.
//!
//! Laid by hand rather than by a library: every layer is checked against the one list of settings as it is read, so that an
//! error names the source and never repeats a secret; what is left is a map.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::file::backend_setting;
use super::knobs::{Knob, find, knobs};
use super::parts::Parts;
use super::url::{Scheme, scheme};
use super::{ConfigError, EventBusConfig, Section, file, url};

/// What every variable's name begins with.
const PREFIX: &str = "EVENTBUS_";
const URL: &str = "EVENTBUS_URL";
const SECTIONS: [Section; 4] = [Section::Backend, Section::Publish, Section::Subscribe, Section::Topic];
/// What is shown of a secret.
const MASK: &str = "********";

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// Nobody said it: it is the library's default.
    Default,
    /// A file.
    File(PathBuf),
    /// A variable of the environment.
    Variable(String),
    /// A URL that was given to the program.
    Url,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => path.display().fmt(f),
            Self::Variable(name) => f.write_str(name),
            Self::Url => f.write_str("URL"),
        }
    }
}

/// The sources of a configuration. A later one goes before an earlier one: the file, then variables, then the URL.
///
/// A variable is named by section and setting, `EVENTBUS_SUBSCRIBE__CONCURRENCY=64`; those without two underlines are not
/// looked at, apart from `EVENTBUS_URL`, which is the URL where no other is given.
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
#[derive(Debug, Default)]
#[must_use]
pub struct Layers {
    file: Option<(PathBuf, Parts)>,
    /// By section and setting, whose variable it is and what it says.
    variables: Vec<(Section, String, String, String)>,
    /// The URL of the environment.
    variable_url: Option<Parts>,
    url: Option<Parts>,
}

impl Layers {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A TOML file. It need not name a backend, if another source does.
    ///
    /// # Errors
    /// [`ConfigError::File`] where it cannot be read, and what is wrong in it, naming the file.
    pub fn file(mut self, path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let unreadable = |source| ConfigError::File { path: path.to_owned(), source };
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        let parts = file::read(&text).map_err(|error| error.of(path.display()))?;
        self.file = Some((path.to_owned(), parts));
        Ok(self)
    }

    /// The variables of this process's environment.
    ///
    /// # Errors
    /// As [`variables`](Self::variables); also one that is no UTF-8.
    pub fn environment(self) -> Result<Self, ConfigError> {
        let mut variables = Vec::new();
        for (name, value) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with(PREFIX) && (name == URL || name.contains("__")) {
                let no_text = |_| ConfigError::Url { problem: "its value is no UTF-8".into() }.of(&name);
                let value = value.into_string().map_err(no_text)?;
                variables.push((name, value));
            }
        }
        self.variables(variables)
    }

    /// Variables as they stand in an environment. Those that are not ours, and empty ones, are passed over.
    ///
    /// # Errors
    /// A section that does not exist, naming the variable; `EVENTBUS_URL` that cannot be read.
    pub fn variables<N: AsRef<str>, V: Into<String>>(
        mut self,
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Result<Self, ConfigError> {
        for (name, value) in variables {
            let (name, value) = (name.as_ref(), value.into());
            let Some(rest) = name.strip_prefix(PREFIX).filter(|_| !value.is_empty()) else { continue };
            if name == URL {
                self.variable_url = Some(url::read(&value).map_err(|error| error.of(URL))?);
            } else if let Some((section, setting)) = rest.split_once("__") {
                let known = SECTIONS.into_iter().find(|known| known.as_str().eq_ignore_ascii_case(section));
                let names = SECTIONS.map(Section::as_str);
                let unknown = || url::unknown_key("section", &section.to_ascii_lowercase(), &names).of(name);
                let section = known.ok_or_else(unknown)?;
                self.variables.push((section, setting.to_ascii_lowercase(), name.to_owned(), value));
            }
        }
        Ok(self)
    }

    /// A URL; it goes before all else.
    ///
    /// # Errors
    /// As [`EventBusConfig::from_url`].
    pub fn url(mut self, url: &str) -> Result<Self, ConfigError> {
        self.url = Some(url::read(url)?);
        Ok(self)
    }

    /// Lays them over one another.
    ///
    /// # Errors
    /// No backend, a setting that the backend in force does not have, and what is impossible together.
    pub fn build(self) -> Result<InForce, ConfigError> {
        let url = match (self.url, self.variable_url) {
            (Some(url), _) => Some((Origin::Url, url)),
            (None, Some(url)) => Some((Origin::Variable(URL.into()), url)),
            (None, None) => None,
        };
        let mut laid = Laid::default();
        if let Some((path, mut parts)) = self.file {
            if url.is_some() {
                parts.backend = None;
                parts.settings.retain(|(section, _), _| *section != Section::Backend);
            }
            laid.lay(parts, &Origin::File(path));
        }
        if let Some((origin, parts)) = &url {
            laid.name_backend(parts.backend.clone(), origin);
        }
        laid.lay_variables(self.variables)?;
        if let Some((origin, parts)) = url {
            laid.lay(parts, &origin);
        }
        laid.build()
    }
}

/// The layers so far.
#[derive(Debug, Default)]
struct Laid {
    parts: Parts,
    origins: BTreeMap<(Section, &'static str), Origin>,
    /// Who named the backend, or where it is.
    backend: Option<Origin>,
}

impl Laid {
    fn name_backend(&mut self, backend: Option<(&'static Scheme, Option<String>)>, origin: &Origin) {
        if let Some((scheme, place)) = backend {
            self.backend = Some(origin.clone());
            self.parts.backend = Some((scheme, place));
        }
    }

    fn lay(&mut self, parts: Parts, origin: &Origin) {
        self.name_backend(parts.backend, origin);
        for (setting, value) in parts.settings {
            self.parts.settings.insert(setting, value);
            self.origins.insert(setting, origin.clone());
        }
    }

    /// The backend's type first: it decides which other settings there are.
    fn lay_variables(&mut self, mut variables: Vec<(Section, String, String, String)>) -> Result<(), ConfigError> {
        variables.sort_by_key(|(section, setting, ..)| (*section != Section::Backend, setting != "type"));
        for (section, setting, variable, value) in variables {
            let named = |error: ConfigError| error.of(&variable);
            let origin = Origin::Variable(variable.clone());
            if section == Section::Backend && setting == "type" {
                let scheme = scheme(&value).map_err(named)?;
                let place = self.parts.backend.take().and_then(|(_, place)| place);
                self.parts.backend = Some((scheme, place));
                self.backend = Some(origin);
                continue;
            }
            let knob = match (&mut self.parts.backend, section) {
                (Some((scheme, place)), Section::Backend) if setting == scheme.place => {
                    *place = Some(value);
                    self.backend = Some(origin);
                    continue;
                }
                (Some((scheme, _)), Section::Backend) => backend_setting(scheme, &setting).map_err(named)?,
                // Without a backend there is nothing to build, and that is what is told.
                (None, Section::Backend) => continue,
                _ => find("setting", Some(section), &[], &setting).map_err(named)?,
            };
            let value = knob.read(&value).map_err(named)?;
            self.parts.settings.insert((section, knob.name), value);
            self.origins.insert((section, knob.name), origin);
        }
        Ok(())
    }

    fn build(self) -> Result<InForce, ConfigError> {
        let values = self.parts.settings.clone();
        let scheme = self.parts.backend.as_ref().map(|(scheme, _)| *scheme);
        let config = self.parts.build()?;
        let own = scheme.map_or(&[][..], |scheme| scheme.knobs);
        let setting = |knob: &'static Knob| {
            let at = (knob.section, knob.name);
            let value = values.get(&at).map(shown);
            let is_set = value.is_some();
            let value = value.map(|value| if knob.is_secret() { MASK.to_owned() } else { value });
            let value = value.unwrap_or_else(|| knob.default_text().to_owned());
            Setting { knob, value, is_set, origin: self.origins.get(&at).cloned().unwrap_or(Origin::Default) }
        };
        let settings = own.iter().chain(knobs()).map(setting).collect();
        let backend = (config.backend.to_string(), self.backend.unwrap_or(Origin::Default));
        Ok(InForce { config, backend, settings })
    }
}

fn shown(value: &toml::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A setting as it is in force.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Setting {
    /// Which.
    pub knob: &'static Knob,
    /// Its value; the default in words where nobody said one, and a mask in place of a secret.
    pub value: String,
    /// Whether somebody said it.
    pub is_set: bool,
    /// Who.
    pub origin: Origin,
}

/// What is in force, and where each value came from.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct InForce {
    /// The configuration.
    pub config: EventBusConfig,
    /// The backend's URL, without parameters and without anything that is secret, and who said so last.
    pub backend: (String, Origin),
    settings: Vec<Setting>,
}

impl InForce {
    /// Every setting that there is, those of the backend first.
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
        // A URL names another server: what the file says of its own stays behind, what a variable says does not.
        let layers = Layers::new().file(toml.path()).unwrap().url("nats://b").unwrap();
        let in_force = layers.variables([("EVENTBUS_BACKEND__PREFIX", "p")]).unwrap().build().unwrap();
        assert_eq!(in_force.config, EventBusConfig::from_url("nats://b?prefix=p").unwrap());
    }

    #[test]
    fn every_setting_has_a_default_in_words() {
        for knob in knobs() {
            assert!(!knob.default_text().is_empty() && !knob.about().is_empty(), "{}", knob.name);
        }
    }
}
