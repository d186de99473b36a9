use std::sync::Arc;
use eventbus_core::backend::GroupDescription;
use eventbus_core::{Group, Position, Result, Topic};
use crate::connection::Link;
pub(crate) struct Groups;
impl Groups {
    pub(crate) fn new(_: Arc<Link>, _: Topic) -> Self { Self }
    pub(crate) async fn list(&self) -> Result<Vec<Group>> { todo!() }
    pub(crate) async fn describe(&self, _: &Group) -> Result<GroupDescription> { todo!() }
    pub(crate) async fn reset(&self, _: &Group, _: &[(u32, Position)]) -> Result<()> { todo!() }
    pub(crate) async fn delete(&self, _: &Group) -> Result<()> { todo!() }
}
