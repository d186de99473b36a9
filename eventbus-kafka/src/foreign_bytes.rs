//! Bytes of anybody: whatever stands in a record or beside an offset, reading it ends with a value or an error. A value
//! can be written, and is read as the same then; an error is of its own type, and names the thing; what is read is no
//! larger than what was given allows.
//!
//! `EVENTBUS_FUZZ_INPUTS` sets the number of inputs to each property; `scripts/fuzz` sets a large one.

use eventbus_core::backend::{Body, Inbound};
use eventbus_core::wire::{self as core_wire, DecodeContext, Decoded, Mode};
use eventbus_core::{Envelope, ErrorKind, Position, Result, Stamp};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use rdkafka::message::{Header, Headers, OwnedHeaders, OwnedMessage};
use rdkafka::{Offset, Timestamp, TopicPartitionList};

use crate::headers::{MOST, NOT_UTF8, all};
use crate::note::{CommitMetadata, print_of, text_beside};
use crate::wire::{self, Fields};

fn config() -> ProptestConfig {
    let cases = std::env::var("EVENTBUS_FUZZ_INPUTS").ok().and_then(|inputs| inputs.parse().ok()).unwrap_or(500);
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 10_000, ..ProptestConfig::default() }
}

/// A record as the broker holds it: names of headers are bytes.
#[derive(Debug, Clone)]
struct Stored {
    key: Option<Vec<u8>>,
    payload: Vec<u8>,
    headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    offset: i64,
    time: Option<i64>,
}

/// A name ends at a zero, and one that is no UTF-8 is a panic, as in the client.
impl Headers for Stored {
    fn count(&self) -> usize {
        self.headers.len()
    }

    fn try_get(&self, index: usize) -> Option<Header<'_, &[u8]>> {
        let (name, value) = self.headers.get(index)?;
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        Some(Header { key: std::str::from_utf8(name).unwrap(), value: value.as_deref() })
    }
}

impl Stored {
    fn time(&self) -> Timestamp {
        self.time.map_or(Timestamp::NotAvailable, Timestamp::CreateTime)
    }

    fn fields(&self) -> Fields<'_, Self> {
        let (offset, time) = (self.offset, self.time());
        Fields { key: self.key.as_deref(), headers: Some(self), payload: &self.payload, offset, time }
    }

    /// The same record in the client's own form, which takes names of text only.
    fn by_client(&self) -> Option<OwnedMessage> {
        let mut headers = OwnedHeaders::new();
        for (name, value) in &self.headers {
            headers = headers.insert(Header { key: std::str::from_utf8(name).ok()?, value: value.as_ref() });
        }
        let (key, payload) = (self.key.clone(), Some(self.payload.clone()));
        Some(OwnedMessage::new(payload, key, "t".into(), self.time(), 3, self.offset, Some(headers)))
    }

    fn size(&self) -> usize {
        let headers = self.headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len));
        self.key.as_ref().map_or(0, Vec::len) + self.payload.len() + headers.sum::<usize>()
    }

    fn decoded(&self, record: &Inbound) -> Result<Decoded> {
        let Body::Encoded { record, binding } = &record.body else { panic!("it was decoded before its turn") };
        let (topic, position) = ("t".parse()?, wire::position(self.offset));
        let context = DecodeContext { topic: &topic, partition: 3, position, stored_at: 5 };
        core_wire::decode(record, binding, &context)
    }
}

const NAME: &str = "(ce_|Ce_|CE_)?(specversion|id|source|type|time|subject|partitionkey|eventbuskeybase64|sequence|producer|number|datacontenttype|[a-z]{0,4})|[Cc]ontent-[Tt]ype|traceparent|[a-c]";

fn header() -> impl Strategy<Value = (Vec<u8>, Option<Vec<u8>>)> {
    let name = prop_oneof![
        6 => NAME.prop_map(String::into_bytes),
        1 => "\\PC{0,5}".prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 0..6),
    ];
    let value = prop_oneof![
        3 => "(1[.]0|application/cloudevents[+]json|[0-9a-f]{32}|[0-9]{1,20}|2026-01-02T03:04:05Z|a2V5|[ -~]{0,9})".prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 0..9),
    ];
    (name, of(value))
}

