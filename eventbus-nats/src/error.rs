//! Answers of the server's interface, as errors of the core.
//!
//! Errors are told apart by `err_code`: records that are not stored come with the `code` 400, 500 and 503 alike. The
//! `code` decides only about errors without a known `err_code`.

use eventbus_core::toolkit::error_closed;
use eventbus_core::{Error, ErrorKind};
use serde::Deserialize;

/// No such stream.
pub(crate) const NO_STREAM: u64 = 10_059;
/// No message found.
pub(crate) const NO_MESSAGE: u64 = 10_037;
/// JetStream is not enabled for the account, or not at all.
pub(crate) const NOT_ENABLED: [u64; 2] = [10_039, 10_076];
/// The stream exists with another configuration.
pub(crate) const STREAM_EXISTS: u64 = 10_058;
/// The last sequence is another than expected.
pub(crate) const WRONG_LAST: u64 = 10_071;

/// The account takes no stream without a size.
pub(crate) const SIZE_REQUIRED: u64 = 10_113;
/// The most consumers are there that a stream or an account may have.
const TOO_MANY_CONSUMERS: u64 = 10_026;

/// An error as the server words it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct ApiError {
    #[serde(default)]
    pub(crate) code: u16,
    #[serde(default)]
    pub(crate) err_code: u64,
    #[serde(default)]
    pub(crate) description: String,
}

/// The result of a request.
pub(crate) type Outcome<T> = std::result::Result<T, Failure>;

/// The reason why a request brought nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The server refused the request.
    Api(ApiError),
    /// Nobody is there to answer: the request was not done.
    NoResponders,
    /// Permission to send to the subject is missing.
    Denied(String),
    /// The bus was closed.
    Closed,
    /// No answer, or none that can be read: the request may have been done, or be done later.
    Unanswered(String),
}

impl Failure {
    pub(crate) fn is(&self, err_code: u64) -> bool {
        matches!(self, Self::Api(error) if error.err_code == err_code)
    }
}

/// Whether the same request may work later: the trouble clears by itself (resources, elections, recovery).
fn passes(error: &ApiError) -> bool {
    let passes = [10_002, 10_023, 10_008, 10_009, 10_118, 10_167, TOO_MANY_CONSUMERS];
    passes.contains(&error.err_code) || matches!(error.code, 429 | 503)
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Api(error) if NOT_ENABLED.contains(&error.err_code) => {
                Error::new(ErrorKind::Unsupported, "JetStream is not enabled for this account")
            }
            Failure::Api(error) if error.err_code == NO_STREAM => Error::new(ErrorKind::UnknownTopic, "no such topic"),
            Failure::Api(error) if passes(&error) => {
                Error::new(ErrorKind::Unavailable, error.description).with("err_code", error.err_code)
            }
            Failure::Api(error) => Error::new(ErrorKind::Backend, error.description).with("err_code", error.err_code),
            Failure::NoResponders => Error::new(ErrorKind::Unavailable, "JetStream does not answer: nobody is there"),
            Failure::Denied(subject) => {
                let message = "the server's permissions do not allow what the bus has to ask for";
                Error::new(ErrorKind::PermissionDenied, message).with("subject", subject)
            }
            Failure::Closed => error_closed(),
            Failure::Unanswered(why) => Error::new(ErrorKind::Unavailable, why),
        }
    }
}
