//! Groups over a store with compare-and-swap: for a broker that keeps small records and hands out no partitions by itself.
//!
//! A backend implements [`LeaseStore`] and calls [`Leases`]; who owns what, leases, hand-over, fencing, delivery and what
//! is told of groups is stated here once (S3 to S6).
//!
//! ```text
//! session ◄── Membership ── member ──► balance ──► spread         who should own what
//!                  ▲          │           └──────► record ──┐     owner, lease, epoch, watermark, note
//!                  │ queue    └ read                        ▼
//!                  └───────── delivery ◄── Source ◄── LeaseStore
//! ```
//!
//! | file | what it keeps |
//! |---|---|
//! | `record` | one partition's record: compare-and-swap, read-back, lease |
//! | `assignor` | who should own what, as one function |
//! | `rebalance` | takes, yields and renewals: what is owned follows the store |
//! | `member` | one member, and what it is told |
//! | `delivery` | delivery without a record skipped |
//! | `snapshot` | what the store held at a moment |
//! | `mapped` | a source whose records are read as they come |
//! | `source` | reading what a source holds now, once |
//! | `groups` | progress and lag as seen from outside |
//!
//! Invariant: the record of a partition decides who owns it, and no write of it is made without the revision that it goes on
//! from. Each file states its own.
//!
//! # What is stored
//!
//! One record per (group, partition), and one entry per member that says again and again that it is there; both as JSON.
//! The format is part of what is stored: fields are added, never changed.
//!
//! # Clocks
//!
//! A member believes another's lease by its own monotonic clock: since when it has seen an entry unchanged. Only
//! who looks from outside, and was not there before, compares with the store's clock ([`LeaseStore::now`]).

mod assignor;
mod delivery;
mod groups;
mod mapped;
mod member;
mod rebalance;
mod record;
mod snapshot;
mod source;
#[cfg(test)]
mod tests;

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

/// What a backend gives for groups of one topic: a small store with compare-and-swap, and readers of partitions.
///
/// Every call returns within a bounded time, with an error if need be, and may be made while others are under way. When its
/// future is dropped, what it writes may have been written, or be written later: members find that as they find a lost
/// answer. Errors need not name topic, group or partition: the bus adds them.
#[async_trait]
pub trait LeaseStore: fmt::Debug + Send + Sync + 'static {
    /// How reads are paced; constant for the store's life.
    fn read_pacing(&self) -> ReadPacing;

    /// The connection's state, and every change of it.
    fn connection(&self) -> watch::Receiver<ConnectionState>;

    /// Makes the place where the records of the topic's groups are, if it is not there. Idempotent. Revisions of a
    /// place that was made again are above all that an earlier one gave: a stale holder's must not fit.
    async fn ensure(&self, topic: &TopicDescription) -> Result<()>;

    /// The topic as it is now; `UnknownTopic` where it is missing.
    async fn describe(&self) -> Result<TopicDescription>;

    /// The clock by which [`StoredEntry::written`] is told, in milliseconds since the Unix epoch.
    async fn now(&self) -> Result<u64>;

    /// Writes if the slot still has this revision; 0 stands for none. The answer is waited for no longer than `patience`,
    /// and than the store's own time-out: a lost one must not cost the lease.
    async fn compare_and_swap(&self, slot: &StoreKey, revision: u64, value: Bytes, patience: Duration) -> CasOutcome;

    /// Writes, whatever the slot holds.
    async fn put(&self, slot: &StoreKey, value: Bytes) -> Result<()>;

    /// Revision and value as the latest write left them, never an earlier state; `None` where the slot is empty.
    async fn get(&self, slot: &StoreKey) -> Result<Option<(u64, Bytes)>>;

    /// All that is there of a group, or of all groups, as it is now or was a little earlier; empty where no place was made.
    async fn snapshot(&self, group: Option<&Group>) -> Result<Vec<StoredEntry>>;

    /// Empties a slot, if its revision is at most `up_to`.
    async fn remove(&self, slot: &StoreKey, up_to: Option<u64>) -> Result<()>;

    /// Empties all slots of a group.
    async fn clear(&self, group: &Group) -> Result<()>;

    /// The position of a partition's last record; `None` where there is none.
    async fn last(&self, partition: u32) -> Result<Option<Position>>;

    /// How many records of a partition are at `from` or above, and when the first of them was stored, in milliseconds since
    /// the Unix epoch, where the broker tells.
    async fn backlog(&self, partition: u32, from: Position) -> Result<(u64, Option<u64>)>;

    /// Opens a reader of a partition at `from`; what it holds at the broker is removed when it is dropped. `UnknownTopic`
    /// where the topic is missing.
    async fn open(&self, partition: u32, from: Position) -> Result<Box<dyn Source>>;
}

/// A place in the store.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums)] // a store has a place for each
pub enum StoreKey {
    /// The record of a partition.
    Partition(Group, u32),
    /// A member's word that it is there.
    Member(Group, String),
}

/// What became of a write.
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

/// What a slot is about, as far as its place tells: the rest is in what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)] // a store has a place for each
pub enum StoredKey {
    /// The record of a partition.
    Partition(u32),
    /// A member's word.
    Member,
}

/// What a slot held when the store was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)] // built by stores
pub struct StoredEntry {
    /// What it is about.
    pub key: StoredKey,
    /// The revision of the latest write.
    pub revision: u64,
    /// When that was, in milliseconds since the Unix epoch, by the clock of [`LeaseStore::now`].
    pub written: u64,
    /// What was written.
    pub value: Bytes,
}

/// How reads are paced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)] // built by stores
pub struct ReadPacing {
    /// The most records of a partition that were asked for and not yet taken: the backend's
    /// [`overshoot`](crate::Capabilities::overshoot).
    pub batch: usize,
    /// How often the ends of the log are looked at.
    pub look: Duration,
    /// How long a source with an open request may say nothing at all before its read counts as broken off.
    pub silence: Duration,
}

/// A reader of one partition, for one read; or of something else that is kept as a log, for [`scan`]. Dropped, it ends.
#[async_trait]
pub trait Source<R = Inbound>: Send + 'static {
    /// Asks for up to so many further records.
    async fn request(&mut self, records: usize) -> Result<()>;

    /// What comes next. After [`SourceEvent::Broken`] it is not called again.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<SourceEvent<R>>;
}

/// What came from a [`Source`].
#[derive(Debug)]
#[allow(clippy::exhaustive_enums)] // all that a source can tell
pub enum SourceEvent<R = Inbound> {
    /// A record.
    Record {
        /// Its number among the source's deliveries, from 1 on, as the sender counts them: what is lost on the way leaves a
        /// gap.
        delivery: u64,
        /// How many were behind it when it was sent.
        left: u64,
        /// What was delivered.
        record: R,
    },
    /// A request ended with so many of its records not delivered.
    Ended(usize),
    /// The source is still there.
    Alive,
    /// Nothing more will come, and why.
    Broken(String),
}

/// The groups of one topic, over a store: what a backend's own methods of the same names come to.
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
    /// The groups of the topic that the store was made for.
    #[must_use]
    pub fn new(store: Arc<dyn LeaseStore>) -> Self {
        Self { store }
    }
}
