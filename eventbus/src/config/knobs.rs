//! Settings as a table: the name of each, the section it is in, and what it takes, does and is by default.
//!
//! Sections declare their settings with [`section!`](super::declare::section). URLs, TOML, variables, errors, the schema and
//! the reference go by the table that comes of it.

use std::fmt;

use super::ConfigError;

/// The table of a setting in TOML. In a URL all settings are parameters, so their names are unique across sections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Section {
    /// `[backend]`: which broker, and how it is reached. Each backend has settings of its own.
    Backend,
    /// `[publish]`: the publishing side of the bus.
    Publish,
    /// `[subscribe]`: what a subscription has that does not say otherwise.
    Subscribe,
    /// `[topic]`: what a topic is asked to be that does not say otherwise.
    Topic,
}

impl Section {
    /// All but the backend's: their settings are the same whatever the backend.
    pub(super) const COMMON: [Self; 3] = [Self::Publish, Self::Subscribe, Self::Topic];
    const ALL: [Self; 4] = [Self::Backend, Self::Publish, Self::Subscribe, Self::Topic];

    /// Its name in TOML.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Backend => "backend",
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
            Self::Topic => "topic",
        }
    }

    /// Its purpose.
    #[must_use]
    pub const fn about(self) -> &'static str {
        match self {
            Self::Backend => "Which broker, and how it is reached.",
            Self::Publish => "The publishing side of the bus.",
            Self::Subscribe => "What a subscription has that does not say otherwise.",
            Self::Topic => "What a topic is asked to be that does not say otherwise.",
        }
    }

    /// The section of this name.
    pub(super) fn named(name: &str) -> Result<Self, ConfigError> {
        let known = || ConfigError::unknown("section", name, Self::ALL.map(Self::as_str).to_vec());
        Self::ALL.into_iter().find(|section| section.as_str() == name).ok_or_else(known)
    }
}

/// The kind of value that a setting takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum KnobKind {
    /// A whole number in this range, both ends included.
    Number {
        /// The least.
        least: u64,
        /// The most.
        most: u64,
    },
    /// `true` or `false`.
    Flag,
    /// One of these words.
    Word(&'static [&'static str]),
    /// Any text.
    Text,
}

/// The most that TOML, and a usize of 64 bits, can say.
const ANY: u64 = i64::MAX as u64;

/// At least so many.
pub(super) const fn at_least(least: u64) -> KnobKind {
    KnobKind::Number { least, most: ANY }
}

/// A whole number in this range, both ends included.
pub(super) const fn number(least: u64, most: u64) -> KnobKind {
    KnobKind::Number { least, most }
}

impl fmt::Display for KnobKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number { least, most: ANY } => write!(f, "a whole number of at least {least}"),
            Self::Number { least, most } => write!(f, "a whole number of {least} to {most}"),
            Self::Flag => f.write_str("true or false"),
            Self::Word(words) => write!(f, "one of {}", words.join(", ")),
            Self::Text => f.write_str("text"),
        }
    }
}

/// A setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Knob {
    /// Its name, in TOML and as a parameter.
    pub name: &'static str,
    /// The table it is in.
    pub section: Section,
    /// The values that it takes.
    pub kind: KnobKind,
    /// Its effect, its unit and its default.
    pub help: &'static str,
}

/// The key of a setting: its section and its name.
pub(super) type Key = (Section, &'static str);

/// Parts of names: a setting that has one in its name holds a secret.
const SECRET: [&str; 5] = ["password", "token", "nkey", "secret", "properties"];

impl Knob {
    /// Whether its value is secret: it is not to be shown.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        matches!(self.kind, KnobKind::Text) && SECRET.iter().any(|part| self.name.contains(part))
    }

    /// The help without the default.
    #[must_use]
    pub fn about(&self) -> &'static str {
        self.help.rsplit_once("; ").map_or(self.help, |(about, _)| about)
    }

    /// The default in words, which holds where nothing is said.
    #[must_use]
    pub fn default_text(&self) -> &'static str {
        self.help.rsplit_once("; ").map_or("", |(_, default)| default)
    }

    pub(super) fn key(&self) -> Key {
        (self.section, self.name)
    }

    /// Reads a value. One of another type, or out of range, is refused.
    pub(super) fn read(&self, given: Given) -> Result<toml::Value, ConfigError> {
        let refuse = |got: String| ConfigError::value(self.name, self.kind, got);
        let value = match (given, self.kind) {
            (Given::Toml(value), _) => value,
            (Given::Text(text), KnobKind::Word(_) | KnobKind::Text) => toml::Value::String(text),
            (Given::Text(text), KnobKind::Flag) => {
                text.parse().map(toml::Value::Boolean).map_err(|_| refuse(format!("{text:?}")))?
            }
            (Given::Text(text), KnobKind::Number { .. }) => {
                text.parse().map(toml::Value::Integer).map_err(|_| refuse(format!("{text:?}")))?
            }
        };
        match (self.kind, &value) {
            (KnobKind::Number { least, most }, toml::Value::Integer(number))
                if u64::try_from(*number).is_ok_and(|number| (least..=most).contains(&number)) =>
            {
                Ok(value)
            }
            (KnobKind::Word(words), toml::Value::String(text)) if words.contains(&text.as_str()) => Ok(value),
            (KnobKind::Flag, toml::Value::Boolean(_)) | (KnobKind::Text, toml::Value::String(_)) => Ok(value),
            // It may be secret.
            (KnobKind::Text, _) => Err(refuse(type_of(&value))),
            _ => Err(refuse(value.to_string())),
        }
    }
}

/// A value that was given for a setting.
pub(super) enum Given {
    /// As a parameter of a URL and a variable have it.
    Text(String),
    /// As a file has it.
    Toml(toml::Value),
}

impl Given {
    /// The value of a setting that is text.
    pub(super) fn into_text(self, name: &'static str) -> Result<String, ConfigError> {
        match self {
            Self::Text(text) | Self::Toml(toml::Value::String(text)) => Ok(text),
            Self::Toml(other) => Err(ConfigError::value(name, "text", type_of(&other))),
        }
    }
}

/// The type of a value, told without the value.
pub(super) fn type_of(value: &toml::Value) -> String {
    format!("a value of type {}", value.type_str())
}
