//! Records read from the log: [`Inbound`].

use bytes::Bytes;

use crate::model::{Envelope, Key, Position, Result, Stamp, Topic};
use crate::wire::{self, Binding, DecodeContext, WireRecord};

/// The number of headers whose memory counts as that of their names and values.
const USUAL_HEADERS: usize = 32;

/// Bytes that each further header takes beside its name and its value.
const HEADER: usize = 96;

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
}

impl Inbound {
    /// Makes a record. Reads key and stamp without decoding the rest, which happens on the handler's thread.
    #[must_use]
    pub fn new(partition: u32, position: Position, stored_at: u64, body: Body) -> Self {
        let (key, stamp, bytes) = match &body {
            Body::Envelope(envelope) => (envelope.key().cloned(), None, envelope.size()),
            Body::Encoded { record, binding } => {
                let peek = wire::peek(record, binding);
                let beyond = record.headers.len().saturating_sub(USUAL_HEADERS);
                (peek.key, peek.stamp, record.size() + beyond * HEADER)
            }
        };
        Self { partition, position, key, stamp, bytes, stored_at, body }
    }

    /// Returns the envelope, decoded if it is not yet.
    ///
    /// # Errors
    /// `Undecodable`, as [`wire::decode`] says.
    pub(crate) fn envelope(&self, topic: &Topic) -> Result<Envelope> {
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
        Self { partition: 0, position: Position::ZERO, key: None, stamp: None, bytes: 0, stored_at: 0, body }
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
