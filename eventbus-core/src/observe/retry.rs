//! [`Retry`]: an operation that fails and is tried again, as it is told.

use std::fmt;
use std::time::Duration;

use crate::model::{Error, Group, Key, Topic};

/// An operation that fails and is tried again: the oldest of its kind on a topic.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Retry<'a> {
    /// The operation, by its name in the metrics' label `messaging.operation.name`.
    pub operation: &'static str,
    /// The topic.
    pub topic: &'a Topic,
    /// The group; `None` for a publish.
    pub group: Option<&'a Group>,
    /// The partition, where the operation is about one.
    pub partition: Option<u32>,
    /// The key, where the operation is about one.
    pub key: Option<&'a Key>,
    /// The time since the operation was first tried.
    pub age: Duration,
    /// How many other operations of this kind on the topic are as late.
    pub others: usize,
    /// The last error, with the broker's own words.
    pub error: &'a Error,
}

impl<'a> Retry<'a> {
    /// Makes a retry of an operation on a topic, which is `age` old and whose last error this is.
    pub(crate) fn new(operation: &'static str, topic: &'a Topic, age: Duration, error: &'a Error) -> Self {
        Self { operation, topic, group: None, partition: None, key: None, age, others: 0, error }
    }
}

impl fmt::Display for Retry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: topic {}", self.operation, self.topic)?;
        if let Some(group) = self.group {
            write!(f, ", group {group}")?;
        }
        if let Some(partition) = self.partition {
            write!(f, ", partition {partition}")?;
        }
        if let Some(key) = self.key {
            write!(f, ", key {key}")?;
        }
        write!(f, ": no success for {} s", self.age.as_secs())?;
        if self.others > 0 {
            write!(f, ", nor for {} more", self.others)?;
        }
        write!(f, "; it is tried again: {}", self.error)
    }
}
