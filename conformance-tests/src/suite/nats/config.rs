//! The settings of every bus under test on NATS.

use std::time::Duration;

use eventbus_nats::NatsConfig;

/// The settings of every bus under test on NATS: waits are short, all else is the default.
pub fn nats_config(server: &str, prefix: &str) -> NatsConfig {
    NatsConfig::new(server)
        .prefix(prefix)
        .request_timeout(Duration::from_secs(1))
        .publish_timeout(Duration::from_secs(1))
        .heartbeat(Duration::from_millis(500))
        .ping_interval(Duration::from_secs(1))
        .reconnect_delay(Duration::from_millis(100))
}
