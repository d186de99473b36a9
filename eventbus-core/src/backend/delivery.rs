//! Records read from the log: [`Inbound`].

use std::sync::Arc;

use bytes::Bytes;

use crate::model::{Envelope, Error, ErrorKind, Key, Position, Result, Stamp, Topic};
use crate::wire::{self, Binding, DecodeContext, WireRecord};

/// One record read from the log.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Inbound {
    /// The partition that the record was read from.
    pub partition: u32,
    /// The record's position in its partition.
    pub position: Position,
    /// The key, read without decoding the rest.
    pub key: Option<Key>,
    /// The stamp, where a bus of this library wrote the record.
    pub stamp: Option<Stamp>,
    /// Bytes that the record holds in memory.
    pub bytes: usize,
    /// The time at which the broker stored the record, in milliseconds since the Unix epoch.
    pub stored_at: u64,
    /// The content, decoded or not.
    pub body: Body,
    /// The reason for which the record counts as undecodable, whatever its body is.
    unreadable: Option<Arc<str>>,
}

impl Inbound {
    /// Makes a record. Reads key and stamp without decoding the rest, which happens on the handler's thread.
    #[must_use]
    pub fn new(partition: u32, position: Position, stored_at: u64, body: Body) -> Self {
        let (key, stamp, bytes) = match &body {
            Body::Envelope(envelope) => (envelope.key().cloned(), None, envelope.size()),
            Body::Encoded { record, binding } => {
                let peek = wire::peek(record, binding);
                (peek.key, peek.stamp, record.held())
            }
        };
        Self { partition, position, key, stamp, bytes, stored_at, body, unreadable: None }
    }

    /// Marks a record that the broker's client cannot give as it was written, and says why: it goes to the failure
    /// policy as undecodable (S2), with the key and the payload that it was made with.
    #[must_use]
    pub fn undecodable(mut self, why: impl Into<Arc<str>>) -> Self {
        self.unreadable = Some(why.into());
        self
    }

    /// Returns whether the record was marked as [`undecodable`](Self::undecodable).
    #[must_use]
    pub fn is_undecodable(&self) -> bool {
        self.unreadable.is_some()
    }

    /// Returns the envelope, decoded if it is not yet.
    ///
    /// # Errors
    /// `Undecodable`, as [`wire::decode`] says.
    pub(crate) fn envelope(&self, topic: &Topic) -> Result<Envelope> {
        if let Some(why) = &self.unreadable {
            let error = Error::new(ErrorKind::Undecodable, why.to_string()).with("topic", topic);
            return Err(error.with("partition", self.partition).with("position", self.position));
        }
        match &self.body {
            Body::Envelope(envelope) => Ok(envelope.clone()),
            Body::Encoded { record, binding } => {
                let Self { partition, position, stored_at, .. } = *self;
                let at = DecodeContext { topic, partition, position, stored_at };
                wire::decode(record, binding, &at).map(|decoded| decoded.envelope)
            }
        }
    }

    /// Decodes the body, so that nobody has to do it again. A record that cannot be decoded stays encoded: the failure
    /// policy gets it when its turn comes.
    pub(crate) fn decode(&mut self, topic: &Topic) {
        if let Ok(envelope) = self.envelope(topic) {
            self.body = Body::Envelope(envelope);
        }
    }

    /// Sets the stamp, for a backend that does not learn it from the body.
    #[must_use]
    pub fn stamped(mut self, stamp: Option<Stamp>) -> Self {
        self.stamp = stamp;
        self
    }

    /// The empty record, as which an emptied box of the pool reads.
    pub(crate) const fn nothing() -> Self {
        static BINDING: Binding = Binding::new("");
        let record = WireRecord { key: None, headers: Vec::new(), payload: Bytes::new() };
        let body = Body::Encoded { record, binding: &BINDING };
        let (key, stamp, unreadable) = (None, None, None);
        Self { partition: 0, position: Position::ZERO, key, stamp, bytes: 0, stored_at: 0, body, unreadable }
    }
}

/// Content of a record.
#[derive(Debug, Clone)]
pub enum Body {
    /// An envelope that needs no decoding.
    Envelope(Envelope),
    /// A record as the broker delivered it.
    Encoded {
        /// Key, headers and payload, still encoded.
        record: WireRecord,
        /// The names by which the record is decoded.
        binding: &'static Binding,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_cannot_be_given_whole_is_undecodable_and_keeps_key_and_payload() {
        static BINDING: Binding = Binding::new("ce_").keyed(true);
        let record = WireRecord { key: Some("k".into()), headers: Vec::new(), payload: "p".into() };
        let body = Body::Encoded { record, binding: &BINDING };
        let mut record = Inbound::new(3, Position::new(9), 0, body).undecodable("no headers");
        let topic = "orders".parse().unwrap();
        let error = record.envelope(&topic).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Undecodable);
        for told in ["no headers", "orders", "9"] {
            assert!(error.to_string().contains(told), "{error}");
        }
        record.decode(&topic);
        assert!(record.is_undecodable() && matches!(record.body, Body::Encoded { .. }));
        assert_eq!(record.key, Some(Key::from_bytes("k").unwrap()));
    }
}
