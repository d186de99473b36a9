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
use super::delivery::log_of;
use super::member::{MemberCore, Owned};
use super::record::{HeldRecord, LeaseRecord, RecordPlace, lasts, lease_ms};
use super::removed::KnownRemovals;
use super::snapshot::{Revisioned, StoreSnapshot};
use super::waiting::Failing;
use super::{CasOutcome, StoreKey};
use crate::backend::{Assignment, GroupEvent, TopicDescription};
use crate::model::{Error, ErrorKind, Position, Result};

/// The time between two looks at the store, at least and at most.
const LOOK: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(500)];

/// The time after which a missing place counts as removed.
const GONE: Duration = Duration::from_secs(2);

/// The silence after which a member is forgotten, in lengths of its lease.
const FORGOTTEN: u32 = 10;

/// The age by the store's clock at which the heartbeat of a dead member is removed, in lengths of its lease. A member
/// that finds its own entry gone within its lease would take it for the end of all of them.
const LONG_DEAD: u32 = 2;

/// A member's knowledge of the others.
#[derive(Default)]
pub(super) struct MemberView {
    /// The revision of each slot, and since when it has it, by this member's clock.
    since: HashMap<StoreKey, (u64, Instant)>,
    /// The nonces of takings of unknown outcome: a partition that one of them took is free to be taken again.
    tried: Vec<u64>,
    /// The time at which the place of the records was missing first.
    missing: Option<Instant>,
}

/// A taking that failed, with its nonce if it may have been done.
struct NotTaken {
    perhaps: Option<u64>,
    error: Error,
}

