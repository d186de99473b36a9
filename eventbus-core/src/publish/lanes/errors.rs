//! Errors of envelopes whose way to the log was not a straight one.

use super::queues::QueuedEnvelope;
use crate::model::{Error, ErrorKind, Topic};

/// Returns the error of an envelope that was refused when it was sent again, where the log no longer tells whether it
/// was stored before. Envelopes behind it fail all the same: they may not be stored behind a hole.
pub(super) fn perhaps_gone(refusal: Error) -> Error {
    let message = "sent again it was refused, and the log no longer tells whether it was stored before";
    Error::new(ErrorKind::Unknown, message).caused_by(refusal)
}

/// Returns the error of an envelope that may be stored and whose log may not be read, which does not pass. Envelopes
/// behind it fail, too.
pub(super) fn unreadable(queued: &QueuedEnvelope, denied: Error) -> Option<Error> {
    let refused = queued.refused.as_ref().map(|refused| format!("; sent again it was refused: {refused}"));
    let message = format!("it may be stored, and its log may not be read: {denied}{}", refused.unwrap_or_default());
    (denied.kind() == ErrorKind::PermissionDenied).then(|| Error::new(ErrorKind::Unknown, message).caused_by(denied))
}

/// Returns the error of an envelope that its caller withdrew, with the broker's last answer, if there was one.
pub(super) fn withdrawn(topic: &Topic, queued: &QueuedEnvelope) -> Error {
    let message = match &queued.retry {
        None => "the publish was withdrawn before it was handed to the broker".into(),
        Some(retry) => format!("the publish was withdrawn and is not stored; the last answer: {}", retry.error),
    };
    Error::new(ErrorKind::Withdrawn, message).with("topic", topic)
}
