//! Source of configuration, or several laid over one another: settings checked one by one, before anything is made of
//! them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::ConfigError;
use super::knobs::{Given, Key, Knob, Section};
use super::scheme::Scheme;
use super::sections::{knobs, knobs_of};

/// The name of the setting that chooses the backend.
pub(super) const TYPE: &str = "type";

/// Origin of a value.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Origin {
    /// The library's default: no source gave a value.
    #[default]
    Default,
    /// A file.
    File(PathBuf),
    /// A variable of the environment.
    Variable(String),
    /// A URL that was given to the program, not by a variable.
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

/// Settings of a source. They must not be printed, since some are secret.
#[derive(Clone, Default)]
pub(super) struct Source {
    /// The origin of the settings that are set next.
    pub(super) origin: Origin,
    /// The backend's scheme, its place, and the last source that named it.
    pub(super) backend: Option<(&'static Scheme, Option<String>, Origin)>,
    /// All other given settings: the checked value of each, and its origin.
    pub(super) settings: BTreeMap<Key, (toml::Value, Origin)>,
}

impl Source {
    /// Takes a setting of a section. The backend's type must come before its other settings, since it decides which
    /// ones exist.
    pub(super) fn set(&mut self, section: Section, name: &str, given: Given) -> Result<(), ConfigError> {
        let knob = match (section, &mut self.backend) {
            (Section::Backend, backend) if name == TYPE => {
                let scheme = Scheme::named(&given.into_text("backend.type")?)?;
                let place = backend.take().and_then(|(_, place, _)| place);
                *backend = Some((scheme, place, self.origin.clone()));
                return Ok(());
            }
            (Section::Backend, Some((scheme, place, origin))) if name == scheme.place => {
                (*place, *origin) = (Some(given.into_text(scheme.place)?), self.origin.clone());
                return Ok(());
            }
            (Section::Backend, Some((scheme, ..))) => {
                scheme.refuse(name)?;
                find("setting of [backend]", name, &[TYPE, scheme.place], scheme.knobs.iter())?
            }
            // Without a backend nothing can be built: the missing backend is reported instead.
            (Section::Backend, None) => return Ok(()),
            _ => find("setting", name, &[], knobs_of(section))?,
        };
        self.insert(knob, given).map(|_| ())
    }

    /// Takes a parameter of a URL. A parameter does not name its section.
    pub(super) fn set_parameter(&mut self, scheme: &Scheme, name: &str, text: String) -> Result<(), ConfigError> {
        scheme.refuse(name)?;
        let knob = find("parameter", name, &[], scheme.knobs.iter().chain(knobs()))?;
        let is_first = self.insert(knob, Given::Text(text))?;
        if is_first { Ok(()) } else { Err(ConfigError::Twice { name: knob.name }) }
    }

    /// Stores a value. Returns whether the setting had none before.
    fn insert(&mut self, knob: &Knob, given: Given) -> Result<bool, ConfigError> {
        Ok(self.settings.insert(knob.key(), (knob.read(given)?, self.origin.clone())).is_none())
    }
}

/// Finds the setting of this name. The error lists all known names, and the most similar one.
fn find(
    what: &'static str,
    name: &str,
    others: &[&'static str],
    knobs: impl Iterator<Item = &'static Knob> + Clone,
) -> Result<&'static Knob, ConfigError> {
    let known = || others.iter().copied().chain(knobs.clone().map(|knob| knob.name)).collect();
    knobs.clone().find(|knob| knob.name == name).ok_or_else(|| ConfigError::unknown(what, name, known()))
}
