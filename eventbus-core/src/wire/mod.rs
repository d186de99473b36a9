//! The envelope on the wire: CloudEvents 1.0, for every broker by a [`Binding`] of its own.
//!
//! What is written is strict; what is read is lenient. Both content modes are read, whichever is written, and a record
//! of a foreign producer that is no CloudEvent becomes an envelope too: what it lacks is filled in from where it was read
//! ([`DecodeContext`]), so that reading it again gives the same envelope.
//!
//! The invariants that other rules rest on:
//! - decoding what was encoded gives an equal envelope and the same stamp, payload and key byte for byte (O6);
//! - the stamp is written as it is given, and is the broker's message id where the broker has one (P3);
//! - a record's own key goes before every other statement of the key, since it chose the partition (S1);
//! - the trace in which an event was made is an attribute, and never overwritten; the trace of one hop is a plain header.
//!
//! | attribute | field | form |
//! |---|---|---|
//! | `id` `source` `type` `time` | same | text, RFC 3339 |
//! | `subject`, `partitionkey` | key | text, where the key is text without control characters |
//! | `eventbuskeybase64` | key | any other key, where the record has none of its own |
//! | `sequence` | sequence | 20 digits, so that it sorts as text |
//! | `eventversion` | version | decimal |
//! | `correlationid` `causationid` `tenant` `traceparent` `tracestate` | same | text |
//! | `producer`, `number` | stamp | 32 hexadecimal digits, decimal; not in binary mode where there is a message id |
//! | `datacontenttype` | content type | text |
//!
//! An attribute of these names whose value has another form (a `sequence` of `abc`) stays readable as an extension.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use time::OffsetDateTime;

use crate::model::{Envelope, Error, ErrorKind, Key, Position, Stamp, Topic};

mod attributes;
mod binary;
mod headers;
mod structured;
#[cfg(test)]
mod tests;

pub use headers::{copied, header_name};

/// The header that shows the content mode on every broker, and carries the media type on some.
const CONTENT_TYPE: &str = "content-type";

/// The media type of a structured record.
const STRUCTURED: &str = "application/cloudevents+json";

/// One record as brokers carry it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(clippy::exhaustive_structs)] // the parts that every broker has
pub struct WireRecord {
    /// The record's key, where the broker has such a thing.
    pub key: Option<Bytes>,
    /// Headers, in order; a name may come twice in what foreign producers wrote. [`header_name`] makes their names.
    pub headers: Vec<(Cow<'static, str>, Bytes)>,
    /// The payload.
    pub payload: Bytes,
}

impl WireRecord {
    /// Bytes of key, headers and payload.
    #[must_use]
    pub fn size(&self) -> usize {
        self.key.as_ref().map_or(0, Bytes::len)
            + self.headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
            + self.payload.len()
    }

    /// The value of the last header of this name, compared without case: where a name comes twice, the last one counts.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&Bytes> {
        self.headers.iter().rev().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Writes the trace of this hop (the span of the publish itself), replacing an earlier one. The envelope's own trace
    /// is an attribute and stays as it is.
    pub fn set_hop(&mut self, hop: &Hop) {
        self.headers.retain(|(name, _)| !is_hop(name));
        self.push("traceparent", &hop.traceparent);
        if let Some(tracestate) = &hop.tracestate {
            self.push("tracestate", tracestate);
        }
    }

    fn push(&mut self, name: impl Into<Cow<'static, str>>, value: &str) {
        self.headers.push((name.into(), Bytes::copy_from_slice(value.as_bytes())));
    }
}

fn is_hop(name: &str) -> bool {
    ["traceparent", "tracestate"].iter().any(|hop| hop.eq_ignore_ascii_case(name))
}

/// The W3C trace context of one hop: the span that sent this record.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)] // the two headers of the standard
pub struct Hop {
    /// The parent.
    pub traceparent: String,
    /// The vendors' part.
    pub tracestate: Option<String>,
}

/// How a broker's binding writes attributes.
///
/// ```
/// use eventbus_core::wire::Binding;
///
/// static WITH_KEYS: Binding = Binding::new("ce_").content_type("content-type").keyed(true);
/// static WITH_MESSAGE_IDS: Binding = Binding::new("ce-").percent_encoded(true).message_id("Msg-Id");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Binding {
    /// What stands before an attribute's name in a header: `ce_`, `ce-`.
    pub prefix: &'static str,
    /// The header that carries the payload's media type in binary mode, where it is none with the prefix.
    pub content_type: Option<&'static str>,
    /// Attributes in headers are percent-encoded.
    pub percent_encoded: bool,
    /// The record's own key carries the envelope's key.
    pub keyed: bool,
    /// The header that carries the stamp, where the broker has a message id.
    pub message_id: Option<&'static str>,
}

