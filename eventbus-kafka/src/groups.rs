//! Progress and lag of groups, as seen from outside.
//!
//! Invariant: a group with active members is neither reset nor removed; the coordinator refuses both from who is no member.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use eventbus_core::backend::{GroupDescription, GroupPartition, settled};
use eventbus_core::{Error, ErrorKind, Group, Position, Result, Topic};
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::{Offset, TopicPartitionList};

use crate::config::Protocol;
use crate::connection::Link;
use crate::error::{only, refused, to_core};
use crate::note::Stored;
use crate::scan;
use crate::topics::watermarks;
use crate::wire;

/// How long groups that are being removed may still have members.
const REMOVAL: Duration = Duration::from_secs(15);

/// The groups of a topic.
pub(crate) struct Groups {
    link: Arc<Link>,
    /// The topic's, on the broker.
    name: String,
}

/// What a group has committed of a partition.
type Progress = Vec<(u32, Option<(Position, Stored)>)>;

impl Groups {
    pub(crate) fn new(link: Arc<Link>, topic: &Topic) -> Self {
        let name = link.config.topic(topic);
        Self { link, name }
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
        let mut groups = self.link.ask("asking for groups", question).await?;
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
                let owner = committed.as_ref().map(|(_, stored)| stored.owner.clone());
                let committed = committed.map(|(next, stored)| stored.committed(next));
                let mut described = GroupPartition::counted(partition, log, committed);
                let known = |owner: &String| members.iter().any(|member| member.starts_with(owner.as_str()));
                described.owner = owner.filter(|owner| !owner.is_empty() && known(owner));
                if described.lag > 0 {
                    described.oldest = scan::stored_at(link, &name, partition, described.waits_from());
                }
                partitions.push(described);
            }
            Ok(GroupDescription::new(members, partitions))
        };
        self.link.ask("asking for a group", question).await?.known()
    }

    pub(crate) async fn reset(&self, group: &Group, to: &[(u32, Position)]) -> Result<()> {
        let (name, id, to) = (self.name.clone(), self.link.config.group(group), to.to_vec());
        let question = move |link: &Link| {
            let before = progress(link, &name, &id)?;
            let mut list = TopicPartitionList::new();
            for (partition, position) in to {
                let known = before.iter().find(|(known, _)| *known == partition);
                let stored = known.and_then(|(_, committed)| committed.as_ref()).map(|(_, stored)| stored.clone());
                let stored = stored.unwrap_or_default().by_nobody(wire::offset(position));
                let number = i32::try_from(partition).unwrap_or(i32::MAX);
                let mut entry = list.add_partition(&name, number);
                entry.set_offset(Offset::Offset(wire::offset(position)))?;
                entry.set_metadata(stored.encode());
            }
            if !members(link, &id)?.is_empty() {
                return Err(KafkaError::ConsumerCommit(Code::NonEmptyGroup));
            }
            link.outsider(&id)?.commit(&list, CommitMode::Sync)
        };
        self.link.ask("resetting a group", question).await.map_err(|error| match error.kind() {
            // What a group with members says to who is none of them.
            ErrorKind::Fenced | ErrorKind::GroupActive => {
                Error::new(ErrorKind::GroupActive, "the group has active members")
            }
            _ => error,
        })
    }

    pub(crate) async fn delete(&self, group: &Group) -> Result<()> {
        self.describe(group).await?;
        let id = self.link.config.group(group);
        let answer = self.link.admin().delete_groups(&[&id], &self.link.options()).await;
        only(answer, "deleting a group")?.map_err(refused)
    }
}

/// Deletes all groups of the prefix. A member that is just leaving is waited for.
pub(crate) async fn remove_all(link: &Arc<Link>) -> Result<()> {
    let remove = || async {
        let ours = |link: &Link| {
            let groups = link.client().fetch_group_list(None, link.timeout())?;
            let names = groups.groups().iter().map(|group| group.name().to_owned());
            Ok(names.filter(|name| name.starts_with(link.config.prefix.as_str())).collect::<Vec<_>>())
        };
        let names = link.ask("asking for groups", ours).await?;
        if names.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let answer = link.admin().delete_groups(&names, &link.options()).await;
        let answer = answer.map_err(|error| to_core(&error, "deleting groups"))?;
        let mut left = answer.into_iter().filter_map(std::result::Result::err);
        match left.find(|(_, code)| *code != Code::GroupIdNotFound) {
            Some((name, code)) => Err(refused(code).with("group", name)),
            None => Ok(()),
        }
    };
    let passes = |error: &Error| error.kind() == ErrorKind::GroupActive || error.is_retryable();
    settled(REMOVAL, |removed| removed.as_ref().is_err_and(passes), remove).await
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
    let committed = link.outsider(group)?.committed_offsets(list, link.timeout())?;
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
