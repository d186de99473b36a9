//! A topic: its settings, its partitions' logs, appending and retention.
//!
//! Invariant: a record is in the log, in the duplicate window and in the counts, or in none of them; retention runs on
//! every append and on every look.

use std::sync::Arc;
use std::time::Duration;

use eventbus_core::backend::{Fate, LogState, Outbound, TopicDescription};
use eventbus_core::{Error, ErrorKind, Position, Result, TopicSpec};

use crate::config::{Copies, MemoryConfig, Positions};
use crate::duplicates::Duplicates;
use crate::log::{PartitionLog, Stored};
use crate::step::Step;

#[derive(Debug)]
pub(crate) struct TopicState {
    pub(crate) spec: TopicSpec,
    pub(crate) incarnation: Arc<str>,
    pub(crate) logs: Vec<PartitionLog>,
    positions: Positions,
    /// Records ever stored in the topic; with shared positions the last position given out.
    serial: u64,
    bytes: u64,
    records: u64,
    duplicates: Duplicates,
}

impl TopicState {
    pub(crate) fn new(spec: TopicSpec, incarnation: u64, config: &MemoryConfig) -> Self {
        let first = match config.positions {
            Positions::PerPartition => Position::ZERO,
            Positions::Shared => Position::new(1),
        };
        Self {
            logs: (0..spec.partitions).map(|_| PartitionLog::starting_at(first)).collect(),
            incarnation: format!("memory-{incarnation}").into(),
            positions: config.positions,
            serial: 0,
            bytes: 0,
            records: 0,
            duplicates: Duplicates::new(known_for(spec.duplicate_window)),
            spec,
        }
    }

    /// Appends a record, unless its stamp is known.
    pub(crate) fn store(&mut self, record: Outbound, step: &Step) -> Fate {
        if let Some(position) = self.duplicates.find(record.stamp, step.now) {
            return Fate::Stored { position, duplicate: true };
        }
        let bytes = record.envelope.size();
        let serial = self.serial + 1;
        let Some(log) = self.logs.get_mut(record.partition as usize) else {
            return Fate::Refused(no_partition(record.partition));
        };
        let position = match self.positions {
            Positions::PerPartition => log.end(),
            Positions::Shared => Position::new(serial),
        };
        let Outbound { stamp, envelope, .. } = record;
        log.push(Stored { position, serial, stored_at: step.unix_millis, bytes, stamp, envelope });
        self.serial = serial;
        self.records += 1;
        self.bytes += bytes as u64;
        self.duplicates.remember(stamp, position, step.now);
        self.retain(step.unix_millis);
        Fate::Stored { position, duplicate: false }
    }

    /// Removes the records beyond the topic's limits, oldest first over all partitions.
    pub(crate) fn retain(&mut self, unix_millis: u64) {
        let TopicSpec { max_age, max_bytes, max_messages, .. } = &self.spec;
        if max_age.is_none() && max_bytes.is_none() && max_messages.is_none() {
            return;
        }
        let oldest_kept = max_age.map(|age| unix_millis.saturating_sub(millis(age)));
        let (max_bytes, max_messages) = (max_bytes.unwrap_or(u64::MAX), max_messages.unwrap_or(u64::MAX));
        while self.records > max_messages
            || self.bytes > max_bytes
            || self.oldest().is_some_and(|(_, record)| oldest_kept.is_some_and(|kept| record.stored_at < kept))
        {
            let Some((partition, _)) = self.oldest() else { return };
            self.remove_first(partition);
        }
    }

    fn oldest(&self) -> Option<(usize, &Stored)> {
        let fronts = self.logs.iter().enumerate().filter_map(|(p, log)| Some((p, log.front()?)));
        fronts.min_by_key(|(_, record)| record.serial)
    }

    fn remove_first(&mut self, partition: usize) {
        if let Some(record) = self.logs.get_mut(partition).and_then(PartitionLog::pop) {
            self.records -= 1;
            self.bytes -= record.bytes as u64;
        }
    }

    /// Removes a partition's records below a position.
    pub(crate) fn truncate(&mut self, partition: u32, first: Position) {
        let partition = partition as usize;
        while self.logs.get(partition).and_then(PartitionLog::front).is_some_and(|record| record.position < first) {
            self.remove_first(partition);
        }
    }

    /// The ends of a partition's log, as a broker with these positions can tell them.
    pub(crate) fn log_state(&self, partition: usize) -> LogState {
        let (first, end) = match (self.positions, self.logs.get(partition)) {
            (_, None) => (Position::ZERO, Position::ZERO),
            (Positions::PerPartition, Some(log)) => (log.floor(), log.end()),
            (Positions::Shared, Some(_)) => {
                let end = Position::new(self.serial + 1);
                (self.oldest().map_or(end, |(_, record)| record.position), end)
            }
        };
        LogState { incarnation: self.incarnation.to_string(), first, end }
    }

    /// The lowest position that the next record of a partition can get.
    pub(crate) fn end(&self, partition: usize) -> Position {
        match self.positions {
            Positions::PerPartition => self.logs.get(partition).map_or(Position::ZERO, PartitionLog::end),
            Positions::Shared => Position::new(self.serial + 1),
        }
    }

    pub(crate) fn log(&self, partition: u32) -> Result<&PartitionLog> {
        self.logs.get(partition as usize).ok_or_else(|| no_partition(partition))
    }

    pub(crate) fn describe(&self, config: &MemoryConfig) -> TopicDescription {
        let logs = (0..self.logs.len()).map(|partition| self.log_state(partition)).collect();
        let mut description = TopicDescription::new(self.spec.clone(), &*self.incarnation, logs);
        description.max_record_bytes = Some(config.max_record_bytes);
        description.records = self.records;
        description.bytes = Some(self.bytes);
        description
    }

    /// Applies settings that differ only in what can be changed.
    pub(crate) fn update(&mut self, spec: &TopicSpec, unix_millis: u64) {
        let window = self.spec.duplicate_window;
        self.spec = spec.clone();
        if self.spec.duplicate_window != window {
            self.duplicates.set_window(known_for(self.spec.duplicate_window));
        }
        self.retain(unix_millis);
    }
}

/// The settings as this world keeps them: the duplicate window is the topic's own, or one for all topics.
pub(crate) fn in_force(spec: &TopicSpec, config: &MemoryConfig) -> TopicSpec {
    let mut spec = spec.clone();
    spec.duplicate_window = match config.copies {
        Copies::Window => spec.duplicate_window,
        Copies::Stored => Duration::ZERO,
        Copies::Dropped => Duration::MAX,
    };
    spec
}

fn known_for(window: Duration) -> Option<Duration> {
    (window != Duration::MAX).then_some(window)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn unknown_topic() -> Error {
    Error::new(ErrorKind::UnknownTopic, "no such topic")
}

fn no_partition(partition: u32) -> Error {
    Error::new(ErrorKind::Backend, "the topic has no such partition").with("partition", partition)
}
