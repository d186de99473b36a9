//! The client protocol of NATS: frames of text, and faults that strike single messages.

mod frames;
mod rules;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::sync::watch;

pub use frames::{Frame, FrameError, FrameReader, Frames, Kind};
pub use rules::{Fault, Held, RuleId, Rules, Scope, Sent};

use super::protocol::{Conversation, Ends, Passed, Protocol};

impl Protocol for Rules {
    fn converse(self: Arc<Self>, _: Ends) -> Box<dyn Conversation> {
        Box::new(Connection {
            rules: self,
            sent: FrameReader::default(),
            answered: FrameReader::default(),
            lost: HashSet::new(),
            awaited: HashSet::new(),
            held: Vec::new(),
            subscriptions: HashMap::new(),
        })
    }

    fn releases(&self) -> watch::Receiver<u64> {
        Self::releases(self)
    }
}

/// One connection.
#[derive(Debug)]
struct Connection {
    rules: Arc<Rules>,
    sent: FrameReader,
    answered: FrameReader,
    /// Subjects whose next message is lost.
    lost: HashSet<String>,
    /// Subjects whose next message is held.
    awaited: HashSet<String>,
    /// Answers that are held.
    held: Vec<Bytes>,
    /// The client's subscriptions: its numbers by subject.
    subscriptions: HashMap<String, String>,
}

impl Conversation for Connection {
    fn sent(&mut self, bytes: &[u8]) -> Option<Passed> {
        let frames = self.sent.read(bytes).ok()?;
        let mut passed = Passed { on: BytesMut::with_capacity(bytes.len()), back: BytesMut::new() };
        frames.iter().for_each(|frame| self.pass(frame, &mut passed));
        Some(passed)
    }

    fn answered(&mut self, bytes: &[u8]) -> Option<BytesMut> {
        let frames = self.answered.read(bytes).ok()?;
        let mut passed = BytesMut::with_capacity(bytes.len());
        frames.into_iter().filter_map(|frame| self.pass_back(frame)).for_each(|raw| passed.extend_from_slice(&raw));
        Some(passed)
    }

    fn released(&mut self) -> BytesMut {
        let mut passed = BytesMut::new();
        self.held.drain(..).for_each(|bytes| passed.extend_from_slice(&bytes));
        passed
    }
}

impl Connection {
    fn pass(&mut self, frame: &Frame, passed: &mut Passed) {
        let reply = match &frame.kind {
            Kind::Subscribe { subject, sid } => {
                self.subscriptions.insert(subject.clone(), sid.clone());
                return passed.on.extend_from_slice(&frame.raw);
            }
            Kind::Unsubscribe { sid, later: false } => {
                self.subscriptions.retain(|_, known| known != sid);
                return passed.on.extend_from_slice(&frame.raw);
            }
            Kind::Publish { reply, .. } => reply,
            _ => return passed.on.extend_from_slice(&frame.raw),
        };
        match (self.rules.sent(frame), reply) {
            (Sent::PassLosingAnswer, Some(reply)) => drop(self.lost.insert(reply.clone())),
            (Sent::PassHoldingAnswer, Some(reply)) => drop(self.awaited.insert(reply.clone())),
            (Sent::Answer(headers, payload), reply) => {
                let sid = reply.as_ref().and_then(|reply| self.sid(reply));
                if let (Some(reply), Some(sid)) = (reply, sid) {
                    passed.back.extend_from_slice(&message(reply, sid, &headers, &payload));
                }
                return;
            }
            (Sent::Keep, _) => return,
            _ => {}
        }
        passed.on.extend_from_slice(&frame.raw);
    }

    fn pass_back(&mut self, frame: Frame) -> Option<Bytes> {
        let Kind::Message { subject } = &frame.kind else { return Some(frame.raw) };
        if self.lost.remove(subject) {
            return None;
        }
        if self.awaited.remove(subject) {
            self.held.push(frame.raw);
            return None;
        }
        Some(frame.raw)
    }

    /// The client's number for the subscription under which a subject is delivered.
    fn sid(&self, subject: &str) -> Option<&String> {
        self.subscriptions.iter().find(|(pattern, _)| matches(pattern, subject)).map(|(_, sid)| sid)
    }
}

fn matches(pattern: &str, subject: &str) -> bool {
    let (mut patterns, mut tokens) = (pattern.split('.'), subject.split('.'));
    loop {
        match (patterns.next(), tokens.next()) {
            (None, None) | (Some(">"), Some(_)) => return true,
            (Some("*"), Some(_)) => {}
            (Some(pattern), Some(token)) if pattern == token => {}
            _ => return false,
        }
    }
}

/// A message as the broker would send it.
fn message(subject: &str, sid: &str, headers: &[u8], payload: &[u8]) -> Bytes {
    let mut bytes = if headers.is_empty() {
        format!("MSG {subject} {sid} {}\r\n", payload.len()).into_bytes()
    } else {
        format!("HMSG {subject} {sid} {} {}\r\n", headers.len(), headers.len() + payload.len()).into_bytes()
    };
    bytes.extend_from_slice(headers);
    bytes.extend_from_slice(payload);
    bytes.extend_from_slice(b"\r\n");
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inbox_is_not_recognised() {
        assert!(matches("_INBOX.a.*", "_INBOX.a.7"));
        assert!(matches("_INBOX.>", "_INBOX.a.7"));
        assert!(matches("a.b", "a.b"));
        assert!(!matches("_INBOX.a.*", "_INBOX.b.7"));
        assert!(!matches("_INBOX.a.*", "_INBOX.a.7.8"));
        assert!(!matches("a.>", "a"));
    }
}
