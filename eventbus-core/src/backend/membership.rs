//! One member of a group: what the core asks of it, and what it tells (S3 to S5).

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::delivery::Inbound;
use super::description::{Committed, LogState, TopicDescription};
use super::health::ConnectionState;
use super::lease::Lease;
use crate::model::{Group, Position, Result};

/// One member of a group, on one topic. All methods may be called while others are under way.
#[async_trait]
pub trait Membership: fmt::Debug + Send + Sync + 'static {
    /// The next event. Cancel safe. Called by one caller at a time; after an error the member is gone, what it owned counts as
    /// lost, and it is not called again.
    async fn next(&self) -> Result<GroupEvent>;

    /// Starts delivery of an assigned partition at `from`, ending any earlier delivery: nothing that an earlier read
    /// fetched comes after this has returned. Reports the log as it is now, so that a log that was cut or replaced is
    /// seen (S3): `incarnation` is empty where the broker tells none. Records of this read may come before it returns.
    async fn read(&self, partition: u32, from: Position) -> Result<LogState>;

    /// Stops delivery of a partition for a while, within [`Capabilities::overshoot`](super::Capabilities::overshoot).
    fn pause(&self, partition: u32);

    /// Ends a pause.
    fn resume(&self, partition: u32);

    /// Stores a watermark and its note; `Fenced` where the epoch has been superseded or the partition is not owned.
    /// A claim ([`Commit::claim`]) must be a write that a stale owner cannot make. When the outcome cannot be known the
    /// error is retryable, and the core commits again.
    async fn commit(&self, commit: Commit) -> Result<()>;

    /// Gives up a partition that was revoked, or before leaving. The final commit has been made.
    async fn release(&self, partition: u32) -> Result<()>;

    /// Leaves the group. What was not released counts as released without a commit.
    async fn leave(&self) -> Result<()>;
}

/// What a member asks for when it joins.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Join {
    /// The topic, as described just before.
    pub topic: TopicDescription,
    /// The group.
    pub group: Group,
    /// The member's name: unique in the group, a readable prefix and a random part.
    pub member: String,
    /// How long a silent member keeps its partitions. Default 10 s.
    pub session_timeout: Duration,
    /// How long a revocation waits for [`Membership::release`].
    pub drain_deadline: Duration,
}

impl Join {
    /// A member with the default time-outs (10 s, 30 s).
    #[must_use]
    pub fn new(topic: TopicDescription, group: Group, member: impl Into<String>) -> Self {
        Self {
            topic,
            group,
            member: member.into(),
            session_timeout: Duration::from_secs(10),
            drain_deadline: Duration::from_secs(30),
        }
    }
}

/// What happens to a member.
#[derive(Debug)]
#[non_exhaustive]
pub enum GroupEvent {
    /// These partitions are now this member's.
    Assigned(Vec<Assignment>),
    /// Records, each partition's in rising position.
    Records(Vec<Inbound>),
    /// Nothing of this partition is left below `next`: an idle partition's watermark may be lifted there.
    CaughtUp {
        /// The partition.
        partition: u32,
        /// One above the last position that is known to hold nothing undelivered.
        next: Position,
    },
    /// These partitions are wanted back: finish, commit, release.
    Revoked(Vec<u32>),
    /// These partitions are gone; commits for them fail.
    Lost(Vec<u32>),
    /// Delivery of these partitions broke off; the core reads again.
    Interrupted(Vec<u32>),
    /// The log gave up records that were not delivered yet, up to `first`.
    Truncated {
        /// The partition.
        partition: u32,
        /// The first position that is still there.
        first: Position,
    },
    /// The connection's state changed.
    Connection(ConnectionState),
}

/// A partition that a member has been given.
#[derive(Debug)]
#[non_exhaustive]
pub struct Assignment {
    /// The partition.
    pub partition: u32,
    /// The log as it is now.
    pub log: LogState,
    /// What the group has committed, read after ownership was taken. `None`: no progress yet.
    pub committed: Option<Committed>,
    /// Until when no other member can have taken over.
    pub lease: Lease,
}

impl Assignment {
    /// An assignment.
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
    /// The first commit of an ownership: raises the stored epoch to `epoch`.
    pub claim: bool,
}

impl Commit {
    /// Progress under an epoch.
    #[must_use]
    pub fn new(partition: u32, next: Position, epoch: u64, note: Bytes) -> Self {
        Self { partition, next, epoch, note, claim: false }
    }

    /// The same as a claim.
    #[must_use]
    pub fn claiming(mut self) -> Self {
        self.claim = true;
        self
    }
}
