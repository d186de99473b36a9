//! The metadata of a committed offset: the core's line of text (S4, S5).

pub(crate) use eventbus_core::toolkit::coordinated::{CommitMetadata, Fingerprint};
use rdkafka::Message;
use rdkafka::topic_partition_list::TopicPartitionListElem;

use crate::headers::quietly;

/// The text beside an offset; none where it is no UTF-8, at which the client panics: Kafka's own brokers keep text, others
/// may keep what they were given.
pub(crate) fn text_beside<'a>(offset: &'a TopicPartitionListElem<'a>) -> &'a str {
    quietly(|| offset.metadata()).unwrap_or_default()
}

/// The fingerprint of a record, by which its log is known again (S3).
pub(crate) fn print_of<M: Message>(message: &M) -> Fingerprint {
    let time = message.timestamp().to_millis().unwrap_or_default();
    Fingerprint::of(message.offset(), time, message.key().unwrap_or_default(), message.payload().unwrap_or_default())
}
