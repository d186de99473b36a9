//! Errors of the client, as errors of the core.

use eventbus_core::{Error, ErrorKind};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};

/// The kind of an error of the client or a broker, outside of publishing.
pub(crate) fn kind(code: Code) -> ErrorKind {
    use Code::*;
    match code {
        // A partition that the client does not know has no leader, for as long as its broker is away.
        UnknownTopic | UnknownTopicOrPartition => ErrorKind::UnknownTopic,
        TopicAlreadyExists => ErrorKind::TopicExists,
        TopicAuthorizationFailed | GroupAuthorizationFailed | ClusterAuthorizationFailed => ErrorKind::PermissionDenied,
        SaslAuthenticationFailed | Authentication | UnsupportedSASLMechanism | SSL => ErrorKind::Unauthorized,
        NonEmptyGroup => ErrorKind::GroupActive,
        GroupIdNotFound => ErrorKind::UnknownGroup,
        UnknownMemberId | FencedInstanceId | FencedMemberEpoch | StaleMemberEpoch => ErrorKind::Fenced,
        InvalidTopic => ErrorKind::InvalidName,
        PolicyViolation | InvalidConfig | InvalidReplicationFactor | InvalidPartitions => ErrorKind::InvalidConfig,
        UnsupportedVersion => ErrorKind::Unsupported,
        _ => ErrorKind::Unavailable,
    }
}

/// The client's error as one of the core, with the operation that failed.
pub(crate) fn to_core(error: &KafkaError, doing: &str) -> Error {
    let kind = error.rdkafka_error_code().map_or(ErrorKind::Backend, kind);
    Error::new(kind, format!("{doing}: {error}"))
}

/// Whether the broker says that the user may not do this.
pub(crate) fn is_denied(error: &KafkaError) -> bool {
    error.rdkafka_error_code().is_some_and(|code| kind(code) == ErrorKind::PermissionDenied)
}

/// The error of records that the client cannot read. It passes over them, so to go on would lose them in silence (S3).
pub(crate) fn unreadable(error: &KafkaError) -> Option<Error> {
    use Code::*;
    let broken =
        matches!(error.rdkafka_error_code()?, BadMessage | BadCompression | InvalidMessage | MessageSizeTooLarge);
    broken.then(|| Error::new(ErrorKind::Backend, format!("the log holds records that cannot be read: {error}")))
}

fn code<T>(answer: &KafkaResult<T>) -> Option<Code> {
    answer.as_ref().err()?.rdkafka_error_code()
}

/// Whether a partition has no leader. It has one in a moment, be it new or its broker back.
pub(crate) fn leaderless<T>(answer: &KafkaResult<T>) -> bool {
    use Code::*;
    matches!(code(answer), Some(NotLeaderForPartition | LeaderNotAvailable | FencedLeaderEpoch | UnknownLeaderEpoch))
}

/// Whether no broker was reached in time, or none that could be asked.
pub(crate) fn out_of_reach<T>(answer: &KafkaResult<T>) -> bool {
    use Code::*;
    matches!(code(answer), Some(BrokerTransportFailure | AllBrokersDown | OperationTimedOut))
}

/// Whether an error passes by itself. A group without a coordinator has one in a moment, and a broken connection is
/// made again. A partition is unknown for as long as its broker is away.
pub(crate) fn passes<T>(answer: &KafkaResult<T>) -> bool {
    use Code::*;
    let broken = matches!(code(answer), Some(BrokerTransportFailure | AllBrokersDown | UnknownPartition));
    let no_coordinator =
        matches!(code(answer), Some(NotCoordinator | CoordinatorNotAvailable | CoordinatorLoadInProgress));
    broken || no_coordinator || leaderless(answer)
}

/// The error for a broker's refusal.
pub(crate) fn refused(code: Code) -> Error {
    Error::new(kind(code), format!("the broker says: {code}"))
}

/// Takes the one answer to a request about one thing.
pub(crate) fn only<T>(answer: KafkaResult<Vec<Result<T, (T, Code)>>>, doing: &str) -> Result<Result<(), Code>, Error> {
    let answers = answer.map_err(|error| to_core(&error, doing))?;
    Ok(answers.into_iter().next().map_or(Ok(()), |one| one.map(drop).map_err(|(_, code)| code)))
}
