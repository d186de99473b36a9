//! The operator of a world on Kafka, with the broker's own administration.

use async_trait::async_trait;

use super::admin::Admin;
use crate::suite::limited::Limits;
use crate::suite::operator::Operator;
use crate::suite::served::{Done, tried};

#[async_trait]
impl Operator for Admin {
    async fn limit_records(&self, topic: &str, bytes: usize) -> Done {
        tried(self.limit(topic, bytes).await)
    }

    async fn add_partitions(&self, topic: &str, count: u32) -> Done {
        tried(Admin::add_partitions(self, topic, count).await)
    }
}
