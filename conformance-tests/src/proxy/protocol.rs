//! A protocol that is spoken through a proxy, and the conversations in it.

use std::fmt;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::sync::watch;

/// What is spoken through a proxy, with the faults of one world. One may be shared by the proxies of many processes: a fault
/// that strikes the n-th publish counts over all of them.
pub trait Protocol: fmt::Debug + Send + Sync + 'static {
    /// One more connection.
    fn converse(self: Arc<Self>, ends: Ends) -> Box<dyn Conversation>;

    /// Counts how often answers that are held were let go. Default: none is ever held.
    fn releases(&self) -> watch::Receiver<u64> {
        watch::channel(0).1
    }
}

/// What is said on one connection. `None` ends it: what was said is not the protocol.
pub trait Conversation: Send {
    /// The client sent these bytes.
    fn sent(&mut self, bytes: &[u8]) -> Option<Passed>;

    /// The broker sent these bytes; what of it passes.
    fn answered(&mut self, bytes: &[u8]) -> Option<BytesMut>;

    /// What was held and may go now.
    fn released(&mut self) -> BytesMut {
        BytesMut::new()
    }
}

/// What becomes of bytes of a client.
#[derive(Debug, Default)]
#[allow(clippy::exhaustive_structs)] // made by every protocol
pub struct Passed {
    /// To the broker.
    pub on: BytesMut,
    /// Back to the client, as if the broker had answered.
    pub back: BytesMut,
}

/// Ports of a proxy and of the broker behind it.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::exhaustive_structs)] // two numbers
pub struct Ends {
    /// The proxy's own.
    pub front: u16,
    /// The broker's.
    pub broker: u16,
}
