//! Groups over a store with compare-and-swap: for a broker that keeps small records and hands out no partitions by
//! itself.
//!
//! A backend implements [`LeaseStore`] and calls [`Leases`]. Ownership, leases, hand-over, fencing, delivery and
//! descriptions of groups are decided here, the same for every backend (S3 to S6).
//!
//! ```text
//! session ◄── Membership ── member ──► rebalance ──► assignor     the share of each member
//!                  ▲          │           └────────► record ──┐     owner, lease, epoch, watermark, note
//!                  │ queue    └ read                          ▼
//!                  └───────── delivery ◄── Source ◄──── LeaseStore
//! ```
//!
//! | file | what it keeps |
//! |---|---|
//! | `record` | one partition's record: compare-and-swap, read-back, lease |
//! | `assignor` | the share of each member, as one function |
//! | `rebalance` | takes, yields and renewals: ownership follows the store |
//! | `member` | one member, and the events that it yields |
//! | `delivery` | delivery without a record skipped |
//! | `snapshot` | the store's entries at a moment |
//! | `mapped` | a source whose records are decoded as they come |
//! | `removed` | records taken out of the middle of a log (S3) |
//! | `source` | one scan of a source's present records |
//! | `waiting` | calls that fail for long, told |
//! | `groups` | progress and lag as seen from outside |
//!
//! Invariant: the record of a partition decides who owns it, and every write of it names the revision that it goes on
//! from. Each file states its own.
//!
//! # What is stored
//!
//! One record per (group, partition), and one entry per member, which the member renews; both as JSON. The format is
//! part of the stored data: fields are added, never changed.
//!
//! # Clocks
//!
//! A member judges another's lease by its own monotonic clock: by how long it has seen an entry unchanged. Only an
//! outside observer, which was not there before, compares with the store's clock ([`LeaseStore::now`]).

mod assignor;
mod delivery;
mod groups;
mod mapped;
mod member;
mod rebalance;
mod record;
mod removed;
mod snapshot;
mod source;
#[cfg(test)]
mod tests;
mod waiting;

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

use crate::backend::{ConnectionState, Inbound, TopicDescription};
use crate::model::{Error, Group, Position, Result};

pub use mapped::mapped;
pub use source::scan;

/// A backend's part in groups of one topic: a small store with compare-and-swap, and readers of partitions.
///
/// Every call returns within a bounded time, with an error if need be, and may be made while others are under way. A
/// call whose future is dropped may have written, or write later: members notice that as they notice a lost answer.
/// Errors need not name topic, group or partition: the bus adds them.
#[async_trait]
pub trait LeaseStore: fmt::Debug + Send + Sync + 'static {
    /// Returns how reads are paced; constant for the store's life.
    fn read_pacing(&self) -> ReadPacing;

    /// Subscribes to the connection's state.
    fn connection(&self) -> watch::Receiver<ConnectionState>;

    /// Makes the place for the records of the topic's groups, if it is missing, and returns its identity. Idempotent.
    /// Revisions in a place that was made again must be above all of an earlier one: a stale holder's must not fit.
    /// `LogReset` where an earlier place was taken away with the progress in it, unless it is to `begin_anew`.
    async fn ensure(&self, topic: &TopicDescription, begin_anew: bool) -> Result<String>;

    /// Returns the identity of the place as it is now, which another place of the same name does not have; `None` where
    /// there is none.
    async fn place(&self) -> Result<Option<String>>;

    /// Describes the topic as it is now, with what was removed from the middle of its logs; `UnknownTopic` where it is
    /// missing.
    async fn describe(&self) -> Result<TopicDescription>;

    /// Reads the clock of [`StoredEntry::written`], in milliseconds since the Unix epoch.
    async fn now(&self) -> Result<u64>;

    /// Writes if the slot still has this revision; 0 stands for an empty slot. Waits for the answer no longer than
    /// `patience` and the store's own time-out: a lost answer must not cost the lease.
    async fn compare_and_swap(&self, slot: &StoreKey, revision: u64, value: Bytes, patience: Duration) -> CasOutcome;

    /// Writes, whatever the slot holds.
    async fn put(&self, slot: &StoreKey, value: Bytes) -> Result<()>;

    /// Returns revision and value as the latest write left them, never an earlier state; `None` where the slot is
    /// empty.
    async fn get(&self, slot: &StoreKey) -> Result<Option<(u64, Bytes)>>;

    /// Returns all entries of a group, or of all groups, as of now or a little earlier; none where no place was made.
    async fn snapshot(&self, group: Option<&Group>) -> Result<Vec<StoredEntry>>;

    /// Empties a slot, if its revision is at most `up_to`.
    async fn remove(&self, slot: &StoreKey, up_to: Option<u64>) -> Result<()>;

    /// Empties all slots of a group.
    async fn clear(&self, group: &Group) -> Result<()>;

    /// Returns the position of a partition's first record at `from` or above; `None` where it has none.
    async fn next(&self, partition: u32, from: Position) -> Result<Option<Position>>;

    /// Counts the records of a partition at `from` or above, and returns when the first of them was stored, in
    /// milliseconds since the Unix epoch, where the broker tells.
    async fn backlog(&self, partition: u32, from: Position) -> Result<(u64, Option<u64>)>;

    /// Opens a reader of a partition at `from`; its traces at the broker are removed when it is dropped. `UnknownTopic`
    /// where the topic is missing.
    async fn open(&self, partition: u32, from: Position) -> Result<Box<dyn Source>>;
}

