//! Odd records: whatever others store is handled, or goes to the failure policy, once and in its key's line (S2).

use std::time::Duration;

use bytes::Bytes;
use eventbus_core::wire::{FOREIGN_TYPE, WireRecord};
use eventbus_core::{Delivery, ErrorKind, FailurePolicy, Position};

use super::foreign::{KEY, among, event, go_on, outcome, partition, record, start};
use crate::suite::common::{Collected, GROUP, TOPIC, subscribe};
use crate::suite::failure::ensure;
use crate::suite::{Failure, Run};

/// A structured event without optional members.
const DOCUMENT: &[u8] =
    br#"{"specversion":"1.0","id":"bare","source":"/s","type":"T","partitionkey":"k","data":{"n":1}}"#;

/// Media type of events in a format that nobody here reads.
const UNREAD: (&str, &[u8]) = ("content-type", b"application/cloudevents+avro");

/// A header whose value is not text is left out, its neighbours are not.
pub(in crate::suite) async fn value_not_text(run: Run) -> Result<(), Failure> {
    let outcome = among(&run, record(&[("x-note", b"caf\xe9"), ("x-good", b"1")], b"{}")).await?;
    let envelope = outcome.handled()?.envelope();
    let headers: Vec<_> = envelope.headers().collect();
    ensure!(headers == [("x-good", "1")] && envelope.payload() == "{}", "read as {envelope:?}");
    Ok(())
}

/// A needed attribute that is not text makes the record undecodable, its bytes kept.
pub(in crate::suite) async fn attribute_not_text(run: Run) -> Result<(), Failure> {
    let headers: [(&str, &[u8]); 4] =
        [("ce_specversion", b"1.0"), ("ce_id", b"caf\xe9"), ("ce_source", b"/s"), ("ce_type", b"T")];
    let outcome = among(&run, record(&headers, b"\x00\xff")).await?;
    let letter = outcome.undecodable()?;
    ensure!(letter.envelope.payload() == &b"\x00\xff"[..], "its bytes were changed: {letter:?}");
    ensure!(letter.error.contains("id"), "the attribute is not named: {}", letter.error);
    Ok(())
}

/// An event of a later specification is undecodable.
pub(in crate::suite) async fn later_specification(run: Run) -> Result<(), Failure> {
    let headers: [(&str, &[u8]); 4] =
        [("ce_specversion", b"9.9"), ("ce_id", b"1"), ("ce_source", b"/s"), ("ce_type", b"T")];
    let outcome = among(&run, record(&headers, b"{}")).await?;
    let letter = outcome.undecodable()?;
    ensure!(letter.error.contains("9.9"), "what was found is not said: {}", letter.error);
    Ok(())
}

/// A record without key, headers and payload is an event.
pub(in crate::suite) async fn nothing_at_all(run: Run) -> Result<(), Failure> {
    let outcome = among(&run, WireRecord::default()).await?;
    let envelope = outcome.handled()?.envelope();
    let read = (envelope.event_type(), envelope.key(), envelope.payload().len());
    ensure!(read == (FOREIGN_TYPE, None, 0), "read as {envelope:?}");
    Ok(())
}

/// A record with thousands of headers is handled, or is a dead letter.
pub(in crate::suite) async fn thousands_of_headers(run: Run) -> Result<(), Failure> {
    let headers = (0..5_000).map(|n| (format!("x-{n}").into(), Bytes::from_static(b"v"))).collect();
    let outcome = among(&run, WireRecord { headers, ..record(&[], b"{}") }).await?;
    match outcome.letters.len() {
        0 => drop(outcome.handled()?),
        _ => drop(outcome.undecodable()?),
    }
    Ok(())
}

/// A key that is longer than any of a bus makes the record undecodable.
pub(in crate::suite) async fn key_too_long(run: Run) -> Result<(), Failure> {
    let long = ("ce_partitionkey".into(), Bytes::from(vec![b'x'; 33 << 10]));
    let mut raw = WireRecord { key: None, ..event(&[], b"{}") };
    raw.headers.push(long);
    among(&run, raw).await?.undecodable().map(drop)
}

/// The note of each foreign record, by position.
fn notes(deliveries: &[Delivery]) -> Vec<(Position, Option<String>)> {
    let foreign = deliveries.iter().filter(|one| one.envelope().event_type() == FOREIGN_TYPE);
    let mut notes: Vec<_> =
        foreign.map(|one| (one.position(), one.envelope().header("x-note").map(str::to_owned))).collect();
    notes.sort();
    notes
}

