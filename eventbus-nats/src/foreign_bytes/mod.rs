//! Bytes of anybody: whatever stands in a stream or comes from a server, reading it ends with a value or an error. A
//! value can be written, and is read as the same then; an error is of its own type, and names the thing; what is read is
//! no larger than what was given allows.
//!
//! `EVENTBUS_FUZZ_INPUTS` sets the number of inputs to each property; `scripts/fuzz` sets a large one.

mod client;

use async_nats::header::HeaderMap;
use async_nats::{Message, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use eventbus_core::backend::{Body, Fate, Inbound};
use eventbus_core::toolkit::lease::{SourceEvent, StoredKey};
use eventbus_core::wire::{self, DecodeContext, Decoded, Mode};
use eventbus_core::{Envelope, Error, ErrorKind, Position, Result, Stamp, Topic, TopicSpec};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::answers::{Verdict, judge};
use crate::connection::read;
use crate::consumer::pulled;
use crate::error::Failure;
use crate::headers::Headers;
use crate::names::Names;
use crate::reader::{Got, delivered};
use crate::topics::StreamInfo;
use crate::wire::{StreamPlace, inbound};

/// The number of inputs to a property.
fn inputs() -> u32 {
    std::env::var("EVENTBUS_FUZZ_INPUTS").ok().and_then(|inputs| inputs.parse().ok()).unwrap_or(500)
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: inputs(), failure_persistence: None, max_shrink_iters: 10_000, ..ProptestConfig::default() }
}

const NAME: &str = "(ce-|Ce-|CE-)?(specversion|id|source|type|time|subject|partitionkey|eventbuskeybase64|sequence|producer|number|datacontenttype|[a-z]{0,4})|[Cc]ontent-[Tt]ype|[Nn]ats-[Mm]sg-[Ii]d|traceparent|[Ee]ventbus-headers|[a-c]";

/// The name of a header, from plausible to absurd.
fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => NAME.prop_map(String::into_bytes),
        1 => "[ -~]{0,6}".prop_map(String::into_bytes),
        1 => "\\PC{0,4}".prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 0..4),
    ]
}

/// The value of a header, with all that a reader may trim, fold or decode.
fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => "[ -~]{0,12}".prop_map(String::into_bytes),
        2 => "(1[.]0|application/cloudevents[+]json|[0-9a-f]{32}-[0-9]{1,20}|[a-c](,[a-c]){0,3}|%[0-9A-F]{2}|\"[a-z\\\\]{0,4}\")".prop_map(String::into_bytes),
        1 => "[ \t\u{85}\u{a0}\u{2028}ü]{0,4}[a-z]{0,2}[ \t\u{85}\u{a0}\u{2028}]{0,3}".prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 0..6),
    ]
}

/// A header block, from plausible to absurd.
fn block() -> impl Strategy<Value = Vec<u8>> {
    let version = prop_oneof![
        8 => Just("NATS/1.0".to_owned()),
        1 => "NATS/1[.]0[ \t]{0,2}[0-9]{0,4}[ \t]{0,2}[a-z]{0,3}",
        1 => "[A-Z]{0,4}(/1.0)?",
    ];
    let end = || prop_oneof![12 => Just("\r\n"), 1 => Just("\n"), 1 => Just("\n "), 1 => Just("\r\n\t"), 1 => Just("\r"), 1 => Just("")];
    let colon = prop_oneof![12 => Just(":"), 6 => Just(": "), 1 => Just("")];
    let line = (name(), colon, value(), end())
        .prop_map(|(name, colon, value, end)| [&name, colon.as_bytes(), &value, end.as_bytes()].concat());
    prop_oneof![
        20 => (version, end(), vec(line, 0..7), end())
            .prop_map(|(version, first, lines, last)| [version.as_bytes(), first.as_bytes(), &lines.concat(), last.as_bytes()].concat()),
        1 => vec(any::<u8>(), 1..60),
    ]
}

