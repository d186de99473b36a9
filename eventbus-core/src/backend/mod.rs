//! The interface that a backend implements: logs, groups and a place for watermarks. Everything that makes the ordering
//! contract true stays in this crate.
//!
//! ```text
//! publish ──► key lanes ──► Backend::submit ─────────► broker
//!                 ▲  Ticket: stored | not stored | refused | unknown
//! broker ──► Membership::next ──► session ──► keyed pool ──► handler
//!                 ▲                  │ epochs, watermark, note
//!                 └── claim / commit / release ◄──┘
//! ```
//!
//! # What a backend promises
//!
//! **Logs.** A topic has a fixed number of partitions. A partition hands out its records by rising [`Position`]s, which
//! need not be contiguous (one sequence may be shared by all partitions of a topic). Watermarks are kept as the *next*
//! position to be handled: everything below is finished.
//!
//! **Publishing** (P1–P4). [`Backend::submit`] neither blocks nor fails; the fate of the record is told to its
//! [`Ticket`], from any thread, also before `submit` returns. The four fates are all that the key lanes know:
//!
//! | fate | means |
//! |---|---|
//! | [`Fate::Stored`] | in the log at this position, as durable as the topic is configured |
//! | [`Fate::NotStored`] | certainly not in the log, and never will be by this submission; sending again may help |
//! | [`Fate::Refused`] | certainly not in the log, and sending again cannot help |
//! | [`Fate::Unknown`] | anything else, also a dropped ticket |
//!
//! With [`Pipelining::OnePerKey`] at most one record of a key is outstanding. With [`Pipelining::PerPartition`] the
//! backend stores what it was given of one partition in the order of the calls, and *without a hole*: once a record of
//! a partition gets another fate than `Stored`, every record of that partition that was submitted later and before that
//! fate was told gets another fate than `Stored` as well. The lanes then send what is left again, in order. Such a backend
//! asks [`Ticket::stands`] when it fixes a record's place, since a call of `submit` may cross a fate on its way.
//! A record that is sent again carries the same [`Stamp`]; a backend that removes copies uses it as the message id.
//! `Unknown` may be told only when the submission can no longer reach the log later than a re-send would, or where the
//! broker drops the copy ([`Capabilities::resend_window`]).
//!
//! **Groups** (S3–S5). [`Membership::next`] yields [`GroupEvent`]s. A partition belongs to one member at a time.
//! *Assigned* opens an ownership: the core claims it by a [`Commit`] with a higher epoch before the first handler starts,
//! then calls [`Membership::read`]. *Revoked* asks it back: the core finishes, commits and calls
//! [`Membership::release`]; only then may another member own it. *Lost* says that it is gone. A commit under an epoch
//! that has been superseded fails with [`ErrorKind::Fenced`](crate::ErrorKind::Fenced) and changes nothing: this is the
//! fence on which S5 stands.
//! The [`Lease`] of an assignment holds the instant until which the backend vouches that no other member has taken over;
//! the core reads it before every handler start.
//!
//! **No records skipped.** Within one read, positions only rise and no record of the partition between `from` and the
//! newest delivered one is left out. If a backend cannot tell that this holds (a gap, a reconnect), it yields
//! [`GroupEvent::Interrupted`] and delivers nothing more of the partition until the core has called `read` again.
//! Records are never asked for twice within an ownership, and never negatively acknowledged.
//!
//! **Flow.** After [`Membership::pause`] at most [`Capabilities::overshoot`] further records of a partition may come.
//! `next` is polled all the time, also while everything is paused, so that a revocation is seen.
//!
//! **Topics.** A backend makes, changes and describes them; how an existing one is treated
//! ([`OnExisting`](crate::OnExisting)) and what is compared is [`ensure_topic`]'s, on every backend the same.
//!
//! All futures of this interface run on the bus's own thread and must not block it; what blocks goes to a thread of its
//! own. Every call returns within a bounded time, with a retryable error if need be. Where a method is *cancel safe*,
//! dropping its future loses nothing.
//!
//! # What trying it on real brokers taught
//!
//! The interface was tried with a rough backend on each of two real brokers, under kills, freezes and hand-overs, before it
//! was called settled.
//!
//! **One sequence shared by all partitions.** Positions of a partition have gaps, and its `first` and `end` are the whole
//! log's. An idle partition looks ever further behind, and retention passes it without taking anything of it. So report
//! [`GroupEvent::CaughtUp`] regularly: read the end of the log first, then the partition's last record; if that one is
//! delivered, nothing of the partition is left below that end. The other way round, a record stored between the two is passed
//! over. Send it through the queue that carries the records, so that it cannot overtake one.
//!
//! **A producer that pipelines.** Its guarantee ends with its first failure, and then for all partitions. Treat any failed
//! record as the end of that producer: let `submit` answer `NotStored`, make the client report everything outstanding, tell
//! every ticket, and only then put a new producer in place, under the lock under which `submit` asks [`Ticket::stands`] and
//! enqueues. What was never sent is `NotStored`; what may have been sent is `Unknown`. A definite error for a batch is the
//! fate of its culprit only; check sizes as encoded, before the client sees the record. Hold no lock of your own while
//! telling: a ticket may call `submit` from inside `tell`. All of it is in [`crate::toolkit::pipeline`], on a client of yours.
//!
//! **A broker that assigns partitions by itself.** It may be answered only when all revoked partitions are released; keep
//! polling meanwhile, or the member is thrown out. Progress that any live member may write is no fence: commit only what is
//! assigned now, and let [`Membership::release`] return only when no commit of the partition can take effect any more. A
//! commit may block as long as the coordinator is away. A refusal because a rebalance is under way is retryable; only an
//! unknown member is `Fenced`. Between *assigned* and the claim, the stored epoch is still the predecessor's. All of it is in
//! [`crate::toolkit::coordinated`], over a client of yours.
//!
//! **Records with compare-and-swap.** One record per partition holds owner, epoch, watermark and note; renewal and commit are
//! the same write and take turns. Count the lease from before the write was sent. A write of unknown outcome is decided by
//! reading back. A reader belongs to one `read`: give it a fresh name, number what it queues, and end it with `Interrupted`
//! at the first gap, error or silence. A note shares its place with what the backend writes beside it: state
//! [`Capabilities::note_bytes`] after encoding, less the epoch. All of it is in [`crate::toolkit::lease`], on a small store of yours.

