use std::sync::Arc;
use async_trait::async_trait;
use eventbus_core::backend::{Commit, GroupEvent, Join, LogState, Membership};
use eventbus_core::{Position, Result};
use crate::connection::Link;
#[derive(Debug)]
pub(crate) struct KafkaMember;
impl KafkaMember { pub(crate) async fn join(_: &Arc<Link>, _: Join) -> Result<Self> { todo!() } }
#[async_trait]
impl Membership for KafkaMember {
    async fn next(&self) -> Result<GroupEvent> { todo!() }
    async fn read(&self, _: u32, _: Position) -> Result<LogState> { todo!() }
    fn pause(&self, _: u32) { todo!() }
    fn resume(&self, _: u32) { todo!() }
    async fn commit(&self, _: Commit) -> Result<()> { todo!() }
    async fn release(&self, _: u32) -> Result<()> { todo!() }
    async fn leave(&self) -> Result<()> { todo!() }
}
