//! All that may be set: the one list that URLs, TOML, errors and tests go by.

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

    /// What it is for.
    #[must_use]
    pub const fn about(self) -> &'static str {
        match self {
            Self::Backend => "Which broker, and how it is reached.",
            Self::Publish => "The publishing side of the bus.",
            Self::Subscribe => "What a subscription has that does not say otherwise.",
            Self::Topic => "What a topic is asked to be that does not say otherwise.",
        }
    }
}

/// What a setting takes.
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

/// A setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Knob {
    /// Its name, in TOML and as a parameter.
    pub name: &'static str,
    /// The table it is in.
    pub section: Section,
    /// What it takes.
    pub kind: KnobKind,
    /// What it does, its unit and its default.
    pub help: &'static str,
}

pub(super) const fn number(section: Section, name: &'static str, least: u64, most: u64, help: &'static str) -> Knob {
    Knob { name, section, kind: KnobKind::Number { least, most }, help }
}

pub(super) const fn word(
    section: Section,
    name: &'static str,
    words: &'static [&'static str],
    help: &'static str,
) -> Knob {
    Knob { name, section, kind: KnobKind::Word(words), help }
}

pub(super) const fn flag(section: Section, name: &'static str, help: &'static str) -> Knob {
    Knob { name, section, kind: KnobKind::Flag, help }
}

#[cfg(any(feature = "nats", feature = "kafka"))]
pub(super) const fn text(section: Section, name: &'static str, help: &'static str) -> Knob {
    Knob { name, section, kind: KnobKind::Text, help }
}

/// The most that TOML, and a usize of 64 bits, can say.
const ANY: u64 = i64::MAX as u64;
/// The most milliseconds of a time: a hundred years, so that sums of them are times, too.
const TIME: u64 = 100 * 366 * 24 * 3_600_000;
/// The most milliseconds between two attempts: a day.
const DAY: u64 = 24 * 3_600_000;

use Section::{Publish, Subscribe, Topic};

const KNOBS: &[Knob] = &[
    number(Publish, "budget_envelopes", 1, ANY, "envelopes admitted and not yet answered; 10000"),
    number(Publish, "budget_bytes", 1, ANY, "bytes admitted and not yet answered; 64 MiB"),
    number(Publish, "share", 1, ANY, "one key may hold the budget divided by this; 8"),
    number(Publish, "waiting_limit", 1, ANY, "envelopes waiting for room before publishes fail; 100000"),
    number(Publish, "sealed_limit", 1, ANY, "keys of a topic sealed at once, beyond it the topic is; 10000"),
    number(Publish, "resend_ms", 1, TIME, "the first wait before a record is sent again; 20 ms"),
    number(Publish, "resend_max_ms", 1, TIME, "the longest wait before a record is sent again; 1 s"),
    number(
        Publish,
        "recount_ms",
        1,
        TIME,
        "how often topics in use are looked at for a changed number of partitions; 30 s",
    ),
    word(Publish, "threads", &["own", "caller"], "where the bus's own work runs; own"),
    number(Subscribe, "concurrency", 1, 1_000_000, "handlers at once; 16"),
    number(Subscribe, "attempts", 1, u32::MAX as u64, "attempts before the failure policy decides; 5"),
    number(Subscribe, "backoff_ms", 1, DAY, "the wait after the first failed attempt; 100 ms"),
    number(Subscribe, "backoff_max_ms", 1, DAY, "the longest wait between attempts; 30 s"),
    number(Subscribe, "backoff_factor", 1, u32::MAX as u64, "what the wait grows by; 2"),
    word(Subscribe, "jitter", &["full", "none"], "what chance does to the wait; full"),
    word(Subscribe, "then", &["dead-letter", "skip", "stop"], "what happens when attempts are used up; dead-letter"),
    word(Subscribe, "start", &["earliest", "latest"], "where a group without progress starts; earliest"),
    word(Subscribe, "on_log_reset", &["stop", "earliest"], "what a replaced or shortened log does; stop"),
    word(Subscribe, "on_data_loss", &["stop", "continue"], "what records lost to retention do; stop"),
    number(Subscribe, "handler_timeout_ms", 1, TIME, "how long one attempt may take; no limit"),
    number(Subscribe, "drain_deadline_ms", 0, TIME, "how long a hand-over waits for running handlers; 30 s"),
    number(Subscribe, "session_timeout_ms", 1, TIME, "how long a silent member keeps its partitions; 10 s"),
    number(Subscribe, "window", 1_000, ANY, "records per partition from watermark to newest; 100000"),
    number(Subscribe, "window_bytes", 1, ANY, "bytes of payload held per partition; 64 MiB"),
    number(Subscribe, "commit_interval_ms", 1, TIME, "the longest that finished work stays uncommitted; 200 ms"),
    number(Subscribe, "commit_every", 1, ANY, "finished envelopes that make a commit come early; 5000"),
    number(Subscribe, "lookback", 0, ANY, "positions read before the watermark to recognise copies; 10000"),
    number(Subscribe, "stall_after_ms", 1, TIME, "age of an unfinished envelope that is reported; 30 s"),
    flag(Subscribe, "dedup_by_id", "also drop envelopes whose source and id were seen before; false"),
    number(Topic, "partitions", 1, 4_096, "partitions, the unit that the broker orders; 16"),
    number(Topic, "max_age_ms", 1, TIME, "age at which records may be removed; never"),
    number(Topic, "max_bytes", 1, ANY, "bytes kept; no limit"),
    number(Topic, "max_messages", 1, ANY, "records kept; no limit"),
    word(Topic, "storage", &["file", "memory"], "where records are kept; file"),
    number(Topic, "replicas", 1, 99, "copies of the log in the cluster; 1"),
    number(Topic, "duplicate_window_ms", 100, TIME, "how long the broker remembers message ids; 2 min"),
    word(
        Topic,
        "on_existing",
        &["create-only", "create-or-update", "validate", "leave-alone"],
        "how an existing topic is treated; validate",
    ),
    word(
        Topic,
        "after_refusal",
        &["seal-key", "seal-until-resumed", "continue"],
        "what a refused publish does to its key; seal-key",
    ),
    flag(Topic, "strict_partitions", "refuse records in another partition than their key's; false"),
];

