//! Access control lists, which the client library's administration does not offer: two requests of Kafka's protocol.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Numbers of the protocol: requests and their version, resources, how a name is meant, operations, and what of them.
const CREATE: i16 = 30;
const DELETE: i16 = 31;
const VERSION: i16 = 1;
const TOPIC: i8 = 2;
const GROUP: i8 = 3;
const LITERAL: i8 = 3;
const ALL: i8 = 2;
const READ: i8 = 3;
const WRITE: i8 = 4;
const DENY: i8 = 2;
const ALLOW: i8 = 3;

/// The longest answer that is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// An operation on a resource that may be denied to all.
#[derive(Clone, Copy, Debug)]
pub(super) struct Access<'a> {
    resource: i8,
    name: &'a str,
    operation: i8,
}

impl<'a> Access<'a> {
    pub(super) const fn write(topic: &'a str) -> Self {
        Self { resource: TOPIC, name: topic, operation: WRITE }
    }

    pub(super) const fn read_as(group: &'a str) -> Self {
        Self { resource: GROUP, name: group, operation: READ }
    }

    fn entry(&self, body: &mut BytesMut, operation: i8, permission: i8) {
        body.put_i8(self.resource);
        put_text(body, self.name);
        body.put_i8(LITERAL);
        put_text(body, "User:*");
        put_text(body, "*");
        body.put_i8(operation);
        body.put_i8(permission);
    }

    /// Denies the operation to all. A resource that has any list is closed, so all else on it is allowed first.
    pub(super) async fn deny(&self, server: SocketAddr) -> io::Result<()> {
        for (operation, permission) in [(ALL, ALLOW), (self.operation, DENY)] {
            let mut body = BytesMut::new();
            body.put_i32(1);
            self.entry(&mut body, operation, permission);
            ask(server, CREATE, &body).await?;
        }
        Ok(())
    }

    /// Ends the denial.
    pub(super) async fn allow(&self, server: SocketAddr) -> io::Result<()> {
        let mut body = BytesMut::new();
        body.put_i32(1);
        self.entry(&mut body, self.operation, DENY);
        ask(server, DELETE, &body).await
    }
}

fn put_text(body: &mut BytesMut, text: &str) {
    body.put_i16(i16::try_from(text.len()).unwrap_or(i16::MAX));
    body.put_slice(text.as_bytes());
}

/// Sends a request on a connection of its own, and reads the code in its answer.
async fn ask(server: SocketAddr, api: i16, body: &[u8]) -> io::Result<()> {
    let mut frame = BytesMut::new();
    // The number of the request; no client.
    let head = 10;
    frame.put_i32(i32::try_from(head + body.len()).unwrap_or(i32::MAX));
    frame.put_i16(api);
    frame.put_i16(VERSION);
    frame.put_i32(1);
    frame.put_i16(-1);
    frame.put_slice(body);
    let asked = async {
        let mut stream = TcpStream::connect(server).await?;
        stream.write_all(&frame).await?;
        let length = usize::try_from(stream.read_i32().await?).unwrap_or_default();
        let mut answer = vec![0; length.min(1 << 20)];
        stream.read_exact(&mut answer).await?;
        Ok::<_, io::Error>(Bytes::from(answer))
    };
    let answer = tokio::time::timeout(PATIENCE, asked).await??;
    match code(answer) {
        Some(0) => Ok(()),
        found => Err(io::Error::other(format!("the broker answers request {api} with {found:?}"))),
    }
}

/// The code of the first result: behind the request's number, the time of throttling, and the number of results.
fn code(mut answer: Bytes) -> Option<i16> {
    let _ = (answer.try_get_i32().ok()?, answer.try_get_i32().ok()?);
    (answer.try_get_i32().ok()? > 0).then_some(())?;
    answer.try_get_i16().ok()
}
