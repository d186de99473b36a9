//! [`TopicSpec`]: the settings that a topic is asked to have.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::{Error, ErrorKind};
use super::topic::Topic;

/// The storage of a topic's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Storage {
    /// On disk. The default.
    #[default]
    File,
    /// In the broker's memory, where the backend supports it.
    Memory,
}

/// The treatment of an existing topic by [`ensure_topic`](crate::EventBus::ensure_topic).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum OnExisting {
    /// An existing topic is an error.
    CreateOnly,
    /// A missing topic is created. An existing one is changed to the spec; a setting that cannot be changed is an
    /// error.
    CreateOrUpdate,
    /// A missing topic is created. An existing one is compared; a difference is an error that names the setting. The
    /// default: two services that disagree find out, and neither undoes the other's settings.
    #[default]
    Validate,
    /// A missing topic is created. An existing one is taken as it is.
    LeaveAlone,
}

/// The effect of a refused publish on its key (P2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum AfterRefusal {
    /// The key is sealed until the caller has seen the refusal, or resumes the key. The default.
    #[default]
    SealKey,
    /// The key is sealed until it is resumed: for publishers whose confirmations are awaited by another task.
    SealUntilResumed,
    /// The key is not sealed: envelopes queued behind the refused one fail, later ones are published.
    Continue,
}

/// The settings that a topic is asked to have. Plain data, the same from code and from configuration.
///
/// ```
/// use std::time::Duration;
/// use eventbus_core::TopicSpec;
///
/// let spec = TopicSpec::new("orders").partitions(16).max_age(Duration::from_secs(7 * 24 * 3600));
/// spec.validate()?;
/// # Ok::<(), eventbus_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
#[must_use]
pub struct TopicSpec {
    /// The topic's name, checked by [`validate`](Self::validate).
    pub topic: String,
    /// The number of partitions, the unit that the broker orders. Default 16.
    #[serde(default = "default_partitions")]
    pub partitions: u32,
    /// The age beyond which records may be removed. Milliseconds in configuration. Default: never.
    #[serde(default, with = "millis", rename = "max_age_ms")]
    pub max_age: Option<Duration>,
    /// The most bytes kept. Default: no limit.
    #[serde(default)]
    pub max_bytes: Option<u64>,
    /// The most records kept. Default: no limit.
    #[serde(default)]
    pub max_messages: Option<u64>,
    /// The storage of the records. Default: on disk.
    #[serde(default)]
    pub storage: Storage,
    /// Copies of the log in the cluster. Default 1.
    #[serde(default = "default_replicas")]
    pub replicas: u32,
    /// The time for which the broker remembers message ids, where it does (P3). Milliseconds in configuration. Default
    /// 2 min.
    #[serde(default = "default_window", with = "millis_required", rename = "duplicate_window_ms")]
    pub duplicate_window: Duration,
    /// The treatment of an existing topic. Default [`OnExisting::Validate`].
    #[serde(default)]
    pub on_existing: OnExisting,
    /// The effect of a refused publish on its key. Default [`AfterRefusal::SealKey`]. Kept by the bus, not by the
    /// broker.
    #[serde(default)]
    pub after_refusal: AfterRefusal,
    /// Whether records found in another partition than their key's hash says are refused instead of counted. Default:
    /// no.
    #[serde(default)]
    pub strict_partitions: bool,
    /// The settings that code has set. A spec read from configuration counts as set throughout.
    #[serde(skip, default = "Chosen::all")]
    chosen: Chosen,
}

/// The settings of a spec that were set, and that configured defaults therefore leave alone. Specs compare without
/// them.
#[derive(Debug, Clone)]
enum Chosen {
    All,
    These(BTreeSet<&'static str>),
}

impl Chosen {
    fn all() -> Self {
        Self::All
    }

    fn insert(&mut self, name: &'static str) {
        if let Self::These(names) = self {
            names.insert(name);
        }
    }

    fn holds(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::These(names) => names.contains(name),
        }
    }
}