/// All settings of the bus, whatever the backend, with what they take, do and are by default.
#[must_use]
pub fn knobs() -> &'static [Knob] {
    KNOBS
}

/// What the name of a setting that holds a secret has in it.
const SECRET: [&str; 5] = ["password", "token", "nkey", "secret", "properties"];

impl Knob {
    /// Whether its value is secret: it is not to be shown.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        matches!(self.kind, KnobKind::Text) && SECRET.iter().any(|part| self.name.contains(part))
    }

    /// What it does, without its default.
    #[must_use]
    pub fn about(&self) -> &'static str {
        self.help.rsplit_once("; ").map_or(self.help, |(about, _)| about)
    }

    /// What it is where nothing is said, in words.
    #[must_use]
    pub fn default_text(&self) -> &'static str {
        self.help.rsplit_once("; ").map_or("", |(_, default)| default)
    }

    /// Reads a parameter's text.
    pub(super) fn read(&self, text: &str) -> Result<toml::Value, ConfigError> {
        let value = match self.kind {
            KnobKind::Number { .. } => text.parse().ok().map(toml::Value::Integer),
            KnobKind::Flag => text.parse().ok().map(toml::Value::Boolean),
            KnobKind::Word(_) | KnobKind::Text => Some(toml::Value::String(text.to_owned())),
        };
        let value = value.ok_or_else(|| self.refuse(format!("{text:?}")))?;
        self.check(&value)?;
        Ok(value)
    }

    /// Refuses a value of another type, or out of range.
    pub(super) fn check(&self, value: &toml::Value) -> Result<(), ConfigError> {
        let fits = match (self.kind, value) {
            (KnobKind::Number { least, most }, toml::Value::Integer(number)) => {
                u64::try_from(*number).is_ok_and(|number| (least..=most).contains(&number))
            }
            (KnobKind::Flag, toml::Value::Boolean(_)) => true,
            (KnobKind::Word(words), toml::Value::String(text)) => words.contains(&text.as_str()),
            (KnobKind::Text, toml::Value::String(_)) => true,
            _ => false,
        };
        let got = || match self.kind {
            // It may be secret.
            KnobKind::Text => format!("a value of type {}", value.type_str()),
            _ => value.to_string(),
        };
        if fits { Ok(()) } else { Err(self.refuse(got())) }
    }

    fn refuse(&self, got: String) -> ConfigError {
        ConfigError::Value { name: self.name, expected: self.kind.to_string(), got }
    }
}

impl std::fmt::Display for KnobKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number { least, most: ANY } => write!(f, "a whole number of at least {least}"),
            Self::Number { least, most } => write!(f, "a whole number of {least} to {most}"),
            Self::Flag => f.write_str("true or false"),
            Self::Word(words) => write!(f, "one of {}", words.join(", ")),
            Self::Text => f.write_str("text"),
        }
    }
}

/// The setting of this name, or an error that lists all (of a section) and names the nearest.
pub(super) fn find(
    what: &'static str,
    section: Option<Section>,
    backend: &'static [Knob],
    name: &str,
) -> Result<&'static Knob, ConfigError> {
    let known = || backend.iter().chain(KNOBS);
    let candidates = || known().filter(|knob| section.is_none_or(|section| knob.section == section));
    candidates().find(|knob| knob.name == name).ok_or_else(|| {
        let known: Vec<&'static str> = candidates().map(|knob| knob.name).collect();
        unknown(what, name, known)
    })
}

pub(super) fn unknown(what: &'static str, name: &str, known: Vec<&'static str>) -> ConfigError {
    // Only a short name can be like a known one, and the distance of long ones is costly.
    let near = |known: &&'static str| (strsim::levenshtein(name, known), *known);
    let nearest = (name.len() <= 64).then(|| known.iter().map(near).min()).flatten();
    let nearest = nearest.filter(|(away, nearest)| *away <= nearest.len() / 3).map(|(_, nearest)| nearest);
    ConfigError::Unknown { what, name: name.to_owned(), nearest, known }
}
