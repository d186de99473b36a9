//! Structured mode: one JSON document with the payload inside.
//!
//! A JSON payload is embedded byte for byte, and read as the same bytes without a copy. It is never parsed into a tree
//! and written again, which would change numbers, white space and the order of members.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::Value;
use serde_json::value::RawValue;

use super::attributes::{self, BINARY_KEY, LENIENT, Reader, is_needed};
use super::binary;
use super::headers::attribute_header;
use super::record::{
    Binding, CONTENT_TYPE, DecodeContext, Decoded, Peek, STRUCTURED, WireRecord, media_type, undecodable,
};
use crate::model::{Envelope, Error, Stamp};

type Members<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

/// Gives the headers beside the document to `header`, and returns the document.
pub(super) fn write(
    envelope: &Envelope,
    stamp: Option<Stamp>,
    binding: &Binding,
    header: &mut dyn FnMut(Cow<'static, str>, &str),
) -> Bytes {
    let mut document = String::with_capacity(512 + envelope.payload().len());
    let mut member = |name: &str, value: &str| {
        document.push(if document.is_empty() { '{' } else { ',' });
        push_text(&mut document, name);
        document.push(':');
        push_text(&mut document, value);
    };
    attributes::write(envelope, stamp, binding, &mut member);
    if let Some(content_type) = envelope.content_type() {
        member("datacontenttype", content_type);
    }
    push_data(&mut document, envelope);
    document.push('}');
    header(CONTENT_TYPE.into(), STRUCTURED);
    if let Some(key) = envelope.key().and_then(|key| std::str::from_utf8(key.as_bytes()).ok())
        && repeats_key(binding)
    {
        // The header shows the key without the document, also where the document cannot be read (S2).
        header(key_header(binding), &binary::written(key, binding));
    }
    document.into()
}

/// Whether a header repeats the key: where the record has none of its own, messages have an id beside the document, and
/// a header can carry any text.
fn repeats_key(binding: &Binding) -> bool {
    !binding.keyed && binding.percent_encoded && binding.message_id.is_some()
}

fn key_header(binding: &Binding) -> Cow<'static, str> {
    attribute_header(binding.prefix, "partitionkey")
}

fn repeated_key(record: &WireRecord, binding: &Binding) -> Option<String> {
    repeats_key(binding)
        .then(|| record.header(&key_header(binding)))
        .flatten()
        .and_then(|key| binary::read(key, binding).map(Cow::into_owned))
}

fn push_text(document: &mut String, text: &str) {
    // Writing into a string cannot fail.
    write!(document, "{}", Value::from(text)).ok();
}

fn push_data(document: &mut String, envelope: &Envelope) {
    let payload = envelope.payload();
    if payload.is_empty() {
        return;
    }
    let media = envelope.content_type().map(lower);
    let text = std::str::from_utf8(payload).ok();
    match text {
        Some(text) if is_json(media.as_deref()) && is_one_value(text) => {
            document.push_str(",\"data\":");
            document.push_str(text);
        }
        Some(text) if !is_json(media.as_deref()) && media.is_some_and(|media| media.starts_with("text/")) => {
            document.push_str(",\"data\":");
            push_text(document, text);
        }
        _ => {
            document.push_str(",\"data_base64\":\"");
            STANDARD.encode_string(payload, document);
            document.push('"');
        }
    }
}

/// Returns a media type as it is compared.
fn lower(value: &str) -> String {
    media_type(value).to_ascii_lowercase()
}

/// Whether the payload is JSON; without a media type it is, by the rules of the format.
fn is_json(media: Option<&str>) -> bool {
    media.is_none_or(|media| media.ends_with("/json") || media.ends_with("+json"))
}

/// Whether a text is one JSON value from end to end: white space around it would be lost inside a document.
fn is_one_value(text: &str) -> bool {
    serde_json::from_str::<&RawValue>(text).is_ok_and(|value| value.get().len() == text.len())
}

pub(super) fn decode(record: &WireRecord, binding: &Binding, context: &DecodeContext<'_>) -> Result<Decoded, Error> {
    let mut reader = Reader::new();
    reader.record_key(record, binding);
    let payload = read_document(&record.payload, &mut reader)?;
    let repeated = repeated_key(record, binding);
    if let Some(repeated) = &repeated {
        let key = reader.key().ok().flatten();
        if key.as_ref().map(crate::model::Key::as_bytes) != Some(repeated.as_bytes()) {
            return Err(undecodable("partitionkey", "expected the same key in the header and in the document"));
        }
    }
    for (header, value) in &record.headers {
        let known = repeated.is_some() && header.eq_ignore_ascii_case(&key_header(binding));
        if known || header.eq_ignore_ascii_case(CONTENT_TYPE) {
            continue;
        }
        // Attributes beside the document are not the event's, since the document is complete.
        match header.get(..binding.prefix.len()) {
            Some(prefix) if prefix.eq_ignore_ascii_case(binding.prefix) => reader.leave_out(header),
            _ => reader.header(header, value, binding),
        }
    }
    reader.finish(payload, context)
}

