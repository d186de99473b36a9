//! What publishing has to know of a topic: kept from when it was last described.
//!
//! Invariant: a record that the topic is known to refuse is never handed to a client, since it would end the producer for all.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use eventbus_core::{Error, ErrorKind, Topic};

/// What a broker's limit counts beside the records of a batch.
const BATCH_FRAME: usize = 64;

/// The largest batch, and the largest record of topics whose limit is not known.
pub(crate) const BATCH_BYTES: usize = 1_000_000;

/// The most records of a batch.
pub(crate) const BATCH_RECORDS: usize = 10_000;

/// A topic as publishing sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Its name on the broker.
    pub(crate) name: Arc<str>,
    /// The largest record in bytes, as the client counts.
    pub(crate) limit: usize,
    /// Keeps the last record of each key only, so that one without a key is refused.
    pub(crate) compacted: bool,
}

impl Facts {
    /// Of a topic whose `max.message.bytes` is this.
    pub(crate) fn new(name: &str, max_message_bytes: usize, compacted: bool) -> Self {
        Self { name: name.into(), limit: max_message_bytes.saturating_sub(BATCH_FRAME).max(1), compacted }
    }

    /// The largest batch.
    pub(crate) fn batch(&self) -> usize {
        self.limit.min(BATCH_BYTES)
    }

    /// Why a record of this size must not be sent.
    pub(crate) fn refuses(&self, bytes: usize, keyed: bool) -> Option<Error> {
        if bytes > self.limit {
            let message = format!("the record takes {bytes} bytes, the topic's limit is {}", self.limit);
            return Some(Error::new(ErrorKind::TooLarge, message));
        }
        if self.compacted && !keyed {
            let message = "the topic is compacted and takes no record without a key";
            return Some(Error::new(ErrorKind::Refused, message));
        }
        None
    }
}

/// What is known of topics.
#[derive(Debug, Default)]
pub(crate) struct Known(RwLock<HashMap<Topic, Arc<Facts>>>);

impl Known {
    pub(crate) fn learn(&self, topic: &Topic, facts: Facts) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.get(topic).is_none_or(|old| **old != facts) {
            known.insert(topic.clone(), Arc::new(facts));
        }
    }

    pub(crate) fn get(&self, topic: &Topic) -> Option<Arc<Facts>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(topic).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_topic_is_known_to_refuse_is_told_before_it_is_sent() {
        let facts = Facts::new("t", 5_064, true);
        assert!(facts.refuses(5_000, true).is_none());
        assert_eq!(facts.refuses(5_001, true).map(|error| error.kind()), Some(ErrorKind::TooLarge));
        assert_eq!(facts.refuses(1, false).map(|error| error.kind()), Some(ErrorKind::Refused));
        assert!(Facts::new("t", 5_064, false).refuses(1, false).is_none());
        assert_eq!((facts.batch(), Facts::new("t", 20_000_000, false).batch()), (5_000, BATCH_BYTES));
    }
}
