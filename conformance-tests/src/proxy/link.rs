//! One connection through the proxy: two pumps.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};

use super::frames::{Frame, FrameReader, Kind};
use super::rules::{Rules, Sent};
use super::{Direction, Mode};

const READ: usize = 64 << 10;

/// What both pumps know of one connection.
#[derive(Debug, Default)]
struct Answers {
    /// Subjects whose next message is lost.
    lost: HashSet<String>,
    /// Subjects whose next message is held.
    held: HashSet<String>,
    /// The client's subscriptions: its numbers by subject.
    subscriptions: HashMap<String, String>,
}

impl Answers {
    /// The client's number for what a subject is delivered under.
    fn sid(&self, subject: &str) -> Option<&String> {
        self.subscriptions.iter().find(|(pattern, _)| matches(pattern, subject)).map(|(_, sid)| sid)
    }
}

fn matches(pattern: &str, subject: &str) -> bool {
    let (mut patterns, mut tokens) = (pattern.split('.'), subject.split('.'));
    loop {
        match (patterns.next(), tokens.next()) {
            (None, None) | (Some(">"), Some(_)) => return true,
            (Some("*"), Some(_)) => {}
            (Some(pattern), Some(token)) if pattern == token => {}
            _ => return false,
        }
    }
}

type Shared = Arc<Mutex<Answers>>;
type Modes = watch::Receiver<Mode>;

pub(super) async fn run(client: TcpStream, broker: SocketAddr, modes: Modes, cuts: u64, rules: Arc<Rules>) {
    let mut watched = modes.clone();
    tokio::select! {
        () = pumps(client, broker, modes, rules) => {}
        // The sockets go with the future that is dropped here.
        _ = watched.wait_for(|mode| mode.cuts != cuts) => {}
    }
}

