//! What a backend can do: [`Capabilities`].

use std::time::Duration;

/// What a backend can do. Options that need a missing capability are refused at construction, never ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// How much may be outstanding without losing order.
    pub pipelining: Pipelining,
    /// The most records outstanding over all keys. Default 4 096.
    pub in_flight: usize,
    /// How long after its first send the same stamp sent again is sure to be dropped as a copy; after that the log is
    /// read before a re-send (P3). `None`: for ever. The topic's own window, where it has one, goes before it.
    pub resend_window: Option<Duration>,
    /// The largest record in bytes as [`Envelope::size`](crate::Envelope::size) counts, where the topic states none.
    pub max_record_bytes: Option<usize>,
    /// The largest note in bytes. Default 3 072.
    pub note_bytes: usize,
    /// The most records of one partition that may still come after a pause. Default 1 024.
    pub overshoot: usize,
    /// Topics can be kept in memory only.
    pub memory_storage: bool,
    /// Progress survives the process.
    pub durable: bool,
    /// A topic's records can be limited by age, bytes or count.
    pub retention: bool,
    /// Positions can be found by time.
    pub seek_by_time: bool,
    /// How long a topic that was made or changed may take to be described so. Default zero: when the call returns.
    pub settles: Duration,
    /// A topic's number of partitions can be changed by others while the bus runs. Default no.
    pub partitions_change: bool,
}

impl Default for Capabilities {
    fn default() -> Self {
        Self {
            pipelining: Pipelining::OnePerKey,
            in_flight: 4_096,
            resend_window: Some(Duration::ZERO),
            max_record_bytes: None,
            note_bytes: 3_072,
            overshoot: 1_024,
            memory_storage: false,
            durable: true,
            retention: true,
            seek_by_time: true,
            settles: Duration::ZERO,
            partitions_change: false,
        }
    }
}

/// How much a producer may have outstanding without reordering or leaving a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pipelining {
    /// One record a key; any number of keys.
    OnePerKey,
    /// Any number; see the module's documentation for what a failure must then do.
    PerPartition,
}
