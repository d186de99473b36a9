//! Backends under test, made by a URL alone: for a world, and for a process of its own.

use std::sync::Arc;

use eventbus_core::Error;
use eventbus_core::backend::Backend;
use eventbus_kafka::KafkaBackend;
use eventbus_nats::NatsBackend;

use super::kafka::kafka_config;
use super::nats::nats_config;

/// Makes the backend under test at a URL, with the names of this prefix.
///
/// # Errors
/// A URL of no such server.
pub fn backend_at(url: &str, prefix: &str) -> Result<Arc<dyn Backend>, Error> {
    if url.starts_with("kafka://") {
        return Ok(Arc::new(KafkaBackend::new(kafka_config(url, prefix)?)));
    }
    Ok(Arc::new(NatsBackend::new(nats_config(url, prefix))))
}
