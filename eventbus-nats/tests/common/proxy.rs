//! A proxy that understands enough of NATS to hold, drop or pass single messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// Rules for the messages that pass, changed at any time.
#[derive(Debug, Default)]
pub struct Rules {
    /// Lets nothing pass either way; the connection stays.
    pub frozen: AtomicBool,
    /// Drops the bus's writes to a bucket.
    pub no_bucket: AtomicBool,
    /// Number of confirmations of writes to a bucket to drop.
    pub lose_confirmations: AtomicU64,
    /// Number of confirmations of writes to a bucket to hold for [`HELD`], with all messages behind them.
    pub hold_confirmations: AtomicU64,
    /// Number of confirmations of publishes to drop.
    pub lose_acknowledgements: AtomicU64,
    /// Number of messages dropped so far.
    pub dropped: AtomicU64,
}

/// Longer than a renewal waits for its answer.
const HELD: Duration = Duration::from_millis(500);

/// A proxy to a server's port.
#[derive(Debug)]
pub struct Proxy {
    pub port: u16,
    pub rules: Arc<Rules>,
}

impl Proxy {
    pub async fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let rules = Arc::new(Rules::default());
        let shared = rules.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { continue };
                client.set_nodelay(true).unwrap();
                server.set_nodelay(true).unwrap();
                let ((cr, cw), (sr, sw)) = (client.into_split(), server.into_split());
                tokio::spawn(relay(cr, sw, shared.clone()));
                tokio::spawn(relay(sr, cw, shared.clone()));
            }
        });
        Self { port, rules }
    }
}

/// Passes protocol lines, with the payloads of those that have one.
async fn relay(from: OwnedReadHalf, mut to: OwnedWriteHalf, rules: Arc<Rules>) {
    let mut from = BufReader::with_capacity(1 << 20, from);
    let mut line = Vec::new();
    loop {
        line.clear();
        if from.read_until(b'\n', &mut line).await.unwrap_or(0) == 0 {
            return;
        }
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        let mut words = text.split(' ');
        let verb = words.next().unwrap_or_default().to_owned();
        let subject = words.next().unwrap_or_default().to_owned();
        if matches!(verb.as_str(), "MSG" | "HMSG" | "PUB" | "HPUB") {
            let length: usize = text.rsplit(' ').next().unwrap().parse().unwrap();
            let at = line.len();
            line.resize(at + length + 2, 0);
            if from.read_exact(&mut line[at..]).await.is_err() {
                return;
            }
        }
        while rules.frozen.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if verb.ends_with("PUB") && subject.starts_with("$KV.") && rules.no_bucket.load(Ordering::Relaxed) {
            rules.dropped.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        if verb.ends_with("MSG") {
            let payload = String::from_utf8_lossy(&line);
            let bucket = payload.contains("{\"stream\":\"KV_");
            let publish = !bucket && payload.contains("{\"stream\":\"");
            if bucket && take(&rules.hold_confirmations) {
                tokio::time::sleep(HELD).await;
            }
            if bucket && take(&rules.lose_confirmations) || publish && take(&rules.lose_acknowledgements) {
                rules.dropped.fetch_add(1, Ordering::Relaxed);
                continue;
            }
        }
        if to.write_all(&line).await.is_err() {
            return;
        }
    }
}

fn take(count: &AtomicU64) -> bool {
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}
