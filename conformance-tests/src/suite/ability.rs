//! Abilities of fixtures, and the error of one that is missing.

use std::collections::BTreeSet;
use std::fmt;

/// An ability that a fixture may have, and a case may need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Ability {
    /// Refuse the n-th publish for good ([`Fixture::on_publish`](super::Fixture::on_publish)).
    RefusePublish,
    /// Store a publish and lose its confirmation.
    LoseConfirmation,
    /// Lose the confirmations of all publishes of one key, while those of other keys are confirmed.
    BlackHoleKey,
    /// Hold a publish in the network, and let it go later.
    HoldPublish,
    /// Take no writes for a topic for a while.
    TopicDown,
    /// Keep a commit from arriving.
    DropCommit,
    /// Cut one process's connection and heal it ([`Connection::cut`](super::Connection::cut)).
    CutConnection,
    /// Freeze one process, as under a debugger, and thaw it ([`Connection::freeze`](super::Connection::freeze)).
    FreezeProcess,
    /// Kill one process ([`Connection::kill`](super::Connection::kill)).
    KillProcess,
    /// End a member's session from outside.
    ExpireMember,
    /// Take one partition away from its owner without asking.
    TakePartition,
    /// Kill the broker and start it again; what it had confirmed survives.
    RestartBroker,
    /// Move a partition's leader or the group's coordinator to another node of a cluster.
    ChangeLeader,
    /// Remove a partition's oldest records, as retention would.
    Truncate,
    /// Delete a topic and create it again while groups have progress.
    Recreate,
    /// Keep a group's progress when its topic is deleted.
    KeepProgress,
    /// Recognise a stamp that is sent again, within a window that ends.
    DuplicateWindow,
    /// Store a copy of a record that is in the log already, as an older client would by sending it again too late.
    StoreCopy,
    /// Store a record that no envelope can be read from.
    StoreRaw,
    /// Store a record whose headers have any bytes as names and values.
    StoreBytes,
    /// Limit the size of records.
    LimitRecords,
    /// Lower the limit of a topic's records while it is in use.
    LowerLimit,
    /// Remove one partition's oldest records, and no other's.
    Purge,
    /// Change how long records are kept.
    Retain,
    /// Remove one record from the middle of a log.
    RemoveRecord,
    /// Remove the groups' progress on a topic while members run.
    RemoveProgress,
    /// Change a topic's setting so that the contract cannot be kept any more.
    SpoilTopic,
    /// Remove the readers that the groups have at the broker.
    RemoveReaders,
    /// Give a topic more partitions.
    AddPartitions,
    /// Take a permission away and give it back.
    Permissions,
    /// Refuse wrong credentials.
    Credentials,
    /// Park a failed envelope: a later step of the library.
    Park,
}

impl Ability {
    /// A stable name, as the matrix prints it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RefusePublish => "refuse a publish",
            Self::LoseConfirmation => "lose a confirmation",
            Self::BlackHoleKey => "black-hole one key's confirmations",
            Self::HoldPublish => "hold a publish",
            Self::TopicDown => "take a topic down",
            Self::DropCommit => "drop a commit",
            Self::CutConnection => "cut a connection",
            Self::FreezeProcess => "freeze a process",
            Self::KillProcess => "kill a process",
            Self::ExpireMember => "expire a member",
            Self::TakePartition => "take a partition away",
            Self::RestartBroker => "restart the broker",
            Self::ChangeLeader => "change the leader (a cluster)",
            Self::Truncate => "truncate a log",
            Self::Recreate => "recreate a topic",
            Self::KeepProgress => "keep progress beyond its topic",
            Self::DuplicateWindow => "duplicate window",
            Self::StoreCopy => "store a second copy",
            Self::StoreRaw => "store a raw record",
            Self::StoreBytes => "store headers of any bytes",
            Self::LimitRecords => "limit records",
            Self::LowerLimit => "lower a limit of records",
            Self::RemoveRecord => "remove one record",
            Self::RemoveProgress => "remove progress",
            Self::SpoilTopic => "spoil a topic's settings",
            Self::RemoveReaders => "remove readers",
            Self::AddPartitions => "add partitions",
            Self::Purge => "purge one partition",
            Self::Retain => "change how long records are kept",
            Self::Permissions => "change permissions",
            Self::Credentials => "credentials",
            Self::Park => "Park (a later step)",
        }
    }
}

impl fmt::Display for Ability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The abilities of a provider.
pub type Abilities = BTreeSet<Ability>;

/// An ability that the fixture was asked for and does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the fixture cannot {0}, and the case did not say that it needs it")]
pub struct Missing(pub Ability);

/// The reason why a fault was not injected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FaultError {
    /// The fixture cannot do it, and had not said that it can.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// The fixture tried, and failed with this error.
    #[error("the fault was not injected: {0}")]
    Failed(String),
}