mod delivery;
mod description;
mod ensure_topic;
mod forward;
mod health;
mod lease;
mod named;
mod submission;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::model::{Group, Position, Result, Stamp, Topic, TopicSpec};

pub use delivery::{Body, Fate, Inbound, Outbound};
pub use description::{GroupDescription, GroupPartition};
pub use ensure_topic::ensure_topic;
pub(crate) use forward::forwarding;
pub use forward::{ForwardBackend, ForwardMember};
pub use health::{ConnectionState, Health};
pub use lease::Lease;
pub(crate) use named::Named;
pub use submission::{Ticket, TicketSink};

/// A store of logs and groups. Implement it, put it under [`Bus`](crate::Bus), and run the conformance suite.
#[async_trait]
pub trait Backend: fmt::Debug + Send + Sync + 'static {
    /// The `messaging.system` name of OpenTelemetry's semantic conventions, for metrics, spans and errors.
    fn system(&self) -> &'static str;

    /// What this backend can do; constant for its life.
    fn capabilities(&self) -> Capabilities;

    /// Connects. Called once, on the bus's own thread, before anything else but [`submit`](Self::submit): tasks that are
    /// spawned here run beside the bus's own work, where no handler can starve them. Wrong credentials and an unreachable
    /// broker are told here.
    async fn open(&self) -> Result<()>;

    /// The settings of a topic as this backend describes it when they are in force: what it does not keep at its default, limits
    /// as it rounds them. `Unsupported`, naming the setting, for what it cannot have.
    fn in_force(&self, spec: &TopicSpec) -> Result<TopicSpec>;

    /// Makes a topic with settings of [`in_force`](Self::in_force). `false` where there is one of this name: that it is missing
    /// was seen before, so somebody was faster. See [`ensure_topic`].
    async fn create_topic(&self, spec: &TopicSpec) -> Result<bool>;

    /// Changes what can be changed of a topic to settings of [`in_force`](Self::in_force). What cannot be is as asked, and
    /// whatever the topic has beyond these settings stays.
    async fn update_topic(&self, spec: &TopicSpec) -> Result<()>;

    /// Describes a topic; `UnknownTopic` where it is missing. Never creates one.
    async fn describe_topic(&self, topic: &Topic) -> Result<TopicDescription>;

    /// How many partitions a topic has; `UnknownTopic` where it is missing. Asked for now and then where
    /// [`partitions_change`](Capabilities::partitions_change), so a backend may have a cheaper way than to describe it.
    async fn count_partitions(&self, topic: &Topic) -> Result<u32> {
        Ok(self.describe_topic(topic).await?.spec.partitions)
    }

    /// Deletes a topic and its records; `UnknownTopic` where it is missing.
    async fn delete_topic(&self, topic: &Topic) -> Result<()>;

    /// The topics of this bus, by name.
    async fn list_topics(&self) -> Result<Vec<Topic>>;

    /// Sends one record. Never blocks, never fails: the fate goes to the ticket. Records of one partition are submitted
    /// one call at a time.
    fn submit(&self, record: Outbound, ticket: Ticket);

    /// Looks for a stamp in a partition's log at `from` or above (P3). Reads to the end of the log as it is when called.
    async fn find_stamp(&self, topic: &Topic, partition: u32, from: Position, stamp: Stamp)
    -> Result<Option<Position>>;

    /// The first position whose record was stored at or after `unix_millis`, or the end of the log.
    async fn position_at(&self, topic: &Topic, partition: u32, unix_millis: u64) -> Result<Position>;

    /// Joins a group as one member.
    async fn join(&self, join: Join) -> Result<Arc<dyn Membership>>;

    /// The groups that have progress or members on a topic, by name.
    async fn list_groups(&self, topic: &Topic) -> Result<Vec<Group>>;

    /// Progress, owner and lag of every partition; `UnknownGroup` where the group has neither progress nor members.
    async fn describe_group(&self, topic: &Topic, group: &Group) -> Result<GroupDescription>;

    /// Sets the next position of partitions of a group without active members, as records written by nobody (epoch
    /// kept, note cleared); `GroupActive` otherwise.
    async fn reset_group(&self, topic: &Topic, group: &Group, to: &[(u32, Position)]) -> Result<()>;

    /// Forgets a group without active members; `GroupActive` otherwise.
    async fn delete_group(&self, topic: &Topic, group: &Group) -> Result<()>;

    /// Whether the broker answers, which it is, and the state of the connection.
    async fn health(&self) -> Health;

    /// Ends all connections. Tickets still outstanding are told their fate (`Unknown` at worst) before it returns.
    async fn close(&self) -> Result<()>;
}

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

    /// Stops delivery of a partition for a while, within [`Capabilities::overshoot`].
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

