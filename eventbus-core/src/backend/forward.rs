//! Wrappers of backends and members that forward every call they do not change.
//!
//! Invariant: a default does nothing but call the method of the same name, once, with the same arguments. So a method
//! that is added later is forwarded as well.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use super::{
    Backend, Capabilities, Commit, GroupDescription, GroupEvent, Health, Join, LogState, Membership, Outbound, Ticket,
    TopicDescription,
};
use crate::model::{Group, Position, Result, Stamp, Topic, TopicSpec};

/// Declares the forwarding trait of a trait, and implements the trait for all types of the forwarding one.
///
/// Three lists: plain functions, asynchronous ones, and asynchronous ones that call [`reach`](ForwardBackend::reach)
/// (or the member's) first and go through only if it lets them.
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
            /// The wrapped value, to which the defaults forward.
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

pub(crate) use forwarding;

forwarding! {
    /// A backend that wraps another: to observe it, to inject faults, or to set limits that a broker would have.
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

    /// Returns the wrapped backend if it can be reached. Every asynchronous call that can fail asks this first, except
    /// opening and closing. Default: always.
    ///
    /// # Errors
    /// The error with which those calls then fail.
    fn reach(&self) -> Result<&dyn Backend> {
        Ok(self.inner())
    }
}

forwarding! {
    /// A member that wraps another.
    ForwardMember => Membership {
        fn pause(&self, partition: u32);
        fn resume(&self, partition: u32);
        reach async fn next(&self) -> Result<GroupEvent>;
        reach async fn read(&self, partition: u32, from: Position) -> Result<LogState>;
        reach async fn commit(&self, commit: Commit) -> Result<()>;
        reach async fn release(&self, partition: u32) -> Result<()>;
        reach async fn leave(&self) -> Result<()>;
    }

    /// Returns the wrapped member if it can be reached, as for a backend. Default: always.
    ///
    /// # Errors
    /// The error with which every call that can fail then fails.
    fn reach(&self) -> Result<&dyn Membership> {
        Ok(self.inner())
    }
}
