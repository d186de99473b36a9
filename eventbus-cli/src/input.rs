//! NDJSON form of the envelopes that the program reads: one object a line.
//!
//! ```text
//! {"key":"order-1","type":"OrderPlaced","id":"…"?,"source":"…"?,"time":"…"?,"sequence":7?,"headers":{…}?,"payload":…}
//! ```
//! with `payload_base64` for bytes that are not JSON. The error for a broken line tells its number.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use eventbus::Envelope;
use serde::Deserialize;
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The source of events whose line names none.
const SOURCE: &str = "/eventbus-cli";

/// Line of the input, as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    key: Option<String>,
    #[serde(rename = "type")]
    event_type: String,
    id: Option<String>,
    source: Option<String>,
    time: Option<String>,
    sequence: Option<u64>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
    payload_base64: Option<String>,
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

/// Reads as [`read`] does, with the number of each envelope's line.
pub(crate) fn read_numbered(lines: impl BufRead) -> impl Iterator<Item = Result<(usize, Envelope), BrokenLine>> {
    let numbered = (1..).zip(lines.split(b'\n')).filter_map(|(number, line)| envelope(line).map(|read| (number, read)));
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

impl Line<'_> {
    fn build(self) -> Result<Envelope, String> {
        let mut builder = Envelope::builder(self.event_type, self.source.unwrap_or_else(|| SOURCE.to_owned()));
        if let Some(key) = self.key {
            builder = builder.key(key);
        }
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
        builder = match (self.payload, self.payload_base64) {
            (Some(_), Some(_)) => return Err("payload and payload_base64 are both given".to_owned()),
            (Some(json), None) => builder.payload(json.get().to_owned()).content_type("application/json"),
            (None, Some(text)) => {
                let bytes = STANDARD.decode(text).map_err(|error| format!("payload_base64: {error}"))?;
                builder.payload(bytes)
            }
            (None, None) => builder,
        };
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

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes[..]).count();
        }

        #[test]
        fn no_object_makes_the_reader_panic(
            fields in prop::collection::vec(("(key|type|id|time|headers|payload|sequence)", "(\"[^\"]{0,8}\"|-?[0-9]{1,22}|null|\\{\\}|\\[\\])"), 0..6)
        ) {
            let fields: Vec<String> = fields.into_iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
            let _ = read(format!("{{{}}}", fields.join(",")).as_bytes()).count();
        }
    }
}
