//! A whole backend in one file, to begin another one from. `main.rs` runs the plain cases of the contract on it.
//!
//! Logs are vectors behind one lock. A real broker's work is left out: the data is gone with the process, a silent
//! member keeps its partitions for ever, nothing expires, and members are not given shares.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use eventbus_core::backend::Ticket;
use eventbus_core::backend::{
    Assignment, Backend, Body, Capabilities, Commit, Committed, ConnectionState, Fate, GroupDescription, GroupEvent,
    GroupPartition, Health, Inbound, Join, Lease, LogState, Membership, Outbound, TopicDescription,
};
use eventbus_core::{Env, Error, ErrorKind, Group, Position, Result, Stamp, Topic, TopicSpec};
use tokio::sync::Notify;

/// The broker, which a real backend reaches over the network.
#[derive(Debug)]
pub(crate) struct Toy {
    env: Arc<dyn Env>,
    topics: Mutex<BTreeMap<Topic, ToyTopic>>,
    changed: Notify,
    /// Number of topics ever made, which tells one incarnation from another.
    made: AtomicU64,
}

#[derive(Debug)]
struct ToyTopic {
    spec: TopicSpec,
    incarnation: String,
    /// Logs by partition; a record's index is its position.
    logs: Vec<Vec<(Outbound, u64)>>,
    groups: BTreeMap<Group, ToyGroup>,
}

/// A group: the member that joined first owns all partitions. The others wait until it leaves.
#[derive(Debug, Default)]
struct ToyGroup {
    members: Vec<String>,
    /// The member that was told that it is the owner.
    owner: Option<String>,
    partitions: Vec<AssignedPartition>,
}

#[derive(Debug, Default)]
struct AssignedPartition {
    committed: Option<Committed>,
    /// The next position to deliver, once the core reads.
    reader: Option<usize>,
    paused: bool,
    /// Whether its owner has claimed it, and not released it.
    claimed: bool,
}

fn unknown(topic: &Topic) -> Error {
    Error::new(ErrorKind::UnknownTopic, "no such topic").with("topic", topic)
}

impl ToyTopic {
    fn log(&self, partition: u32) -> LogState {
        let end = self.logs.get(partition as usize).map_or(0, Vec::len) as u64;
        LogState { incarnation: self.incarnation.clone(), first: Position::ZERO, end: Position::new(end) }
    }

    fn describe(&self) -> TopicDescription {
        let logs = (0..self.spec.partitions).map(|partition| self.log(partition)).collect();
        let mut description = TopicDescription::new(self.spec.clone(), self.incarnation.clone(), logs);
        description.records = self.logs.iter().map(|log| log.len() as u64).sum();
        description
    }

    fn group(&mut self, group: &Group) -> Result<&mut ToyGroup> {
        let unknown = || Error::new(ErrorKind::UnknownGroup, "no such group").with("group", group);
        self.groups.get_mut(group).ok_or_else(unknown)
    }

    fn idle_group(&mut self, group: &Group) -> Result<&mut ToyGroup> {
        let idle = self.group(group)?;
        let active = || Error::new(ErrorKind::GroupActive, "the group has active members").with("group", group);
        if idle.members.is_empty() { Ok(idle) } else { Err(active()) }
    }

    /// The next event for a member.
    fn event(&mut self, group: &Group, member: &str) -> Option<GroupEvent> {
        let logs: Vec<LogState> = (0..self.spec.partitions).map(|partition| self.log(partition)).collect();
        let group = self.groups.get_mut(group).filter(|group| group.members.first().is_some_and(|m| m == member))?;
        if group.owner.replace(member.to_owned()).is_none_or(|before| before != member) {
            let slots = (0_u32..).zip(&mut group.partitions).zip(logs).map(|((partition, assigned), log)| {
                *assigned = AssignedPartition { committed: assigned.committed.take(), ..AssignedPartition::default() };
                Assignment::new(partition, log, assigned.committed.clone(), Lease::unlimited())
            });
            return Some(GroupEvent::Assigned(slots.collect()));
        }
        let mut records = Vec::new();
        for ((partition, assigned), log) in (0_u32..).zip(&mut group.partitions).zip(&self.logs) {
            let Some(next) = assigned.reader.as_mut().filter(|_| !assigned.paused) else { continue };
            for (record, at) in log.iter().skip(*next).take(64) {
                let (position, body) = (Position::new(*next as u64), Body::Envelope(record.envelope.clone()));
                records.push(Inbound::new(partition, position, *at, body).stamped(Some(record.stamp)));
                *next += 1;
            }
        }
        (!records.is_empty()).then_some(GroupEvent::Records(records))
    }
}

/// A connection to the broker. A backend's author writes this and [`ToyMember`].
#[derive(Debug)]
pub(crate) struct ToyBackend(pub(crate) Arc<Toy>);

impl Toy {
    pub(crate) fn new(env: Arc<dyn Env>) -> Arc<Self> {
        Arc::new(Self { env, topics: Mutex::default(), changed: Notify::new(), made: AtomicU64::new(0) })
    }

