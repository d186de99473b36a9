//! The broker's operator: what the broker's own tools do to a topic, beside the bus.

use std::fmt;

use async_trait::async_trait;
use eventbus_core::Position;

use super::ability::{Ability, FaultError, Missing};

type Done = Result<(), FaultError>;

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

    /// Removes what the broker keeps of a topic's readers. Needs [`Ability::EndReaders`].
    async fn end_readers(&self, topic: &str) -> Done {
        let _ = topic;
        Err(Missing(Ability::EndReaders).into())
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
