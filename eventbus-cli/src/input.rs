//! NDJSON form of the envelopes that the program reads: one object a line.
//!
//! ```text
//! {"key":"order-1","type":"OrderPlaced","id":"…"?,"source":"…"?,"time":"…"?,"sequence":7?,"headers":{…}?,"payload":…}
//! ```
//! with `payload_base64` for bytes that are not JSON. The error for a broken line tells its number.
//!
//! The lines that `subscribe` prints are read, too, so that `subscribe | publish` copies a topic: what tells only of the
//! delivery is passed over.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use eventbus::{Envelope, EnvelopeBuilder, Key};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The source of events whose line names none.
const SOURCE: &str = "/eventbus-cli";
/// The content type of a payload of JSON.
pub(crate) const JSON: &str = "application/json";

/// The byte order mark, with which some editors begin a file.
const MARK: &[u8] = "\u{feff}".as_bytes();

/// Line of the input, as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    key: Option<String>,
    key_base64: Option<String>,
    #[serde(rename = "type")]
    event_type: String,
    id: Option<String>,
    source: Option<String>,
    time: Option<String>,
    sequence: Option<u64>,
    /// In the order of the line, which is the envelope's.
    #[serde(default, deserialize_with = "pairs")]
    headers: Vec<(String, String)>,
    version: Option<u32>,
    correlation_id: Option<String>,
    causation_id: Option<String>,
    tenant: Option<String>,
    traceparent: Option<String>,
    tracestate: Option<String>,
    #[serde(default)]
    extensions: BTreeMap<String, String>,
    /// `null` says that there is none, where a payload of JSON would have that of JSON.
    #[serde(default, deserialize_with = "given")]
    content_type: Option<Option<String>>,
    /// `null` is a payload, too.
    #[serde(borrow, default, deserialize_with = "given")]
    payload: Option<&'a RawValue>,
    payload_base64: Option<String>,
    // The fields of the delivery, in a line that `subscribe` printed.
    #[serde(default, rename = "topic")]
    _topic: IgnoredAny,
    #[serde(default, rename = "partition")]
    _partition: IgnoredAny,
    #[serde(default, rename = "position")]
    _position: IgnoredAny,
    #[serde(default, rename = "attempt")]
    _attempt: IgnoredAny,
    #[serde(default, rename = "member")]
    _member: IgnoredAny,
    #[serde(default, rename = "epoch")]
    _epoch: IgnoredAny,
    #[serde(default, rename = "replayed")]
    _replayed: IgnoredAny,
}

/// Reads an object as pairs, in its order.
fn pairs<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<(String, String)>, D::Error> {
    struct Pairs;
    impl<'de> Visitor<'de> for Pairs {
        type Value = Vec<(String, String)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of texts")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut pairs = Vec::new();
            while let Some(pair) = map.next_entry()? {
                pairs.push(pair);
            }
            Ok(pairs)
        }
    }
    from.deserialize_map(Pairs)
}

/// Reads a field that is there, so that `null` is told from a missing one.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// Line that is not an envelope.
#[derive(Debug)]
pub(crate) struct BrokenLine {
    /// The line's number, from 1 on; empty lines count.
    pub(crate) number: usize,
    /// Problem, in words.
    pub(crate) problem: String,
}

impl fmt::Display for BrokenLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.number, self.problem)
    }
}

/// Reads envelopes, in order. Empty lines are skipped. The first broken line ends the reading.
pub(crate) fn read(lines: impl BufRead) -> impl Iterator<Item = Result<Envelope, BrokenLine>> {
    read_numbered(lines).map(|read| read.map(|(_, envelope)| envelope))
}

/// Reads as [`read`] does, with the number of each envelope's line. A byte order mark before the first line is passed
/// over.
pub(crate) fn read_numbered(lines: impl BufRead) -> impl Iterator<Item = Result<(usize, Envelope), BrokenLine>> {
    let numbered = (1..).zip(lines.split(b'\n')).filter_map(|(number, mut line)| {
        if let Ok(line) = &mut line
            && number == 1
            && line.starts_with(MARK)
        {
            line.drain(..MARK.len());
        }
        envelope(line).map(|read| (number, read))
    });
    let mut broken = false;
    numbered.map_while(move |(number, read)| {
        let stop = std::mem::replace(&mut broken, read.is_err());
        (!stop).then(|| read.map(|envelope| (number, envelope)).map_err(|problem| BrokenLine { number, problem }))
    })
}

