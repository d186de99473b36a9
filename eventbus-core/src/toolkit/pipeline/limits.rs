//! Limits of topics, as publishing must know them: kept from their last description.
//!
//! Invariant: a record that the topic is known to refuse is never given to a client: it would end the client for all.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::{Error, ErrorKind, Topic};
use crate::runtime::RwLock;

/// Limits of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicLimits {
    /// The topic's name on the broker.
    pub name: Arc<str>,
    /// The largest record in bytes, as [`Pipeline::size`](super::Pipeline::size) counts. Topics of one limit share a
    /// client.
    pub limit: usize,
    /// Whether the topic keeps only the last record of each key, so that one without a key is refused.
    pub compacted: bool,
}

impl TopicLimits {
    /// Makes the limits of a topic with this name on the broker, whose records take up to `limit` bytes.
    #[must_use]
    pub fn new(name: &str, limit: usize, compacted: bool) -> Self {
        Self { name: name.into(), limit, compacted }
    }

    /// Returns why a record of this size must not be sent: `TooLarge`, or `Refused` where it needs a key and has none.
    pub(super) fn refuses(&self, bytes: usize, keyed: bool) -> Option<Error> {
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

/// Known limits of topics.
#[derive(Debug, Default)]
pub struct KnownLimits(RwLock<HashMap<Topic, Arc<TopicLimits>>>);

impl KnownLimits {
    /// Keeps a topic's limits in place of the ones known before.
    pub fn set(&self, topic: &Topic, limits: TopicLimits) {
        let mut known = self.0.write();
        if known.get(topic).is_none_or(|old| **old != limits) {
            known.insert(topic.clone(), Arc::new(limits));
        }
    }

    /// Returns the limits found last; `None` where none were.
    #[must_use]
    pub fn get(&self, topic: &Topic) -> Option<Arc<TopicLimits>> {
        self.0.read().get(topic).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_topic_is_known_to_refuse_is_told_before_it_is_sent() {
        let limits = TopicLimits::new("t", 5_000, true);
        assert!(limits.refuses(5_000, true).is_none());
        assert_eq!(limits.refuses(5_001, true).map(|error| error.kind()), Some(ErrorKind::TooLarge));
        assert_eq!(limits.refuses(1, false).map(|error| error.kind()), Some(ErrorKind::Refused));
        assert!(TopicLimits::new("t", 5_000, false).refuses(1, false).is_none());
    }

    #[test]
    fn what_was_found_last_is_known() {
        let (known, topic) = (KnownLimits::default(), "t".parse().unwrap());
        assert_eq!(known.get(&topic), None);
        known.set(&topic, TopicLimits::new("t", 1, false));
        let first = known.get(&topic).unwrap();
        known.set(&topic, TopicLimits::new("t", 1, false));
        assert!(Arc::ptr_eq(&first, &known.get(&topic).unwrap()), "the same is kept as it is");
        known.set(&topic, TopicLimits::new("t", 2, false));
        assert_eq!(known.get(&topic).unwrap().limit, 2);
    }
}
