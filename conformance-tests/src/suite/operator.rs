//! The broker's operator: what the broker's own tools do to a topic, beside the bus.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use eventbus_core::Position;

use super::ability::{Ability, FaultError, Missing};

type Done = Result<(), FaultError>;

/// A permission that a broker may take away and give back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Right {
    /// Publishing to the topic.
    Publish,
    /// Storing the progress of the topic's groups.
    Commit,
}

/// An operator's hand on a world. What the broker has no tool for answers [`Missing`].
#[async_trait]
pub trait Operator: fmt::Debug + Send + Sync {
    /// Limits the size of a topic's records, as the broker counts it. Needs [`Ability::LowerLimit`].
    async fn limit_records(&self, topic: &str, bytes: usize) -> Done {
        let _ = (topic, bytes);
        Err(Missing(Ability::LowerLimit).into())
    }

    /// Removes one record. Needs [`Ability::RemoveRecord`].
    async fn remove_record(&self, topic: &str, partition: u32, position: Position) -> Done {
        let _ = (topic, partition, position);
        Err(Missing(Ability::RemoveRecord).into())
    }

    /// Removes the progress of all groups on a topic. Needs [`Ability::RemoveProgress`].
    async fn remove_progress(&self, topic: &str) -> Done {
        let _ = topic;
        Err(Missing(Ability::RemoveProgress).into())
    }

    /// Changes a setting so that records leave the middle of the log, and returns the setting's name. Needs
    /// [`Ability::SpoilTopic`].
    async fn spoil(&self, topic: &str) -> Result<&'static str, FaultError> {
        let _ = topic;
        Err(Missing(Ability::SpoilTopic).into())
    }

    /// Removes the readers that a topic's groups have at the broker. Returns their number. Needs
    /// [`Ability::RemoveReaders`].
    async fn remove_readers(&self, topic: &str) -> Result<usize, FaultError> {
        let _ = topic;
        Err(Missing(Ability::RemoveReaders).into())
    }

    /// Removes the records of one partition below `first`, and no other's. Needs [`Ability::Purge`].
    async fn purge(&self, topic: &str, partition: u32, first: Position) -> Done {
        let _ = (topic, partition, first);
        Err(Missing(Ability::Purge).into())
    }

    /// Sets how long a topic keeps its records. Needs [`Ability::Retain`].
    async fn retain(&self, topic: &str, long: Duration) -> Done {
        let _ = (topic, long);
        Err(Missing(Ability::Retain).into())
    }

    /// Gives every user but the operator a permission on a topic and its group, or takes it away. Needs
    /// [`Ability::Permissions`].
    async fn permit(&self, topic: &str, group: &str, right: Right, given: bool) -> Done {
        let _ = (topic, group, right, given);
        Err(Missing(Ability::Permissions).into())
    }

    /// Gives a topic this number of partitions, more than it has. Needs [`Ability::AddPartitions`].
    async fn add_partitions(&self, topic: &str, count: u32) -> Done {
        let _ = (topic, count);
        Err(Missing(Ability::AddPartitions).into())
    }
}

/// The operator of a broker without tools.
#[derive(Clone, Copy, Debug)]
pub(super) struct NoOperator;

impl Operator for NoOperator {}
