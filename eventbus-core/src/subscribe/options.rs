//! What a subscription is asked to do: [`Subscribe`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::{Error, ErrorKind, Group, Position, Result, Topic};
use crate::runtime::Backoff;

/// What happens to an envelope whose attempts are used up (S2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FailurePolicy {
    /// Written to the dead-letter topic of this topic and group; the key goes on once that write is confirmed.
    #[default]
    DeadLetter,
    /// Counted, reported, finished.
    Skip,
    /// The subscription stops with the error; nothing past the envelope is acknowledged.
    Stop,
}

/// What to do when the log is another one than the group's progress was written for, or was cut (S3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum OnLogReset {
    /// The subscription ends with `LogReset`.
    #[default]
    Stop,
    /// The old progress is discarded and the log handled from its first record.
    Earliest,
}

/// What to do when retention took records that were not handled (S3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum OnDataLoss {
    /// The subscription ends with `DataLost`.
    #[default]
    Stop,
    /// It is reported and counted, and handling goes on with the first record that is left.
    Continue,
}

/// Where a group starts that has no progress yet, or where a seek goes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum StartFrom {
    /// With the first record of the log.
    #[default]
    Earliest,
    /// With the next record to be published.
    Latest,
    /// With the first record stored at or after this time, in milliseconds since the Unix epoch.
    Time(u64),
    /// With these positions; partitions that are not named start at the earliest record.
    Positions(BTreeMap<u32, Position>),
}

/// Options of one subscription: one topic, one group, one member.
///
/// ```
/// use std::time::Duration;
/// use eventbus_core::{Backoff, FailurePolicy, Subscribe};
///
/// let options = Subscribe::to("orders")
///     .group("billing")
///     .concurrency(64)
///     .attempts(5)
///     .backoff(Backoff::exponential())
///     .then(FailurePolicy::DeadLetter);
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Subscribe {
    pub(crate) topic: String,
    pub(crate) group: String,
    pub(crate) member: Option<String>,
    pub(crate) settings: Settings,
    /// The settings that were set, so that configured defaults leave them alone.
    chosen: BTreeSet<&'static str>,
}

/// The numbers of a subscription, all with defaults.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) concurrency: usize,
    pub(crate) attempts: u32,
    pub(crate) backoff: Backoff,
    pub(crate) policy: FailurePolicy,
    pub(crate) start: StartFrom,
    pub(crate) on_log_reset: OnLogReset,
    pub(crate) on_data_loss: OnDataLoss,
    pub(crate) handler_timeout: Option<Duration>,
    pub(crate) drain_deadline: Duration,
    pub(crate) session_timeout: Duration,
    pub(crate) window: usize,
    pub(crate) budget_bytes: usize,
    pub(crate) commit_interval: Duration,
    pub(crate) commit_every: usize,
    pub(crate) lookback: u64,
    pub(crate) stall_after: Duration,
    pub(crate) dedup_by_id: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            concurrency: 16,
            attempts: 5,
            backoff: Backoff::default(),
            policy: FailurePolicy::default(),
            start: StartFrom::default(),
            on_log_reset: OnLogReset::default(),
            on_data_loss: OnDataLoss::default(),
            handler_timeout: None,
            drain_deadline: Duration::from_secs(30),
            session_timeout: Duration::from_secs(10),
            window: 100_000,
            budget_bytes: 64 << 20,
            commit_interval: Duration::from_millis(200),
            commit_every: 5_000,
            lookback: 10_000,
            stall_after: Duration::from_secs(30),
            dedup_by_id: false,
        }
    }
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty),* $(,)?) => {
        $($(#[$doc])*
        pub fn $name(mut self, $name: $type) -> Self {
            self.settings.$name = $name;
            self.chosen.insert(stringify!($name));
            self
        })*

        fn or_numbers(&mut self, defaults: &Self) {
            $(if !self.chosen.contains(stringify!($name)) && defaults.chosen.contains(stringify!($name)) {
                self.settings.$name = defaults.settings.$name.clone();
            })*
        }
    };
}

impl Subscribe {
    /// A subscription to one topic, in the group `default`.
    pub fn to(topic: impl Into<String>) -> Self {
        Self {
            topic: topic.into(),
            group: "default".into(),
            member: None,
            settings: Settings::default(),
            chosen: BTreeSet::new(),
        }
    }

