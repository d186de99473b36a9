//! The operator of a world on JetStream, with the server's own administration and configuration.

use std::sync::PoisonError;
use std::time::Duration;

use async_trait::async_trait;
use eventbus_core::Position;

use super::fixture::NatsFixture;
use super::names;
use crate::brokers::NatsServer;
use crate::suite::ability::{Ability, FaultError, Missing};
use crate::suite::limited::Limits;
use crate::suite::operator::{Operator, Right};
use crate::suite::served::{Done, tried};

#[async_trait]
impl Operator for NatsFixture {
    async fn limit_records(&self, topic: &str, bytes: usize) -> Done {
        tried(self.admin.limit(topic, bytes).await)
    }

    async fn purge(&self, topic: &str, partition: u32, first: Position) -> Done {
        tried(self.admin.purge(topic, partition, first).await)
    }

    async fn retain(&self, topic: &str, long: Duration) -> Done {
        tried(self.admin.retain(topic, long).await)
    }

    async fn remove_readers(&self, topic: &str) -> Result<usize, FaultError> {
        tried(self.admin.remove_readers(topic).await)
    }

    async fn remove_progress(&self, topic: &str) -> Done {
        tried(self.admin.remove_progress(topic).await)
    }

    async fn permit(&self, topic: &str, group: &str, right: Right, given: bool) -> Done {
        let users = self.server.kind.as_ref().and_then(NatsServer::users);
        let users = users.ok_or(Missing(Ability::Permissions))?;
        let subject = match right {
            Right::Publish => format!("{}>", names::subjects(&self.prefix, topic)),
            Right::Commit => format!("{}>", names::records(&self.prefix, topic, group)),
        };
        let denied: Vec<String> = {
            let mut denied = self.denied.lock().unwrap_or_else(PoisonError::into_inner);
            if given {
                denied.remove(&subject)
            } else {
                denied.insert(subject)
            };
            denied.iter().cloned().collect()
        };
        tried(users.deny(&denied))?;
        self.server.reload().await
    }

    async fn remove_record(&self, topic: &str, _: u32, position: Position) -> Done {
        let stream = tried(self.admin.topic(topic).await)?;
        tried(stream.delete_message(position.get()).await).map(drop)
    }

    async fn spoil(&self, topic: &str) -> Result<&'static str, FaultError> {
        tried(self.admin.change(topic, |config| config.max_messages_per_subject = 1_000).await)?;
        Ok("max_msgs_per_subject")
    }
}
