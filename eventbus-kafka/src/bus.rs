//! [`KafkaEventBus`]: the core's engine on this backend.

use eventbus_core::backend_bus;

use crate::backend::KafkaBackend;
use crate::config::KafkaConfig;

backend_bus! {
    /// An event bus on Kafka.
    pub struct KafkaEventBus: KafkaConfig => KafkaBackend;

    /// Connects, with the core's settings at their defaults.
    ///
    /// # Errors
    /// `InvalidConfig` or `UnsafeConfig` naming the setting; `Unauthorized` for wrong credentials; `Unavailable` where
    /// no broker can be reached.
    connect
}
