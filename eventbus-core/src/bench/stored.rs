//! A backend that answers every submission as stored within the call, and keeps nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;

use crate::backend::{
    Backend, Capabilities, ConnectionState, Fate, GroupDescription, Health, Join, LogState, Membership, Outbound,
    Ticket, TopicDescription,
};
use crate::model::{Error, ErrorKind, Group, Position, Result, Stamp, Topic, TopicSpec};

/// The number of counters of positions; further partitions share them.
const PARTITIONS: usize = 64;

#[derive(Debug)]
pub(crate) struct Stored {
    ends: [AtomicU64; PARTITIONS],
}

impl Default for Stored {
    fn default() -> Self {
        Self { ends: std::array::from_fn(|_| AtomicU64::new(1)) }
    }
}

fn unsupported() -> Error {
    Error::new(ErrorKind::Unsupported, "this backend keeps nothing")
}

#[async_trait]
impl Backend for Stored {
    fn system(&self) -> &'static str {
        "measured"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    async fn open(&self) -> Result<()> {
        Ok(())
    }

    fn in_force(&self, spec: &TopicSpec) -> Result<TopicSpec> {
        Ok(spec.clone())
    }

    async fn create_topic(&self, _: &TopicSpec) -> Result<bool> {
        Ok(false)
    }

    async fn update_topic(&self, _: &TopicSpec) -> Result<()> {
        Err(unsupported())
    }

    async fn describe_topic(&self, topic: &Topic) -> Result<TopicDescription> {
        let log = LogState { incarnation: "one".into(), first: Position::new(1), end: Position::new(1) };
        let spec = TopicSpec::new(topic.as_str());
        let logs = vec![log; spec.partitions as usize];
        Ok(TopicDescription::new(spec, "one", logs))
    }

    async fn count_partitions(&self, topic: &Topic) -> Result<u32> {
        Ok(self.describe_topic(topic).await?.spec.partitions)
    }

    async fn delete_topic(&self, _: &Topic) -> Result<()> {
        Err(unsupported())
    }

    async fn list_topics(&self) -> Result<Vec<Topic>> {
        Err(unsupported())
    }

    fn submit(&self, record: Outbound, ticket: Ticket) {
        let end = &self.ends[record.partition as usize % PARTITIONS];
        let position = Position::new(end.fetch_add(1, Ordering::Relaxed));
        ticket.tell(Fate::Stored { position, duplicate: false });
    }

    async fn find_stamp(&self, _: &Topic, _: u32, _: Position, _: Stamp) -> Result<Option<Position>> {
        Err(unsupported())
    }

    async fn position_at(&self, _: &Topic, _: u32, _: u64) -> Result<Position> {
        Err(unsupported())
    }

    async fn join(&self, _: Join) -> Result<Arc<dyn Membership>> {
        Err(unsupported())
    }

    async fn list_groups(&self, _: &Topic) -> Result<Vec<Group>> {
        Err(unsupported())
    }

    async fn describe_group(&self, _: &Topic, _: &Group) -> Result<GroupDescription> {
        Err(unsupported())
    }

    async fn reset_group(&self, _: &Topic, _: &Group, _: &[(u32, Position)]) -> Result<()> {
        Err(unsupported())
    }

    async fn delete_group(&self, _: &Topic, _: &Group) -> Result<()> {
        Err(unsupported())
    }

    async fn health(&self) -> Health {
        Health::new(ConnectionState::Connected)
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}
