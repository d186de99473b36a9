//! Bytes of anybody: whatever stands in a log or beside a watermark, reading it ends with a value or an error. A value can
//! be written, and is read as the same then; an error is of its own type, and names the thing; what is read is no larger
//! than what was given allows.
//!
//! `EVENTBUS_FUZZ_INPUTS` sets the number of inputs to each property; `scripts/fuzz` sets a large one.
#![allow(clippy::unwrap_used)]

use std::borrow::Cow;
use std::time::{Duration, Instant};

use bytes::Bytes;
use eventbus_core::backend::{Body, Inbound};
use eventbus_core::dead_letter::DeadLetter;
use eventbus_core::note::{Note, NoteError};
use eventbus_core::toolkit::coordinated::CommitMetadata;
use eventbus_core::toolkit::settings::{is_host, is_server, servers};
use eventbus_core::wire::{Binding, DecodeContext, Mode, WireRecord, decode, encode, peek};
use eventbus_core::{Envelope, ErrorKind, Position, Stamp, Topic};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

/// The binding as Kafka has it, and as NATS has it.
static KEYED: Binding = Binding::new("ce_").content_type("content-type").keyed(true);
static TEXTUAL: Binding = Binding::new("ce-").percent_encoded(true).message_id("Nats-Msg-Id").bare_documents(true);

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
        "([Cc]ontent-[Tt]ype|[Nn]ats-[Mm]sg-[Ii]d|traceparent|TraceState)",
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

/// An envelope without the attributes under names of the library's own that give way to those of a new record.
fn rewritten(envelope: &Envelope, stamp: Option<Stamp>) -> Envelope {
    let stamped = stamp.is_some();
    let own = [
        ("producer", stamped),
        ("number", stamped),
        ("sequence", envelope.sequence().is_some()),
        ("eventversion", envelope.version().is_some()),
    ];
    let names = own.into_iter().filter(|(_, gives_way)| *gives_way).map(|(name, _)| name);
    names.fold(envelope.clone().into_builder(), |builder, name| builder.without_extension(name)).build().unwrap()
}

