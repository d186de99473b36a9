//! The attributes of an event by their names on the wire: [`write`] lists them; a [`Reader`] gathers them, in any order
//! and from either mode.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::Write;

use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use base64::{Engine, alphabet};
use bytes::Bytes;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::record::{Binding, DecodeContext, Decoded, FOREIGN_TYPE, Hop, WireRecord, is_hop, undecodable};
use crate::model::{Attributes, Envelope, EnvelopeBuilder, Error, Key, Stamp, check_header, check_value, is_text};

/// The attribute of a key that is no text, where the record has no key of its own.
pub(super) const BINARY_KEY: &str = "eventbuskeybase64";

/// Base64 as foreign producers write it, with or without padding.
pub(super) const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The number of headers from which on they are found by a table.
const MANY: usize = 32;

/// Calls `put` with each attribute but `datacontenttype`, which has its own place in each mode.
pub(super) fn write(envelope: &Envelope, stamp: Option<Stamp>, binding: &Binding, mut put: impl FnMut(&str, &str)) {
    // Values that are no text yet become text here.
    let mut text = String::with_capacity(40);
    put("specversion", "1.0");
    put("id", envelope.id());
    put("source", envelope.source());
    put("type", envelope.event_type());
    put("time", rfc3339(envelope.time(), &mut text));
    write_key(envelope, binding, &mut put);
    if let Some(sequence) = envelope.sequence() {
        put("sequence", shown(format_args!("{sequence:020}"), &mut text));
    }
    if let Some(version) = envelope.version() {
        put("eventversion", shown(format_args!("{version}"), &mut text));
    }
    let optional = [
        ("correlationid", envelope.correlation_id()),
        ("causationid", envelope.causation_id()),
        ("tenant", envelope.tenant()),
        ("traceparent", envelope.traceparent()),
        ("tracestate", envelope.tracestate()),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            put(name, value);
        }
    }
    if let Some(stamp) = stamp {
        put("producer", shown(format_args!("{}", stamp.producer), &mut text));
        put("number", shown(format_args!("{}", stamp.number), &mut text));
    }
    for (name, value) in envelope.extensions() {
        // An attribute that a foreign producer wrote under a name of ours gives way to ours.
        let ours = match name {
            "sequence" => envelope.sequence().is_some(),
            "eventversion" => envelope.version().is_some(),
            "producer" | "number" => stamp.is_some(),
            _ => false,
        };
        if !ours {
            put(name, value);
        }
    }
}

fn shown<'a>(value: std::fmt::Arguments<'_>, text: &'a mut String) -> &'a str {
    text.clear();
    // Writing into a string cannot fail.
    text.write_fmt(value).ok();
    text
}

/// Writes a time by RFC 3339. An envelope's time always has this form: its builder made sure.
fn rfc3339(time: OffsetDateTime, text: &mut String) -> &str {
    let mut bytes = std::mem::take(text).into_bytes();
    bytes.clear();
    time.format_into(&mut bytes, &Rfc3339).ok();
    *text = String::from_utf8(bytes).unwrap_or_default();
    text
}

fn write_key(envelope: &Envelope, binding: &Binding, put: &mut impl FnMut(&str, &str)) {
    let Some(key) = envelope.key() else { return };
    match key_text(key) {
        Some(text) => {
            // An extension of this name is a foreign producer's; it is written with the other extensions.
            if envelope.extension("subject").is_none() {
                put("subject", text);
            }
            put("partitionkey", text);
        }
        None if binding.keyed => {}
        None => put(BINARY_KEY, &STANDARD.encode(key.as_bytes())),
    }
}

/// Returns a key as an attribute can carry it; `None` where the key is no text, or holds control characters.
fn key_text(key: &Key) -> Option<&str> {
    key.as_str().filter(|text| is_text(text))
}

/// The reader of a record's attributes and headers. Where an attribute comes twice, the last one counts. Values that no
/// envelope keeps as text are not copied.
pub(super) struct Reader<'a> {
    id: Option<String>,
    source: Option<String>,
    event_type: Option<String>,
    time: Option<OffsetDateTime>,
    subject: Option<Cow<'a, str>>,
    record_key: Option<Bytes>,
    partition_key: Option<Cow<'a, str>>,
    binary_key: Option<Cow<'a, str>>,
    producer: Option<Cow<'a, str>>,
    number: Option<Cow<'a, str>>,
    message_id: Option<Stamp>,
    hop: Hops,
    headers: Vec<(String, String)>,
    /// The places of the headers by their names in lower case, once there are [`MANY`].
    places: HashMap<String, usize>,
    left_out: Vec<String>,
    rest: Attributes,
}

