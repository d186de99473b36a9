//! Context for every error of a backend: the topic, group and partition of the call.
//!
//! Invariant: a backend need not repeat what the caller knows, and a name that the backend does give is not given
//! twice.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use super::description::GroupDescription;
use super::forward::{ForwardBackend, ForwardMember};
use super::{Backend, Commit, GroupEvent, Join, LogState, Membership, TopicDescription};
use crate::model::{Group, Position, Result, Stamp, Topic};

/// A backend whose errors name the topic, the group and the partition that a call was about.
pub(crate) struct Named(pub(crate) Arc<dyn Backend>);

impl fmt::Debug for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn of_topic<T>(answer: Result<T>, topic: &Topic) -> Result<T> {
    answer.map_err(|error| error.about("topic", topic))
}

fn of_group<T>(answer: Result<T>, topic: &Topic, group: &Group) -> Result<T> {
    of_topic(answer, topic).map_err(|error| error.about("group", group))
}

fn of_partition<T>(answer: Result<T>, topic: &Topic, partition: u32) -> Result<T> {
    of_topic(answer, topic).map_err(|error| error.about("partition", partition))
}

#[async_trait]
impl ForwardBackend for Named {
    fn inner(&self) -> &dyn Backend {
        &*self.0
    }

    async fn describe_topic(&self, topic: &Topic) -> Result<TopicDescription> {
        of_topic(self.0.describe_topic(topic).await, topic)
    }

    async fn delete_topic(&self, topic: &Topic) -> Result<()> {
        of_topic(self.0.delete_topic(topic).await, topic)
    }

    async fn find_stamp(
        &self,
        topic: &Topic,
        partition: u32,
        from: Position,
        stamp: Stamp,
    ) -> Result<Option<Position>> {
        of_partition(self.0.find_stamp(topic, partition, from, stamp).await, topic, partition)
    }

    async fn position_at(&self, topic: &Topic, partition: u32, unix_millis: u64) -> Result<Position> {
        of_partition(self.0.position_at(topic, partition, unix_millis).await, topic, partition)
    }

    async fn join(&self, join: Join) -> Result<Arc<dyn Membership>> {
        let (topic, group) = (join.topic.spec.topic.parse()?, join.group.clone());
        let inner = of_group(self.0.join(join).await, &topic, &group)?;
        Ok(Arc::new(NamedMember { inner, topic, group }))
    }

    async fn list_groups(&self, topic: &Topic) -> Result<Vec<Group>> {
        of_topic(self.0.list_groups(topic).await, topic)
    }

    async fn describe_group(&self, topic: &Topic, group: &Group) -> Result<GroupDescription> {
        of_group(self.0.describe_group(topic, group).await, topic, group)
    }

    async fn reset_group(&self, topic: &Topic, group: &Group, to: &[(u32, Position)]) -> Result<()> {
        of_group(self.0.reset_group(topic, group, to).await, topic, group)
    }

    async fn delete_group(&self, topic: &Topic, group: &Group) -> Result<()> {
        of_group(self.0.delete_group(topic, group).await, topic, group)
    }
}

/// A member whose errors name its topic, its group, and the partition that a call was about.
#[derive(Debug)]
struct NamedMember {
    inner: Arc<dyn Membership>,
    topic: Topic,
    group: Group,
}

impl NamedMember {
    fn of<T>(&self, answer: Result<T>) -> Result<T> {
        of_group(answer, &self.topic, &self.group)
    }

    fn of_partition<T>(&self, answer: Result<T>, partition: u32) -> Result<T> {
        self.of(answer).map_err(|error| error.about("partition", partition))
    }
}

#[async_trait]
impl ForwardMember for NamedMember {
    fn inner(&self) -> &dyn Membership {
        &*self.inner
    }

    async fn next(&self) -> Result<GroupEvent> {
        self.of(self.inner.next().await)
    }

    async fn read(&self, partition: u32, from: Position) -> Result<LogState> {
        self.of_partition(self.inner.read(partition, from).await, partition)
    }

    async fn commit(&self, commit: Commit) -> Result<()> {
        let partition = commit.partition;
        self.of_partition(self.inner.commit(commit).await, partition)
    }

    async fn release(&self, partition: u32) -> Result<()> {
        self.of_partition(self.inner.release(partition).await, partition)
    }

    async fn leave(&self) -> Result<()> {
        self.of(self.inner.leave().await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::stored::Stored;
    use crate::model::{Error, ErrorKind, TopicSpec};

    /// A member that answers every call with an error that names its group.
    #[derive(Debug)]
    struct Failing;

    fn failed<T>() -> Result<T> {
        Err(Error::new(ErrorKind::Backend, "failed").with("group", "own"))
    }

    #[async_trait]
    impl Membership for Failing {
        async fn next(&self) -> Result<GroupEvent> {
            failed()
        }

        async fn read(&self, _: u32, _: Position) -> Result<LogState> {
            failed()
        }

        fn pause(&self, _: u32) {}

        fn resume(&self, _: u32) {}

        async fn commit(&self, _: Commit) -> Result<()> {
            failed()
        }

        async fn release(&self, _: u32) -> Result<()> {
            failed()
        }

        async fn leave(&self) -> Result<()> {
            failed()
        }
    }

    fn context<T>(answer: Result<T>) -> Vec<String> {
        let Err(error) = answer else { panic!("an error") };
        error.context().map(|(name, value)| format!("{name}={value}")).collect()
    }

    #[tokio::test]
    async fn errors_of_a_backend_say_what_the_call_was_about() {
        let (topic, group): (Topic, Group) = ("t".parse().unwrap(), "g".parse().unwrap());
        let backend = Named(Arc::new(Stored::default()));
        let backend: &dyn Backend = &backend;
        let (of_topic, of_group) = (vec!["topic=t"], vec!["topic=t", "group=g"]);
        assert_eq!(context(backend.delete_topic(&topic).await), of_topic);
        assert_eq!(context(backend.list_groups(&topic).await), of_topic);
        assert_eq!(context(backend.describe_group(&topic, &group).await), of_group);
        assert_eq!(context(backend.reset_group(&topic, &group, &[]).await), of_group);
        assert_eq!(context(backend.delete_group(&topic, &group).await), of_group);
        let described = TopicDescription::new(TopicSpec::new("t"), "", Vec::new());
        assert_eq!(context(backend.join(Join::new(described, group, "m")).await), of_group);
        assert_eq!(context(backend.position_at(&topic, 3, 0).await), ["topic=t", "partition=3"]);
        let stamp = Stamp::new(crate::model::ProducerId::new(1), 1);
        assert_eq!(context(backend.find_stamp(&topic, 3, Position::ZERO, stamp).await), ["topic=t", "partition=3"]);
    }

    #[tokio::test]
    async fn errors_of_a_member_do_too_and_nothing_is_told_twice() {
        let (topic, group) = ("t".parse().unwrap(), "g".parse().unwrap());
        let member: &dyn Membership = &NamedMember { inner: Arc::new(Failing), topic, group };
        let of_group = vec!["group=own", "topic=t"];
        let of_partition = vec!["group=own", "topic=t", "partition=3"];
        assert_eq!(context(member.next().await), of_group);
        assert_eq!(context(member.leave().await), of_group);
        assert_eq!(context(member.read(3, Position::ZERO).await), of_partition);
        assert_eq!(context(member.release(3).await), of_partition);
        let commit = Commit::new(3, Position::ZERO, 1, bytes::Bytes::new());
        assert_eq!(context(member.commit(commit).await), of_partition);
    }
}
