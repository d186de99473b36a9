//! What the client says, as errors of the core.

use eventbus_core::{Error, ErrorKind};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};

/// The kind of an error of the client or a broker, outside of publishing.
pub(crate) fn kind(code: Code) -> ErrorKind {
    match code {
        // A partition that the client does not know is one without a leader, for as long as its broker is away.
        Code::UnknownTopic | Code::UnknownTopicOrPartition => ErrorKind::UnknownTopic,
        Code::TopicAlreadyExists => ErrorKind::TopicExists,
        Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed | Code::ClusterAuthorizationFailed => {
            ErrorKind::PermissionDenied
        }
        Code::SaslAuthenticationFailed | Code::Authentication | Code::UnsupportedSASLMechanism | Code::SSL => {
            ErrorKind::Unauthorized
        }
        Code::NonEmptyGroup => ErrorKind::GroupActive,
        Code::GroupIdNotFound => ErrorKind::UnknownGroup,
        Code::UnknownMemberId | Code::FencedInstanceId | Code::FencedMemberEpoch | Code::StaleMemberEpoch => {
            ErrorKind::Fenced
        }
        Code::InvalidTopic => ErrorKind::InvalidName,
        Code::PolicyViolation | Code::InvalidConfig | Code::InvalidReplicationFactor | Code::InvalidPartitions => {
            ErrorKind::InvalidConfig
        }
        Code::UnsupportedVersion => ErrorKind::Unsupported,
        _ => ErrorKind::Unavailable,
    }
}

/// The client's error, with what was being done.
pub(crate) fn to_core(error: &KafkaError, doing: &'static str) -> Error {
    let kind = error.rdkafka_error_code().map_or(ErrorKind::Backend, kind);
    Error::new(kind, format!("{doing}: {error}"))
}

/// A broker's refusal.
pub(crate) fn refused(code: Code) -> Error {
    Error::new(kind(code), format!("the broker says: {code}"))
}

/// The one answer to a request about one thing.
pub(crate) fn only<T>(
    answer: KafkaResult<Vec<Result<T, (T, Code)>>>,
    doing: &'static str,
) -> Result<Result<(), Code>, Error> {
    let answers = answer.map_err(|error| to_core(&error, doing))?;
    Ok(answers.into_iter().next().map_or(Ok(()), |one| one.map(drop).map_err(|(_, code)| code)))
}

/// A thread of ours ended before its answer.
pub(crate) fn gone() -> Error {
    Error::new(ErrorKind::Closed, "the backend is closed")
}
