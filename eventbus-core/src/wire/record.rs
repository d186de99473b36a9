//! A record as brokers carry it, and how a broker's binding writes it: [`WireRecord`], [`Binding`].

use std::borrow::Cow;

use bytes::Bytes;
use time::OffsetDateTime;

use crate::model::{Envelope, Error, ErrorKind, Key, Position, Stamp, Topic};

/// The header that shows the content mode on every broker, and carries the media type on some.
pub(super) const CONTENT_TYPE: &str = "content-type";

/// The media type of a structured record.
pub(super) const STRUCTURED: &str = "application/cloudevents+json";

/// The bytes that a piece of memory takes beside what is asked for, about.
const ALLOCATION: usize = 16;

/// One record, as brokers carry it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(clippy::exhaustive_structs)] // the parts that every broker has
pub struct WireRecord {
    /// The record's own key, where the broker has such a thing.
    pub key: Option<Bytes>,
    /// The headers, in order. A name may come twice in a foreign producer's record. [`header_name`](super::header_name)
    /// makes the names.
    pub headers: Vec<(Cow<'static, str>, Bytes)>,
    /// The payload in binary mode, the document in structured mode.
    pub payload: Bytes,
}

impl WireRecord {
    /// Returns the bytes of key, headers and payload.
    #[must_use]
    pub fn size(&self) -> usize {
        self.key.as_ref().map_or(0, Bytes::len)
            + self.headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
            + self.payload.len()
    }

    /// Returns the bytes that the record holds in memory: its [`size`](Self::size), and what each header costs beside
    /// its name and its value.
    #[must_use]
    pub fn held(&self) -> usize {
        let own = self.headers.iter().filter(|(name, _)| matches!(name, Cow::Owned(_))).count();
        self.size() + self.headers.len() * size_of::<(Cow<'static, str>, Bytes)>() + own * ALLOCATION
    }

    /// Returns the value of the last header of this name: where a name comes twice, the last one counts. Names compare
    /// without case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&Bytes> {
        self.headers.iter().rev().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Writes the trace of this hop (the span of the publish itself), replacing an earlier one. The envelope's own
    /// trace is an attribute and stays as it is.
    pub fn set_hop(&mut self, hop: &Hop) {
        self.headers.retain(|(name, _)| !is_hop(name));
        self.push("traceparent", &hop.traceparent);
        if let Some(tracestate) = &hop.tracestate {
            self.push("tracestate", tracestate);
        }
    }

    pub(super) fn push(&mut self, name: impl Into<Cow<'static, str>>, value: &str) {
        self.headers.push((name.into(), Bytes::copy_from_slice(value.as_bytes())));
    }
}

pub(super) fn is_hop(name: &str) -> bool {
    ["traceparent", "tracestate"].iter().any(|hop| hop.eq_ignore_ascii_case(name))
}

/// The W3C trace context of one hop: the span that sent this record.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)] // the two headers of the standard
pub struct Hop {
    /// The header `traceparent`.
    pub traceparent: String,
    /// The header `tracestate`, the vendors' part.
    pub tracestate: Option<String>,
}

/// The binding of a broker: how it writes attributes.
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
    /// The prefix of an attribute's name in a header: `ce_`, `ce-`.
    pub prefix: &'static str,
    /// The header that carries the payload's media type in binary mode. `None`: `datacontenttype` behind the prefix.
    pub content_type: Option<&'static str>,
    /// Whether attributes in headers are percent-encoded.
    pub percent_encoded: bool,
    /// Whether the record's own key carries the envelope's key.
    pub keyed: bool,
    /// The header that carries the stamp, where the broker has a message id.
    pub message_id: Option<&'static str>,
    /// Whether a document that has an event's required attributes is one also without a header that says so.
    pub bare_documents: bool,
}

impl Binding {
    /// Makes a binding with this prefix: everything goes into prefixed headers, as it is, without key and message id.
    #[must_use]
    pub const fn new(prefix: &'static str) -> Self {
        Self {
            prefix,
            content_type: None,
            percent_encoded: false,
            keyed: false,
            message_id: None,
            bare_documents: false,
        }
    }

    /// Sets the header of the payload's media type.
    #[must_use]
    pub const fn content_type(mut self, header: &'static str) -> Self {
        self.content_type = Some(header);
        self
    }

    /// Sets whether attributes in headers are percent-encoded.
    #[must_use]
    pub const fn percent_encoded(mut self, encoded: bool) -> Self {
        self.percent_encoded = encoded;
        self
    }

    /// Sets whether records have a key of their own.
    #[must_use]
    pub const fn keyed(mut self, keyed: bool) -> Self {
        self.keyed = keyed;
        self
    }

    /// Sets the header of the message id.
    #[must_use]
    pub const fn message_id(mut self, header: &'static str) -> Self {
        self.message_id = Some(header);
        self
    }

    /// Sets whether documents are read as events without a content type: for a broker whose binding writes structured
    /// events with no header at all.
    #[must_use]
    pub const fn bare_documents(mut self, read: bool) -> Self {
        self.bare_documents = read;
        self
    }
}

/// The content mode: where an event's attributes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
#[non_exhaustive]
pub enum Mode {
    /// In headers; the payload is the event's own. The default.
    #[default]
    Binary,
    /// In one JSON document, with the payload inside.
    Structured,
}

/// The place where a record was read, which fills in for attributes that a foreign producer did not write.
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
    /// The position in the partition.
    pub position: Position,
    /// The time at which the broker stored the record, in milliseconds since the Unix epoch.
    pub stored_at: u64,
}

impl DecodeContext<'_> {
    pub(super) fn time(&self) -> OffsetDateTime {
        let millis = i128::from(self.stored_at);
        OffsetDateTime::from_unix_timestamp_nanos(millis * 1_000_000).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }
}

/// The `type` of a record whose producer gave it none.
pub const FOREIGN_TYPE: &str = "eventbus.foreign";

/// The content of a decoded record.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Decoded {
    /// The envelope.
    pub envelope: Envelope,
    /// The stamp, where a bus of this library wrote the record.
    pub stamp: Option<Stamp>,
    /// The trace of the hop that brought the record.
    pub hop: Option<Hop>,
    /// The names of headers and attributes that an envelope cannot hold: the broker's own, values that are not text,
    /// names outside the rules, all but the last of a name.
    pub left_out: Vec<String>,
}

/// The key and the stamp of a record: enough to dispatch it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Peek {
    /// The key, if the record has one that can be found.
    pub key: Option<Key>,
    /// The stamp, if the record has one that can be found.
    pub stamp: Option<Stamp>,
}

/// Returns a media type without its parameters.
pub(super) fn media_type(value: &str) -> &str {
    value.split(';').next().unwrap_or_default().trim()
}

/// Whether a media type is one of CloudEvents: structured, batched or any other.
pub(super) fn is_cloudevents(media: &str) -> bool {
    let family = "application/cloudevents";
    media.get(..family.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(family))
}

pub(super) fn undecodable(attribute: &str, problem: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Undecodable, format!("{attribute}: {problem}")).with("attribute", attribute)
}
