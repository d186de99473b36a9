//! Groups whose partitions a coordinator assigns: for a broker that decides by itself who owns what and keeps a line of
//! text beside each committed position, and whose client is polled by one thread while another commits.
//!
//! A backend implements [`Client`] for its client, reports the coordinator's decisions by
//! [`RebalanceListener::assigned`] and [`RebalanceListener::revoked`], and hands out the [`Member`]. Hand-over, loss,
//! fencing, delivery, progress and the identity of logs are decided here, the same for every backend (S3 to S6).
//!
//! ```text
//! session ◄── Membership ── member ──► commits ──► Client::commit            a thread: one request at a time
//!                  ▲ queue    └ read      │ leases
//!                  │            ▼         ▼
//!                  └────────── poll ──► rebalance ◄── assigned, revoked           a thread: polls, answers, seeks
//!                                ▲        └─ lookup ──► committed, ends, fingerprints
//!                                └── Client::poll
//! ```
//!
//! | file | what it keeps |
//! |---|---|
//! | `assignments` | owned partitions, and the member's state towards the coordinator |
//! | `rebalance` | assignments, revocations, and the answer to the coordinator |
//! | `delivery` | delivery without a record skipped |
//! | `lookup` | committed progress, and whether the log is still the same |
//! | `poll` | the thread that polls, and leaving |
//! | `commits` | the thread that commits, and the meaning of a refusal |
//! | `member` | the member as the core sees it |
//! | `containment` | panics on its threads, which end the member and are told |
//! | `reconnect` | another member, after a client came to an end that passes |
//! | `refusals` | the waits between members, and what is told of refusals that may pass |
//!
//! Invariant: everything known of a partition belongs to the assignment with which it came. Assignments are numbered,
//! and news of an earlier one changes nothing of a later one. Each file states its own.

mod assignments;
mod commit_metadata;
mod commits;
mod containment;
mod delivery;
mod lookup;
mod member;
mod poll;
mod rebalance;
mod reconnect;
mod refusals;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::time::Duration;

use crate::backend::{Inbound, Join, LogState};
use crate::model::{Error, ErrorKind, Position, Result};
pub use commit_metadata::{Backlog, CommitMetadata, CommittedOffset, Fingerprint, describe_group};

pub use member::Member;
pub use rebalance::{RebalanceListener, Revocation};
pub use reconnect::ReconnectingMember;

/// The most records of a partition that come after it was paused: those that wait for the core. The backend's
/// [`overshoot`](crate::Capabilities::overshoot).
pub const OVERSHOOT: usize = 4_096;

/// The time that a hand-over may take beyond the core's drain, until the coordinator is answered without it. The
/// coordinator must wait longer than both together.
pub const DRAIN_MARGIN: Duration = Duration::from_secs(5);

