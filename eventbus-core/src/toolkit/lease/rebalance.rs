//! Rebalancing: ownership follows the store by takes, yields, renewals and ends (S5).
//!
//! Invariants:
//! * an owner above its share asks the session to hand back; the next owner takes a partition only when it was released
//!   or its lease ran out, by the next owner's own clock;
//! * a revocation not answered by the drain deadline ends the ownership here at once, and elsewhere when its lease
//!   ends;
//! * a renewal that waits for an answer delays no other.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::assignor::{AssignmentPlan, PartitionOwner, plan};
use super::member::{MemberCore, Owned, log_of};
use super::record::{HeldRecord, LeaseRecord, RecordPlace, lease_ms};
use super::snapshot::{Revisioned, StoreSnapshot};
use super::{CasOutcome, StoreKey};
use crate::backend::{Assignment, GroupEvent, LogState};
use crate::model::ErrorKind;

/// The time between two looks at the store, at least and at most.
const LOOK: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(500)];

/// The silence after which a member is forgotten, in lengths of its lease.
const FORGOTTEN: u32 = 10;

/// A member's knowledge of the others.
#[derive(Default)]
pub(super) struct MemberView {
    /// The revision of each slot, and since when it has it, by this member's clock.
    since: HashMap<StoreKey, (u64, Instant)>,
    /// The nonces of takings of unknown outcome: a partition that one of them took is free to be taken again.
    tried: Vec<u64>,
}

impl MemberView {
    /// Returns how long a slot has not changed.
    fn unchanged(&mut self, slot: StoreKey, revision: u64) -> Duration {
        let now = Instant::now();
        let seen = self.since.entry(slot).or_insert((revision, now));
        if seen.0 != revision {
            *seen = (revision, now);
        }
        now - seen.1
    }
}

impl MemberCore {
    /// Looks at the store again and again, and corrects this member's ownership.
    pub(super) async fn rebalance_forever(self: Arc<Self>) {
        let mut known = MemberView::default();
        let mut said = Instant::now();
        let every = (self.join.session_timeout / 20).clamp(LOOK[0], LOOK[1]);
        loop {
            if said.elapsed() >= self.join.session_timeout / 3 && self.heartbeat().await.is_ok() {
                said = Instant::now();
            }
            self.end_fenced().await;
            match self.store.snapshot(Some(&self.join.group)).await {
                Ok(entries) => self.rebalance(StoreSnapshot::of(entries), &mut known).await,
                Err(error) => tracing::debug!(target: "eventbus", %error, "the groups' records could not be read"),
            }
            tokio::time::sleep(every).await;
        }
    }

    /// Ends ownerships whose revocation was not answered in time.
    async fn end_fenced(&self) {
        let over = |owned: &Owned| owned.fence_at.is_some_and(|at| at <= Instant::now());
        let fenced: Vec<u32> = self.owned().iter().filter(|(_, owned)| over(owned)).map(|(p, _)| *p).collect();
        for partition in fenced {
            self.lose(partition).await;
        }
    }

    async fn rebalance(&self, view: StoreSnapshot, known: &mut MemberView) {
        let members = self.members(&view, known).await;
        let mut records: HashMap<u32, Revisioned<LeaseRecord>> = view.records.into_iter().collect();
        let plan = self.plan(&members, &records, known);
        self.ask_back(&plan.yields);
        if plan.takes.is_empty() {
            return;
        }
        // The logs come first: nothing of them is missed by a look before the partitions are owned.
        let Ok(topic) = self.store.describe().await else { return };
        let takes = plan.takes.into_iter();
        let takes = takes.map(|partition| self.take(partition, log_of(&topic, partition), records.remove(&partition)));
        let mut given = Vec::new();
        for taken in join_all(takes.collect::<Vec<_>>()).await {
            match taken {
                Ok(assignment) => given.extend(assignment),
                Err(nonce) => {
                    // Enough are kept for writes that the broker may still carry out.
                    known.tried.drain(..known.tried.len().saturating_sub(self.partitions as usize));
                    known.tried.push(nonce);
                }
            }
        }
        if !given.is_empty() {
            self.tell(GroupEvent::Assigned(given));
        }
    }

