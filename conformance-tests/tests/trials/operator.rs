//! The broker's own administration, as an operator uses it while a bus runs.

use std::time::Duration;

use conformance_tests::suite::Run;
use rdkafka::ClientConfig;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::{Offset, TopicPartitionList};

use super::world::{Tested, wrong};

/// A client of the broker's administration, which knows the run's prefix of names.
pub(crate) struct Operator {
    admin: AdminClient<DefaultClientContext>,
    prefix: String,
}

impl Operator {
    pub(crate) async fn of(run: &Run) -> Result<Self, conformance_tests::suite::Failure> {
        // The connection is kept as long as the run.
        let connection = run.process().await?;
        let (url, prefix) = connection.connection().outside().ok_or_else(|| wrong("no way to the broker"))?;
        std::mem::forget(connection);
        let address = url.trim_start_matches("kafka://").split('?').next().unwrap_or_default().to_owned();
        let admin = ClientConfig::new().set("bootstrap.servers", address).create().map_err(wrong)?;
        Ok(Self { admin, prefix })
    }

    fn options() -> AdminOptions {
        AdminOptions::new().operation_timeout(Some(Duration::from_secs(20)))
    }

    pub(crate) async fn create(&self, topic: &str, partitions: i32, settings: &[(&str, &str)]) -> Tested {
        let name = format!("{}{topic}", self.prefix);
        let new = NewTopic::new(&name, partitions, TopicReplication::Fixed(1));
        let new = settings.iter().fold(new, |new, (name, value)| new.set(name, value));
        for result in self.admin.create_topics([&new], &Self::options()).await.map_err(wrong)? {
            result.map_err(|(name, code)| wrong(format!("{name}: {code}")))?;
        }
        self.acts(&name, true).await
    }

    /// Waits until the broker acts on the controller's answer, which comes before.
    async fn acts(&self, name: &str, there: bool) -> Tested {
        loop {
            let looked = || self.admin.inner().fetch_metadata(Some(name), Duration::from_secs(5));
            let metadata = tokio::task::block_in_place(looked).map_err(wrong)?;
            let found = metadata.topics().iter().any(|topic| topic.name() == name && !topic.partitions().is_empty());
            if found == there {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn delete(&self, topic: &str) -> Tested {
        let name = format!("{}{topic}", self.prefix);
        for result in self.admin.delete_topics(&[&name], &Self::options()).await.map_err(wrong)? {
            result.map_err(|(name, code)| wrong(format!("{name}: {code}")))?;
        }
        self.acts(&name, false).await
    }

    /// Removes all records of a partition, as retention does.
    pub(crate) async fn truncate(&self, topic: &str, partition: i32) -> Tested {
        let mut to = TopicPartitionList::new();
        to.add_partition_offset(&format!("{}{topic}", self.prefix), partition, Offset::End).map_err(wrong)?;
        let done = self.admin.delete_records(&to, &Self::options()).await.map_err(wrong)?;
        done.elements().iter().try_for_each(|one| one.error()).map_err(wrong)
    }

    pub(crate) async fn grow(&self, topic: &str, partitions: usize) -> Tested {
        let name = format!("{}{topic}", self.prefix);
        let more = NewPartitions::new(&name, partitions);
        for result in self.admin.create_partitions([&more], &Self::options()).await.map_err(wrong)? {
            result.map_err(|(name, code)| wrong(format!("{name}: {code}")))?;
        }
        Ok(())
    }

    pub(crate) async fn limit(&self, topic: &str, bytes: usize) -> Tested {
        let (name, bytes) = (format!("{}{topic}", self.prefix), bytes.to_string());
        let change = AlterConfig::new(ResourceSpecifier::Topic(&name)).set("max.message.bytes", &bytes);
        for result in self.admin.alter_configs([&change], &Self::options()).await.map_err(wrong)? {
            result.map_err(|(_, code)| wrong(code))?;
        }
        Ok(())
    }
}
