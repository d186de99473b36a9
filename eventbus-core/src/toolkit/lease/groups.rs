//! Groups as seen from outside: their progress, their lag, their members; reset and deleted on request only.
//!
//! Invariants: a group is changed only while no member of it is believed alive, by the store's clock; and a reset
//! compares and swaps, so that neither it nor a member that came meanwhile or wakes up later overwrites the other.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::delivery::log_of;
use super::member::Member;
use super::record::{LeaseRecord, RecordPlace};
use super::snapshot::{Revisioned, StoreSnapshot};
use super::{CasOutcome, Leases, StoreKey};
use crate::backend::{GroupDescription, GroupPartition, Join, Membership, TopicDescription};
use crate::model::{Error, ErrorKind, Group, Position, Result};

/// Requests to the broker at once.
const AT_ONCE: usize = 16;

/// The time that takes the place of a lease in a reset, which owns nothing.
const LEASE: Duration = Duration::from_secs(10);

impl Leases {
    /// Joins a group as one member, which begins at once to take its share; see
    /// [`Backend::join`](crate::backend::Backend::join).
    ///
    /// # Errors
    /// The store's error. Not cancel safe: a member that was announced is forgotten after its session time-out.
    pub async fn join(&self, join: Join) -> Result<Arc<dyn Membership>> {
        Ok(Arc::new(Member::join(Arc::clone(&self.store), join).await?))
    }

    /// Lists the groups that have progress or members, by name.
    ///
    /// # Errors
    /// `UnknownTopic`, or the store's error. Cancel safe.
    pub async fn list_groups(&self) -> Result<Vec<Group>> {
        let (view, now) = self.look(None).await?;
        let records = view.records.iter().filter(|(_, record)| record.value.next.is_some() || record.is_owned(now));
        let members = view.members.iter().filter(|member| member.is_alive(now));
        let names: BTreeSet<&str> =
            records.map(|(_, r)| r.value.group.as_str()).chain(members.map(|m| m.value.group.as_str())).collect();
        names.into_iter().map(str::parse).collect()
    }

    /// Describes progress, owner and lag of every partition.
    ///
    /// # Errors
    /// `UnknownTopic`; `UnknownGroup` where the group has neither progress nor members; or the store's error. Cancel
    /// safe.
    pub async fn describe_group(&self, group: &Group) -> Result<GroupDescription> {
        let topic = self.store.describe().await?;
        let (view, now) = self.look(Some(group)).await?;
        if !view.is_active(now) && !view.has_progress() {
            return Err(unknown());
        }
        let live = view.members.iter().filter(|member| member.is_alive(now));
        let mut members: Vec<String> = live.map(|member| member.value.name.clone()).collect();
        members.sort();
        let described = (0..topic.spec.partitions).map(|partition| {
            let record = view.records.iter().find(|(found, _)| *found == partition).map(|(_, record)| record);
            self.describe_partition(partition, &topic, record, now)
        });
        let described = stream::iter(described.collect::<Vec<_>>()).buffered(AT_ONCE).try_collect().await;
        Ok(GroupDescription::new(members, described?))
    }

    async fn describe_partition(
        &self,
        partition: u32,
        topic: &TopicDescription,
        record: Option<&Revisioned<LeaseRecord>>,
        now: u64,
    ) -> Result<GroupPartition> {
        let committed = record.and_then(|record| record.value.committed());
        let owner = record.filter(|record| record.is_owned(now)).map(|record| record.value.owner.clone());
        let from = committed.as_ref().map_or(Position::ZERO, |committed| committed.next);
        let backlog = self.store.backlog(partition, from).await;
        let (lag, oldest) = backlog.map_err(|error| error.with("partition", partition))?;
        Ok(GroupPartition { partition, committed, log: log_of(topic, partition), lag, owner, oldest })
    }

    /// Sets the next position of partitions of a group without active members, as written by nobody: the epoch is kept,
    /// the note cleared.
    ///
    /// # Errors
    /// `UnknownTopic`; `GroupActive`; `Backend` for a missing partition; or the store's error. When cancelled or
    /// failed, some partitions may have been set.
    pub async fn reset_group(&self, group: &Group, to: &[(u32, Position)]) -> Result<()> {
        let topic = self.store.describe().await?;
        self.store.ensure(&topic, true).await?;
        if let Some((partition, _)) = to.iter().find(|(partition, _)| *partition >= topic.spec.partitions) {
            let error = Error::new(ErrorKind::Backend, "the topic has no such partition").with("partition", partition);
            return Err(error);
        }
        let view = self.idle(group).await?;
        for (partition, next) in to {
            let found = view.records.iter().find(|(found, _)| found == partition).map(|(_, record)| record);
            let (revision, before) = found.map_or_else(Default::default, |found| (found.revision, found.value.clone()));
            let record = LeaseRecord {
                group: group.to_string(),
                owner: String::new(),
                nonce: rand::random(),
                next: Some(next.get()),
                note: String::new(),
                removed: None,
                ..before
            };
            let place = RecordPlace::new(&self.store, StoreKey::Partition(group.clone(), *partition), LEASE);
            match place.swap(revision, &record).await {
                CasOutcome::Done(_) => {}
                CasOutcome::Conflict => {
                    let error = Error::new(ErrorKind::GroupActive, "a member came while the group was reset");
                    return Err(error);
                }
                CasOutcome::NotDone(error) | CasOutcome::Unknown(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Forgets a group without active members.
    ///
    /// # Errors
    /// `UnknownTopic`; `UnknownGroup` for one without progress; `GroupActive`; or the store's error. Cancel safe.
    pub async fn delete_group(&self, group: &Group) -> Result<()> {
        self.store.describe().await?;
        if !self.idle(group).await?.has_progress() {
            return Err(unknown());
        }
        self.store.clear(group).await
    }

    /// Returns the entries of a group, if it has no active members.
    async fn idle(&self, group: &Group) -> Result<StoreSnapshot> {
        let (view, now) = self.look(Some(group)).await?;
        if view.is_active(now) {
            let message = "the group has active members; expected none";
            return Err(Error::new(ErrorKind::GroupActive, message));
        }
        Ok(view)
    }

    /// Reads the store's clock, then its entries: an entry written in between counts as alive.
    async fn look(&self, group: Option<&Group>) -> Result<(StoreSnapshot, u64)> {
        let now = self.store.now().await?;
        let entries = self.store.snapshot(group).await?;
        Ok((StoreSnapshot::of(entries), now))
    }
}

fn unknown() -> Error {
    Error::new(ErrorKind::UnknownGroup, "the group has neither progress nor members")
}
