//! [`EnvelopeBuilder`], and the rules that it checks.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::codec::{Codec, Json};
use super::envelope::{Attributes, Envelope};
use super::error::{Error, ErrorKind};
use super::key::Key;

/// The most bytes in the value of an attribute or a header.
const MAX_VALUE: usize = 8 * 1024;

/// Header names, and prefixes of header names, that the wire uses itself on one backend or another.
const RESERVED_HEADERS: [&str; 3] = ["content-type", "traceparent", "tracestate"];
const RESERVED_PREFIXES: [&str; 4] = ["nats-", "ce-", "ce_", "eventbus-"];

/// Extension names that envelopes have as fields, or that the bus writes.
const RESERVED_EXTENSIONS: [&str; 17] = [
    "specversion",
    "id",
    "source",
    "type",
    "time",
    "data",
    "datacontenttype",
    "partitionkey",
    "sequence",
    "eventversion",
    "correlationid",
    "causationid",
    "tenant",
    "producer",
    "number",
    "traceparent",
    "tracestate",
];

/// The prefix of the bus's own extension attributes.
const OWN_EXTENSIONS: &str = "eventbus";

/// A builder of an [`Envelope`]. It keeps the first error, which [`build`](Self::build) returns.
#[derive(Debug, Clone)]
#[must_use]
pub struct EnvelopeBuilder {
    attributes: Attributes,
    id: Option<String>,
    time: Option<OffsetDateTime>,
    error: Option<Error>,
}

impl std::fmt::Debug for Attributes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attributes").field("event_type", &self.event_type).finish_non_exhaustive()
    }
}

impl Attributes {
    /// Makes attributes of a type and a source, unchecked; all else is empty.
    pub(crate) fn new(event_type: String, source: String) -> Self {
        Self {
            id: String::new(),
            key: None,
            event_type,
            source,
            time: OffsetDateTime::UNIX_EPOCH,
            version: None,
            sequence: None,
            correlation_id: None,
            causation_id: None,
            tenant: None,
            content_type: None,
            traceparent: None,
            tracestate: None,
            extensions: BTreeMap::new(),
            headers: Vec::new(),
            payload: Bytes::new(),
            size: 0,
        }
    }
}

impl EnvelopeBuilder {
    pub(crate) fn new(event_type: String, source: String) -> Self {
        let attributes = Attributes::new(event_type, source);
        Self { attributes, id: None, time: None, error: None }
    }

    pub(crate) fn of(mut attributes: Attributes) -> Self {
        let id = std::mem::take(&mut attributes.id);
        Self { id: Some(id), time: Some(attributes.time), attributes, error: None }
    }

    pub(crate) fn fail(mut self, error: Error) -> Self {
        self.error.get_or_insert(error);
        self
    }

    /// Sets the id and the time from given sources, for runs that must repeat exactly. The id is a UUIDv7 of
    /// `unix_millis` since the Unix epoch and the lower 80 bits of `random`; the time is that of `unix_millis`.
    ///
    /// ```
    /// use eventbus_core::Envelope;
    ///
    /// let envelope = || Envelope::builder("Tick", "/clock").fresh(1_700_000_000_000, 42).build();
    /// assert_eq!(envelope()?.id(), envelope()?.id());
    /// # Ok::<(), eventbus_core::Error>(())
    /// ```
    pub fn fresh(self, unix_millis: u64, random: u128) -> Self {
        let mut bits = [0; 10];
        bits.copy_from_slice(&random.to_be_bytes()[6..]);
        let id = uuid::Builder::from_unix_timestamp_millis(unix_millis, &bits).into_uuid();
        let nanos = i128::from(unix_millis) * 1_000_000;
        match OffsetDateTime::from_unix_timestamp_nanos(nanos) {
            Ok(time) => self.id(id.to_string()).time(time),
            Err(error) => self.fail(invalid(format!("\"time\": {unix_millis} ms since the epoch: {error}"))),
        }
    }

    /// Sets the id. Default: a fresh UUIDv7.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Sets the key, which relates this envelope to all others of the topic with an equal key. Default: none.
    pub fn key<K: TryInto<Key>>(mut self, key: K) -> Self
    where
        K::Error: Into<Error>,
    {
        match key.try_into() {
            Ok(key) => {
                self.attributes.key = Some(key);
                self
            }
            Err(error) => self.fail(error.into()),
        }
    }

