//! Groups whose partitions a coordinator assigns: for a broker that decides by itself who owns what and keeps a line of text
//! beside each committed position, and whose client is polled by one thread while another commits.
//!
//! A backend implements [`Client`] for its client, calls [`RebalanceListener::assigned`] and [`RebalanceListener::revoked`] where the coordinator says so,
//! and hands out the [`Member`]. Hand-over, loss, fencing, delivery, progress and whether a log is still the same are stated
//! here once (S3 to S6).
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
//! | `assignments` | what is owned, and where the member stands with the coordinator |
//! | `rebalance` | what comes and goes, and the answer to the coordinator |
//! | `delivery` | delivery without a record skipped |
//! | `lookup` | what is committed, and whether the log is still the same |
//! | `poll` | the thread that polls, and leaving |
//! | `commits` | the thread that commits, and what a refusal means |
//! | `member` | the member as the core sees it |
//! | `reconnect` | another member, where a client came to an end that passes |
//!
//! Invariant: what is known of a partition belongs to the assignment with which it came. Assignments are numbered, and what is
//! said of an earlier one changes nothing of a later one. Each file states its own.

mod assignments;
mod commit_metadata;
mod commits;
mod delivery;
mod lookup;
mod member;
mod poll;
mod rebalance;
mod reconnect;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::time::Duration;

use crate::backend::{Inbound, Join, LogState};
use crate::model::{Error, ErrorKind, Position, Result};
pub use commit_metadata::{CommitMetadata, CommittedOffset, Fingerprint, describe_group};

pub use member::Member;
pub use rebalance::{RebalanceListener, Revocation};
pub use reconnect::ReconnectingMember;

/// The most records of a partition that come after it was paused: what waits for the core. The backend's
/// [`overshoot`](crate::Capabilities::overshoot).
pub const OVERSHOOT: usize = 4_096;

/// What a hand-over may take longer than the core's drain, until the coordinator is answered without it. What the coordinator
/// waits for must be longer than both together.
pub const DRAIN_MARGIN: Duration = Duration::from_secs(5);

