//! Options of a subscription: [`Subscribe`].

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::backend::{Backend, LogState};
use crate::model::{Error, ErrorKind, Group, Position, Result, Topic};
use crate::runtime::Backoff;
use crate::validate::{invalid, within};

/// The time for which an envelope is tried at least, where neither attempts nor a policy are set.
pub(crate) const GIVE_UP_AFTER: Duration = Duration::from_secs(600);

/// Policy for an envelope whose attempts and time are used up (S2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FailurePolicy {
    /// The envelope goes to the dead-letter topic of this topic and group; its key goes on once that write is
    /// confirmed.
    #[default]
    DeadLetter,
    /// The envelope is counted, reported and finished.
    Skip,
    /// The subscription stops with the error; nothing past the envelope is acknowledged.
    Stop,
}

/// Reaction to a log that is another one than the group's progress was written for, or that was cut (S3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum OnLogReset {
    /// The subscription ends with `LogReset`.
    #[default]
    Stop,
    /// The old progress is discarded and the log is handled from its first record.
    Earliest,
}

/// Reaction to records that retention took before they were handled (S3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum OnDataLoss {
    /// The subscription ends with `DataLost`.
    #[default]
    Stop,
    /// The loss is reported and counted, and handling goes on with the first record that is left.
    Continue,
}

/// Starting point of a group without progress, or the target of a seek.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum StartFrom {
    /// The first record of the log.
    #[default]
    Earliest,
    /// The next record to be published.
    Latest,
    /// The first record stored at or after this time, in milliseconds since the Unix epoch.
    Time(u64),
    /// These positions; partitions that are not named start at the earliest record.
    Positions(BTreeMap<u32, Position>),
}

impl StartFrom {
    /// Returns the position that this names in a partition with this log, kept within the log's ends: for a group
    /// without progress, a seek, or the reset of a group.
    pub(crate) async fn position(
        &self,
        backend: &dyn Backend,
        topic: &Topic,
        partition: u32,
        log: &LogState,
    ) -> Result<Position> {
        let position = match self {
            Self::Earliest => log.first,
            Self::Latest => log.end,
            Self::Positions(positions) => positions.get(&partition).copied().unwrap_or(log.first),
            Self::Time(millis) => backend.position_at(topic, partition, *millis).await?,
        };
        Ok(position.clamp(log.first, log.end.max(log.first)))
    }
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
    chosen: Chosen,
}

