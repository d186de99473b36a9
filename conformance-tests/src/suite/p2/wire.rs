//! CloudEvents on the wire, in both directions: the library reads foreign records, and others can read its own.

use std::time::Duration;

use bytes::Bytes;
use eventbus_core::wire::{self, Binding, DecodeContext, Mode, WireRecord};
use eventbus_core::{Envelope, Key, Position, ProducerId, Stamp};

use crate::suite::common::{Collected, GROUP, TOPIC, subscribe};
use crate::suite::failure::ensure;
use crate::suite::p0::members::topic;
use crate::suite::{Failure, Run};

static KEYED: Binding = Binding::new("ce_").content_type("content-type").keyed(true);
static ENCODED: Binding = Binding::new("ce-").percent_encoded(true).message_id("Msg-Id");

fn text(value: &'static str) -> Bytes {
    Bytes::from_static(value.as_bytes())
}

/// Returns the same event in binary and in structured mode, as a client in another language would write it.
fn foreign(key: &Key) -> [WireRecord; 2] {
    let headers = [
        ("ce_specversion", "1.0"),
        ("ce_id", "A234-1234-1234"),
        ("ce_source", "/mycontext"),
        ("ce_type", "com.example.someevent"),
        ("ce_time", "2018-04-05T17:31:00Z"),
        ("ce_partitionkey", "k"),
        ("ce_comexampleextension1", "value"),
        ("content-type", "text/plain"),
    ];
    let binary = WireRecord {
        key: Some(key.to_bytes()),
        headers: headers.iter().map(|(name, value)| ((*name).into(), text(value))).collect(),
        payload: text("hello"),
    };
    let structured = WireRecord {
        key: Some(key.to_bytes()),
        headers: vec![("content-type".into(), text("application/cloudevents+json; charset=UTF-8"))],
        payload: text(
            r#"{"specversion":"1.0","id":"A234-1234-1234","source":"/mycontext","type":"com.example.someevent",
               "time":"2018-04-05T17:31:00Z","partitionkey":"k","comexampleextension1":"value",
               "datacontenttype":"text/plain","data_base64":"aGVsbG8="}"#,
        ),
    };
    [binary, structured]
}

fn is_as_told(envelope: &Envelope) -> Result<(), Failure> {
    let told = envelope.id() == "A234-1234-1234"
        && envelope.source() == "/mycontext"
        && envelope.event_type() == "com.example.someevent"
        && envelope.time().unix_timestamp() == 1_522_949_460
        && envelope.key().and_then(Key::as_str) == Some("k")
        && envelope.extension("comexampleextension1") == Some("value")
        && envelope.content_type() == Some("text/plain")
        && envelope.payload() == "hello";
    ensure!(told, "it was read as {envelope:?}");
    Ok(())
}

/// Records of foreign producers in the log become envelopes.
pub(in crate::suite) async fn foreign_records(run: Run) -> Result<(), Failure> {
    let peer = run.process().await?;
    topic(&peer, 4).await?;
    let key = Key::try_from("k")?;
    for record in foreign(&key) {
        run.fixture().store_raw(TOPIC, key.partition(4), record).await?;
    }
    let collected = Collected::default();
    let subscription = peer.bus().subscribe(subscribe(), collected.handler(0)).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    subscription.drain(Duration::from_secs(5)).await?;
    let arrived = collected.all();
    ensure!(arrived.len() == 2, "two records were stored, {} arrived", arrived.len());
    arrived.iter().try_for_each(|delivery| is_as_told(delivery.envelope()))
}

fn header<'a>(record: &'a WireRecord, name: &str) -> &'a [u8] {
    record.header(name).map_or(b"", |value| value)
}

/// The library's own records are CloudEvents that others can read, in both modes and both kinds of binding.
#[allow(clippy::unused_async)] // a case like any
pub(in crate::suite) async fn own_records(_: Run) -> Result<(), Failure> {
    let envelope = Envelope::builder("Placed", "/shop").id("e-1").key("k ü").sequence(7).payload("{}").build()?;
    let stamp = Stamp::new(ProducerId::new(0xabc), 9);
    for binding in [&KEYED, &ENCODED] {
        for mode in [Mode::Binary, Mode::Structured] {
            let record = wire::encode(&envelope, Some(stamp), binding, mode);
            let (topic, partition, position) = (TOPIC.parse()?, 0, Position::ZERO);
            let at = DecodeContext { topic: &topic, partition, position, stored_at: 0 };
            let back = wire::decode(&record, binding, &at)?;
            ensure!(back.envelope == envelope && back.stamp == Some(stamp), "{mode:?}: {record:?} reads as {back:?}");
        }
    }
    let binary = wire::encode(&envelope, Some(stamp), &KEYED, Mode::Binary);
    for (name, value) in [
        ("ce_specversion", "1.0"),
        ("ce_id", "e-1"),
        ("ce_source", "/shop"),
        ("ce_type", "Placed"),
        ("ce_partitionkey", "k ü"),
        ("ce_sequence", "00000000000000000007"),
        ("ce_producer", "00000000000000000000000000000abc"),
        ("ce_number", "9"),
    ] {
        ensure!(header(&binary, name) == value.as_bytes(), "{name}: expected {value:?} in {binary:?}");
    }
    ensure!(binary.key.as_deref() == Some("k ü".as_bytes()), "the record's key is {:?}", binary.key);
    let encoded = wire::encode(&envelope, Some(stamp), &ENCODED, Mode::Binary);
    ensure!(header(&encoded, "ce-partitionkey") == b"k%20%C3%BC", "not percent-encoded: {encoded:?}");
    ensure!(header(&encoded, "Msg-Id") == stamp.to_string().as_bytes(), "the message id is not the stamp: {encoded:?}");
    Ok(())
}
