//! The number of partitions that a topic's keys go by, and what happens when the topic has another number.
//!
//! # Invariant
//!
//! Two envelopes of a key go by different numbers only if the user accepted the second number in between, at an instant
//! at which nothing keyed was on its way. From the moment a difference is noticed until then, keyed publishes fail at
//! the call, which seals their keys as any failure does (P2). Envelopes that have their places already go on by the old
//! number; those partitions are still there.
//!
//! A topic that was deleted, or that is another one of its name, has no envelopes that a new number could part from
//! others: it begins anew.

use super::metadata::MetadataSource;
use crate::model::{Error, ErrorKind, Topic};
use crate::runtime::Mutex;
use crate::runtime::sync::atomic::{AtomicBool, Ordering};

/// The partition counts of a topic.
#[derive(Debug, Default)]
pub(super) struct PartitionCounts {
    /// Whether the counts differ. Every publish reads it, without a lock.
    differs: AtomicBool,
    numbers: Mutex<PartitionCount>,
}

/// The number of partitions that keys go by, and the number that the topic was found with. Zero: not known.
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
    /// Notes that the topic was found with `found` partitions. `begins` says that it is another topic than before, or
    /// the first; `expected` is the configured number. A difference stops keyed publishes from now on.
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

    /// Notes that all shards go by these counts: only now may keys go by them.
    pub(super) fn applied(&self) {
        let numbers = self.numbers.lock();
        self.differs.store(numbers.differ(), Ordering::Release);
    }

    /// Forgets the counts of a topic that is gone.
    pub(super) fn forget(&self) {
        let mut numbers = self.numbers.lock();
        *numbers = PartitionCount::default();
        self.differs.store(false, Ordering::Release);
    }

    /// Returns the counts, where they differ. To be called under a shard's lock.
    pub(super) fn difference(&self) -> Option<PartitionCount> {
        self.differs.load(Ordering::Acquire).then(|| *self.numbers.lock())
    }

    /// Whether the topic was found yet; before that there is nothing to compare with.
    pub(super) fn is_known(&self) -> bool {
        self.numbers().found != 0
    }

    pub(super) fn numbers(&self) -> PartitionCount {
        *self.numbers.lock()
    }
}
