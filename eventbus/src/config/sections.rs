//! The sections of a configuration, and how each reaches the core.

use std::time::Duration;

use eventbus_core::{
    AfterRefusal, Backoff, BackoffError, BusConfig, FailurePolicy, Jitter, OnDataLoss, OnExisting, OnLogReset,
    StartFrom, Storage, Subscribe, Threads, TopicSpec,
};
use serde::{Deserialize, Serialize};

use super::ConfigError;

/// The publishing side. What is not said is the library's default; [`knobs`](super::knobs) tells each one's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
#[allow(missing_docs)] // told once, in `knobs`
pub struct PublishSection {
    pub budget_envelopes: Option<usize>,
    pub budget_bytes: Option<usize>,
    pub share: Option<usize>,
    pub waiting_limit: Option<usize>,
    pub sealed_limit: Option<usize>,
    pub resend_ms: Option<u64>,
    pub resend_max_ms: Option<u64>,
    pub recount_ms: Option<u64>,
    pub threads: Option<Threads>,
}

/// What a subscription has that does not say otherwise. [`knobs`](super::knobs) tells each setting's default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
#[allow(missing_docs)] // told once, in `knobs`
pub struct SubscribeSection {
    pub concurrency: Option<usize>,
    pub attempts: Option<u32>,
    pub backoff_ms: Option<u64>,
    pub backoff_max_ms: Option<u64>,
    pub backoff_factor: Option<u32>,
    pub jitter: Option<Jitter>,
    pub then: Option<FailurePolicy>,
    pub start: Option<Start>,
    pub on_log_reset: Option<OnLogReset>,
    pub on_data_loss: Option<OnDataLoss>,
    pub handler_timeout_ms: Option<u64>,
    pub drain_deadline_ms: Option<u64>,
    pub session_timeout_ms: Option<u64>,
    pub window: Option<usize>,
    pub window_bytes: Option<usize>,
    pub commit_interval_ms: Option<u64>,
    pub commit_every: Option<usize>,
    pub lookback: Option<u64>,
    pub stall_after_ms: Option<u64>,
    pub dedup_by_id: Option<bool>,
}

/// What a topic is asked to be that does not say otherwise. [`knobs`](super::knobs) tells each setting's default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
#[allow(missing_docs)] // told once, in `knobs`
pub struct TopicSection {
    pub partitions: Option<u32>,
    pub max_age_ms: Option<u64>,
    pub max_bytes: Option<u64>,
    pub max_messages: Option<u64>,
    pub storage: Option<Storage>,
    pub replicas: Option<u32>,
    pub duplicate_window_ms: Option<u64>,
    pub on_existing: Option<OnExisting>,
    pub after_refusal: Option<AfterRefusal>,
    pub strict_partitions: Option<bool>,
}

/// Where a group without progress starts. Times and positions are for code and the program's options to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Start {
    /// With the first record of the log.
    Earliest,
    /// With the next record to be published.
    Latest,
}

impl From<Start> for StartFrom {
    fn from(start: Start) -> Self {
        match start {
            Start::Earliest => Self::Earliest,
            Start::Latest => Self::Latest,
        }
    }
}

const RESEND: Duration = Duration::from_millis(20);
const RESEND_MAX: Duration = Duration::from_secs(1);

/// Hands a value to a builder's method where there is one.
fn with<B, T>(builder: B, value: Option<T>, set: impl FnOnce(B, T) -> B) -> B {
    match value {
        Some(value) => set(builder, value),
        None => builder,
    }
}

fn millis(value: Option<u64>) -> Option<Duration> {
    value.map(Duration::from_millis)
}

impl PublishSection {
    /// A lower end that is given alone lifts the upper one with it, and the other way round.
    fn resend(&self) -> Option<(Duration, Duration)> {
        match (millis(self.resend_ms), millis(self.resend_max_ms)) {
            (None, None) => None,
            (Some(first), None) => Some((first, first.max(RESEND_MAX))),
            (None, Some(max)) => Some((max.min(RESEND), max)),
            (Some(first), Some(max)) => Some((first, max)),
        }
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        match self.resend() {
            Some((first, max)) if max < first => Err(ConfigError::Value {
                name: "resend_max_ms",
                expected: format!("at least resend_ms, which is {}", first.as_millis()),
                got: max.as_millis().to_string(),
            }),
            _ => Ok(()),
        }
    }

