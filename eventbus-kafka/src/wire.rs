//! Envelopes as Kafka records, and back: CloudEvents' Kafka binding.
//!
//! Attributes are headers `ce_*`, the content type is `content-type`, the key is the record's own. In structured mode
//! there is one header. Both modes are read; records of producers that know neither are envelopes, too.

use std::borrow::Cow;

use bytes::Bytes;
use eventbus_core::backend::{Body, Inbound};
use eventbus_core::wire::{self, Binding, Mode, WireRecord};
use eventbus_core::{Envelope, Position, Stamp};
use rdkafka::message::{Header, Headers, OwnedHeaders};
use rdkafka::{Message, Offset, Timestamp};

use crate::headers;

/// CloudEvents on Kafka: attributes in `ce_` headers, the record's own key.
pub static BINDING: Binding = Binding::new("ce_").content_type("content-type").keyed(true);

/// The number of headers of most records.
const HEADERS: usize = 9;

/// Bytes that the client adds to a record when it compares it with its own limit.
const FRAME: usize = 36;

/// Bytes of a header beside its name and value, at the most.
const HEADER_FRAME: usize = 10;

/// Encodes a record: its headers as the client takes them, and the rest of it.
pub(crate) fn encode(envelope: &Envelope, stamp: Stamp, mode: Mode) -> (OwnedHeaders, WireRecord) {
    let mut headers = Some(OwnedHeaders::new_with_capacity(HEADERS + envelope.headers().count()));
    let record = wire::write(envelope, Some(stamp), &BINDING, mode, &mut |name, value| {
        let header = Header { key: &name, value: Some(value) };
        headers = headers.take().map(|headers| headers.insert(header));
    });
    (headers.unwrap_or_default(), record)
}

/// The most bytes that a record may come to, without writing it: in structured mode a byte of text takes up to six,
/// binary mode writes the key three times, and every name has its frame.
pub(crate) fn most(envelope: &Envelope) -> usize {
    let named = envelope.headers().count() + envelope.extensions().count();
    6 * envelope.size() + 16 * named + 1_024
}

/// The record's bytes as the client counts them, or a little more.
pub(crate) fn size(envelope: &Envelope, stamp: Stamp, mode: Mode) -> usize {
    let record = wire::encode(envelope, Some(stamp), &BINDING, mode);
    FRAME + record.size() + HEADER_FRAME * record.headers.len()
}

/// Turns a delivered message into a record, copied once.
pub(crate) fn inbound<M: Message>(partition: u32, message: &M) -> Inbound {
    Fields::of(message).inbound(partition)
}

/// Reads the stamp of a record, without copying the rest.
pub(crate) fn stamp<M: Message>(message: &M) -> Option<Stamp> {
    Fields::of(message).stamp()
}

/// The fields of a message that make a record.
pub(crate) struct Fields<'a, H> {
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) headers: Option<&'a H>,
    pub(crate) payload: &'a [u8],
    pub(crate) offset: i64,
    pub(crate) time: Timestamp,
}

impl<'a, H: Headers> Fields<'a, H> {
    fn of<M: Message<Headers = H>>(message: &'a M) -> Self {
        let payload = message.payload().unwrap_or_default();
        let (offset, time) = (message.offset(), message.timestamp());
        Self { key: message.key(), headers: message.headers(), payload, offset, time }
    }

    pub(crate) fn inbound(&self, partition: u32) -> Inbound {
        let many = self.headers.map(Headers::count).filter(|count| *count > headers::MOST);
        let (headers, payload) = copied(self.headers, self.payload);
        // The key has its own piece of memory, so that a caller who keeps it keeps no payload.
        let record = WireRecord { key: self.key.map(Bytes::copy_from_slice), headers, payload };
        let stored_at = self.time.to_millis().and_then(|millis| u64::try_from(millis).ok()).unwrap_or_default();
        let body = Body::Encoded { record, binding: &BINDING };
        let inbound = Inbound::new(partition, position(self.offset), stored_at, body);
        match many {
            Some(count) => inbound.undecodable(format!("expected at most {} headers, got {count}", headers::MOST)),
            None => inbound,
        }
    }

    pub(crate) fn stamp(&self) -> Option<Stamp> {
        let (headers, payload) = copied(self.headers, &[]);
        let record = WireRecord { key: None, headers, payload };
        match wire::peek(&record, &BINDING).stamp {
            // A structured record has its stamp in the payload.
            None => self.inbound(0).stamp,
            found => found,
        }
    }
}

