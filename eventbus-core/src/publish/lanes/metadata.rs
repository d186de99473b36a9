//! The metadata of a topic that is published to, and the way to each of its partitions.

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
    /// The number of partitions that keys go by: all, unless the topic has grown.
    pub(super) keyed: u32,
    /// The topic's incarnation as a number, counted as incarnations are met.
    pub(super) incarnation: u32,
    /// The topic's incarnation by its name.
    pub(super) log: Arc<str>,
    pub(super) max_record_bytes: Option<usize>,
    /// The time since its first send after which an envelope of unknown fate is searched for before it is sent again.
    /// `None`: it never has to be.
    pub(super) resend_window: Option<Duration>,
    pub(super) keyless: AtomicU64,
}

impl TopicMetadata {
    /// Returns the partition of a key; keyless envelopes go round.
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

/// A partition, as far as submitting to it goes.
pub(super) struct Partition {
    /// The lowest position that a record submitted from now on can get.
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

    /// Notes that a record is stored at this position.
    pub(super) fn saw(&self, position: Position) {
        self.end.fetch_max(position.next().get(), Ordering::Relaxed);
    }

    /// Hands the queued records to the backend, one at a time and in order.
    pub(super) fn submit_all(&self, backend: &dyn Backend) {
        self.submissions.work(|(record, ticket)| backend.submit(record, ticket));
    }
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partition").field("end", &self.end()).finish_non_exhaustive()
    }
}

/// The source of a description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MetadataSource {
    /// The driver asked the backend.
    Looked,
    /// A caller ensured the topic through this bus.
    Ensured,
    /// A caller accepted the topic's number of partitions.
    Accepted,
}

/// Returns how long the broker can be trusted to drop a copy. A backend that remembers nothing says zero. Otherwise the
/// topic's own window counts, less a quarter: the broker may have begun to count before this bus did, and a re-send
/// takes time.
pub(super) fn usable_window(backend: Duration, topic: Duration) -> Duration {
    if backend.is_zero() { Duration::ZERO } else { topic / 4 * 3 }
}
