//! Groups as they are described.

use std::collections::{BTreeSet, HashMap};

use super::{Committed, LogState, Progress};
use crate::error::{Error, ErrorKind, Result};
use crate::position::Position;

/// Progress of a group on a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupDescription {
    /// Its members by name.
    pub members: Vec<String>,
    /// Each partition, in order.
    pub partitions: Vec<GroupPartition>,
}

impl GroupDescription {
    /// A description.
    #[must_use]
    pub fn new(members: Vec<String>, partitions: Vec<GroupPartition>) -> Self {
        Self { members, partitions }
    }

    /// A group as a broker tells it that has no gaps in its logs and keeps a [`Stored`](super::Stored) beside an offset: of each partition its
    /// log, and the committed offset with what is beside it. `members` are those that the broker names; where it names none to
    /// who asks, those that wrote the offsets are taken for its members. `oldest` looks for the times of the first records from
    /// these positions on, in milliseconds since the Unix epoch, as far as there are any.
    #[must_use]
    pub fn stored(
        members: Option<Vec<String>>,
        partitions: Vec<(u32, LogState, Progress)>,
        oldest: impl FnOnce(&[(u32, Position)]) -> HashMap<u32, u64>,
    ) -> Self {
        let owners = || partitions.iter().filter_map(|(_, _, committed)| Some(&committed.as_ref()?.1.owner));
        let members = members.unwrap_or_else(|| {
            let owners: BTreeSet<&String> = owners().filter(|owner| !owner.is_empty()).collect();
            owners.into_iter().cloned().collect()
        });
        // Of a long name only the begin is stored.
        let known = |owner: &String| !owner.is_empty() && members.iter().any(|member| member.starts_with(owner));
        let described = partitions.into_iter().map(|(partition, log, committed)| {
            let owner = committed.as_ref().map(|(_, stored)| stored.owner.clone()).filter(known);
            let committed = committed.map(|(next, stored)| stored.committed(next));
            GroupPartition { owner, ..GroupPartition::counted(partition, log, committed) }
        });
        let mut described: Vec<GroupPartition> = described.collect();
        let behind = described.iter().filter(|one| one.lag > 0).map(|one| (one.partition, one.waits_from()));
        let behind: Vec<_> = behind.collect();
        if !behind.is_empty() {
            let times = oldest(&behind);
            described.iter_mut().for_each(|one| one.oldest = times.get(&one.partition).copied());
        }
        Self::new(members, described)
    }

    /// The same of a group that there is: one with members or with progress.
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
    /// What is committed.
    pub committed: Option<Committed>,
    /// The log.
    pub log: LogState,
    /// Records at or above the committed position (from the first one on where nothing is committed): a count, never a
    /// difference of positions.
    pub lag: u64,
    /// The member that owns it.
    pub owner: Option<String>,
    /// When the first record at or above the committed position was stored, in milliseconds since the Unix epoch: since
    /// when the oldest unfinished one has been waiting. `None` where there is none, or the backend does not tell.
    pub oldest: Option<u64>,
}

impl GroupPartition {
    /// A partition whose positions have no gaps, so that the lag follows from them; nobody owns it.
    #[must_use]
    pub fn counted(partition: u32, log: LogState, committed: Option<Committed>) -> Self {
        let mut counted = Self { partition, committed, log, lag: 0, owner: None, oldest: None };
        counted.lag = counted.log.end.get().saturating_sub(counted.waits_from().get());
        counted
    }

    /// Where the first unfinished record is, or the next one comes: what is committed, unless the log begins behind it.
    #[must_use]
    pub fn waits_from(&self) -> Position {
        self.committed.as_ref().map_or(self.log.first, |committed| committed.next.max(self.log.first))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::Stored;
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
    fn who_wrote_an_offset_owns_it_as_long_as_it_is_a_member() {
        let log = || LogState { end: Position::new(5), ..LogState::default() };
        let by = |owner: &str, next| {
            Some((Position::new(next), Stored { epoch: 2, owner: owner.into(), ..Stored::default() }))
        };
        let described = |members: Option<&[&str]>| {
            let members = members.map(|members| members.iter().map(|name| (*name).to_owned()).collect());
            let partitions =
                vec![(0, log(), by("mem", 5)), (1, log(), by("gone", 3)), (2, log(), by("", 1)), (3, log(), None)];
            GroupDescription::stored(members, partitions, |from| {
                from.iter().map(|(partition, from)| (*partition, u64::from(*partition) * 10 + from.get())).collect()
            })
        };
        let of = |described: &GroupDescription| -> Vec<_> {
            described.partitions.iter().map(|p| (p.owner.clone().unwrap_or_default(), p.lag, p.oldest)).collect()
        };
        let named = described(Some(&["member-1"]));
        assert_eq!(named.members, ["member-1"]);
        let (first, second) = (("mem".to_owned(), 0, None), (String::new(), 2, Some(13)));
        let rest = [(String::new(), 4, Some(21)), (String::new(), 5, Some(30))];
        assert_eq!(of(&named), [first.clone(), second].into_iter().chain(rest.clone()).collect::<Vec<_>>());
        let unnamed = described(None);
        assert_eq!(unnamed.members, ["gone", "mem"]);
        assert_eq!(of(&unnamed), [first, ("gone".to_owned(), 2, Some(13))].into_iter().chain(rest).collect::<Vec<_>>());
        assert_eq!(named.partitions[1].committed.as_ref().map(|committed| committed.epoch), Some(2));
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
