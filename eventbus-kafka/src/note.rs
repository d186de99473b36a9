//! The metadata of a committed offset: the core's line of text (S4, S5).

pub(crate) use eventbus_core::toolkit::coordinated::{CommitMetadata, Fingerprint};
use rdkafka::Message;

/// The fingerprint of a record, by which its log is known again (S3).
pub(crate) fn print_of<M: Message>(message: &M) -> Fingerprint {
    let time = message.timestamp().to_millis().unwrap_or_default();
    Fingerprint::of(message.offset(), time, message.key().unwrap_or_default(), message.payload().unwrap_or_default())
}
