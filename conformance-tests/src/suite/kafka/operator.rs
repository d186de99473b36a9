//! The operator of a world on Kafka, with the broker's own administration.

use std::time::Duration;

use async_trait::async_trait;
use eventbus_core::Position;

use super::acls::Access;
use super::fixture::KafkaFixture;
use crate::brokers::KafkaServer;
use crate::suite::ability::{Ability, Missing};
use crate::suite::limited::Limits;
use crate::suite::operator::{Operator, Right};
use crate::suite::served::{Done, tried};

#[async_trait]
impl Operator for KafkaFixture {
    async fn limit_records(&self, topic: &str, bytes: usize) -> Done {
        tried(self.admin.limit(topic, bytes).await)
    }

    async fn purge(&self, topic: &str, partition: u32, first: Position) -> Done {
        tried(self.admin.truncate(topic, partition, first).await)
    }

    async fn retain(&self, topic: &str, long: Duration) -> Done {
        tried(self.admin.retain(topic, long).await)
    }

    async fn permit(&self, topic: &str, group: &str, right: Right, given: bool) -> Done {
        if !self.server.kind.as_ref().is_some_and(KafkaServer::is_governed) {
            return Err(Missing(Ability::Permissions).into());
        }
        let (topic, group) = (self.admin.names.topic(topic), self.admin.names.group(group));
        let access = match right {
            Right::Publish => Access::write(&topic),
            Right::Commit => Access::read_as(&group),
        };
        tried(if given { access.allow(self.server.address).await } else { access.deny(self.server.address).await })
    }

    async fn add_partitions(&self, topic: &str, count: u32) -> Done {
        tried(self.admin.add_partitions(topic, count).await)
    }
}