/// Key of an entry in the store.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums)] // a store has a place for each
pub enum StoreKey {
    /// The record of a partition.
    Partition(Group, u32),
    /// The heartbeat of a member.
    Member(Group, String),
}

/// Outcome of a compare-and-swap.
#[derive(Debug, Clone)]
#[allow(clippy::exhaustive_enums)] // all that a write can come to
pub enum CasOutcome {
    /// Written; the slot has this revision now.
    Done(u64),
    /// The slot has another revision. Nothing was written.
    Conflict,
    /// Certainly not written, and never will be by this call.
    NotDone(Error),
    /// Perhaps written, or written later.
    Unknown(Error),
}

/// Key of a stored entry, as far as its place tells: the value tells the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)] // a store has a place for each
pub enum StoredKey {
    /// The record of a partition.
    Partition(u32),
    /// The heartbeat of a member.
    Member,
}

/// An entry of the store when it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)] // built by stores
pub struct StoredEntry {
    /// The partition's record, or a member's heartbeat.
    pub key: StoredKey,
    /// The revision of the latest write.
    pub revision: u64,
    /// The time of that write, in milliseconds since the Unix epoch, by the clock of [`LeaseStore::now`].
    pub written: u64,
    /// The value of that write.
    pub value: Bytes,
}

/// Pacing of reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)] // built by stores
pub struct ReadPacing {
    /// The most records of a partition that were requested and not yet taken: the backend's
    /// [`overshoot`](crate::Capabilities::overshoot).
    pub batch: usize,
    /// The time between two looks at the ends of the log.
    pub look: Duration,
    /// The longest silence of a source with an open request, before its read counts as broken off.
    pub silence: Duration,
}

/// Reader of one partition for one read; or, for [`scan`], of anything else kept as a log. Dropped, it ends.
#[async_trait]
pub trait Source<R = Inbound>: Send + 'static {
    /// Requests up to so many further records, of at most so many bytes together: where the next record does not fit
    /// any more, the request ends with [`SourceEvent::Full`]. Without a limit of bytes records of any size come.
    async fn request(&mut self, records: usize, bytes: Option<usize>) -> Result<()>;

    /// Polls for the next event. Not called again after [`SourceEvent::Broken`].
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<SourceEvent<R>>;
}

/// Event of a [`Source`].
#[derive(Debug)]
#[allow(clippy::exhaustive_enums)] // all that a source can tell
pub enum SourceEvent<R = Inbound> {
    /// A record.
    Record {
        /// The record's number among the source's deliveries, from 1 on, as the sender counts: a loss on the way leaves
        /// a gap.
        delivery: u64,
        /// Records behind it when it was sent.
        left: u64,
        /// The delivered record.
        record: R,
    },
    /// A request ended with so many of its records not delivered.
    Ended(usize),
    /// A request ended, with so many of its records not delivered, because the next record did not fit into its bytes.
    Full(usize),
    /// The source is still there.
    Alive,
    /// Nothing more will come, for this reason.
    Broken(String),
}

/// The groups of one topic over a store, for the backend's own methods of the same names to call.
///
/// ```
/// use std::sync::Arc;
///
/// use eventbus_core::backend::{Join, Membership};
/// use eventbus_core::toolkit::lease::{LeaseStore, Leases};
/// use eventbus_core::{Group, Result};
///
/// async fn join(store: Arc<dyn LeaseStore>, join: Join) -> Result<Arc<dyn Membership>> {
///     Leases::new(store).join(join).await
/// }
///
/// async fn list_groups(store: Arc<dyn LeaseStore>) -> Result<Vec<Group>> {
///     Leases::new(store).list_groups().await
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Leases {
    store: Arc<dyn LeaseStore>,
}

impl Leases {
    /// Makes the groups of the topic that the store was made for.
    #[must_use]
    pub fn new(store: Arc<dyn LeaseStore>) -> Self {
        Self { store }
    }
}
