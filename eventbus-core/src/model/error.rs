//! [`Error`]: one error for the whole crate. It has a [`kind`](Error::kind) that code can match, says whether trying
//! again can help and what was being done, and keeps its source.
//!
//! `Display` is one line, and `Debug` adds the causes to it: Rust prints an error that `main` returns by `Debug`. `{:#?}`
//! tells every field. None of them ever holds a secret: backends put no credentials into errors.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::stamp::Stamp;

/// The kind of an error, for code to match on.
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
    /// The backend lacks a capability that a call or a setting needs.
    Unsupported,
    /// The topic does not exist.
    UnknownTopic,
    /// The topic exists, and the spec asked for its creation only.
    TopicExists,
    /// The topic exists with other settings than the spec's; the error names the setting.
    TopicMismatch,
    /// The topic has another number of partitions than its keys go by. Keyed publishes to it fail until the number is
    /// [accepted](crate::EventBus::accept_partitions).
    PartitionsChanged,
    /// The group has no progress on this topic.
    UnknownGroup,
    /// The group has active members, and the operation needs a group without any.
    GroupActive,
    /// The envelope is larger than the publish budget or the broker's limit (P5).
    TooLarge,
    /// Too many envelopes wait for room; this one took no place (P5).
    Overloaded,
    /// The broker refused the envelope for good (P2).
    Refused,
    /// An earlier envelope of the same key was refused, so this one, queued behind it, was not stored (P2).
    Cascaded,
    /// The key or its topic is sealed by an earlier refusal that the caller has not yet seen, or not yet resumed (P2).
    KeySealed,
    /// The fate of the envelope is not known: it may be stored. After a time-out of the caller the key goes on waiting
    /// (P2).
    Unknown,
    /// The publish was withdrawn by its caller (P1).
    Withdrawn,
    /// The bus or the subscription is closed.
    Closed,
    /// The credentials are wrong.
    Unauthorized,
    /// The credentials are right, but do not permit the operation.
    PermissionDenied,
    /// The broker cannot be reached or does not answer now.
    Unavailable,
    /// A commit or claim was refused, because another member owns the partition (S5).
    Fenced,
    /// The log is not the one that the group's progress was written for (S3).
    LogReset,
    /// The log no longer holds some records that were not handled (S3).
    DataLost,
    /// A record cannot be decoded (S2); a subscription ends with this if the policy was to stop.
    Undecodable,
    /// A handler failed and the policy was to stop (S2).
    HandlerFailed,
    /// `close` or `drain` was awaited inside a handler that it would wait for (S7).
    WouldDeadlock,
    /// A deadline passed; the error says what was abandoned (S7).
    DeadlineExceeded,
    /// The backend broke the contract of its interface: a defect, reported rather than hidden.
    Backend,
}

impl ErrorKind {
    /// Returns a stable lower-case name, for metrics and logs.
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

/// The refused publish that an error goes back to (P2), the first of those that failed by it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// The stamp of the refused publish.
    pub stamp: Stamp,
    /// The `id` of the refused publish's envelope.
    pub id: String,
}

impl Refusal {
    /// Names a refused publish by its stamp and its envelope's `id`.
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
    /// Makes an error of this kind. `message` says what was found and what was expected.
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

    pub(crate) fn closed(what: &str) -> Self {
        Self::new(ErrorKind::Closed, format!("the {what} is closed"))
    }

    fn edit(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// Adds context: a topic, a key, a position, a setting.
    #[must_use]
    pub fn with(self, name: &'static str, value: impl fmt::Display) -> Self {
        let value = value.to_string();
        self.edit(|inner| inner.context.push((name, value)))
    }

    /// Adds context as [`with`](Self::with), unless the error has some of this name already. For callers that hand an
    /// error on and add what they know.
    #[must_use]
    pub fn about(self, name: &'static str, value: impl fmt::Display) -> Self {
        if self.context().any(|(known, _)| known == name) { self } else { self.with(name, value) }
    }

    /// Says whether trying the same again can help. By default it can for `Unavailable` and `Overloaded` only.
    #[must_use]
    pub fn retryable(self, retryable: bool) -> Self {
        self.edit(|inner| inner.retryable = retryable)
    }

    /// Keeps the underlying error as the source.
    #[must_use]
    pub fn caused_by(self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.edit(|inner| inner.source = Some(Arc::new(source)))
    }

    /// Names the refused publish that this error goes back to.
    #[must_use]
    pub fn naming(self, refusal: Refusal) -> Self {
        self.edit(|inner| inner.refusal = Some(refusal))
    }

    /// Returns the kind, for code to match on.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether trying the same again can help.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.0.retryable
    }

    /// Returns the message, without kind and context.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Returns the context, as names and values: what was being done.
    pub fn context(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.context.iter().map(|(name, value)| (*name, value.as_str()))
    }

    /// Returns the refused publish that this error goes back to (P2): `Refused`, `Cascaded`, `KeySealed` and the errors
    /// of other refused publishes name one.
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
        if !f.alternate() {
            write!(f, "{self}")?;
            let mut cause = std::error::Error::source(self);
            while let Some(error) = cause {
                write!(f, "; caused by: {error}")?;
                cause = error.source();
            }
            return Ok(());
        }
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
    fn an_error_that_main_returns_is_printed_as_a_struct() {
        let cause = std::io::Error::other("no route");
        let error = Error::new(ErrorKind::Unavailable, "no server").with("servers", "a:1").caused_by(cause);
        assert_eq!(format!("{error:?}"), "unavailable: no server [servers=a:1]; caused by: no route");
        assert!(format!("{error:#?}").contains("retryable: true"));
    }

    #[test]
    fn what_is_told_already_is_not_told_again() {
        let error = Error::new(ErrorKind::Unavailable, "x").with("topic", "a").about("topic", "b").about("group", "g");
        assert_eq!(error.context().collect::<Vec<_>>(), [("topic", "a"), ("group", "g")]);
    }
}
