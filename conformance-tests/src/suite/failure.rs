//! The reason why a case did not pass.

use std::fmt;

use super::fixture::FaultError;
use crate::oracle::Verdict;

/// The reason why a case did not pass.
#[derive(Debug)]
#[non_exhaustive]
pub enum Failure {
    /// A fault was not injected: most often the case asked for an ability that it had not stated.
    Fault(FaultError),
    /// The bus answered with an error that the case did not expect.
    Bus(eventbus_core::Error),
    /// A demand of the case did not hold.
    Wrong(String),
    /// The oracle refuted the history.
    Illegal(Box<Verdict>),
}

impl Failure {
    /// Makes a failure: a demand of the case did not hold.
    pub fn wrong(what: impl Into<String>) -> Self {
        Self::Wrong(what.into())
    }

    /// The oracle's verdict, if the oracle refuted the history.
    #[must_use]
    pub fn verdict(&self) -> Option<&Verdict> {
        match self {
            Self::Illegal(verdict) => Some(verdict),
            _ => None,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault(error) => error.fmt(f),
            Self::Bus(error) => write!(f, "the bus answered: {error}"),
            Self::Wrong(what) => f.write_str(what),
            Self::Illegal(verdict) => verdict.fmt(f),
        }
    }
}

impl From<eventbus_core::Error> for Failure {
    fn from(error: eventbus_core::Error) -> Self {
        Self::Bus(error)
    }
}

impl From<FaultError> for Failure {
    fn from(error: FaultError) -> Self {
        Self::Fault(error)
    }
}

/// Fails the case, saying why, unless the condition holds.
macro_rules! ensure {
    ($holds:expr, $($why:tt)+) => {
        if !$holds {
            return Err($crate::suite::Failure::wrong(format!($($why)+)));
        }
    };
}
pub(crate) use ensure;
