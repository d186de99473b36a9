//! Recent ids: envelopes whose source and id were seen before, for subscriptions with `dedup_by_id` (the exception of
//! P3).
//!
//! **Invariant.** Only a record at a lower position of the same partition makes an envelope a copy, and a replay, which
//! keeps the id of its original on purpose, is none. Names are compared whole, never by a digest. Forgetting errs on
//! the side of handling twice: the last [`REMEMBERED`] names of a session are known, those from the look-back among
//! them.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use crate::backend::{Body, Inbound};
use crate::model::Envelope;
use crate::subscribe::dead_letter;

/// Names remembered per partition.
const REMEMBERED: usize = 65_536;

/// The names seen in one session of one partition.
#[derive(Debug, Default)]
pub(crate) struct RecentIds {
    /// Source, line feed (no source contains one) and id, the oldest first.
    order: VecDeque<Arc<str>>,
    known: HashSet<Arc<str>>,
}

impl RecentIds {
    /// Takes in a record that was delivered for the first time in this session, decoded if it can be. Returns whether
    /// its name was seen before.
    pub(crate) fn observe(&mut self, record: &Inbound) -> bool {
        match &record.body {
            Body::Envelope(envelope) => self.enter(envelope),
            // A record that cannot be read goes to the failure policy when its turn comes.
            Body::Encoded { .. } => false,
        }
    }

    fn enter(&mut self, envelope: &Envelope) -> bool {
        if dead_letter::is_replay(envelope) {
            return false;
        }
        let name: Arc<str> = format!("{}\n{}", envelope.source(), envelope.id()).into();
        if !self.known.insert(Arc::clone(&name)) {
            return true;
        }
        self.order.push_back(name);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(source: &str, id: &str) -> Envelope {
        Envelope::builder("Happened", source).id(id).build().unwrap()
    }

    #[test]
    fn equal_ids_of_two_sources_are_one() {
        let mut names = RecentIds::default();
        assert!(!names.enter(&envelope("/a", "1")));
        assert!(!names.enter(&envelope("/b", "1")));
        assert!(names.enter(&envelope("/a", "1")));
    }

    #[test]
    fn a_replay_is_dropped_for_its_originals_id() {
        let mut names = RecentIds::default();
        assert!(!names.enter(&envelope("/a", "1")));
        let replay = envelope("/a", "1").into_builder().own_extension("eventbusreplayto", "billing").build().unwrap();
        assert!(!names.enter(&replay));
    }

    #[test]
    fn what_is_remembered_grows_without_end() {
        let mut names = RecentIds::default();
        for number in 0..=REMEMBERED {
            assert!(!names.enter(&envelope("/a", &number.to_string())));
        }
        assert_eq!((names.order.len(), names.known.len()), (REMEMBERED, REMEMBERED));
        assert!(!names.enter(&envelope("/a", "0")), "the oldest is forgotten");
    }
}