    /// The group that shares the work. Default `default`.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.group = group.into();
        self
    }

    /// A readable name of this member; a random part is added. Default `member`.
    pub fn member(mut self, member: impl Into<String>) -> Self {
        self.member = Some(member.into());
        self
    }

    /// What happens when attempts are used up. Default [`FailurePolicy::DeadLetter`].
    pub fn then(mut self, policy: FailurePolicy) -> Self {
        self.settings.policy = policy;
        self.chosen.insert("then");
        self
    }

    /// How long one attempt may take before it counts as failed and its future is dropped. Default: no limit.
    pub fn handler_timeout(mut self, timeout: Duration) -> Self {
        self.settings.handler_timeout = Some(timeout);
        self.chosen.insert("handler_timeout");
        self
    }

    /// The same subscription, with what was not set taken from `defaults` where it was set there. Topic, group and member
    /// stay. So a configuration can give defaults that code overrides.
    ///
    /// ```
    /// use eventbus_core::Subscribe;
    ///
    /// let defaults = Subscribe::to("any").concurrency(64).attempts(9);
    /// let mine = Subscribe::to("orders").attempts(2).or(&defaults);
    /// assert!(format!("{mine:?}").contains("concurrency: 64, attempts: 2"));
    /// ```
    pub fn or(mut self, defaults: &Self) -> Self {
        if !self.chosen.contains("then") && defaults.chosen.contains("then") {
            self.settings.policy = defaults.settings.policy;
        }
        if !self.chosen.contains("handler_timeout") && defaults.chosen.contains("handler_timeout") {
            self.settings.handler_timeout = defaults.settings.handler_timeout;
        }
        self.or_numbers(defaults);
        self.chosen.extend(&defaults.chosen);
        self
    }

    setters! {
        /// The most handlers at once. Default 16.
        concurrency: usize,
        /// Attempts per envelope before the failure policy decides. Default 5.
        attempts: u32,
        /// The wait between attempts. Default 100 ms doubling to 30 s with full jitter.
        backoff: Backoff,
        /// Where a group without progress starts. Default [`StartFrom::Earliest`].
        start: StartFrom,
        /// What a replaced or shortened log does. Default [`OnLogReset::Stop`].
        on_log_reset: OnLogReset,
        /// What records lost to retention do. Default [`OnDataLoss::Stop`].
        on_data_loss: OnDataLoss,
        /// How long a hand-over waits for running handlers. Default 30 s.
        drain_deadline: Duration,
        /// How long a silent member keeps its partitions. Default 10 s.
        session_timeout: Duration,
        /// Records per partition between the watermark and the newest delivered one. Default 100 000, at least 1 000.
        window: usize,
        /// Bytes of payload held per partition. Default 64 MiB.
        budget_bytes: usize,
        /// The longest that finished work stays uncommitted. Default 200 ms.
        commit_interval: Duration,
        /// Finished envelopes after which a commit is made before its time. Default 5 000.
        commit_every: usize,
        /// Positions before the watermark that are read at a session's start to recognise second copies (P3).
        /// Default 10 000.
        lookback: u64,
        /// How long a partition's oldest unfinished envelope may stay before it is reported as stalled. Default 30 s.
        stall_after: Duration,
        /// Also drop envelopes whose source and id were seen before in the partition. Default off: distinct publishes
        /// are never taken for copies, whatever ids their users chose.
        dedup_by_id: bool,
    }

    /// Checks every value (S8).
    ///
    /// # Errors
    /// `InvalidName` or `InvalidConfig`, naming the setting and what was expected.
    pub(crate) fn validate(&self) -> Result<(Topic, Group)> {
        let topic = self.topic.parse::<Topic>()?;
        let group = self.group.parse::<Group>()?;
        let s = &self.settings;
        at_least("concurrency", s.concurrency, 1)?;
        at_least("attempts", s.attempts as usize, 1)?;
        at_least("window", s.window, 1_000)?;
        at_least("budget_bytes", s.budget_bytes, 1)?;
        at_least("commit_every", s.commit_every, 1)?;
        s.backoff
            .validate()
            .map_err(|error| Error::new(ErrorKind::InvalidConfig, error.to_string()).with("setting", "backoff"))?;
        for (name, value) in [
            ("commit_interval", s.commit_interval),
            ("session_timeout", s.session_timeout),
            ("handler_timeout", s.handler_timeout.unwrap_or(Duration::MAX)),
        ] {
            if value.is_zero() {
                return Err(invalid(name, "more than zero"));
            }
        }
        Ok((topic, group))
    }
}

fn at_least(name: &'static str, value: usize, least: usize) -> Result<()> {
    if value < least {
        return Err(invalid(name, &format!("at least {least}, got {value}")));
    }
    Ok(())
}

fn invalid(name: &'static str, expected: &str) -> Error {
    Error::new(ErrorKind::InvalidConfig, format!("{name}: expected {expected}")).with("setting", name)
}