    /// Returns the live members, this one first, and removes those that were silent for long.
    async fn members(&self, view: &StoreSnapshot, known: &mut MemberView) -> Vec<String> {
        let me = &self.join.member;
        let mut members = vec![me.clone()];
        for Revisioned { revision, value: member, .. } in &view.members {
            let slot = StoreKey::Member(self.join.group.clone(), member.name.clone());
            let silent = known.unchanged(slot.clone(), *revision);
            let lease = Duration::from_millis(member.lease_ms);
            if member.name != *me && silent < lease {
                members.push(member.name.clone());
            } else if silent > lease * FORGOTTEN {
                let _ = self.store.remove(&slot, Some(*revision)).await;
            }
        }
        members
    }

    fn plan(
        &self,
        members: &[String],
        records: &HashMap<u32, Revisioned<LeaseRecord>>,
        known: &mut MemberView,
    ) -> AssignmentPlan {
        let mut slots = vec![PartitionOwner::Free; self.partitions as usize];
        for (partition, Revisioned { revision, value: record, .. }) in records {
            let silent = known.unchanged(StoreKey::Partition(self.join.group.clone(), *partition), *revision);
            let believed = silent < Duration::from_millis(record.lease_ms) && !known.tried.contains(&record.nonce);
            if let Some(slot) = slots.get_mut(*partition as usize).filter(|_| !record.owner.is_empty() && believed) {
                *slot = PartitionOwner::Owned(record.owner.clone());
            }
        }
        let mut leaving = Vec::new();
        for (partition, owned) in self.owned().iter() {
            if let Some(slot) = slots.get_mut(*partition as usize) {
                *slot = PartitionOwner::Owned(self.join.member.clone());
            }
            leaving.extend(owned.fence_at.map(|_| *partition));
        }
        plan(&self.join.member, members, &slots, &leaving)
    }

    fn ask_back(&self, partitions: &[u32]) {
        if partitions.is_empty() {
            return;
        }
        let fence_at = Instant::now() + self.join.drain_deadline;
        for partition in partitions {
            if let Some(owned) = self.owned().get_mut(partition) {
                owned.fence_at = Some(fence_at);
            }
        }
        self.tell(GroupEvent::Revoked(partitions.to_vec()));
    }

    /// Takes a partition, unless another member was faster. If the outcome is not known, returns the nonce of the try.
    async fn take(
        &self,
        partition: u32,
        log: LogState,
        found: Option<Revisioned<LeaseRecord>>,
    ) -> Result<Option<Assignment>, u64> {
        let (revision, before) = found.map_or_else(Default::default, |found| (found.revision, found.value));
        let record = LeaseRecord {
            group: self.join.group.to_string(),
            owner: self.join.member.clone(),
            nonce: rand::random(),
            write: 1,
            lease_ms: lease_ms(self.join.session_timeout),
            ..before
        };
        let slot = StoreKey::Partition(self.join.group.clone(), partition);
        let place = RecordPlace::new(&self.store, slot, self.join.session_timeout);
        let (nonce, sent) = (record.nonce, Instant::now());
        match place.swap(revision, &record).await {
            CasOutcome::Done(revision) => {
                let committed = record.committed();
                let held = Arc::new(HeldRecord::new(place, revision, record, sent));
                let lease = held.lease().clone();
                self.owned().insert(partition, Owned::new(held, nonce));
                Ok(Some(Assignment::new(partition, log, committed, lease)))
            }
            CasOutcome::Conflict | CasOutcome::NotDone(_) => Ok(None),
            CasOutcome::Unknown(_) => Err(nonce),
        }
    }

    /// Renews the leases of owned partitions, each on its own.
    pub(super) async fn renew(self: Arc<Self>) {
        let every = (self.join.session_timeout / 12).max(LOOK[0]);
        loop {
            tokio::time::sleep(every).await;
            let held: Vec<(u32, Arc<HeldRecord>)> =
                self.owned().iter().map(|(partition, owned)| (*partition, Arc::clone(&owned.held))).collect();
            let renewals = held.into_iter().map(|(partition, held)| async move {
                if let Err(error) = held.renew().await {
                    tracing::debug!(target: "eventbus", partition, %error, "a lease was not renewed");
                    if error.kind() == ErrorKind::Fenced {
                        return Some((partition, held));
                    }
                }
                None
            });
            for (partition, held) in join_all(renewals).await.into_iter().flatten() {
                let ours = self.owned().get(&partition).is_some_and(|owned| Arc::ptr_eq(&owned.held, &held));
                if ours {
                    self.lose(partition).await;
                }
            }
        }
    }
}
