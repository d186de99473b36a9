//! The meaning of a coordinator's refusal of a member (S5).
//!
//! Invariant: what cannot pass ends the subscription with the broker's words; what may pass is tried again and told.

use std::time::{Duration, Instant};

use eventbus_core::toolkit::coordinated::Polled;
use eventbus_core::{Error, ErrorKind};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::config::KafkaConfig;
use crate::error::kind;

/// The setting that a clash of static members goes back to.
const STATIC: &str = "group_instance_id";

/// The meaning of a refusal after which the client goes on trying.
pub(crate) fn joining<R>(code: Code, says: &str) -> Polled<R> {
    let over = |kind, what: &str| Polled::Over(Error::new(kind, format!("{what}: the broker says: {says}")));
    match code {
        Code::GroupAuthorizationFailed | Code::TopicAuthorizationFailed => over(ErrorKind::PermissionDenied, "joining"),
        Code::InvalidSessionTimeout => over(ErrorKind::InvalidConfig, "session_timeout"),
        Code::InconsistentGroupProtocol => {
            let what = "protocol: expected the one of the group's other members, which may be another program's";
            let error = Error::new(ErrorKind::UnsafeConfig, format!("{what}: the broker says: {says}"));
            Polled::Over(error.with("setting", "protocol"))
        }
        Code::InvalidGroupId => over(ErrorKind::InvalidName, "the group's name"),
        Code::UnsupportedVersion => over(ErrorKind::Unsupported, "joining"),
        Code::GroupMaxSizeReached => {
            Polled::Refused(Error::new(ErrorKind::Unavailable, format!("the group is full: the broker says: {says}")))
        }
        _ => {
            tracing::debug!(target: "eventbus", says, "the consumer says");
            Polled::Nothing
        }
    }
}

/// An error that says nothing of the group.
pub(crate) fn unheard<R>(error: &KafkaError) -> Polled<R> {
    tracing::debug!(target: "eventbus", %error, "the consumer says");
    Polled::Nothing
}

/// The meaning of an error that ended the client, as the library words it. One that is retryable may pass for another
/// client. `clash` is the time since which static ids clash.
pub(crate) fn fatal(code: Code, why: &str, config: &KafkaConfig, clash: &mut Option<Instant>) -> Error {
    let says = format!("the client says: {why}");
    match code {
        // The predecessor may have been killed: the coordinator keeps its place for a session.
        Code::UnreleasedInstanceId => {
            let now = Instant::now();
            let waited = now - *clash.get_or_insert(now);
            if waited < patience(config) {
                Error::new(
                    ErrorKind::Unavailable,
                    format!("another member has this {STATIC}, or had it and was killed: {says}"),
                )
            } else {
                let message = format!("{STATIC}: expected one of this process's own, another member has it: {says}");
                Error::new(ErrorKind::UnsafeConfig, message)
                    .with("setting", STATIC)
                    .with("waited", format!("{waited:?}"))
            }
        }
        Code::FencedInstanceId => {
            let message = format!("{STATIC}: another member with it has taken this one's place: {says}");
            Error::new(ErrorKind::Fenced, message).with("setting", STATIC)
        }
        Code::GroupMaxSizeReached => Error::new(ErrorKind::Unavailable, format!("the group is full: {says}")),
        Code::UnsupportedVersion | Code::UnsupportedFeature | Code::UnsupportedAssignor | Code::InvalidRequest => {
            let message = format!("protocol: expected cooperative or eager, the coordinator has no other: {says}");
            Error::new(ErrorKind::Unsupported, message).with("setting", "protocol")
        }
        _ => Error::new(kind(code), says),
    }
}

/// The time for which static ids may clash: beyond the session of a member that was killed, which is the broker's and
/// longer than the lease.
fn patience(config: &KafkaConfig) -> Duration {
    config.lease * 2
}

/// The error for partitions of another topic.
pub(crate) fn foreign(topic: &str, own: &str) -> Error {
    let message = format!("the coordinator assigned partitions of {topic}, expected those of {own} only");
    Error::new(
        ErrorKind::UnsafeConfig,
        format!("{message}: another program's member has the same static id, or assigns"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(code: Code) -> Option<ErrorKind> {
        match joining::<()>(code, "its words") {
            Polled::Over(error) => {
                assert!(error.to_string().contains("its words") && !error.is_retryable(), "{error}");
                Some(error.kind())
            }
            _ => None,
        }
    }

    #[test]
    fn what_cannot_pass_ends_the_subscription_with_the_broker_s_words() {
        for (code, kind) in [
            (Code::InconsistentGroupProtocol, ErrorKind::UnsafeConfig),
            (Code::InvalidSessionTimeout, ErrorKind::InvalidConfig),
            (Code::InvalidGroupId, ErrorKind::InvalidName),
            (Code::UnsupportedVersion, ErrorKind::Unsupported),
            (Code::GroupAuthorizationFailed, ErrorKind::PermissionDenied),
            (Code::TopicAuthorizationFailed, ErrorKind::PermissionDenied),
        ] {
            assert_eq!(ends(code), Some(kind), "{code:?}");
        }
        assert!(
            matches!(joining::<()>(Code::GroupMaxSizeReached, "w"), Polled::Refused(error) if error.is_retryable())
        );
        assert!(matches!(joining::<()>(Code::NotCoordinator, "w"), Polled::Nothing));
    }

    #[test]
    fn a_client_s_end_may_pass_for_another_one_or_names_the_setting_at_fault() {
        let config = KafkaConfig::new("a:1");
        let end = |code| fatal(code, "its words", &config, &mut None);
        for code in [Code::UnreleasedInstanceId, Code::GroupMaxSizeReached] {
            let error = end(code);
            assert!(error.kind() == ErrorKind::Unavailable && error.is_retryable(), "{error}");
        }
        for (code, kind, setting) in [
            (Code::UnsupportedVersion, ErrorKind::Unsupported, "protocol"),
            (Code::UnsupportedFeature, ErrorKind::Unsupported, "protocol"),
            (Code::UnsupportedAssignor, ErrorKind::Unsupported, "protocol"),
            (Code::FencedInstanceId, ErrorKind::Fenced, STATIC),
            (Code::GroupAuthorizationFailed, ErrorKind::PermissionDenied, ""),
        ] {
            let error = end(code);
            assert_eq!(error.kind(), kind, "{error}");
            let shown = error.to_string();
            assert!(shown.contains("its words") && shown.contains(setting) && !error.is_retryable(), "{shown}");
        }
    }

    #[test]
    fn static_ids_that_clash_for_longer_than_any_session_end_with_an_error() {
        let config = KafkaConfig::new("a:1").lease(Duration::from_millis(1));
        let mut clash = None;
        assert!(fatal(Code::UnreleasedInstanceId, "w", &config, &mut clash).is_retryable());
        clash = clash.map(|since| since - patience(&config));
        let error = fatal(Code::UnreleasedInstanceId, "w", &config, &mut clash);
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::UnsafeConfig, false), "{error}");
    }
}