impl Binding {
    /// A binding with this prefix: everything in prefixed headers, as it is, no key and no message id.
    #[must_use]
    pub const fn new(prefix: &'static str) -> Self {
        Self { prefix, content_type: None, percent_encoded: false, keyed: false, message_id: None }
    }

    /// Names the header of the payload's media type.
    #[must_use]
    pub const fn content_type(mut self, header: &'static str) -> Self {
        self.content_type = Some(header);
        self
    }

    /// Says whether attributes in headers are percent-encoded.
    #[must_use]
    pub const fn percent_encoded(mut self, encoded: bool) -> Self {
        self.percent_encoded = encoded;
        self
    }

    /// Says whether records have a key of their own.
    #[must_use]
    pub const fn keyed(mut self, keyed: bool) -> Self {
        self.keyed = keyed;
        self
    }

    /// Names the header of the message id.
    #[must_use]
    pub const fn message_id(mut self, header: &'static str) -> Self {
        self.message_id = Some(header);
        self
    }
}

/// Where an event's attributes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
#[non_exhaustive]
pub enum Mode {
    /// In headers; the payload is the event's own. The default.
    #[default]
    Binary,
    /// In one JSON document, with the payload inside.
    Structured,
}

/// Where a record was read: what fills in for attributes that a foreign producer did not write.
///
/// | missing | becomes |
/// |---|---|
/// | `id` | `TOPIC/PARTITION/POSITION` |
/// | `type` | [`FOREIGN_TYPE`] |
/// | `source` | `/TOPIC` |
/// | `time` | `stored_at` |
#[derive(Debug, Clone, Copy)]
#[allow(clippy::exhaustive_structs)] // every reader has all of it
pub struct DecodeContext<'a> {
    /// The topic.
    pub topic: &'a Topic,
    /// The partition.
    pub partition: u32,
    /// The position in it.
    pub position: Position,
    /// When the broker stored it, in milliseconds since the Unix epoch.
    pub stored_at: u64,
}

impl DecodeContext<'_> {
    fn time(&self) -> OffsetDateTime {
        let millis = i128::from(self.stored_at);
        OffsetDateTime::from_unix_timestamp_nanos(millis * 1_000_000).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }
}

/// The `type` of a record whose producer gave it none.
pub const FOREIGN_TYPE: &str = "eventbus.foreign";

/// What a record held.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Decoded {
    /// The envelope.
    pub envelope: Envelope,
    /// The stamp, where a bus of this library wrote the record.
    pub stamp: Option<Stamp>,
    /// The trace of the hop that brought it.
    pub hop: Option<Hop>,
    /// Headers and attributes that an envelope cannot hold, by name: the broker's own, values that are not text, names
    /// outside the rules, all but the last of a name.
    pub left_out: Vec<String>,
}

/// Key and stamp of a record: what dispatching it takes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Peek {
    /// The key.
    pub key: Option<Key>,
    /// The stamp.
    pub stamp: Option<Stamp>,
}

/// Writes an envelope as a record. Cannot fail: an [`Envelope`] exists only with attributes that the wire can carry.
///
/// An envelope whose content type is itself that of CloudEvents is written in structured mode whatever `mode` says; in
/// binary mode every reader would take its payload for the event.
#[must_use]
pub fn encode(envelope: &Envelope, stamp: Option<Stamp>, binding: &Binding, mode: Mode) -> WireRecord {
    let mut headers = Vec::with_capacity(16);
    // All values in one piece of memory.
    let mut values = BytesMut::with_capacity(384);
    let record = write(envelope, stamp, binding, mode, &mut |name, value| {
        values.extend_from_slice(value.as_bytes());
        headers.push((name, values.split().freeze()));
    });
    WireRecord { headers, ..record }
}