/// A JSON value of any kind.
fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0..5_u64).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,6}".prop_map(Value::from),
        "(limits|file|memory|t|murmur2|[0-9]{1,11}|true)".prop_map(Value::from),
        vec("(eventbus.t.p0[0-3]|eventbus.t.[*]|>)", 0..4).prop_map(Value::from),
        Just(json!({ "name": "c" })),
    ]
}

/// An object in which some of these members have a likely value, others any value, and some are missing.
fn object(members: &[(&'static str, Value)]) -> impl Strategy<Value = Value> + use<> {
    let members: Vec<_> = members
        .iter()
        .map(|(name, likely)| {
            let value = prop_oneof![1 => Just(None), 6 => Just(Some(likely.clone())), 3 => any_value().prop_map(Some)];
            let name = *name;
            value.prop_map(move |value| (name, value))
        })
        .collect();
    members.prop_map(|members| {
        members
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    })
}

/// A text with one of its bytes replaced, or cut short.
fn damaged(text: &str, (place, byte, cut): (prop::sample::Index, u8, bool)) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    let place = place.index(bytes.len());
    if cut {
        bytes.truncate(place);
    } else {
        bytes[place] = byte;
    }
    bytes
}

fn damage() -> impl Strategy<Value = (prop::sample::Index, u8, bool)> {
    (any::<prop::sample::Index>(), any::<u8>(), any::<bool>())
}

const PLACE: StreamPlace =
    StreamPlace { position: Position::new(42), delivery: 1, stored_at: 1_700_000_000_123, pending: 0 };

/// Decodes a record as a worker does.
fn decoded(record: &Inbound, topic: &Topic) -> Result<Decoded> {
    let Body::Encoded { record, binding } = &record.body else { panic!("it was decoded before its turn") };
    let context = DecodeContext { topic, partition: 3, position: PLACE.position, stored_at: PLACE.stored_at };
    wire::decode(record, binding, &context)
}

/// An envelope, stamp and key as read; nothing of one that cannot be read, whichever of its headers is found first.
fn read_of(record: &Inbound, topic: &Topic) -> impl PartialEq + std::fmt::Debug + use<> {
    let envelope = decoded(record, topic).ok().map(|decoded| (decoded.envelope, decoded.stamp, decoded.hop));
    (envelope, record.key.clone(), record.stamp, record.bytes)
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

/// A record must not change with the road that it came by, and not from one reading to the next.
#[test]
fn a_header_block_is_read_as_the_client_reads_it() {
    let topic: Topic = "t".parse().unwrap();
    // Each block that the client refuses costs a connection.
    client::compared(ProptestConfig { cases: inputs() / 10, ..config() }, &block(), |block, by_client| {
        let stored = Headers::Stored(Bytes::copy_from_slice(block));
        prop_assert_eq!(stored.refused_by_client(), by_client.is_none());
        let Some(map) = by_client else { return Ok(()) };
        let read = Headers::Read(map);
        prop_assert_eq!(read.text("Nats-Msg-Id"), stored.text("Nats-Msg-Id"));
        let [read, stored] = [read, stored].map(|headers| inbound(3, &PLACE, &headers, Bytes::from_static(b"{}")));
        prop_assert_eq!(read_of(&read, &topic), read_of(&stored, &topic));
        Ok(())
    });
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_header_block_becomes_an_envelope_or_an_error_and_an_envelope_can_be_written_again(
        block in block(), payload in vec(any::<u8>(), 0..40), structured in any::<bool>(),
    ) {
        let topic: Topic = "t".parse().unwrap();
        let headers = Headers::Stored(block.clone().into());
        let listed: usize = headers.list().iter().map(|(name, value)| name.len() + value.len() + 1).sum();
        prop_assert!(listed <= block.len());
        let read = inbound(3, &PLACE, &headers, payload.clone().into());
        let lines = headers.list().len();
        prop_assert!(read.bytes <= block.len() + payload.len() + 128 * lines, "{} of {}", read.bytes, block.len());
        match decoded(&read, &topic) {
            Ok(Decoded { envelope, stamp: Some(stamp), .. }) => {
                prop_assert_eq!((&read.key, read.stamp), (&envelope.key().cloned(), Some(stamp)));
                let mode = if structured { Mode::Structured } else { Mode::Binary };
                let (map, payload, size) = crate::wire::encode(&envelope, stamp, mode).unwrap();
                prop_assert!(size >= payload.len());
                let again = inbound(3, &PLACE, &Headers::Read(map), payload);
                let again = decoded(&again, &topic).unwrap();
                // In binary mode the stamp has a header of its own, and no attribute gives way to it.
                let expected = rewritten(&envelope, Some(stamp).filter(|_| structured));
                prop_assert_eq!((again.envelope, again.stamp), (expected, Some(stamp)));
            }
            Ok(_) => prop_assert_eq!(read.stamp, None),
            Err(error) => {
                prop_assert_eq!(error.kind(), ErrorKind::Undecodable);
                prop_assert!(error.to_string().contains("position=42"), "{}", error);
            }
        }
    }

    #[test]
    fn a_message_fetched_by_itself_is_read_or_refused(
        position in any::<u64>(), block in of(block()), payload in vec(any::<u8>(), 0..40), seconds in -9_000_000_000_i64..250_000_000_000,
        damage in damage(),
    ) {
        let time = time::OffsetDateTime::from_unix_timestamp(seconds).unwrap();
        let mut message = json!({
            "subject": "eventbus.t.p00", "seq": position, "data": STANDARD.encode(&payload),
            "time": time.format(&time::format_description::well_known::Rfc3339).unwrap(),
        });
        if let Some(block) = &block {
            message["hdrs"] = json!(STANDARD.encode(block));
        }
        let text = json!({ "message": message }).to_string();
        let got = delivered(read::<Got>(text.as_bytes()).unwrap().message).ok().unwrap();
        prop_assert_eq!((got.place.position.get(), &got.payload[..]), (position, &payload[..]));
        prop_assert_eq!(got.place.stored_at, u64::try_from(seconds * 1_000).unwrap_or_default());
        prop_assert_eq!(got.bytes(), payload.len() + block.as_ref().map_or(0, Vec::len));
        match got.headers {
            Headers::Stored(stored) => prop_assert_eq!(Some(&stored[..]), block.as_deref()),
            Headers::Read(none) => prop_assert!(none.is_empty() && block.is_none()),
        }
        let damaged = damaged(&text, damage);
        if let Err(failure) = read::<Got>(&damaged).and_then(|got| delivered(got.message)) {
            let Failure::Unanswered(why) = failure else { panic!("{failure:?}") };
            prop_assert!(why.contains("cannot be read: "), "{}", why);
        }
    }

    #[test]
    fn a_reply_subject_is_a_place_or_none(
        reply in prop_oneof!["\\PC{0,40}", "[$]JS[.]ACK([.][a-z0-9]{0,20}){0,11}", "[$]JS[.]ACK([.][a-z]{1,3}){2}([.][0-9]{1,21}){5}"],
        numbers in any::<[u64; 4]>(), domain in any::<bool>(),
    ) {
        if let Some(place) = StreamPlace::parse(&reply) {
            let (position, pending) = (place.position.to_string(), place.pending.to_string());
            prop_assert!(reply.contains(&position) && reply.contains(&pending), "{:?}", place);
        }
        let [position, delivery, nanos, pending] = numbers;
        let written = format!("$JS.ACK.{}S.C.1.{position}.{delivery}.{nanos}.{pending}", if domain { "hub.hash." } else { "" });
        let place = StreamPlace { position: Position::new(position), delivery, stored_at: nanos / 1_000_000, pending };
        prop_assert_eq!(StreamPlace::parse(&written), Some(place));
    }

    #[test]
    fn a_message_to_a_reader_is_a_record_or_says_how_the_request_stands(
        status in of(100..1_000_u16), description in of("\\PC{0,9}|Message Size Exceeds MaxBytes"), left in of("[0-9]{0,22}|\\PC{0,5}"),
        reply in of("[$]JS[.]ACK([.][a-z0-9]{1,20}){5,8}|[$]JS[.]FC[.]x|\\PC{0,9}"),
    ) {
        let place = reply.as_deref().and_then(StreamPlace::parse);
        let mut headers = HeaderMap::new();
        let pending = left.as_ref().and_then(|left| left.parse::<async_nats::header::HeaderValue>().ok());
        pending.into_iter().for_each(|value| headers.insert("Nats-Pending-Messages", value));
        let message = Message {
            subject: "s".into(), reply: reply.map(Into::into), payload: Bytes::new(), headers: Some(headers),
            status: status.map(|status| StatusCode::from_u16(status).unwrap()), description, length: 0,
        };
        let number: usize = left.and_then(|left| left.parse().ok()).unwrap_or_default();
        match pulled(message) {
            SourceEvent::Record { record, .. } => prop_assert_eq!(Some(record.place), place),
            other => {
                prop_assert_eq!(place, None);
                match other {
                    SourceEvent::Alive => prop_assert_eq!(status, Some(100)),
                    SourceEvent::Ended(left) | SourceEvent::Full(left) => prop_assert_eq!(left, number),
                    SourceEvent::Broken(why) => prop_assert!(status.is_none_or(|status| (200..300).contains(&status) || why.contains(&status.to_string()))),
                    SourceEvent::Record { .. } => unreachable!(),
                }
            }
        }
    }

    #[test]
    fn an_answer_to_a_publish_is_a_fate(
        answer in object(&[
            ("stream", json!("T")), ("seq", json!(7)), ("duplicate", json!(true)), ("domain", json!("d")),
            ("error", json!({ "code": 400, "err_code": 10_071, "description": "d" })),
        ]),
        text in "[{]\"stream\":\"T\",(\"seq\":|\"error\":[{]|\\[|\"duplicate\": true|[0-9]{1,21}|[},]|\"x\":){0,8}[}]?", status in of(100..1_000_u16), damage in damage(),
    ) {
        let answer = answer.to_string();
        for payload in [damaged(&answer, damage), answer.into_bytes(), text.into_bytes()] {
            match judge(status, &payload) {
                // Whatever says that a record is stored, says it also to one that reads the whole.
                Verdict::Known(Fate::Stored { position, duplicate }) => {
                    let read: Result<Value, _> = serde_json::from_slice(&payload);
                    if let Ok(read) = read {
                        prop_assert_eq!(&read["seq"], &json!(position.get()));
                        prop_assert_eq!(read.get("duplicate").and_then(Value::as_bool).unwrap_or_default(), duplicate);
                        prop_assert!(!read["error"].is_object(), "{}", read);
                    }
                    prop_assert!(position > Position::ZERO);
                }
                Verdict::Known(Fate::Unknown(error)) => prop_assert_eq!(error.kind(), ErrorKind::Unknown),
                Verdict::Known(_) => {}
                Verdict::Ask => prop_assert!(payload.is_empty()),
            }
        }
    }

    #[test]
    fn a_stream_is_a_topic_or_refused_by_the_setting(
        labels in object(&[
            ("eventbus-topic", json!("t")), ("eventbus-partitions", json!("4")), ("eventbus-hash", json!("murmur2")),
            ("eventbus-incarnation", json!("1")), ("eventbus-after-refusal", json!("seal-key")),
        ]),
        settings in object(&[
            ("name", json!("eventbus_T_t")), ("subjects", json!(["eventbus.t.*"])), ("retention", json!("limits")), ("storage", json!("file")),
            ("max_age", json!(0)), ("max_bytes", json!(-1)), ("max_msgs", json!(-1)), ("num_replicas", json!(1)), ("duplicate_window", json!(120_000_000_000_u64)),
            ("no_ack", json!(false)), ("mirror", Value::Null),
        ]),
        state in object(&[("messages", json!(3)), ("bytes", json!(9)), ("first_seq", json!(1)), ("last_seq", json!(7))]),
        likely in any::<bool>(), damage in damage(),
    ) {
        let mut info = json!({ "config": settings, "created": "2026-01-01T00:00:00Z", "state": state, "ts": "2026-01-01T00:00:01Z" });
        info["config"]["metadata"] = labels;
        if likely {
            info["state"] = json!({ "messages": 3, "bytes": 9, "first_seq": 1, "last_seq": u64::MAX });
        }
        let text = info.to_string();
        let topic: Topic = "t".parse().unwrap();
        for bytes in [damaged(&text, damage), text.into_bytes()] {
            let info = match read::<StreamInfo>(&bytes) {
                Ok(info) => info,
                Err(failure) => {
                    prop_assert_eq!(Error::from(failure).kind(), ErrorKind::Unavailable);
                    continue;
                }
            };
            prop_assert!(info.state.removed() <= info.state.last_seq);
            prop_assert_eq!(info.log().end.get(), info.state.last_seq.saturating_add(1));
            match info.spec(&topic) {
                Ok(spec) => {
                    prop_assert!((1..=TopicSpec::MAX_PARTITIONS).contains(&spec.partitions));
                    prop_assert_eq!(&spec.topic, "t");
                }
                Err(error) => {
                    prop_assert!(matches!(error.kind(), ErrorKind::TopicMismatch | ErrorKind::UnsafeConfig), "{}", error);
                }
            }
        }
    }

    #[test]
    fn a_subject_of_the_bucket_is_a_key_or_foreign(
        tail in prop_oneof!["\\PC{0,20}", "[a-z_]{0,6}[.][pm][.][0-9a-z_]{0,12}([.][a-z])?"], group in "[A-Za-z0-9._-]{1,20}", partition in any::<u32>(), member in "\\PC{1,12}",
    ) {
        let names = Names::new("eventbus", &"t".parse().unwrap());
        if let Some(StoredKey::Partition(partition)) = names.parse(&format!("$KV.eventbus_G_t.{tail}")) {
            prop_assert!(tail.ends_with(&partition.to_string()));
        }
        let group = group.parse().unwrap();
        prop_assert_eq!(names.parse(&names.record(&group, partition)), Some(StoredKey::Partition(partition)));
        prop_assert_eq!(names.parse(&names.member(&group, &member)), Some(StoredKey::Member));
    }
}

/// The product of two of the numbers in any of these would take minutes.
#[test]
fn large_inputs_cost_no_more_than_their_size() {
    const SIZE: usize = 1 << 20;
    let begun = std::time::Instant::now();
    let topic: Topic = "t".parse().unwrap();
    let many = |line: &str| [b"NATS/1.0\r\n", &*line.repeat(SIZE / line.len()).into_bytes(), b"\r\n\r\n"].concat();
    let one = |line: &str, fill: &str| {
        [b"NATS/1.0\r\n", line.as_bytes(), &*fill.repeat(SIZE / fill.len()).into_bytes(), b"\r\n\r\n"].concat()
    };
    for block in [
        many("a: 1\r\n"),
        many(" \r\n"),
        many("a: 1\r\n folded\r\n"),
        many("eventbus-headers: a,b,c\r\n"),
        many("ce-x: %41\r\n"),
        one("a: ", " "),
        one("a: x", "\u{a0}"),
        one("a: x", "\r\n y"),
        one("eventbus-headers: ", "a,"),
        one("ce-x: \"", "\\\""),
        one("ce-partitionkey: ", "%"),
        vec![b':'; SIZE],
    ] {
        let headers = Headers::Stored(block.into());
        headers.refused_by_client();
        let _ = decoded(&inbound(3, &PLACE, &headers, Bytes::new()), &topic);
    }
    assert_eq!(StreamPlace::parse(&format!("$JS.ACK.{}", "1.".repeat(SIZE))).map(|place| place.delivery), Some(1));
    assert!(matches!(judge(None, &vec![b'['; SIZE]), Verdict::Known(Fate::Unknown(_))));
    assert!(begun.elapsed().as_secs() < 60, "{:?}", begun.elapsed());
}
