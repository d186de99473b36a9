//! [`MemoryMember`]: one member of a group, and the events it is given.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;

use async_trait::async_trait;
use eventbus_core::backend::{Commit, GroupEvent, Join, LogState, Membership};
use eventbus_core::{Position, Result};

use crate::timers::MemberKey;
use crate::world::World;

/// A membership. One that is dropped without [`leave`](Membership::leave) counts as killed: its partitions are free for
/// others when its session is over.
pub(crate) struct MemoryMember {
    world: Arc<World>,
    connection: u64,
    key: MemberKey,
}

impl MemoryMember {
    pub(crate) fn join(world: &Arc<World>, connection: u64, join: Join) -> Result<Self> {
        let key = world.step(|state, step| state.join(connection, join, step))?;
        Ok(Self { world: Arc::clone(world), connection, key })
    }
}

#[async_trait]
impl Membership for MemoryMember {
    async fn next(&self) -> Result<GroupEvent> {
        poll_fn(|cx| self.world.step(|state, step| state.poll_next(&self.key, cx, step))).await
    }

    async fn read(&self, partition: u32, from: Position) -> Result<LogState> {
        self.world.call(self.connection).await?;
        self.world.step(|state, step| state.read(&self.key, partition, from, step))
    }

    fn pause(&self, partition: u32) {
        self.world.step(|state, step| state.set_paused(&self.key, partition, true, step));
    }

    fn resume(&self, partition: u32) {
        self.world.step(|state, step| state.set_paused(&self.key, partition, false, step));
    }

    async fn commit(&self, commit: Commit) -> Result<()> {
        self.world.call(self.connection).await?;
        self.world.step(|state, step| state.commit(&self.key, commit, step))?;
        self.world.call(self.connection).await
    }

    async fn release(&self, partition: u32) -> Result<()> {
        self.world.call(self.connection).await?;
        self.world.step(|state, step| {
            if let Some((group, timers)) = state.group_and_timers(&self.key.topic, &self.key.group) {
                group.release(partition, self.key.id, timers, step);
            }
        });
        Ok(())
    }

    async fn leave(&self) -> Result<()> {
        self.world.call(self.connection).await?;
        self.world.step(|state, step| {
            if let Some((group, timers)) = state.group_and_timers(&self.key.topic, &self.key.group) {
                group.leave(self.key.id, timers, step);
            }
        });
        Ok(())
    }
}

impl Drop for MemoryMember {
    fn drop(&mut self) {
        self.world.step(|state, step| state.kill_member(&self.key, step));
    }
}

impl fmt::Debug for MemoryMember {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryMember").field("key", &self.key).finish_non_exhaustive()
    }
}
