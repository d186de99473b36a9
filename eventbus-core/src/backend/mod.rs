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
//! [`Ticket`], from any thread, also before `submit` returns. The five fates are all that the key lanes know:
//!
//! | fate | means |
//! |---|---|
//! | [`Fate::Stored`] | in the log at this position, as durable as the topic is configured |
//! | [`Fate::NotStored`] | certainly not in the log, and never will be by this submission; sending again may help |
//! | [`Fate::Refused`] | certainly not in the log, and sending again cannot help |
//! | [`Fate::Doubtful`] | refused now, but perhaps in the log by an earlier send that the client made by itself |
//! | [`Fate::Unknown`] | anything else, also a dropped ticket |
//!
//! With [`Pipelining::OnePerKey`] at most one record of a key is outstanding. With [`Pipelining::PerPartition`] the
//! backend stores the records of a partition in the order of the calls, and *without a hole*: once a record of a
//! partition gets another fate than `Stored`, every record of that partition that was submitted later and before that
//! fate was told gets another fate than `Stored` as well. The lanes then send the unstored records again, in order.
//! Such a backend asks [`Ticket::stands`] when it fixes a record's place, since a call of `submit` may cross a fate on
//! its way. A record that is sent again carries the same [`Stamp`]; a backend that removes copies uses it as the
//! message id. `Unknown` may be told only when the submission can no longer reach the log later than a re-send would,
//! or where the broker drops the copy ([`Capabilities::resend_window`]).
//!
//! **Groups** (S3–S5). [`Membership::next`] yields [`GroupEvent`]s. A partition belongs to one member at a time.
//! *Assigned* opens an ownership: the core claims it by a [`Commit`] with a higher epoch before the first handler
//! starts, then calls [`Membership::read`]. *Revoked* asks for the partition back: the core finishes, commits and calls
//! [`Membership::release`]; only then may another member own it. *Lost* says that the partition is gone. A commit under
//! an epoch that has been superseded fails with [`ErrorKind::Fenced`](crate::ErrorKind::Fenced) and changes nothing: S5
//! stands on this fence. The [`Lease`] of an assignment holds the instant until which the backend vouches that no other
//! member has taken over; the core reads it before every handler start.
//!
//! **No records skipped.** Within one read, positions only rise, and every record of the partition between `from` and
//! the newest delivered one is delivered. A backend that cannot be sure of this (after a gap or a reconnect) yields
//! [`GroupEvent::Interrupted`] and delivers nothing more of the partition until the core has called `read` again.
//! Within an ownership, the core asks for no record twice, and it never acknowledges one negatively.
//!
//! **Flow.** After [`Membership::pause`] at most [`Capabilities::overshoot`] further records of a partition may arrive.
//! The core polls `next` all the time, also while everything is paused, so that it sees a revocation.
//!
//! **Topics.** A backend makes, changes and describes topics. [`ensure_topic`] treats existing topics
//! ([`OnExisting`](crate::OnExisting)) and compares their settings, on every backend the same.
//!
//! All futures of this interface run on the bus's own thread and must not block it; blocking work goes to a thread of
//! the backend's own. Every call returns within a bounded time, with a retryable error if need be. Where a method is
//! *cancel safe*, dropping its future loses nothing.
//!
//! # What trying it on real brokers taught
//!
//! The interface was tried with a rough backend on each of two real brokers, under kills, freezes and hand-overs,
//! before it was called settled.
//!
//! **One sequence shared by all partitions.** Positions of a partition have gaps, and its `first` and `end` are the
//! whole log's. An idle partition seems to fall ever further behind, and retention passes its watermark without taking
//! any of its records. So report [`GroupEvent::CaughtUp`] regularly: read the end of the log first, then the
//! partition's last record. If that record is delivered, nothing of the partition is left below that end. In the other
//! order, a record stored between the two reads would be passed over. Send the event through the queue that carries the
//! records, so that it cannot overtake one.
//!
//! **A producer that pipelines.** Its guarantee ends with its first failure, and then for all partitions. Treat any
//! failed record as the end of that producer: let `submit` answer `NotStored`, make the client report everything
//! outstanding, tell every ticket, and only then put a new producer in place, under the lock under which `submit` asks
//! [`Ticket::stands`] and enqueues. A record that was never sent is `NotStored`; one that may have been sent is
//! `Unknown`. A definite error for a batch is the fate of its culprit only; check sizes as encoded, before the client
//! sees the record. Hold no lock of your own while telling: a ticket may call `submit` from inside `tell`.
//! [`crate::toolkit::pipeline`] does all of this, on a client of yours.
//!
//! **A broker that assigns partitions by itself.** Answer the broker only when all revoked partitions are released;
//! keep polling meanwhile, or the broker expels the member. Progress that any live member may write is no fence: commit
//! only for partitions that are assigned now, and let [`Membership::release`] return only when no commit of the
//! partition can take effect any more. A commit may block as long as the coordinator is away. A refusal because a
//! rebalance is under way is retryable; only an unknown member is `Fenced`. Between *assigned* and the claim, the
//! stored epoch is still the predecessor's. [`crate::toolkit::coordinated`] does all of this, over a client of yours.
//!
//! **Records with compare-and-swap.** One record per partition holds owner, epoch, watermark and note; renewal and
//! commit are the same write and take turns. Count the lease from before the write was sent. Decide a write of unknown
//! outcome by reading the record back. A reader belongs to one `read`: give it a fresh name, number the events that it
//! queues, and end it with `Interrupted` at the first gap, error or silence. A note shares its place with data that the
//! backend writes beside it: state [`Capabilities::note_bytes`] after encoding, less the epoch.
//! [`crate::toolkit::lease`] does all of this, on a small store of yours.

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

    /// Returns what this backend can do; constant for its life.
    fn capabilities(&self) -> Capabilities;

    /// Connects. The bus calls this once, on its own thread, before anything else but [`submit`](Self::submit): tasks
    /// spawned here run beside the bus's own work, where no handler can starve them. Wrong credentials and an
    /// unreachable broker fail here.
    async fn open(&self) -> Result<()>;

    /// Returns the settings of a topic as this backend would describe them in force: settings that it does not keep at
    /// their defaults, limits rounded as it rounds them. `Unsupported`, naming the setting, for one that it cannot
    /// have.
    fn in_force(&self, spec: &TopicSpec) -> Result<TopicSpec>;

    /// Makes a topic with settings from [`in_force`](Self::in_force). Returns `false` where a topic of this name
    /// exists: the core saw it missing before, so another client was faster. See [`ensure_topic`].
    async fn create_topic(&self, spec: &TopicSpec) -> Result<bool>;

    /// Changes a topic to settings from [`in_force`](Self::in_force). The settings that cannot be changed agree
    /// already, and everything that the topic has beyond these settings stays.
    async fn update_topic(&self, spec: &TopicSpec) -> Result<()>;

    /// Describes a topic; `UnknownTopic` where it is missing. Never creates one.
    async fn describe_topic(&self, topic: &Topic) -> Result<TopicDescription>;

    /// Counts the partitions of a topic; `UnknownTopic` where it is missing. The bus asks now and then where
    /// [`partitions_change`](Capabilities::partitions_change) is set, so a backend may have a cheaper way than
    /// describing it.
    async fn count_partitions(&self, topic: &Topic) -> Result<u32>;

    /// Deletes a topic and its records; `UnknownTopic` where it is missing.
    async fn delete_topic(&self, topic: &Topic) -> Result<()>;

    /// Lists the topics of this bus, by name.
    async fn list_topics(&self) -> Result<Vec<Topic>>;

    /// Sends one record. Never blocks, never fails: the fate goes to the ticket. The core submits the records of one
    /// partition one call at a time.
    fn submit(&self, record: Outbound, ticket: Ticket);

    /// Looks for a stamp in a partition's log at `from` or above (P3). Reads to the end of the log as of the call.
    async fn find_stamp(&self, topic: &Topic, partition: u32, from: Position, stamp: Stamp)
    -> Result<Option<Position>>;

    /// Returns the first position whose record was stored at or after `unix_millis`, or the end of the log.
    async fn position_at(&self, topic: &Topic, partition: u32, unix_millis: u64) -> Result<Position>;

    /// Joins a group as one member.
    async fn join(&self, join: Join) -> Result<Arc<dyn Membership>>;

    /// Lists the groups that have progress or members on a topic, by name.
    async fn list_groups(&self, topic: &Topic) -> Result<Vec<Group>>;

    /// Describes progress, owner and lag of every partition; `UnknownGroup` where the group has neither progress nor
    /// members.
    async fn describe_group(&self, topic: &Topic, group: &Group) -> Result<GroupDescription>;

    /// Sets the next position of partitions of a group without active members, as records written by nobody (epoch
    /// kept, note cleared); `GroupActive` where the group has any.
    async fn reset_group(&self, topic: &Topic, group: &Group, to: &[(u32, Position)]) -> Result<()>;

    /// Forgets a group without active members; `GroupActive` where the group has any.
    async fn delete_group(&self, topic: &Topic, group: &Group) -> Result<()>;

    /// Returns the state of the connection: whether the broker answers, and its name and version.
    async fn health(&self) -> Health;

    /// Ends all connections. Before it returns, every outstanding ticket is told its fate (`Unknown` at worst).
    async fn close(&self) -> Result<()>;
}