    pub(super) fn apply(&self, config: BusConfig) -> BusConfig {
        let config = with(config, self.budget_envelopes, BusConfig::budget_envelopes);
        let config = with(config, self.budget_bytes, BusConfig::budget_bytes);
        let config = with(config, self.share, BusConfig::share);
        let config = with(config, self.waiting_limit, BusConfig::waiting_limit);
        let config = with(config, self.sealed_limit, BusConfig::sealed_limit);
        let config = with(config, self.resend(), |config, (first, max)| config.resend_backoff(first, max));
        let config = with(config, millis(self.recount_ms), BusConfig::recount);
        with(config, self.threads, BusConfig::threads)
    }
}

impl SubscribeSection {
    fn backoff(&self) -> Option<Backoff> {
        let said = self.backoff_ms.is_some()
            || self.backoff_max_ms.is_some()
            || self.backoff_factor.is_some()
            || self.jitter.is_some();
        said.then(|| {
            let backoff = with(Backoff::exponential(), millis(self.backoff_ms), Backoff::initial);
            let backoff = with(backoff, millis(self.backoff_max_ms), Backoff::max);
            let backoff = with(backoff, self.backoff_factor, Backoff::factor);
            with(backoff, self.jitter, Backoff::jitter)
        })
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        match self.backoff().map(|backoff| backoff.validate()) {
            Some(Err(BackoffError::MaxBelowInitial { initial, max })) => Err(ConfigError::Value {
                name: "backoff_max_ms",
                expected: format!("at least backoff_ms, which is {}", initial.as_millis()),
                got: max.as_millis().to_string(),
            }),
            Some(Err(error)) => Err(ConfigError::Value {
                name: "backoff_ms",
                expected: "a possible back-off".into(),
                got: error.to_string(),
            }),
            _ => Ok(()),
        }
    }

    pub(super) fn apply(&self, options: Subscribe) -> Subscribe {
        let options = with(options, self.concurrency, Subscribe::concurrency);
        let options = with(options, self.attempts, Subscribe::attempts);
        let options = with(options, self.backoff(), Subscribe::backoff);
        let options = with(options, self.then, Subscribe::then);
        let options = with(options, self.start.map(StartFrom::from), Subscribe::start);
        let options = with(options, self.on_log_reset, Subscribe::on_log_reset);
        let options = with(options, self.on_data_loss, Subscribe::on_data_loss);
        let options = with(options, millis(self.handler_timeout_ms), Subscribe::handler_timeout);
        let options = with(options, millis(self.drain_deadline_ms), Subscribe::drain_deadline);
        let options = with(options, millis(self.session_timeout_ms), Subscribe::session_timeout);
        let options = with(options, self.window, Subscribe::window);
        let options = with(options, self.window_bytes, Subscribe::budget_bytes);
        let options = with(options, millis(self.commit_interval_ms), Subscribe::commit_interval);
        let options = with(options, self.commit_every, Subscribe::commit_every);
        let options = with(options, self.lookback, Subscribe::lookback);
        let options = with(options, millis(self.stall_after_ms), Subscribe::stall_after);
        with(options, self.dedup_by_id, Subscribe::dedup_by_id)
    }
}

impl TopicSection {
    pub(super) fn apply(&self, spec: TopicSpec) -> TopicSpec {
        let spec = with(spec, self.partitions, TopicSpec::partitions);
        let spec = with(spec, millis(self.max_age_ms), TopicSpec::max_age);
        let spec = with(spec, self.max_bytes, TopicSpec::max_bytes);
        let spec = with(spec, self.max_messages, TopicSpec::max_messages);
        let spec = with(spec, self.storage, TopicSpec::storage);
        let spec = with(spec, self.replicas, TopicSpec::replicas);
        let spec = with(spec, millis(self.duplicate_window_ms), TopicSpec::duplicate_window);
        let spec = with(spec, self.on_existing, TopicSpec::on_existing);
        let spec = with(spec, self.after_refusal, TopicSpec::after_refusal);
        with(spec, self.strict_partitions, TopicSpec::strict_partitions)
    }
}

#[cfg(any(feature = "nats", feature = "kafka"))]
/// How envelopes are written as CloudEvents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ContentMode {
    /// Attributes in headers, the payload as it is.
    Binary,
    /// All in one JSON document.
    Structured,
}

#[cfg(any(feature = "nats", feature = "kafka"))]
impl From<ContentMode> for eventbus_core::wire::Mode {
    fn from(mode: ContentMode) -> Self {
        match mode {
            ContentMode::Binary => Self::Binary,
            ContentMode::Structured => Self::Structured,
        }
    }
}
