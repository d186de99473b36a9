//! The client's own reading of header blocks: a client connected to a server of a few lines that sends it any bytes.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Subscriber;
use async_nats::header::HeaderMap;
use futures_util::StreamExt;
use proptest::prelude::*;
use proptest::test_runner::{TestCaseResult, TestError, TestRunner};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;

/// Checks a property of header blocks and of what the client reads in them: `None` of one over which it ends its
/// connection.
pub(super) fn compared(
    config: ProptestConfig,
    blocks: &impl Strategy<Value = Vec<u8>>,
    check: impl Fn(&[u8], Option<HeaderMap>) -> TestCaseResult,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = RefCell::new(runtime.block_on(Client::start()));
    let outcome = TestRunner::new(config).run(blocks, |block| {
        let read = runtime.block_on(client.borrow_mut().read(&block));
        check(&block, read)
    });
    if let Err(TestError::Fail(why, block)) = &outcome {
        panic!("{why}: {:?}", String::from_utf8_lossy(block));
    }
    outcome.unwrap();
}

/// The way to the client that is connected at the moment, and the number of its subscription.
type Sending = Arc<Mutex<Option<(OwnedWriteHalf, String)>>>;

/// The longest wait for the client's next message.
const PATIENCE: Duration = Duration::from_secs(30);

struct Client {
    sending: Sending,
    address: String,
    messages: Subscriber,
    _client: async_nats::Client,
}

impl Client {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let sending = Sending::default();
        tokio::spawn(serve(listener, sending.clone()));
        let (client, messages) = connect(&address).await;
        Self { sending, address, messages, _client: client }
    }

    /// Sends a message with this header block, and another one behind it.
    async fn read(&mut self, block: &[u8]) -> Option<HeaderMap> {
        if let Some((socket, number)) = &mut *self.sending.lock().await {
            let mut sent = format!("HMSG s {number} {} {}\r\n", block.len(), block.len() + 1).into_bytes();
            sent.extend_from_slice(block);
            sent.extend_from_slice(format!("x\r\nMSG s {number} 6\r\nbehind\r\n").as_bytes());
            socket.write_all(&sent).await.unwrap();
        }
        let mut read = None;
        loop {
            let next = tokio::time::timeout(PATIENCE, self.messages.next()).await;
            let Some(message) = next.expect("the client says nothing") else {
                // The client's task has ended.
                (self._client, self.messages) = connect(&self.address).await;
                return None;
            };
            match &message.payload[..] {
                b"x" => read = Some(message.headers.unwrap_or_default()),
                b"behind" => return read,
                _ => return None,
            }
        }
    }
}

/// Connects a client, and subscribes. It comes back by itself where it lost its connection.
async fn connect(address: &str) -> (async_nats::Client, Subscriber) {
    let options = async_nats::ConnectOptions::new().reconnect_delay_callback(|_| Duration::ZERO);
    let client = options.connect(address).await.unwrap();
    let mut messages = client.subscribe("s").await.unwrap();
    assert_eq!(messages.next().await.unwrap().payload, "anew");
    (client, messages)
}

/// Serves one client at a time, and tells it with a message that its connection is a new one.
async fn serve(listener: TcpListener, sending: Sending) {
    let port = listener.local_addr().unwrap().port();
    while let Ok((socket, _)) = listener.accept().await {
        tokio::spawn(attend(socket, port, sending.clone()));
    }
}

async fn attend(socket: TcpStream, port: u16, sending: Sending) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let (lines, mut socket) = socket.into_split();
    let info = serde_json::json!({
        "server_id": "s", "server_name": "s", "version": "2.10.0", "go": "", "host": "127.0.0.1", "port": port,
        "headers": true, "max_payload": 1 << 20, "proto": 1, "client_id": 1,
    });
    socket.write_all(format!("INFO {info}\r\n").as_bytes()).await?;
    let (mut lines, mut socket) = (BufReader::new(lines).lines(), Some(socket));
    while let Some(line) = lines.next_line().await? {
        if line.starts_with("PING") {
            match &mut socket {
                Some(socket) => socket.write_all(b"PONG\r\n").await?,
                None => {
                    if let Some((socket, _)) = &mut *sending.lock().await {
                        socket.write_all(b"PONG\r\n").await?;
                    }
                }
            }
        } else if let Some(number) = line.strip_prefix("SUB s ")
            && let Some(mut socket) = socket.take()
        {
            socket.write_all(format!("MSG s {number} 4\r\nanew\r\n").as_bytes()).await?;
            *sending.lock().await = Some((socket, number.to_owned()));
        }
    }
    Ok(())
}
