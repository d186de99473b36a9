//! Progress: commits and claims, and administration of a group.
//!
//! Invariant (S5, the fence): a member changes progress only if it owns the partition *now*, under an ownership that it
//! has claimed, and under the epoch that is stored. A claim needs a higher epoch than the stored one. So nothing that
//! was decided under an earlier ownership has an effect, even where the same member has the partition again.

use eventbus_core::backend::{Commit, Committed, GroupDescription, GroupPartition};
use eventbus_core::{Error, ErrorKind, Group, Position, Result, Topic};

use super::MemoryState;
use crate::faults::{CommitFault, FaultKind};
use crate::group::{GroupState, not_owned};
use crate::step::Step;
use crate::timers::MemberKey;

impl MemoryState {
    pub(crate) fn commit(&mut self, key: &MemberKey, commit: Commit, step: &mut Step) -> Result<()> {
        if commit.note.len() > self.config.note_bytes {
            let message =
                format!("the note has {} bytes, expected at most {}", commit.note.len(), self.config.note_bytes);
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        let fault = self.fault_on_commit(key, &commit, step);
        let unavailable = |what| Err(Error::new(ErrorKind::Unavailable, what));
        match fault {
            Some(CommitFault::Unavailable) => return unavailable("injected: the commit did not arrive"),
            Some(CommitFault::Fence) => self.fence_partition(key, commit.partition, step),
            Some(CommitFault::LoseAnswer) | None => {}
        }
        self.store_progress(key, commit)?;
        match fault {
            Some(CommitFault::LoseAnswer) => unavailable("injected: no answer came"),
            _ => Ok(()),
        }
    }

    fn store_progress(&mut self, key: &MemberKey, commit: Commit) -> Result<()> {
        let Commit { partition, next, epoch, note, claim, .. } = commit;
        let fenced = not_owned;
        let group = self.group(&key.topic, &key.group).ok_or_else(fenced)?;
        if group.members.get(&key.id).is_none_or(|member| member.killed) {
            return Err(fenced());
        }
        let assigned = group.partitions.get_mut(partition as usize).ok_or_else(fenced)?;
        let owner =
            assigned.owner.as_mut().filter(|owner| owner.member == key.id && owner.announced).ok_or_else(fenced)?;
        let stored = assigned.committed.as_ref().map(|committed| committed.epoch);
        let current = owner.claimed && stored == Some(epoch);
        if !(current || claim && stored.is_none_or(|stored| epoch > stored)) {
            let message = "the epoch has been superseded, or was not claimed under this ownership";
            let error = Error::new(ErrorKind::Fenced, message);
            return Err(error.with("epoch", epoch).with("stored", stored.unwrap_or_default()));
        }
        owner.claimed = true;
        assigned.committed = Some(Committed { next, epoch, note });
        Ok(())
    }

    pub(crate) fn reset_group(&mut self, topic: &Topic, name: &Group, to: &[(u32, Position)]) -> Result<()> {
        let state = self.topic(topic)?;
        let partitions = state.logs.len();
        for (partition, _) in to {
            state.log(*partition)?;
        }
        let groups = self.groups.entry(topic.clone()).or_default();
        let new = || GroupState::new(topic.clone(), name.clone(), partitions);
        let group = groups.entry(name.clone()).or_insert_with(new);
        if group.is_active() {
            return Err(active());
        }
        for (partition, next) in to {
            if let Some(assigned) = group.partitions.get_mut(*partition as usize) {
                let epoch = assigned.committed.as_ref().map_or(0, |committed| committed.epoch);
                assigned.committed = Some(Committed { next: *next, epoch, note: Default::default() });
            }
        }
        Ok(())
    }

    pub(crate) fn delete_group(&mut self, topic: &Topic, name: &Group) -> Result<()> {
        self.topic(topic)?;
        let groups = self.groups.entry(topic.clone()).or_default();
        match groups.get(name) {
            None => Err(unknown()),
            Some(group) if group.is_active() => Err(active()),
            Some(_) => {
                groups.remove(name);
                Ok(())
            }
        }
    }

    pub(crate) fn list_groups(&self, topic: &Topic) -> Result<Vec<Group>> {
        self.topic(topic)?;
        let known =
            |(name, group): (&Group, &GroupState)| (group.is_active() || group.has_progress()).then(|| name.clone());
        Ok(self.groups.get(topic).into_iter().flatten().filter_map(known).collect())
    }

    pub(crate) fn describe_group(&mut self, topic: &Topic, name: &Group, now: u64) -> Result<GroupDescription> {
        self.current(topic, now)?;
        let state = self.topic(topic)?;
        let group = self.groups.get(topic).and_then(|groups| groups.get(name));
        let group = group.filter(|group| group.is_active() || group.has_progress());
        let group = group.ok_or_else(unknown)?;
        let member = |id: u64| group.members.get(&id).map(|member| member.name.clone());
        let mut partitions = Vec::with_capacity(group.partitions.len());
        for ((partition, assigned), log) in (0..).zip(&group.partitions).zip(&state.logs) {
            let lag = assigned.committed.as_ref().map_or(log.len(), |committed| log.count_from(committed.next));
            partitions.push(GroupPartition {
                partition,
                committed: assigned.committed.clone(),
                log: state.log_state(partition as usize),
                lag,
                owner: assigned.owner.as_ref().and_then(|owner| member(owner.member)),
                oldest: log.at(log.end_index() - lag).map(|record| record.stored_at),
            });
        }
        let mut members: Vec<String> = group.members.values().map(|member| member.name.clone()).collect();
        members.sort();
        Ok(GroupDescription::new(members, partitions))
    }

    fn fault_on_commit(&mut self, key: &MemberKey, commit: &Commit, step: &mut Step) -> Option<CommitFault> {
        if self.armed.commits.is_empty() {
            return None;
        }
        let group = self.groups.get(&key.topic)?.get(&key.group)?;
        let mut place = group.place_of(key.id)?;
        place.partition = Some(commit.partition);
        let fault = self.armed.commits.strike(&place)?;
        let kind = match fault {
            CommitFault::Fence => FaultKind::CommitFenced,
            CommitFault::Unavailable => FaultKind::CommitUnavailable,
            CommitFault::LoseAnswer => FaultKind::CommitAnswerLost,
        };
        step.faults.push(kind.at(place));
        Some(fault)
    }
}

fn active() -> Error {
    Error::new(ErrorKind::GroupActive, "the group has active members; expected none")
}

fn unknown() -> Error {
    Error::new(ErrorKind::UnknownGroup, "the group has neither progress nor members")
}
