//! The protocol of Kafka, as far as faults need it: requests and answers by their numbers, and the addresses of
//! brokers.
//!
//! A broker tells its clients where it listens. Answers through a proxy name the proxy instead, so that a client that
//! came through it stays behind it. For that the broker must be advertised by `127.0.0.1` or `localhost`.

mod frames;
mod rules;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{BufMut, BytesMut};

pub use frames::{FrameReader, Request};
pub use rules::{Fault, RuleId, Rules, Scope, Sent, id_header};

use super::protocol::{Conversation, Ends, Passed, Protocol};

impl Protocol for Rules {
    fn converse(self: Arc<Self>, ends: Ends) -> Box<dyn Conversation> {
        Box::new(Connection {
            rules: self,
            ends,
            sent: FrameReader::default(),
            answered: FrameReader::default(),
            asked: HashMap::new(),
        })
    }
}

/// One connection.
#[derive(Debug)]
struct Connection {
    rules: Arc<Rules>,
    ends: Ends,
    sent: FrameReader,
    answered: FrameReader,
    /// Requests that are not answered yet, by number, and the treatment of their answers.
    asked: HashMap<i32, (Request, Answer)>,
}

/// The treatment of an answer.
#[derive(Debug)]
enum Answer {
    Passes,
    IsLost,
    /// A frame that replaces the answer.
    Is(BytesMut),
}

impl Conversation for Connection {
    fn sent(&mut self, bytes: &[u8]) -> Option<Passed> {
        let mut passed = Passed { on: BytesMut::with_capacity(bytes.len()), back: BytesMut::new() };
        self.sent.push(bytes);
        while let Some(frame) = self.sent.next_frame().ok()? {
            let request = Request::read(&frame)?;
            let sent = if request.api == Request::PRODUCE { self.rules.sent(&frame) } else { Sent::Pass };
            // A request that the proxy cannot answer is passed on rather than lost.
            let answer = match sent {
                Sent::Pass => Answer::Passes,
                Sent::PassLosingAnswer => Answer::IsLost,
                Sent::PassDenying(code) => request.produced(&frame, code).map_or(Answer::Passes, Answer::Is),
                Sent::Answer(code) => match request.produced(&frame, code) {
                    Some(answer) => {
                        framed(&mut passed.back, &answer);
                        continue;
                    }
                    None => Answer::Passes,
                },
            };
            self.asked.insert(request.number, (request, answer));
            framed(&mut passed.on, &frame);
        }
        Some(passed)
    }

    fn answered(&mut self, bytes: &[u8]) -> Option<BytesMut> {
        let mut passed = BytesMut::with_capacity(bytes.len());
        self.answered.push(bytes);
        while let Some(mut frame) = self.answered.next_frame().ok()? {
            let number = frame.first_chunk().map(|number| i32::from_be_bytes(*number))?;
            let (request, answer) = self.asked.remove(&number)?;
            match answer {
                Answer::Passes => {}
                Answer::IsLost => continue,
                Answer::Is(instead) => frame = instead,
            }
            if request.api == Request::METADATA
                && let Some(bare) = frames::without_brokers(&frame, request.version)
                && self.rules.hides_brokers()
            {
                frame = bare;
            }
            if Request::tells_addresses(request.api) {
                frames::redirect(&mut frame, self.ends.broker, self.ends.front);
            }
            framed(&mut passed, &frame);
        }
        Some(passed)
    }
}

fn framed(to: &mut BytesMut, frame: &[u8]) {
    to.put_u32(u32::try_from(frame.len()).unwrap_or(u32::MAX));
    to.extend_from_slice(frame);
}
