//! Fault events, as observers are told of them.

use std::fmt;
use std::sync::Arc;

use eventbus_core::backend::Outbound;
use eventbus_core::{Group, Key, Stamp, Topic};

/// A fault that took effect.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FaultEvent {
    /// The kind of fault.
    pub kind: FaultKind,
    /// The place where it took effect.
    pub place: FaultPlace,
}

/// The kinds of faults that take effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum FaultKind {
    /// A submission vanished.
    Dropped,
    /// A submission takes longer.
    Delayed,
    /// A submission was refused for good.
    Refused,
    /// A submission was not stored.
    NotStored,
    /// A submission is stored without a confirmation.
    ConfirmationLost,
    /// A submission is held in the network.
    Held,
    /// A held submission was let go.
    Released,
    /// A partition was taken away before a commit.
    CommitFenced,
    /// A commit did not arrive.
    CommitUnavailable,
    /// A commit was stored and the answer lost.
    CommitAnswerLost,
    /// A connection was cut.
    Cut,
    /// A connection came back.
    Healed,
    /// A backend was frozen.
    Frozen,
    /// A backend was thawed.
    Thawed,
    /// A member was killed, or dropped without leaving.
    Killed,
    /// A member's session was ended.
    SessionExpired,
    /// A member's heartbeats are suppressed.
    HeartbeatsStopped,
    /// A member's heartbeats come through again.
    HeartbeatsResumed,
    /// A partition was taken away without asking.
    TakenAway,
    /// A partition's oldest records were removed.
    Truncated,
    /// A topic was deleted and created again.
    Recreated,
    /// The broker went down.
    BrokerDown,
    /// The broker came back.
    BrokerUp,
}

impl FaultKind {
    /// A stable lower-case name, for histories.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dropped => "dropped",
            Self::Delayed => "delayed",
            Self::Refused => "refused",
            Self::NotStored => "not_stored",
            Self::ConfirmationLost => "confirmation_lost",
            Self::Held => "held",
            Self::Released => "released",
            Self::CommitFenced => "commit_fenced",
            Self::CommitUnavailable => "commit_unavailable",
            Self::CommitAnswerLost => "commit_answer_lost",
            Self::Cut => "cut",
            Self::Healed => "healed",
            Self::Frozen => "frozen",
            Self::Thawed => "thawed",
            Self::Killed => "killed",
            Self::SessionExpired => "session_expired",
            Self::HeartbeatsStopped => "heartbeats_stopped",
            Self::HeartbeatsResumed => "heartbeats_resumed",
            Self::TakenAway => "taken_away",
            Self::Truncated => "truncated",
            Self::Recreated => "recreated",
            Self::BrokerDown => "broker_down",
            Self::BrokerUp => "broker_up",
        }
    }

    pub(crate) fn at(self, place: FaultPlace) -> FaultEvent {
        FaultEvent { kind: self, place }
    }
}

/// A callback that hears of each fault that takes effect.
pub(crate) type Observer = Arc<dyn Fn(&FaultEvent) + Send + Sync>;

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The place of a fault. Fields that do not apply are `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FaultPlace {
    /// The topic.
    pub topic: Option<Topic>,
    /// The partition.
    pub partition: Option<u32>,
    /// The record's key.
    pub key: Option<Key>,
    /// The record's stamp.
    pub stamp: Option<Stamp>,
    /// The group.
    pub group: Option<Group>,
    /// The member.
    pub member: Option<String>,
    /// The number of the backend's connection.
    pub connection: Option<u64>,
}

impl FaultPlace {
    pub(crate) fn record(connection: u64, record: &Outbound) -> Self {
        Self {
            partition: Some(record.partition),
            key: record.envelope.key().cloned(),
            stamp: Some(record.stamp),
            connection: Some(connection),
            ..Self::topic(&record.topic)
        }
    }

    pub(crate) fn connection(connection: u64) -> Self {
        Self { connection: Some(connection), ..Self::default() }
    }

    pub(crate) fn partition(topic: &Topic, partition: u32) -> Self {
        Self { partition: Some(partition), ..Self::topic(topic) }
    }

    pub(crate) fn topic(topic: &Topic) -> Self {
        Self { topic: Some(topic.clone()), ..Self::default() }
    }
}

impl fmt::Display for FaultEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FaultPlace { topic, partition, key, stamp, group, member, connection } = &self.place;
        write!(f, "{}", self.kind)?;
        let mut part = |name: &str, value: Option<String>| value.map_or(Ok(()), |value| write!(f, " {name}={value}"));
        part("topic", topic.as_ref().map(ToString::to_string))?;
        part("partition", partition.map(|p| p.to_string()))?;
        part("key", key.as_ref().map(|key| String::from_utf8_lossy(key.as_bytes()).into_owned()))?;
        part("stamp", stamp.map(|stamp| stamp.to_string()))?;
        part("group", group.as_ref().map(ToString::to_string))?;
        part("member", member.clone())?;
        part("connection", connection.map(|c| c.to_string()))
    }
}
