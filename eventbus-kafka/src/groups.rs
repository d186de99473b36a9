//! Progress and lag of groups, as seen from outside.
//!
//! Invariant: a group with active members is neither reset nor removed; the coordinator refuses both from who is no member.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use eventbus_core::backend::{GroupDescription, GroupPartition, LogState};
use eventbus_core::{Error, ErrorKind, Group, Position, Result, Topic};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::{Message, Offset, TopicPartitionList};

use crate::config::Protocol;
use crate::connection::Link;
use crate::error::{refused, to_core};
use crate::note::Stored;
use crate::scan;
use crate::topics::watermarks;
use crate::wire;

/// How long groups that are being removed may still have members.
const REMOVAL: Duration = Duration::from_secs(15);
const AGAIN: Duration = Duration::from_millis(200);

/// The groups of a topic.
pub(crate) struct Groups {
    link: Arc<Link>,
    topic: Topic,
    name: String,
}

/// What a group has committed of a partition.
type Progress = Vec<(u32, Option<(Position, Stored)>)>;

impl Groups {
    pub(crate) fn new(link: Arc<Link>, topic: Topic) -> Self {
        let name = link.config.topic(&topic);
        Self { link, topic, name }
    }

    pub(crate) async fn list(&self) -> Result<Vec<Group>> {
        let name = self.name.clone();
        let question = move |link: &Link| {
            let mut found = Vec::new();
            partitions(link, &name)?;
            let groups = link.client().fetch_group_list(None, link.timeout())?;
            for group in groups.groups() {
                let Some(known) = group.name().strip_prefix(link.config.prefix.as_str()) else { continue };
                let Ok(known) = known.parse::<Group>() else { continue };
                let progress = progress(link, &name, group.name())?;
                if progress.iter().any(|(_, committed)| committed.is_some()) {
                    found.push(known);
                }
            }
            Ok(found)
        };
        let mut groups =
            self.link.ask("asking for groups", question).await.map_err(|e| e.with("topic", &self.topic))?;
        groups.sort();
        Ok(groups)
    }

    pub(crate) async fn describe(&self, group: &Group) -> Result<GroupDescription> {
        let (name, id) = (self.name.clone(), self.link.config.group(group));
        let question = move |link: &Link| {
            let mut members = members(link, &id)?;
            let progress = progress(link, &name, &id)?;
            // Of a group that the broker assigns, the old request tells no members: owners are what their notes say.
            if members.is_empty() && link.config.protocol == Protocol::Broker {
                let stored = progress.iter().filter_map(|(_, committed)| committed.as_ref());
                let owners = stored.map(|(_, stored)| stored.owner.clone()).filter(|owner| !owner.is_empty());
                members = owners.collect::<BTreeSet<_>>().into_iter().collect();
            }
            let mut partitions = Vec::new();
            for (partition, committed) in progress {
                let log = watermarks(link, &name, partition)?;
                let (next, stored) = committed.unzip();
                let from = next.unwrap_or(log.first).max(log.first);
                let lag = log.end.get().saturating_sub(from.get());
                let owner = stored.as_ref().map(|stored| stored.owner.clone());
                let known = |owner: &String| members.iter().any(|member| member.starts_with(owner.as_str()));
                let owner = owner.filter(|owner| !owner.is_empty() && known(owner));
                let committed = next.zip(stored).map(|(next, stored)| stored.committed(next));
                let oldest = if lag > 0 { stored_at(link, &name, partition, &log, from) } else { None };
                partitions.push(GroupPartition { partition, committed, log, lag, owner, oldest });
            }
            Ok(GroupDescription::new(members, partitions))
        };
        let described =
            self.link.ask("asking for a group", question).await.map_err(|error| self.about(error, group))?;
        if described.members.is_empty() && described.partitions.iter().all(|partition| partition.committed.is_none()) {
            let message = "the group has neither progress nor members";
            return Err(self.about(Error::new(ErrorKind::UnknownGroup, message), group));
        }
        Ok(described)
    }

    pub(crate) async fn reset(&self, group: &Group, to: &[(u32, Position)]) -> Result<()> {
        let (name, id, to) = (self.name.clone(), self.link.config.group(group), to.to_vec());
        let question = move |link: &Link| {
            let before = progress(link, &name, &id)?;
            let mut list = TopicPartitionList::new();
            for (partition, position) in to {
                let known = before.iter().find(|(known, _)| *known == partition);
                let stored = known.and_then(|(_, committed)| committed.as_ref()).map(|(_, stored)| stored.clone());
                let stored = stored.unwrap_or_default();
                let print = stored.print.filter(|print| print.offset < wire::offset(position));
                let stored = Stored { print, owner: String::new(), note: bytes::Bytes::new(), ..stored };
                let number = i32::try_from(partition).unwrap_or(i32::MAX);
                let mut entry = list.add_partition(&name, number);
                entry.set_offset(Offset::Offset(wire::offset(position)))?;
                entry.set_metadata(stored.encode());
            }
            if !members(link, &id)?.is_empty() {
                return Err(KafkaError::ConsumerCommit(Code::NonEmptyGroup));
            }
            outsider(link, &id)?.commit(&list, CommitMode::Sync)
        };
        let answer = self.link.ask("resetting a group", question).await;
        answer.map_err(|error| self.active(error, group))
    }

