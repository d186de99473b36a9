//! Bytes of anybody: whatever stands in a log or beside a watermark, reading it ends with a value or an error.
//!
//! `EVENTBUS_FUZZ_INPUTS` sets the number of inputs to each property; `scripts/fuzz` sets a large one.
#![allow(clippy::unwrap_used)]

use std::borrow::Cow;

use bytes::Bytes;
use eventbus_core::dead_letter::DeadLetter;
use eventbus_core::note::Note;
use eventbus_core::toolkit::coordinated::CommitMetadata;
use eventbus_core::toolkit::settings::{is_host, is_server, servers};
use eventbus_core::wire::{Binding, DecodeContext, Mode, WireRecord, decode, encode, peek};
use eventbus_core::{Position, Stamp, Topic};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

static KEYED: Binding = Binding::new("ce_").content_type("content-type").keyed(true);
static TEXTUAL: Binding = Binding::new("ce-").percent_encoded(true).message_id("Msg-Id");

fn inputs() -> ProptestConfig {
    let cases = std::env::var("EVENTBUS_FUZZ_INPUTS").ok().and_then(|inputs| inputs.parse().ok()).unwrap_or(1_000);
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 10_000, ..ProptestConfig::default() }
}

/// Text like an attribute's value, from plausible to absurd.
fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 0..24),
        "[ -~]{0,24}".prop_map(String::into_bytes),
        "\\PC{0,8}".prop_map(String::into_bytes),
        "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(Z|[+-][0-9]{2}:[0-9]{2})?".prop_map(String::into_bytes),
        "[0-9a-f]{0,33}[.-]?[0-9]{0,21}".prop_map(String::into_bytes),
        "\"?(%[0-9a-fA-F]{2}|\\\\.|[a-z]){0,8}\"?".prop_map(String::into_bytes),
        Just(b"application/cloudevents+json".to_vec()),
        Just(vec![b'x'; 9_000]),
    ]
}

