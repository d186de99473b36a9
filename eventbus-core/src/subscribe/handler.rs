//! Handlers, which users write: a [`Handler`] is given a [`Delivery`] and returns. Returning `Ok` finishes the
//! envelope; nobody acknowledges by hand.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::model::{Envelope, Error, ErrorKind, Group, Position, Topic};

/// Handler of envelopes. For one key, the next call comes only after this envelope is finished (S1).
///
/// An error, a panic or a time-out means trying again in place (S2). A handler may see an envelope again after a crash
/// or a hand-over (S3): make it idempotent, or fence it with [`Delivery::epoch`].
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Handles one envelope.
    async fn handle(&self, delivery: Delivery) -> Result<(), HandlerError>;
}

#[async_trait]
impl<H: Handler + ?Sized> Handler for Arc<H> {
    // Written without `async`, so that the future is boxed once.
    fn handle<'s, 'f>(
        &'s self,
        delivery: Delivery,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<(), HandlerError>> + Send + 'f>>
    where
        's: 'f,
        Self: 'f,
    {
        (**self).handle(delivery)
    }
}

/// Makes a handler from an async closure.
///
/// ```
/// use eventbus_core::{Delivery, handler_fn};
///
/// let handler = handler_fn(|delivery: Delivery| async move {
///     println!("{}", delivery.envelope().event_type());
///     Ok(())
/// });
/// ```
pub fn handler_fn<F, Fut>(handle: F) -> Arc<dyn Handler>
where
    F: Fn(Delivery) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
{
    Arc::new(HandlerFn(handle))
}

struct HandlerFn<F>(F);

#[async_trait]
impl<F, Fut> Handler for HandlerFn<F>
where
    F: Fn(Delivery) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
{
    // Written without `async` so that the closure's own future is the only one, boxed once.
    fn handle<'s, 'f>(
        &'s self,
        delivery: Delivery,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<(), HandlerError>> + Send + 'f>>
    where
        's: 'f,
        Self: 'f,
    {
        Box::pin((self.0)(delivery))
    }
}

/// Failure of a handler, and what can help: another attempt, time, or nothing.
///
/// Every `std::error::Error` converts into a retryable failure, with the errors that caused it in its text. An
/// [`Error`](crate::Error) of the bus about the envelope itself (`Undecodable`, `InvalidEnvelope`, `InvalidName`,
/// `TooLarge`) converts into a permanent one.
pub struct HandlerError {
    message: String,
    remedy: Remedy,
}

/// What can help after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Remedy {
    Retry,
    Wait(Duration),
    Nothing,
}

impl HandlerError {
    /// Makes a failure that trying again can help: the envelope is tried again after the back-off, in place (S2).
    ///
    /// The text is the error's alternate form, `{:#}`, in which error types such as `anyhow::Error` name their causes.
    pub fn retry(error: impl fmt::Display) -> Self {
        Self { message: format!("{error:#}"), remedy: Remedy::Retry }
    }

    /// Makes a report that the handler cannot work yet and knows when to ask again: a reply 429 with `Retry-After`, a
    /// lock that somebody else holds. The envelope is handed over again after this time, and its key waits so long. The
    /// attempt counts in [`Delivery::attempt`], but not against [`attempts`](crate::Subscribe::attempts).
    ///
    /// All waits of an envelope together last at most [`give_up_after`](crate::Subscribe::give_up_after), or ten
    /// minutes where only the attempts are limited. After that a further one counts as a failed attempt.
    ///
    /// ```
    /// use std::time::Duration;
    /// use eventbus_core::HandlerError;
    ///
    /// fn charge(retry_after: Option<u64>) -> Result<(), HandlerError> {
    ///     match retry_after {
    ///         Some(seconds) => Err(HandlerError::wait(Duration::from_secs(seconds), "the bank asks for patience")),
    ///         None => Ok(()),
    ///     }
    /// }
    /// assert_eq!(charge(Some(5)).unwrap_err().wait_time(), Some(Duration::from_secs(5)));
    /// ```
    pub fn wait(time: Duration, reason: impl fmt::Display) -> Self {
        Self { message: format!("{reason:#}"), remedy: Remedy::Wait(time) }
    }

    /// Makes a failure that trying again cannot help: the failure policy decides at once. The text is as of
    /// [`retry`](Self::retry).
    pub fn permanent(error: impl fmt::Display) -> Self {
        Self { message: format!("{error:#}"), remedy: Remedy::Nothing }
    }

    /// Returns whether this failure alone uses up the attempts.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        self.remedy == Remedy::Nothing
    }

    /// Returns the time after which the handler wants to be asked again, where it only waits.
    #[must_use]
    pub fn wait_time(&self) -> Option<Duration> {
        match self.remedy {
            Remedy::Wait(time) => Some(time),
            Remedy::Retry | Remedy::Nothing => None,
        }
    }

