//! Envelopes as NATS messages, and back.
//!
//! The stamp is the message id, in both modes. Attributes in headers are percent-encoded, and users' headers hold no CR
//! or LF by the core's rules, so that no value ends a header or begins another. The client keeps headers in no order:
//! if the user has several, one more header names them in theirs.

use std::borrow::Cow;
use std::collections::HashMap;

use async_nats::header::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use eventbus_core::backend::{Body, Inbound};
use eventbus_core::wire::{self, Binding, Mode, WireRecord};
use eventbus_core::{Envelope, Error, ErrorKind, Position, Result, Stamp};

use crate::headers::{Header, Headers};

/// The header of the message id, by which the server drops copies.
pub(crate) const MESSAGE_ID: &str = "Nats-Msg-Id";

/// The header that names the user's headers in their order.
const ORDER: &str = "eventbus-headers";

/// The most bytes of a payload that is copied out of the client's buffer of 64 KiB, which it would keep in memory as
/// long as the record waits.
const COPIED: usize = 16 << 10;

/// CloudEvents on NATS: attributes in `ce-` headers; by the released binding, a structured event has no headers.
pub static BINDING: Binding = Binding::new("ce-").percent_encoded(true).message_id(MESSAGE_ID).bare_documents(true);

/// Encodes a message. Also returns its size as the server counts it: headers and payload.
pub(crate) fn encode(envelope: &Envelope, stamp: Stamp, mode: Mode) -> Result<(HeaderMap, Bytes, usize)> {
    let mut headers = HeaderMap::new();
    // The version line and the empty line at the end.
    let mut size = 14;
    let mut odd = None;
    let mut put = |name: Cow<'static, str>, value: &str| {
        let parsed = match &name {
            Cow::Borrowed(name) => Ok(HeaderName::from_static(name)),
            Cow::Owned(name) => name.parse::<HeaderName>(),
        };
        let (Ok(parsed), Ok(value)) = (parsed, value.parse::<HeaderValue>()) else {
            odd = Some(name);
            return;
        };
        // `: ` between name and value, and the line's end.
        size += 4 + name.len() + value.as_str().len();
        headers.insert(parsed, value);
    };
    let record = wire::write(envelope, Some(stamp), &BINDING, mode, &mut put);
    let names: Vec<&str> = envelope.headers().map(|(name, _)| name).collect();
    if names.len() > 1 {
        put(ORDER.into(), &names.join(","));
    }
    if let Some(name) = odd {
        let message = "a header that NATS cannot carry";
        return Err(Error::new(ErrorKind::InvalidEnvelope, message).with("header", name));
    }
    size += record.payload.len();
    Ok((headers, record.payload, size))
}

/// Turns a delivered message into a record.
pub(crate) fn inbound(partition: u32, at: &StreamPlace, headers: &Headers, payload: Bytes) -> Inbound {
    let mut listed = headers.list();
    put_in_order(&mut listed);
    let bytes = listed.iter().map(|(_, value)| value.len()).sum();
    let lent = listed.iter().map(|(name, value)| (*name, &**value));
    let copy = payload.len() <= COPIED;
    let (headers, copied) = wire::copied(if copy { &payload } else { &[] }, listed.len(), bytes, lent);
    let record = WireRecord { key: None, headers, payload: if copy { copied } else { payload } };
    Inbound::new(partition, at.position, at.stored_at, Body::Encoded { record, binding: &BINDING })
}

