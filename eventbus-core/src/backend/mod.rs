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

mod capabilities;
mod delivery;
mod description;
mod ensure_topic;
mod forward;
mod health;
mod lease;
mod membership;
mod named;
mod submission;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::model::{Group, Position, Result, Stamp, Topic, TopicSpec};

pub use capabilities::{Capabilities, Pipelining};
pub use delivery::{Body, Inbound};
pub use description::{Committed, GroupDescription, GroupPartition, LogState, TopicDescription};
pub use ensure_topic::ensure_topic;
pub(crate) use forward::forwarding;
pub use forward::{ForwardBackend, ForwardMember};
pub use health::{ConnectionState, Health};
pub use lease::Lease;
pub use membership::{Assignment, Commit, GroupEvent, Join, Membership};
pub(crate) use named::Named;
pub use submission::{Fate, Outbound, Ticket, TicketSink};

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
    async fn count_partitions(&self, topic: &Topic) -> Result<u32>;

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
