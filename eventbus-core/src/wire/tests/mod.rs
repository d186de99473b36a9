//! Fixed bytes in both directions, and properties over arbitrary envelopes and arbitrary records.

use super::*;
use crate::model::{Position, Topic};

mod properties;
mod vectors;

/// A binding like that of a broker whose records have keys.
static KEYED: Binding = Binding::new("ce_").content_type(CONTENT_TYPE).keyed(true);
/// A binding like that of a broker with message ids and textual headers.
static TEXTUAL: Binding = Binding::new("ce-").percent_encoded(true).message_id("Msg-Id");

fn decode_at_42(record: &WireRecord, binding: &Binding) -> Result<Decoded, Error> {
    let topic: Topic = "orders".parse()?;
    let context =
        DecodeContext { topic: &topic, partition: 3, position: Position::new(42), stored_at: 1_700_000_000_123 };
    decode(record, binding, &context)
}

fn record(headers: &[(&str, &str)], payload: &str) -> WireRecord {
    let mut record = WireRecord { payload: payload.to_owned().into(), ..WireRecord::default() };
    for (name, value) in headers {
        record.push(header_name(name), value);
    }
    record
}
