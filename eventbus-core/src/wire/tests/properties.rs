//! Properties over arbitrary envelopes and arbitrary records.

use bytes::Bytes;
use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::*;
use time::OffsetDateTime;

use super::*;
use crate::model::ProducerId;

/// Text that an attribute can hold, with quotes, percent signs and other scripts in it.
fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[ -~]{1,20}", "[\"%\\\\ ü漢🦀]{1,8}", "\\PC{1,12}"]
        .prop_filter("no text of CloudEvents", |text| Envelope::builder("T", "/s").tenant(text.clone()).build().is_ok())
}

fn header() -> impl Strategy<Value = (String, String)> {
    ("x-[a-zA-Z0-9.!#]{1,12}", "([!-~ü]([ -~\t]{0,12}[!-~])?)?")
}

fn key() -> impl Strategy<Value = Key> {
    let controls = "[ab\r\n\t\u{0}\u{7f}]{1,6}".prop_map(String::into_bytes);
    let bytes = prop_oneof![vec(any::<u8>(), 1..40), text().prop_map(String::into_bytes), controls];
    bytes.prop_map(|bytes| Key::from_bytes(bytes).unwrap())
}

fn payload() -> impl Strategy<Value = (Option<String>, Vec<u8>)> {
    let media = prop_oneof![
        Just(None),
        Just(Some("application/json".to_owned())),
        Just(Some("text/plain; charset=utf-8".to_owned())),
        Just(Some(STRUCTURED.to_owned())),
        text().prop_map(Some),
    ];
    let json =
        prop_oneof![r#"(null|-?[1-9][0-9]{0,30}(\.[0-9]{1,3})?|"[a-z ]{0,5}"| ?\{"b": 1, "a":\[ \]\})"#, "\\PC{0,20}"];
    (media, prop_oneof![vec(any::<u8>(), 0..60), json.prop_map(String::into_bytes)])
}

fn envelope() -> impl Strategy<Value = Envelope> {
    // Years 1 to 9998, so that no offset leaves the years of four digits.
    let time = (-62_100_000_000_i64..253_300_000_000, 0..1_000_000_000_i64, -1439..1440_i32);
    let own = (text(), "[a-z/:.?#%20]{0,3}[a-z]{1,9}", text(), time, of(key()), of(any::<u32>()), of(any::<u64>()));
    let optional = (of(text()), of(text()), of(text()), of(text()), of(text()));
    let extensions = btree_map("x[a-z0-9]{0,19}", text(), 0..4);
    let headers = btree_map("[a-z]{1,8}", header(), 0..4);
    (own, optional, extensions, headers, payload()).prop_map(|(own, optional, extensions, headers, payload)| {
        let (id, source, event_type, (seconds, nanos, offset), key, version, sequence) = own;
        let offset = time::UtcOffset::from_whole_seconds(offset * 60).unwrap();
        let time = OffsetDateTime::from_unix_timestamp(seconds).unwrap() + time::Duration::nanoseconds(nanos);
        let mut attributes = crate::model::Attributes::new(event_type, source);
        attributes.id = id;
        attributes.time = time.to_offset(offset);
        (attributes.key, attributes.version, attributes.sequence) = (key, version, sequence);
        let a = &mut attributes;
        (a.correlation_id, a.causation_id, a.tenant, a.traceparent, a.tracestate) = optional;
        (a.content_type, a.payload) = (payload.0, payload.1.into());
        let mut builder = crate::model::EnvelopeBuilder::of(attributes);
        for (name, value) in extensions {
            builder = builder.extension(name, value);
        }
        for (unique, (name, value)) in headers {
            builder = builder.header(format!("{name}-{unique}"), value);
        }
        builder.build().unwrap()
    })
}

fn stamp() -> impl Strategy<Value = Option<Stamp>> {
    of((any::<u128>(), any::<u64>()).prop_map(|(producer, number)| Stamp::new(ProducerId::new(producer), number)))
}

fn binding() -> impl Strategy<Value = Binding> {
    let prefix = prop_oneof![Just("ce_"), Just("ce-")];
    let flags = (of(Just(CONTENT_TYPE)), any::<bool>(), any::<bool>(), of(Just("Nats-Msg-Id")));
    (prefix, flags, any::<bool>()).prop_map(
        |(prefix, (content_type, percent_encoded, keyed, message_id), bare_documents)| Binding {
            prefix,
            content_type,
            percent_encoded,
            keyed,
            message_id,
            bare_documents,
        },
    )
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![Just(Mode::Binary), Just(Mode::Structured)]
}

/// Records from plausible to absurd.
fn any_record() -> impl Strategy<Value = WireRecord> {
    let name = prop_oneof![
        "(ce_|ce-|CE_)(id|source|type|time|specversion|partitionkey|eventbuskeybase64|sequence|producer|number|data|[a-z_]{0,5})",
        Just(CONTENT_TYPE.to_owned()),
        Just("Msg-Id".to_owned()),
        "\\PC{0,6}",
    ];
    let value = prop_oneof![
        vec(any::<u8>(), 0..20),
        Just(STRUCTURED.as_bytes().to_vec()),
        "\"?[a-z0-9%\\\\]{0,12}\"?".prop_map(String::into_bytes),
    ];
    let document = prop_oneof![
        vec(any::<u8>(), 0..60),
        r#"\{("(id|data|data_base64|time|source|partitionkey|eventbuskeybase64|producer|x)":("[a-z0-9=\\u]{0,6}"|[0-9]{1,4}|null|true|\[\]|\{\}),?){0,5}\}?"#
            .prop_map(String::into_bytes),
    ];
    (of(vec(any::<u8>(), 0..8)), vec((name, value), 0..6), document).prop_map(|(key, headers, payload)| WireRecord {
        key: key.map(Bytes::from),
        headers: headers.into_iter().map(|(name, value)| (name.into(), Bytes::from(value))).collect(),
        payload: payload.into(),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn decoding_what_was_encoded_changes_nothing(
        envelope in envelope(), stamp in stamp(), binding in binding(), mode in mode(),
    ) {
        let record = encode(&envelope, stamp, &binding, mode);
        let decoded = decode_at_42(&record, &binding).unwrap();
        prop_assert_eq!(&decoded.envelope, &envelope);
        prop_assert_eq!(decoded.envelope.time().offset(), envelope.time().offset());
        prop_assert_eq!(decoded.stamp, stamp);
        prop_assert_eq!(decoded.left_out, Vec::<String>::new());
        prop_assert_eq!(peek(&record, &binding), Peek { key: envelope.key().cloned(), stamp });
    }

    #[test]
    fn headers_never_carry_a_line_break(
        envelope in envelope(), stamp in stamp(), binding in binding(), mode in mode(),
    ) {
        for (name, value) in encode(&envelope, stamp, &binding, mode).headers {
            prop_assert!(!name.contains(['\r', '\n', '\0']));
            prop_assert!(!value.iter().any(|byte| b"\r\n\0".contains(byte)), "{}: {:?}", name, value);
            // The white space that clients trim from values has been encoded or refused.
            let text = std::str::from_utf8(&value).unwrap();
            prop_assert!(!binding.percent_encoded || text.trim() == text || name == CONTENT_TYPE, "{}: {:?}", name, text);
        }
    }

    #[test]
    fn no_record_makes_decoding_panic_and_what_is_read_can_be_written(
        record in any_record(), binding in binding(), mode in mode(),
    ) {
        let peeked = peek(&record, &binding);
        if let Ok(decoded) = decode_at_42(&record, &binding) {
            prop_assert_eq!(&peeked, &Peek { key: decoded.envelope.key().cloned(), stamp: decoded.stamp });
            let again = decode_at_42(&encode(&decoded.envelope, decoded.stamp, &binding, mode), &binding).unwrap();
            prop_assert_eq!(again.envelope.key(), decoded.envelope.key());
            prop_assert_eq!(again.envelope.payload(), decoded.envelope.payload());
            prop_assert_eq!(again.envelope.id(), decoded.envelope.id());
            prop_assert_eq!(again.stamp, decoded.stamp);
        }
    }
}
