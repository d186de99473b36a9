//! One member of a group: the calls that the core makes and the events that the member yields (S3 to S5).

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::delivery::Inbound;
use super::description::{Committed, LogState, TopicDescription};
use super::health::ConnectionState;
use super::lease::Lease;
use crate::model::{Error, Group, Position, Result};

/// One member of a group, on one topic. The core may call any method while others are under way.
#[async_trait]
pub trait Membership: fmt::Debug + Send + Sync + 'static {
    /// Waits for the next event. Cancel safe. One caller at a time. After an error the member is gone, its partitions
    /// count as lost, and the core does not call this again.
    async fn next(&self) -> Result<GroupEvent>;

    /// Starts delivery of an assigned partition at `from`, ending any earlier delivery: once this has returned, nothing
    /// fetched by an earlier read arrives. Reports the log as it is now, so that a cut or replaced log is noticed (S3);
    /// `incarnation` is empty where the broker tells none. Records of this read may arrive before it returns.
    async fn read(&self, partition: u32, from: Position) -> Result<LogState>;

    /// Stops delivery of a partition for a while, within [`Capabilities::overshoot`](super::Capabilities::overshoot).
    fn pause(&self, partition: u32);

    /// Ends a pause.
    fn resume(&self, partition: u32);

    /// Stores a watermark and its note; `Fenced` where the epoch has been superseded or the partition is not owned. A
    /// claim ([`Commit::claim`]) must be a write that a stale owner cannot make. When the outcome cannot be known, the
    /// error is retryable and the core commits again.
    async fn commit(&self, commit: Commit) -> Result<()>;

    /// Gives up a partition that was revoked, or any before leaving. The core has made the final commit by then.
    async fn release(&self, partition: u32) -> Result<()>;

    /// Leaves the group. Partitions that were never claimed count as released. One that was claimed and not released
    /// may have a handler that still runs: no other member may have it before this member's session would have ended
    /// (S5).
    async fn leave(&self) -> Result<()>;
}

/// Request of a member to join a group.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Join {
    /// The topic, as described just before.
    pub topic: TopicDescription,
    /// The group to join.
    pub group: Group,
    /// The member's name: unique in the group, a readable prefix and a random part.
    pub member: String,
    /// The time for which a silent member keeps its partitions. Default 10 s.
    pub session_timeout: Duration,
    /// The time for which a revocation waits for [`Membership::release`]. Default 30 s.
    pub drain_deadline: Duration,
    /// Whether the group begins anew where the place of its progress was taken away. Default: joining fails with
    /// `LogReset`.
    pub begin_anew: bool,
}

impl Join {
    /// The time that the core adds to a subscription's own `drain_deadline`, for the last calls to the broker: a backend
    /// that refuses a deadline names the setting's limit without it.
    pub const HAND_BACK_GRACE: Duration = Duration::from_secs(6);

    /// Makes a request with the default time-outs (10 s, 30 s).
    #[must_use]
    pub fn new(topic: TopicDescription, group: Group, member: impl Into<String>) -> Self {
        Self {
            topic,
            group,
            member: member.into(),
            session_timeout: Duration::from_secs(10),
            drain_deadline: Duration::from_secs(30),
            begin_anew: false,
        }
    }
}

/// Event in the life of a member.
#[derive(Debug)]
#[non_exhaustive]
pub enum GroupEvent {
    /// Partitions were given to this member.
    Assigned(Vec<Assignment>),
    /// Records, those of each partition in rising position.
    Records(Vec<Inbound>),
    /// No undelivered record of this partition is left below `next`: the core may lift an idle partition's watermark
    /// there.
    CaughtUp {
        /// The partition.
        partition: u32,
        /// The position up to which, exclusively, nothing is left undelivered.
        next: Position,
    },
    /// Partitions are wanted back: the core finishes, commits and releases them.
    Revoked(Vec<u32>),
    /// Partitions are gone; commits for them fail.
    Lost(Vec<u32>),
    /// Delivery of these partitions broke off; the core reads again.
    Interrupted(Vec<u32>),
    /// The log no longer holds records that were not delivered yet, up to `first`.
    Truncated {
        /// The partition.
        partition: u32,
        /// The first position that the log still holds.
        first: Position,
    },
    /// Records were taken out of the middle of the log before they were delivered. Where partitions share one sequence,
    /// some or all of them may have been other partitions'.
    Removed {
        /// The partition.
        partition: u32,
        /// The first of them.
        from: Position,
        /// The position behind the last of them.
        to: Position,
    },
    /// The connection's state changed.
    Connection(ConnectionState),
    /// Calls to the broker have failed for so long, and are made again: those for a partition, or for the whole member.
    Waiting {
        /// The partition; `None` for the member.
        partition: Option<u32>,
        /// The time since the first failure.
        age: Duration,
        /// The last error, in the broker's words.
        error: Error,
    },
}

/// A partition that a member was given.
#[derive(Debug)]
#[non_exhaustive]
pub struct Assignment {
    /// The partition.
    pub partition: u32,
    /// The log as it is now.
    pub log: LogState,
    /// The group's committed progress, read after ownership was taken. `None`: no progress yet.
    pub committed: Option<Committed>,
    /// The lease: until it ends, no other member can have taken over.
    pub lease: Lease,
}

impl Assignment {
    /// Makes an assignment.
    #[must_use]
    pub fn new(partition: u32, log: LogState, committed: Option<Committed>, lease: Lease) -> Self {
        Self { partition, log, committed, lease }
    }
}

/// Progress to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Commit {
    /// The partition.
    pub partition: u32,
    /// The next position to be handled.
    pub next: Position,
    /// The epoch of the ownership.
    pub epoch: u64,
    /// The note, opaque to the backend, at most [`Capabilities::note_bytes`](super::Capabilities::note_bytes) long.
    pub note: Bytes,
    /// Marks the first commit of an ownership, which raises the stored epoch to `epoch`.
    pub claim: bool,
}

impl Commit {
    /// Makes a commit of progress under an epoch.
    #[must_use]
    pub fn new(partition: u32, next: Position, epoch: u64, note: Bytes) -> Self {
        Self { partition, next, epoch, note, claim: false }
    }

    /// Turns the commit into a claim.
    #[must_use]
    pub fn claiming(mut self) -> Self {
        self.claim = true;
        self
    }
}