    /// Returns the error's text.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandlerError").field("remedy", &self.remedy).field("message", &self.message).finish()
    }
}

impl<E: std::error::Error + 'static> From<E> for HandlerError {
    fn from(error: E) -> Self {
        let known = (&error as &dyn std::error::Error).downcast_ref::<Error>();
        let remedy = if known.is_some_and(is_about_the_envelope) { Remedy::Nothing } else { Remedy::Retry };
        Self { message: with_causes(&error), remedy }
    }
}

/// Whether each further attempt would meet the same error. A bus that is closed, or a key that is sealed, is not the
/// envelope's fault.
fn is_about_the_envelope(error: &Error) -> bool {
    use ErrorKind::{InvalidEnvelope, InvalidName, TooLarge, Undecodable};
    matches!(error.kind(), Undecodable | InvalidEnvelope | InvalidName | TooLarge)
}

/// Returns an error's text with those of its causes. Some errors repeat their cause themselves.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let said = next.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = next.source();
    }
    text
}

/// One attempt at one envelope.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub(crate) envelope: Envelope,
    pub(crate) context: Arc<DeliveryContext>,
    pub(crate) position: Position,
    pub(crate) attempt: u32,
    pub(crate) checked_at: Instant,
    pub(crate) replayed: bool,
}

/// The context that all deliveries of one partition and epoch share.
#[derive(Debug)]
pub(crate) struct DeliveryContext {
    pub(crate) topic: Topic,
    pub(crate) group: Group,
    pub(crate) member: Arc<str>,
    pub(crate) partition: u32,
    pub(crate) epoch: u64,
    pub(crate) incarnation: Arc<str>,
}

impl Delivery {
    /// Returns the envelope.
    #[must_use]
    pub fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// Takes the envelope out of the delivery.
    #[must_use]
    pub fn into_envelope(self) -> Envelope {
        self.envelope
    }

    /// Returns the topic that the envelope was read from.
    #[must_use]
    pub fn topic(&self) -> &Topic {
        &self.context.topic
    }

    /// Returns the group that handles the envelope.
    #[must_use]
    pub fn group(&self) -> &Group {
        &self.context.group
    }

    /// Returns the name of the member that handles the envelope.
    #[must_use]
    pub fn member(&self) -> &str {
        &self.context.member
    }

    /// Returns the partition that the envelope was read from.
    #[must_use]
    pub fn partition(&self) -> u32 {
        self.context.partition
    }

    /// Returns the position in the partition's log.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// Returns the number of this attempt, from 1 on.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Returns the ownership epoch, a fencing token (S5): per group, topic and partition strictly greater at every
    /// change of owner. A store that keeps the highest epoch it has seen can refuse the writes of a member that lost
    /// the partition after its start check.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.context.epoch
    }

    /// Returns when the start check found that this member owns the partition (S5); on a backend whose ownership never
    /// expires, when the worker was ready for this attempt. A process may be held up between the check and the
    /// handler's first instruction: if the check is longer ago than the session time-out, another member may be
    /// handling the key by now.
    #[must_use]
    pub fn checked_at(&self) -> Instant {
        self.checked_at
    }

    /// Returns whether this is a dead letter that was replayed to this group.
    #[must_use]
    pub fn is_replayed(&self) -> bool {
        self.replayed
    }
}

/// Layer around handlers. A layer's failure is the attempt's failure.
pub trait HandleLayer: Send + Sync + 'static {
    /// Wraps `inner`.
    fn layer(&self, inner: Arc<dyn Handler>) -> Arc<dyn Handler>;
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("connecting to the store")]
    struct Connecting(#[source] io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("reading: {0}")]
    struct Reading(#[source] io::Error);

    fn refused() -> io::Error {
        io::Error::other("Connection refused")
    }

    #[test]
    fn the_cause_of_an_error_is_lost() {
        let failure = HandlerError::from(Connecting(refused()));
        assert_eq!(failure.message(), "connecting to the store: Connection refused");
        assert!(!failure.is_permanent());
        assert_eq!(HandlerError::from(Reading(refused())).message(), "reading: Connection refused");
    }

    #[test]
    fn an_envelope_that_cannot_be_read_is_tried_again() {
        for (kind, permanent) in [
            (ErrorKind::Undecodable, true),
            (ErrorKind::TooLarge, true),
            (ErrorKind::Closed, false),
            (ErrorKind::KeySealed, false),
            (ErrorKind::Unavailable, false),
        ] {
            assert_eq!(HandlerError::from(Error::new(kind, "no")).is_permanent(), permanent, "{kind}");
        }
    }
}
