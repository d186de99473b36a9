//! What a failure says of its record, and what follows for the record's fate (P2).
//!
//! Invariant: what was said of a whole batch condemns a record only where the batch was that record alone, or where the reason is
//! the topic's or the user's and not a record's. All else is *not stored* where that is certain, and *perhaps stored* otherwise:
//! the log is read before it is sent again.

use std::borrow::Cow;

use crate::backend::Fate;
use crate::model::{Error, ErrorKind};

/// What a report that is no success says. Each backend has a table from its broker's answers to these, tested row by row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)] // all that a report can say
pub enum DeliveryErrorKind {
    /// Some record of the batch is at fault; which one, the broker does not say. Nothing of the batch is stored. The one that is
    /// found to be it is refused with an error of this kind.
    SomeOfBatch(ErrorKind),
    /// The topic takes nothing from this user: each record would be refused alone. Nothing of the batch is stored.
    Forbidden,
    /// The topic seems to be gone: to be asked for before anything is condemned. Nothing of the batch is stored.
    Vanished,
    /// Perhaps stored: the client gave up on it, or was made to.
    Unclear,
}

/// A report that is no success.
#[derive(Debug, Clone)]
pub struct DeliveryError {
    pub(super) verdict: DeliveryErrorKind,
    says: Cow<'static, str>,
}

impl DeliveryError {
    /// What it says of its record, and in the words of client or broker.
    #[must_use]
    pub fn new(verdict: DeliveryErrorKind, says: impl Into<Cow<'static, str>>) -> Self {
        Self { verdict, says: says.into() }
    }

    /// What it means for its record: whether that was `alone` in its batch, and its topic indeed `gone`.
    pub(super) fn fate(self, alone: bool, gone: bool) -> Fate {
        let verdict = self.verdict;
        let told = |kind| Error::new(kind, self.says);
        match verdict {
            DeliveryErrorKind::Forbidden => Fate::Refused(told(ErrorKind::PermissionDenied)),
            DeliveryErrorKind::Vanished if gone => Fate::Refused(told(ErrorKind::UnknownTopic)),
            DeliveryErrorKind::SomeOfBatch(kind) if alone => Fate::Refused(told(kind)),
            DeliveryErrorKind::SomeOfBatch(_) | DeliveryErrorKind::Vanished => {
                Fate::NotStored(told(ErrorKind::Unavailable))
            }
            DeliveryErrorKind::Unclear => Fate::Unknown(told(ErrorKind::Unknown)),
        }
    }
}

/// Why a client did not take a record.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)] // all that matters of it
pub enum Rejected {
    /// Larger than the limit; no other record suffers.
    TooLarge,
    /// No room; the client goes on.
    Full,
    /// The client is at its end, and in what words.
    Over(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_said_of_a_record_alone_condemns_it() {
        let fate = |verdict, alone, gone| match DeliveryError::new(verdict, "so").fate(alone, gone) {
            Fate::Refused(error) => ("refused", error.kind()),
            Fate::NotStored(error) => ("not stored", error.kind()),
            Fate::Unknown(error) => ("unknown", error.kind()),
            Fate::Stored { .. } => panic!("a failure"),
        };
        let (again, culprit) =
            (("not stored", ErrorKind::Unavailable), DeliveryErrorKind::SomeOfBatch(ErrorKind::TooLarge));
        for gone in [false, true] {
            assert_eq!(fate(culprit, false, gone), again);
            assert_eq!(fate(culprit, true, gone), ("refused", ErrorKind::TooLarge));
        }
        for alone in [false, true] {
            assert_eq!(fate(DeliveryErrorKind::Vanished, alone, false), again);
            assert_eq!(fate(DeliveryErrorKind::Vanished, alone, true), ("refused", ErrorKind::UnknownTopic));
            assert_eq!(fate(DeliveryErrorKind::Forbidden, alone, false), ("refused", ErrorKind::PermissionDenied));
            assert_eq!(fate(DeliveryErrorKind::Unclear, alone, true), ("unknown", ErrorKind::Unknown));
        }
    }
}
