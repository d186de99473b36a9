//! One connection through the proxy: two pumps.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};

use super::mode::{Direction, Mode};
use super::protocol::Conversation;

const READ: usize = 64 << 10;

type Shared = Arc<Mutex<Box<dyn Conversation>>>;
type Modes = watch::Receiver<Mode>;
type Releases = watch::Receiver<u64>;

/// A conversation on one connection, and the releases of what it holds.
pub(super) type Said = (Box<dyn Conversation>, Releases);

pub(super) async fn run(client: TcpStream, broker: SocketAddr, modes: Modes, cuts: u64, said: Said) {
    let mut watched = modes.clone();
    tokio::select! {
        // The mode is looked at first: bytes sent after a cut are not passed on.
        biased;
        // The sockets go with the future that is dropped here.
        _ = watched.wait_for(|mode| mode.cuts != cuts) => {}
        () = pumps(client, broker, modes, said) => {}
    }
}

async fn pumps(client: TcpStream, broker: SocketAddr, modes: Modes, (said, releases): Said) {
    let Ok(socket) = TcpSocket::new_v4() else { return };
    let Ok(server) = socket.connect(broker).await else { return };
    // Frames are small, and their answers are waited for.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (insert, inserted) = mpsc::unbounded_channel();
    let said = Arc::new(Mutex::new(said));
    let up = Up { said: said.clone(), insert };
    let down = Down { said, inserted, releases };
    // The end of one pump ends the other.
    tokio::select! {
        () = up.pump(from_client, to_server, modes.clone()) => {}
        () = down.pump(from_server, to_client, modes) => {}
    }
}

/// Waits until this direction is not stopped.
async fn going(modes: &mut Modes, direction: Direction) -> Mode {
    let at = Mode::of(direction);
    // A proxy that is gone has cut.
    modes.wait_for(|mode| !mode.stopped[at]).await.map(|mode| *mode).unwrap_or_default()
}

/// Waits until the bytes that were read may pass. `true` if they are thrown away instead.
async fn thrown_away(modes: &mut Modes, direction: Direction) -> bool {
    let (mode, at) = (going(modes, direction).await, Mode::of(direction));
    if !mode.delay[at].is_zero() {
        tokio::time::sleep(mode.delay[at]).await;
    }
    mode.deaf[at]
}

/// The pump from the client to the broker.
struct Up {
    said: Shared,
    /// Answers that the proxy gives itself.
    insert: mpsc::UnboundedSender<Bytes>,
}

impl Up {
    async fn pump(self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut modes: Modes) {
        let mut buffer = BytesMut::with_capacity(READ);
        loop {
            going(&mut modes, Direction::ToBroker).await;
            buffer.clear();
            if !matches!(from.read_buf(&mut buffer).await, Ok(read) if read > 0) {
                return;
            }
            if thrown_away(&mut modes, Direction::ToBroker).await {
                continue;
            }
            let passed = self.said.lock().unwrap_or_else(PoisonError::into_inner).sent(&buffer);
            let Some(passed) = passed else { return };
            if !passed.back.is_empty() {
                let _ = self.insert.send(passed.back.freeze());
            }
            if to.write_all(&passed.on).await.is_err() {
                return;
            }
        }
    }
}

/// The pump from the broker to the client.
struct Down {
    said: Shared,
    inserted: mpsc::UnboundedReceiver<Bytes>,
    releases: Releases,
}

enum Next {
    Read(bool),
    Inserted(Bytes),
    Released,
}

impl Down {
    async fn pump(mut self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut modes: Modes) {
        let mut buffer = BytesMut::with_capacity(READ);
        loop {
            going(&mut modes, Direction::ToClient).await;
            buffer.clear();
            let next = tokio::select! {
                read = from.read_buf(&mut buffer) => Next::Read(matches!(read, Ok(read) if read > 0)),
                Some(bytes) = self.inserted.recv() => Next::Inserted(bytes),
                Ok(()) = self.releases.changed() => Next::Released,
            };
            if thrown_away(&mut modes, Direction::ToClient).await {
                continue;
            }
            let said = || self.said.lock().unwrap_or_else(PoisonError::into_inner);
            let passed = match next {
                Next::Read(false) => return,
                Next::Inserted(bytes) => Some(BytesMut::from(bytes)),
                Next::Released => Some(said().released()),
                Next::Read(true) => said().answered(&buffer),
            };
            let Some(passed) = passed else { return };
            if to.write_all(&passed).await.is_err() {
                return;
            }
        }
    }
}