fn stored() -> impl Strategy<Value = Stored> {
    let payload = prop_oneof![
        vec(any::<u8>(), 0..40),
        "[{](\"(specversion|id|source|type|data|producer|number|partitionkey|x)\":(\"[ -!#-\\[\\]-~]{0,9}\"|null|[0-9]{1,20}|[{][}]),?){0,6}[}]".prop_map(String::into_bytes),
    ];
    let headers = prop_oneof![30 => vec(header(), 0..9), 1 => (MOST - 1..MOST + 3).prop_flat_map(|count| vec(Just((b"a".to_vec(), None)), count))];
    let time = prop_oneof![Just(None), any::<i64>().prop_map(Some)];
    (of(vec(any::<u8>(), 0..9)), payload, headers, any::<i64>(), time)
        .prop_map(|(key, payload, headers, offset, time)| Stored { key, payload, headers, offset, time })
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
    #![proptest_config(config())]

    #[test]
    fn a_record_becomes_an_envelope_or_an_error_and_an_envelope_can_be_written_again(stored in stored(), structured in any::<bool>()) {
        let read = stored.fields().inbound(3);
        prop_assert_eq!(read.position.get(), u64::try_from(stored.offset).unwrap_or_default());
        prop_assert_eq!(read.stored_at, stored.time.and_then(|time| u64::try_from(time).ok()).unwrap_or_default());
        prop_assert_eq!(stored.fields().stamp(), read.stamp);
        prop_assert_eq!(read.is_undecodable(), stored.count() > MOST);
        let most = stored.size() + 128 * stored.count().min(MOST);
        prop_assert!(read.bytes <= most, "{} of {}", read.bytes, most);
        if let Some(key) = stored.key.as_deref().filter(|key| !key.is_empty()) {
            prop_assert_eq!(read.key.as_ref().map(|key| key.as_bytes()), Some(key), "the record's own key goes first");
        }
        if read.is_undecodable() {
            return Ok(());
        }
        match stored.decoded(&read) {
            Ok(Decoded { envelope, stamp, left_out, .. }) => {
                prop_assert_eq!((&read.key, read.stamp), (&envelope.key().cloned(), stamp));
                let named = all(&stored).filter(|(name, _)| *name == NOT_UTF8).count();
                prop_assert!(left_out.iter().filter(|name| *name == NOT_UTF8).count() >= named);
                let mode = if structured { Mode::Structured } else { Mode::Binary };
                let Some(stamp) = stamp else { return Ok(()) };
                let (headers, record) = wire::encode(&envelope, stamp, mode);
                let fields = Fields { key: record.key.as_deref(), headers: Some(&headers), payload: &record.payload, ..stored_with(&stored) };
                let again = fields.inbound(3);
                prop_assert_eq!(fields.stamp(), Some(stamp));
                prop_assert!(wire::size(&envelope, stamp, mode) <= wire::most(&envelope));
                prop_assert_eq!(stored.decoded(&again).unwrap().envelope, rewritten(&envelope, Some(stamp)));
            }
            Err(error) => {
                prop_assert_eq!(error.kind(), ErrorKind::Undecodable);
                prop_assert!(error.context().any(|(name, _)| name == "position"), "{}", error);
            }
        }
    }

    #[test]
    fn a_record_is_read_in_the_clients_own_form_as_in_this(stored in stored()) {
        let Some(message) = stored.by_client() else { return Ok(()) };
        let (by_client, read) = (wire::inbound(3, &message), stored.fields().inbound(3));
        prop_assert_eq!((&by_client.key, by_client.stamp, by_client.bytes), (&read.key, read.stamp, read.bytes));
        prop_assert_eq!((by_client.position, by_client.stored_at, by_client.is_undecodable()), (read.position, read.stored_at, read.is_undecodable()));
        prop_assert_eq!(wire::stamp(&message), read.stamp);
        prop_assert_eq!(stored.decoded(&by_client).ok(), stored.decoded(&read).ok());
        // The fingerprint that is kept beside an offset.
        let fingerprint = print_of(&message);
        let kept = CommitMetadata { fingerprint: Some(fingerprint), ..CommitMetadata::default() };
        let kept = CommitMetadata::decode(&kept.encode()).unwrap().fingerprint;
        prop_assert_eq!(kept, Some(fingerprint).filter(|print| print.offset >= 0));
    }

    #[test]
    fn a_text_beside_an_offset_is_read_as_it_is_stored(text in "\\PC{0,40}|eb1(;[0-9a-z]{0,5}){5,6}", offset in any::<i64>(), partition in any::<i32>()) {
        let mut list = TopicPartitionList::new();
        let mut entry = list.add_partition("t", wire::number(wire::partition(partition)));
        entry.set_metadata(&text);
        prop_assert_eq!(entry.set_offset(Offset::Offset(offset)).is_ok(), offset >= 0);
        for element in list.elements() {
            prop_assert_eq!(text_beside(&element), &text);
            prop_assert_eq!(element.partition(), partition.max(0));
            if let Some(position) = wire::known(element.offset()) {
                prop_assert_eq!((position, wire::offset(position)), (Position::new(offset.unsigned_abs()), offset));
            }
        }
    }
}

fn stored_with(stored: &Stored) -> Fields<'_, OwnedHeaders> {
    Fields { key: None, headers: None, payload: &[], offset: stored.offset, time: stored.time() }
}