fn gone() -> Error {
    let message = "the groups' records were removed, and with them the progress of all groups";
    Error::new(ErrorKind::LogReset, message)
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
        while !self.has_failed() {
            let mut worked = Ok(());
            if said.elapsed() >= self.join.session_timeout / 3 {
                // Counted from before the sending: others count from the store's time.
                let sent = Instant::now();
                worked = self.heartbeat().await.map(|()| said = sent);
            }
            self.end_fenced().await;
            let looked = self.look(&mut known, said).await;
            let outcome = looked.and(worked);
            let told = self.failing.lock().count(&outcome);
            match outcome {
                Err(error) if lasts(&error) => self.fail(error).await,
                _ => told.into_iter().for_each(|event| self.tell(event)),
            }
            tokio::time::sleep(every).await;
        }
    }

    /// Looks at the store once.
    ///
    /// # Errors
    /// The store's, and `LogReset` where the place of the records is another one, or gone: what is not found there was
    /// not there for the first time.
    async fn look(&self, known: &mut MemberView, said: Instant) -> Result<()> {
        let entries = self.store.snapshot(Some(&self.join.group)).await?;
        let view = StoreSnapshot::of(entries);
        // The member's own entry goes with the place, and with all else in it: nobody else removes one that is fresh.
        if !view.knows(&self.join.member) {
            self.same_place(known).await?;
            if said.elapsed() < self.join.session_timeout && self.store.get(&self.slot()).await?.is_none() {
                return Err(gone());
            }
        }
        self.rebalance(view, known).await
    }

    /// Checks that the records are in the place that this member joined.
    async fn same_place(&self, known: &mut MemberView) -> Result<()> {
        match self.store.place().await? {
            Some(place) if place == self.place => {
                known.missing = None;
                return Ok(());
            }
            // A broker that recovers may say the same for a moment.
            None if known.missing.get_or_insert_with(Instant::now).elapsed() < GONE => {
                return Err(Error::new(ErrorKind::Unavailable, "the place of the group's records is not there"));
            }
            _ => {}
        }
        // Where the topic is gone, too, that is the reason.
        self.store.describe().await?;
        Err(gone())
    }

    /// Ends ownerships whose revocation was not answered in time.
    async fn end_fenced(&self) {
        let over = |owned: &Owned| owned.fence_at.is_some_and(|at| at <= Instant::now());
        let fenced: Vec<u32> = self.owned().iter().filter(|(_, owned)| over(owned)).map(|(p, _)| *p).collect();
        for partition in fenced {
            self.lose(partition).await;
        }
    }

    async fn rebalance(&self, view: StoreSnapshot, known: &mut MemberView) -> Result<()> {
        let members = self.members(&view, known).await?;
        let mut records: HashMap<u32, Revisioned<LeaseRecord>> = view.records.into_iter().collect();
        let plan = self.plan(&members, &records, known);
        self.ask_back(&plan.yields);
        if plan.takes.is_empty() {
            return Ok(());
        }
        // A place that was made again is told by its identity, asked for after its entries: nothing is taken because
        // another place does not hold its record.
        self.same_place(known).await?;
        for partition in plan.takes.iter().filter(|partition| !records.contains_key(partition)) {
            let slot = StoreKey::Partition(self.join.group.clone(), *partition);
            if known.since.contains_key(&slot) && self.store.get(&slot).await?.is_none() {
                return Err(gone());
            }
        }
        // The logs come first: nothing of them is missed by a look before the partitions are owned.
        let topic = self.store.describe().await?;
        let takes = plan.takes.into_iter();
        let takes = takes.map(|partition| self.take(partition, &topic, records.remove(&partition)));
        let (mut given, mut worked) = (Vec::new(), Ok(()));
        for taken in join_all(takes.collect::<Vec<_>>()).await {
            match taken {
                Ok(assignment) => given.extend(assignment),
                Err(NotTaken { perhaps, error }) => {
                    // Enough are kept for writes that the broker may still carry out.
                    known.tried.drain(..known.tried.len().saturating_sub(self.partitions as usize));
                    known.tried.extend(perhaps);
                    worked = Err(error);
                }
            }
        }
        if !given.is_empty() {
            self.tell(GroupEvent::Assigned(given));
        }
        worked
    }

    /// Returns the live members, this one first, and removes those that are dead for long.
    ///
    /// A newcomer has not watched anybody for a lease, so the store's clock counts, too: a member is dead whose last
    /// heartbeat is older than its lease there, if it was silent for half a lease by this member's clock. (Clocks of a
    /// cluster's nodes differ.) A share that is kept for a dead member would be idle.
    async fn members(&self, view: &StoreSnapshot, known: &mut MemberView) -> Result<Vec<String>> {
        let mut members = vec![self.join.member.clone()];
        let mut now = None;
        for heartbeat in view.members.iter().filter(|heartbeat| heartbeat.value.name != self.join.member) {
            let name = &heartbeat.value.name;
            let slot = StoreKey::Member(self.join.group.clone(), name.clone());
            let silent = known.unchanged(slot.clone(), heartbeat.revision);
            let lease = Duration::from_millis(heartbeat.value.lease_ms);
            let mut old = Duration::ZERO;
            if silent >= lease / 2 {
                let now = match now {
                    Some(now) => now,
                    None => *now.insert(self.store.now().await?),
                };
                old = heartbeat.age(now);
            }
            if silent < lease && old < lease {
                members.push(name.clone());
            } else if silent > lease * FORGOTTEN || old > lease * LONG_DEAD {
                let _ = self.store.remove(&slot, Some(heartbeat.revision)).await;
            }
        }
        Ok(members)
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

    /// Takes a partition, unless another member was faster.
    async fn take(
        &self,
        partition: u32,
        topic: &TopicDescription,
        found: Option<Revisioned<LeaseRecord>>,
    ) -> Result<Option<Assignment>, NotTaken> {
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
                let (committed, next) = (record.committed(), record.next);
                let known = KnownRemovals::of_group(topic.removed.clone(), next, record.removed);
                let held = Arc::new(HeldRecord::new(place, revision, record, sent, known));
                let lease = held.lease().clone();
                self.owned().insert(partition, Owned::new(held, nonce, next.map_or(Position::ZERO, Position::new)));
                Ok(Some(Assignment::new(partition, log_of(topic, partition), committed, lease)))
            }
            CasOutcome::Conflict => Ok(None),
            CasOutcome::NotDone(error) => Err(NotTaken { perhaps: None, error }),
            CasOutcome::Unknown(error) => Err(NotTaken { perhaps: Some(nonce), error }),
        }
    }

    /// Renews the leases of owned partitions, each on its own.
    pub(super) async fn renew(self: Arc<Self>) {
        let every = (self.join.session_timeout / 12).max(LOOK[0]);
        let mut failing = Failing::new(self.join.session_timeout);
        while !self.has_failed() {
            tokio::time::sleep(every).await;
            let held: Vec<(u32, Arc<HeldRecord>)> =
                self.owned().iter().map(|(partition, owned)| (*partition, Arc::clone(&owned.held))).collect();
            let renewals =
                held.into_iter().map(|(partition, held)| async move { (partition, held.renew().await, held) });
            let mut worked = Ok(());
            for (partition, renewed, held) in join_all(renewals).await {
                let Err(error) = renewed else { continue };
                tracing::debug!(target: "eventbus", partition, %error, "a lease was not renewed");
                let ours = self.owned().get(&partition).is_some_and(|owned| Arc::ptr_eq(&owned.held, &held));
                match error.kind() {
                    _ if !ours => {}
                    ErrorKind::Fenced => self.lose(partition).await,
                    _ => worked = Err(error.about("partition", partition)),
                }
            }
            let told = failing.count(&worked);
            match worked {
                Err(error) if lasts(&error) => self.fail(error).await,
                // Where the member's looks fail, too, these tell it.
                _ if self.failing.lock().lasts() => {}
                _ => told.into_iter().for_each(|event| self.tell(event)),
            }
        }
    }
}