/// What a backend can do. Options that need a missing capability are refused at construction, never ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// How much may be outstanding without losing order.
    pub pipelining: Pipelining,
    /// The most records outstanding over all keys. Default 4 096.
    pub in_flight: usize,
    /// How long after its first send the same stamp sent again is sure to be dropped as a copy; after that the log is
    /// read before a re-send (P3). `None`: for ever. The topic's own window, where it has one, goes before it.
    pub resend_window: Option<Duration>,
    /// The largest record in bytes as [`Envelope::size`](crate::Envelope::size) counts, where the topic states none.
    pub max_record_bytes: Option<usize>,
    /// The largest note in bytes. Default 3 072.
    pub note_bytes: usize,
    /// The most records of one partition that may still come after a pause. Default 1 024.
    pub overshoot: usize,
    /// Topics can be kept in memory only.
    pub memory_storage: bool,
    /// Progress survives the process.
    pub durable: bool,
    /// A topic's records can be limited by age, bytes or count.
    pub retention: bool,
    /// Positions can be found by time.
    pub seek_by_time: bool,
    /// How long a topic that was made or changed may take to be described so. Default zero: when the call returns.
    pub settles: Duration,
    /// A topic's number of partitions can be changed by others while the bus runs. Default no.
    pub partitions_change: bool,
}

impl Default for Capabilities {
    fn default() -> Self {
        Self {
            pipelining: Pipelining::OnePerKey,
            in_flight: 4_096,
            resend_window: Some(Duration::ZERO),
            max_record_bytes: None,
            note_bytes: 3_072,
            overshoot: 1_024,
            memory_storage: false,
            durable: true,
            retention: true,
            seek_by_time: true,
            settles: Duration::ZERO,
            partitions_change: false,
        }
    }
}

/// How much a producer may have outstanding without reordering or leaving a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pipelining {
    /// One record a key; any number of keys.
    OnePerKey,
    /// Any number; see the module's documentation for what a failure must then do.
    PerPartition,
}

/// A topic as the broker has it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicDescription {
    /// The settings in force, partition count among them.
    pub spec: TopicSpec,
    /// Which incarnation this is: differs after deletion and re-creation.
    pub incarnation: String,
    /// The log of each partition, in order of partition.
    pub partitions: Vec<LogState>,
    /// The largest record in bytes that the topic takes.
    pub max_record_bytes: Option<usize>,
    /// Records in all partitions.
    pub records: u64,
    /// Bytes in all partitions, where the broker tells.
    pub bytes: Option<u64>,
}

impl TopicDescription {
    /// A description with no records; fill in the rest.
    #[must_use]
    pub fn new(spec: TopicSpec, incarnation: impl Into<String>, partitions: Vec<LogState>) -> Self {
        Self { spec, incarnation: incarnation.into(), partitions, max_record_bytes: None, records: 0, bytes: None }
    }

    /// The same of logs whose positions have no gaps, so that the number of records follows from them.
    #[must_use]
    pub fn counted(spec: TopicSpec, incarnation: impl Into<String>, partitions: Vec<LogState>) -> Self {
        let records = partitions.iter().map(|log| log.end.get().saturating_sub(log.first.get())).sum();
        Self { records, ..Self::new(spec, incarnation, partitions) }
    }
}

/// The ends of one partition's log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogState {
    /// The incarnation of the topic.
    pub incarnation: String,
    /// No record below this one is held any more.
    pub first: Position,
    /// The position that the next record gets at the least.
    pub end: Position,
}

impl LogState {
    /// Whether this is another log than the one of this incarnation, as far as the broker tells incarnations at all.
    pub(crate) fn is_another_than(&self, incarnation: &str) -> bool {
        !self.incarnation.is_empty() && !incarnation.is_empty() && self.incarnation != incarnation
    }
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

/// Progress as it was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The next position to be handled.
    pub next: Position,
    /// The epoch under which it was written.
    pub epoch: u64,
    /// The note, opaque to the backend; empty where there is none.
    pub note: Bytes,
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
    /// The note, opaque to the backend, at most [`Capabilities::note_bytes`] long.
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
