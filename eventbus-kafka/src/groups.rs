//! Progress and lag of groups, as seen from outside.
//!
//! Invariant: a group with active members is neither reset nor removed; the coordinator refuses both to outsiders.

use std::sync::Arc;
use std::time::Duration;

use eventbus_core::backend::GroupDescription;
use eventbus_core::toolkit::coordinated::{CommittedOffset, describe_group};
use eventbus_core::toolkit::{names_under, remove_each};
use eventbus_core::{Error, ErrorKind, Group, Position, Result, Topic};
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::{Offset, TopicPartitionList};

use crate::config::Protocol;
use crate::connection::{Admin, Link};
use crate::error::{only, refused};
use crate::note::{CommitMetadata, text_beside};
use crate::topics::{count, watermarks, without_leader, without_leaders};
use crate::{scan, wire};

/// Time in which groups that are being removed may still have members.
const REMOVAL: Duration = Duration::from_secs(15);

pub(crate) async fn list(link: &Arc<Link>, topic: &Topic) -> Result<Vec<Group>> {
    let name = link.config.topic(topic);
    let question = move |link: &Link| {
        count(link, &name)?;
        let mut found = Vec::new();
        for group in all(link)? {
            let progress = progress(link, &name, &link.config.group(&group))?;
            if progress.iter().any(|(_, committed)| committed.is_some()) {
                found.push(group);
            }
        }
        Ok(found)
    };
    link.ask("asking for groups", question).await
}

pub(crate) async fn describe(link: &Arc<Link>, topic: &Topic, group: &Group) -> Result<GroupDescription> {
    let (name, id) = (link.config.topic(topic), link.config.group(group));
    let question = move |link: &Link| {
        let members = members(link, &id)?;
        // The old request does not tell the members of a group that the broker assigns.
        let told = !members.is_empty() || link.config.protocol != Protocol::Broker;
        if let Some(partition) = without_leaders(link, &name)?.first() {
            return Ok(Err(without_leader(&name, *partition)));
        }
        let mut partitions = Vec::new();
        for (partition, committed) in progress(link, &name, &id)? {
            partitions.push((partition, watermarks(link, &name, partition)?, committed));
        }
        let backlogs = |behind: &[_]| scan::backlogs(link, &name, behind);
        Ok(Ok(describe_group(told.then_some(members), partitions, backlogs)))
    };
    link.ask("asking for a group", question).await??.known()
}

pub(crate) async fn reset(link: &Arc<Link>, topic: &Topic, group: &Group, to: &[(u32, Position)]) -> Result<()> {
    let (name, id, to) = (link.config.topic(topic), link.config.group(group), to.to_vec());
    let question = move |link: &Link| {
        let before = progress(link, &name, &id)?;
        let mut list = TopicPartitionList::new();
        for (partition, position, stored) in CommitMetadata::reset(&before, &to) {
            let mut entry = list.add_partition(&name, wire::number(partition));
            entry.set_offset(Offset::Offset(wire::offset(position)))?;
            entry.set_metadata(stored.encode());
        }
        if !members(link, &id)?.is_empty() {
            return Err(KafkaError::ConsumerCommit(Code::NonEmptyGroup));
        }
        link.in_name_of(&id, |client| client.commit(&list, CommitMode::Sync))
    };
    link.ask("resetting a group", question).await.map_err(|error| match error.kind() {
        // The answer of a group with members to an outsider.
        ErrorKind::Fenced | ErrorKind::GroupActive => {
            Error::new(ErrorKind::GroupActive, "the group has active members")
        }
        _ => error,
    })
}

pub(crate) async fn delete(link: &Arc<Link>, group: &Group) -> Result<()> {
    let id = link.config.group(group);
    let delete = async |admin: &Admin, options: &_| admin.delete_groups(&[&id], options).await;
    let answer = link.administer(delete).await;
    only(answer, "deleting a group")?.map_err(refused)
}

/// Deletes all groups of the prefix. Waits for members that are just leaving.
pub(crate) async fn remove_all(link: &Arc<Link>) -> Result<()> {
    let groups = link.ask("asking for groups", all).await?;
    let delete = |group| async move { delete(link, &group).await.map_err(|error| error.with("group", group)) };
    remove_each(REMOVAL, groups, delete).await
}

/// All groups of the prefix.
fn all(link: &Link) -> KafkaResult<Vec<Group>> {
    let groups = link.by_client(|client| client.fetch_group_list(None, link.timeout()))?;
    Ok(names_under(&link.config.prefix, groups.groups().iter().map(|group| group.name())))
}

fn members(link: &Link, group: &str) -> KafkaResult<Vec<String>> {
    let found = link.by_client(|client| client.fetch_group_list(Some(group), link.timeout()))?;
    let members = found.groups().iter().flat_map(|group| group.members());
    Ok(members.map(|member| member.client_id().to_owned()).collect())
}

fn progress(link: &Link, topic: &str, group: &str) -> KafkaResult<Vec<(u32, CommittedOffset)>> {
    let mut list = TopicPartitionList::new();
    list.add_partition_range(topic, 0, wire::number(count(link, topic)?.0) - 1);
    let committed = link.in_name_of(group, |client| client.committed_offsets(list, link.timeout()))?;
    let progress = committed.elements().into_iter().map(|element| {
        let known = wire::known(element.offset());
        let stored = known.map(|next| (next, CommitMetadata::decode(text_beside(&element)).unwrap_or_default()));
        (wire::partition(element.partition()), stored)
    });
    Ok(progress.collect())
}
