//! [`MemoryEventBus`]: the core's engine on this backend.

use std::fmt;
use std::sync::Arc;

use eventbus_core::ForwardBus;
use eventbus_core::{Bus, BusConfig, EventBus, Result, Threads};

use crate::backend::MemoryBackend;
use crate::config::MemoryConfig;
use crate::faults::Faults;
use crate::probe::Probe;
use crate::world::MemoryWorld;

/// An event bus in the process, on the in-memory backend. Helpers for tests are in [`testing`](crate::testing).
///
/// Its log lives as long as its world: a private world ends with its last handle, a named one with the process.
pub struct MemoryEventBus {
    bus: Bus,
    backend: MemoryBackend,
    pub(crate) probe: Probe,
}

impl MemoryEventBus {
    /// Makes a bus on a private world (`memory://`).
    ///
    /// # Errors
    /// `Unavailable` where the bus's thread cannot be started.
    pub fn new() -> Result<Self> {
        Self::builder().build()
    }

    /// Makes a bus on the process's one world of this name (`memory://NAME`). Buses of one name share topics and
    /// groups, like processes on one broker.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn named(name: &str) -> Result<Self> {
        Self::builder().world(MemoryWorld::named(name)).build()
    }

    /// Makes a bus for unit tests: on a private world, with everything on the caller's runtime, so that a paused clock
    /// rules all of it.
    ///
    /// # Errors
    /// `Unavailable` outside a tokio runtime.
    pub fn for_tests() -> Result<Self> {
        Self::builder().config(BusConfig::new().threads(Threads::Caller)).build()
    }

    /// Returns a builder, for other settings.
    pub fn builder() -> MemoryEventBusBuilder {
        MemoryEventBusBuilder { world: None, memory: MemoryConfig::new(), config: BusConfig::new() }
    }

    /// The world of this bus. Further buses connected to it act as further processes.
    #[must_use]
    pub fn world(&self) -> MemoryWorld {
        self.backend.world()
    }

    /// This bus's connection, as faults name it.
    #[must_use]
    pub fn backend(&self) -> &MemoryBackend {
        &self.backend
    }

    /// The handle that injects faults into the world.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.world().faults()
    }
}

impl fmt::Debug for MemoryEventBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryEventBus").field("backend", &self.backend).finish_non_exhaustive()
    }
}

/// Builds a [`MemoryEventBus`].
///
/// ```
/// use std::time::Duration;
/// use eventbus_core::BusConfig;
/// use eventbus_memory::{Latency, MemoryConfig, MemoryEventBus, Wait};
///
/// let near = Wait::between(Duration::from_micros(100), Duration::from_millis(2));
/// let bus = MemoryEventBus::builder()
///     .memory(MemoryConfig::new().latency(Latency::everywhere(near)))
///     .config(BusConfig::new().budget_envelopes(1_000))
///     .build()?;
/// # Ok::<(), eventbus_core::Error>(())
/// ```
#[derive(Debug)]
#[must_use]
pub struct MemoryEventBusBuilder {
    world: Option<MemoryWorld>,
    memory: MemoryConfig,
    config: BusConfig,
}

impl MemoryEventBusBuilder {
    /// Connects to this world instead of a new one.
    pub fn world(mut self, world: MemoryWorld) -> Self {
        self.world = Some(world);
        self
    }

    /// Sets the settings of the new world. An existing world keeps its own.
    pub fn memory(mut self, memory: MemoryConfig) -> Self {
        self.memory = memory;
        self
    }

    /// Sets the settings of the bus itself.
    pub fn config(mut self, config: BusConfig) -> Self {
        self.config = config;
        self
    }

    /// Connects, to a new world unless one was given.
    ///
    /// # Errors
    /// `InvalidConfig` naming the setting; `Unavailable` where the bus's thread cannot be started.
    pub fn build(self) -> Result<MemoryEventBus> {
        let world = match self.world {
            Some(world) => world,
            None => self.memory.build()?,
        };
        let backend = world.connect();
        let probe = Probe::new();
        let bus = Bus::new(Arc::new(backend.clone()), self.config.handle_layer(probe.clone()))?;
        Ok(MemoryEventBus { bus, backend, probe })
    }
}

impl ForwardBus for MemoryEventBus {
    fn inner(&self) -> &dyn EventBus {
        &self.bus
    }
}