/// Puts headers in the order that the header for it names, and takes that header out. Without it, they are sorted where
/// their order tells: it must be the same one at each reading. The costs stay proportional to the headers, whatever a
/// foreign producer wrote: this runs beside the renewals of leases.
fn put_in_order(headers: &mut Vec<Header<'_>>) {
    let mut order: Option<Header<'_>> = None;
    headers.retain(|header| {
        let names_order = header.0.eq_ignore_ascii_case(ORDER);
        // Names that differ in case come in no order.
        if names_order && order.as_ref().is_none_or(|known| known.0 <= header.0) {
            order = Some(header.clone());
        }
        !names_order
    });
    let Some((_, order)) = order else {
        if order_tells(headers) {
            headers.sort_by_key(|(name, _)| *name);
        }
        return;
    };
    let mut places: HashMap<&[u8], Option<usize>> = headers.iter().map(|(name, _)| (name.as_bytes(), None)).collect();
    for (place, name) in order.split(|byte| *byte == b',').enumerate() {
        if let Some(known @ None) = places.get_mut(name) {
            *known = Some(place);
        }
    }
    headers.sort_by_cached_key(|(name, _)| (places.get(name.as_bytes()).copied().flatten(), *name));
}

/// Whether the order of headers makes a difference: to an envelope's own headers, of which there are several then, and
/// among names that differ only in case, the last of which counts. What this library writes passes without sorting.
fn order_tells(headers: &[Header<'_>]) -> bool {
    let mut others = 0;
    headers.iter().filter(|(name, _)| *name != MESSAGE_ID).any(|(name, _)| {
        others += usize::from(!name.starts_with(BINDING.prefix));
        let cased = name.bytes().any(|byte| byte.is_ascii_uppercase());
        others > 1 || cased || name.eq_ignore_ascii_case(MESSAGE_ID)
    })
}

/// The place of a delivered message, read from its reply subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamPlace {
    /// The message's sequence in the stream.
    pub(crate) position: Position,
    /// The message's number in the reader's deliveries, from 1 on.
    pub(crate) delivery: u64,
    /// The time of storing, in milliseconds since the Unix epoch.
    pub(crate) stored_at: u64,
    /// Records that the reader has still before it.
    pub(crate) pending: u64,
}

