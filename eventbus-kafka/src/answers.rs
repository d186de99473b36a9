//! From what the client reports of a record to what it means for the record (P2).
//!
//! A code stands for the whole batch that a record was in, so it condemns a record only where the batch was that record alone,
//! or where the reason is the topic's or the user's and not a record's. All else is *perhaps stored*, and the log is read
//! before it is sent again.

use rdkafka::error::RDKafkaErrorCode as Code;

/// What a report that is no success says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Some record of the batch is at fault; which one, the broker does not say. Nothing of the batch is stored.
    SomeOfBatch,
    /// The topic takes nothing from this user: each record would be refused alone.
    Forbidden,
    /// The topic seems to be gone: to be asked for before anything is condemned.
    Vanished,
    /// Perhaps stored: the client gave up on it, or was made to.
    Unclear,
}

/// What a report's code says of its record.
pub(crate) fn verdict(code: Code) -> Verdict {
    match code {
        Code::MessageSizeTooLarge
        | Code::InvalidMessageSize
        | Code::InvalidMessage
        | Code::InvalidRecord
        | Code::InvalidTimestamp
        | Code::UnsupportedCompressionType
        | Code::UnsupportedForMessageFormat
        | Code::PolicyViolation => Verdict::SomeOfBatch,
        Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed => Verdict::Forbidden,
        Code::UnknownTopicOrPartition | Code::UnknownPartition | Code::UnknownTopic | Code::InvalidTopic => {
            Verdict::Vanished
        }
        _ => Verdict::Unclear,
    }
}

/// What the client says at once when it is given a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turned {
    /// Larger than the limit; no other record suffers.
    TooLarge,
    /// No room; the producer goes on.
    Full,
    /// The producer is at its end: fatal before, or the topic is gone for it.
    Over,
}

/// What the client's answer to a record given to it says.
pub(crate) fn turned(code: Option<Code>) -> Turned {
    match code {
        Some(Code::MessageSizeTooLarge) => Turned::TooLarge,
        Some(Code::QueueFull) => Turned::Full,
        _ => Turned::Over,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_be_stored_condemns() {
        for (code, expected) in [
            (Code::MessageSizeTooLarge, Verdict::SomeOfBatch),
            (Code::InvalidMessageSize, Verdict::SomeOfBatch),
            (Code::InvalidMessage, Verdict::SomeOfBatch),
            (Code::InvalidRecord, Verdict::SomeOfBatch),
            (Code::InvalidTimestamp, Verdict::SomeOfBatch),
            (Code::UnsupportedCompressionType, Verdict::SomeOfBatch),
            (Code::UnsupportedForMessageFormat, Verdict::SomeOfBatch),
            (Code::PolicyViolation, Verdict::SomeOfBatch),
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
        assert_eq!(turned(Some(Code::MessageSizeTooLarge)), Turned::TooLarge);
        assert_eq!(turned(Some(Code::QueueFull)), Turned::Full);
        for code in [Some(Code::Fatal), Some(Code::UnknownTopic), Some(Code::UnknownPartition), None] {
            assert_eq!(turned(code), Turned::Over, "{code:?}");
        }
    }
}
