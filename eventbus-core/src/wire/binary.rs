//! Binary mode: attributes in headers, the payload as it is.

use std::borrow::Cow;

use bytes::Bytes;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode, utf8_percent_encode};

use super::attributes::{self, BINARY_KEY, Reader, is_needed};
use super::headers::attribute_header;
use super::record::{Binding, CONTENT_TYPE, DecodeContext, Decoded, Peek, WireRecord, undecodable};
use crate::model::{Envelope, Error, Stamp, check_value};

/// The characters that are encoded in a header's value: everything outside `!` to `~`, and the two that readers by the
/// HTTP rules would take for something else.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

/// Gives the attributes to `header`, and returns the payload.
pub(super) fn write(
    envelope: &Envelope,
    stamp: Option<Stamp>,
    binding: &Binding,
    header: &mut dyn FnMut(Cow<'static, str>, &str),
) -> Bytes {
    // The broker's message id, where there is one, is the stamp's place.
    let stamp = stamp.filter(|_| binding.message_id.is_none());
    attributes::write(envelope, stamp, binding, |name, value| {
        header(attribute_header(binding.prefix, name), &written(value, binding));
    });
    if let Some(content_type) = envelope.content_type() {
        match binding.content_type {
            Some(name) => header(name.into(), content_type),
            None => {
                let name = attribute_header(binding.prefix, "datacontenttype");
                header(name, &written(content_type, binding));
            }
        }
    }
    envelope.payload().clone()
}

pub(super) fn decode(record: &WireRecord, binding: &Binding, context: &DecodeContext<'_>) -> Result<Decoded, Error> {
    let mut reader = Reader::new();
    reader.record_key(record, binding);
    let mut media = None;
    for (header, value) in &record.headers {
        if let Some(name) = attribute_name(header, binding) {
            match read(value, binding) {
                Some(text) => reader.attribute(&name, text)?,
                None if is_needed(&name) => return Err(undecodable(&name, "expected UTF-8")),
                None => reader.leave_out(header),
            }
        } else if header.eq_ignore_ascii_case(binding.content_type.unwrap_or(CONTENT_TYPE))
            || header.eq_ignore_ascii_case(CONTENT_TYPE)
        {
            match std::str::from_utf8(value) {
                Ok(text) if text.is_empty() || check_value(CONTENT_TYPE, text).is_ok() => media = Some(text.to_owned()),
                _ => reader.leave_out(header),
            }
        } else {
            reader.header(header, value, binding);
        }
    }
    // Most foreign producers write a plain content type; the attribute goes first where the binding has no other place
    // for it.
    if let Some(media) = media.filter(|media| !media.is_empty())
        && (binding.content_type.is_some() || reader.known_content_type().is_none())
    {
        reader.content_type(media);
    }
    reader.finish(record.payload.clone(), context)
}

pub(super) fn peek(record: &WireRecord, binding: &Binding) -> Peek {
    let [mut partition_key, mut binary_key, mut producer, mut number] = [const { None::<Cow<'_, str>> }; 4];
    let mut message_id = None;
    for (header, value) in &record.headers {
        // Most headers are ruled out by their lengths.
        let length = header.len().saturating_sub(binding.prefix.len());
        if let Some(name) = matches!(length, 6 | 8 | 12 | 17).then(|| attribute(header, binding)).flatten() {
            let place = match name.len() {
                12 if name.eq_ignore_ascii_case("partitionkey") => &mut partition_key,
                17 if name.eq_ignore_ascii_case(BINARY_KEY) => &mut binary_key,
                8 if name.eq_ignore_ascii_case("producer") => &mut producer,
                6 if name.eq_ignore_ascii_case("number") => &mut number,
                _ => continue,
            };
            // An empty value says as much as none.
            if let Some(text) = read(value, binding).filter(|text| !text.is_empty()) {
                *place = Some(text);
            }
        } else if binding.message_id.is_some_and(|id| id.eq_ignore_ascii_case(header)) {
            message_id = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).or(message_id);
        }
    }
    let record_key = record.key.as_ref().filter(|_| binding.keyed);
    let key = attributes::key(record_key, binary_key.as_deref(), partition_key.as_deref());
    let stamp = message_id.or_else(|| Stamp::from_parts(&producer?, &number?));
    Peek { key: key.ok().flatten(), stamp }
}

/// Returns the name of the attribute that a header carries.
fn attribute<'a>(header: &'a str, binding: &Binding) -> Option<&'a str> {
    let (prefix, name) = header.split_at_checked(binding.prefix.len())?;
    prefix.eq_ignore_ascii_case(binding.prefix).then_some(name)
}

/// Returns the same name in lower case, in which all attributes are written.
fn attribute_name<'a>(header: &'a str, binding: &Binding) -> Option<Cow<'a, str>> {
    let name = attribute(header, binding)?;
    let lower = !name.bytes().any(|byte| byte.is_ascii_uppercase());
    Some(if lower { name.into() } else { name.to_ascii_lowercase().into() })
}

pub(super) fn written<'a>(value: &'a str, binding: &Binding) -> Cow<'a, str> {
    if binding.percent_encoded { utf8_percent_encode(value, ENCODED).into() } else { value.into() }
}

/// Reads a header's value as text. By the HTTP rules a value may also be quoted, with backslashes before the characters
/// that they protect.
pub(super) fn read<'a>(value: &'a [u8], binding: &Binding) -> Option<Cow<'a, str>> {
    let plain = !matches!(value, [b'"', ..]) && !value.contains(&b'%');
    if plain || !binding.percent_encoded {
        return std::str::from_utf8(value).ok().map(Cow::Borrowed);
    }
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).ok().map(Cow::Owned);
    let quoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
    let Some(quoted) = quoted else {
        return text(percent_decode(value).collect());
    };
    let mut plain = Vec::with_capacity(quoted.len());
    let mut bytes = quoted.iter();
    while let Some(byte) = bytes.next() {
        plain.push(if *byte == b'\\' { *bytes.next().unwrap_or(byte) } else { *byte });
    }
    text(percent_decode(&plain).collect())
}
