//! A TCP proxy that injects faults between one client and its broker.
//!
//! ```text
//! client ──► Proxy ──► broker        every frame that the client sends passes the rules
//!        ◄──       ◄──               so does every answer
//! ```
//!
//! A [`Proxy`] is one listening port, for one connection under test: it is cut, healed, frozen, thawed, delayed or made deaf
//! in one direction as a whole. Rules strike single messages: the proxy reads the broker's protocol in both directions,
//! frame by frame, and a frame is passed on whole or not at all. [`nats`] and [`kafka`] are the protocols.

pub mod kafka;
mod link;
pub mod nats;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::brokers::{BrokerError, background};

/// One way through the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Direction {
    /// What the client sends.
    ToBroker,
    /// What the broker sends.
    ToClient,
}

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

/// What a proxy does to its connections now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Mode {
    /// Counts cuts: a link that was made under another count ends.
    cuts: u64,
    /// No new links.
    closed: bool,
    /// Nothing is read from the client, or from the broker: connections stay.
    stopped: [bool; 2],
    /// What passes is thrown away.
    deaf: [bool; 2],
    /// What passes waits so long.
    delay: [Duration; 2],
}

impl Mode {
    const fn of(direction: Direction) -> usize {
        match direction {
            Direction::ToBroker => 0,
            Direction::ToClient => 1,
        }
    }
}

/// One port in front of a broker. Dropping it cuts.
pub struct Proxy {
    address: SocketAddr,
    mode: Arc<watch::Sender<Mode>>,
    accepting: tokio::task::AbortHandle,
}

impl Proxy {
    /// Listens on a port of its own and passes on to `broker`, frame by frame under the rules of the protocol.
    ///
    /// # Errors
    /// Where the host gives no port.
    pub async fn start(broker: SocketAddr, protocol: Arc<impl Protocol>) -> Result<Self, BrokerError> {
        let (mode, modes) = watch::channel(Mode::default());
        let (sender, port) = tokio::sync::oneshot::channel();
        let accepting = background()?.spawn(async move {
            let listener = match TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await {
                Ok(listener) => listener,
                Err(error) => return drop(sender.send(Err(error))),
            };
            let ends = Ends { front: listener.local_addr().map_or(0, |own| own.port()), broker: broker.port() };
            let _ = sender.send(listener.local_addr());
            while let Ok((client, _)) = listener.accept().await {
                let mode = *modes.borrow();
                if !mode.closed {
                    // Cut off, the client finds a port that ends every connection at once.
                    let said = (protocol.clone().converse(ends), protocol.releases());
                    tokio::spawn(link::run(client, broker, modes.clone(), mode.cuts, said));
                }
            }
        });
        let address = port.await.map_err(|_| BrokerError::Runtime("it ended".into()))?;
        let address = address.map_err(|error| BrokerError::Runtime(error.to_string()))?;
        Ok(Self { address, mode: Arc::new(mode), accepting: accepting.abort_handle() })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends all connections and lets none through until [`heal`](Self::heal).
    pub fn cut(&self) {
        self.mode.send_modify(|mode| {
            mode.cuts += 1;
            mode.closed = true;
        });
    }

    /// Whether nothing gets through now, or not in both directions.
    #[must_use]
    pub fn is_shut(&self) -> bool {
        let mode = *self.mode.borrow();
        mode != Mode { cuts: mode.cuts, delay: mode.delay, ..Mode::default() }
    }

    /// Ends all connections; new ones are let through.
    pub fn reset(&self) {
        self.mode.send_modify(|mode| mode.cuts += 1);
    }

    /// Ends whatever was done: lets connections through, in both directions, without delay.
    pub fn heal(&self) {
        self.mode.send_modify(|mode| *mode = Mode { cuts: mode.cuts, ..Mode::default() });
    }

    /// Passes nothing on until [`heal`](Self::heal); connections stay, and what is sent meanwhile arrives then.
    pub fn freeze(&self) {
        self.stop(Direction::ToBroker);
        self.stop(Direction::ToClient);
    }

    /// The same in one direction.
    pub fn stop(&self, direction: Direction) {
        self.mode.send_modify(|mode| mode.stopped[Mode::of(direction)] = true);
    }

    /// Throws away what is sent in this direction, until [`heal`](Self::heal); connections stay. They are of no use
    /// afterwards, since what was thrown away may have ended within a frame: heal by [`reset`](Self::reset) as well.
    pub fn black_hole(&self, direction: Direction) {
        self.mode.send_modify(|mode| mode.deaf[Mode::of(direction)] = true);
    }

    /// Lets everything in this direction wait so long, in order.
    pub fn delay(&self, direction: Direction, delay: Duration) {
        self.mode.send_modify(|mode| mode.delay[Mode::of(direction)] = delay);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
        self.accepting.abort();
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("address", &self.address).finish_non_exhaustive()
    }
}
