//! The log and the committed positions, read by the suite's own client.

use async_trait::async_trait;
use eventbus_core::backend::Inbound;
use eventbus_core::{Group, Result, Topic};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::admin::Admin;
use super::log::{PATIENCE, again, bounds, failed, number, records};
use crate::harness::LogReader;

#[derive(Debug)]
pub(super) struct KafkaReader(pub(super) Admin);

#[async_trait]
impl LogReader for KafkaReader {
    async fn bounds(&self, topic: &Topic) -> Result<Vec<(u64, u64)>> {
        let name = self.0.names.topic(topic.as_str());
        self.0.reading(move |client| bounds(client, &name)).await
    }

    async fn records(&self, topic: &Topic) -> Result<Vec<Inbound>> {
        let name = self.0.names.topic(topic.as_str());
        let read = move |client: &BaseConsumer| {
            let bounds = bounds(client, &name)?;
            let partitions = (0..).zip(bounds).map(|(partition, (first, end))| (partition, first, end));
            records(client, &name, partitions)
        };
        let mut records = self.0.reading(read).await?;
        records.sort_by_key(|record| (record.partition, record.position));
        Ok(records)
    }

    async fn committed(&self, topic: &Topic, group: &Group) -> Result<Vec<(u32, u64)>> {
        let name = self.0.names.topic(topic.as_str());
        let group = self.0.names.group(group.as_str());
        let read = move |client: &BaseConsumer| {
            let count = bounds(client, &name)?.len();
            let mut asked = TopicPartitionList::with_capacity(count);
            for partition in 0..count {
                asked.add_partition(&name, i32::try_from(partition).unwrap_or(i32::MAX));
            }
            let found = again(|| client.committed_offsets(asked.clone(), PATIENCE));
            let found = found.map_err(|error| failed("committed", error))?;
            let next = |offset| if let Offset::Offset(offset) = offset { Some(number(offset)) } else { None };
            let pairs = found
                .elements()
                .into_iter()
                .filter_map(|one| Some((u32::try_from(one.partition()).ok()?, next(one.offset())?)));
            Ok(pairs.collect())
        };
        self.0.in_group(&group, read).await
    }
}
