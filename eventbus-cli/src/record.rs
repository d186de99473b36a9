//! Line by which `subscribe` and `dead-letter` print an envelope.
//!
//! A payload of JSON stands in the line as it is, except that line ends between its tokens become spaces. Every other
//! payload is `payload_base64`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use eventbus::{Delivery, Envelope};
use serde::Serialize;
use serde_json::value::RawValue;
use time::format_description::well_known::Rfc3339;

use crate::input::JSON;

/// Place of an envelope: where it was read, and by which member.
#[derive(Debug, Serialize)]
pub(crate) struct DeliveryPlace<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: u32,
    pub(crate) position: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) attempt: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) member: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) epoch: Option<u64>,
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) replayed: bool,
}

impl<'a> DeliveryPlace<'a> {
    /// Returns the place of a delivery.
    pub(crate) fn of(delivery: &'a Delivery) -> Self {
        Self {
            topic: delivery.topic().as_str(),
            partition: delivery.partition(),
            position: delivery.position().get(),
            attempt: Some(delivery.attempt()),
            member: Some(delivery.member()),
            epoch: Some(delivery.epoch()),
            replayed: delivery.is_replayed(),
        }
    }
}

/// Fields of a line. `more` holds those that only one command has.
#[derive(Debug, Serialize)]
struct Line<'a, M> {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    /// The key, if it is not text: foreign producers may write such keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    id: &'a str,
    #[serde(rename = "type")]
    event_type: &'a str,
    source: &'a str,
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
    #[serde(flatten)]
    place: &'a DeliveryPlace<'a>,
    #[serde(flatten)]
    more: &'a M,
    #[serde(serialize_with = "headers")]
    headers: &'a Envelope,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    causation_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tracestate: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extensions: BTreeMap<&'a str, &'a str>,
    /// The content type, where it is not the one that the reader of the line would take.
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<Option<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
}

/// What the names of the bus's own extension attributes begin with: marks of a delivery, such as a replay's.
const OWN: &str = "eventbus";

/// Absence of further fields.
#[derive(Debug, Serialize)]
pub(crate) struct Nothing {}

/// Writes one line, with its end.
pub(crate) fn line(envelope: &Envelope, place: &DeliveryPlace<'_>, more: &impl Serialize) -> Result<Vec<u8>, String> {
    let payload = envelope.payload();
    let text = json_in_one_line(envelope);
    let json = text.as_deref().and_then(|text| serde_json::from_str::<&RawValue>(text).ok());
    let key = envelope.key();
    let line = Line {
        key: key.and_then(|key| key.as_str()),
        key_base64: key.filter(|key| key.as_str().is_none()).map(|key| STANDARD.encode(key.as_bytes())),
        id: envelope.id(),
        event_type: envelope.event_type(),
        source: envelope.source(),
        time: envelope.time().format(&Rfc3339).map_err(|error| error.to_string())?,
        sequence: envelope.sequence(),
        place,
        more,
        headers: envelope,
        version: envelope.version(),
        correlation_id: envelope.correlation_id(),
        causation_id: envelope.causation_id(),
        tenant: envelope.tenant(),
        traceparent: envelope.traceparent(),
        tracestate: envelope.tracestate(),
        extensions: envelope.extensions().filter(|(name, _)| !name.starts_with(OWN)).collect(),
        content_type: Some(envelope.content_type()).filter(|media| *media != json.map(|_| JSON)),
        payload: json,
        payload_base64: (json.is_none() && !payload.is_empty()).then(|| STANDARD.encode(payload)),
    };
    let mut written = serde_json::to_vec(&line).map_err(|error| error.to_string())?;
    written.push(b'\n');
    Ok(written)
}

/// Returns the payload as text without line ends, if it may be JSON. In JSON, a line end is always white space between
/// tokens.
fn json_in_one_line(envelope: &Envelope) -> Option<Cow<'_, str>> {
    let is_json = |media: &str| {
        let media = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        media == "application/json" || media.ends_with("+json")
    };
    if !envelope.content_type().is_none_or(is_json) {
        return None;
    }
    let text = std::str::from_utf8(envelope.payload()).ok()?;
    Some(if text.contains(['\n', '\r']) { text.replace(['\n', '\r'], " ").into() } else { text.into() })
}