impl PartialEq for Chosen {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Chosen {}

fn default_partitions() -> u32 {
    16
}

fn default_replicas() -> u32 {
    1
}

fn default_window() -> Duration {
    Duration::from_secs(120)
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty => $value:expr),* $(,)?) => {
        $($(#[$doc])*
        pub fn $name(mut self, $name: $type) -> Self {
            self.$name = $value;
            self.chosen.insert(stringify!($name));
            self
        })*

        /// Fills in the settings that were not set here with those that were set in `defaults`, so that a configuration
        /// can give defaults that code overrides. The topic stays.
        ///
        /// ```
        /// use eventbus_core::TopicSpec;
        ///
        /// let defaults = TopicSpec::new("any").partitions(4).replicas(3);
        /// let spec = TopicSpec::new("orders").replicas(1).or(&defaults);
        /// assert_eq!((spec.partitions, spec.replicas), (4, 1));
        /// ```
        pub fn or(mut self, defaults: &Self) -> Self {
            let fresh = Self::new("");
            $(
                // A field that was assigned directly shows by its value, which is not the default.
                let free = !self.chosen.holds(stringify!($name)) && self.$name == fresh.$name;
                if free && defaults.chosen.holds(stringify!($name)) {
                    self.$name = defaults.$name;
                    self.chosen.insert(stringify!($name));
                }
            )*
            self
        }
    };
}

impl TopicSpec {
    /// The most partitions that a topic may have.
    pub const MAX_PARTITIONS: u32 = 4_096;

    /// Makes a spec with the defaults. The name is checked by [`validate`](Self::validate) and by every call that takes
    /// the spec.
    pub fn new(topic: impl Into<String>) -> Self {
        Self {
            topic: topic.into(),
            partitions: default_partitions(),
            max_age: None,
            max_bytes: None,
            max_messages: None,
            storage: Storage::default(),
            replicas: default_replicas(),
            duplicate_window: default_window(),
            on_existing: OnExisting::default(),
            after_refusal: AfterRefusal::default(),
            strict_partitions: false,
            chosen: Chosen::These(BTreeSet::new()),
        }
    }

    setters! {
        /// Sets the number of partitions, from 1 to 4 096.
        partitions: u32 => partitions,
        /// Limits the age of records.
        max_age: Duration => Some(max_age),
        /// Limits the bytes kept.
        max_bytes: u64 => Some(max_bytes),
        /// Limits the records kept.
        max_messages: u64 => Some(max_messages),
        /// Sets where records are kept.
        storage: Storage => storage,
        /// Sets the number of replicas, from 1 to 99.
        replicas: u32 => replicas,
        /// Sets how long the broker remembers message ids, at least 100 ms.
        duplicate_window: Duration => duplicate_window,
        /// Sets how an existing topic is treated.
        on_existing: OnExisting => on_existing,
        /// Sets what a refused publish does to its key.
        after_refusal: AfterRefusal => after_refusal,
        /// Sets whether records in the wrong partition are refused.
        strict_partitions: bool => strict_partitions,
    }

