//! Failures of records, and the fates that follow from them (P2).
//!
//! Invariants:
//! - A refusal of a whole batch condemns a record only where the batch was that record alone, or where the reason is the
//!   topic's or the user's and not a record's.
//! - No report proves that a record is not stored: a client sends by itself again what it had no answer to, and may be
//!   refused the second time. So the log is read before a record is sent again, or its refusal is believed.

use std::borrow::Cow;

use crate::backend::Fate;
use crate::model::{Error, ErrorKind};

/// Kind of a report that is no success. Each backend has a table from its broker's answers to these, tested row by row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)] // all that a report can say
pub enum DeliveryErrorKind {
    /// One record of the batch is at fault; the broker does not say which. Nothing of the batch was stored this time.
    /// The culprit, once found, is refused with an error of this kind.
    SomeOfBatch(ErrorKind),
    /// The topic takes no record of this user: each would be refused alone. Nothing of the batch was stored this time.
    Forbidden,
    /// The topic seems to be gone; that is verified before any record is condemned. Nothing of the batch was stored this
    /// time.
    Vanished,
    /// The record is perhaps stored: the client gave up on it, or was made to.
    Unclear,
}

/// Report of a failed record.
#[derive(Debug, Clone)]
pub struct DeliveryError {
    pub(super) verdict: DeliveryErrorKind,
    says: Cow<'static, str>,
}

impl DeliveryError {
    /// Makes a report of this kind, in the words of client or broker.
    #[must_use]
    pub fn new(verdict: DeliveryErrorKind, says: impl Into<Cow<'static, str>>) -> Self {
        Self { verdict, says: says.into() }
    }

    /// Returns the record's fate: whether it was `alone` in its batch and its topic is indeed `gone` decides.
    pub(super) fn fate(self, alone: bool, gone: bool) -> Fate {
        let verdict = self.verdict;
        let told = |kind| Error::new(kind, self.says);
        match verdict {
            DeliveryErrorKind::Forbidden => Fate::Doubtful(told(ErrorKind::PermissionDenied)),
            DeliveryErrorKind::Vanished if gone => Fate::Refused(told(ErrorKind::UnknownTopic)),
            DeliveryErrorKind::SomeOfBatch(kind) if alone => Fate::Doubtful(told(kind)),
            DeliveryErrorKind::SomeOfBatch(kind) => Fate::Unknown(told(kind)),
            DeliveryErrorKind::Vanished => Fate::Unknown(told(ErrorKind::Unavailable)),
            DeliveryErrorKind::Unclear => Fate::Unknown(told(ErrorKind::Unknown)),
        }
    }
}

/// Reason why a client did not take a record.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)] // all that matters of it
pub enum Rejected {
    /// The record is larger than the limit; no other record suffers.
    TooLarge,
    /// The client's queue is full; the client goes on.
    Full,
    /// The client has come to its end, for this reason.
    Over(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_said_of_a_record_alone_condemns_it() {
        let fate = |verdict, alone, gone| match DeliveryError::new(verdict, "so").fate(alone, gone) {
            Fate::Refused(error) => ("refused", error.kind()),
            Fate::Doubtful(error) => ("doubtful", error.kind()),
            Fate::NotStored(error) => ("not stored", error.kind()),
            Fate::Unknown(error) => ("unknown", error.kind()),
            Fate::Stored { .. } => panic!("a failure"),
        };
        let culprit = DeliveryErrorKind::SomeOfBatch(ErrorKind::TooLarge);
        for gone in [false, true] {
            assert_eq!(fate(culprit, false, gone), ("unknown", ErrorKind::TooLarge));
            assert_eq!(fate(culprit, true, gone), ("doubtful", ErrorKind::TooLarge));
        }
        for alone in [false, true] {
            assert_eq!(fate(DeliveryErrorKind::Vanished, alone, false), ("unknown", ErrorKind::Unavailable));
            assert_eq!(fate(DeliveryErrorKind::Vanished, alone, true), ("refused", ErrorKind::UnknownTopic));
            assert_eq!(fate(DeliveryErrorKind::Forbidden, alone, false), ("doubtful", ErrorKind::PermissionDenied));
            assert_eq!(fate(DeliveryErrorKind::Unclear, alone, true), ("unknown", ErrorKind::Unknown));
        }
    }
}
