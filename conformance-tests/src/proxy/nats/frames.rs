//! The client protocol of NATS, cut into frames.
//!
//! Invariant: the frames of a stream, put together again, are the stream, byte for byte, however it was cut into reads.
//! A frame is only looked into as far as the faults need it.

use bytes::{Buf, Bytes, BytesMut};

/// The longest line that is waited for; a longer one is not NATS.
const LONGEST_LINE: usize = 1 << 20;
/// The largest payload that is waited for.
const LARGEST_PAYLOAD: usize = 64 << 20;

/// The error of a stream that is not NATS.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A line without an end.
    #[error("no end of line within {LONGEST_LINE} bytes")]
    Endless,
    /// A message with sizes that cannot be.
    #[error("no message: {0:?}")]
    NoMessage(String),
}

/// The kind of a frame, as far as faults need to know.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// `PUB` or `HPUB`, from the client.
    Publish {
        /// The subject of the publish.
        subject: String,
        /// The subject of the answer.
        reply: Option<String>,
    },
    /// `MSG` or `HMSG`, from the server.
    Message {
        /// The subject of the publish.
        subject: String,
    },
    /// `SUB`, from the client.
    Subscribe {
        /// A subject, with wildcards or without.
        subject: String,
        /// The client's number for the subscription.
        sid: String,
    },
    /// `UNSUB`, from the client.
    Unsubscribe {
        /// The client's number for the subscription.
        sid: String,
        /// Whether the subscription ends only after a number of messages.
        later: bool,
    },
    /// Anything else.
    Other,
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Frame {
    /// The whole frame, as it came.
    pub raw: Bytes,
    /// The kind of the frame.
    pub kind: Kind,
    /// The headers of a publish or a message that has some, with the version line and the empty line.
    pub headers: Bytes,
    /// The payload of a publish or a message.
    pub payload: Bytes,
}

impl Frame {
    /// The value of a header, as it stands; the name is compared without case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = std::str::from_utf8(&self.headers).ok()?.split("\r\n").skip(1);
        lines
            .filter_map(|line| line.split_once(':'))
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.trim())
    }
}

/// A reader that cuts a stream into frames.
#[derive(Debug, Default)]
pub struct FrameReader {
    buffer: BytesMut,
    /// Number of bytes in which no end of line was found.
    looked: usize,
}

/// The frames that are complete.
pub type Frames = Vec<Frame>;

/// The announcement of a line: its kind, and the sizes of headers and of all behind it.
type Announced = (Kind, Option<(usize, usize)>);

impl FrameReader {
    /// Takes bytes as they came, and returns all frames that are complete by now.
    ///
    /// # Errors
    /// If the stream is not the protocol.
    pub fn read(&mut self, bytes: &[u8]) -> Result<Frames, FrameError> {
        self.buffer.extend_from_slice(bytes);
        let mut frames = Frames::new();
        while let Some(frame) = self.next()? {
            frames.push(frame);
        }
        Ok(frames)
    }

    fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        let from = self.looked.min(self.buffer.len());
        let Some(end) = self.buffer[from..].iter().position(|byte| *byte == b'\n').map(|at| from + at + 1) else {
            self.looked = self.buffer.len();
            return if self.looked > LONGEST_LINE { Err(FrameError::Endless) } else { Ok(None) };
        };
        // Until the frame is complete the same line is found again.
        self.looked = end - 1;
        let (kind, sizes) = announced(&self.buffer[..end])?;
        let (headers, all) = sizes.unwrap_or((0, 0));
        let behind = if sizes.is_some() { all + 2 } else { 0 };
        if self.buffer.len() < end + behind {
            self.buffer.reserve(end + behind - self.buffer.len());
            return Ok(None);
        }
        self.looked = 0;
        let raw = self.buffer.split_to(end + behind).freeze();
        let mut body = raw.slice(end..end + all);
        let headers = body.split_to(headers);
        Ok(Some(Frame { raw, kind, headers, payload: body }))
    }

    /// The bytes of a frame that is not complete yet.
    #[must_use]
    pub fn rest(&self) -> &[u8] {
        self.buffer.chunk()
    }
}

