//! Events of the bus for its owner: [`BusEvent`]s, passed to a [`Hook`].
//!
//! One enum and one function, so that a new event breaks no hook. A hook is called by the thread that finds the event:
//! the bus's own, a publisher's, a handler's or the backend's. Events of a key come in order. A hook must not block;
//! its panic is caught and logged, and affects nothing else.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::retry::Retry;
use crate::backend::ConnectionState;
use crate::model::{Envelope, Error, Group, Key, Position, Receipt, Stamp, Topic};

/// Event that an operator wants to know of.
#[derive(Debug)]
#[non_exhaustive]
pub enum BusEvent<'a> {
    /// A publish is over, well or not. Reported once for every publish that took a place or failed with a valid topic.
    Published {
        /// The topic.
        topic: &'a Topic,
        /// The publish's stamp.
        stamp: Stamp,
        /// The envelope.
        envelope: &'a Envelope,
        /// The receipt, or the error.
        result: &'a Result<Receipt, Error>,
    },
    /// A key was sealed by a refusal (P2). `key: None` where so many keys were that the whole topic is.
    Sealed {
        /// The topic.
        topic: &'a Topic,
        /// The key.
        key: Option<&'a Key>,
        /// The error, which names the refused publish.
        error: &'a Error,
    },
    /// A topic was found with another number of partitions than its keys are placed by. Keyed publishes to it fail
    /// until the number is [accepted](crate::EventBus::accept_partitions).
    PartitionsChanged {
        /// The topic.
        topic: &'a Topic,
        /// The number that keys are placed by.
        in_force: u32,
        /// The number that the topic has.
        found: u32,
    },
    /// An attempt failed.
    AttemptFailed {
        /// The envelope's place.
        at: &'a Location,
        /// The number of the attempt, from 1 on.
        attempt: u32,
        /// The error's message.
        error: &'a str,
    },
    /// A handler could not work yet, as [`HandlerError::wait`](crate::HandlerError::wait) says: its key waits, and no
    /// attempt is charged.
    AttemptDeferred {
        /// The envelope's place.
        at: &'a Location,
        /// The time after which the envelope is handed over again.
        wait: Duration,
        /// The handler's reason.
        reason: &'a str,
    },
    /// Envelopes of many keys failed and none succeeded in between: what the handlers need is taken to be away. Handling
    /// is suspended; see [`outage_guard`](crate::Subscribe::outage_guard).
    Suspended {
        /// The topic.
        topic: &'a Topic,
        /// The group.
        group: &'a Group,
        /// The member.
        member: &'a str,
        /// The number of keys whose envelopes failed.
        keys: usize,
    },
    /// An envelope was handled again after an outage: handling is suspended no more.
    OutageOver {
        /// The topic.
        topic: &'a Topic,
        /// The group.
        group: &'a Group,
        /// The member.
        member: &'a str,
        /// The time for which handling was suspended.
        after: Duration,
    },
    /// An envelope went to the dead-letter topic, and the write is confirmed.
    DeadLettered {
        /// The envelope's place.
        at: &'a Location,
        /// Attempts made.
        attempts: u32,
        /// The last error's message.
        error: &'a str,
    },
    /// An envelope was skipped by policy.
    Skipped {
        /// The envelope's place.
        at: &'a Location,
        /// Attempts made.
        attempts: u32,
        /// The last error's message.
        error: &'a str,
    },
    /// A second copy was dropped (P3).
    CopyDropped {
        /// The copy's place.
        at: &'a Location,
        /// The stamp, which an earlier record has, too.
        stamp: Stamp,
    },
    /// A replayed dead letter of another group was finished unhandled.
    ReplayIgnored {
        /// The dead letter's place.
        at: &'a Location,
    },
    /// Retention took records that were not handled (S3).
    DataLost {
        /// The topic and partition.
        at: &'a Location,
        /// The first position that was not handled.
        from: Position,
        /// The first position that the log still holds.
        to: Position,
    },
    /// The log is another one than the progress was written for (S3).
    LogReset {
        /// The topic and partition.
        at: &'a Location,
    },
    /// A partition's oldest unfinished envelope has been so for too long (S1).
    Stalled {
        /// The oldest unfinished envelope.
        at: &'a Location,
        /// The time since it became the oldest.
        age: Duration,
        /// Whether intake of the partition has stopped.
        full: bool,
    },
    /// A record was found in another partition than its key's hash says. S1 then holds within the partition only.
    Misplaced {
        /// The record's place.
        at: &'a Location,
    },
    /// A member claimed a partition, released it or lost it.
    Ownership {
        /// The topic and partition.
        at: &'a Location,
        /// The epoch of the ownership.
        epoch: u64,
        /// Claimed, released or lost.
        change: OwnershipChange,
    },
    /// A subscription waits for a topic that does not exist yet. Told once, when the wait begins.
    AwaitingTopic {
        /// The topic.
        topic: &'a Topic,
        /// The group.
        group: &'a Group,
        /// How long the subscription waits at most.
        patience: Duration,
    },
    /// A subscription ended with an error.
    SubscriptionEnded {
        /// The topic.
        topic: &'a Topic,
        /// The group.
        group: &'a Group,
        /// The reason.
        error: &'a Error,
    },
    /// An operation fails and is tried again, for longer than
    /// [`notice_after`](crate::BusConfig::notice_after). Told again after waits that double.
    Retrying(&'a Retry<'a>),
    /// No operation of a kind that was told as `Retrying` is late any more.
    Recovered {
        /// The operation.
        operation: &'static str,
        /// The topic.
        topic: &'a Topic,
        /// The group; `None` for publishes.
        group: Option<&'a Group>,
        /// The time since the first of the late ones was first tried.
        age: Duration,
    },
    /// The connection's state changed.
    Connection(ConnectionState),
}

/// Change of an ownership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OwnershipChange {
    /// The claim is stored; handlers may start.
    Claimed,
    /// The partition is finished, committed and given back.
    Released,
    /// The partition is gone without a hand-over.
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
    /// The position; `None` for an event about the partition.
    pub position: Option<Position>,
    /// The key; `None` for an event about the partition, or where the envelope has none.
    pub key: Option<Key>,
}

/// Receiver of [`BusEvent`]s. Any `Fn(&BusEvent)` is one.
pub trait Hook: Send + Sync + 'static {
    /// Receives one event. Must not block.
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

    /// Returns whether anybody listens: callers can skip building an event.
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