#[derive(Default)]
struct Hops {
    traceparent: Option<String>,
    tracestate: Option<String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new() -> Self {
        Self {
            id: None,
            source: None,
            event_type: None,
            time: None,
            subject: None,
            record_key: None,
            partition_key: None,
            binary_key: None,
            producer: None,
            number: None,
            message_id: None,
            hop: Hops::default(),
            headers: Vec::new(),
            places: HashMap::new(),
            left_out: Vec::new(),
            rest: Attributes::new(String::new(), String::new()),
        }
    }

    /// Takes an attribute, by its name in lower case.
    pub(super) fn attribute(&mut self, name: &str, value: Cow<'a, str>) -> Result<(), Error> {
        match name {
            "specversion" if value == "1.0" => {}
            "specversion" => return Err(undecodable(name, format!("expected \"1.0\", got {value:?}"))),
            "id" => self.id = Some(value.into_owned()),
            "source" => self.source = Some(value.into_owned()),
            "type" => self.event_type = Some(value.into_owned()),
            // An empty value of an optional attribute says as much as none.
            _ if value.is_empty() => {}
            "partitionkey" => self.partition_key = Some(value),
            BINARY_KEY => self.binary_key = Some(value),
            // These two are a stamp, or they are extensions: that is seen at the end.
            "producer" => self.producer = Some(value),
            "number" => self.number = Some(value),
            // This one may be the key once more, which may be longer than an attribute.
            "subject" => self.subject = Some(value),
            // An optional attribute in a form that no envelope holds: the event is worth more than it.
            _ if check_value(name, &value).is_err() => self.leave_out(name),
            "time" => match OffsetDateTime::parse(&value, &Rfc3339) {
                Ok(time) => self.time = Some(time),
                Err(_) => self.leave_out(name),
            },
            "datacontenttype" => self.content_type(value.into_owned()),
            "correlationid" => self.rest.correlation_id = Some(value.into_owned()),
            "causationid" => self.rest.causation_id = Some(value.into_owned()),
            "tenant" => self.rest.tenant = Some(value.into_owned()),
            "traceparent" => self.rest.traceparent = Some(value.into_owned()),
            "tracestate" => self.rest.tracestate = Some(value.into_owned()),
            "sequence" if whole::<u64>(&value).is_some() => self.rest.sequence = whole(&value),
            "eventversion" if whole::<u32>(&value).is_some() => self.rest.version = whole(&value),
            _ if extension_name(name) => {
                self.rest.extensions.insert(name.to_owned(), value.into_owned());
            }
            _ => self.left_out.push(name.to_owned()),
        }
        Ok(())
    }

    pub(super) fn content_type(&mut self, value: String) {
        self.rest.content_type = Some(value);
    }

    pub(super) fn known_content_type(&self) -> Option<&str> {
        self.rest.content_type.as_deref()
    }

    /// Takes the record's own key, where the binding has one.
    pub(super) fn record_key(&mut self, record: &WireRecord, binding: &Binding) {
        if binding.keyed {
            self.record_key = record.key.clone();
        }
    }

    /// Takes a header that is no attribute.
    pub(super) fn header(&mut self, name: &str, value: &Bytes, binding: &Binding) {
        let text = match std::str::from_utf8(value) {
            Ok(text) => text,
            Err(_) => return self.leave_out(name),
        };
        if binding.message_id.is_some_and(|header| header.eq_ignore_ascii_case(name)) {
            match text.parse() {
                Ok(stamp) => self.message_id = Some(stamp),
                Err(_) => self.leave_out(name),
            }
        } else if is_hop(name) {
            let text = Some(text.to_owned());
            match name.eq_ignore_ascii_case("traceparent") {
                true => self.hop.traceparent = text,
                false => self.hop.tracestate = text,
            }
        } else if check_header(name, text).is_err() {
            self.leave_out(name);
        } else if let Some(place) = self.place(name) {
            self.headers[place].1 = text.to_owned();
            self.leave_out(name);
        } else {
            self.headers.push((name.to_owned(), text.to_owned()));
        }
    }

    /// Returns the place of a known header. One that is not known will get the next. A record with thousands of headers
    /// costs no more for each than one with a few.
    fn place(&mut self, name: &str) -> Option<usize> {
        let next = self.headers.len();
        if next < MANY {
            return self.headers.iter().position(|(known, _)| known.eq_ignore_ascii_case(name));
        }
        if next == MANY {
            let known = self.headers.iter().enumerate();
            self.places = known.map(|(place, (name, _))| (name.to_ascii_lowercase(), place)).collect();
        }
        match self.places.entry(name.to_ascii_lowercase()) {
            Entry::Occupied(known) => Some(*known.get()),
            Entry::Vacant(unknown) => {
                unknown.insert(next);
                None
            }
        }
    }

