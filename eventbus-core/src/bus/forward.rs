//! Wrappers that pass on what they do not change.
//!
//! `EventBus`, `Backend` and `Membership` have no default methods, so that a wrapper cannot lose behaviour in silence.
//! A wrapper implements [`ForwardBus`], or `ForwardBackend` or `ForwardMember` of [`crate::backend`], instead, and by
//! that *is* the trait that it wraps: each method calls the same method of `inner`, unless the wrapper overrides it.
//!
//! Invariant: a default method does nothing but call the method of the same name, once, with the same arguments. So a
//! method that is added to a trait later is passed on as well.
//!
//! ```
//! use eventbus_core::ForwardBus;
//! use eventbus_core::{Envelope, EventBus, Publishing};
//!
//! /// A bus of a tenant: its topics have a prefix.
//! #[derive(Debug)]
//! struct Tenant(std::sync::Arc<dyn EventBus>);
//!
//! impl ForwardBus for Tenant {
//!     fn inner(&self) -> &dyn EventBus {
//!         &*self.0
//!     }
//!
//!     fn publish(&self, topic: &str, envelope: Envelope) -> Publishing {
//!         self.0.publish(&format!("tenant.{topic}"), envelope)
//!     }
//! }
//!
//! fn is_a_bus<B: EventBus>() {}
//! # fn main() { is_a_bus::<Tenant>(); }
//! ```

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::EventBus;
use crate::backend::{Capabilities, GroupDescription, Health, TopicDescription, forwarding};
use crate::model::{Envelope, Key, Result, TopicSpec};
use crate::publish::{BatchPublishing, Publishing};
use crate::subscribe::{Handler, StartFrom, Subscribe, Subscription};

forwarding! {
    /// A bus around another bus: a backend's own bus around the core's, or a middleware.
    ForwardBus => EventBus {
        fn publish(&self, topic: &str, envelope: Envelope) -> Publishing;
        fn publish_batch(&self, topic: &str, envelopes: Vec<Envelope>) -> BatchPublishing;
        fn resume(&self, topic: &str, key: Option<&Key>) -> Result<()>;
        fn capabilities(&self) -> Capabilities;
        async fn subscribe(&self, options: Subscribe, handler: Arc<dyn Handler>) -> Result<Subscription>;
        async fn ensure_topic(&self, spec: &TopicSpec) -> Result<TopicDescription>;
        async fn describe_topic(&self, topic: &str) -> Result<TopicDescription>;
        async fn accept_partitions(&self, topic: &str, partitions: u32) -> Result<()>;
        async fn delete_topic(&self, topic: &str) -> Result<()>;
        async fn list_topics(&self) -> Result<Vec<String>>;
        async fn list_groups(&self, topic: &str) -> Result<Vec<String>>;
        async fn describe_group(&self, topic: &str, group: &str) -> Result<GroupDescription>;
        async fn reset_group(&self, topic: &str, group: &str, to: &StartFrom) -> Result<()>;
        async fn delete_group(&self, topic: &str, group: &str) -> Result<()>;
        async fn health(&self) -> Health;
        async fn close(&self, deadline: Duration) -> Result<()>;
    }
}

/// Declares a backend's own bus: the core's engine on that backend, built from the backend's configuration.
///
/// The configuration has a method `validate`; the backend has a constructor `new` that takes the configuration. The bus
/// gets `connect` and `connect_with`, and is an [`EventBus`].
///
/// ```
/// # mod other {
/// # use std::sync::Arc;
/// # use eventbus_core::backend::Backend;
/// # use eventbus_core::backend::ForwardBackend;
/// # #[derive(Debug)]
/// # pub struct OtherBackend(Arc<dyn Backend>);
/// # pub struct OtherConfig(Arc<dyn Backend>);
/// # impl OtherConfig {
/// #     pub fn validate(&self) -> eventbus_core::Result<()> { Ok(()) }
/// # }
/// # impl OtherBackend {
/// #     pub fn new(config: OtherConfig) -> Self { Self(config.0) }
/// # }
/// # impl ForwardBackend for OtherBackend {
/// #     fn inner(&self) -> &dyn Backend { &*self.0 }
/// # }
/// eventbus_core::backend_bus! {
///     /// An event bus on another broker.
///     pub struct OtherEventBus: OtherConfig => OtherBackend;
///
///     /// Connects, with the core's settings at their defaults.
///     ///
///     /// # Errors
///     /// `InvalidConfig` naming the setting; `Unavailable` where no broker can be reached.
///     connect
/// }
/// # }
/// async fn connected(config: other::OtherConfig) -> eventbus_core::Result<impl eventbus_core::EventBus> {
///     other::OtherEventBus::connect(config).await
/// }
/// ```
#[macro_export]
macro_rules! backend_bus {
    (
        $(#[$about:meta])*
        pub struct $bus:ident: $config:ident => $backend:ident;

        $(#[$connects:meta])*
        connect
    ) => {
        $(#[$about])*
        pub struct $bus {
            bus: $crate::Bus,
        }

        impl $bus {
            $(#[$connects])*
            pub async fn connect(config: $config) -> $crate::Result<Self> {
                Self::connect_with(config, $crate::BusConfig::new()).await
            }

            /// Connects, with the core's settings in `bus`.
            ///
            /// # Errors
            /// As [`connect`](Self::connect).
            pub async fn connect_with(config: $config, bus: $crate::BusConfig) -> $crate::Result<Self> {
                config.validate()?;
                let backend = ::std::sync::Arc::new($backend::new(config));
                Ok(Self { bus: $crate::Bus::connect(backend, bus).await? })
            }
        }

        impl ::std::fmt::Debug for $bus {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.debug_struct(stringify!($bus)).finish_non_exhaustive()
            }
        }

        impl $crate::ForwardBus for $bus {
            fn inner(&self) -> &dyn $crate::EventBus {
                &self.bus
            }
        }
    };
}
