//! What the server says of itself, and what the backend can do.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use eventbus_core::backend::{Capabilities, ConnectionState, Health, Pipelining};
use serde_json::Value;

use crate::config::NatsConfig;
use crate::connection::Link;

pub(crate) fn capabilities(config: &NatsConfig) -> Capabilities {
    let mut capabilities = Capabilities::default();
    capabilities.pipelining = Pipelining::OnePerKey;
    capabilities.in_flight = config.publish_window;
    // A topic states its own.
    capabilities.resend_window = Some(Duration::from_secs(120));
    capabilities.overshoot = config.fetch_batch;
    capabilities.memory_storage = true;
    // A leader is there when the answer comes, but a request may go by while the cluster turns to it.
    capabilities.settles = config.request_timeout;
    capabilities
}

pub(crate) async fn health(link: Option<&Arc<Link>>) -> Health {
    let Some(link) = link else { return Health::new(ConnectionState::Disconnected) };
    let mut health = Health::new(link.state());
    let info = link.client.server_info();
    health.server = Some(format!("nats-server {}", info.version));
    let mut detail = |name: &str, value: String| health.details.push((name.into(), value));
    detail("server_name", info.server_name);
    detail("max_payload", info.max_payload.to_string());
    let statistics = link.client.statistics();
    for (name, count) in [
        ("in_bytes", &statistics.in_bytes),
        ("out_bytes", &statistics.out_bytes),
        ("in_messages", &statistics.in_messages),
        ("out_messages", &statistics.out_messages),
        ("connects", &statistics.connects),
    ] {
        detail(name, count.load(Ordering::Relaxed).to_string());
    }
    detail("breaks", link.connection().breaks().to_string());
    if let Some(trouble) = link.connection().trouble() {
        detail("connection_error", trouble);
    }
    match link.api::<Value>("INFO", &()).await {
        Ok(account) => {
            let number = |value: Option<&Value>| value.and_then(Value::as_i64).unwrap_or_default().to_string();
            for name in ["memory", "storage", "streams", "consumers"] {
                detail(&format!("account_{name}"), number(account.get(name)));
                let limit = account.get("limits").and_then(|limits| limits.get(format!("max_{name}")));
                detail(&format!("account_max_{name}"), number(limit));
            }
        }
        // Connected, and yet nobody answers.
        Err(failure) => {
            detail("jetstream", eventbus_core::Error::from(failure).to_string());
            health.connection = ConnectionState::Disconnected;
        }
    }
    health
}