/// The client of one member of a group on one topic, as the broker's library gives it.
///
/// Calls block, each for a bounded time except [`commit`](Self::commit), and come from several threads; only the
/// polling thread calls [`poll`](Self::poll), [`seek`](Self::seek), [`unassign`](Self::unassign),
/// [`subscribe`](Self::subscribe), [`unsubscribe`](Self::unsubscribe) and [`leave`](Self::leave). The client is dropped
/// there, too, unless a call from another thread is still under way seconds after the member has left.
pub trait Client: Send + Sync + 'static {
    /// A record as the client holds it. It is copied once, if it is delivered.
    type Record<'a>
    where
        Self: 'a;

    /// Returns a record's place: partition and position.
    fn place(record: &Self::Record<'_>) -> (u32, Position);

    /// Returns the fingerprint by which a record is recognised.
    fn fingerprint(record: &Self::Record<'_>) -> Fingerprint;

    /// Copies a record for delivery.
    fn inbound(record: &Self::Record<'_>) -> Inbound;

    /// Returns the next event, waiting at most `wait`. Calls to the [`RebalanceListener`] come within this call.
    /// Positions of a partition rise from where it was sought, and none is left out: a client that cannot go on says
    /// so.
    fn poll(&self, wait: Duration) -> Polled<Self::Record<'_>>;

    /// Goes to a position of an assigned partition, and forgets the records fetched of it. `false` where the client has
    /// not begun the partition yet, or has ended it because the log did not have the next record: it then seeks only
    /// once the partition is assigned anew.
    ///
    /// # Errors
    /// Any other obstacle to the seek.
    fn seek(&self, partition: u32, from: Position) -> Result<bool>;

    /// Stops fetching a partition's records, or starts again. Nothing happens where it is not assigned.
    fn pause(&self, partition: u32, paused: bool);

    /// Gives up partitions that the coordinator wanted back or took, and so answers it.
    fn unassign(&self, partitions: &[u32]);

    /// Joins the group; also again, after [`unsubscribe`](Self::unsubscribe).
    ///
    /// # Errors
    /// The client's refusal: the member is at its end.
    fn subscribe(&self) -> Result<()>;

    /// Leaves the group to join it again: assigned partitions are revoked as if the coordinator had asked.
    fn unsubscribe(&self);

    /// Gives everything up unasked and leaves the group.
    fn leave(&self);

    /// Commits in one request, and waits for the coordinator's answer, however long it is away. One request at a time.
    ///
    /// # Errors
    /// The coordinator's refusal, or its silence.
    fn commit(&self, entries: &[CommitEntry<'_>]) -> Result<(), CommitError>;

    /// Returns the group's committed positions in these partitions, with the text beside them. A partition without one
    /// is missing.
    ///
    /// # Errors
    /// Any error: the member asks again.
    fn committed(&self, partitions: &[u32]) -> Result<HashMap<u32, (Position, String)>>;

    /// Returns the number of the topic's partitions.
    ///
    /// # Errors
    /// Any error: the member asks again.
    fn count(&self) -> Result<u32>;

    /// Returns the ends of a partition's log; the incarnation may stay empty.
    ///
    /// # Errors
    /// The broker's error.
    fn ends(&self, partition: u32) -> Result<LogState>;

    /// Returns the fingerprints of the records at these offsets of partitions, or of the next ones still there, if
    /// there are any.
    ///
    /// # Errors
    /// The error of a log that could not be read.
    fn fingerprints(&self, places: &[(u32, i64)]) -> Result<HashMap<u32, Fingerprint>>;

    /// Returns whether the topic is certainly gone.
    fn is_gone(&self) -> bool;

    /// Tells the client whether brokers can be reached.
    fn reached(&self, reached: bool);
}

/// Event that [`Client::poll`] came upon.
#[derive(Debug)]
#[allow(clippy::exhaustive_enums)] // all that is distinguished
pub enum Polled<R> {
    /// A record.
    Record(R),
    /// The end of a partition's log, as it is now: nothing that can be delivered is left below this position. `None`
    /// where the client tells only that the last record was delivered.
    End(u32, Option<Position>),
    /// The log no longer has the next record of some partition, or not yet: the member looks the log up and reads
    /// again.
    Interrupted,
    /// No broker can be reached; the client goes on trying.
    Disconnected,
    /// The coordinator refuses the member for now, in these words; the client goes on trying.
    Refused(Error),
    /// The member is at its end. After a retryable `Unavailable`, one with another client could go on
    /// ([`ReconnectingMember`]).
    Over(Error),
    /// Nothing, or nothing of interest.
    Nothing,
}

/// Commit of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)] // as it is stored
pub struct CommitEntry<'a> {
    /// The partition.
    pub partition: u32,
    /// The next position to be handled.
    pub next: Position,
    /// The line of text beside the position.
    pub text: &'a str,
}

/// Refusal of a commit, in the coordinator's words.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)] // all that is distinguished
pub enum CommitError {
    /// The coordinator does not know this member any more: its partitions have other owners by now.
    Fenced(String),
    /// The topic does not exist.
    UnknownTopic,
    /// The commit is not allowed.
    PermissionDenied(String),
    /// The text is longer than the broker takes.
    TooLarge(String),
    /// Anything else: a rebalance under way, a coordinator that moves or is away. A later try may succeed.
    Later(String),
}

/// Settings of a [`Member`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MemberConfig {
    /// The member's name, stored with its commits.
    pub member: String,
    /// The time for which the coordinator keeps partitions for a silent member.
    pub session: Duration,
    /// The time for which an accepted commit vouches for the ownership, counted from before it was sent (S5): less than
    /// the session.
    pub lease: Duration,
    /// The time for which a hand-over waits for the core, until the coordinator is answered without it.
    pub drain: Duration,
    /// Whether the coordinator may give the member, in an instant, what a member before it owned and did not release:
    /// one with the same lasting name. The default is no.
    pub inherits: bool,
}

impl MemberConfig {
    /// Makes the settings that the core asks for, with this lease.
    #[must_use]
    pub fn of(join: &Join, lease: Duration) -> Self {
        let (session, drain) = (join.session_timeout, join.drain_deadline.saturating_add(DRAIN_MARGIN));
        Self { member: join.member.clone(), session, lease, drain, inherits: false }
    }
}

fn not_held() -> Error {
    Error::new(ErrorKind::Fenced, "the partition is no longer owned")
}

fn member_left() -> Error {
    Error::new(ErrorKind::Closed, "the member has left")
}
