//! [`NatsEventBus`]: the core's engine on this backend.

use std::fmt;
use std::sync::Arc;

use eventbus_core::forward::ForwardBus;
use eventbus_core::{Bus, BusConfig, EventBus, Result};

use crate::backend::NatsBackend;
use crate::config::NatsConfig;

/// An event bus on JetStream.
pub struct NatsEventBus {
    bus: Bus,
}

impl NatsEventBus {
    /// Connects, with the core's settings at their defaults.
    ///
    /// # Errors
    /// `InvalidConfig` or `UnsafeConfig` naming the setting; `Unauthorized` for wrong credentials, at once;
    /// `PermissionDenied` and `Unsupported` where the server or the account lacks what is needed; `Unavailable` where no
    /// server can be reached.
    pub async fn connect(config: NatsConfig) -> Result<Self> {
        Self::connect_with(config, BusConfig::new()).await
    }

    /// Connects, with settings of the core.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn connect_with(config: NatsConfig, bus: BusConfig) -> Result<Self> {
        config.validate()?;
        Ok(Self { bus: Bus::connect(Arc::new(NatsBackend::new(config)), bus).await? })
    }
}

impl fmt::Debug for NatsEventBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsEventBus").finish_non_exhaustive()
    }
}

impl ForwardBus for NatsEventBus {
    fn inner(&self) -> &dyn EventBus {
        &self.bus
    }
}
