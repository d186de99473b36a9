//! Sections that are the same whatever the backend, and their settings.

use std::sync::LazyLock;
use std::time::Duration;

use eventbus_core::{
    AfterRefusal, Backoff, BackoffError, BusConfig, FailurePolicy, Jitter, OnDataLoss, OnExisting, OnLogReset,
    StartFrom, Storage, Subscribe, Threads, TopicSpec,
};

use super::ConfigError;
use super::declare::{millis, section, with, words};
use super::knobs::{Knob, KnobKind, Section, at_least, number};

use KnobKind::{Flag, Word};

/// Kind of a time in milliseconds, up to a hundred years, so that sums of times do not overflow.
const TIME: KnobKind = number(1, CENTURY);
const CENTURY: u64 = 100 * 366 * DAY;
const DAY: u64 = 24 * 3_600_000;

section! {
    /// Section `[publish]`: the publishing side. A setting without a value has the library's default.
    #[derive(Debug)]
    pub struct PublishSection in Publish for BusConfig {
        /// envelopes admitted and not yet answered
        budget_envelopes: usize = "10000", at_least(1) => BusConfig::budget_envelopes;
        /// bytes admitted and not yet answered
        budget_bytes: usize = "64 MiB", at_least(1) => BusConfig::budget_bytes;
        /// one key may hold the budget divided by this
        share: usize = "8", at_least(1) => BusConfig::share;
        /// envelopes waiting for room before publishes fail
        waiting_limit: usize = "100000", at_least(1) => BusConfig::waiting_limit;
        /// keys of a topic sealed at once, beyond it the topic is
        sealed_limit: usize = "10000", at_least(1) => BusConfig::sealed_limit;
        /// the first wait before a record is sent again
        resend_ms: u64 = "20 ms", TIME;
        /// the longest wait before a record is sent again
        resend_max_ms: u64 = "1 s", TIME;
        /// age of a retry at which it is reported
        notice_after_ms: u64 = "5 s", TIME => millis(BusConfig::notice_after);
        /// how often topics in use are looked at for a changed number of partitions
        recount_ms: u64 = "30 s", TIME => millis(BusConfig::recount);
        /// where the bus's own work runs
        threads: Threads = "own", Word(&["own", "caller"]) => BusConfig::threads;
    }
}

section! {
    /// Section `[subscribe]`: defaults for the options that a subscription does not set. A setting without a value has
    /// the library's default.
    #[derive(Debug)]
    pub struct SubscribeSection in Subscribe for Subscribe {
        /// handlers at once
        concurrency: usize = "16", number(1, 1_000_000) => Subscribe::concurrency;
        /// attempts before the failure policy decides
        attempts: u32 = "5", number(1, u32::MAX as u64) => Subscribe::attempts;
        /// the least time before the failure policy decides; 0 where `attempts` or `then` is set
        give_up_after_ms: u64 = "10 min", number(0, CENTURY) => millis(Subscribe::give_up_after);
        /// keys that fail in a row until handling is suspended; 0: never, and where `attempts` or `then` is set
        outage_guard: usize = "8", at_least(0) => Subscribe::outage_guard;
        /// the wait after the first failed attempt
        backoff_ms: u64 = "100 ms", number(1, DAY);
        /// the longest wait between attempts
        backoff_max_ms: u64 = "30 s", number(1, DAY);
        /// what the wait grows by
        backoff_factor: u32 = "2", number(1, u32::MAX as u64);
        /// what chance does to the wait
        jitter: Jitter = "full", Word(&["full", "none"]);
        /// what happens when attempts are used up
        then: FailurePolicy = "dead-letter", Word(&["dead-letter", "skip", "stop"]) => Subscribe::then;
        /// where a group without progress starts
        start: Start = "earliest", Word(Start::WORDS) => |options, start| options.start(start.into());
        /// what a replaced or shortened log does
        on_log_reset: OnLogReset = "stop", Word(&["stop", "earliest"]) => Subscribe::on_log_reset;
        /// what records lost to retention do
        on_data_loss: OnDataLoss = "stop", Word(&["stop", "continue"]) => Subscribe::on_data_loss;
        /// how long one attempt may take
        handler_timeout_ms: u64 = "no limit", TIME => millis(Subscribe::handler_timeout);
        /// how long subscribing waits for a topic that does not exist yet
        wait_for_topic_ms: u64 = "not at all", TIME => millis(Subscribe::wait_for_topic);
        /// how long a hand-over waits for running handlers
        drain_deadline_ms: u64 = "30 s", number(0, CENTURY) => millis(Subscribe::drain_deadline);
        /// how long a silent member keeps its partitions
        session_timeout_ms: u64 = "10 s", TIME => millis(Subscribe::session_timeout);
        /// records per partition from watermark to newest
        window: usize = "100000", at_least(1_000) => Subscribe::window;
        /// bytes of payload held per partition
        window_bytes: usize = "64 MiB", at_least(1) => Subscribe::budget_bytes;
        /// the longest that finished work stays uncommitted
        commit_interval_ms: u64 = "200 ms", TIME => millis(Subscribe::commit_interval);
        /// finished envelopes that make a commit come early
        commit_every: usize = "5000", at_least(1) => Subscribe::commit_every;
        /// positions read before the watermark to recognise copies
        lookback: u64 = "10000", at_least(0) => Subscribe::lookback;
        /// age of an unfinished envelope that is reported
        stall_after_ms: u64 = "30 s", TIME => millis(Subscribe::stall_after);
        /// also drop envelopes whose source and id were seen before
        dedup_by_id: bool = "false", Flag => Subscribe::dedup_by_id;
    }
}