    /// Sets the time of the event. Default: now, by the system's clock.
    pub fn time(mut self, time: OffsetDateTime) -> Self {
        self.time = Some(time);
        self
    }

    /// Sets the version of the event's schema.
    pub fn version(mut self, version: u32) -> Self {
        self.attributes.version = Some(version);
        self
    }

    /// Sets the aggregate's own sequence.
    pub fn sequence(mut self, sequence: u64) -> Self {
        self.attributes.sequence = Some(sequence);
        self
    }

    /// Sets the id of the conversation that the event belongs to.
    pub fn correlation_id(mut self, id: impl Into<String>) -> Self {
        self.attributes.correlation_id = Some(id.into());
        self
    }

    /// Sets the id of the message that caused the event.
    pub fn causation_id(mut self, id: impl Into<String>) -> Self {
        self.attributes.causation_id = Some(id.into());
        self
    }

    /// Sets the tenant that the event belongs to.
    pub fn tenant(mut self, tenant: impl Into<String>) -> Self {
        self.attributes.tenant = Some(tenant.into());
        self
    }

    /// Sets the media type of the payload.
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.attributes.content_type = Some(content_type.into());
        self
    }

    /// Sets the W3C trace context in which the event is made. The bus sets it at the publish where it is missing and a
    /// span is active.
    pub fn traceparent(mut self, traceparent: impl Into<String>) -> Self {
        self.attributes.traceparent = Some(traceparent.into());
        self
    }

    /// Sets the vendors' part of the trace context.
    pub fn tracestate(mut self, tracestate: impl Into<String>) -> Self {
        self.attributes.tracestate = Some(tracestate.into());
        self
    }

    /// Adds a CloudEvents extension attribute. Its name has 1 to 20 characters of `a-z 0-9`, is no field of an
    /// envelope, and does not begin with `eventbus`. `subject` and `dataschema` are attributes of CloudEvents that count
    /// as extensions here; a `subject` that is the key's text is no extension, since the bus writes it anyway.
    pub fn extension(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let name = name.into();
        if let Err(error) = check_extension_name(&name) {
            return self.fail(error);
        }
        self.own_extension(name, value)
    }

    /// Adds an extension attribute of the bus's own, or one that came over the wire; its name is not checked.
    pub(crate) fn own_extension(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.attributes.extensions.insert(name.into(), value.into());
        self
    }

    /// Removes an extension attribute, also one of the bus's own, such as the mark of a replay. A missing one is no
    /// error.
    pub fn without_extension(mut self, name: &str) -> Self {
        self.attributes.extensions.remove(name);
        self
    }

    /// Adds a user header, carried beside the payload. Refused names: those that begin with `Nats-`, `ce-`, `ce_` or
    /// `eventbus-`; `content-type`, `traceparent`, `tracestate`; a name that is no HTTP field name; a name twice.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let (name, value) = (name.into(), value.into());
        if let Err(error) = check_header(&name, &value) {
            return self.fail(error);
        }
        if self.attributes.headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(&name)) {
            return self.fail(invalid(format!("header {name:?} is given twice")));
        }
        self.attributes.headers.push((name, value));
        self
    }

    /// Sets the payload, as bytes.
    pub fn payload(mut self, payload: impl Into<Bytes>) -> Self {
        self.attributes.payload = payload.into();
        self
    }

    /// Encodes the payload by a codec, and sets the content type. An error is kept until [`build`](Self::build).
    pub fn encoded<T: Serialize + ?Sized, C: Codec>(self, value: &T, codec: &C) -> Self {
        match codec.encode(value) {
            Ok(payload) => self.payload(payload).content_type(codec.content_type()),
            Err(error) => self.fail(error.with("codec", codec.name())),
        }
    }

    /// Encodes the payload as JSON, and sets the content type.
    pub fn json<T: Serialize + ?Sized>(self, value: &T) -> Self {
        self.encoded(value, &Json)
    }

    /// Checks everything and makes the envelope.
    ///
    /// # Errors
    /// `InvalidEnvelope` or `InvalidName`, naming the attribute or header.
    pub fn build(self) -> Result<Envelope, Error> {
        let Self { mut attributes, id, time, error } = self;
        if let Some(error) = error {
            return Err(error);
        }
        attributes.id = id.unwrap_or_else(|| Uuid::now_v7().to_string());
        attributes.time = time.unwrap_or_else(OffsetDateTime::now_utc);
        let a = &attributes;
        for (name, value) in [("id", &a.id), ("type", &a.event_type), ("source", &a.source)] {
            check_value(name, value)?;
        }
        let optional = [
            ("correlationid", &a.correlation_id),
            ("causationid", &a.causation_id),
            ("tenant", &a.tenant),
            ("datacontenttype", &a.content_type),
            ("traceparent", &a.traceparent),
            ("tracestate", &a.tracestate),
        ];
        for (name, value) in optional {
            value.as_ref().map_or(Ok(()), |value| check_value(name, value))?;
        }
        for (name, value) in &a.extensions {
            check_value(name, value)?;
        }
        check_source(&a.source)?;
        check_time(a.time)?;
        let key = attributes.key.as_ref().and_then(Key::as_str);
        if key.is_some() && attributes.extensions.get("subject").map(String::as_str) == key {
            attributes.extensions.remove("subject");
        }
        attributes.size = attributes.count_size();
        Ok(Envelope(Arc::new(attributes)))
    }
}