/// Writes an envelope as [`encode`] does, but gives each header to `header`, in their order: for clients that keep headers in a
/// form of their own. What is returned is the record without its headers.
///
/// ```
/// use eventbus_core::Envelope;
/// use eventbus_core::wire::{self, Binding, Mode};
///
/// static BINDING: Binding = Binding::new("ce_").keyed(true);
/// let envelope = Envelope::builder("OrderPlaced", "/shop").key("order-42").payload("{}").build()?;
/// let mut names = Vec::new();
/// let record = wire::write(&envelope, None, &BINDING, Mode::Binary, &mut |name, _| names.push(name));
/// assert!(record.headers.is_empty() && record.payload == "{}");
/// assert_eq!(names[..2], ["ce_specversion", "ce_id"]);
/// # Ok::<(), eventbus_core::Error>(())
/// ```
#[must_use]
pub fn write(
    envelope: &Envelope,
    stamp: Option<Stamp>,
    binding: &Binding,
    mode: Mode,
    header: &mut dyn FnMut(Cow<'static, str>, &str),
) -> WireRecord {
    let nested = envelope.content_type().is_some_and(|value| is_cloudevents(media_type(value)));
    let payload = match mode {
        Mode::Binary if !nested => binary::write(envelope, stamp, binding, header),
        _ => structured::write(envelope, stamp, binding, header),
    };
    if let (Some(name), Some(stamp)) = (binding.message_id, stamp) {
        header(name.into(), &stamp.to_string());
    }
    for (name, value) in envelope.headers() {
        header(name.to_owned().into(), value);
    }
    let key = envelope.key().filter(|_| binding.keyed).map(Key::to_bytes);
    WireRecord { key, headers: Vec::new(), payload }
}

/// Reads a record, in either mode.
///
/// # Errors
/// `Undecodable`, with the topic, the partition, the position and, where there is one, the attribute at fault.
pub fn decode(record: &WireRecord, binding: &Binding, context: &DecodeContext<'_>) -> Result<Decoded, Error> {
    let read = match mode_of(record) {
        Ok(Mode::Binary) => binary::decode(record, binding, context),
        Ok(Mode::Structured) => structured::decode(record, binding, context),
        Err(error) => Err(error),
    };
    read.map_err(|error| {
        error.with("topic", context.topic).with("partition", context.partition).with("position", context.position)
    })
}

/// Reads only key and stamp, the same that [`decode`] finds. Never fails: of a record that cannot be decoded it finds
/// what can be found, the key of the record itself above all (S2).
#[must_use]
pub fn peek(record: &WireRecord, binding: &Binding) -> Peek {
    match mode_of(record) {
        Ok(Mode::Structured) => structured::peek(record, binding),
        _ => binary::peek(record, binding),
    }
}

fn mode_of(record: &WireRecord) -> Result<Mode, Error> {
    let Some(value) = record.header(CONTENT_TYPE) else { return Ok(Mode::Binary) };
    let value = String::from_utf8_lossy(value);
    let media = media_type(&value);
    if media.eq_ignore_ascii_case(STRUCTURED) {
        return Ok(Mode::Structured);
    }
    if is_cloudevents(media) {
        return Err(undecodable(CONTENT_TYPE, format!("expected {STRUCTURED}, got {media}")));
    }
    Ok(Mode::Binary)
}

/// A media type without its parameters.
fn media_type(value: &str) -> &str {
    value.split(';').next().unwrap_or_default().trim()
}

/// Whether a media type is one of those of CloudEvents: structured, batched, whatever comes.
fn is_cloudevents(media: &str) -> bool {
    let family = "application/cloudevents";
    media.get(..family.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(family))
}

fn undecodable(attribute: &str, problem: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Undecodable, format!("{attribute}: {problem}")).with("attribute", attribute)
}