/// The client of one member of a group on one topic, as the broker's library gives it.
///
/// Calls block, each for a bounded time except [`commit`](Self::commit), and come from several threads; only
/// [`poll`](Self::poll), [`seek`](Self::seek), [`unassign`](Self::unassign), [`subscribe`](Self::subscribe),
/// [`unsubscribe`](Self::unsubscribe) and [`leave`](Self::leave) are all the polling thread's. The client is dropped there,
/// too, unless a call from another thread is still under way seconds after the member has left.
pub trait Client: Send + Sync + 'static {
    /// A record as the client holds it. It is copied once, if it is delivered.
    type Record<'a>
    where
        Self: 'a;

    /// Where a record is: partition and position.
    fn place(record: &Self::Record<'_>) -> (u32, Position);

    /// What a record is known again by.
    fn fingerprint(record: &Self::Record<'_>) -> Fingerprint;

    /// A record, copied, as it is delivered.
    fn inbound(record: &Self::Record<'_>) -> Inbound;

    /// What comes next, waited for at most so long. The coordinator's words to the [`RebalanceListener`] come within this call. Positions of a
    /// partition rise from where it was sought, and none is left out: where the client cannot go on it says so.
    fn poll(&self, wait: Duration) -> Polled<Self::Record<'_>>;

    /// Goes to a position of an assigned partition, and forgets what it has fetched of it. `false` where the client has not begun
    /// the partition yet, or ended it since the log did not have the next record: it then seeks in it only once it is assigned
    /// anew.
    ///
    /// # Errors
    /// Anything else that keeps it from seeking.
    fn seek(&self, partition: u32, from: Position) -> Result<bool>;

    /// Stops asking brokers for a partition's records, or starts again. Nothing happens where it is not assigned.
    fn pause(&self, partition: u32, paused: bool);

    /// Gives back partitions that the coordinator wanted back or took, and so answers it.
    fn unassign(&self, partitions: &[u32]);

    /// Joins the group; also again, after [`unsubscribe`](Self::unsubscribe).
    ///
    /// # Errors
    /// Where the client will not: the member is at its end.
    fn subscribe(&self) -> Result<()>;

    /// Leaves the group to join it again: what is assigned is wanted back as if the coordinator wanted it.
    fn unsubscribe(&self);

    /// Gives everything back unasked and leaves the group.
    fn leave(&self);

    /// Commits in one request, and waits for the coordinator's answer, however long it is away. One request at a time.
    ///
    /// # Errors
    /// What the coordinator refused, or did not answer.
    fn commit(&self, entries: &[CommitEntry<'_>]) -> Result<(), CommitError>;

    /// What the group has committed of these partitions, with the text beside it. Where there is nothing, a partition is missing.
    ///
    /// # Errors
    /// Any: it is asked again.
    fn committed(&self, partitions: &[u32]) -> Result<HashMap<u32, (Position, String)>>;

    /// The ends of a partition's log; of the incarnation it need say nothing.
    ///
    /// # Errors
    /// What the broker says.
    fn ends(&self, partition: u32) -> Result<LogState>;

    /// The fingerprints of the records at these offsets of partitions, or of the next ones that are still there, as far as there are
    /// any.
    ///
    /// # Errors
    /// Where the log could not be read.
    fn fingerprints(&self, places: &[(u32, i64)]) -> Result<HashMap<u32, Fingerprint>>;

    /// Whether the topic is certainly not there any more.
    fn is_gone(&self) -> bool;

    /// Brokers were found to be reachable, or not to be.
    fn reached(&self, reached: bool);
}

/// What [`Client::poll`] came upon.
#[derive(Debug)]
#[allow(clippy::exhaustive_enums)] // all that is distinguished
pub enum Polled<R> {
    /// A record.
    Record(R),
    /// The end of a partition's log, as it is now.
    End(u32),
    /// The log no longer has the next record of some partition, or not yet: what it has is looked up and read again.
    Interrupted,
    /// No broker can be reached; the client goes on trying.
    Disconnected,
    /// The member is at its end. Where the error is a retryable `Unavailable`, one with another client could go on ([`ReconnectingMember`]).
    Over(Error),
    /// Nothing, or nothing that matters.
    Nothing,
}

/// What is committed of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)] // as it is stored
pub struct CommitEntry<'a> {
    /// The partition.
    pub partition: u32,
    /// The next position to be handled.
    pub next: Position,
    /// The line of text beside it.
    pub text: &'a str,
}

/// Why a commit was not accepted, in the coordinator's words.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)] // all that is distinguished
pub enum CommitError {
    /// It does not know this member any more: what that owned has other owners by now.
    Fenced(String),
    /// There is no such topic.
    UnknownTopic,
    /// It is not allowed.
    PermissionDenied(String),
    /// The text is longer than the broker takes.
    TooLarge(String),
    /// Anything else: a rebalance under way, a coordinator that moves or is away. The same may be taken later.
    Later(String),
}

/// What a [`Member`] is made with.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MemberConfig {
    /// Its name, stored with what it commits.
    pub member: String,
    /// How long the coordinator keeps partitions for a member that says nothing.
    pub session: Duration,
    /// For how long an accepted commit vouches for what is owned, counted from before it was sent (S5): less than the session.
    pub lease: Duration,
    /// How long a hand-over waits for the core, until the coordinator is answered without it.
    pub drain: Duration,
}

impl MemberConfig {
    /// As the core asks for it, with this lease.
    #[must_use]
    pub fn of(join: &Join, lease: Duration) -> Self {
        let (session, drain) = (join.session_timeout, join.drain_deadline + DRAIN_MARGIN);
        Self { member: join.member.clone(), session, lease, drain }
    }
}

fn not_held() -> Error {
    Error::new(ErrorKind::Fenced, "the partition is no longer owned")
}

/// A thread of the member ended before its answer.
fn member_left() -> Error {
    Error::new(ErrorKind::Closed, "the member has left")
}
