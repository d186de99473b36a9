//! Wrappers that pass on what they do not change.
//!
//! [`EventBus`], [`Backend`] and [`Membership`] have no default methods, so that a wrapper cannot lose behaviour in
//! silence. A wrapper that implements one of the traits here instead *is* the trait that it wraps: each method goes on to
//! `inner`, unless it is overridden.
//!
//! Invariant: a default does nothing but call the method of the same name, once, with the same arguments. So a method that
//! is added later is passed on as well.
//!
//! ```
//! use eventbus_core::forward::ForwardBus;
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

use crate::backend::{
    Backend, Capabilities, Commit, GroupDescription, GroupEvent, Health, Join, LogState, Membership, Outbound,
    TopicDescription,
};
use crate::bus::EventBus;
use crate::envelope::Envelope;
use crate::error::Result;
use crate::handler::Handler;
use crate::key::Key;
use crate::position::Position;
use crate::publishing::{BatchPublishing, Publishing};
use crate::stamp::Stamp;
use crate::subscribe::{StartFrom, Subscribe};
use crate::subscription::Subscription;
use crate::ticket::Ticket;
use crate::topic::{Group, Topic, TopicSpec};

/// The forwarding trait of a trait, and that who implements the one has the other.
///
/// Three lists: plain functions, asynchronous ones, and those that only go through where [`reach`](ForwardBackend::reach)
/// or its like lets them.
macro_rules! forwarding {
    (
        $(#[$doc:meta])*
        $forward:ident => $to:ident {
            $(fn $plain:ident(&self $(, $parg:ident: $pty:ty)*) $(-> $pret:ty)?;)*
            $(async fn $name:ident(&self $(, $arg:ident: $ty:ty)*) -> $ret:ty;)*
            $(reach async fn $gated:ident(&self $(, $garg:ident: $gty:ty)*) -> $gret:ty;)*
        }
        $($more:tt)*
    ) => {
        $(#[$doc])*
        #[async_trait]
        pub trait $forward: fmt::Debug + Send + Sync + 'static {
            /// What is wrapped.
            fn inner(&self) -> &dyn $to;

            $($more)*

            $(#[doc = concat!("As [`", stringify!($to), "::", stringify!($plain), "`].")]
            fn $plain(&self $(, $parg: $pty)*) $(-> $pret)? {
                self.inner().$plain($($parg),*)
            })*

            $(#[doc = concat!("As [`", stringify!($to), "::", stringify!($name), "`].")]
            async fn $name(&self $(, $arg: $ty)*) -> $ret {
                self.inner().$name($($arg),*).await
            })*

            $(#[doc = concat!("As [`", stringify!($to), "::", stringify!($gated), "`].")]
            async fn $gated(&self $(, $garg: $gty)*) -> $gret {
                self.reach()?.$gated($($garg),*).await
            })*
        }

        #[async_trait]
        impl<T: $forward> $to for T {
            $(fn $plain(&self $(, $parg: $pty)*) $(-> $pret)? {
                $forward::$plain(self $(, $parg)*)
            })*

            $(async fn $name(&self $(, $arg: $ty)*) -> $ret {
                $forward::$name(self $(, $arg)*).await
            })*

            $(async fn $gated(&self $(, $garg: $gty)*) -> $gret {
                $forward::$gated(self $(, $garg)*).await
            })*
        }
    };
}

forwarding! {
    /// A bus around another: a backend's own bus around the core's, or a middleware.
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

forwarding! {
    /// A backend around another: for observation, for faults, for limits that a broker would have.
    ForwardBackend => Backend {
        fn system(&self) -> &'static str;
        fn capabilities(&self) -> Capabilities;
        fn submit(&self, record: Outbound, ticket: Ticket);
        fn in_force(&self, spec: &TopicSpec) -> Result<TopicSpec>;
        async fn open(&self) -> Result<()>;
        async fn health(&self) -> Health;
        async fn close(&self) -> Result<()>;
        reach async fn create_topic(&self, spec: &TopicSpec) -> Result<bool>;
        reach async fn update_topic(&self, spec: &TopicSpec) -> Result<()>;
        reach async fn describe_topic(&self, topic: &Topic) -> Result<TopicDescription>;
        reach async fn count_partitions(&self, topic: &Topic) -> Result<u32>;
        reach async fn delete_topic(&self, topic: &Topic) -> Result<()>;
        reach async fn list_topics(&self) -> Result<Vec<Topic>>;
        reach async fn find_stamp(&self, topic: &Topic, partition: u32, from: Position, stamp: Stamp) -> Result<Option<Position>>;
        reach async fn position_at(&self, topic: &Topic, partition: u32, unix_millis: u64) -> Result<Position>;
        reach async fn join(&self, join: Join) -> Result<Arc<dyn Membership>>;
        reach async fn list_groups(&self, topic: &Topic) -> Result<Vec<Group>>;
        reach async fn describe_group(&self, topic: &Topic, group: &Group) -> Result<GroupDescription>;
        reach async fn reset_group(&self, topic: &Topic, group: &Group, to: &[(u32, Position)]) -> Result<()>;
        reach async fn delete_group(&self, topic: &Topic, group: &Group) -> Result<()>;
    }

    /// The way to it: asked first by every call that can fail but opening and closing. Default: always open.
    ///
    /// # Errors
    /// What those calls then fail with.
    fn reach(&self) -> Result<&dyn Backend> {
        Ok(self.inner())
    }
}

forwarding! {
    /// A member around another.
    ForwardMember => Membership {
        fn pause(&self, partition: u32);
        fn resume(&self, partition: u32);
        reach async fn next(&self) -> Result<GroupEvent>;
        reach async fn read(&self, partition: u32, from: Position) -> Result<LogState>;
        reach async fn commit(&self, commit: Commit) -> Result<()>;
        reach async fn release(&self, partition: u32) -> Result<()>;
        reach async fn leave(&self) -> Result<()>;
    }

    /// The way to it, as for a backend. Default: always open.
    ///
    /// # Errors
    /// What every call that can fail then fails with.
    fn reach(&self) -> Result<&dyn Membership> {
        Ok(self.inner())
    }
}

/// Declares a backend's own bus: the core's engine on that backend, made of its configuration.
///
/// The configuration has a method `validate`, the backend a constructor `new` that takes the configuration. The bus gets
/// `connect` and `connect_with`, and is an [`EventBus`].
///
/// ```
/// # mod other {
/// # use std::sync::Arc;
/// # use eventbus_core::backend::Backend;
/// # use eventbus_core::forward::ForwardBackend;
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

            /// Connects, with settings of the core.
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

        impl $crate::forward::ForwardBus for $bus {
            fn inner(&self) -> &dyn $crate::EventBus {
                &self.bus
            }
        }
    };
}