    /// Notes the name of something that an envelope cannot hold.
    pub(super) fn leave_out(&mut self, name: &str) {
        self.left_out.push(name.to_owned());
    }

    pub(super) fn key(&self) -> Result<Option<Key>, Error> {
        key(self.record_key.as_ref(), self.binary_key.as_deref(), self.partition_key.as_deref())
    }

    /// Returns the stamp: the message id, or else the two attributes.
    pub(super) fn stamp(&self) -> Option<Stamp> {
        self.message_id.or_else(|| self.attribute_stamp())
    }

    fn attribute_stamp(&self) -> Option<Stamp> {
        Stamp::from_parts(self.producer.as_deref()?, self.number.as_deref()?)
    }

    /// Makes the envelope. Missing attributes are filled in from where the record was read.
    pub(super) fn finish(mut self, payload: Bytes, context: &DecodeContext<'_>) -> Result<Decoded, Error> {
        let key = self.key()?;
        let told = self.attribute_stamp();
        let stamp = self.message_id.or(told);
        let mut extensions = std::mem::take(&mut self.rest.extensions);
        if told.is_none() {
            // A foreign producer's extensions happen to have these names.
            for (name, value) in [("producer", self.producer.take()), ("number", self.number.take())] {
                match value {
                    Some(value) if check_value(name, &value).is_err() => self.left_out.push(name.to_owned()),
                    value => extensions.extend(value.map(|value| (name.to_owned(), value.into_owned()))),
                }
            }
        }
        let said_by_key = self.subject.as_deref() == key.as_ref().and_then(key_text);
        match self.subject.take().filter(|_| !said_by_key) {
            Some(subject) if check_value("subject", &subject).is_err() => self.left_out.push("subject".to_owned()),
            Some(subject) => drop(extensions.insert("subject".to_owned(), subject.into_owned())),
            None => {}
        }
        let topic = context.topic;
        let attributes = Attributes {
            id: self.id.unwrap_or_else(|| format!("{topic}/{}/{}", context.partition, context.position)),
            source: self.source.unwrap_or_else(|| format!("/{topic}")),
            event_type: self.event_type.unwrap_or_else(|| FOREIGN_TYPE.to_owned()),
            time: self.time.unwrap_or_else(|| context.time()),
            key,
            extensions,
            headers: self.headers,
            payload,
            ..self.rest
        };
        let envelope = EnvelopeBuilder::of(attributes)
            .build()
            .map_err(|error| Error::new(crate::ErrorKind::Undecodable, error.message().to_owned()).caused_by(error))?;
        let Hops { traceparent, tracestate } = self.hop;
        let hop = traceparent.map(|traceparent| Hop { traceparent, tracestate });
        Ok(Decoded { envelope, stamp, hop, left_out: self.left_out })
    }
}

/// Returns the key out of the three places that may hold it. The record's own goes first: it chose the partition.
pub(super) fn key(
    record_key: Option<&Bytes>,
    binary_key: Option<&str>,
    partition_key: Option<&str>,
) -> Result<Option<Key>, Error> {
    let (name, bytes) = if let Some(bytes) = record_key.filter(|bytes| !bytes.is_empty()) {
        ("key", bytes.clone())
    } else if let Some(text) = binary_key {
        let bytes = LENIENT.decode(text).map_err(|error| undecodable(BINARY_KEY, error))?;
        (BINARY_KEY, Bytes::from(bytes))
    } else if let Some(text) = partition_key {
        ("partitionkey", Bytes::copy_from_slice(text.as_bytes()))
    } else {
        return Ok(None);
    };
    if bytes.is_empty() {
        return Ok(None);
    }
    Key::from_bytes(bytes).map(Some).map_err(|error| undecodable(name, error.message()))
}

/// Whether an event is nothing without this attribute, or without its key in no line: it is never left out.
pub(super) fn is_needed(name: &str) -> bool {
    matches!(name, "specversion" | "id" | "source" | "type" | "partitionkey" | BINARY_KEY)
}

/// Reads a whole number: digits only, and in range.
fn whole<T: std::str::FromStr>(value: &str) -> Option<T> {
    value.bytes().all(|byte| byte.is_ascii_digit()).then(|| value.parse().ok())?
}

/// Whether an envelope may hold an extension of this name: 1 to 64 of `a-z 0-9` but not `data`, whatever other
/// producers reserve.
fn extension_name(name: &str) -> bool {
    let letters = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    (1..=64).contains(&name.len()) && letters && name != "data"
}
