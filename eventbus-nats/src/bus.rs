//! [`NatsEventBus`]: the core's engine on this backend.

use eventbus_core::backend_bus;

use crate::backend::NatsBackend;
use crate::config::NatsConfig;

backend_bus! {
    /// An event bus on JetStream.
    pub struct NatsEventBus: NatsConfig => NatsBackend;

    /// Connects, with the core's settings at their defaults.
    ///
    /// # Errors
    /// `InvalidConfig` or `UnsafeConfig` naming the setting; `Unauthorized` for wrong credentials, at once;
    /// `PermissionDenied` and `Unsupported` where the server or the account lacks what is needed; `Unavailable` where
    /// no server can be reached.
    connect
}
