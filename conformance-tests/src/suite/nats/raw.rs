//! A record stored with a bare socket: clients write no header that others could not read.

use std::io::{Error, Result};
use std::net::SocketAddr;

use bytes::Bytes;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// Stores a record, and waits until the server says so.
pub(super) async fn store(server: SocketAddr, subject: &str, headers: &[(Bytes, Bytes)], payload: &[u8]) -> Result<()> {
    let mut socket = BufReader::new(TcpStream::connect(server).await?);
    let mut sent = b"CONNECT {\"verbose\":false,\"headers\":true}\r\nSUB _INBOX.raw 1\r\n".to_vec();
    let mut block = b"NATS/1.0\r\n".to_vec();
    for (name, value) in headers {
        block.extend([&name[..], b": ", &value[..], b"\r\n"].concat());
    }
    block.extend(b"\r\n");
    let total = block.len() + payload.len();
    sent.extend(format!("HPUB {subject} _INBOX.raw {} {total}\r\n", block.len()).into_bytes());
    sent.extend([&block[..], payload, b"\r\n"].concat());
    socket.write_all(&sent).await?;
    let stored = answer(&mut socket).await?;
    match stored.get("seq").and_then(Value::as_u64) {
        Some(1..) if stored.get("duplicate").is_none() => Ok(()),
        _ => Err(Error::other(stored.to_string())),
    }
}

/// Reads on to the one message that answers the publish.
async fn answer(socket: &mut BufReader<TcpStream>) -> Result<Value> {
    loop {
        let mut line = String::new();
        if socket.read_line(&mut line).await? == 0 || line.starts_with("-ERR") {
            return Err(Error::other(format!("the server ended it: {line}")));
        }
        if line.starts_with("PING") {
            socket.write_all(b"PONG\r\n").await?;
        }
        if line.starts_with("MSG") {
            let size = line.split_whitespace().last().and_then(|size| size.parse().ok());
            let mut body = vec![0; size.ok_or_else(|| Error::other(line.clone()))?];
            socket.read_exact(&mut body).await?;
            return Ok(serde_json::from_slice(&body)?);
        }
    }
}
