//! [`MemoryBackend`]: one connection to a world.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use eventbus_core::backend::Ticket;
use eventbus_core::backend::{
    Backend, Capabilities, GroupDescription, Health, Join, Membership, Outbound, TopicDescription,
};
use eventbus_core::{Group, Position, Result, Stamp, Topic, TopicSpec};
use tokio::runtime::Handle;

use crate::health::capabilities;
use crate::member::MemoryMember;
use crate::state::MemoryState;
use crate::step::Step;
use crate::topic::in_force;
use crate::world::{MemoryWorld, World};

/// One process's connection to a [`MemoryWorld`]. Clones share the connection; connect again for another.
#[derive(Clone)]
pub struct MemoryBackend {
    world: Arc<World>,
    connection: u64,
    capabilities: Arc<Capabilities>,
}

impl MemoryWorld {
    /// Connects one more process to this world.
    #[must_use]
    pub fn connect(&self) -> MemoryBackend {
        let (connection, capabilities) = self.0.step(|state, _| {
            let id = state.fresh_id();
            state.connections.add(id);
            if let Ok(runtime) = Handle::try_current() {
                state.timers.runtime = Some(runtime);
            }
            (id, capabilities(&state.config))
        });
        MemoryBackend { world: Arc::clone(&self.0), connection, capabilities: Arc::new(capabilities) }
    }
}

impl MemoryBackend {
    /// The world behind this connection.
    #[must_use]
    pub fn world(&self) -> MemoryWorld {
        MemoryWorld(Arc::clone(&self.world))
    }

    /// The number of this connection in its world, as faults name it.
    #[must_use]
    pub fn connection(&self) -> u64 {
        self.connection
    }

    /// Takes a step in the world, between the ways to the broker and back.
    async fn ask<R>(&self, ask: impl FnOnce(&mut MemoryState, &mut Step) -> Result<R>) -> Result<R> {
        self.world.call(self.connection).await?;
        let answer = self.world.step(ask);
        self.world.call(self.connection).await?;
        answer
    }
}

impl fmt::Debug for MemoryBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBackend").field("connection", &self.connection).finish_non_exhaustive()
    }
}

#[async_trait]
impl Backend for MemoryBackend {
    fn system(&self) -> &'static str {
        "memory"
    }

    fn capabilities(&self) -> Capabilities {
        (*self.capabilities).clone()
    }

    async fn open(&self) -> Result<()> {
        Ok(())
    }

    fn in_force(&self, spec: &TopicSpec) -> Result<TopicSpec> {
        Ok(self.world.step(|state, _| in_force(spec, &state.config)))
    }

    async fn create_topic(&self, spec: &TopicSpec) -> Result<bool> {
        self.ask(|state, step| state.create_topic(spec, step)).await
    }

    async fn update_topic(&self, spec: &TopicSpec) -> Result<()> {
        self.ask(|state, step| {
            state.current(&spec.topic.parse()?, step.unix_millis)?.update(spec, step.unix_millis);
            Ok(())
        })
        .await
    }

    async fn describe_topic(&self, topic: &Topic) -> Result<TopicDescription> {
        self.ask(|state, step| {
            state.current(topic, step.unix_millis)?;
            Ok(state.topic(topic)?.describe(&state.config))
        })
        .await
    }

    async fn count_partitions(&self, topic: &Topic) -> Result<u32> {
        Ok(self.describe_topic(topic).await?.spec.partitions)
    }

    async fn delete_topic(&self, topic: &Topic) -> Result<()> {
        self.ask(|state, step| state.delete_topic(topic, step)).await
    }

    async fn list_topics(&self) -> Result<Vec<Topic>> {
        self.ask(|state, _| Ok(state.topics.keys().cloned().collect())).await
    }

    fn submit(&self, record: Outbound, ticket: Ticket) {
        let told = self.world.step(|state, step| state.submit(self.connection, record, ticket, step));
        if let Some((ticket, fate)) = told {
            ticket.tell(fate);
        }
    }

    async fn find_stamp(
        &self,
        topic: &Topic,
        partition: u32,
        from: Position,
        stamp: Stamp,
    ) -> Result<Option<Position>> {
        self.ask(|state, _| Ok(state.topic(topic)?.log(partition)?.find(from, stamp))).await
    }

    async fn position_at(&self, topic: &Topic, partition: u32, unix_millis: u64) -> Result<Position> {
        self.ask(|state, step| {
            let topic = state.current(topic, step.unix_millis)?;
            let found = topic.log(partition)?.first_stored_at(unix_millis);
            Ok(found.unwrap_or_else(|| topic.end(partition as usize)))
        })
        .await
    }

    async fn join(&self, join: Join) -> Result<Arc<dyn Membership>> {
        self.world.call(self.connection).await?;
        let member = MemoryMember::join(&self.world, self.connection, join)?;
        self.world.call(self.connection).await?;
        Ok(Arc::new(member))
    }

    async fn list_groups(&self, topic: &Topic) -> Result<Vec<Group>> {
        self.ask(|state, _| state.list_groups(topic)).await
    }

    async fn describe_group(&self, topic: &Topic, group: &Group) -> Result<GroupDescription> {
        self.ask(|state, step| state.describe_group(topic, group, step.unix_millis)).await
    }

    async fn reset_group(&self, topic: &Topic, group: &Group, to: &[(u32, Position)]) -> Result<()> {
        self.ask(|state, _| state.reset_group(topic, group, to)).await
    }

    async fn delete_group(&self, topic: &Topic, group: &Group) -> Result<()> {
        self.ask(|state, _| state.delete_group(topic, group)).await
    }

    async fn health(&self) -> Health {
        self.world.step(|state, _| state.health(self.connection))
    }

    async fn close(&self) -> Result<()> {
        self.world.step(|state, step| state.close(self.connection, step));
        Ok(())
    }
}