impl StreamPlace {
    /// Reads `$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<delivery>.<nanoseconds>.<pending>`, or the same
    /// with domain and account before the stream and perhaps more at the end.
    pub(crate) fn parse(reply: &str) -> Option<Self> {
        let mut tokens = reply.strip_prefix("$JS.ACK.")?.split('.');
        let skipped = if tokens.clone().count() == 7 { 2 } else { 4 };
        let mut number = tokens.by_ref().skip(skipped + 1).map(|token| token.parse::<u64>().ok());
        Some(Self {
            position: Position::new(number.next()??),
            delivery: number.next()??,
            stored_at: number.next()?? / 1_000_000,
            pending: number.next()??,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_reply_subject_are_read() {
        let place = StreamPlace { position: Position::new(7), delivery: 3, stored_at: 1_700_000_000_000, pending: 9 };
        for reply in [
            "$JS.ACK.S.C.1.7.3.1700000000000000000.9",
            "$JS.ACK.hub.hash.S.C.1.7.3.1700000000000000000.9",
            "$JS.ACK._.hash.S.C.1.7.3.1700000000000000000.9.token",
        ] {
            assert_eq!(StreamPlace::parse(reply), Some(place), "{reply}");
        }
        for reply in ["", "$JS.ACK.", "$JS.ACK.S.C.1.7.3", "$JS.ACK.S.C.1.x.3.1.9", "_INBOX.a.b"] {
            assert_eq!(StreamPlace::parse(reply), None, "{reply}");
        }
    }

    #[test]
    fn headers_come_in_the_order_that_is_named_and_else_in_one_that_is_always_the_same() {
        let read = |block: &[u8]| {
            let block = [b"NATS/1.0\r\n", block, b"\r\n"].concat();
            let place = StreamPlace { position: Position::new(1), delivery: 1, stored_at: 0, pending: 0 };
            let read = inbound(0, &place, &Headers::Stored(block.into()), Bytes::new());
            let Body::Encoded { record, .. } = read.body else { panic!() };
            record.headers.into_iter().map(|(name, _)| name.into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(read(b"a: 1\r\nb: 1\r\nc: 1\r\neventbus-headers: c,a,b,a\r\n"), ["c", "a", "b"]);
        assert_eq!(read(b"ce-id: 1\r\nCE-ID: 2\r\nCe-Id: 3\r\n"), ["CE-ID", "Ce-Id", "ce-id"]);
        assert_eq!(read(b"b: 1\r\nce-id: 1\r\na: 1\r\n"), ["a", "b", "ce-id"]);
        assert_eq!(read(b"nats-msg-id: 1\r\nNats-Msg-Id: 2\r\n"), ["Nats-Msg-Id", "nats-msg-id"]);
        let two = [&b"eventbus-headers: c,b\r\n"[..], b"Eventbus-Headers: b,c\r\n"];
        for [first, second] in [two, [two[1], two[0]]] {
            assert_eq!(read(&[b"b: 1\r\nc: 1\r\n", first, second].concat()), ["c", "b"]);
        }
    }

    /// The product of both numbers would take minutes.
    #[test]
    fn many_headers_and_a_long_order_cost_no_more_than_their_sum() {
        let mut block = b"NATS/1.0\r\n".to_vec();
        for number in 0..100_000 {
            block.extend_from_slice(format!("x{number}:\r\n").as_bytes());
        }
        block.extend_from_slice(b"eventbus-headers:");
        block.resize(block.len() + 1_000_000, b',');
        block.extend_from_slice(b"\r\n\r\n");
        let place = StreamPlace { position: Position::new(1), delivery: 1, stored_at: 0, pending: 0 };
        let read = inbound(0, &place, &Headers::Stored(block.into()), Bytes::new());
        let Body::Encoded { record, binding } = read.body else { panic!() };
        let topic = "t".parse().unwrap();
        let context = wire::DecodeContext { topic: &topic, partition: 0, position: place.position, stored_at: 0 };
        assert_eq!(wire::decode(&record, binding, &context).unwrap().envelope.headers().count(), 100_000);
    }

    #[test]
    fn a_small_payload_keeps_no_large_buffer_in_memory() {
        let place = StreamPlace { position: Position::new(1), delivery: 1, stored_at: 0, pending: 0 };
        let buffer = Bytes::from(vec![7; 64 << 10]);
        for (length, shared) in [(90, false), (COPIED, false), (COPIED + 1, true)] {
            let read = inbound(0, &place, &Headers::Stored(Bytes::new()), buffer.slice(..length));
            let Body::Encoded { record, .. } = read.body else { panic!() };
            assert_eq!(record.payload.len(), length);
            assert_eq!(record.payload.as_ptr() == buffer.as_ptr(), shared, "{length}");
        }
    }

    #[test]
    fn what_is_written_is_read_back_in_both_modes() {
        let stamp = Stamp::new(eventbus_core::ProducerId::new(5), 6);
        let envelope = Envelope::builder("T", "/s")
            .key("a b/ü\n%\"")
            .header("x", "ü,\"%0A")
            .header("Z", "")
            .header("a", "1")
            .payload(&b"\0\xff"[..]);
        let envelope = envelope.build().unwrap();
        for mode in [Mode::Binary, Mode::Structured] {
            let (headers, payload, size) = encode(&envelope, stamp, mode).unwrap();
            let place = StreamPlace { position: Position::new(1), delivery: 1, stored_at: 0, pending: 0 };
            let read = inbound(0, &place, &Headers::Read(headers), payload);
            assert_eq!((read.key.as_ref(), read.stamp), (envelope.key(), Some(stamp)), "{mode:?}");
            assert!(size > envelope.payload().len());
            let Body::Encoded { record, binding } = read.body else { panic!() };
            let topic = "t".parse().unwrap();
            let context = wire::DecodeContext { topic: &topic, partition: 0, position: place.position, stored_at: 0 };
            assert_eq!(wire::decode(&record, binding, &context).unwrap().envelope, envelope, "{mode:?}");
        }
    }
}