section! {
    /// Section `[topic]`: defaults for what a topic's spec does not set. A setting without a value has the library's
    /// default.
    #[derive(Debug)]
    pub struct TopicSection in Topic for TopicSpec {
        /// partitions, the unit that the broker orders
        partitions: u32 = "16", number(1, 4_096) => TopicSpec::partitions;
        /// age at which records may be removed
        max_age_ms: u64 = "never", TIME => millis(TopicSpec::max_age);
        /// bytes kept
        max_bytes: u64 = "no limit", at_least(1) => TopicSpec::max_bytes;
        /// records kept
        max_messages: u64 = "no limit", at_least(1) => TopicSpec::max_messages;
        /// where records are kept
        storage: Storage = "file", Word(&["file", "memory"]) => TopicSpec::storage;
        /// copies of the log in the cluster
        replicas: u32 = "1", number(1, 99) => TopicSpec::replicas;
        /// how long the broker remembers message ids
        duplicate_window_ms: u64 = "2 min", number(100, CENTURY) => millis(TopicSpec::duplicate_window);
        /// how an existing topic is treated
        on_existing: OnExisting = "validate",
            Word(&["create-only", "create-or-update", "validate", "leave-alone"]) => TopicSpec::on_existing;
        /// what a refused publish does to its key
        after_refusal: AfterRefusal = "seal-key",
            Word(&["seal-key", "seal-until-resumed", "continue"]) => TopicSpec::after_refusal;
        /// refuse records in another partition than their key's
        strict_partitions: bool = "false", Flag => TopicSpec::strict_partitions;
    }
}

words! {
    /// Start of a group without progress. Times and positions can be given in code and in the program's options.
    pub enum Start for StartFrom {
        /// Starts with the first record of the log.
        "earliest" Earliest,
        /// Starts with the next record to be published.
        "latest" Latest,
    }
}

#[cfg(any(feature = "nats", feature = "kafka"))]
words! {
    /// Content mode: how envelopes are written as CloudEvents.
    pub enum ContentMode for eventbus_core::wire::Mode {
        /// Attributes in headers, the payload as it is.
        "binary" Binary,
        /// Attributes and payload in one JSON document.
        "structured" Structured,
    }
}

/// Returns all settings that do not depend on the backend, with their values, effects and defaults.
#[must_use]
pub fn knobs() -> &'static [Knob] {
    static KNOBS: LazyLock<Vec<Knob>> =
        LazyLock::new(|| [PublishSection::KNOBS, SubscribeSection::KNOBS, TopicSection::KNOBS].concat());
    &KNOBS
}

pub(super) fn knobs_of(section: Section) -> impl Iterator<Item = &'static Knob> + Clone {
    knobs().iter().filter(move |knob| knob.section == section)
}

impl PublishSection {
    /// Returns the first and the longest wait. If only one is given, the default of the other moves with it where it
    /// must.
    pub(super) fn resend(&self) -> Option<(Duration, Duration)> {
        let given = self.resend_ms.or(self.resend_max_ms)?;
        let first = self.resend_ms.unwrap_or(given.min(20));
        let max = self.resend_max_ms.unwrap_or(given.max(1_000));
        Some((Duration::from_millis(first), Duration::from_millis(max)))
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let (first, max) = self.resend().unwrap_or_default();
        in_order(("resend_ms", first), ("resend_max_ms", max))
    }
}

impl SubscribeSection {
    pub(super) fn backoff(&self) -> Option<Backoff> {
        let times = [self.backoff_ms, self.backoff_max_ms];
        if times == [None; 2] && self.backoff_factor.is_none() && self.jitter.is_none() {
            return None;
        }
        let backoff = with(Backoff::exponential(), self.backoff_ms, millis(Backoff::initial));
        let backoff = with(backoff, self.backoff_max_ms, millis(Backoff::max));
        let backoff = with(backoff, self.backoff_factor, Backoff::factor);
        Some(with(backoff, self.jitter, Backoff::jitter))
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        match self.backoff().map(|backoff| backoff.validate()) {
            Some(Err(BackoffError::MaxBelowInitial { initial, max })) => {
                in_order(("backoff_ms", initial), ("backoff_max_ms", max))
            }
            // Each value alone is in its range.
            _ => Ok(()),
        }
    }
}

/// Refuses a longest wait that is shorter than the first one.
fn in_order((first_name, first): (&str, Duration), (name, max): (&'static str, Duration)) -> Result<(), ConfigError> {
    let expected = format!("at least {first_name}, which is {}", first.as_millis());
    ConfigError::value_if(max < first, name, expected, max.as_millis())
}
