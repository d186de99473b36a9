//! Health as the server tells it, and the backend's capabilities.

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
    // A topic states its own window.
    capabilities.resend_window = Some(Duration::from_secs(120));
    capabilities.overshoot = config.fetch_batch;
    capabilities.memory_storage = true;
    // A leader is there when a creation is answered, but a request may miss it while the cluster turns to it.
    capabilities.settles = config.request_timeout;
    capabilities
}

pub(crate) async fn health(link: Option<&Arc<Link>>) -> Health {
    let Some(link) = link else { return Health::new(ConnectionState::Disconnected) };
    let mut health = link.connection().health();
    let client = link.client();
    let info = client.server_info();
    health.server = Some(format!("nats-server {}", info.version));
    health.detail("server_name", info.server_name);
    health.detail("max_payload", info.max_payload);
    let statistics = client.statistics();
    for (name, count) in [
        ("in_bytes", &statistics.in_bytes),
        ("out_bytes", &statistics.out_bytes),
        ("in_messages", &statistics.in_messages),
        ("out_messages", &statistics.out_messages),
        ("connects", &statistics.connects),
    ] {
        health.detail(name, count.load(Ordering::Relaxed));
    }
    match link.api::<Value>("INFO", &()).await {
        Ok(account) => {
            let number = |value: &Value| value.as_i64().unwrap_or_default();
            for name in ["memory", "storage", "streams", "consumers"] {
                health.detail(format!("account_{name}"), number(&account[name]));
                health.detail(format!("account_max_{name}"), number(&account["limits"][format!("max_{name}")]));
            }
        }
        // The connection is up, and yet nobody answers.
        Err(failure) => {
            health.detail("jetstream", eventbus_core::Error::from(failure));
            health.connection = ConnectionState::Disconnected;
        }
    }
    health
}
