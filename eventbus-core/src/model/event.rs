//! Typed events: [`Event`], for a user's type that knows its own event type and key.

use std::borrow::Cow;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::codec::Codec;
use super::envelope::Envelope;
use super::envelope_builder::EnvelopeBuilder;
use super::error::{Error, ErrorKind};

/// A user's type that stands for one type of event.
///
/// ```
/// use std::borrow::Cow;
/// use eventbus_core::{Envelope, Event, Json};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct OrderPlaced { order: String, total: u64 }
///
/// impl Event for OrderPlaced {
///     const EVENT_TYPE: &'static str = "OrderPlaced";
///
///     fn key(&self) -> Option<Cow<'_, str>> {
///         Some(self.order.as_str().into())
///     }
/// }
///
/// let placed = OrderPlaced { order: "order-42".into(), total: 12 };
/// let envelope = Envelope::of_event(&placed, "/shop", &Json).build()?;
/// assert_eq!(envelope.key().and_then(|key| key.as_str()), Some("order-42"));
/// assert_eq!(envelope.event::<OrderPlaced, _>(&Json)?.total, 12);
/// # Ok::<(), eventbus_core::Error>(())
/// ```
pub trait Event: Serialize + DeserializeOwned {
    /// The `type` of the event's envelopes, unique among the types of a topic.
    const EVENT_TYPE: &'static str;

    /// The version of the event's schema. Default: not stated.
    const VERSION: Option<u32> = None;

    /// Returns the key of the event's envelope. Default: none, so the envelope is related to no other.
    fn key(&self) -> Option<Cow<'_, str>> {
        None
    }
}

impl Envelope {
    /// Starts the envelope of a typed event, with its type, version, key and payload.
    pub fn of_event<E: Event, C: Codec>(event: &E, source: impl Into<String>, codec: &C) -> EnvelopeBuilder {
        let mut builder = Self::builder(E::EVENT_TYPE, source).encoded(event, codec);
        if let Some(version) = E::VERSION {
            builder = builder.version(version);
        }
        match event.key() {
            Some(key) => builder.key(&*key),
            None => builder,
        }
    }

    /// Decodes the typed event in this envelope.
    ///
    /// # Errors
    /// `Undecodable` for an envelope of another type, and as [`decode`](Self::decode).
    pub fn event<E: Event, C: Codec>(&self, codec: &C) -> Result<E, Error> {
        if self.event_type() == E::EVENT_TYPE {
            return self.decode(codec);
        }
        let message = format!("expected type {:?}, got {:?}", E::EVENT_TYPE, self.event_type());
        Err(Error::new(ErrorKind::Undecodable, message).with("id", self.id()))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::model::Json;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Tick(u64);

    impl Event for Tick {
        const EVENT_TYPE: &'static str = "Tick";
        const VERSION: Option<u32> = Some(3);
    }

    #[test]
    fn a_typed_event_carries_type_version_and_content_type() {
        let envelope = Envelope::of_event(&Tick(7), "/clock", &Json).build().unwrap();
        assert_eq!((envelope.event_type(), envelope.version(), envelope.key()), ("Tick", Some(3), None));
        assert_eq!(envelope.content_type(), Some("application/json"));
        assert_eq!(envelope.event::<Tick, _>(&Json).unwrap(), Tick(7));
    }

    #[test]
    fn another_type_or_broken_json_is_refused_by_name() {
        let other = Envelope::builder("Tock", "/clock").id("e-1").payload("7").build().unwrap();
        let error = other.event::<Tick, _>(&Json).unwrap_err();
        assert!(error.to_string().contains("expected type \"Tick\", got \"Tock\""), "{error}");
        let error = other.decode_json::<String>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Undecodable);
        assert!(error.to_string().contains("id=e-1"), "{error}");
    }

    #[test]
    fn what_does_not_serialise_is_told_by_build() {
        let keyed_by_unit = std::collections::BTreeMap::from([((), 1)]);
        let error = Envelope::builder("T", "/s").encoded(&keyed_by_unit, &Json).build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidEnvelope);
        let empty_key = Envelope::builder("T", "/s").key("").build().unwrap_err();
        assert_eq!(empty_key.kind(), ErrorKind::InvalidName);
    }
}
