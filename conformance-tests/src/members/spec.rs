//! The specification of a member.

use std::path::PathBuf;
use std::time::Duration;

use eventbus_core::{Backoff, Delivery, FailurePolicy, OnDataLoss, OnLogReset, Subscribe};
use serde::{Deserialize, Serialize};

use crate::harness::{Act, Script, Step};

/// The work of a member's handlers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Work {
    /// Succeed after a time that differs from envelope to envelope, below `micros`.
    Unsteady {
        /// The seed of the times.
        seed: u64,
        /// The longest time, in microseconds.
        micros: u64,
    },
    /// Fail one number of one key at every attempt, and succeed otherwise.
    FailOne {
        /// The key.
        key: String,
        /// The number.
        number: u64,
    },
    /// Fail all keys with this prefix, at every attempt, and succeed otherwise.
    FailKeys {
        /// The prefix.
        prefix: String,
    },
    /// Work as `Unsteady`, and fail one first attempt in so many; a second one never fails.
    FailSometimes {
        /// The seed of times and failures.
        seed: u64,
        /// The longest time, in microseconds.
        micros: u64,
        /// One first attempt in so many fails.
        one_in: u64,
    },
}

fn drawn(seed: u64, delivery: &Delivery, number: u64) -> u64 {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    bytes[8..16].copy_from_slice(&number.to_be_bytes());
    bytes[16..].copy_from_slice(&delivery.position().get().to_be_bytes());
    crate::history::digest(&bytes)
}

impl Script for Work {
    fn step(&self, delivery: &Delivery, number: u64) -> Step {
        let key = delivery.envelope().key().map_or(&b""[..], |key| key.as_bytes());
        let millisecond = Duration::from_millis(1);
        let failing = |fails: bool| Step { takes: millisecond, then: if fails { Act::Fail } else { Act::Succeed } };
        match self {
            Self::Unsteady { seed, micros } => {
                Step::succeed(Duration::from_micros(drawn(*seed, delivery, number) % micros.max(&1)))
            }
            Self::FailOne { key: failed, number: at } => failing(key == failed.as_bytes() && number == *at),
            Self::FailKeys { prefix } => failing(key.starts_with(prefix.as_bytes())),
            Self::FailSometimes { seed, micros, one_in } => {
                let draw = drawn(*seed, delivery, number);
                let fails = delivery.attempt() == 1 && (draw >> 32).is_multiple_of(*one_in.max(&1));
                let then = if fails { Act::Fail } else { Act::Succeed };
                Step { takes: Duration::from_micros(draw % micros.max(&1)), then }
            }
        }
    }
}

/// A member, as plain data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MemberSpec {
    /// The server's URL.
    pub server: String,
    /// The prefix of its world.
    pub prefix: String,
    /// The topic.
    pub topic: String,
    /// The group.
    pub group: String,
    /// The beginning of its name.
    pub name: String,
    /// The process's number in the history, unique there.
    pub process: u32,
    /// The file of its history.
    pub history: PathBuf,
    /// The work of its handlers.
    pub work: Work,
    /// Handlers at once. Default 16.
    pub concurrency: usize,
    /// Attempts before an envelope is dead-lettered. Default 5.
    pub attempts: u32,
    /// Milliseconds between attempts. Default 20.
    pub backoff_ms: u64,
    /// Milliseconds of silence after which its partitions go to others. Default 3 000.
    pub session_ms: u64,
    /// Milliseconds between commits. Default 200.
    pub commit_ms: u64,
    /// Whether it goes on after a loss of records. Default: it ends.
    pub passes_losses: bool,
    /// Whether it begins anew where the group's progress is gone. Default: it ends.
    pub begins_anew: bool,
}

impl MemberSpec {
    /// A member with the defaults of the suite.
    #[must_use]
    pub fn new(server: String, prefix: String, topic: &str, group: &str, work: Work) -> Self {
        Self {
            server,
            prefix,
            topic: topic.into(),
            group: group.into(),
            name: "member".into(),
            process: 0,
            history: PathBuf::new(),
            work,
            concurrency: 16,
            attempts: 5,
            backoff_ms: 20,
            session_ms: 3_000,
            commit_ms: 200,
            passes_losses: false,
            begins_anew: false,
        }
    }

    /// The subscription of this member.
    pub fn subscribe(&self) -> Subscribe {
        Subscribe::to(self.topic.as_str())
            .group(self.group.as_str())
            .member(self.name.as_str())
            .concurrency(self.concurrency)
            .attempts(self.attempts)
            .backoff(Backoff::fixed(Duration::from_millis(self.backoff_ms)))
            .then(FailurePolicy::DeadLetter)
            .session_timeout(Duration::from_millis(self.session_ms))
            .drain_deadline(Duration::from_secs(10))
            .commit_interval(Duration::from_millis(self.commit_ms))
            .on_data_loss(if self.passes_losses { OnDataLoss::Continue } else { OnDataLoss::Stop })
            .on_log_reset(if self.begins_anew { OnLogReset::Earliest } else { OnLogReset::Stop })
    }
}