/// Headers whose names differ only in case read the same each time.
pub(in crate::suite) async fn names_that_differ_in_case(run: Run) -> Result<(), Failure> {
    let peer = start(&run).await?;
    for _ in 0..20 {
        let raw = record(&[("x-note", b"1"), ("X-Note", b"2"), ("X-NOTE", b"3")], b"{}");
        run.fixture().store_raw(TOPIC, partition()?, raw).await?;
    }
    go_on(&peer).await?;
    let first = outcome(&run, &peer).await?;
    let again = Collected::default();
    let options = subscribe().group("again").then(FailurePolicy::DeadLetter);
    let subscription = peer.bus().subscribe(options, again.handler(0)).await?;
    run.settled(TOPIC, &["again"]).await?;
    subscription.drain(Duration::from_secs(5)).await?;
    let (first, second) = (notes(&first.handled), notes(&again.all()));
    let same = first.iter().all(|(_, note)| *note == first[0].1);
    ensure!(first.len() == 20 && same && first == second, "read as {first:?} and as {second:?}");
    Ok(())
}

/// A structured event without a content type is an event where the broker's binding says so, a payload elsewhere.
pub(in crate::suite) async fn document_without_content_type(run: Run) -> Result<(), Failure> {
    let outcome = among(&run, WireRecord { key: None, ..record(&[], DOCUMENT) }).await?;
    let envelope = outcome.handled()?.envelope();
    let event = (envelope.id(), envelope.event_type(), &envelope.payload()[..]) == ("bare", "T", br#"{"n":1}"#)
        && envelope.key().is_some_and(|key| key.as_bytes() == KEY.as_bytes());
    let payload = envelope.event_type() == FOREIGN_TYPE && envelope.payload() == DOCUMENT;
    ensure!(event || payload, "read as {envelope:?}");
    Ok(())
}

/// Two records with the same stamp in a form that no bus writes are two events.
pub(in crate::suite) async fn stamps_in_odd_forms(run: Run) -> Result<(), Failure> {
    let peer = start(&run).await?;
    for _ in 0..2 {
        let raw = event(&[("ce_producer", b"zz"), ("ce_number", b"-1")], b"{}");
        run.fixture().store_raw(TOPIC, partition()?, raw).await?;
    }
    go_on(&peer).await?;
    let outcome = outcome(&run, &peer).await?;
    let said = |delivery: &Delivery| delivery.envelope().extension("producer") == Some("zz");
    let two = outcome.handled.len() == 2 && outcome.handled.iter().all(said) && outcome.letters.is_empty();
    ensure!(two, "expected two events, got {outcome:?}");
    Ok(())
}

/// Undecodable records in a row become dead letters in their order.
pub(in crate::suite) async fn many_in_a_row(run: Run) -> Result<(), Failure> {
    let peer = start(&run).await?;
    for n in 0..30_u8 {
        let raw = WireRecord { payload: Bytes::copy_from_slice(&[n, 0xff]), ..record(&[UNREAD], b"") };
        run.fixture().store_raw(TOPIC, partition()?, raw).await?;
    }
    go_on(&peer).await?;
    let outcome = outcome(&run, &peer).await?;
    let payloads: Vec<u8> = outcome.letters.iter().map(|letter| letter.envelope.payload()[0]).collect();
    ensure!(payloads == (0..30).collect::<Vec<_>>() && outcome.handled.is_empty(), "dead letters are {payloads:?}");
    let rise = outcome.letters.is_sorted_by_key(|letter| letter.position);
    ensure!(rise, "their positions do not rise: {:?}", outcome.letters);
    Ok(())
}

/// The positions at which deliveries of the key stand, in their order.
fn of_key(deliveries: &[Delivery]) -> Vec<Position> {
    let of_key = |one: &&Delivery| one.envelope().key().is_some_and(|key| key.as_bytes() == KEY.as_bytes());
    deliveries.iter().filter(of_key).map(Delivery::position).collect()
}

/// Under `Stop` an undecodable record ends the subscription and is named; one that skips it goes on behind it.
pub(in crate::suite) async fn stops_and_goes_on(run: Run) -> Result<(), Failure> {
    let peer = start(&run).await?;
    run.fixture().store_raw(TOPIC, partition()?, record(&[UNREAD], b"\xff")).await?;
    go_on(&peer).await?;
    let stopped = Collected::default();
    let subscription = peer.bus().subscribe(subscribe().then(FailurePolicy::Stop), stopped.handler(0)).await?;
    let Err(error) = subscription.closed().await else { return Err(Failure::wrong("it ended without an error")) };
    ensure!(error.kind() == ErrorKind::Undecodable, "expected undecodable, got {error}");
    let named = |name: &str| error.context().any(|(known, _)| known == name);
    ensure!(named("partition") && named("position"), "its place is not named: {error}");
    let before = of_key(&stopped.all());
    ensure!(before.len() == 2, "the two before it were to be handled, {} were", before.len());
    let rest = Collected::default();
    let subscription = peer.bus().subscribe(subscribe().then(FailurePolicy::Skip), rest.handler(0)).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    subscription.drain(Duration::from_secs(5)).await?;
    let behind = of_key(&rest.all());
    let in_order = before.iter().chain(&behind).is_sorted();
    ensure!(behind.len() == 2 && in_order, "behind it were handled {behind:?}, before it {before:?}");
    Ok(())
}
