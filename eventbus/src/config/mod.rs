//! Configuration of a bus as plain data: [`EventBusConfig`], the same from a URL, from TOML and from code.
//!
//! A setting without a value has the library's default. A setting that cannot be honoured is an error, never ignored:
//! an unknown scheme, an unknown parameter, an impossible value ([`ConfigError`]).
//!
//! [`Layers`] takes a file, variables of the environment and a URL at once, lays them over one another, and knows where
//! each value came from. [`schema()`] lets editors check a file; [`reference()`] is the page for people. Both are made
//! from the one table of settings ([`knobs`], and those of the backends).

mod declare;
mod error;
mod file;
#[cfg(feature = "kafka")]
mod kafka;
mod knobs;
mod layers;
#[cfg(feature = "nats")]
mod nats;
mod reference;
mod schema;
mod scheme;
mod sections;
mod source;
mod url;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use eventbus_core::{BusConfig, Subscribe, TopicSpec};
use serde::{Deserialize, Serialize};

use declare::with;
use source::{Source, TYPE};

pub use error::ConfigError;
/// Choice of the threads that run the bus's own work.
pub use eventbus_core::Threads;
#[cfg(feature = "kafka")]
pub use kafka::{GroupProtocol, KafkaSection, SaslMechanism, kafka_knobs};
pub use knobs::{Knob, KnobKind, Section, names_secret};
pub use layers::{InForce, Layers, Setting};
#[cfg(feature = "nats")]
pub use nats::{NatsSection, nats_knobs};
pub use reference::reference;
pub use schema::schema;
pub use scheme::{Scheme, schemes};
#[cfg(any(feature = "nats", feature = "kafka"))]
pub use sections::ContentMode;
pub use sections::{PublishSection, Start, SubscribeSection, TopicSection, knobs};
pub use source::Origin;

/// Configuration of a bus, as plain data.
///
/// In TOML each section is a table. In a URL the backend is the scheme, and every setting is a parameter of the same
/// name. [`knobs`] lists the settings that every backend has.
///
/// ```
/// use eventbus::EventBusConfig;
///
/// let by_url = EventBusConfig::from_url("memory://shop?partitions=4&concurrency=64")?;
/// let by_toml = EventBusConfig::from_toml(
///     r#"
///         [backend]
///         type = "memory"
///         name = "shop"
///
///         [subscribe]
///         concurrency = 64
///
///         [topic]
///         partitions = 4
///     "#,
/// )?;
/// assert_eq!(by_url, by_toml);
/// # Ok::<(), eventbus::ConfigError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct EventBusConfig {
    /// The broker, and how to reach it.
    pub backend: BackendConfig,
    /// The publishing side.
    #[serde(default)]
    pub publish: PublishSection,
    /// Defaults for the options that a subscription does not set.
    #[serde(default)]
    pub subscribe: SubscribeSection,
    /// Defaults for what a topic's spec does not set.
    #[serde(default)]
    pub topic: TopicSection,
}

/// Section `[backend]`: the broker, and how to reach it. Each backend has its own settings here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum BackendConfig {
    /// A log in this process.
    Memory {
        /// The log's name: one log per process and name. Without a name the log belongs to this bus alone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
    /// NATS JetStream.
    #[cfg(feature = "nats")]
    Nats(Box<NatsSection>),
    /// Kafka.
    #[cfg(feature = "kafka")]
    Kafka(Box<KafkaSection>),
}

impl BackendConfig {
    /// Returns the main scheme of the backend's URLs.
    #[must_use]
    pub const fn scheme(&self) -> &'static str {
        match self {
            Self::Memory { .. } => "memory",
            #[cfg(feature = "nats")]
            Self::Nats(_) => "nats",
            #[cfg(feature = "kafka")]
            Self::Kafka(_) => "kafka",
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        match self {
            Self::Memory { name } => {
                let odd = |c: char| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '_' | '-');
                let is_wrong = |name: &String| name.is_empty() || name.len() > 200 || name.chars().any(odd);
                let expected = "the name of a log in memory has 1 to 200 characters of A-Z a-z 0-9 . _ -";
                if name.as_ref().is_some_and(is_wrong) { Err(ConfigError::url(expected)) } else { Ok(()) }
            }
            #[cfg(feature = "nats")]
            Self::Nats(section) => section.check(),
            #[cfg(feature = "kafka")]
            Self::Kafka(section) => section.check(),
        }
    }
}

impl fmt::Display for BackendConfig {
    /// Writes the URL without parameters and without secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory { name } => write!(f, "memory://{}", name.as_deref().unwrap_or_default()),
            #[cfg(feature = "nats")]
            Self::Nats(section) => f.write_str(&section.urls()),
            #[cfg(feature = "kafka")]
            Self::Kafka(section) => f.write_str(&section.urls()),
        }
    }
}

