//! From what the client reports of a record to what it means for the record (P2).
//!
//! A code stands for the whole batch that a record was in. All that does not say for certain that nothing of the batch is stored
//! is *perhaps stored*.

use eventbus_core::ErrorKind;
use eventbus_core::toolkit::pipeline::{Turned, Verdict};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

/// What a report's code says of its record.
pub(crate) fn verdict(code: Code) -> Verdict {
    match code {
        Code::MessageSizeTooLarge => Verdict::SomeOfBatch(ErrorKind::TooLarge),
        Code::InvalidMessageSize
        | Code::InvalidMessage
        | Code::InvalidRecord
        | Code::InvalidTimestamp
        | Code::UnsupportedCompressionType
        | Code::UnsupportedForMessageFormat
        | Code::PolicyViolation => Verdict::SomeOfBatch(ErrorKind::Refused),
        Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed => Verdict::Forbidden,
        Code::UnknownTopicOrPartition | Code::UnknownPartition | Code::UnknownTopic | Code::InvalidTopic => {
            Verdict::Vanished
        }
        _ => Verdict::Unclear,
    }
}

/// What the client's answer to a record given to it says.
pub(crate) fn turned(error: &KafkaError) -> Turned {
    match error.rdkafka_error_code() {
        Some(Code::MessageSizeTooLarge) => Turned::TooLarge,
        Some(Code::QueueFull) => Turned::Full,
        // Fatal before, or the topic is gone for it.
        _ => Turned::Over(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_be_stored_condemns() {
        for (code, expected) in [
            (Code::MessageSizeTooLarge, Verdict::SomeOfBatch(ErrorKind::TooLarge)),
            (Code::InvalidMessageSize, Verdict::SomeOfBatch(ErrorKind::Refused)),
            (Code::InvalidMessage, Verdict::SomeOfBatch(ErrorKind::Refused)),
            (Code::InvalidRecord, Verdict::SomeOfBatch(ErrorKind::Refused)),
            (Code::InvalidTimestamp, Verdict::SomeOfBatch(ErrorKind::Refused)),
            (Code::UnsupportedCompressionType, Verdict::SomeOfBatch(ErrorKind::Refused)),
            (Code::UnsupportedForMessageFormat, Verdict::SomeOfBatch(ErrorKind::Refused)),
            (Code::PolicyViolation, Verdict::SomeOfBatch(ErrorKind::Refused)),
            (Code::TopicAuthorizationFailed, Verdict::Forbidden),
            (Code::ClusterAuthorizationFailed, Verdict::Forbidden),
            (Code::UnknownTopicOrPartition, Verdict::Vanished),
            (Code::UnknownPartition, Verdict::Vanished),
            (Code::UnknownTopic, Verdict::Vanished),
            (Code::InvalidTopic, Verdict::Vanished),
            (Code::PurgeQueue, Verdict::Unclear),
            (Code::PurgeInflight, Verdict::Unclear),
            (Code::Fatal, Verdict::Unclear),
            (Code::GaplessGuarantee, Verdict::Unclear),
            (Code::MessageTimedOut, Verdict::Unclear),
            (Code::OperationTimedOut, Verdict::Unclear),
            (Code::BrokerTransportFailure, Verdict::Unclear),
            (Code::RequestTimedOut, Verdict::Unclear),
            (Code::NotLeaderForPartition, Verdict::Unclear),
            (Code::LeaderNotAvailable, Verdict::Unclear),
            (Code::NotEnoughReplicas, Verdict::Unclear),
            (Code::NotEnoughReplicasAfterAppend, Verdict::Unclear),
            (Code::OutOfOrderSequenceNumber, Verdict::Unclear),
            (Code::DuplicateSequenceNumber, Verdict::Unclear),
            (Code::UnknownProducerId, Verdict::Unclear),
            (Code::InvalidProducerEpoch, Verdict::Unclear),
            (Code::InvalidProducerIdMapping, Verdict::Unclear),
            (Code::KafkaStorageError, Verdict::Unclear),
            (Code::ThrottlingQuotaExceeded, Verdict::Unclear),
            (Code::Unknown, Verdict::Unclear),
        ] {
            assert_eq!(verdict(code), expected, "{code:?}");
        }
    }

    #[test]
    fn a_record_that_is_turned_away_at_once_costs_no_other_one_its_producer() {
        let turned = |code| turned(&KafkaError::MessageProduction(code));
        assert_eq!(turned(Code::MessageSizeTooLarge), Turned::TooLarge);
        assert_eq!(turned(Code::QueueFull), Turned::Full);
        for code in [Code::Fatal, Code::UnknownTopic, Code::UnknownPartition] {
            assert!(matches!(turned(code), Turned::Over(_)), "{code:?}");
        }
        assert!(matches!(super::turned(&KafkaError::Canceled), Turned::Over(_)));
    }
}
