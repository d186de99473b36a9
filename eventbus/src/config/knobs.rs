//! Settings as a table: each one's name, section, values, effect and default.
//!
//! Sections declare their settings with [`section!`](super::declare::section), which makes their part of the table.
//! URLs, TOML, variables, errors, the schema and the reference all use it.

use std::fmt;

use super::ConfigError;

/// Section of the configuration: a table in TOML. In a URL all settings are parameters, so their names are unique
/// across sections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Section {
    /// `[backend]`: which broker, and how it is reached. Each backend has settings of its own.
    Backend,
    /// `[publish]`: the publishing side of the bus.
    Publish,
    /// `[subscribe]`: defaults for the options that a subscription does not set.
    Subscribe,
    /// `[topic]`: defaults for what a topic's spec does not set.
    Topic,
}

impl Section {
    /// The sections that are the same whatever the backend.
    pub(super) const COMMON: [Self; 3] = [Self::Publish, Self::Subscribe, Self::Topic];
    const ALL: [Self; 4] = [Self::Backend, Self::Publish, Self::Subscribe, Self::Topic];

    /// Returns the section's name in TOML.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Backend => "backend",
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
            Self::Topic => "topic",
        }
    }

    /// Returns the section's purpose.
    #[must_use]
    pub const fn about(self) -> &'static str {
        match self {
            Self::Backend => "Which broker, and how it is reached.",
            Self::Publish => "The publishing side of the bus.",
            Self::Subscribe => "What a subscription has that does not say otherwise.",
            Self::Topic => "What a topic is asked to be that does not say otherwise.",
        }
    }

    pub(super) fn named(name: &str) -> Result<Self, ConfigError> {
        let known = || ConfigError::unknown("section", name, Self::ALL.map(Self::as_str).to_vec());
        Self::ALL.into_iter().find(|section| section.as_str() == name).ok_or_else(known)
    }
}

/// Kind of value that a setting takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum KnobKind {
    /// A whole number in this range, both ends included.
    Number {
        /// The lowest value.
        least: u64,
        /// The highest value.
        most: u64,
    },
    /// `true` or `false`.
    Flag,
    /// One of these words.
    Word(&'static [&'static str]),
    /// Any text.
    Text,
}

/// The highest number that TOML, and a `usize` of 64 bits, can hold.
const ANY: u64 = i64::MAX as u64;

/// Whole number from `least` on.
pub(super) const fn at_least(least: u64) -> KnobKind {
    KnobKind::Number { least, most: ANY }
}

/// Whole number in this range, both ends included.
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

/// Description of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Knob {
    /// The name, in TOML and as a parameter of a URL.
    pub name: &'static str,
    /// The section that it belongs to.
    pub section: Section,
    /// The values that it takes.
    pub kind: KnobKind,
    /// The effect, the unit and, after the last `; `, the default.
    pub help: &'static str,
}

/// The key of a setting: its section and its name.
pub(super) type Key = (Section, &'static str);

/// Parts of names that tell of a secret. Properties of the client can be passwords, too.
const SECRET: [&str; 5] = ["password", "token", "nkey", "secret", "properties"];

/// Returns whether a setting of text with this name holds a secret, by the name alone: for whoever shows a URL's parameters.
///
/// ```
/// use eventbus::config::names_secret;
///
/// assert!(names_secret("sasl_password"));
/// assert!(!names_secret("partitions"));
/// ```
#[must_use]
pub fn names_secret(name: &str) -> bool {
    SECRET.iter().any(|part| name.contains(part))
}

impl Knob {
    /// Returns whether the value is secret, so that it must not be shown.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        matches!(self.kind, KnobKind::Text) && names_secret(self.name)
    }

    /// Returns the help without the default.
    #[must_use]
    pub fn about(&self) -> &'static str {
        self.help.rsplit_once("; ").map_or(self.help, |(about, _)| about)
    }

    /// Returns, in words, the default that holds where no source gives a value.
    #[must_use]
    pub fn default_text(&self) -> &'static str {
        self.help.rsplit_once("; ").map_or("", |(_, default)| default)
    }

    pub(super) fn key(&self) -> Key {
        (self.section, self.name)
    }

    /// Reads a value. A value of another type, or out of range, is refused.
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
            // Text may be secret: only its type is told.
            (KnobKind::Text, _) => Err(refuse(type_of(&value))),
            _ => Err(refuse(value.to_string())),
        }
    }
}

/// Value that a source gave for a setting.
pub(super) enum Given {
    /// Text, from a parameter of a URL or a variable.
    Text(String),
    /// A TOML value, from a file.
    Toml(toml::Value),
}

impl Given {
    /// Returns the text, for a setting that takes text.
    pub(super) fn into_text(self, name: &'static str) -> Result<String, ConfigError> {
        match self {
            Self::Text(text) | Self::Toml(toml::Value::String(text)) => Ok(text),
            Self::Toml(other) => Err(ConfigError::value(name, "text", type_of(&other))),
        }
    }
}

/// Names the type of a value without showing the value.
pub(super) fn type_of(value: &toml::Value) -> String {
    format!("a value of type {}", value.type_str())
}