    /// Checks every value and returns the checked name.
    ///
    /// # Errors
    /// `InvalidName`, or `InvalidConfig` naming the setting and what was expected.
    pub fn validate(&self) -> Result<Topic, Error> {
        let topic = self.topic.parse()?;
        let range = |setting: &'static str, value: u64, least: u64, most: u64| {
            if (least..=most).contains(&value) {
                return Ok(());
            }
            let message = format!("{setting}: expected {least} to {most}, got {value}");
            Err(Error::new(ErrorKind::InvalidConfig, message).with("topic", &self.topic).with("setting", setting))
        };
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        range("partitions", self.partitions.into(), 1, Self::MAX_PARTITIONS.into())?;
        range("replicas", self.replicas.into(), 1, 99)?;
        range("max_age_ms", self.max_age.map_or(1, millis), 1, i64::MAX as u64 / 1_000_000)?;
        range("max_bytes", self.max_bytes.unwrap_or(1), 1, i64::MAX as u64)?;
        range("max_messages", self.max_messages.unwrap_or(1), 1, i64::MAX as u64)?;
        range("duplicate_window_ms", millis(self.duplicate_window), 100, i64::MAX as u64 / 1_000_000)?;
        Ok(topic)
    }

    /// Checks that an existing topic has, as asked, the settings that no broker changes: partitions and storage.
    ///
    /// # Errors
    /// `TopicMismatch` naming the setting and both values.
    pub(crate) fn agrees_in_fixed(&self, asked: &Self) -> Result<(), Error> {
        asked.same("partitions", &self.partitions, &asked.partitions)?;
        asked.same("storage", &self.storage, &asked.storage)
    }

    /// Checks that an existing topic has, as asked, the settings that brokers can change: retention, replicas and
    /// duplicate window.
    ///
    /// # Errors
    /// As [`agrees_in_fixed`](Self::agrees_in_fixed).
    pub(crate) fn agrees_in_changeable(&self, asked: &Self) -> Result<(), Error> {
        asked.same("max_age", &self.max_age, &asked.max_age)?;
        asked.same("max_bytes", &self.max_bytes, &asked.max_bytes)?;
        asked.same("max_messages", &self.max_messages, &asked.max_messages)?;
        asked.same("replicas", &self.replicas, &asked.replicas)?;
        asked.same("duplicate_window", &self.duplicate_window, &asked.duplicate_window)
    }

    fn same<T: PartialEq + fmt::Debug>(&self, setting: &'static str, has: &T, asked: &T) -> Result<(), Error> {
        if has == asked {
            return Ok(());
        }
        let message = format!("{setting}: the topic has {has:?}, asked for was {asked:?}");
        Err(Error::new(ErrorKind::TopicMismatch, message).with("topic", &self.topic).with("setting", setting))
    }
}

mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        value.map(|duration| duration.as_millis() as u64).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(from)?.map(Duration::from_millis))
    }
}

mod millis_required {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        (value.as_millis() as u64).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        Ok(Duration::from_millis(u64::deserialize(from)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn a_spec_is_read_back_from_its_json(partitions: u32, age in 0_u64..1 << 40, bytes: Option<u64>, strict: bool) {
            let mut spec = TopicSpec::new("t").partitions(partitions).strict_partitions(strict);
            spec = spec.max_age(Duration::from_millis(age)).storage(Storage::Memory).on_existing(OnExisting::LeaveAlone);
            spec.max_bytes = bytes;
            let json = serde_json::to_string(&spec).unwrap();
            proptest::prop_assert_eq!(serde_json::from_str::<TopicSpec>(&json).unwrap(), spec);
        }
    }

    #[test]
    fn impossible_settings_name_themselves() {
        let error = TopicSpec::new("t").partitions(0).validate().unwrap_err();
        assert!(error.to_string().contains("partitions: expected 1 to 4096, got 0"), "{error}");
        assert!(TopicSpec::new("t").replicas(0).validate().is_err());
        assert!(TopicSpec::new("t").max_age(Duration::ZERO).validate().is_err());
        assert!(TopicSpec::new("t").duplicate_window(Duration::ZERO).validate().is_err());
        assert!(TopicSpec::new("t").validate().is_ok());
    }

    #[test]
    fn what_a_topic_has_otherwise_is_named() {
        let has = TopicSpec::new("t").partitions(4).replicas(3);
        assert!(has.agrees_in_fixed(&has).is_ok() && has.agrees_in_changeable(&has).is_ok());
        let error = has.agrees_in_fixed(&has.clone().partitions(8)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TopicMismatch);
        assert!(error.to_string().contains("partitions: the topic has 4, asked for was 8"), "{error}");
        let error = has.agrees_in_changeable(&has.clone().partitions(8).replicas(1)).unwrap_err();
        assert!(error.to_string().contains("replicas: the topic has 3, asked for was 1"), "{error}");
    }

    #[test]
    fn unknown_settings_are_refused() {
        let error = serde_json::from_str::<TopicSpec>(r#"{"topic":"t","partition":3}"#).unwrap_err();
        assert!(error.to_string().contains("unknown field `partition`"), "{error}");
        let spec: TopicSpec = serde_json::from_str(r#"{"topic":"t","max_age_ms":5}"#).unwrap();
        assert_eq!(spec.max_age, Some(Duration::from_millis(5)));
    }
}
