//! The operator of a world on JetStream, with the server's own administration.

use async_trait::async_trait;
use eventbus_core::Position;
use futures_util::TryStreamExt;

use super::admin::Admin;
use crate::suite::fixture::FaultError;
use crate::suite::limited::Limits;
use crate::suite::operator::Operator;
use crate::suite::served::{Done, tried};

#[async_trait]
impl Operator for Admin {
    async fn limit_records(&self, topic: &str, bytes: usize) -> Done {
        tried(self.limit(topic, bytes).await)
    }

    async fn remove_record(&self, topic: &str, _: u32, position: Position) -> Done {
        let stream = tried(self.topic(topic).await)?;
        tried(stream.delete_message(position.get()).await).map(drop)
    }

    async fn remove_progress(&self, topic: &str) -> Done {
        tried(self.remove_bucket(topic).await)
    }

    async fn spoil(&self, topic: &str) -> Result<&'static str, FaultError> {
        tried(self.change(topic, |config| config.max_messages_per_subject = 1_000).await)?;
        Ok("max_msgs_per_subject")
    }

    async fn end_readers(&self, topic: &str) -> Done {
        let stream = tried(self.topic(topic).await)?;
        let names: Vec<String> = tried(stream.consumer_names().try_collect().await)?;
        for name in names {
            // A member that leaves removes its own.
            let _ = stream.delete_consumer(&name).await;
        }
        Ok(())
    }
}
