//! What the bus tells its owner: [`BusEvent`]s through a [`Hook`].
//!
//! One enum and one function, so that a new event breaks no hook. A hook is called on the bus's threads, in the order of
//! what happened to a key; it must not block. A hook that panics is caught and counted, and nothing else suffers.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::backend::ConnectionState;
use crate::model::{Envelope, Error, Group, Key, Position, Receipt, Stamp, Topic};

/// Something that an operator wants to know.
#[derive(Debug)]
#[non_exhaustive]
pub enum BusEvent<'a> {
    /// A publish is over, well or not. Called once for every publish that took a place or failed with a valid topic.
    Published {
        /// The topic.
        topic: &'a Topic,
        /// The publish's stamp.
        stamp: Stamp,
        /// The envelope.
        envelope: &'a Envelope,
        /// What became of it.
        result: &'a Result<Receipt, Error>,
    },
    /// A key was sealed by a refusal (P2); `key: None` when so many were that the topic is.
    Sealed {
        /// The topic.
        topic: &'a Topic,
        /// The key.
        key: Option<&'a Key>,
        /// The error, which names the refused publish.
        error: &'a Error,
    },
    /// A topic was found with another number of partitions than its keys go by: keyed publishes to it fail until the number is
    /// [accepted](crate::EventBus::accept_partitions).
    PartitionsChanged {
        /// The topic.
        topic: &'a Topic,
        /// The number that keys go by.
        in_force: u32,
        /// The number that the topic has.
        found: u32,
    },
    /// An attempt failed.
    AttemptFailed {
        /// Where.
        at: &'a Location,
        /// Which attempt.
        attempt: u32,
        /// What it said.
        error: &'a str,
    },
    /// An envelope went to the dead-letter topic, confirmed.
    DeadLettered {
        /// Where it was.
        at: &'a Location,
        /// Attempts made.
        attempts: u32,
        /// The last error.
        error: &'a str,
    },
    /// An envelope was skipped by policy.
    Skipped {
        /// Where it was.
        at: &'a Location,
        /// Attempts made.
        attempts: u32,
        /// The last error.
        error: &'a str,
    },
    /// A second copy was dropped (P3).
    CopyDropped {
        /// Where it was.
        at: &'a Location,
        /// The stamp it shares with an earlier record.
        stamp: Stamp,
    },
    /// A replayed dead letter of another group was finished unhandled.
    ReplayIgnored {
        /// Where it was.
        at: &'a Location,
    },
    /// Retention took records that were not handled (S3).
    DataLost {
        /// Topic, partition.
        at: &'a Location,
        /// The first position that was not handled.
        from: Position,
        /// The first one that is left.
        to: Position,
    },
    /// The log is another one than the progress was written for (S3).
    LogReset {
        /// Topic, partition.
        at: &'a Location,
    },
    /// A partition's oldest unfinished envelope is old, or its window is full (S1).
    Stalled {
        /// The oldest unfinished envelope.
        at: &'a Location,
        /// How long it has been there.
        age: Duration,
        /// Whether intake of the partition has stopped.
        full: bool,
    },
    /// A record was found in another partition than its key's hash says (S1 then holds within its partition).
    Misplaced {
        /// Where.
        at: &'a Location,
    },
    /// A member was given a partition or lost it.
    Ownership {
        /// Topic, partition.
        at: &'a Location,
        /// The epoch.
        epoch: u64,
        /// Given, revoked or lost.
        change: OwnershipChange,
    },
    /// A subscription ended by itself.
    SubscriptionEnded {
        /// The topic.
        topic: &'a Topic,
        /// The group.
        group: &'a Group,
        /// Why.
        error: &'a Error,
    },
    /// The connection's state changed.
    Connection(ConnectionState),
}

/// What happened to an ownership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OwnershipChange {
    /// The epoch is stored and handlers may start.
    Claimed,
    /// Finished, committed and given back.
    Released,
    /// Gone without asking.
    Lost,
}

/// A place in a topic, as a group's member sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Location {
    /// The topic.
    pub topic: Topic,
    /// The group.
    pub group: Group,
    /// The member.
    pub member: Arc<str>,
    /// The partition.
    pub partition: u32,
    /// The position, where one is meant.
    pub position: Option<Position>,
    /// The key, where one is meant.
    pub key: Option<Key>,
}

/// Receives [`BusEvent`]s. Any `Fn(&BusEvent)` is one.
pub trait Hook: Send + Sync + 'static {
    /// Called for each event. Must not block.
    fn on_event(&self, event: &BusEvent<'_>);
}

impl<F: Fn(&BusEvent<'_>) + Send + Sync + 'static> Hook for F {
    fn on_event(&self, event: &BusEvent<'_>) {
        self(event);
    }
}

/// The hooks of a bus, called in order, each shielded from the others' panics.
#[derive(Clone, Default)]
pub(crate) struct Hooks(Arc<[Arc<dyn Hook>]>);

impl Hooks {
    pub(crate) fn new(hooks: Vec<Arc<dyn Hook>>) -> Self {
        Self(hooks.into())
    }

    /// Whether anybody listens: lets callers skip building an event.
    pub(crate) fn any(&self) -> bool {
        !self.0.is_empty()
    }

    pub(crate) fn emit(&self, event: &BusEvent<'_>) {
        for hook in self.0.iter() {
            if catch_unwind(AssertUnwindSafe(|| hook.on_event(event))).is_err() {
                tracing::error!("a hook panicked; it is called again for the next event");
            }
        }
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hooks({})", self.0.len())
    }
}
