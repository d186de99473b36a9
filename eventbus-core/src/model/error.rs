//! One error for the whole crate: a [`kind`](Error::kind) that code can match, whether trying again can help, what was
//! being done, and the source.
//!
//! `Display` is one line; `Debug` tells everything. Neither ever holds a secret: backends put no credentials in.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::stamp::Stamp;

/// What went wrong, for code to match on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A topic, group or key that is not well formed.
    InvalidName,
    /// An envelope that breaks a rule of CloudEvents or of this crate.
    InvalidEnvelope,
    /// A configuration value that is impossible or unknown.
    InvalidConfig,
    /// A configuration that would break the ordering contract (S8).
    UnsafeConfig,
    /// The backend lacks the capability that was asked for.
    Unsupported,
    /// The topic does not exist.
    UnknownTopic,
    /// The topic exists and was asked to be created only.
    TopicExists,
    /// The topic exists with other settings than were asked for; the error names the setting.
    TopicMismatch,
    /// The topic has another number of partitions than its keys go by: nothing keyed is published to it until the number is
    /// [accepted](crate::EventBus::accept_partitions).
    PartitionsChanged,
    /// The group has no progress on this topic.
    UnknownGroup,
    /// The group has active members, and the operation needs one without.
    GroupActive,
    /// The envelope is larger than the publish budget or the broker's limit (P5).
    TooLarge,
    /// Too many envelopes wait for room; nothing was queued (P5).
    Overloaded,
    /// The broker refused the envelope for good (P2).
    Refused,
    /// An earlier envelope of the same key was refused, so this queued one was not stored (P2).
    Cascaded,
    /// The key is sealed since an earlier refusal that the caller has not yet seen (P2).
    KeySealed,
    /// Whether the envelope is stored is not known yet; the key goes on waiting (P2).
    Unknown,
    /// The publish was withdrawn by its caller (P1).
    Withdrawn,
    /// The bus or the subscription is closed.
    Closed,
    /// The credentials are wrong.
    Unauthorized,
    /// The credentials are right, and the operation is not allowed to them.
    PermissionDenied,
    /// The broker cannot be reached or does not answer now.
    Unavailable,
    /// A commit or claim was refused, because another member owns the partition (S5).
    Fenced,
    /// The log is another one than the group's progress was written for (S3).
    LogReset,
    /// The log no longer holds records that were not handled (S3).
    DataLost,
    /// A record cannot be decoded (S2).
    Undecodable,
    /// A handler failed and the policy was to stop (S2).
    HandlerFailed,
    /// `close` or `drain` was awaited inside a handler of the same subscription (S7).
    WouldDeadlock,
    /// A deadline passed; the error says what was abandoned (S7).
    DeadlineExceeded,
    /// The backend broke the interface's contract; a defect, reported rather than hidden.
    Backend,
}

impl ErrorKind {
    /// A stable lower-case name, for metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidName => "invalid_name",
            Self::InvalidEnvelope => "invalid_envelope",
            Self::InvalidConfig => "invalid_config",
            Self::UnsafeConfig => "unsafe_config",
            Self::Unsupported => "unsupported",
            Self::UnknownTopic => "unknown_topic",
            Self::TopicExists => "topic_exists",
            Self::TopicMismatch => "topic_mismatch",
            Self::PartitionsChanged => "partitions_changed",
            Self::UnknownGroup => "unknown_group",
            Self::GroupActive => "group_active",
            Self::TooLarge => "too_large",
            Self::Overloaded => "overloaded",
            Self::Refused => "refused",
            Self::Cascaded => "cascaded",
            Self::KeySealed => "key_sealed",
            Self::Unknown => "unknown",
            Self::Withdrawn => "withdrawn",
            Self::Closed => "closed",
            Self::Unauthorized => "unauthorized",
            Self::PermissionDenied => "permission_denied",
            Self::Unavailable => "unavailable",
            Self::Fenced => "fenced",
            Self::LogReset => "log_reset",
            Self::DataLost => "data_lost",
            Self::Undecodable => "undecodable",
            Self::HandlerFailed => "handler_failed",
            Self::WouldDeadlock => "would_deadlock",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Backend => "backend",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.as_str().replace('_', " "))
    }
}