impl Envelope {
    /// Starts an envelope of this type from this source (a URI reference, such as `/shop` or `https://shop.example`).
    pub fn builder(event_type: impl Into<String>, source: impl Into<String>) -> EnvelopeBuilder {
        EnvelopeBuilder::new(event_type.into(), source.into())
    }

    /// Returns a builder with everything of this envelope, its id included.
    pub fn into_builder(self) -> EnvelopeBuilder {
        EnvelopeBuilder::of(Arc::unwrap_or_clone(self.0))
    }

    /// Returns a builder with everything of this envelope, which stays as it is.
    pub fn to_builder(&self) -> EnvelopeBuilder {
        self.clone().into_builder()
    }
}

pub(crate) fn check_extension_name(name: &str) -> Result<(), Error> {
    let well_formed =
        (1..=20).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    if !well_formed {
        return Err(invalid(format!("extension {name:?}: expected 1 to 20 of a-z 0-9")));
    }
    if RESERVED_EXTENSIONS.contains(&name) || name.starts_with(OWN_EXTENSIONS) {
        return Err(invalid(format!("extension {name:?} is reserved")));
    }
    Ok(())
}

pub(crate) fn check_header(name: &str, value: &str) -> Result<(), Error> {
    let lower = name.to_ascii_lowercase();
    // HTTP field names have these characters, so every broker and bridge carries them.
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || name.len() > 256 || !name.bytes().all(token) {
        return Err(invalid(format!("header {name:?}: expected 1 to 256 characters of an HTTP field name")));
    }
    if RESERVED_HEADERS.contains(&lower.as_str()) || RESERVED_PREFIXES.iter().any(|prefix| lower.starts_with(prefix)) {
        return Err(invalid(format!("header {name:?} is reserved")));
    }
    // Some brokers' clients trim the values that they read.
    if value.len() > MAX_VALUE || value.contains(['\r', '\n', '\0']) || value.trim() != value {
        return Err(invalid(format!(
            "the value of header {name:?}: expected at most {MAX_VALUE} bytes, no CR, LF or NUL, no white space at its ends"
        )));
    }
    Ok(())
}

pub(crate) fn check_value(name: &str, value: &str) -> Result<(), Error> {
    if value.is_empty() || value.len() > MAX_VALUE || !is_text(value) {
        return Err(invalid(format!("{name:?}: expected 1 to {MAX_VALUE} bytes without control characters")));
    }
    Ok(())
}

/// Whether a value is a string of CloudEvents: no control characters, no noncharacters of Unicode.
pub(crate) fn is_text(value: &str) -> bool {
    let odd = |c: char| c.is_control() || matches!(c, '\u{fdd0}'..='\u{fdef}') || u32::from(c) & 0xfffe == 0xfffe;
    !value.chars().any(odd)
}