/// Declares the settings of a subscription, each once, with its default, and a setter for each in the first list.
macro_rules! settings {
    (
        with setters { $($(#[$doc:meta])* $name:ident: $type:ty = $default:expr;)* }
        others { $($other:ident: $other_type:ty = $other_default:expr;)* }
    ) => {
        /// The settings of a subscription, with defaults for those that were not set.
        #[derive(Debug, Clone)]
        pub(crate) struct Settings {
            $(pub(crate) $name: $type,)*
            $(pub(crate) $other: $other_type,)*
        }

        impl Default for Settings {
            fn default() -> Self {
                Self { $($name: $default,)* $($other: $other_default,)* }
            }
        }

        /// The settings that the user set; `None` for the others.
        #[derive(Debug, Clone, Default)]
        struct Chosen {
            $($name: Option<$type>,)*
            $($other: Option<$other_type>,)*
        }

        impl Chosen {
            fn or(self, defaults: &Self) -> Self {
                Self {
                    $($name: self.$name.or_else(|| defaults.$name.clone()),)*
                    $($other: self.$other.or_else(|| defaults.$other.clone()),)*
                }
            }

            fn settings(self) -> Settings {
                Settings {
                    $($name: self.$name.unwrap_or_else(|| $default),)*
                    $($other: self.$other.unwrap_or_else(|| $other_default),)*
                }
            }
        }

        impl Subscribe {
            $($(#[$doc])*
            pub fn $name(mut self, $name: $type) -> Self {
                self.chosen.$name = Some($name);
                self
            })*
        }
    };
}

settings! {
    with setters {
        /// Sets the most handlers at once. Default 16.
        concurrency: usize = 16;
        /// Sets the attempts per envelope before the failure policy decides. Default 5. Where these are set, and
        /// [`give_up_after`](Self::give_up_after) is not, the attempts alone count.
        attempts: u32 = 5;
        /// Sets how long an envelope is tried at least: the failure policy decides when its attempts *and* this time,
        /// counted from its first failed attempt in this ownership, are used up. Zero: the attempts alone count.
        ///
        /// Default 10 minutes where neither the attempts nor the [policy](Self::then) are set, so that an outage of
        /// what the handler needs costs no order; zero where one of them is.
        give_up_after: Duration = GIVE_UP_AFTER;
        /// Sets the outage guard: where the envelopes of this many keys fail and nothing succeeds in between, what the
        /// handlers need is taken to be away, and not the envelopes to be at fault. Handling is suspended: one envelope
        /// at a time is tried, with pauses of up to 5 s; none is charged an attempt, and none is given up. After the first
        /// success handlers start again in steps. Zero: never.
        ///
        /// The guard is each member's own. Default 8 where the budget in time has its default, too: neither the
        /// attempts nor the [policy](Self::then) are set; zero where one of them is.
        outage_guard: usize = 8;
        /// Sets the wait between attempts. Default 100 ms doubling to 30 s with full jitter.
        backoff: Backoff = Backoff::default();
        /// Sets where a group without progress starts. Default [`StartFrom::Earliest`].
        start: StartFrom = StartFrom::default();
        /// Sets the reaction to a replaced or shortened log. Default [`OnLogReset::Stop`].
        on_log_reset: OnLogReset = OnLogReset::default();
        /// Sets the reaction to records lost to retention. Default [`OnDataLoss::Stop`].
        on_data_loss: OnDataLoss = OnDataLoss::default();
        /// Sets how long a hand-over waits for running handlers. Default 30 s.
        drain_deadline: Duration = Duration::from_secs(30);
        /// Sets how long a silent member keeps its partitions. Default 10 s.
        session_timeout: Duration = Duration::from_secs(10);
        /// Sets the most records per partition between the watermark and the newest delivered one. Default 100 000, at
        /// least 1 000.
        window: usize = 100_000;
        /// Sets the bytes of payload held per partition. Default 64 MiB.
        budget_bytes: usize = 64 << 20;
        /// Sets the longest time that finished work stays uncommitted. Default 200 ms.
        commit_interval: Duration = Duration::from_millis(200);
        /// Sets the number of finished envelopes after which a commit is made before its time. Default 5 000.
        commit_every: usize = 5_000;
        /// Sets how many positions before the watermark are read at a session's start, to recognise second copies (P3).
        /// Default 10 000.
        lookback: u64 = 10_000;
        /// Sets the age at which a partition's oldest unfinished envelope is reported as stalled. Default 30 s.
        stall_after: Duration = Duration::from_secs(30);
        /// Drops also envelopes whose source and id were seen before in the partition. Default off: distinct publishes
        /// are never taken for copies, whatever ids their users chose.
        dedup_by_id: bool = false;
    }
    others {
        policy: FailurePolicy = FailurePolicy::default();
        handler_timeout: Option<Duration> = None;
        wait_for_topic: Option<Duration> = None;
    }
}

impl Chosen {
    /// Returns the settings. Who sets attempts or a policy gets these alone.
    fn in_force(self) -> Settings {
        let chosen = self.attempts.is_some() || self.policy.is_some();
        let (time, guard) = (self.give_up_after, self.outage_guard);
        let mut settings = self.settings();
        if chosen {
            settings.give_up_after = time.unwrap_or(Duration::ZERO);
            settings.outage_guard = guard.unwrap_or(0);
        }
        settings
    }
}

impl Subscribe {
    /// Makes a subscription to one topic, in the group `default`.
    pub fn to(topic: impl Into<String>) -> Self {
        Self { topic: topic.into(), group: "default".into(), member: None, chosen: Chosen::default() }
    }

    /// Sets the group that shares the work. Default `default`.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.group = group.into();
        self
    }

    /// Sets a readable name for this member, to which a random part is added. Default `member`.
    pub fn member(mut self, member: impl Into<String>) -> Self {
        self.member = Some(member.into());
        self
    }

    /// Sets the policy for an envelope whose attempts and time are used up. Default [`FailurePolicy::DeadLetter`].
    /// Where a policy is set, and [`give_up_after`](Self::give_up_after) is not, the attempts alone count.
    pub fn then(mut self, policy: FailurePolicy) -> Self {
        self.chosen.policy = Some(policy);
        self
    }

    /// Sets how long one attempt may take before it counts as failed and its future is dropped. Default: no limit.
    pub fn handler_timeout(mut self, timeout: Duration) -> Self {
        self.chosen.handler_timeout = Some(Some(timeout));
        self
    }

    /// Sets how long subscribing waits for a topic that does not exist yet. The wait is told as
    /// [`BusEvent::AwaitingTopic`](crate::BusEvent::AwaitingTopic). Default: it fails at once.
    pub fn wait_for_topic(mut self, patience: Duration) -> Self {
        self.chosen.wait_for_topic = Some(Some(patience));
        self
    }

    /// Takes every setting that was not set here from `defaults`, where it was set there. Topic, group and member stay.
    /// So a configuration can give defaults that code overrides.
    ///
    /// ```
    /// use eventbus_core::Subscribe;
    ///
    /// let defaults = Subscribe::to("any").concurrency(64).attempts(9);
    /// let mine = Subscribe::to("orders").attempts(2).or(&defaults);
    /// assert!(format!("{mine:?}").contains("concurrency: Some(64), attempts: Some(2)"));
    /// ```
    pub fn or(mut self, defaults: &Self) -> Self {
        self.chosen = self.chosen.or(&defaults.chosen);
        self
    }

    /// Returns the names and settings, every one checked (S8).
    ///
    /// # Errors
    /// `InvalidName` or `InvalidConfig`, naming the setting and what was expected.
    pub(crate) fn checked(self) -> Result<(Topic, Group, Settings)> {
        let (topic, group) = (self.topic.parse::<Topic>()?, self.group.parse::<Group>()?);
        let s = self.chosen.in_force();
        within("concurrency", &s.concurrency, 1..)?;
        within("attempts", &s.attempts, 1..)?;
        within("window", &s.window, 1_000..)?;
        within("budget_bytes", &s.budget_bytes, 1..)?;
        within("commit_every", &s.commit_every, 1..)?;
        s.backoff
            .validate()
            .map_err(|error| Error::new(ErrorKind::InvalidConfig, error.to_string()).with("setting", "backoff"))?;
        for (name, value) in [
            ("commit_interval", s.commit_interval),
            ("session_timeout", s.session_timeout),
            ("handler_timeout", s.handler_timeout.unwrap_or(Duration::MAX)),
        ] {
            if value.is_zero() {
                return Err(invalid(name, "expected more than zero"));
            }
        }
        Ok((topic, group, s))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_force(options: Subscribe) -> (u32, Duration, usize) {
        let (_, _, settings) = options.checked().unwrap();
        (settings.attempts, settings.give_up_after, settings.outage_guard)
    }

    #[test]
    fn who_sets_attempts_or_a_policy_gets_more_than_these() {
        let any = || Subscribe::to("t");
        let second = Duration::from_secs(1);
        assert_eq!(in_force(any()), (5, GIVE_UP_AFTER, 8));
        assert_eq!(in_force(any().attempts(7)), (7, Duration::ZERO, 0));
        assert_eq!(in_force(any().then(FailurePolicy::Stop)), (5, Duration::ZERO, 0));
        assert_eq!(in_force(any().attempts(7).give_up_after(second)), (7, second, 0));
        assert_eq!(in_force(any().attempts(7).outage_guard(3)), (7, Duration::ZERO, 3));
        assert_eq!(in_force(any().give_up_after(second)), (5, second, 8));
        assert_eq!(in_force(any().or(&any().attempts(7))), (7, Duration::ZERO, 0), "a configuration sets, too");
    }
}
