//! Descriptions of topics and groups, as a backend gives them.

use std::sync::Arc;

use bytes::Bytes;

use crate::model::{Error, ErrorKind, Position, Result, TopicSpec};

/// A topic as the broker has it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicDescription {
    /// The settings in force, with the number of partitions.
    pub spec: TopicSpec,
    /// The identity of this topic: differs after deletion and re-creation.
    pub incarnation: String,
    /// The log of each partition, in order of partition; empty for a partition that is [unavailable](Self::unavailable).
    pub partitions: Vec<LogState>,
    /// The partitions whose logs cannot be asked for at the moment, since no broker leads them.
    pub unavailable: Vec<u32>,
    /// The largest record in bytes that the topic takes; `None` where it states none.
    pub max_record_bytes: Option<usize>,
    /// Records in all partitions together.
    pub records: u64,
    /// Bytes in all partitions together; `None` where the broker does not tell.
    pub bytes: Option<u64>,
    /// Runs of positions that were taken out of the middle of the logs, by a purge or a deletion, in order: the first of
    /// each, and the one behind its last. Empty where the backend does not look for them.
    pub removed: Arc<[(Position, Position)]>,
}

impl TopicDescription {
    /// Makes a description with no records; fill in the rest.
    #[must_use]
    pub fn new(spec: TopicSpec, incarnation: impl Into<String>, partitions: Vec<LogState>) -> Self {
        Self {
            spec,
            incarnation: incarnation.into(),
            partitions,
            unavailable: Vec::new(),
            removed: Arc::default(),
            max_record_bytes: None,
            records: 0,
            bytes: None,
        }
    }

    /// Returns the log of each partition, for a caller who needs all of them.
    ///
    /// # Errors
    /// `Unavailable`, naming a partition whose log cannot be asked for at the moment.
    pub fn logs(&self) -> Result<&[LogState]> {
        match self.unavailable.first() {
            None => Ok(&self.partitions),
            Some(partition) => Err(unavailable(&self.spec.topic, *partition)),
        }
    }

    /// Returns the log of one partition; an empty one where the topic does not have the partition.
    ///
    /// # Errors
    /// `Unavailable` where the log cannot be asked for at the moment.
    pub(crate) fn log(&self, partition: u32) -> Result<LogState> {
        if self.unavailable.contains(&partition) {
            return Err(unavailable(&self.spec.topic, partition));
        }
        Ok(self.partitions.get(partition as usize).cloned().unwrap_or_default())
    }

    /// Makes a description of logs whose positions count as records: their number follows from the ends. Positions that
    /// hold no record, such as a transaction's marker, count, too.
    #[must_use]
    pub fn counted(spec: TopicSpec, incarnation: impl Into<String>, partitions: Vec<LogState>) -> Self {
        let records = partitions.iter().map(|log| log.end.get().saturating_sub(log.first.get())).sum();
        Self { records, ..Self::new(spec, incarnation, partitions) }
    }
}

fn unavailable(topic: &str, partition: u32) -> Error {
    Error::new(ErrorKind::Unavailable, "no broker leads the partition")
        .with("topic", topic)
        .with("partition", partition)
}

/// The ends of one partition's log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogState {
    /// The incarnation of the topic; empty where the broker tells none.
    pub incarnation: String,
    /// The lowest position that may still be held: everything below is gone.
    pub first: Position,
    /// The lowest position that the next record can get.
    pub end: Position,
}

impl LogState {
    /// Returns whether the log has an incarnation other than the given one, as far as the broker tells any.
    pub(crate) fn is_another_than(&self, incarnation: &str) -> bool {
        !self.incarnation.is_empty() && !incarnation.is_empty() && self.incarnation != incarnation
    }
}

/// Progress of a group on one partition, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The next position to be handled.
    pub next: Position,
    /// The epoch under which the progress was written.
    pub epoch: u64,
    /// The note, opaque to the backend; empty where there is none.
    pub note: Bytes,
}

/// Progress of a group on a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupDescription {
    /// The members by name.
    pub members: Vec<String>,
    /// The partitions, in order.
    pub partitions: Vec<GroupPartition>,
}

