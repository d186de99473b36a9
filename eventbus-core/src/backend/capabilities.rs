//! Capabilities of a backend: [`Capabilities`].

use std::time::Duration;

/// Capabilities of a backend. Options that need a missing capability are refused at construction, never ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// Records that may be outstanding without losing order. Default [`Pipelining::OnePerKey`].
    pub pipelining: Pipelining,
    /// The most records outstanding over all keys. Default 4 096.
    pub in_flight: usize,
    /// The time after the first send of a stamp within which the broker is sure to drop a re-send as a copy; later the
    /// core reads the log before a re-send (P3). `None`: for ever. Zero, the default: the log is read before every
    /// re-send. Any other value: the topic's own window counts instead, less a quarter.
    pub resend_window: Option<Duration>,
    /// The largest record in bytes as [`Envelope::size`](crate::Envelope::size) counts, where the topic states none.
    pub max_record_bytes: Option<usize>,
    /// The largest note in bytes. Default 3 072.
    pub note_bytes: usize,
    /// The most records of one partition that may still arrive after a pause. Default 1 024.
    pub overshoot: usize,
    /// Storage in memory only is possible for a topic. Default no.
    pub memory_storage: bool,
    /// Progress survives the process. Default yes.
    pub durable: bool,
    /// Retention can be limited by age, bytes or count. Default yes.
    pub retention: bool,
    /// Positions can be found by time. Default yes.
    pub seek_by_time: bool,
    /// The longest time until a topic that was made or changed is described as asked. Default zero: when the call
    /// returns.
    pub settles: Duration,
    /// The number of a topic's partitions may be changed by others while the bus runs. Default no.
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

/// Records that a producer may have outstanding without reordering or leaving a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pipelining {
    /// One record of each key; any number of keys.
    OnePerKey,
    /// Any number of records; [`backend`](crate::backend) says what a failure must then do.
    PerPartition,
}