    fn topics(&self) -> MutexGuard<'_, BTreeMap<Topic, ToyTopic>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, topic: &Topic, ask: impl FnOnce(&mut ToyTopic) -> Result<T>) -> Result<T> {
        ask(self.topics().get_mut(topic).ok_or_else(|| unknown(topic))?)
    }
}

#[async_trait]
impl Backend for ToyBackend {
    fn system(&self) -> &'static str {
        "toy"
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        (capabilities.durable, capabilities.retention, capabilities.overshoot) = (false, false, 0);
        capabilities
    }

    async fn open(&self) -> Result<()> {
        Ok(())
    }

    fn in_force(&self, spec: &TopicSpec) -> Result<TopicSpec> {
        Ok(spec.clone())
    }

    async fn create_topic(&self, spec: &TopicSpec) -> Result<bool> {
        let incarnation = format!("toy-{}", self.0.made.fetch_add(1, Ordering::Relaxed));
        let logs = (0..spec.partitions).map(|_| Vec::new()).collect();
        let made = ToyTopic { spec: spec.clone(), incarnation, logs, groups: BTreeMap::new() };
        let mut topics = self.0.topics();
        let free = !topics.contains_key(&spec.topic.parse()?);
        topics.entry(spec.topic.parse()?).or_insert(made);
        Ok(free)
    }

    async fn update_topic(&self, spec: &TopicSpec) -> Result<()> {
        let topic = spec.topic.parse()?;
        self.0.with(&topic, |topic| {
            topic.spec = spec.clone();
            Ok(())
        })
    }

    async fn describe_topic(&self, topic: &Topic) -> Result<TopicDescription> {
        self.0.with(topic, |topic| Ok(topic.describe()))
    }

    async fn count_partitions(&self, topic: &Topic) -> Result<u32> {
        Ok(self.describe_topic(topic).await?.spec.partitions)
    }

    async fn delete_topic(&self, topic: &Topic) -> Result<()> {
        self.0.topics().remove(topic).map(drop).ok_or_else(|| unknown(topic))
    }

    async fn list_topics(&self) -> Result<Vec<Topic>> {
        Ok(self.0.topics().keys().cloned().collect())
    }

    fn submit(&self, record: Outbound, ticket: Ticket) {
        let (at, topic, partition) = (self.0.env.unix_millis(), record.topic.clone(), record.partition as usize);
        let stored = self.0.with(&topic, |topic| {
            let log =
                topic.logs.get_mut(partition).ok_or_else(|| Error::new(ErrorKind::Backend, "no such partition"))?;
            log.push((record, at));
            Ok(Position::new(log.len() as u64 - 1))
        });
        self.0.changed.notify_waiters();
        ticket.tell(stored.map_or_else(Fate::Refused, |position| Fate::Stored { position, duplicate: false }));
    }

    async fn find_stamp(
        &self,
        topic: &Topic,
        partition: u32,
        from: Position,
        stamp: Stamp,
    ) -> Result<Option<Position>> {
        self.0.with(topic, |topic| {
            let mut log = (0..).zip(topic.logs.get(partition as usize).into_iter().flatten());
            let found = log.find(|(position, (record, _))| *position >= from.get() && record.stamp == stamp);
            Ok(found.map(|(position, _)| Position::new(position)))
        })
    }

    async fn position_at(&self, topic: &Topic, partition: u32, unix_millis: u64) -> Result<Position> {
        self.0.with(topic, |topic| {
            let log = topic.logs.get(partition as usize).map_or(&[][..], Vec::as_slice);
            Ok(Position::new(log.partition_point(|(_, at)| *at < unix_millis) as u64))
        })
    }

    async fn join(&self, join: Join) -> Result<Arc<dyn Membership>> {
        let topic: Topic = join.topic.spec.topic.parse()?;
        self.0.with(&topic, |topic| {
            let slots = topic.logs.len();
            let group = topic.groups.entry(join.group.clone()).or_default();
            group.partitions.resize_with(slots, AssignedPartition::default);
            group.members.push(join.member.clone());
            Ok(())
        })?;
        self.0.changed.notify_waiters();
        let (group, member, session) = (join.group, join.member, join.session_timeout);
        Ok(Arc::new(ToyMember { toy: self.0.clone(), topic, group, member, session }))
    }

    async fn list_groups(&self, topic: &Topic) -> Result<Vec<Group>> {
        self.0.with(topic, |topic| Ok(topic.groups.keys().cloned().collect()))
    }

    async fn describe_group(&self, topic: &Topic, group: &Group) -> Result<GroupDescription> {
        self.0.with(topic, |topic| {
            let logs: Vec<LogState> = (0..topic.spec.partitions).map(|partition| topic.log(partition)).collect();
            let group = topic.group(group)?;
            let partitions = (0_u32..).zip(&group.partitions).zip(logs).map(|((partition, assigned), log)| {
                let counted = GroupPartition::counted(partition, log, assigned.committed.clone());
                GroupPartition { owner: group.owner.clone(), ..counted }
            });
            Ok(GroupDescription::new(group.members.clone(), partitions.collect()))
        })
    }

    async fn reset_group(&self, topic: &Topic, group: &Group, to: &[(u32, Position)]) -> Result<()> {
        self.0.with(topic, |topic| {
            let idle = topic.idle_group(group)?;
            for (partition, next) in to {
                let Some(assigned) = idle.partitions.get_mut(*partition as usize) else { continue };
                let epoch = assigned.committed.as_ref().map_or(0, |committed| committed.epoch);
                assigned.committed = Some(Committed { next: *next, epoch, note: bytes::Bytes::new() });
            }
            Ok(())
        })
    }

    async fn delete_group(&self, topic: &Topic, group: &Group) -> Result<()> {
        self.0.with(topic, |topic| {
            topic.idle_group(group)?;
            topic.groups.remove(group);
            Ok(())
        })
    }

    async fn health(&self) -> Health {
        Health::new(ConnectionState::Connected)
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

#[derive(Debug, Clone)]
struct ToyMember {
    toy: Arc<Toy>,
    topic: Topic,
    group: Group,
    member: String,
    session: Duration,
}

impl ToyMember {
    /// Asks an assigned partition, for its owner alone: this is the fence.
    fn assigned<T>(&self, partition: u32, ask: impl FnOnce(&mut AssignedPartition) -> Result<T>) -> Result<T> {
        let fenced = || Error::new(ErrorKind::Fenced, "the partition is not owned").with("partition", partition);
        let answer = self.toy.with(&self.topic, |topic| {
            let group = topic.group(&self.group)?;
            let mine = group.owner.as_ref() == Some(&self.member);
            ask(group.partitions.get_mut(partition as usize).filter(|_| mine).ok_or_else(fenced)?)
        });
        self.toy.changed.notify_waiters();
        answer
    }

    /// Makes room for the next owner.
    fn give_up(&self) -> Result<()> {
        let given_up = self.toy.with(&self.topic, |topic| {
            let group = topic.group(&self.group)?;
            group.members.retain(|member| *member != self.member);
            if group.owner.take_if(|owner| *owner == self.member).is_some() {
                group.partitions.iter_mut().for_each(|assigned| assigned.claimed = false);
            }
            Ok(())
        });
        self.toy.changed.notify_waiters();
        given_up
    }

    fn set_paused(&self, partition: u32, paused: bool) {
        let _ = self.assigned(partition, |assigned| {
            assigned.paused = paused;
            Ok(())
        });
    }
}

#[async_trait]
impl Membership for ToyMember {
    async fn next(&self) -> Result<GroupEvent> {
        loop {
            let changed = self.toy.changed.notified();
            match self.toy.with(&self.topic, |topic| Ok(topic.event(&self.group, &self.member)))? {
                Some(event) => return Ok(event),
                None => changed.await,
            }
        }
    }

    async fn read(&self, partition: u32, from: Position) -> Result<LogState> {
        self.assigned(partition, |assigned| {
            assigned.reader = usize::try_from(from.get()).ok();
            Ok(())
        })?;
        self.toy.with(&self.topic, |topic| Ok(topic.log(partition)))
    }

    fn pause(&self, partition: u32) {
        self.set_paused(partition, true);
    }

    fn resume(&self, partition: u32) {
        self.set_paused(partition, false);
    }

    async fn commit(&self, commit: Commit) -> Result<()> {
        self.assigned(commit.partition, |assigned| {
            let stored = assigned.committed.as_ref().map_or(0, |committed| committed.epoch);
            if commit.epoch != stored && !(commit.claim && commit.epoch > stored) {
                return Err(Error::new(ErrorKind::Fenced, "the epoch was superseded").with("epoch", commit.epoch));
            }
            assigned.committed = Some(Committed { next: commit.next, epoch: commit.epoch, note: commit.note });
            assigned.claimed |= commit.claim;
            Ok(())
        })
    }

    /// Notes that nothing runs any more: partitions go one by one only where a backend shares them out.
    async fn release(&self, partition: u32) -> Result<()> {
        self.assigned(partition, |assigned| {
            assigned.claimed = false;
            Ok(())
        })
    }

    /// Leaves. Where a handler may still run, the next owner has to wait until this member's session would be over.
    async fn leave(&self) -> Result<()> {
        let busy = self.toy.with(&self.topic, |topic| {
            let group = topic.group(&self.group)?;
            Ok(group.owner.as_ref() == Some(&self.member) && group.partitions.iter().any(|one| one.claimed))
        })?;
        if !busy {
            return self.give_up();
        }
        let (member, session) = (self.clone(), self.session);
        tokio::spawn(async move {
            tokio::time::sleep(session).await;
            // A topic that was deleted meanwhile has no members.
            let _ = member.give_up();
        });
        Ok(())
    }
}