impl EventBusConfig {
    /// Makes the configuration of a log in this process: one per name, or a private one.
    #[must_use]
    pub fn memory(name: Option<&str>) -> Self {
        Self {
            backend: BackendConfig::Memory { name: name.map(str::to_owned) },
            publish: PublishSection::default(),
            subscribe: SubscribeSection::default(),
            topic: TopicSection::default(),
        }
    }

    /// Reads a URL, for instance `memory://shop?partitions=4&concurrency=64`.
    ///
    /// # Errors
    /// [`ConfigError`], which names the part that is wrong and the known names; never a password.
    pub fn from_url(url: &str) -> Result<Self, ConfigError> {
        Self::of(url::read(url, Origin::Url)?)
    }

    /// Reads TOML.
    ///
    /// # Errors
    /// [`ConfigError`], which names the setting and the known ones.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        Self::of(file::read(text, Origin::default())?)
    }

    /// Reads a TOML file.
    ///
    /// # Errors
    /// [`ConfigError::File`] if it cannot be read; otherwise as [`from_toml`](Self::from_toml).
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        Self::from_toml(&file::text(path.as_ref())?)
    }

    /// Returns this configuration at another prefix of the same broker: all the bus's names begin with it, and the bus
    /// sees no others. In memory the prefix names the log.
    ///
    /// # Errors
    /// A prefix that the backend does not take.
    pub fn at_prefix(&self, prefix: &str) -> Result<Self, ConfigError> {
        let mut config = self.clone();
        match &mut config.backend {
            BackendConfig::Memory { name } => *name = Some(prefix.to_owned()),
            #[cfg(feature = "nats")]
            BackendConfig::Nats(section) => section.prefix = Some(prefix.to_owned()),
            #[cfg(feature = "kafka")]
            BackendConfig::Kafka(section) => section.prefix = Some(prefix.to_owned()),
        }
        // A log in memory takes any prefix as its name.
        if !matches!(config.backend, BackendConfig::Memory { .. }) {
            config.backend.check()?;
        }
        Ok(config)
    }

    /// Returns the publishing side as the core takes it; add hooks and layers to it for
    /// [`connect_with`](Self::connect_with). A configured number of partitions also holds for topics that this bus
    /// publishes to without having ensured them.
    pub fn bus(&self) -> BusConfig {
        let config = self.publish.apply(BusConfig::new());
        let config = with(config, self.publish.resend(), |config, (first, max)| config.resend_backoff(first, max));
        with(config, self.topic.partitions, BusConfig::partitions)
    }

    /// Returns subscription options with the configured values. A bus from [`connect`](crate::connect()) uses them by
    /// itself for what a subscription does not set.
    pub fn subscription(&self, topic: impl Into<String>) -> Subscribe {
        with(self.subscribe.apply(Subscribe::to(topic)), self.subscribe.backoff(), Subscribe::backoff)
    }

    /// Returns a topic's spec with the configured values. A bus from [`connect`](crate::connect()) uses them by itself
    /// for what a spec does not set.
    pub fn topic(&self, name: impl Into<String>) -> TopicSpec {
        self.topic.apply(TopicSpec::new(name))
    }

    /// Makes the configuration from the settings of a source.
    ///
    /// # Errors
    /// No backend; values whose combination is impossible, which no single setting shows.
    fn of(source: Source) -> Result<Self, ConfigError> {
        let expected = || format!("a table with a type, {}", scheme::types());
        let missing = || ConfigError::Missing { name: Section::Backend.as_str(), expected: expected() };
        let (scheme, place, _) = source.backend.ok_or_else(missing)?;
        let mut sections: BTreeMap<Section, toml::Table> = BTreeMap::new();
        for ((section, name), (value, _)) in source.settings {
            sections.entry(section).or_default().insert(name.to_owned(), value);
        }
        let backend = sections.entry(Section::Backend).or_default();
        if !scheme.needs_place() {
            // A log in memory has no settings: these belong to the backend that an earlier layer named.
            backend.clear();
        }
        backend.insert(TYPE.to_owned(), scheme.backend.into());
        backend.extend(scheme.read_place(place)?.map(|place| (scheme.place.to_owned(), place.into())));
        let sections = sections.into_iter().map(|(section, settings)| (section.as_str().to_owned(), settings.into()));
        // Every setting was checked already; the parser's message could repeat a secret.
        let unreadable = |_| ConfigError::url("settings that cannot be read");
        let config: Self = sections.collect::<toml::Table>().try_into().map_err(unreadable)?;
        config.backend.check()?;
        config.publish.check()?;
        config.subscribe.check()?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests;