/// Returns a document's members. A byte order mark before the document is passed over.
fn members(document: &[u8]) -> Result<Members<'_>, serde_json::Error> {
    serde_json::from_slice(document.strip_prefix("\u{feff}".as_bytes()).unwrap_or(document))
}

fn read_document(document: &Bytes, reader: &mut Reader<'_>) -> Result<Bytes, Error> {
    let members = members(document)
        .map_err(|error| undecodable("document", format!("expected a JSON object: {error}")).caused_by(error))?;
    for (name, value) in &members {
        if matches!(&**name, "data" | "data_base64") {
            continue;
        }
        match text(name, value) {
            Ok(Some(value)) => reader.attribute(name, value.into())?,
            Ok(None) => {}
            Err(error) if is_needed(name) => return Err(error),
            Err(_) => reader.leave_out(name),
        }
    }
    let encoded = members.get("data_base64").copied().filter(|raw| raw.get() != "null");
    // Some producers write both members, and null for the one that they do not use.
    let data = members.get("data").copied().filter(|raw| encoded.is_none() || raw.get() != "null");
    match (data, encoded) {
        (Some(_), Some(_)) => Err(undecodable("data", "expected one of data and data_base64, got both")),
        (Some(data), None) => read_data(document, data, reader),
        (None, Some(encoded)) => {
            let text: String = serde_json::from_str(encoded.get())
                .map_err(|error| undecodable("data_base64", format!("expected a string: {error}")))?;
            let bytes = LENIENT.decode(text).map_err(|error| undecodable("data_base64", error))?;
            Ok(bytes.into())
        }
        (None, None) => Ok(Bytes::new()),
    }
}

/// Reads `data`: for JSON the value itself; for anything else a string stands for its text.
fn read_data(document: &Bytes, data: &RawValue, reader: &Reader<'_>) -> Result<Bytes, Error> {
    let media = reader.known_content_type().map(lower);
    if is_json(media.as_deref()) || !data.get().starts_with('"') {
        return Ok(document.slice_ref(data.get().as_bytes()));
    }
    let text: String = serde_json::from_str(data.get()).map_err(|error| undecodable("data", error))?;
    Ok(text.into())
}

/// Whether a record without a content type can be nothing but a structured event: no header is an attribute, and the
/// payload is a document with all that an event must have.
pub(super) fn is_bare(record: &WireRecord, binding: &Binding) -> bool {
    let attribute = |(name, _): &(Cow<'static, str>, Bytes)| {
        name.get(..binding.prefix.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(binding.prefix))
    };
    if !record.payload.trim_ascii_start().starts_with(b"{") || record.headers.iter().any(attribute) {
        return false;
    }
    let Ok(members) = serde_json::from_slice::<Members<'_>>(&record.payload) else { return false };
    let text = |name: &str| serde_json::from_str::<Cow<'_, str>>(members.get(name)?.get()).ok();
    let given = |name: &str| text(name).is_some_and(|value| !value.is_empty());
    text("specversion").is_some_and(|version| version == "1.0") && ["id", "source", "type"].into_iter().all(given)
}

/// Returns an attribute's value as text; `null` says that there is none.
fn text(name: &str, raw: &RawValue) -> Result<Option<String>, Error> {
    match serde_json::from_str(raw.get()).map_err(|error| undecodable(name, error))? {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text)),
        Value::Bool(_) | Value::Number(_) => Ok(Some(raw.get().to_owned())),
        Value::Array(_) | Value::Object(_) => Err(undecodable(name, "expected a string, a number or a boolean")),
    }
}

pub(super) fn peek(record: &WireRecord, binding: &Binding) -> Peek {
    let mut reader = Reader::new();
    reader.record_key(record, binding);
    let id = binding.message_id.and_then(|id| record.headers.iter().rev().find(|(n, _)| n.eq_ignore_ascii_case(id)));
    if let Some((header, value)) = id {
        reader.header(header, value, binding);
    }
    // Key and stamp beside the document spare reading it, and are found even where it cannot be read.
    if let Some(key) = repeated_key(record, binding) {
        reader.attribute("partitionkey", key.into()).ok();
        if let Some(stamp) = reader.stamp() {
            return Peek { key: reader.key().ok().flatten(), stamp: Some(stamp) };
        }
    }
    if let Ok(members) = members(&record.payload) {
        for name in ["partitionkey", BINARY_KEY, "producer", "number"] {
            let value = members.get(name).and_then(|value| text(name, value).ok().flatten());
            if let Some(value) = value {
                // No value is refused for these names.
                reader.attribute(name, value.into()).ok();
            }
        }
    }
    Peek { key: reader.key().ok().flatten(), stamp: reader.stamp() }
}
