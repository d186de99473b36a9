//! What is known of a topic while it is published to, and the way to each of its partitions.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::serial_queue::SerialQueue;
use crate::backend::{Backend, Outbound, Ticket};
use crate::model::{Key, Position};
use crate::runtime::sync::atomic::{AtomicU64, Ordering};

/// A topic as its lanes see it.
#[derive(Debug)]
pub(super) struct TopicMetadata {
    pub(super) partitions: Vec<Arc<Partition>>,
    /// By so many of them keys go; all, unless the topic has grown.
    pub(super) keyed: u32,
    /// Counts incarnations of the topic as they are met.
    pub(super) incarnation: u32,
    /// The incarnation by its name.
    pub(super) log: Arc<str>,
    pub(super) max_record_bytes: Option<usize>,
    /// After this time since its first send, an envelope of unknown fate is looked for before it is sent again.
    pub(super) resend_window: Option<Duration>,
    pub(super) keyless: AtomicU64,
}

impl TopicMetadata {
    /// The partition of a key; keyless envelopes go round.
    pub(super) fn partition_of(&self, key: Option<&Key>) -> u32 {
        let count = self.partitions.len().max(1);
        match key {
            Some(key) => key.partition(self.keyed),
            None => (self.keyless.fetch_add(1, Ordering::Relaxed) % count as u64) as u32,
        }
    }

    pub(super) fn partition(&self, partition: u32) -> &Arc<Partition> {
        &self.partitions[partition as usize % self.partitions.len()]
    }
}

/// One partition, as far as submitting to it goes.
pub(super) struct Partition {
    /// No record that is submitted from now on can be below.
    pub(super) end: AtomicU64,
    pub(super) submissions: SerialQueue<(Outbound, Ticket)>,
}

impl Partition {
    pub(super) fn new(end: Position) -> Arc<Self> {
        Arc::new(Self { end: AtomicU64::new(end.get()), submissions: SerialQueue::new() })
    }

    pub(super) fn end(&self) -> Position {
        Position::new(self.end.load(Ordering::Relaxed))
    }

    /// A record is known to be stored here.
    pub(super) fn saw(&self, position: Position) {
        self.end.fetch_max(position.next().get(), Ordering::Relaxed);
    }

    /// Hands what is queued to the backend, one at a time and in order.
    pub(super) fn submit_all(&self, backend: &dyn Backend) {
        self.submissions.work(|(record, ticket)| backend.submit(record, ticket));
    }
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partition").field("end", &self.end()).finish_non_exhaustive()
    }
}

/// Where a description comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MetadataSource {
    /// The driver looked.
    Looked,
    /// Somebody ensured the topic through this bus.
    Ensured,
    /// Its number of partitions was accepted.
    Accepted,
}

/// How long the broker can be trusted to drop a copy. A backend that remembers nothing says so by zero; otherwise the
/// topic's own window counts, less a quarter: the broker may have begun to count before we did, and a re-send takes time.
pub(super) fn usable_window(backend: Duration, topic: Duration) -> Duration {
    if backend.is_zero() { Duration::ZERO } else { topic / 4 * 3 }
}
