//! Records out of the log: [`Inbound`].

use bytes::Bytes;

use crate::model::{Envelope, Key, Position, Result, Stamp, Topic};
use crate::wire::{self, Binding, DecodeContext, WireRecord};

/// One record out of the log.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Inbound {
    /// The partition it was read from.
    pub partition: u32,
    /// Its position there.
    pub position: Position,
    /// Its key, without decoding the rest.
    pub key: Option<Key>,
    /// Its stamp, where a bus of this library wrote it.
    pub stamp: Option<Stamp>,
    /// Bytes it holds in memory.
    pub bytes: usize,
    /// When the broker stored it, in milliseconds since the Unix epoch.
    pub stored_at: u64,
    /// What it holds, decoded or not.
    pub body: Body,
}

impl Inbound {
    /// A record. Key and stamp are looked up without decoding the rest; that happens on the handler's thread.
    #[must_use]
    pub fn new(partition: u32, position: Position, stored_at: u64, body: Body) -> Self {
        let (key, stamp, bytes) = match &body {
            Body::Envelope(envelope) => (envelope.key().cloned(), None, envelope.size()),
            Body::Encoded { record, binding } => {
                let peek = wire::peek(record, binding);
                (peek.key, peek.stamp, record.size())
            }
        };
        Self { partition, position, key, stamp, bytes, stored_at, body }
    }

    /// The envelope, decoded where it is not yet.
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

    /// Decodes the body, so that nobody has to do it again. A record that cannot be decoded stays as it is: the failure
    /// policy gets it when its turn comes.
    pub(crate) fn decode(&mut self, topic: &Topic) {
        if let Ok(envelope) = self.envelope(topic) {
            self.body = Body::Envelope(envelope);
        }
    }

    /// Sets the stamp, where the backend knows it otherwise.
    #[must_use]
    pub fn stamped(mut self, stamp: Option<Stamp>) -> Self {
        self.stamp = stamp;
        self
    }

    /// A record of nothing.
    pub(crate) const fn nothing() -> Self {
        static BINDING: Binding = Binding::new("");
        let record = WireRecord { key: None, headers: Vec::new(), payload: Bytes::new() };
        let body = Body::Encoded { record, binding: &BINDING };
        Self { partition: 0, position: Position::ZERO, key: None, stamp: None, bytes: 0, stored_at: 0, body }
    }
}

/// A record's content.
#[derive(Debug, Clone)]
pub enum Body {
    /// Already an envelope.
    Envelope(Envelope),
    /// As it came from the wire.
    Encoded {
        /// Key, headers and payload.
        record: WireRecord,
        /// How to read it.
        binding: &'static Binding,
    },
}
