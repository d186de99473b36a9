//! Faults that strike single records, in a protocol that sends them in batches.
//!
//! The proxy looks in passing requests for bytes that only one record has. The rules are told of submitted records
//! beside the connection, so that batches need not be taken apart. A fault strikes the whole request that holds a
//! record of its scope, as a broker's would: one answer is for all.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;

use super::frames::put_varint;

/// A fault of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Refuses each request that holds the record: it does not reach the broker, and is answered with this code.
    Refuse(i16),
    /// Refuses the request this time: it does not reach the broker, and is answered with this code.
    Answer(i16),
    /// Loses the answer of a request that reaches the broker. All requests that wait for answers on the connection wait
    /// until the client gives it up.
    LoseAnswer,
    /// Denies a request that reaches the broker: it is answered with this code all the same.
    Deny(i16),
}

/// The records that a fault strikes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Scope {
    /// Records of this topic.
    pub topic: String,
    /// Only records of this key.
    pub key: Option<Vec<u8>>,
    /// The first record that is struck, counted from 1 among those that match.
    pub nth: u64,
    /// Number of records from there on, or of requests that are struck singly; `None` for all.
    pub times: Option<u64>,
}

impl Scope {
    /// Covers the next record of this topic.
    #[must_use]
    pub fn topic(topic: impl Into<String>) -> Self {
        Self { topic: topic.into(), key: None, nth: 1, times: Some(1) }
    }

    /// Limits the scope to this key.
    #[must_use]
    pub fn key(mut self, key: Option<Vec<u8>>) -> Self {
        self.key = key;
        self
    }

    /// Begins at the n-th match from now on, counted from 1.
    #[must_use]
    pub const fn nth(mut self, nth: u64) -> Self {
        self.nth = nth;
        self
    }

    /// Strikes so many, one after another; `None` for all.
    #[must_use]
    pub const fn times(mut self, times: Option<u64>) -> Self {
        self.times = times;
        self
    }
}

/// The id of a rule, by which it is taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuleId(u64);

/// The proxy's treatment of a produce request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sent {
    /// Passes the request on.
    Pass,
    /// Passes the request on, and loses the answer.
    PassLosingAnswer,
    /// Passes the request on, and answers with this code.
    PassDenying(i16),
    /// Answers with this code, without passing the request on.
    Answer(i16),
}

#[derive(Debug)]
struct Rule {
    id: RuleId,
    fault: Fault,
    scope: Scope,
    /// Marks of records that matched: a record that is submitted again is the same.
    met: HashSet<Vec<u8>>,
    /// Marks of the records that are struck.
    marked: Vec<Vec<u8>>,
    struck: u64,
}

/// The faults of one world. Rules are asked in the order in which they were armed; the first that strikes decides.
#[derive(Debug, Default)]
pub struct Rules {
    rules: Mutex<Vec<Rule>>,
    next: AtomicU64,
    /// Number of answers that are still to name no broker.
    bare: AtomicU64,
}

fn holds(request: &[u8], mark: &[u8]) -> bool {
    request.windows(mark.len()).any(|found| found == mark)
}

/// The mark of a CloudEvent in a batch that is not compressed: the header of its id, lengths and all. It tells an id
/// from others that begin alike, and from the same bytes in a payload.
#[must_use]
pub fn id_header(id: &str) -> Vec<u8> {
    let mut mark = BytesMut::from(&b"ce_id"[..]);
    // Lengths are written as signed numbers.
    put_varint(&mut mark, 2 * id.len());
    mark.extend_from_slice(id.as_bytes());
    mark.to_vec()
}

impl Rules {
    /// Makes rules without faults.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    fn rules(&self) -> MutexGuard<'_, Vec<Rule>> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Arms a fault.
    pub fn arm(&self, fault: Fault, scope: Scope) -> RuleId {
        let id = RuleId(self.next.fetch_add(1, Ordering::Relaxed));
        let (met, marked) = (HashSet::new(), Vec::new());
        self.rules().push(Rule { id, fault, scope, met, marked, struck: 0 });
        id
    }

