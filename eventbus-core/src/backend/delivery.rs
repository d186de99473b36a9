//! Records out of the log: [`Inbound`].

use bytes::Bytes;

use crate::model::{Envelope, Key, Position, Stamp};
use crate::wire;
use crate::wire::{Binding, WireRecord};

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

    /// The user's sequence, which tells nothing about copies: for the mutant that thinks it does.
    pub(crate) fn sequence(&self) -> Option<u64> {
        match &self.body {
            Body::Envelope(envelope) => envelope.sequence(),
            Body::Encoded { record, binding } => {
                let topic = "t".parse().ok()?;
                let at = wire::DecodeContext {
                    topic: &topic,
                    partition: self.partition,
                    position: self.position,
                    stored_at: 0,
                };
                wire::decode(record, binding, &at).ok()?.envelope.sequence()
            }
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