/// The publish that an error goes back to (P2): the one that was refused first.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// The stamp of the refused publish.
    pub stamp: Stamp,
    /// The `id` of its envelope.
    pub id: String,
}

impl Refusal {
    /// Names a refused publish.
    #[must_use]
    pub fn new(stamp: Stamp, id: impl Into<String>) -> Self {
        Self { stamp, id: id.into() }
    }
}

type Source = Arc<dyn std::error::Error + Send + Sync + 'static>;

/// The error of every operation of this crate. Cheap to clone, since one refusal may fail many publishes.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    retryable: bool,
    message: Cow<'static, str>,
    context: Vec<(&'static str, String)>,
    refusal: Option<Refusal>,
    source: Option<Source>,
}

impl Error {
    /// An error of this kind. `message` says what was found and what was expected.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Arc::new(Inner {
            kind,
            retryable: matches!(kind, ErrorKind::Unavailable | ErrorKind::Overloaded),
            message: message.into(),
            context: Vec::new(),
            refusal: None,
            source: None,
        }))
    }

    /// An error of this part, which is closed.
    pub(crate) fn closed(what: &str) -> Self {
        Self::new(ErrorKind::Closed, format!("the {what} is closed"))
    }

    fn edit(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// Adds what was being done: a topic, a key, a position, a setting.
    #[must_use]
    pub fn with(self, name: &'static str, value: impl fmt::Display) -> Self {
        let value = value.to_string();
        self.edit(|inner| inner.context.push((name, value)))
    }

    /// The same as [`with`](Self::with), where nothing of this name is told yet: whoever hands an error on adds what it knows.
    #[must_use]
    pub fn about(self, name: &'static str, value: impl fmt::Display) -> Self {
        if self.context().any(|(known, _)| known == name) { self } else { self.with(name, value) }
    }

    /// Says whether trying the same again can help. By default only for `Unavailable` and `Overloaded`.
    #[must_use]
    pub fn retryable(self, retryable: bool) -> Self {
        self.edit(|inner| inner.retryable = retryable)
    }

    /// Keeps the underlying error.
    #[must_use]
    pub fn caused_by(self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.edit(|inner| inner.source = Some(Arc::new(source)))
    }

    /// Names the refused publish that this error goes back to.
    #[must_use]
    pub fn naming(self, refusal: Refusal) -> Self {
        self.edit(|inner| inner.refusal = Some(refusal))
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether trying the same again can help.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.0.retryable
    }

    /// The message without kind and context.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What was being done, as name and value.
    pub fn context(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.context.iter().map(|(name, value)| (*name, value.as_str()))
    }

    /// The refused publish that this error names (P2), if it is one of `Refused`, `Cascaded`, `KeySealed` or another
    /// failed publish.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        self.0.refusal.as_ref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.kind, self.0.message)?;
        if let Some(refusal) = &self.0.refusal {
            write!(f, " (refused: {} of stamp {})", refusal.id, refusal.stamp)?;
        }
        for (i, (name, value)) in self.0.context.iter().enumerate() {
            write!(f, "{}{name}={value}", if i == 0 { " [" } else { ", " })?;
        }
        if !self.0.context.is_empty() {
            f.write_str("]")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, retryable, message, context, refusal, source } = &*self.0;
        f.debug_struct("Error")
            .field("kind", kind)
            .field("retryable", retryable)
            .field("message", message)
            .field("context", context)
            .field("refusal", refusal)
            .field("source", source)
            .finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn std::error::Error + 'static))
    }
}

impl From<std::convert::Infallible> for Error {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

/// The result of every operation of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_is_one_line_with_kind_message_and_context() {
        let error = Error::new(ErrorKind::UnknownTopic, "no such topic").with("topic", "orders").with("partition", 3);
        assert_eq!(error.to_string(), "unknown topic: no such topic [topic=orders, partition=3]");
        assert!(!error.is_retryable());
        assert!(Error::new(ErrorKind::Unavailable, "x").is_retryable());
    }

    #[test]
    fn what_is_told_already_is_not_told_again() {
        let error = Error::new(ErrorKind::Unavailable, "x").with("topic", "a").about("topic", "b").about("group", "g");
        assert_eq!(error.context().collect::<Vec<_>>(), [("topic", "a"), ("group", "g")]);
    }
}
