//! [`Envelope`]: one event with its CloudEvents 1.0 attributes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use time::OffsetDateTime;

use super::codec::{Codec, Json};
use super::error::Error;
use super::key::Key;

/// One event: attributes, user headers and a payload of bytes.
///
/// Immutable and cheap to clone. A builder makes and validates it; a change goes back through a builder
/// ([`into_builder`](Self::into_builder)).
///
/// ```
/// use eventbus_core::Envelope;
///
/// let envelope = Envelope::builder("OrderPlaced", "/shop")
///     .key("order-42")
///     .sequence(1)
///     .json(&serde_json::json!({ "total": 12 }))
///     .build()?;
/// assert_eq!(envelope.event_type(), "OrderPlaced");
/// # Ok::<(), eventbus_core::Error>(())
/// ```
#[derive(Clone, PartialEq)]
pub struct Envelope(pub(crate) Arc<Attributes>);

/// The fields of an envelope, shared by its clones.
#[derive(Clone, PartialEq)]
pub(crate) struct Attributes {
    pub(crate) id: String,
    pub(crate) key: Option<Key>,
    pub(crate) event_type: String,
    pub(crate) source: String,
    pub(crate) time: OffsetDateTime,
    pub(crate) version: Option<u32>,
    pub(crate) sequence: Option<u64>,
    pub(crate) correlation_id: Option<String>,
    pub(crate) causation_id: Option<String>,
    pub(crate) tenant: Option<String>,
    pub(crate) content_type: Option<String>,
    pub(crate) traceparent: Option<String>,
    pub(crate) tracestate: Option<String>,
    pub(crate) extensions: BTreeMap<String, String>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) payload: Bytes,
    /// The size that [`Envelope::size`] tells, counted once by the builder.
    pub(crate) size: usize,
}

impl Envelope {
    /// The event's id. Default: a UUIDv7. It never serves to recognise copies, unless a subscription asks for that.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// The aggregate's key; `None` where the envelope is related to no other.
    #[must_use]
    pub fn key(&self) -> Option<&Key> {
        self.0.key.as_ref()
    }

    /// The CloudEvents `type`: what happened.
    #[must_use]
    pub fn event_type(&self) -> &str {
        &self.0.event_type
    }

    /// The CloudEvents `source`: where it happened, a URI reference.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// The time of the event, not of its publish.
    #[must_use]
    pub fn time(&self) -> OffsetDateTime {
        self.0.time
    }

    /// The version of the event's schema, where it is stated.
    #[must_use]
    pub fn version(&self) -> Option<u32> {
        self.0.version
    }

    /// The aggregate's own sequence: the user's number, never used to order or to drop anything.
    #[must_use]
    pub fn sequence(&self) -> Option<u64> {
        self.0.sequence
    }

    /// The id of the conversation that the event belongs to.
    #[must_use]
    pub fn correlation_id(&self) -> Option<&str> {
        self.0.correlation_id.as_deref()
    }

    /// The id of the message that caused the event.
    #[must_use]
    pub fn causation_id(&self) -> Option<&str> {
        self.0.causation_id.as_deref()
    }

    /// The tenant that the event belongs to.
    #[must_use]
    pub fn tenant(&self) -> Option<&str> {
        self.0.tenant.as_deref()
    }

    /// The media type of the payload.
    #[must_use]
    pub fn content_type(&self) -> Option<&str> {
        self.0.content_type.as_deref()
    }

    /// The W3C trace context in which the event was made; never overwritten on its way.
    #[must_use]
    pub fn traceparent(&self) -> Option<&str> {
        self.0.traceparent.as_deref()
    }

    /// The vendors' part of the trace context.
    #[must_use]
    pub fn tracestate(&self) -> Option<&str> {
        self.0.tracestate.as_deref()
    }

    /// A CloudEvents extension attribute, by its name.
    #[must_use]
    pub fn extension(&self, name: &str) -> Option<&str> {
        self.0.extensions.get(name).map(String::as_str)
    }

    /// All extension attributes, by name.
    pub fn extensions(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.extensions.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// A user header, by its name. Names compare without case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.0.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// All user headers, in the order in which they were added.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The payload, as bytes.
    #[must_use]
    pub fn payload(&self) -> &Bytes {
        &self.0.payload
    }

    /// Decodes the payload by a codec.
    ///
    /// # Errors
    /// `Undecodable`, naming the envelope's id and type and the codec.
    pub fn decode<T: DeserializeOwned, C: Codec>(&self, codec: &C) -> Result<T, Error> {
        codec
            .decode(self.payload())
            .map_err(|error| error.with("id", self.id()).with("type", self.event_type()).with("codec", codec.name()))
    }

    /// Decodes the payload as JSON.
    ///
    /// # Errors
    /// `Undecodable`, as [`decode`](Self::decode).
    pub fn decode_json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        self.decode(&Json)
    }

    /// The size in bytes that budgets count: payload, key, headers and attributes, plus 64 for what the wire adds.
    #[must_use]
    pub fn size(&self) -> usize {
        self.0.size
    }
}

impl Attributes {
    /// Counts the size that [`Envelope::size`] tells.
    pub(crate) fn count_size(&self) -> usize {
        const FRAME: usize = 64;
        let a = self;
        let optional = [&a.correlation_id, &a.causation_id, &a.tenant, &a.content_type, &a.traceparent, &a.tracestate];
        FRAME
            + a.payload.len()
            + a.key.as_ref().map_or(0, |key| key.as_bytes().len())
            + a.id.len()
            + a.event_type.len()
            + a.source.len()
            + optional.iter().map(|value| value.as_ref().map_or(0, String::len)).sum::<usize>()
            + a.headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
            + a.extensions.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
    }
}

/// Prints the length of the payload, which may be large or secret, instead of the payload; headers without their
/// values.
impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let a = &*self.0;
        f.debug_struct("Envelope")
            .field("id", &a.id)
            .field("key", &a.key)
            .field("event_type", &a.event_type)
            .field("source", &a.source)
            .field("sequence", &a.sequence)
            .field("headers", &a.headers.iter().map(|(name, _)| name).collect::<Vec<_>>())
            .field("payload_bytes", &a.payload.len())
            .finish_non_exhaustive()
    }
}