/// Reads one line; `None` if it is empty.
fn envelope(line: io::Result<Vec<u8>>) -> Option<Result<Envelope, String>> {
    let line = match line {
        Ok(line) => line,
        Err(error) => return Some(Err(error.to_string())),
    };
    let text = match std::str::from_utf8(&line) {
        Ok(text) => text.trim(),
        Err(error) => return Some(Err(format!("no UTF-8 from byte {} on", error.valid_up_to() + 1))),
    };
    if text.is_empty() {
        return None;
    }
    let read = serde_json::from_str(text).map_err(|error| in_one_line(&error));
    Some(read.and_then(|line: Line<'_>| line.build()))
}

/// Words a parser's error without its line number, which counts within the object.
fn in_one_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
    format!("{what}, at column {}", error.column())
}

fn bytes(field: &str, base64: &str) -> Result<Vec<u8>, String> {
    STANDARD.decode(base64).map_err(|error| format!("{field}: {error}"))
}

fn with<T>(
    builder: EnvelopeBuilder,
    value: Option<T>,
    set: impl FnOnce(EnvelopeBuilder, T) -> EnvelopeBuilder,
) -> EnvelopeBuilder {
    match value {
        Some(value) => set(builder, value),
        None => builder,
    }
}

impl Line<'_> {
    fn build(self) -> Result<Envelope, String> {
        let mut builder = Envelope::builder(self.event_type, self.source.unwrap_or_else(|| SOURCE.to_owned()));
        builder = match (self.key, self.key_base64) {
            (Some(_), Some(_)) => return Err("key and key_base64 are both given".to_owned()),
            (Some(key), None) => builder.key(key),
            (None, Some(text)) => {
                let key = Key::from_bytes(bytes("key_base64", &text)?);
                builder.key(key.map_err(|error| format!("key_base64: {error}"))?)
            }
            (None, None) => builder,
        };
        if let Some(id) = self.id {
            builder = builder.id(id);
        }
        if let Some(sequence) = self.sequence {
            builder = builder.sequence(sequence);
        }
        if let Some(text) = self.time {
            let time = OffsetDateTime::parse(&text, &Rfc3339);
            builder = builder.time(time.map_err(|error| format!("time: expected RFC 3339, got {text:?} ({error})"))?);
        }
        for (name, value) in self.headers {
            builder = builder.header(name, value);
        }
        for (name, value) in self.extensions {
            builder = builder.extension(name, value);
        }
        builder = with(builder, self.version, EnvelopeBuilder::version);
        builder = with(builder, self.correlation_id, EnvelopeBuilder::correlation_id);
        builder = with(builder, self.causation_id, EnvelopeBuilder::causation_id);
        builder = with(builder, self.tenant, EnvelopeBuilder::tenant);
        builder = with(builder, self.traceparent, EnvelopeBuilder::traceparent);
        builder = with(builder, self.tracestate, EnvelopeBuilder::tracestate);
        let json = self.payload.map(|_| JSON.to_owned());
        builder = match (self.payload, self.payload_base64) {
            (Some(_), Some(_)) => return Err("payload and payload_base64 are both given".to_owned()),
            (Some(json), None) => builder.payload(json.get().to_owned()),
            (None, Some(text)) => builder.payload(bytes("payload_base64", &text)?),
            (None, None) => builder,
        };
        builder = with(builder, self.content_type.unwrap_or(json), EnvelopeBuilder::content_type);
        builder.build().map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(line: &str) -> Result<Envelope, String> {
        envelope(Ok(line.as_bytes().to_vec())).unwrap()
    }

    #[test]
    fn all_fields_arrive() {
        let read = one(concat!(
            r#"{"key":"k","type":"T","id":"i","source":"/s","time":"2026-01-02T03:04:05Z","sequence":7,"#,
            r#""headers":{"a":"b"},"payload":{"x": 1.0}}"#
        ));
        let read = read.unwrap();
        assert_eq!(read.key().unwrap().as_str(), Some("k"));
        assert_eq!((read.event_type(), read.id(), read.source(), read.sequence()), ("T", "i", "/s", Some(7)));
        assert_eq!(read.time().unix_timestamp(), 1_767_323_045);
        assert_eq!(read.header("a"), Some("b"));
        // The payload is made of the line's own bytes: numbers keep their form.
        assert_eq!(&read.payload()[..], br#"{"x": 1.0}"#);
        assert_eq!(&one(r#"{"type":"T","payload_base64":"AAE="}"#).unwrap().payload()[..], &[0, 1]);
        assert!(one(r#"{"type":"T"}"#).unwrap().key().is_none());
    }

    #[test]
    fn null_is_a_payload_and_told_from_none() {
        let of = |line: &str| {
            let read = one(line).unwrap();
            (String::from_utf8(read.payload().to_vec()).unwrap(), read.content_type().map(str::to_owned))
        };
        assert_eq!(of(r#"{"type":"T","payload":null}"#), ("null".into(), Some(JSON.into())));
        assert_eq!(of(r#"{"type":"T","payload":null,"content_type":null}"#), ("null".into(), None));
        assert_eq!(of(r#"{"type":"T"}"#), (String::new(), None));
        assert_eq!(of(r#"{"type":"T","payload_base64":null}"#), (String::new(), None));
    }

    #[test]
    fn a_byte_order_mark_before_the_first_line_is_passed_over_and_nowhere_else() {
        let line = "{\"type\":\"T\"}\n";
        let good = |text: &str| read(text.as_bytes()).filter(Result::is_ok).count();
        assert_eq!(good(&format!("\u{feff}{line}{line}")), 2);
        assert_eq!(good(&format!("\u{feff}\n{line}")), 1);
        assert_eq!(good(&format!("{line}\u{feff}{line}")), 1);
        assert_eq!(good("\u{feff}"), 0);
        assert!(read("\u{feff}".as_bytes()).next().is_none());
    }

    #[test]
    fn broken_lines_say_what_is_wrong() {
        for (line, says) in [
            ("{", "EOF while parsing"),
            ("[]", "column"),
            (r#"{"key":"k"}"#, "missing field `type`"),
            (r#"{"type":"T","keys":"k"}"#, "unknown field `keys`"),
            (r#"{"type":"T","key":""}"#, "key"),
            (r#"{"type":""}"#, "type"),
            (r#"{"type":"T","time":"yesterday"}"#, "time: expected RFC 3339"),
            (r#"{"type":"T","payload":1,"payload_base64":""}"#, "both"),
            (r#"{"type":"T","payload":null,"payload_base64":"aGk="}"#, "payload and payload_base64 are both given"),
            (r#"{"type":"T","key":"a","key_base64":"aGk="}"#, "both"),
            (r#"{"type":"T","key_base64":"!"}"#, "key_base64"),
            (r#"{"type":"T","payload_base64":"!"}"#, "payload_base64"),
            (r#"{"type":"T","headers":{"ce-id":"x"}}"#, "reserved"),
        ] {
            let error = one(line).unwrap_err();
            assert!(error.contains(says), "{line}: {error}");
        }
    }

    #[test]
    fn the_number_of_the_broken_line_counts_empty_ones() {
        let text = "{\"type\":\"T\"}\n\n{\"type\":3}\n{\"type\":\"T\"}\n";
        let read: Vec<_> = read(text.as_bytes()).collect();
        assert_eq!(read.len(), 2);
        assert_eq!(read[1].as_ref().unwrap_err().number, 3);
    }

    /// `EVENTBUS_FUZZ_INPUTS` sets the number of inputs; `scripts/fuzz` sets a large one.
    fn inputs() -> ProptestConfig {
        let cases = std::env::var("EVENTBUS_FUZZ_INPUTS").ok().and_then(|inputs| inputs.parse().ok()).unwrap_or(1_000);
        ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
    }

    proptest! {
        #![proptest_config(inputs())]

        #[test]
        fn foreign_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let lines = bytes.split(|byte| *byte == b'\n').count();
            for (at, line) in read(&bytes[..]).enumerate() {
                prop_assert!(at < lines);
                if let Err(BrokenLine { number, problem }) = line {
                    prop_assert!((1..=lines).contains(&number) && !problem.is_empty() && !problem.contains('\n'), "{}: {}", number, problem);
                }
            }
        }

        #[test]
        fn a_foreign_object_is_read_or_refused(
            fields in prop::collection::vec(("(key|key_base64|id|time|headers|extensions|content_type|payload|payload_base64|sequence|version|partition|tenant)", "(\"[^\"]{0,8}\"|-?[0-9]{1,22}|null|\\{\\}|\\[\\]|\\{\"[a-z]{1,9}\":\"[a-z ]{0,3}\"\\})"), 0..6)
        ) {
            let fields: Vec<String> = fields.into_iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
            let lines = format!("\u{feff}{{\"type\":\"T\",{}}}\n", fields.join(","));
            for read in read(lines.as_bytes()) {
                // What is read is printed so that it is read as the same.
                let Ok(envelope) = read else { continue };
                let printed = crate::record::printed(&envelope);
                let again = one(std::str::from_utf8(&printed).unwrap());
                prop_assert_eq!(again, Ok(envelope), "{}", String::from_utf8_lossy(&printed));
            }
        }
    }
}