    pub(crate) async fn delete(&self, group: &Group) -> Result<()> {
        self.describe(group).await?;
        let id = self.link.config.group(group);
        let answer = self.link.admin().delete_groups(&[&id], &self.link.options()).await;
        let answer = answer.map_err(|error| to_core(&error, "deleting a group"))?;
        match answer.into_iter().next() {
            Some(Err((_, code))) => Err(self.about(refused(code), group)),
            _ => Ok(()),
        }
    }

    fn active(&self, error: Error, group: &Group) -> Error {
        match error.kind() {
            // What a group with members says to who is none of them.
            ErrorKind::Fenced | ErrorKind::GroupActive => {
                self.about(Error::new(ErrorKind::GroupActive, "the group has active members"), group)
            }
            _ => self.about(error, group),
        }
    }

    fn about(&self, error: Error, group: &Group) -> Error {
        error.with("topic", &self.topic).with("group", group)
    }
}

/// Deletes all groups of the prefix. A member that is just leaving is waited for.
pub(crate) async fn remove_all(link: &Arc<Link>) -> Result<()> {
    let until = Instant::now() + REMOVAL;
    loop {
        let ours = |link: &Link| {
            let groups = link.client().fetch_group_list(None, link.timeout())?;
            let names = groups.groups().iter().map(|group| group.name().to_owned());
            Ok(names.filter(|name| name.starts_with(link.config.prefix.as_str())).collect::<Vec<_>>())
        };
        let names = link.ask("asking for groups", ours).await?;
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        if names.is_empty() {
            return Ok(());
        }
        let answer = link.admin().delete_groups(&names, &link.options()).await;
        let answer = answer.map_err(|error| to_core(&error, "deleting groups"))?;
        let left = answer.into_iter().filter_map(std::result::Result::err);
        let left: Vec<_> = left.filter(|(_, code)| *code != Code::GroupIdNotFound).collect();
        let Some((name, code)) = left.first() else { return Ok(()) };
        if Instant::now() > until {
            return Err(refused(*code).with("group", name));
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// When the record at an offset was stored, in milliseconds since the Unix epoch.
fn stored_at(link: &Link, topic: &str, partition: u32, log: &LogState, from: Position) -> Option<u64> {
    let mut time = None;
    // Best effort: a description is worth having without it.
    let _ = scan::read(link, topic, partition, from.get(), log.end.get().min(from.get() + 1), |message| {
        time = message.timestamp().to_millis();
    });
    time.and_then(|millis| u64::try_from(millis).ok())
}

/// A consumer that names the group and never joins it.
fn outsider(link: &Link, group: &str) -> KafkaResult<BaseConsumer> {
    let mut config = link.config.client();
    config.set("group.id", group).set("enable.auto.commit", "false").create()
}

fn members(link: &Link, group: &str) -> KafkaResult<Vec<String>> {
    let found = link.client().fetch_group_list(Some(group), link.timeout())?;
    let members = found.groups().iter().flat_map(|group| group.members());
    Ok(members.map(|member| member.client_id().to_owned()).collect())
}

/// How many partitions a topic has.
fn partitions(link: &Link, topic: &str) -> KafkaResult<usize> {
    let metadata = link.client().fetch_metadata(Some(topic), link.timeout())?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    match found.map_or(0, |found| found.partitions().len()) {
        0 => Err(KafkaError::MetadataFetch(Code::UnknownTopicOrPartition)),
        count => Ok(count),
    }
}

fn progress(link: &Link, topic: &str, group: &str) -> KafkaResult<Progress> {
    let count = partitions(link, topic)?;
    let mut list = TopicPartitionList::with_capacity(count);
    list.add_partition_range(topic, 0, i32::try_from(count).unwrap_or(i32::MAX) - 1);
    let committed = outsider(link, group)?.committed_offsets(list, link.timeout())?;
    let mut progress = Vec::new();
    for element in committed.elements() {
        let partition = u32::try_from(element.partition()).unwrap_or_default();
        let known = match element.offset() {
            Offset::Offset(next) => {
                Some((wire::position(next), Stored::decode(element.metadata()).unwrap_or_default()))
            }
            _ => None,
        };
        progress.push((partition, known));
    }
    Ok(progress)
}
