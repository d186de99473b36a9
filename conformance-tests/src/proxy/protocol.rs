//! A protocol that is spoken through a proxy, and the conversations in it.

use std::fmt;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::sync::watch;

/// A protocol that is spoken through a proxy, with the faults of one world. The proxies of many processes may share
/// one: a fault that strikes the n-th publish counts over all of them.
pub trait Protocol: fmt::Debug + Send + Sync + 'static {
    /// Begins the conversation of one more connection.
    fn converse(self: Arc<Self>, ends: Ends) -> Box<dyn Conversation>;

    /// Counts how often held answers were let go. Default: none is ever held.
    fn releases(&self) -> watch::Receiver<u64> {
        watch::channel(0).1
    }
}

/// The conversation on one connection. A method that returns `None` ends it: the bytes are not the protocol.
pub trait Conversation: Send {
    /// Takes bytes of the client.
    fn sent(&mut self, bytes: &[u8]) -> Option<Passed>;

    /// Takes bytes of the broker. Returns those that pass.
    fn answered(&mut self, bytes: &[u8]) -> Option<BytesMut>;

    /// Takes out the bytes that were held and may go now.
    fn released(&mut self) -> BytesMut {
        BytesMut::new()
    }
}

/// Bytes that pass after a client has sent some.
#[derive(Debug, Default)]
#[allow(clippy::exhaustive_structs)] // made by every protocol
pub struct Passed {
    /// Bytes for the broker.
    pub on: BytesMut,
    /// Bytes back to the client, as if the broker had answered.
    pub back: BytesMut,
}

/// Ports of a proxy and of the broker behind it.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::exhaustive_structs)] // two numbers
pub struct Ends {
    /// The proxy's own port.
    pub front: u16,
    /// The broker's port.
    pub broker: u16,
}