fn headers<S: serde::Serializer>(envelope: &Envelope, to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(envelope.headers())
}

#[allow(clippy::trivially_copy_pass_by_ref)] // as serde calls it
const fn is_false(value: &bool) -> bool {
    !*value
}

/// Prints an envelope as `subscribe` does, for tests of those who read the line.
#[cfg(test)]
pub(crate) fn printed(envelope: &Envelope) -> Vec<u8> {
    tests::written(envelope).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> DeliveryPlace<'static> {
        DeliveryPlace {
            topic: "t",
            partition: 3,
            position: 17,
            attempt: Some(1),
            member: Some("m"),
            epoch: Some(5),
            replayed: false,
        }
    }

    pub(super) fn written(envelope: &Envelope) -> String {
        String::from_utf8(line(envelope, &place(), &Nothing {}).unwrap()).unwrap()
    }

    #[test]
    fn the_line_has_every_field_once() {
        let time = time::OffsetDateTime::UNIX_EPOCH;
        let builder = Envelope::builder("T", "/s").id("i").time(time).key("k").sequence(7).header("h", "v");
        let text = written(&builder.payload("{\"x\": 1.0}").content_type("application/json").build().unwrap());
        let expected = concat!(
            r#"{"key":"k","id":"i","type":"T","source":"/s","time":"1970-01-01T00:00:00Z","sequence":7,"topic":"t","#,
            r#""partition":3,"position":17,"attempt":1,"member":"m","epoch":5,"headers":{"h":"v"},"payload":{"x": 1.0}}"#,
            "\n"
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn the_line_is_read_back_as_the_same_envelope() {
        let full = || {
            Envelope::builder("T", "/s")
                .id("i")
                .key("k")
                .sequence(7)
                .version(2)
                .header("h", "v")
                .tenant("t")
                .traceparent("p")
                .tracestate("s")
        };
        let key = eventbus::Key::from_bytes(vec![255]).unwrap();
        for envelope in [
            full().header("a", "w").correlation_id("c").causation_id("d").extension("x", "1").json(&1),
            full().extension("subject", "other").extension("dataschema", "/schema").payload("null"),
            Envelope::builder("T", "/s").payload("null").content_type(JSON),
            Envelope::builder("T", "/s").payload("12").content_type("text/plain"),
            Envelope::builder("T", "/s").payload("{}").content_type("application/cloud+json"),
            Envelope::builder("T", "/s").payload("not json").content_type(JSON),
            Envelope::builder("T", "/s").payload(vec![0, 255]).key(key),
            Envelope::builder("T", "/s").content_type("text/plain"),
            Envelope::builder("T", "/s"),
        ] {
            let envelope = envelope.build().unwrap();
            let text = written(&envelope);
            let read: Vec<_> = crate::input::read(text.as_bytes()).collect();
            assert_eq!(read[0].as_ref().unwrap(), &envelope, "{text}");
        }
    }

    #[test]
    fn json_of_several_lines_is_one_line() {
        let text = written(&Envelope::builder("T", "/s").payload("{\r\n  \"a\": \"b\\nc\"\n}\n").build().unwrap());
        assert_eq!(text.matches('\n').count(), 1);
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read["payload"]["a"], "b\nc");
    }

    #[test]
    fn what_is_no_json_is_base64() {
        let of = |builder: eventbus::EnvelopeBuilder| -> serde_json::Value {
            serde_json::from_str(&written(&builder.build().unwrap())).unwrap()
        };
        let bytes = of(Envelope::builder("T", "/s").payload(vec![0, 255]));
        assert_eq!((&bytes["payload_base64"], bytes.get("payload")), (&"AP8=".into(), None));
        let text = of(Envelope::builder("T", "/s").payload("12").content_type("text/plain"));
        assert_eq!(text["payload_base64"], "MTI=");
        let nothing = of(Envelope::builder("T", "/s"));
        assert!(nothing.get("payload").is_none() && nothing.get("payload_base64").is_none());
        assert!(nothing.get("key").is_none() && nothing.get("sequence").is_none());
        let key = eventbus::Key::from_bytes(vec![255]).unwrap();
        assert_eq!(of(Envelope::builder("T", "/s").key(key))["key_base64"], "/w==");
    }
}
