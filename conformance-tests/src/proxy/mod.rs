//! A TCP proxy that injects faults between one client and its broker.
//!
//! ```text
//! client ──► Proxy ──► broker        every frame that the client sends passes the rules
//!        ◄──       ◄──               so does every answer
//! ```
//!
//! A [`Proxy`] is one listening port, for one connection under test: it is cut, healed, frozen, thawed, delayed or made
//! deaf in one direction as a whole. Rules strike single messages: the proxy reads the broker's protocol in both
//! directions, frame by frame, and a frame is passed on whole or not at all. [`nats`] and [`kafka`] are the protocols.

pub mod kafka;
mod link;
mod mode;
pub mod nats;
mod protocol;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;

pub use self::mode::Direction;
use self::mode::Mode;
pub use self::protocol::{Conversation, Ends, Passed, Protocol};
use crate::brokers::{BrokerError, background};

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
                    // A client that is cut off finds a port that ends every connection at once.
                    let said = (protocol.clone().converse(ends), protocol.releases());
                    tokio::spawn(link::run(client, broker, modes.clone(), mode.cuts, said));
                }
            }
        });
        let address = port.await.map_err(|_| BrokerError::Runtime("it ended".into()))?;
        let address = address.map_err(|error| BrokerError::Runtime(error.to_string()))?;
        Ok(Self { address, mode: Arc::new(mode), accepting: accepting.abort_handle() })
    }

    /// The address at which the proxy listens.
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

    /// Whether nothing gets through now, in one direction or both.
    #[must_use]
    pub fn is_shut(&self) -> bool {
        let mode = *self.mode.borrow();
        mode != Mode { cuts: mode.cuts, delay: mode.delay, ..Mode::default() }
    }

    /// Ends all connections; new ones are let through.
    pub fn reset(&self) {
        self.mode.send_modify(|mode| mode.cuts += 1);
    }

    /// Ends all of it: lets connections through, in both directions, without delay.
    pub fn heal(&self) {
        self.mode.send_modify(|mode| *mode = Mode { cuts: mode.cuts, ..Mode::default() });
    }

    /// Passes nothing on until [`heal`](Self::heal); connections stay, and what is sent meanwhile arrives then.
    pub fn freeze(&self) {
        self.stop(Direction::ToBroker);
        self.stop(Direction::ToClient);
    }

    /// Freezes one direction.
    pub fn stop(&self, direction: Direction) {
        self.mode.send_modify(|mode| mode.stopped[Mode::of(direction)] = true);
    }

    /// Throws away all that is sent in this direction, until [`heal`](Self::heal); connections stay. They are of no use
    /// afterwards, since the loss may have ended within a frame: heal by [`reset`](Self::reset) as well.
    pub fn black_hole(&self, direction: Direction) {
        self.mode.send_modify(|mode| mode.deaf[Mode::of(direction)] = true);
    }

    /// Delays everything in this direction by so long, in order.
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
