//! By how many partitions a topic's keys go, and what happens when the topic has another number.
//!
//! # Invariant
//!
//! Two envelopes of a key go by different numbers only where the second number was accepted by the user in between, at an instant
//! at which nothing keyed was on its way. From when a difference is noticed until then keyed publishes fail at the call,
//! which seals their keys as any failure does (P2). What has its place already goes on by the old number; those partitions are still there.
//!
//! A topic that is deleted, or is another one of its name, has no envelopes that a new number could part from others: it begins anew.

use super::metadata::MetadataSource;
use crate::model::{Error, ErrorKind, Topic};
use crate::runtime::Mutex;
use crate::runtime::sync::atomic::{AtomicBool, Ordering};

/// The numbers of a topic.
#[derive(Debug, Default)]
pub(super) struct PartitionCounts {
    /// Looked at by every publish, without a lock.
    differs: AtomicBool,
    numbers: Mutex<PartitionCount>,
}

/// Zero where nothing is known.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct PartitionCount {
    pub(super) in_force: u32,
    pub(super) found: u32,
}

impl PartitionCount {
    pub(super) fn differ(self) -> bool {
        self.in_force != self.found
    }

    pub(super) fn error(self, topic: &Topic) -> Error {
        let message = format!("keys go by {} partitions, and the topic has {}", self.in_force, self.found);
        Error::new(ErrorKind::PartitionsChanged, message).with("topic", topic)
    }
}

impl PartitionCounts {
    /// The topic was found with so many partitions. `begins`: it is another topic than before, if there was one.
    pub(super) fn found(
        &self,
        found: u32,
        begins: bool,
        source: MetadataSource,
        expected: Option<u32>,
    ) -> PartitionCount {
        let mut numbers = self.numbers.lock();
        numbers.found = found;
        numbers.in_force = match source {
            MetadataSource::Accepted => found,
            MetadataSource::Ensured if begins || numbers.in_force == 0 => found,
            MetadataSource::Looked if begins || numbers.in_force == 0 => expected.unwrap_or(found),
            _ => numbers.in_force,
        };
        if numbers.differ() {
            self.differs.store(true, Ordering::Release);
        }
        *numbers
    }

    /// All shards go by these numbers: only now may keys go by them.
    pub(super) fn applied(&self) {
        let numbers = self.numbers.lock();
        self.differs.store(numbers.differ(), Ordering::Release);
    }

    /// The topic is gone.
    pub(super) fn forget(&self) {
        let mut numbers = self.numbers.lock();
        *numbers = PartitionCount::default();
        self.differs.store(false, Ordering::Release);
    }

    /// The numbers, where they differ. To be asked under a shard's lock.
    pub(super) fn difference(&self) -> Option<PartitionCount> {
        self.differs.load(Ordering::Acquire).then(|| *self.numbers.lock())
    }

    /// Whether the topic was found yet: before that there is nothing to compare with.
    pub(super) fn is_known(&self) -> bool {
        self.numbers().found != 0
    }

    pub(super) fn numbers(&self) -> PartitionCount {
        *self.numbers.lock()
    }
}
