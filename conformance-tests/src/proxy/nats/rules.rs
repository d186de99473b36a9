//! Faults that strike single messages.
//!
//! One set of rules may be shared by the proxies of many processes: a fault that strikes the n-th publish counts over
//! all of them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use percent_encoding::percent_decode_str;

use super::frames::{Frame, Kind};

/// A fault of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Answers in the broker's place, with these headers and this payload: the message does not reach the broker.
    Answer {
        /// The headers, with the version line and the empty line; empty for none.
        headers: Bytes,
        /// The payload.
        payload: Bytes,
    },
    /// Loses the answer to a message that reaches the broker.
    LoseAnswer,
    /// Holds the answer to a message that reaches the broker, until [`Rules::release`].
    HoldAnswer,
    /// Holds the message until [`Rules::take_held`].
    Hold,
    /// Drops the message: it does not reach the broker, and nothing is answered.
    Drop,
}

/// The messages that a fault strikes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Scope {
    /// The beginning of their subjects.
    pub subject: String,
    /// Only CloudEvents of this key.
    pub key: Option<Vec<u8>>,
    /// The first message that is struck, counted from 1 among those that match.
    pub nth: u64,
    /// Number of messages from there on; `None` for all.
    pub times: Option<u64>,
}

impl Scope {
    /// Covers the next message whose subject begins like this.
    #[must_use]
    pub fn subject(prefix: impl Into<String>) -> Self {
        Self { subject: prefix.into(), key: None, nth: 1, times: Some(1) }
    }

    /// Limits the scope to events of this key.
    #[must_use]
    pub fn key(mut self, key: impl AsRef<[u8]>) -> Self {
        self.key = Some(key.as_ref().to_vec());
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

    fn covers(&self, subject: &str, frame: &Frame) -> bool {
        subject.starts_with(&self.subject) && self.key.as_ref().is_none_or(|key| key_of(frame).as_ref() == Some(key))
    }
}

/// The key of a CloudEvent in either mode.
fn key_of(frame: &Frame) -> Option<Vec<u8>> {
    if let Some(value) = frame.header("ce-partitionkey") {
        return Some(percent_decode_str(value).collect());
    }
    let event: serde_json::Value = serde_json::from_slice(&frame.payload).ok()?;
    Some(event.get("partitionkey")?.as_str()?.as_bytes().to_vec())
}

/// The id of a rule, by which it is taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuleId(u64);

/// A publish that is held.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Held {
    /// The frame as the client sent it.
    pub frame: Frame,
}

/// The proxy's treatment of a client's frame.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sent {
    /// Passes the frame on.
    Pass,
    /// Passes the frame on, and loses the answer.
    PassLosingAnswer,
    /// Passes the frame on, and keeps the answer until [`Rules::release`].
    PassHoldingAnswer,
    /// Answers with these headers and this payload, without passing the frame on.
    Answer(Bytes, Bytes),
    /// Does not pass it on.
    Keep,
}

#[derive(Debug)]
struct Rule {
    id: RuleId,
    fault: Fault,
    scope: Scope,
    met: u64,
    struck: u64,
}

