//! The meaning of the client's reports for their records (P2).
//!
//! A code stands for the whole batch of a record. Every code that does not say for certain that nothing of the batch is
//! stored means *perhaps stored*.

use eventbus_core::ErrorKind;
use eventbus_core::toolkit::pipeline::{DeliveryErrorKind, Rejected};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

/// The meaning of a report's code for its record.
pub(crate) fn verdict(code: Code) -> DeliveryErrorKind {
    match code {
        Code::MessageSizeTooLarge => DeliveryErrorKind::SomeOfBatch(ErrorKind::TooLarge),
        Code::InvalidMessageSize
        | Code::InvalidMessage
        | Code::InvalidRecord
        | Code::InvalidTimestamp
        | Code::UnsupportedCompressionType
        | Code::UnsupportedForMessageFormat
        | Code::PolicyViolation => DeliveryErrorKind::SomeOfBatch(ErrorKind::Refused),
        Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed => DeliveryErrorKind::Forbidden,
        Code::UnknownTopicOrPartition | Code::UnknownPartition | Code::UnknownTopic | Code::InvalidTopic => {
            DeliveryErrorKind::Vanished
        }
        _ => DeliveryErrorKind::Unclear,
    }
}

/// The meaning of an error when a record is given to the client.
pub(crate) fn turned(error: &KafkaError) -> Rejected {
    match error.rdkafka_error_code() {
        Some(Code::MessageSizeTooLarge) => Rejected::TooLarge,
        Some(Code::QueueFull) => Rejected::Full,
        // The client failed for good before, or the topic is gone for it.
        _ => Rejected::Over(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_be_stored_condemns() {
        for (code, expected) in [
            (Code::MessageSizeTooLarge, DeliveryErrorKind::SomeOfBatch(ErrorKind::TooLarge)),
            (Code::InvalidMessageSize, DeliveryErrorKind::SomeOfBatch(ErrorKind::Refused)),
            (Code::InvalidMessage, DeliveryErrorKind::SomeOfBatch(ErrorKind::Refused)),
            (Code::InvalidRecord, DeliveryErrorKind::SomeOfBatch(ErrorKind::Refused)),
            (Code::InvalidTimestamp, DeliveryErrorKind::SomeOfBatch(ErrorKind::Refused)),
            (Code::UnsupportedCompressionType, DeliveryErrorKind::SomeOfBatch(ErrorKind::Refused)),
            (Code::UnsupportedForMessageFormat, DeliveryErrorKind::SomeOfBatch(ErrorKind::Refused)),
            (Code::PolicyViolation, DeliveryErrorKind::SomeOfBatch(ErrorKind::Refused)),
            (Code::TopicAuthorizationFailed, DeliveryErrorKind::Forbidden),
            (Code::ClusterAuthorizationFailed, DeliveryErrorKind::Forbidden),
            (Code::UnknownTopicOrPartition, DeliveryErrorKind::Vanished),
            (Code::UnknownPartition, DeliveryErrorKind::Vanished),
            (Code::UnknownTopic, DeliveryErrorKind::Vanished),
            (Code::InvalidTopic, DeliveryErrorKind::Vanished),
            (Code::PurgeQueue, DeliveryErrorKind::Unclear),
            (Code::PurgeInflight, DeliveryErrorKind::Unclear),
            (Code::Fatal, DeliveryErrorKind::Unclear),
            (Code::GaplessGuarantee, DeliveryErrorKind::Unclear),
            (Code::MessageTimedOut, DeliveryErrorKind::Unclear),
            (Code::OperationTimedOut, DeliveryErrorKind::Unclear),
            (Code::BrokerTransportFailure, DeliveryErrorKind::Unclear),
            (Code::RequestTimedOut, DeliveryErrorKind::Unclear),
            (Code::NotLeaderForPartition, DeliveryErrorKind::Unclear),
            (Code::LeaderNotAvailable, DeliveryErrorKind::Unclear),
            (Code::NotEnoughReplicas, DeliveryErrorKind::Unclear),
            (Code::NotEnoughReplicasAfterAppend, DeliveryErrorKind::Unclear),
            (Code::OutOfOrderSequenceNumber, DeliveryErrorKind::Unclear),
            (Code::DuplicateSequenceNumber, DeliveryErrorKind::Unclear),
            (Code::UnknownProducerId, DeliveryErrorKind::Unclear),
            (Code::InvalidProducerEpoch, DeliveryErrorKind::Unclear),
            (Code::InvalidProducerIdMapping, DeliveryErrorKind::Unclear),
            (Code::KafkaStorageError, DeliveryErrorKind::Unclear),
            (Code::ThrottlingQuotaExceeded, DeliveryErrorKind::Unclear),
            (Code::Unknown, DeliveryErrorKind::Unclear),
        ] {
            assert_eq!(verdict(code), expected, "{code:?}");
        }
    }

    #[test]
    fn a_record_that_is_turned_away_at_once_costs_no_other_one_its_producer() {
        let turned = |code| turned(&KafkaError::MessageProduction(code));
        assert_eq!(turned(Code::MessageSizeTooLarge), Rejected::TooLarge);
        assert_eq!(turned(Code::QueueFull), Rejected::Full);
        for code in [Code::Fatal, Code::UnknownTopic, Code::UnknownPartition] {
            assert!(matches!(turned(code), Rejected::Over(_)), "{code:?}");
        }
        assert!(matches!(super::turned(&KafkaError::Canceled), Rejected::Over(_)));
    }
}
