//! The log and the committed positions, read by the suite's own client.

use async_trait::async_trait;
use eventbus_core::backend::Inbound;
use eventbus_core::{Group, Result, Topic};
use serde_json::Value;

use super::admin::{Admin, failed};
use crate::harness::LogReader;

#[derive(Debug)]
pub(super) struct NatsReader(pub(super) Admin);

#[async_trait]
impl LogReader for NatsReader {
    async fn bounds(&self, topic: &Topic) -> Result<Vec<(u64, u64)>> {
        let stream = self.0.topic(topic.as_str()).await?;
        let info = stream.get_info().await.map_err(|error| failed("describing", error))?;
        let partitions = self.0.partitions(topic.as_str()).await? as usize;
        // One sequence for all partitions. An empty log begins where it ends.
        let end = info.state.last_sequence + 1;
        let first = if info.state.messages == 0 { end } else { info.state.first_sequence };
        Ok(vec![(first, end); partitions])
    }

    async fn records(&self, topic: &Topic) -> Result<Vec<Inbound>> {
        let stream = self.0.topic(topic.as_str()).await?;
        let mut records: Vec<Inbound> =
            self.0.read(&stream, String::new()).await?.into_iter().map(|(_, _, record)| record).collect();
        records.sort_by_key(|record| (record.partition, record.position));
        Ok(records)
    }

    async fn committed(&self, topic: &Topic, group: &Group) -> Result<Vec<(u32, u64)>> {
        let records = self.0.group(topic.as_str(), group.as_str()).await?;
        let next = |record: &Value| record.get("next").and_then(Value::as_u64);
        Ok(records.iter().filter_map(|(partition, record)| Some((*partition, next(record)?))).collect())
    }
}