/// The faults of one world. Rules are asked in the order in which they were armed; the first that strikes decides.
#[derive(Debug, Default)]
pub struct Rules {
    rules: Mutex<Vec<Rule>>,
    held: Mutex<Vec<Held>>,
    next: AtomicU64,
    /// Number of times that held answers were let go.
    releases: tokio::sync::watch::Sender<u64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Rules {
    /// Makes rules without faults.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Arms a fault.
    pub fn arm(&self, fault: Fault, scope: Scope) -> RuleId {
        let id = RuleId(self.next.fetch_add(1, Ordering::Relaxed));
        lock(&self.rules).push(Rule { id, fault, scope, met: 0, struck: 0 });
        id
    }

    /// Disarms a fault. Messages that it holds stay held.
    pub fn disarm(&self, id: RuleId) {
        lock(&self.rules).retain(|rule| rule.id != id);
    }

    /// The number of messages that a fault has struck.
    #[must_use]
    pub fn struck(&self, id: RuleId) -> u64 {
        lock(&self.rules).iter().find(|rule| rule.id == id).map_or(0, |rule| rule.struck)
    }

    /// Takes out all publishes that are held, in the order in which they came.
    #[must_use]
    pub fn take_held(&self) -> Vec<Held> {
        std::mem::take(&mut lock(&self.held))
    }

    /// Lets all answers go that are held now.
    pub fn release(&self) {
        self.releases.send_modify(|count| *count += 1);
    }

    pub(in crate::proxy) fn releases(&self) -> tokio::sync::watch::Receiver<u64> {
        self.releases.subscribe()
    }

    /// Decides about a client's frame.
    pub fn sent(&self, frame: &Frame) -> Sent {
        let Kind::Publish { subject, .. } = &frame.kind else { return Sent::Pass };
        let mut rules = lock(&self.rules);
        for rule in rules.iter_mut() {
            if !rule.scope.covers(subject, frame) {
                continue;
            }
            rule.met += 1;
            let strikes = rule.met >= rule.scope.nth && rule.scope.times.is_none_or(|times| rule.struck < times);
            if !strikes {
                continue;
            }
            rule.struck += 1;
            return match &rule.fault {
                Fault::Answer { headers, payload } => Sent::Answer(headers.clone(), payload.clone()),
                Fault::LoseAnswer => Sent::PassLosingAnswer,
                Fault::HoldAnswer => Sent::PassHoldingAnswer,
                Fault::Drop => Sent::Keep,
                Fault::Hold => {
                    lock(&self.held).push(Held { frame: frame.clone() });
                    Sent::Keep
                }
            };
        }
        Sent::Pass
    }
}

#[cfg(test)]
mod tests {
    use super::super::frames::FrameReader;
    use super::*;

    fn publish(subject: &str, key: &str) -> Frame {
        let headers = format!("NATS/1.0\r\nce-partitionkey: {key}\r\n\r\n");
        let bytes = format!("HPUB {subject} r.1 {} {}\r\n{headers}x\r\n", headers.len(), headers.len() + 1);
        FrameReader::default().read(bytes.as_bytes()).unwrap().remove(0)
    }

    #[test]
    fn another_than_the_nth_of_the_key_is_struck() {
        let rules = Rules::new();
        let id = rules.arm(Fault::Drop, Scope::subject("t.").key("a b").nth(2).times(Some(2)));
        let struck = |frame| rules.sent(&frame) == Sent::Keep;
        let frames =
            [("t.1", "a%20b"), ("t.1", "b"), ("u.1", "a%20b"), ("t.2", "a%20b"), ("t.1", "a%20b"), ("t.1", "a%20b")];
        let found: Vec<bool> = frames.into_iter().map(|(subject, key)| struck(publish(subject, key))).collect();
        assert_eq!(found, [false, false, false, true, true, false]);
        assert_eq!(rules.struck(id), 2);
        rules.disarm(id);
        assert!(!struck(publish("t.1", "a%20b")));
    }

    #[test]
    fn a_key_of_a_structured_event_is_not_found() {
        let event = r#"{"specversion":"1.0","partitionkey":"ü"}"#;
        let bytes = format!("PUB t {}\r\n{event}\r\n", event.len());
        let frame = FrameReader::default().read(bytes.as_bytes()).unwrap().remove(0);
        assert_eq!(key_of(&frame).as_deref(), Some("ü".as_bytes()));
    }

    #[test]
    fn what_is_held_is_lost() {
        let rules = Rules::new();
        rules.arm(Fault::Hold, Scope::subject("t"));
        assert_eq!(rules.sent(&publish("t", "k")), Sent::Keep);
        assert_eq!(rules.sent(&publish("t", "k")), Sent::Pass);
        assert_eq!(rules.take_held().len(), 1);
        assert!(rules.take_held().is_empty());
    }
}
