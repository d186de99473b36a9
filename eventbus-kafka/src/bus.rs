//! [`KafkaEventBus`]: the core's engine on this backend.

use std::fmt;
use std::sync::Arc;

use eventbus_core::forward::ForwardBus;
use eventbus_core::{Bus, BusConfig, EventBus, Result};

use crate::backend::KafkaBackend;
use crate::config::KafkaConfig;

/// An event bus on Kafka.
pub struct KafkaEventBus {
    bus: Bus,
}

impl KafkaEventBus {
    /// Connects, with the core's settings at their defaults.
    ///
    /// # Errors
    /// `InvalidConfig` or `UnsafeConfig` naming the setting; `Unauthorized` for wrong credentials; `Unavailable` where no
    /// broker can be reached.
    pub async fn connect(config: KafkaConfig) -> Result<Self> {
        Self::connect_with(config, BusConfig::new()).await
    }

    /// Connects, with settings of the core.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn connect_with(config: KafkaConfig, bus: BusConfig) -> Result<Self> {
        config.validate()?;
        Ok(Self { bus: Bus::connect(Arc::new(KafkaBackend::new(config)), bus).await? })
    }
}

impl fmt::Debug for KafkaEventBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaEventBus").finish_non_exhaustive()
    }
}

impl ForwardBus for KafkaEventBus {
    fn inner(&self) -> &dyn EventBus {
        &self.bus
    }
}
