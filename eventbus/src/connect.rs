//! Connecting: makes a bus from a URL or a configuration.
//!
//! The bus is an `Arc<dyn EventBus>`: no code of the caller knows which broker is behind it.

use std::sync::Arc;

use async_trait::async_trait;
use eventbus_core::ForwardBus;
use eventbus_core::backend::Backend;
use eventbus_core::{Bus, BusConfig, EventBus, Handler, Result, Subscribe, Subscription, TopicDescription, TopicSpec};
use eventbus_memory::MemoryWorld;

use crate::config::{BackendConfig, EventBusConfig};

/// Connects to the broker that the URL names.
///
/// `memory://NAME` is one log per process and name, `memory://` a private one; neither outlives the process.
/// `nats://HOST:PORT` and `tls://HOST:PORT` are JetStream, `kafka://HOST:PORT,…` is Kafka.
///
/// Settings are parameters: `memory://shop?partitions=4&concurrency=64`. [`config::knobs`](crate::config::knobs) lists
/// those that every backend has; JetStream and Kafka have further ones. Settings of topics and subscriptions are
/// defaults: a value set in code overrides them.
///
/// # Errors
/// `InvalidConfig`, whose source is a [`ConfigError`](crate::ConfigError) that names what is wrong; `Unsupported` for a
/// scheme whose backend is not part of this program; and what the broker says.
///
/// ```
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// let bus = eventbus::connect("memory://?partitions=4").await?;
/// let topic = bus.ensure_topic(&eventbus::TopicSpec::new("orders")).await?;
/// assert_eq!(topic.spec.partitions, 4);
/// # Ok::<(), eventbus::Error>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub async fn connect(url: &str) -> Result<Arc<dyn EventBus>> {
    EventBusConfig::from_url(url)?.connect().await
}

impl EventBusConfig {
    /// Connects to the broker of this configuration.
    ///
    /// # Errors
    /// `InvalidConfig`, and what the broker says.
    pub async fn connect(&self) -> Result<Arc<dyn EventBus>> {
        self.connect_with(|bus| bus).await
    }

    /// Connects as [`connect`](Self::connect) does, after `customize` has added what is not plain data: hooks, layers,
    /// a clock.
    ///
    /// # Errors
    /// As `connect`.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// use eventbus::EventBusConfig;
    /// use eventbus::observe::BusEvent;
    ///
    /// let config = EventBusConfig::from_url("memory://shop")?;
    /// let bus = config.connect_with(|bus| bus.hook(|event: &BusEvent<'_>| println!("{event:?}"))).await?;
    /// # drop(bus);
    /// # Ok::<(), eventbus::Error>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn connect_with(&self, customize: impl FnOnce(BusConfig) -> BusConfig) -> Result<Arc<dyn EventBus>> {
        let bus = Bus::connect(self.backend(), customize(self.bus())).await?;
        let untouched = Self { backend: self.backend.clone(), ..Self::memory(None) };
        if (&self.subscribe, &self.topic) == (&untouched.subscribe, &untouched.topic) {
            return Ok(Arc::new(bus));
        }
        Ok(Arc::new(Configured { bus, subscribe: self.subscription("any"), topic: self.topic("any") }))
    }

    /// Returns the backend of this configuration, not connected yet. For tools that run an engine of their own on it,
    /// such as the conformance suite.
    #[must_use]
    pub fn backend(&self) -> Arc<dyn Backend> {
        match &self.backend {
            BackendConfig::Memory { name: Some(name) } => Arc::new(MemoryWorld::named(name).connect()),
            BackendConfig::Memory { name: None } => Arc::new(MemoryWorld::new().connect()),
            #[cfg(feature = "nats")]
            BackendConfig::Nats(section) => Arc::new(eventbus_nats::NatsBackend::new(section.config())),
            #[cfg(feature = "kafka")]
            BackendConfig::Kafka(section) => Arc::new(eventbus_kafka::KafkaBackend::new(section.config())),
        }
    }

    /// Removes everything that a bus made at this prefix of the broker ([`at_prefix`](Self::at_prefix)): topics, groups
    /// and their progress. For tools that worked there and are done; nobody else may be using the prefix.
    ///
    /// # Errors
    /// What the broker says.
    ///
    /// Cancel safe: another call removes the rest.
    pub async fn remove_prefix(&self, prefix: &str) -> Result<()> {
        match &self.at_prefix(prefix)?.backend {
            // A log in memory goes with its last handle.
            BackendConfig::Memory { .. } => Ok(()),
            #[cfg(feature = "nats")]
            BackendConfig::Nats(section) => {
                let backend = eventbus_nats::NatsBackend::new(section.config());
                backend.open().await?;
                backend.remove_all().await?;
                backend.close().await
            }
            #[cfg(feature = "kafka")]
            BackendConfig::Kafka(section) => {
                let backend = eventbus_kafka::KafkaBackend::new(section.config());
                backend.open().await?;
                backend.remove_all().await?;
                backend.close().await
            }
        }
    }
}

/// Bus whose configuration has defaults for topics and subscriptions. Every other call passes through.
#[derive(Debug)]
struct Configured {
    bus: Bus,
    subscribe: Subscribe,
    topic: TopicSpec,
}

#[async_trait]
impl ForwardBus for Configured {
    fn inner(&self) -> &dyn EventBus {
        &self.bus
    }

    async fn subscribe(&self, options: Subscribe, handler: Arc<dyn Handler>) -> Result<Subscription> {
        self.bus.subscribe(options.or(&self.subscribe), handler).await
    }

    async fn ensure_topic(&self, spec: &TopicSpec) -> Result<TopicDescription> {
        self.bus.ensure_topic(&spec.clone().or(&self.topic)).await
    }
}