fn headers() -> impl Strategy<Value = Vec<(Cow<'static, str>, Bytes)>> {
    let attribute = "(specversion|id|source|type|time|subject|partitionkey|eventbuskeybase64|sequence|eventversion|producer|number|datacontenttype|dataschema|tenant|traceparent|eventbus[a-z]{0,9}|[a-z_]{0,5})";
    let prefixed = format!("(ce_|ce-|CE_|Ce-){attribute}");
    let name = prop_oneof![
        proptest::string::string_regex(&prefixed).unwrap(),
        "([Cc]ontent-[Tt]ype|[Mm]sg-[Ii]d|traceparent|TraceState)",
        "\\PC{0,6}",
    ];
    vec((name, value()), 0..8)
        .prop_map(|headers| headers.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
}

/// A document like a structured event's, with members in any form.
fn document() -> impl Strategy<Value = Vec<u8>> {
    let json = prop_oneof![
        Just("null".to_owned()),
        "-?[0-9]{1,30}([.][0-9]{1,4})?([eE][0-9]{1,4})?",
        "\"([a-zA-Z0-9=/ +-]|\\\\[u\"n0]){0,12}\"",
        "(true|\\[\\]|\\{\\}|\\{\"a\":\\[1\\]\\}|\\[{1,200})",
        "\"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{0,8}Z?\"",
    ];
    let name = "(specversion|id|source|type|time|data|data_base64|partitionkey|eventbuskeybase64|producer|number|datacontenttype|[a-z]{0,3})";
    let members = vec((name, json), 0..8).prop_map(|members| {
        let members: Vec<String> = members.into_iter().map(|(name, json)| format!("\"{name}\":{json}")).collect();
        format!("{{{}}}", members.join(","))
    });
    let mark = prop_oneof![Just(""), Just("\u{feff}"), Just(" ")];
    prop_oneof![
        3 => (mark, members).prop_map(|(mark, members)| format!("{mark}{members}").into_bytes()),
        1 => vec(any::<u8>(), 0..80),
    ]
}

fn record() -> impl Strategy<Value = WireRecord> {
    (of(vec(any::<u8>(), 0..8)), headers(), any::<bool>(), document()).prop_map(
        |(key, mut headers, structured, payload)| {
            if structured {
                headers.push(("content-type".into(), Bytes::from_static(b"application/cloudevents+json")));
            }
            WireRecord { key: key.map(Bytes::from), headers, payload: payload.into() }
        },
    )
}

proptest! {
    #![proptest_config(inputs())]

    #[test]
    fn a_record_becomes_an_envelope_or_an_error_and_an_envelope_can_be_written_again(
        record in record(), keyed in any::<bool>(), structured in any::<bool>(),
    ) {
        let binding = if keyed { &KEYED } else { &TEXTUAL };
        let topic: Topic = "orders".parse().unwrap();
        let context = DecodeContext { topic: &topic, partition: 3, position: Position::new(42), stored_at: 1_700_000_000_123 };
        let peeked = peek(&record, binding);
        if let Ok(decoded) = decode(&record, binding, &context) {
            prop_assert_eq!((peeked.key.as_ref(), peeked.stamp), (decoded.envelope.key(), decoded.stamp));
            DeadLetter::read(&decoded.envelope).ok();
            let mode = if structured { Mode::Structured } else { Mode::Binary };
            let written = encode(&decoded.envelope, decoded.stamp, binding, mode);
            let again = decode(&written, binding, &context).unwrap();
            let (again, stamp) = (again.envelope, again.stamp);
            prop_assert_eq!((again.id(), again.key(), stamp), (decoded.envelope.id(), decoded.envelope.key(), decoded.stamp));
            prop_assert_eq!((again.payload(), again.time()), (decoded.envelope.payload(), decoded.envelope.time()));
        }
    }

    #[test]
    fn a_note_is_read_or_refused(
        fields in vec(any::<u8>(), 0..120), version in any::<bool>(), flips in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        position in any::<u64>(),
    ) {
        let first: &[u8] = if version { &[1] } else { &[] };
        Note::decode(&[first, &fields].concat()).ok();
        // A note of the library's own, with some bytes changed.
        let mut bytes = Note { watermark: Position::new(position), owner: "me".into(), ..Note::default() }.encode(4_096).unwrap();
        for (place, byte) in flips {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if let Ok(note) = Note::decode(&bytes) {
            prop_assert_eq!(Note::decode(&note.encode(4_096).unwrap()).unwrap(), note);
        }
    }

    #[test]
    fn a_line_beside_an_offset_is_read_or_refused(
        line in prop_oneof!["\\PC{0,60}", "eb1(;[0-9]{0,21}){0,2};[a-z0-9]{0,5};(-?[0-9]{0,20}:){0,2}[0-9a-f]{0,17};[A-Za-z0-9+/=]{0,12};[A-Za-z0-9+/=]{0,24}"],
    ) {
        if let Some(read) = CommitMetadata::decode(&line) {
            let next = read.fingerprint.map_or(Position::ZERO, |print| Position::new(print.offset.unsigned_abs()));
            drop((read.committed(next), read.by_nobody(next), read.encode()));
        }
    }

    #[test]
    fn a_name_a_stamp_and_a_server_are_read_or_refused(text in prop_oneof!["\\PC{0,40}", "[0-9a-f]{0,33}[.:-][0-9]{0,21}", "([a-z]{1,5}://)?([a-z:]{0,5}@)?[a-z0-9.\\[\\]:,-]{0,20}"]) {
        text.parse::<Stamp>().ok();
        text.parse::<Topic>().ok();
        for server in servers(&text, "x").0 {
            let host = server.split_once("://").map_or("", |(_, host)| host);
            prop_assert!(!host.contains('@'), "{}", server);
            prop_assert_eq!(is_server(&server, &["x"]), server.starts_with("x://") && is_host(host));
        }
    }
}