/// Copies headers and payload into one piece of memory, which mostly need not grow. Too many headers are not copied.
fn copied<H: Headers>(headers: Option<&H>, payload: &[u8]) -> (Vec<(Cow<'static, str>, Bytes)>, Bytes) {
    let headers = headers.filter(|headers| headers.count() <= headers::MOST);
    let count = headers.map_or(0, Headers::count);
    wire::copied(payload, count, 32 * count, headers.into_iter().flat_map(headers::all))
}

/// The position that an answer names; `None` if it names none.
pub(crate) fn known(offset: Offset) -> Option<Position> {
    if let Offset::Offset(offset) = offset { Some(position(offset)) } else { None }
}

/// A partition as the client's number.
pub(crate) fn number(partition: u32) -> i32 {
    i32::try_from(partition).unwrap_or(i32::MAX)
}

/// The client's number as a partition.
pub(crate) fn partition(number: i32) -> u32 {
    u32::try_from(number).unwrap_or_default()
}

/// An offset as a position; negative ones are the client's own words, and become zero.
pub(crate) fn position(offset: i64) -> Position {
    Position::new(u64::try_from(offset).unwrap_or_default())
}

/// A position as an offset.
pub(crate) fn offset(position: Position) -> i64 {
    i64::try_from(position.get()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use eventbus_core::ProducerId;
    use rdkafka::message::OwnedMessage;

    use super::*;

    fn read((headers, record): (OwnedHeaders, WireRecord)) -> OwnedMessage {
        let (key, payload) = (record.key.map(|key| key.to_vec()), Some(record.payload.to_vec()));
        OwnedMessage::new(payload, key, "t".into(), Timestamp::CreateTime(5), 3, 9, Some(headers))
    }

    #[test]
    fn no_record_comes_to_more_than_is_reckoned_with() {
        let given = Stamp::new(ProducerId::new(u128::MAX), u64::MAX);
        let tricky = "\"\\\u{7f}".repeat(200);
        let mut envelope =
            Envelope::builder("T", "/s").key("\\".repeat(300)).content_type("text/plain").payload(tricky);
        for n in 0..200 {
            envelope = envelope.header(format!("h{n}"), "").extension(format!("e{n}"), "1");
        }
        for envelope in [envelope.build().unwrap(), Envelope::builder("T", "/s").build().unwrap()] {
            for mode in [Mode::Binary, Mode::Structured] {
                let (size, most) = (size(&envelope, given, mode), most(&envelope));
                assert!(size <= most, "{mode:?}: {size} of {most}");
            }
        }
    }

    #[test]
    fn what_is_written_is_read_back_in_both_modes() {
        let given = Stamp::new(ProducerId::new(5), 6);
        let envelope = Envelope::builder("T", "/s").key("a b/ü\n%\"").header("x", "ü,\"%0A").header("Z", "");
        let envelope = envelope.payload(&b"\0\xff"[..]).build().unwrap();
        for mode in [Mode::Binary, Mode::Structured] {
            let message = read(encode(&envelope, given, mode));
            let inbound = inbound(3, &message);
            assert_eq!((inbound.key.as_ref(), inbound.stamp), (envelope.key(), Some(given)), "{mode:?}");
            assert_eq!((inbound.position, inbound.stored_at), (Position::new(9), 5));
            assert_eq!(stamp(&message), Some(given), "{mode:?}");
            let Body::Encoded { record, binding } = inbound.body else { panic!("encoded") };
            let topic = "t".parse().unwrap();
            let context = wire::DecodeContext { topic: &topic, partition: 3, position: inbound.position, stored_at: 5 };
            assert_eq!(wire::decode(&record, binding, &context).unwrap().envelope, envelope, "{mode:?}");
        }
    }

    #[test]
    fn a_record_of_too_many_headers_is_undecodable_and_holds_none() {
        let of = |count| {
            let headers = (0..count).fold(OwnedHeaders::new_with_capacity(count), |headers, _| {
                headers.insert(Header { key: "a", value: None::<&[u8]> })
            });
            let (key, payload) = (Some(vec![1]), Some(vec![7]));
            inbound(0, &OwnedMessage::new(payload, key, "t".into(), Timestamp::NotAvailable, 0, 1, Some(headers)))
        };
        let held = |inbound: &Inbound| match &inbound.body {
            Body::Encoded { record, .. } => (record.headers.len(), record.payload.clone()),
            other => panic!("{other:?}"),
        };
        let (most, more) = (of(headers::MOST), of(headers::MOST + 1));
        assert_eq!((most.is_undecodable(), held(&most).0), (false, headers::MOST));
        assert!(most.bytes > 50 * headers::MOST, "counted as it lies in memory: {}", most.bytes);
        assert_eq!((more.is_undecodable(), held(&more)), (true, (0, Bytes::from_static(&[7]))));
        assert!(more.key.is_some() && more.bytes < 100, "{}", more.bytes);
    }

    #[test]
    fn a_foreign_record_keeps_its_key_whatever_it_is() {
        let message =
            OwnedMessage::new(Some(vec![1]), Some(vec![0xff, 0]), "t".into(), Timestamp::NotAvailable, 0, 1, None);
        let inbound = inbound(0, &message);
        assert_eq!(inbound.key.map(|key| key.to_bytes()), Some(Bytes::from_static(&[0xff, 0])));
        assert_eq!((inbound.stamp, inbound.stored_at), (None, 0));
    }
}
