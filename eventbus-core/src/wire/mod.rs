//! The envelope on the wire: CloudEvents 1.0, with a [`Binding`] for every broker.
//!
//! Writing is strict; reading is lenient. Both content modes are read, whichever is written. A foreign producer's
//! record that is no CloudEvent becomes an envelope, too: missing attributes are filled in from where the record was
//! read ([`DecodeContext`]), so that reading it again gives the same envelope.
//!
//! The invariants that other rules rest on:
//! - decoding what was encoded gives an equal envelope and the same stamp, payload and key byte for byte (O6);
//! - the stamp is written as it is given, and is the broker's message id where the broker has one (P3);
//! - a record's own key goes before every other statement of the key, since it chose the partition (S1);
//! - the trace in which an event was made is an attribute, and never overwritten; the trace of one hop is a plain
//!   header.
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
//! A `sequence`, `eventversion`, `producer` or `number` whose value has another form (a `sequence` of `abc`) stays
//! readable as an extension.

use std::borrow::Cow;

use bytes::BytesMut;

use crate::model::{Envelope, Error, Key, Stamp};

mod attributes;
mod binary;
mod headers;
mod record;
mod structured;
#[cfg(test)]
mod tests;

pub use headers::{copied, header_name};
pub use record::{Binding, DecodeContext, Decoded, FOREIGN_TYPE, Hop, Mode, Peek, WireRecord};
use record::{CONTENT_TYPE, STRUCTURED, is_cloudevents, media_type, undecodable};

/// Writes an envelope as a record. This cannot fail: an [`Envelope`] exists only with attributes that the wire can
/// carry.
///
/// An envelope whose own content type is that of CloudEvents is written in structured mode, whatever `mode` says: in
/// binary mode every reader would take its payload for the event.
#[must_use]
pub fn encode(envelope: &Envelope, stamp: Option<Stamp>, binding: &Binding, mode: Mode) -> WireRecord {
    let mut headers = Vec::with_capacity(16);
    // All values share one piece of memory.
    let mut values = BytesMut::with_capacity(384);
    let record = write(envelope, stamp, binding, mode, &mut |name, value| {
        values.extend_from_slice(value.as_bytes());
        headers.push((name, values.split().freeze()));
    });
    WireRecord { headers, ..record }
}

/// Writes an envelope as [`encode`] does, but gives each header to `header`, in their order: for clients that keep
/// headers in a form of their own. Returns the record without its headers.
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
    let read = match mode_of(record, binding) {
        Ok(Mode::Binary) => binary::decode(record, binding, context),
        Ok(Mode::Structured) => structured::decode(record, binding, context),
        Err(error) => Err(error),
    };
    read.map_err(|error| {
        error.with("topic", context.topic).with("partition", context.partition).with("position", context.position)
    })
}

/// Reads only the key and the stamp, the same that [`decode`] finds. Never fails: of a record that cannot be decoded it
/// returns what can be found, the key of the record itself above all (S2).
#[must_use]
pub fn peek(record: &WireRecord, binding: &Binding) -> Peek {
    match mode_of(record, binding) {
        Ok(Mode::Structured) => structured::peek(record, binding),
        _ => binary::peek(record, binding),
    }
}

fn mode_of(record: &WireRecord, binding: &Binding) -> Result<Mode, Error> {
    let Some(value) = record.header(CONTENT_TYPE) else {
        let bare = binding.bare_documents && structured::is_bare(record, binding);
        return Ok(if bare { Mode::Structured } else { Mode::Binary });
    };
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