/// Checks the characters of a source, which is a URI reference; its parts are not checked.
fn check_source(source: &str) -> Result<(), Error> {
    let allowed = |c: &char| c.is_ascii_alphanumeric() || "-._~:/?#[]@!$&'()*+,;=%".contains(*c);
    if let Some(odd) = source.chars().find(|c| !allowed(c)) {
        return Err(invalid(format!("\"source\": expected a URI reference, got {odd:?} in {source:?}")));
    }
    Ok(())
}

/// Checks that RFC 3339 has a form for a time: a year of four digits, an offset of whole minutes.
fn check_time(time: OffsetDateTime) -> Result<(), Error> {
    match time.format_into(&mut std::io::sink(), &Rfc3339) {
        Ok(_) => Ok(()),
        Err(error) => Err(invalid(format!("\"time\": expected a time that RFC 3339 can write: {error}"))),
    }
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidEnvelope, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope() -> EnvelopeBuilder {
        Envelope::builder("T", "/s")
    }

    #[test]
    fn refused_headers_are_named() {
        for name in ["Nats-Rollup", "nats-msg-id", "ce-id", "CE_type", "Content-Type", "traceparent", "eventbus-x", ""]
        {
            let error = envelope().header(name, "v").build().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidEnvelope);
            assert!(error.to_string().contains(&format!("{name:?}")), "{error}");
        }
        assert!(envelope().header("a", "x\r\ny").build().is_err());
        assert!(envelope().header("a", "1").header("A", "2").build().is_err());
    }

    #[test]
    fn empty_attributes_are_refused() {
        assert!(Envelope::builder("", "/s").build().is_err());
        assert!(Envelope::builder("T", "").build().is_err());
        assert!(envelope().id("").build().is_err());
        assert!(envelope().key("").build().is_err());
        assert!(envelope().tenant("a\u{7}").build().is_err());
        assert!(envelope().extension("Upper", "x").build().is_err());
        assert!(envelope().extension("partitionkey", "x").build().is_err());
    }

    #[test]
    fn a_subject_is_an_extension_unless_it_is_the_key() {
        let of = |subject: &str| envelope().key("k").extension("subject", subject).build().unwrap();
        assert_eq!(of("other").extension("subject"), Some("other"));
        assert_eq!(of("k").extensions().count(), 0);
    }

    #[test]
    fn a_builder_keeps_what_it_was_made_from() {
        let one = envelope().key("k").header("h", "v").payload("p").build().unwrap();
        assert_eq!(one.clone().into_builder().build().unwrap(), one);
        assert!(!format!("{one:?}").contains("\"p\""));
    }

    #[test]
    fn what_the_wire_cannot_say_is_refused() {
        assert!(Envelope::builder("T", "/with space").build().is_err());
        assert!(envelope().tenant("\u{fffe}").build().is_err());
        assert!(envelope().header("a", " padded ").build().is_err());
        let odd_offset = time::UtcOffset::from_hms(1, 2, 3).unwrap();
        let error = envelope().time(OffsetDateTime::UNIX_EPOCH.to_offset(odd_offset)).build().unwrap_err();
        assert!(error.to_string().contains("\"time\""), "{error}");
    }

    #[test]
    fn given_sources_give_the_same_envelope() {
        let at = |random| envelope().fresh(1_700_000_000_123, random).build().unwrap();
        assert_eq!(at(7), at(7));
        assert_ne!(at(7).id(), at(8).id());
        assert_eq!(at(7).time().unix_timestamp_nanos(), 1_700_000_000_123_000_000);
        let id = uuid::Uuid::parse_str(at(7).id()).unwrap();
        assert_eq!((id.get_version_num(), id.get_timestamp().unwrap().to_unix().0), (7, 1_700_000_000));
        assert!(envelope().fresh(u64::MAX, 0).build().is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_builder_panic(text in "\\PC{0,8}|[\u{0}-\u{20}a-z-]{0,8}", other in "\\PC{0,8}") {
            let built = envelope().id(&text).tenant(&other).extension(&text, &other).header(&other, &text).build();
            if let Err(error) = built {
                proptest::prop_assert!(matches!(error.kind(), ErrorKind::InvalidEnvelope));
            }
            Envelope::builder(&text, &other).key(&*text).content_type(&other).build().ok();
        }
    }

    #[test]
    fn ids_are_version_7() {
        let id = uuid::Uuid::parse_str(envelope().build().unwrap().id()).unwrap();
        assert_eq!(id.get_version_num(), 7);
    }
}