proptest! {
    #![proptest_config(inputs())]

    #[test]
    fn a_foreign_record_becomes_an_envelope_or_an_error_and_an_envelope_can_be_written_again(
        record in record(), keyed in any::<bool>(), structured in any::<bool>(),
    ) {
        let binding = if keyed { &KEYED } else { &TEXTUAL };
        let topic: Topic = "orders".parse().unwrap();
        let context = DecodeContext { topic: &topic, partition: 3, position: Position::new(42), stored_at: 1_700_000_000_123 };
        let peeked = peek(&record, binding);
        let body = Body::Encoded { record: record.clone(), binding };
        let given = record.size() + record.headers.len() * 128;
        prop_assert!(Inbound::new(3, context.position, 0, body).bytes <= given);
        match decode(&record, binding, &context) {
            Ok(decoded) => {
                prop_assert_eq!((peeked.key.as_ref(), peeked.stamp), (decoded.envelope.key(), decoded.stamp));
                // What a foreign producer left out is filled in: topic, partition, position and the time.
                prop_assert!(decoded.envelope.size() <= given + 256);
                let mode = if structured { Mode::Structured } else { Mode::Binary };
                let written = encode(&decoded.envelope, decoded.stamp, binding, mode);
                let again = decode(&written, binding, &context).unwrap();
                let expected = rewritten(&decoded.envelope, decoded.stamp);
                prop_assert_eq!((&again.envelope, again.stamp), (&expected, decoded.stamp), "{:?}", written);
                prop_assert!(again.left_out.is_empty(), "{:?}", again.left_out);
            }
            Err(error) => {
                prop_assert_eq!(error.kind(), ErrorKind::Undecodable);
                for named in ["topic", "partition", "position"] {
                    prop_assert!(error.context().any(|(name, _)| name == named), "{}", error);
                }
            }
        }
    }

    #[test]
    fn a_foreign_dead_letter_is_read_or_refused(
        attributes in vec(("eventbus(topic|group|partition|position|attempts|error|reference|replayto)", "([0-9]{1,21}|-1|[a-z.]{1,9}|\\PC{1,5})"), 0..9),
    ) {
        let headers = attributes.iter().map(|(name, value)| (format!("ce_{name}").into(), value.clone().into())).collect();
        let record = WireRecord { key: None, headers, payload: Bytes::new() };
        let topic: Topic = "orders".parse().unwrap();
        let context = DecodeContext { topic: &topic, partition: 3, position: Position::new(42), stored_at: 0 };
        let Ok(decoded) = decode(&record, &KEYED, &context) else { return Ok(()) };
        let of = |name: &str| decoded.envelope.extension(name).map(str::to_owned);
        match DeadLetter::read(&decoded.envelope) {
            Ok(letter) => {
                prop_assert_eq!(of("eventbustopic"), Some(letter.topic.to_string()));
                prop_assert_eq!(of("eventbusposition").unwrap().parse(), Ok(letter.position.get()));
                prop_assert_eq!(letter.to_replay().is_err(), letter.is_reference);
            }
            Err(error) => {
                prop_assert_eq!(error.kind(), ErrorKind::Undecodable);
                prop_assert!(error.to_string().contains("attribute eventbus"), "{}", error);
            }
        }
    }

    #[test]
    fn a_foreign_note_is_read_or_refused(
        fields in vec(any::<u8>(), 0..120), version in any::<bool>(), flips in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        position in any::<u64>(),
    ) {
        let first: &[u8] = if version { &[1] } else { &[] };
        let foreign = [first, &fields].concat();
        match Note::decode(&foreign) {
            // A byte holds four runs at the most.
            Ok(note) => prop_assert!(note.finished.runs().len() <= 4 * foreign.len()),
            Err(NoteError::Empty) => prop_assert!(foreign.is_empty()),
            Err(error @ (NoteError::Older { found, .. } | NoteError::Newer { found, .. })) => {
                prop_assert_eq!(found, foreign[0]);
                prop_assert!(error.to_string().contains(&format!("version {found},")), "{}", error);
            }
            Err(_) => prop_assert_eq!(foreign[0], 1),
        }
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
    fn a_foreign_line_beside_an_offset_is_read_or_refused(
        line in prop_oneof!["\\PC{0,60}", "eb1(;[0-9]{0,21}){0,2};[a-z0-9]{0,5};(-?[0-9]{0,20}:){0,2}[0-9a-f]{0,17};[A-Za-z0-9+/]{0,120}={0,2};[A-Za-z0-9+/=]{0,24}(;[0-9]{0,12})?"],
    ) {
        if let Some(read) = CommitMetadata::decode(&line) {
            prop_assert!(line.starts_with("eb1;"));
            prop_assert!(read.fingerprint.is_none_or(|print| print.offset >= 0), "a broker would be asked for it");
            let next = read.fingerprint.map_or(Position::ZERO, |print| Position::new(print.offset.unsigned_abs()));
            prop_assert_eq!(read.committed(next).epoch, read.epoch);
            prop_assert_eq!(read.by_nobody(next).fingerprint, None);
            let again = CommitMetadata::decode(&read.encode()).unwrap();
            // A long name loses its end.
            prop_assert!(read.owner.starts_with(&again.owner));
            prop_assert_eq!(&CommitMetadata { owner: read.owner.clone(), ..again.clone() }, &read);
            prop_assert_eq!(CommitMetadata::decode(&again.encode()), Some(again));
        }
    }

    #[test]
    fn a_foreign_name_stamp_or_server_is_read_or_refused(text in prop_oneof!["\\PC{0,40}", "[0-9a-f]{0,33}[.:-][0-9]{0,21}", "([a-z]{1,5}://)?([a-z:]{0,5}@)?[a-z0-9.\\[\\]:,-]{0,20}"]) {
        if let Ok(stamp) = text.parse::<Stamp>() {
            prop_assert_eq!(stamp.to_string().parse::<Stamp>(), Ok(stamp));
        }
        match text.parse::<Topic>() {
            Ok(topic) => prop_assert_eq!(topic.as_str(), &text),
            Err(error) => prop_assert_eq!(error.kind(), ErrorKind::InvalidName),
        }
        for server in servers(&text, "x").0 {
            let host = server.split_once("://").map_or("", |(_, host)| host);
            prop_assert!(!host.contains('@'), "{}", server);
            prop_assert_eq!(is_server(&server, &["x"]), server.starts_with("x://") && is_host(host));
        }
    }
}

/// Records that are large in one way each, a million bytes or about.
fn large_records() -> Vec<WireRecord> {
    const SIZE: usize = 1 << 20;
    let fill = |text: &str| text.repeat(SIZE / text.len());
    let numbered = |count: usize, one: &dyn Fn(usize) -> String| (0..count).map(one).collect::<Vec<_>>();
    let headers = |headers: Vec<(String, String)>| WireRecord {
        headers: headers.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
        ..WireRecord::default()
    };
    let named = |name: &str| {
        headers(
            numbered(50_000, &|n| name.replace('#', &n.to_string()))
                .into_iter()
                .map(|name| (name, "1".into()))
                .collect(),
        )
    };
    let document = |payload: String| {
        let content_type = ("content-type".into(), "application/cloudevents+json".into());
        WireRecord { headers: vec![content_type], payload: payload.into(), key: None }
    };
    let mut records: Vec<WireRecord> =
        ["a", "a#", "ce_x#", "ce-x#", "ce_x", "CE-x", "ce_partitionkey", "Nats-Msg-Id", "traceparent", "content-type"]
            .map(named)
            .into();
    for value in [fill("%41"), fill("%"), format!("\"{}\"", fill("\\a")), fill("ü"), fill(" ")] {
        records.extend(
            ["ce-x", "ce-partitionkey", "ce-eventbuskeybase64", "content-type", "a"]
                .map(|name| headers(vec![(name.into(), value.clone())])),
        );
    }
    for payload in [
        fill("["),
        fill("{\"a\":"),
        format!("{{{}\"a\":1}}", fill("\"a\":1,")),
        format!("{{{}\"a\":1}}", numbered(80_000, &|n| format!("\"x{n}\":1,")).concat()),
        format!("{{\"data\":[{}1]}}", fill("[[1]],")),
        format!("{{\"data\":\"{}\",\"datacontenttype\":\"text/plain\"}}", fill("\\n")),
        format!("{{\"data_base64\":\"{}\"}}", fill("A")),
        format!("{{\"id\":{}}}", fill("1")),
        fill(" "),
    ] {
        records.push(document(payload.clone()));
        records.push(WireRecord { payload: payload.into(), ..WireRecord::default() });
    }
    records
}

/// The square of the size of any of these would take minutes.
#[test]
fn large_foreign_bytes_cost_no_more_than_their_size() {
    let begun = Instant::now();
    let topic: Topic = "orders".parse().unwrap();
    let context = DecodeContext { topic: &topic, partition: 3, position: Position::new(42), stored_at: 0 };
    for record in large_records() {
        for binding in [&KEYED, &TEXTUAL] {
            let _ = peek(&record, binding);
            if let Ok(decoded) = decode(&record, binding, &context) {
                let again = encode(&decoded.envelope, decoded.stamp, binding, Mode::Structured);
                assert_eq!(decode(&again, binding, &context).unwrap().envelope, decoded.envelope);
            }
        }
    }
    let note = Note { watermark: Position::new(7), ..Note::default() }.encode(4_096).unwrap();
    for byte in [0, 1, 0x55, 0x7f, 0x80, 0xff] {
        Note::decode(&vec![byte; 1 << 20]).ok();
        for begin in 0..note.len() {
            Note::decode(&[&note[..begin], &vec![byte; 1 << 16]].concat()).ok();
        }
    }
    for text in [";", "a", "1:", "é", "a,", "@", "[", "eb1;1;;;", "x://a@"] {
        let text = text.repeat((1 << 20) / text.len());
        for line in [text.clone(), format!("eb1;1;{text};;;"), format!("eb1;1;;;{text};"), format!("eb1;1;;;;{text}")] {
            CommitMetadata::decode(&line).map(|read| read.encode());
        }
        text.parse::<Topic>().unwrap_err();
        assert!(servers(&text, "x").0.iter().filter(|server| is_server(server, &["x"])).count() <= text.len());
    }
    assert!(begun.elapsed() < Duration::from_secs(120), "{:?}", begun.elapsed());
}