fn announced(line: &[u8]) -> Result<Announced, FrameError> {
    let mut words = line.split(|byte| byte.is_ascii_whitespace()).filter(|word| !word.is_empty());
    let verb = words.next().unwrap_or_default();
    let has_headers = verb.first().is_some_and(|first| first.eq_ignore_ascii_case(&b'H'));
    let known = ["PUB", "HPUB", "MSG", "HMSG", "SUB", "UNSUB"];
    let Some(verb) = known.into_iter().find(|known| verb.eq_ignore_ascii_case(known.as_bytes())) else {
        return Ok((Kind::Other, None));
    };
    let words: Vec<String> = words.map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    let broken = || FrameError::NoMessage(String::from_utf8_lossy(line).into_owned());
    let sizes = || -> Option<(usize, usize)> {
        let all: usize = words.last()?.parse().ok()?;
        let headers = if has_headers { words.get(words.len().checked_sub(2)?)?.parse().ok()? } else { 0 };
        (headers <= all && all <= LARGEST_PAYLOAD).then_some((headers, all))
    };
    let least = usize::from(has_headers);
    match (verb, words.as_slice()) {
        ("PUB" | "HPUB", [subject, rest @ ..]) if (least + 1..=least + 2).contains(&rest.len()) => {
            let reply = (rest.len() == least + 2).then(|| rest[0].clone());
            let subject = subject.clone();
            Ok((Kind::Publish { subject, reply }, Some(sizes().ok_or_else(broken)?)))
        }
        ("MSG" | "HMSG", [subject, _sid, rest @ ..]) if (least + 1..=least + 2).contains(&rest.len()) => {
            Ok((Kind::Message { subject: subject.clone() }, Some(sizes().ok_or_else(broken)?)))
        }
        ("SUB", [subject, .., sid]) => Ok((Kind::Subscribe { subject: subject.clone(), sid: sid.clone() }, None)),
        ("UNSUB", [sid, rest @ ..]) => Ok((Kind::Unsubscribe { sid: sid.clone(), later: !rest.is_empty() }, None)),
        _ => Err(broken()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(bytes: &[u8]) -> Frames {
        FrameReader::default().read(bytes).unwrap()
    }

    #[test]
    fn a_publish_is_not_understood() {
        let frames = all(b"HPUB a.b _INBOX.x.1 35 40\r\nNATS/1.0\r\nce-PartitionKey: k%20\r\n\r\nhello\r\nPING\r\n");
        assert_eq!(frames.len(), 2);
        let reply = Some("_INBOX.x.1".to_owned());
        assert_eq!(frames[0].kind, Kind::Publish { subject: "a.b".into(), reply });
        assert_eq!((frames[0].header("ce-partitionkey"), &frames[0].payload[..]), (Some("k%20"), &b"hello"[..]));
        assert_eq!(frames[1].kind, Kind::Other);
        let frames = all(b"HPUB a.b 33 40\r\nNATS/1.0\r\nce-PartitionKey: k%20\r\n\r\nhello\r\n");
        assert_eq!(frames[0].kind, Kind::Publish { subject: "a.b".into(), reply: None });
        assert_eq!(&frames[0].payload[..], b"\r\nhello", "the sizes decide, not the empty line");
    }

    #[test]
    fn a_header_is_not_found() {
        let headers = "NATS/1.0\r\nA: 1\r\nce-PartitionKey: k%20\r\n\r\n";
        let frame = format!("hpub a.b r {} {}\r\n{headers}hello\r\n", headers.len(), headers.len() + 5);
        let frames = all(frame.as_bytes());
        assert_eq!(frames[0].header("ce-partitionkey"), Some("k%20"));
        assert_eq!(&frames[0].payload[..], b"hello");
    }

    #[test]
    fn what_is_no_message_is_passed_on() {
        let refused =
            [&b"PUB a\r\n"[..], b"PUB a b c d\r\n", b"HPUB a 9 3\r\n", b"PUB a -1\r\n", b"MSG a 1 99999999999\r\n"];
        for bytes in refused {
            assert!(FrameReader::default().read(bytes).is_err(), "{}", String::from_utf8_lossy(bytes));
        }
        assert_eq!(FrameReader::default().read(&vec![b'x'; LONGEST_LINE + 1]), Err(FrameError::Endless));
    }

    fn word() -> impl Strategy<Value = String> {
        "[a-zA-Z0-9_.$>*-]{1,12}"
    }

    /// A frame of each kind, and its kind.
    fn any_frame() -> impl Strategy<Value = (Vec<u8>, Kind)> {
        let body = || (prop::option::of("[a-z]{0,20}"), prop::collection::vec(any::<u8>(), 0..60));
        let with = |verb: &str, words: String, (headers, payload): (Option<String>, Vec<u8>)| {
            let headers = headers.map(|value| format!("NATS/1.0\r\nx: {value}\r\n\r\n"));
            let all = headers.as_ref().map_or(0, String::len) + payload.len();
            let mut bytes = match &headers {
                Some(headers) => format!("H{verb} {words} {} {all}\r\n{headers}", headers.len()),
                None => format!("{verb} {words} {all}\r\n"),
            }
            .into_bytes();
            bytes.extend(payload);
            bytes.extend(b"\r\n");
            bytes
        };
        prop_oneof![
            (word(), prop::option::of(word()), body()).prop_map(move |(subject, reply, body)| {
                let words = reply.iter().fold(subject.clone(), |words, reply| format!("{words} {reply}"));
                (with("PUB", words, body), Kind::Publish { subject, reply })
            }),
            (word(), prop::option::of(word()), body()).prop_map(move |(subject, reply, body)| {
                let words = reply.iter().fold(format!("{subject} 7"), |words, reply| format!("{words} {reply}"));
                (with("MSG", words, body), Kind::Message { subject })
            }),
            (word(), word()).prop_map(|(subject, sid)| {
                (format!("SUB {subject} {sid}\r\n").into_bytes(), Kind::Subscribe { subject, sid })
            }),
            (word(), any::<bool>()).prop_map(|(sid, later)| {
                let after = if later { " 3" } else { "" };
                (format!("UNSUB {sid}{after}\r\n").into_bytes(), Kind::Unsubscribe { sid, later })
            }),
            Just((b"PING\r\n".to_vec(), Kind::Other)),
            Just((b"+OK\r\n".to_vec(), Kind::Other)),
            Just((b"-ERR 'Permissions Violation'\r\n".to_vec(), Kind::Other)),
            Just((b"INFO {\"server_id\":\"x\"}\r\n".to_vec(), Kind::Other)),
        ]
    }

    proptest! {
        #[test]
        fn frames_put_together_are_not_the_stream(
            frames in prop::collection::vec(any_frame(), 0..12),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        ) {
            let stream: Vec<u8> = frames.iter().flat_map(|(bytes, _)| bytes.clone()).collect();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let mut reader = FrameReader::default();
            let mut read = Frames::new();
            for piece in cuts.windows(2) {
                read.extend(reader.read(&stream[piece[0]..piece[1]]).unwrap());
            }
            let again: Vec<u8> = read.iter().flat_map(|frame| frame.raw.to_vec()).collect();
            prop_assert_eq!(again, stream);
            prop_assert_eq!(reader.rest(), b"");
            let kinds: Vec<Kind> = read.into_iter().map(|frame| frame.kind).collect();
            prop_assert_eq!(kinds, frames.into_iter().map(|(_, kind)| kind).collect::<Vec<_>>());
        }

        #[test]
        fn noise_ends_in_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut reader = FrameReader::default();
            if let Ok(frames) = reader.read(&bytes) {
                let mut again: Vec<u8> = frames.iter().flat_map(|frame| frame.raw.to_vec()).collect();
                again.extend(reader.rest());
                prop_assert_eq!(again, bytes);
            }
        }
    }
}