impl GroupDescription {
    /// Makes a description.
    #[must_use]
    pub fn new(members: Vec<String>, partitions: Vec<GroupPartition>) -> Self {
        Self { members, partitions }
    }

    /// Returns this description if the group exists: if it has members or progress.
    ///
    /// # Errors
    /// `UnknownGroup` otherwise.
    pub fn known(self) -> Result<Self> {
        if self.members.is_empty() && self.partitions.iter().all(|partition| partition.committed.is_none()) {
            let message = "the group has neither progress nor members";
            return Err(Error::new(ErrorKind::UnknownGroup, message));
        }
        Ok(self)
    }
}

/// Progress of a group on a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupPartition {
    /// The partition.
    pub partition: u32,
    /// The committed watermark, epoch and note; `None` where the group has no progress here.
    pub committed: Option<Committed>,
    /// The ends of the partition's log.
    pub log: LogState,
    /// Records at or above the committed position, or from the first one on where nothing is committed: a count, never
    /// a difference of positions.
    pub lag: u64,
    /// The member that owns the partition.
    pub owner: Option<String>,
    /// The time at which the first record at or above the committed position was stored, in milliseconds since the Unix
    /// epoch: the oldest unfinished record has been waiting since. `None` where there is no such record, or the backend
    /// does not tell.
    pub oldest: Option<u64>,
}

impl GroupPartition {
    /// Makes a partition without an owner whose positions have no gaps, so that the lag follows from them.
    #[must_use]
    pub fn counted(partition: u32, log: LogState, committed: Option<Committed>) -> Self {
        let mut counted = Self { partition, committed, log, lag: 0, owner: None, oldest: None };
        counted.lag = counted.log.end.get().saturating_sub(counted.waits_from().get());
        counted
    }

    /// Returns the position of the first unfinished record, or of the next one to come: the committed position, unless
    /// the log begins above it.
    #[must_use]
    pub fn waits_from(&self) -> Position {
        self.committed.as_ref().map_or(self.log.first, |committed| committed.next.max(self.log.first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(first: u64, end: u64, next: Option<u64>) -> GroupPartition {
        let log = LogState { first: Position::new(first), end: Position::new(end), ..LogState::default() };
        let committed = next.map(|next| Committed { next: Position::new(next), epoch: 1, note: Bytes::new() });
        GroupPartition::counted(0, log, committed)
    }

    #[test]
    fn lag_counts_what_is_there_and_not_finished() {
        for (first, end, next, lag) in [
            (2, 10, None, 8),
            (2, 10, Some(4), 6),
            (2, 10, Some(10), 0),
            // Retention took what was not finished, or the log is another one.
            (5, 10, Some(3), 5),
            (0, 4, Some(9), 0),
        ] {
            assert_eq!(counted(first, end, next).lag, lag, "{first} {end} {next:?}");
        }
    }

    #[test]
    fn a_partition_that_is_away_hides_no_other() {
        let log = |end| LogState { end: Position::new(end), ..LogState::default() };
        let mut topic = TopicDescription::counted(TopicSpec::new("t"), "i", vec![log(3), log(0), log(5)]);
        assert_eq!((topic.records, topic.logs().unwrap().len()), (8, 3));
        topic.unavailable = vec![1];
        assert_eq!(topic.log(2).unwrap(), log(5));
        for error in [topic.logs().unwrap_err(), topic.log(1).unwrap_err()] {
            assert!(error.kind() == ErrorKind::Unavailable && error.to_string().contains("partition=1"), "{error}");
        }
    }

    #[test]
    fn a_group_is_known_by_its_members_or_its_progress() {
        let of = |members: &[&str], next| {
            let members = members.iter().map(|name| (*name).to_owned()).collect();
            GroupDescription::new(members, vec![counted(0, 1, None), counted(0, 1, next)]).known()
        };
        assert_eq!(of(&[], None).unwrap_err().kind(), ErrorKind::UnknownGroup);
        assert!(of(&["m"], None).is_ok() && of(&[], Some(0)).is_ok());
    }
}