async fn pumps(client: TcpStream, broker: SocketAddr, modes: Modes, rules: Arc<Rules>) {
    let Ok(socket) = TcpSocket::new_v4() else { return };
    let Ok(server) = socket.connect(broker).await else { return };
    // Frames are small, and their answers are waited for.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (insert, inserted) = mpsc::unbounded_channel();
    let shared = Shared::default();
    let up = Up { rules: rules.clone(), shared: shared.clone(), insert };
    let down = Down { rules, shared, inserted, held: Vec::new() };
    // One that ends, ends the other.
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

/// Waits until what was read may pass, and says whether it is thrown away instead.
async fn thrown_away(modes: &mut Modes, direction: Direction) -> bool {
    let (mode, at) = (going(modes, direction).await, Mode::of(direction));
    if !mode.delay[at].is_zero() {
        tokio::time::sleep(mode.delay[at]).await;
    }
    mode.deaf[at]
}

/// From the client to the broker.
struct Up {
    rules: Arc<Rules>,
    shared: Shared,
    /// Answers that the proxy gives itself.
    insert: mpsc::UnboundedSender<Bytes>,
}

impl Up {
    async fn pump(self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut modes: Modes) {
        let (mut reader, mut buffer) = (FrameReader::default(), BytesMut::with_capacity(READ));
        loop {
            going(&mut modes, Direction::ToBroker).await;
            buffer.clear();
            if !matches!(from.read_buf(&mut buffer).await, Ok(read) if read > 0) {
                return;
            }
            if thrown_away(&mut modes, Direction::ToBroker).await {
                continue;
            }
            let Ok(frames) = reader.read(&buffer) else { return };
            let mut passed = BytesMut::with_capacity(buffer.len());
            frames.iter().filter(|frame| self.passes(frame)).for_each(|frame| passed.extend_from_slice(&frame.raw));
            if to.write_all(&passed).await.is_err() {
                return;
            }
        }
    }

    fn passes(&self, frame: &Frame) -> bool {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let reply = match &frame.kind {
            Kind::Subscribe { subject, sid } => {
                shared.subscriptions.insert(subject.clone(), sid.clone());
                return true;
            }
            Kind::Unsubscribe { sid, later: false } => {
                shared.subscriptions.retain(|_, known| known != sid);
                return true;
            }
            Kind::Publish { reply, .. } => reply,
            _ => return true,
        };
        match (self.rules.sent(frame), reply) {
            (Sent::PassLosingAnswer, Some(reply)) => {
                shared.lost.insert(reply.clone());
                true
            }
            (Sent::PassHoldingAnswer, Some(reply)) => {
                shared.held.insert(reply.clone());
                true
            }
            (Sent::Answer(headers, payload), reply) => {
                let sid = reply.as_ref().and_then(|reply| shared.sid(reply));
                if let (Some(reply), Some(sid)) = (reply, sid) {
                    let _ = self.insert.send(message(reply, sid, &headers, &payload));
                }
                false
            }
            (Sent::Keep, _) => false,
            _ => true,
        }
    }
}

/// A message as the broker would send it.
fn message(subject: &str, sid: &str, headers: &[u8], payload: &[u8]) -> Bytes {
    let mut bytes = if headers.is_empty() {
        format!("MSG {subject} {sid} {}\r\n", payload.len()).into_bytes()
    } else {
        format!("HMSG {subject} {sid} {} {}\r\n", headers.len(), headers.len() + payload.len()).into_bytes()
    };
    bytes.extend_from_slice(headers);
    bytes.extend_from_slice(payload);
    bytes.extend_from_slice(b"\r\n");
    bytes.into()
}

/// From the broker to the client.
struct Down {
    rules: Arc<Rules>,
    shared: Shared,
    inserted: mpsc::UnboundedReceiver<Bytes>,
    /// Answers that wait.
    held: Vec<Bytes>,
}

enum Next {
    Read(bool),
    Inserted(Bytes),
    Released,
}

impl Down {
    async fn pump(mut self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut modes: Modes) {
        let (mut reader, mut buffer) = (FrameReader::default(), BytesMut::with_capacity(READ));
        let mut releases = self.rules.releases();
        loop {
            going(&mut modes, Direction::ToClient).await;
            buffer.clear();
            let next = tokio::select! {
                read = from.read_buf(&mut buffer) => Next::Read(matches!(read, Ok(read) if read > 0)),
                Some(bytes) = self.inserted.recv() => Next::Inserted(bytes),
                Ok(()) = releases.changed() => Next::Released,
            };
            if thrown_away(&mut modes, Direction::ToClient).await {
                continue;
            }
            let mut passed = BytesMut::with_capacity(buffer.len());
            match next {
                Next::Read(false) => return,
                Next::Inserted(bytes) => passed.extend_from_slice(&bytes),
                Next::Released => self.held.drain(..).for_each(|bytes| passed.extend_from_slice(&bytes)),
                Next::Read(true) => {
                    let Ok(frames) = reader.read(&buffer) else { return };
                    frames
                        .into_iter()
                        .filter_map(|frame| self.passes(frame))
                        .for_each(|raw| passed.extend_from_slice(&raw));
                }
            }
            if to.write_all(&passed).await.is_err() {
                return;
            }
        }
    }

    fn passes(&mut self, frame: Frame) -> Option<Bytes> {
        let Kind::Message { subject } = &frame.kind else { return Some(frame.raw) };
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.lost.remove(subject) {
            return None;
        }
        if shared.held.remove(subject) {
            self.held.push(frame.raw);
            return None;
        }
        Some(frame.raw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inbox_is_not_recognised() {
        assert!(matches("_INBOX.a.*", "_INBOX.a.7"));
        assert!(matches("_INBOX.>", "_INBOX.a.7"));
        assert!(matches("a.b", "a.b"));
        assert!(!matches("_INBOX.a.*", "_INBOX.b.7"));
        assert!(!matches("_INBOX.a.*", "_INBOX.a.7.8"));
        assert!(!matches("a.>", "a"));
    }
}
