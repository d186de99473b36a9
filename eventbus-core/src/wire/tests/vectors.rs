//! Fixed bytes in both directions: what other languages read and write.

use bytes::Bytes;
use time::macros::datetime;

use super::*;
use crate::model::{ErrorKind, Position, ProducerId};

const STAMP: Stamp = Stamp::new(ProducerId::new(0xfeed), 7);

fn placed() -> Envelope {
    Envelope::builder("OrderPlaced", "/shop")
        .id("e-1")
        .key("order-42")
        .time(datetime!(2024-02-29 12:00:00.5 UTC))
        .version(2)
        .sequence(9)
        .correlation_id("c 1%\"ü")
        .tenant("acme")
        .traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .extension("region", "eu")
        .header("X-Note", "plain")
        .payload(r#"{"total": 12}"#)
        .content_type("application/json")
        .build()
        .unwrap()
}

fn lines(record: &WireRecord) -> Vec<String> {
    let line = |(name, value): &(Cow<'_, str>, Bytes)| format!("{name}: {}", String::from_utf8_lossy(value));
    record.headers.iter().map(line).collect()
}

#[test]
fn binary_with_keys_is_these_bytes() {
    let record = encode(&placed(), Some(STAMP), &KEYED, Mode::Binary);
    let expected = [
        "ce_specversion: 1.0",
        "ce_id: e-1",
        "ce_source: /shop",
        "ce_type: OrderPlaced",
        "ce_time: 2024-02-29T12:00:00.5Z",
        "ce_subject: order-42",
        "ce_partitionkey: order-42",
        "ce_sequence: 00000000000000000009",
        "ce_eventversion: 2",
        "ce_correlationid: c 1%\"ü",
        "ce_tenant: acme",
        "ce_traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "ce_producer: 0000000000000000000000000000feed",
        "ce_number: 7",
        "ce_region: eu",
        "content-type: application/json",
        "X-Note: plain",
    ];
    assert_eq!(lines(&record), expected);
    assert_eq!(record.key.as_deref(), Some(&b"order-42"[..]));
    assert_eq!(&record.payload[..], br#"{"total": 12}"#);
    let decoded = decode_at_42(&record, &KEYED).unwrap();
    assert_eq!((decoded.envelope, decoded.stamp), (placed(), Some(STAMP)));
}

#[test]
fn binary_with_message_ids_is_these_bytes() {
    let record = encode(&placed(), Some(STAMP), &TEXTUAL, Mode::Binary);
    let lines = lines(&record);
    for expected in [
        "ce-correlationid: c%201%25%22%C3%BC",
        "ce-datacontenttype: application/json",
        "ce-partitionkey: order-42",
        "Msg-Id: 0000000000000000000000000000feed-7",
        "X-Note: plain",
    ] {
        assert!(lines.iter().any(|line| line == expected), "{expected} in {lines:#?}");
    }
    assert!(
        !lines.iter().any(|line| line.starts_with("ce-producer") || line.starts_with("content-type")),
        "{lines:#?}"
    );
    assert_eq!(record.key, None);
    let decoded = decode_at_42(&record, &TEXTUAL).unwrap();
    assert_eq!((decoded.envelope, decoded.stamp), (placed(), Some(STAMP)));
}

#[test]
fn structured_is_these_bytes() {
    let record = encode(&placed(), Some(STAMP), &TEXTUAL, Mode::Structured);
    let expected = concat!(
        r#"{"specversion":"1.0","id":"e-1","source":"/shop","type":"OrderPlaced","time":"2024-02-29T12:00:00.5Z","#,
        r#""subject":"order-42","partitionkey":"order-42","sequence":"00000000000000000009","eventversion":"2","#,
        r#""correlationid":"c 1%\"ü","tenant":"acme","#,
        r#""traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","#,
        r#""producer":"0000000000000000000000000000feed","number":"7","region":"eu","#,
        r#""datacontenttype":"application/json","data":{"total": 12}}"#,
    );
    assert_eq!(String::from_utf8_lossy(&record.payload), expected);
    let headers = [
        "content-type: application/cloudevents+json",
        "ce-partitionkey: order-42",
        "Msg-Id: 0000000000000000000000000000feed-7",
        "X-Note: plain",
    ];
    assert_eq!(lines(&record), headers);
    let decoded = decode_at_42(&record, &TEXTUAL).unwrap();
    assert_eq!((decoded.envelope, decoded.stamp), (placed(), Some(STAMP)));
}

#[test]
fn payloads_take_the_member_that_keeps_their_bytes() {
    let cases: [(&str, &[u8], &str); 6] = [
        ("application/json", b"[1.0, 1e2]", r#""data":[1.0, 1e2]}"#),
        ("application/vnd.x+json; v=1", b"\"s\"", r#""data":"s"}"#),
        ("application/json", b" 1", r#""data_base64":"IDE="}"#),
        ("application/json", b"{", r#""data_base64":"ew=="}"#),
        ("text/plain", b"a\"b", r#""data":"a\"b"}"#),
        ("application/octet-stream", b"\xff\x00", r#""data_base64":"/wA="}"#),
    ];
    for (media, payload, end) in cases {
        let envelope = Envelope::builder("T", "/s").content_type(media).payload(payload).build().unwrap();
        let record = encode(&envelope, None, &KEYED, Mode::Structured);
        let document = String::from_utf8_lossy(&record.payload).into_owned();
        assert!(document.ends_with(end), "{document}");
        assert_eq!(decode_at_42(&record, &KEYED).unwrap().envelope, envelope);
    }
}

#[test]
fn a_json_payload_is_read_without_a_copy() {
    let record = encode(&placed(), None, &KEYED, Mode::Structured);
    let payload = decode_at_42(&record, &KEYED).unwrap().envelope.payload().as_ptr();
    assert!(record.payload.as_ptr_range().contains(&payload));
}

#[test]
fn a_record_that_is_no_event_becomes_the_same_envelope_every_time() {
    let mut foreign = record(&[("Trace", "x"), ("Trace", "y"), ("bad name", "z")], "raw");
    foreign.key = Some(Bytes::from_static(b"\xff\x00k"));
    let Decoded { envelope, stamp, left_out, .. } = decode_at_42(&foreign, &KEYED).unwrap();
    assert_eq!(envelope.id(), "orders/3/42");
    assert_eq!((envelope.source(), envelope.event_type()), ("/orders", FOREIGN_TYPE));
    assert_eq!(envelope.time(), datetime!(2023-11-14 22:13:20.123 UTC));
    assert_eq!(envelope.key().map(Key::as_bytes), Some(&b"\xff\x00k"[..]));
    assert_eq!(envelope.header("trace"), Some("y"));
    assert_eq!(left_out, ["Trace", "bad name"]);
    assert_eq!(stamp, None);
    assert_eq!(decode_at_42(&foreign, &KEYED).unwrap().envelope, envelope);
}

#[test]
fn an_empty_record_key_is_none_and_the_records_key_goes_first() {
    let mut foreign = record(&[("ce_partitionkey", "said")], "");
    foreign.key = Some(Bytes::new());
    assert_eq!(peek(&foreign, &KEYED).key, Key::try_from("said").ok());
    foreign.key = Some(Bytes::from_static(b"stored"));
    assert_eq!(peek(&foreign, &KEYED).key, Key::try_from("stored").ok());
    assert_eq!(decode_at_42(&foreign, &KEYED).unwrap().envelope.key().cloned(), Key::try_from("stored").ok());
    assert_eq!(decode_at_42(&record(&[], ""), &KEYED).unwrap().envelope.key(), None);
}

#[test]
fn a_key_that_is_no_attribute_travels_as_bytes() {
    for key in [&b"a\nb"[..], b"\xff", "\u{fffe}".as_bytes()] {
        let envelope = Envelope::builder("T", "/s").key(Key::from_bytes(key).unwrap()).build().unwrap();
        let keyed = encode(&envelope, None, &KEYED, Mode::Binary);
        assert_eq!(keyed.key.as_deref(), Some(key));
        assert_eq!((keyed.header("ce_partitionkey"), keyed.header("ce_eventbuskeybase64")), (None, None));
        let textual = encode(&envelope, None, &TEXTUAL, Mode::Binary);
        assert!(textual.header("ce-eventbuskeybase64").is_some());
        assert_eq!(decode_at_42(&textual, &TEXTUAL).unwrap().envelope, envelope);
    }
}

#[test]
fn the_message_id_goes_before_the_stamps_attributes() {
    let headers = [
        ("Msg-Id", "0000000000000000000000000000feed-7"),
        ("ce-producer", "00000000000000000000000000000bad"),
        ("ce-number", "1"),
    ];
    let decoded = decode_at_42(&record(&headers, ""), &TEXTUAL).unwrap();
    assert_eq!(decoded.stamp, Some(STAMP));
    assert_eq!(decoded.envelope.extensions().count(), 0);
}

#[test]
fn names_that_are_no_attributes_are_left_out_by_name() {
    let long = "x".repeat(65);
    let header = format!("ce_{long}");
    let foreign = record(&[("ce_", "v"), (&header, "v"), ("ce_data", "v"), (&header[..67], "v")], "");
    let decoded = decode_at_42(&foreign, &KEYED).unwrap();
    assert_eq!(decoded.left_out, ["", &long, "data"]);
    assert_eq!(decoded.envelope.extension(&long[..64]), Some("v"));
}

#[test]
fn a_key_beyond_the_limit_is_undecodable_and_peeked_as_none() {
    let mut foreign = record(&[], "");
    foreign.key = Some(vec![b'k'; crate::MAX_KEY_BYTES + 1].into());
    assert!(decode_at_42(&foreign, &KEYED).unwrap_err().to_string().contains("key: "));
    assert_eq!(peek(&foreign, &KEYED).key, None);
}

/// The key is an attribute twice, and once as one that may not be as long.
#[test]
fn a_key_longer_than_an_attribute_leaves_nothing_out() {
    let envelope = Envelope::builder("T", "/s").key("k".repeat(20_000)).build().unwrap();
    for binding in [&KEYED, &TEXTUAL] {
        for mode in [Mode::Binary, Mode::Structured] {
            let read = decode_at_42(&encode(&envelope, None, binding, mode), binding).unwrap();
            assert_eq!((read.envelope, read.left_out), (envelope.clone(), Vec::<String>::new()), "{mode:?}");
        }
    }
    // A subject of its own is an extension, or too long for one.
    for (length, left_out) in [(8_000, 0), (9_000, 1)] {
        let record = record(&[("ce_subject", &"s".repeat(length))], "");
        assert_eq!(decode_at_42(&record, &KEYED).unwrap().left_out.len(), left_out);
    }
}

#[test]
fn foreign_events_are_read_leniently() {
    let headers = [
        ("CE-Id", "\"a\\\"b\""),
        ("ce-source", "/x%20y"),
        ("ce-subject", "line 1"),
        ("ce-sequence", "abc"),
        ("ce-producer", "acme"),
        ("ce-region", ""),
        ("ce-bad_name", "v"),
        ("content-type", "text/plain"),
        ("Msg-Id", "theirs"),
    ];
    let foreign = record(&headers[..], "t");
    let error = decode_at_42(&foreign, &TEXTUAL).unwrap_err();
    assert!(error.to_string().contains("source"), "{error}");

    let mut headers = headers;
    headers[1].1 = "/x";
    let Decoded { envelope, stamp, left_out, .. } = decode_at_42(&record(&headers[..], "t"), &TEXTUAL).unwrap();
    assert_eq!(envelope.id(), "a\"b");
    let extensions: Vec<_> = envelope.extensions().collect();
    assert_eq!(extensions, [("producer", "acme"), ("sequence", "abc"), ("subject", "line 1")]);
    assert_eq!((envelope.sequence(), envelope.key(), stamp), (None, None, None));
    assert_eq!(envelope.content_type(), Some("text/plain"));
    assert_eq!(left_out, ["bad_name", "Msg-Id"]);
    // Written again, the foreign attributes stay what they are.
    let again = encode(&envelope, None, &TEXTUAL, Mode::Binary);
    assert_eq!(decode_at_42(&again, &TEXTUAL).unwrap().envelope, envelope);
}

#[test]
fn foreign_documents_are_read_leniently() {
    let document = r#" {"data":"text","id":"1","datacontenttype":"application/xml","n":5,"yes":true,"none":null} "#;
    let foreign = record(&[("Content-Type", "Application/CloudEvents+JSON; charset=utf-8")], document);
    let envelope = decode_at_42(&foreign, &KEYED).unwrap().envelope;
    assert_eq!(&envelope.payload()[..], b"text");
    assert_eq!(envelope.extensions().collect::<Vec<_>>(), [("n", "5"), ("yes", "true")]);
}

#[test]
fn a_document_without_headers_is_an_event_only_where_it_can_be_nothing_else() {
    let bare = Binding::new("ce-").bare_documents(true);
    let document =
        r#" {"specversion":"1.0","id":"7","source":"/shop","type":"OrderPaid","partitionkey":"k","data":{"n":1}}"#;
    let event = decode_at_42(&record(&[], document), &bare).unwrap().envelope;
    assert_eq!((event.id(), event.event_type(), &event.payload()[..]), ("7", "OrderPaid", &br#"{"n":1}"#[..]));
    assert_eq!(
        (event.key().map(ToString::to_string), peek(&record(&[], document), &bare).key.as_ref()),
        (Some("k".into()), event.key())
    );
    // Other headers say nothing about the payload.
    assert_eq!(decode_at_42(&record(&[("traceparent", "x")], document), &bare).unwrap().envelope.id(), "7");
    for (headers, payload) in [
        (&[("ce-type", "T")][..], document),
        (&[("content-type", "application/json")], document),
        (&[], r#"{"specversion":"1.0","id":"7","source":"/shop"}"#),
        (&[], r#"{"specversion":"0.3","id":"7","source":"/shop","type":"T"}"#),
        (&[], r#"{"specversion":"1.0","id":7,"source":"/shop","type":"T"}"#),
        (&[], r#"{"specversion":"1.0","id":"7","source":"/shop","type":"T""#),
        (&[], r#"[{"specversion":"1.0"}]"#),
    ] {
        let read = decode_at_42(&record(headers, payload), &bare).unwrap().envelope;
        assert_eq!((&read.payload()[..], read.key()), (payload.as_bytes(), None), "{headers:?} {payload}");
    }
    let read = decode_at_42(&record(&[], document), &Binding::new("ce-")).unwrap().envelope;
    assert_eq!(&read.payload()[..], document.as_bytes(), "another binding");
}

#[test]
fn of_many_headers_the_last_of_a_name_counts_too() {
    let names: Vec<String> = (0..100).map(|number| format!("x{}", number % 50)).collect();
    let values: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    let headers: Vec<(&str, &str)> = names.iter().zip(&values).map(|(name, value)| (&**name, &**value)).collect();
    let read = decode_at_42(&record(&headers, ""), &Binding::new("ce-")).unwrap();
    let (kept, left_out) = (read.envelope.headers().collect::<Vec<_>>(), read.left_out);
    assert_eq!((kept.len(), kept[49], left_out.len()), (50, ("x49", "99"), 50));
}

#[test]
fn what_cannot_be_decoded_names_the_attribute_and_the_place() {
    let structured = |document| record(&[("content-type", STRUCTURED)], document);
    let cases = [
        (record(&[("ce_specversion", "0.3")], ""), "specversion"),
        (record(&[("ce_id", "")], ""), "id"),
        (record(&[("content-type", "application/cloudevents-batch+json")], "[]"), "content-type"),
        (structured("{"), "document"),
        (structured("[]"), "document"),
        (structured(r#"{"id":{}}"#), "id"),
        (structured(r#"{"data":1,"data_base64":"MQ=="}"#), "data"),
        (structured(r#"{"data_base64":"*"}"#), "data_base64"),
        (structured(r#"{"eventbuskeybase64":"*"}"#), "eventbuskeybase64"),
    ];
    for (record, attribute) in cases {
        let error = decode_at_42(&record, &KEYED).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Undecodable);
        let text = error.to_string();
        assert!(text.contains(attribute) && text.contains("topic=orders, partition=3, position=42"), "{text}");
    }
    let mut not_text = record(&[], "");
    not_text.headers.push(("ce_id".into(), Bytes::from_static(b"\xff")));
    assert!(decode_at_42(&not_text, &KEYED).unwrap_err().to_string().contains("id: expected UTF-8"));
}

#[test]
fn the_trace_of_a_hop_leaves_the_events_own_alone() {
    let mut record = encode(&placed(), None, &TEXTUAL, Mode::Binary);
    for parent in ["00-1", "00-2"] {
        record.set_hop(&Hop { traceparent: parent.into(), tracestate: Some("v=1".into()) });
    }
    let decoded = decode_at_42(&record, &TEXTUAL).unwrap();
    assert_eq!(decoded.hop, Some(Hop { traceparent: "00-2".into(), tracestate: Some("v=1".into()) }));
    assert_eq!(decoded.envelope, placed());
}

#[test]
fn an_event_inside_an_event_is_not_taken_for_the_outer_one() {
    let inner = encode(&placed(), None, &KEYED, Mode::Structured).payload;
    let outer = Envelope::builder("Outer", "/s").content_type(STRUCTURED).payload(inner).build().unwrap();
    let record = encode(&outer, None, &KEYED, Mode::Binary);
    assert_eq!(decode_at_42(&record, &KEYED).unwrap().envelope, outer);
}

#[test]
fn a_header_repeats_the_key_of_a_structured_record_where_the_record_has_none() {
    let binding = Binding::new("ce-").percent_encoded(true).message_id("Msg-Id");
    let envelope = Envelope::builder("T", "/s").key("a b").payload("x").build().unwrap();
    let stamp = Stamp::new(ProducerId::new(1), 2);
    let written = encode(&envelope, Some(stamp), &binding, Mode::Structured);
    assert_eq!(written.header("ce-partitionkey").map(|key| &key[..]), Some(&b"a%20b"[..]));
    let topic = "t".parse().unwrap();
    let context = DecodeContext { topic: &topic, partition: 0, position: Position::new(1), stored_at: 0 };
    let read = decode(&written, &binding, &context).unwrap();
    assert_eq!((read.envelope, read.left_out), (envelope.clone(), vec![]));
    // The key is found where the document cannot be read; a record is refused where the two keys differ.
    let broken = WireRecord { payload: Bytes::from_static(b"{"), ..written.clone() };
    assert_eq!(peek(&broken, &binding), Peek { key: envelope.key().cloned(), stamp: Some(stamp) });
    let mut other = written;
    other.headers.retain(|(name, _)| name != "ce-partitionkey");
    other.headers.push(("ce-partitionkey".into(), "b".into()));
    assert!(decode(&other, &binding, &context).unwrap_err().to_string().contains("partitionkey"));
}

#[test]
fn an_optional_attribute_in_an_odd_form_is_left_out_and_the_event_read() {
    let long = "x".repeat(9_000);
    let document = format!(
        "\u{feff}{}",
        serde_json::json!({
            "specversion": "1.0", "id": "i", "source": "/s", "type": "T", "time": "2026-01-02T03:04:05",
            "x": {"a": 1}, "y": [], "z": "a\u{7}b", "w": long, "tenant": "a\u{0}", "datacontenttype": {}, "v": "kept",
            "partitionkey": "k", "data": null, "data_base64": "aGk=",
        })
    );
    for (content_type, binding) in
        [("application/cloudevents+json", &KEYED), ("Application/CloudEvents+JSON", &TEXTUAL)]
    {
        let record = record(&[("content-type", content_type)], &document);
        let decoded = decode_at_42(&record, binding).unwrap();
        let envelope = &decoded.envelope;
        assert_eq!((envelope.id(), envelope.event_type(), &envelope.payload()[..]), ("i", "T", &b"hi"[..]));
        assert_eq!(envelope.time().unix_timestamp(), 1_700_000_000, "the time of storing");
        assert_eq!(envelope.extensions().collect::<Vec<_>>(), [("v", "kept")]);
        assert_eq!((envelope.tenant(), envelope.content_type()), (None, None));
        assert_eq!(peek(&record, binding).key, envelope.key().cloned());
        let mut left_out = decoded.left_out;
        left_out.sort();
        assert_eq!(left_out, ["datacontenttype", "tenant", "time", "w", "x", "y", "z"]);
    }
    let mut binary = record(&[("ce_id", "i"), ("ce_time", "tomorrow"), ("ce_x", "a\u{7}"), ("ce_key", "")], "p");
    for name in ["ce_tenant", "content-type"] {
        binary.headers.push((name.into(), bytes::Bytes::from_static(b"\xff")));
    }
    let decoded = decode_at_42(&binary, &KEYED).unwrap();
    assert_eq!((decoded.envelope.id(), decoded.envelope.tenant()), ("i", None));
    assert_eq!(decoded.left_out, ["time", "x", "ce_tenant", "content-type"]);
}

#[test]
fn an_attribute_without_which_an_event_is_nothing_is_not_left_out() {
    for (member, name) in [
        (r#""id":{}"#, "id"),
        (r#""type":[]"#, "type"),
        (r#""source":{}"#, "source"),
        (r#""partitionkey":{}"#, "partitionkey"),
        (r#""specversion":{}"#, "specversion"),
    ] {
        let record = record(&[("content-type", "application/cloudevents+json")], &format!("{{{member}}}"));
        let error = decode_at_42(&record, &TEXTUAL).unwrap_err();
        assert!(error.context().any(|(what, value)| what == "attribute" && value == name), "{error}");
    }
}