    /// Disarms a fault.
    pub fn disarm(&self, id: RuleId) {
        self.rules().retain(|rule| rule.id != id);
    }

    /// Lets the next so many answers about the cluster name no broker, as a broker's answers do while it is out of its
    /// session at the controller.
    pub fn hide_brokers(&self, answers: u64) {
        self.bare.store(answers, Ordering::Release);
    }

    /// The number of such answers still to come.
    #[must_use]
    pub fn still_hidden(&self) -> u64 {
        self.bare.load(Ordering::Acquire)
    }

    pub(super) fn hides_brokers(&self) -> bool {
        self.bare.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1)).is_ok()
    }

    /// The number of requests that a fault has struck.
    #[must_use]
    pub fn struck(&self, id: RuleId) -> u64 {
        self.rules().iter().find(|rule| rule.id == id).map_or(0, |rule| rule.struck)
    }

    /// Notes a record that will be sent, perhaps not for the first time; `mark` is bytes that only this record has.
    pub fn submitted(&self, topic: &str, key: Option<&[u8]>, mark: &[u8]) {
        for rule in self.rules().iter_mut() {
            let covered = rule.scope.topic == topic && rule.scope.key.as_ref().is_none_or(|of| Some(&**of) == key);
            if !covered || mark.is_empty() || !rule.met.insert(mark.to_vec()) {
                continue;
            }
            let (met, marked) = (rule.met.len() as u64, rule.marked.len() as u64);
            if met >= rule.scope.nth && rule.scope.times.is_none_or(|times| marked < times) {
                rule.marked.push(mark.to_vec());
            }
        }
    }

    /// Decides about a produce request.
    pub fn sent(&self, request: &[u8]) -> Sent {
        for rule in self.rules().iter_mut() {
            let over =
                !matches!(rule.fault, Fault::Refuse(_)) && rule.scope.times.is_some_and(|times| rule.struck >= times);
            if over || !rule.marked.iter().any(|mark| holds(request, mark)) {
                continue;
            }
            rule.struck += 1;
            return match rule.fault {
                Fault::Refuse(code) | Fault::Answer(code) => Sent::Answer(code),
                Fault::LoseAnswer => Sent::PassLosingAnswer,
                Fault::Deny(code) => Sent::PassDenying(code),
            };
        }
        Sent::Pass
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn submit(rules: &Rules, key: &str, id: &str) {
        rules.submitted("t", Some(key.as_bytes()), id.as_bytes());
    }

    #[test]
    fn another_than_the_nth_of_the_key_is_struck() {
        let rules = Rules::new();
        let id = rules.arm(Fault::Refuse(87), Scope::topic("t").key(Some(b"k".into())).nth(2));
        for (key, id) in [("k", "id-1"), ("other", "id-2"), ("k", "id-1"), ("k", "id-3"), ("k", "id-4")] {
            submit(&rules, key, id);
        }
        rules.submitted("u", Some(b"k"), b"id-5");
        let sent = |request: &str| rules.sent(request.as_bytes()) == Sent::Answer(87);
        assert_eq!([sent("..id-1id-2"), sent("id-4 id-5"), sent("id-2 id-3.")], [false, false, true]);
        // The batch that it is in is sent again, and again.
        assert!(sent("id-3"));
        assert_eq!(rules.struck(id), 2);
        rules.disarm(id);
        assert!(!sent("id-3"));
    }

    #[test]
    fn an_id_is_taken_for_another_that_begins_alike() {
        assert_eq!(id_header("1-5"), b"ce_id\x061-5");
        assert!(!holds(b"\x0ace_id\x081-53", &id_header("1-5")));
    }

    #[test]
    fn a_lost_answer_is_lost_again() {
        let rules = Rules::new();
        rules.arm(Fault::LoseAnswer, Scope::topic("t").times(Some(2)));
        submit(&rules, "k", "id-1");
        let sent = || rules.sent(b"id-1");
        assert_eq!([sent(), sent(), sent()], [Sent::PassLosingAnswer, Sent::PassLosingAnswer, Sent::Pass]);
    }
}
