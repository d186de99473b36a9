//! Publishing by clients that pipeline: each keeps several records of a partition in flight, stores them without a
//! hole, and guarantees nothing after its first failure (P1, P2).
//!
//! A backend implements [`Pipeline`] and passes its submissions to a [`Producer`]. The producer chooses each record's
//! client, decides when to give it and whom a failure affects, and replaces failed clients, the same for every backend.
//!
//! ```text
//! submit ──► limits ──► line ──► queue ──► Pipeline::give ──► client ──► broker
//!              │ too     ▲        waiting, under way             │
//!              │ large   │ quarantine: a line of its own         │ DeliveryReports::told(index, position or failure)
//!              ▼         │                                       ▼
//!           refused    replace ◄──────── first failure ──── ticket told
//! ```
//!
//! | file | what it keeps |
//! |---|---|
//! | `limits` | limits of topics, and refusals before a record is sent |
//! | `failure` | failures of records, and the fates that follow |
//! | `queue` | a client's queue of one partition: what waits, what may be given |
//! | `line` | one client after another, and the records given to them |
//! | `quarantine` | partitions that go by lines of their own, until the culprit is found |
//! | `producer`, `reports` | submissions and reports |
//! | `replace` | the end of a client, and the fates told then |
//!
//! # Invariants
//!
//! - Records of a partition enter one client's queue in the order of the submissions, and the client stores them in
//!   that order without a hole.
//! - A partition has records under way by one client at a time. Its line may change, when its topic's limit does or it
//!   is quarantined; it goes by the other line only once every record that went by the first is stored, or told.
//! - While records of a partition are on their way, few later ones are given to the client before these are stored: so
//!   batches grow with the load, and a lone record waits for nothing.
//! - All this holds only up to a client's first failure. So *any* failed report ends the client: it is given nothing
//!   more, all its records are called back, every ticket is told, and only then another client takes its place.
//! - A record beyond a topic's known limit is refused before it is given. The limit is then read again: one that was
//!   raised refuses no later record.
//! - A record is condemned only by a report about it alone ([`DeliveryErrorKind`]). Where a batch was refused, its
//!   partition goes on by a client of its own that sends one record at a time, until every record of the batch is
//!   stored or condemned; other partitions do not wait for it.
//! - No ticket is told under a lock: it may submit from inside.
//!
//! No message needs a task or a channel: a report finds its ticket by a number that travels with the record. The thread
//! that gives a record writes it, when it gives it.

mod failure;
mod limits;
mod line;
mod producer;
mod quarantine;
mod queue;
mod replace;
mod reports;
#[cfg(test)]
mod tests;

use std::future::Future;

use crate::backend::Outbound;
use crate::model::{Envelope, Result, Topic};

pub use failure::{DeliveryError, DeliveryErrorKind, Rejected};
pub use limits::{KnownLimits, TopicLimits};
pub use producer::Producer;
pub use reports::DeliveryReports;

/// A backend's part in pipelined publishing: clients, and questions that only the broker can answer.
///
/// # What a client promises
///
/// A client stores the records of a partition in the order in which they were given and without a hole, *until its
/// first failure*. It reports every record at most once, by its index, to the [`DeliveryReports`] that it was made
/// with, and never from inside [`give`](Self::give): that is called under a lock which a report takes, too.
///
/// It must not give up a record by time: the producer waits for every report.
///
/// ```
/// use std::sync::mpsc;
///
/// use eventbus_core::backend::Outbound;
/// use eventbus_core::toolkit::pipeline::{DeliveryError, DeliveryReports, Pipeline, Rejected, TopicLimits};
/// use eventbus_core::{Envelope, Position, Result, Topic};
///
/// /// Stores all records, on a thread of its own.
/// struct Always;
///
/// impl Pipeline for Always {
///     type Client = mpsc::Sender<usize>;
///
///     fn client(&self, _limit: usize, _alone: bool, reports: DeliveryReports) -> Result<Self::Client> {
///         let (client, given) = mpsc::channel();
///         std::thread::spawn(move || {
///             for (position, index) in given.into_iter().enumerate() {
///                 reports.told(index, Ok(Position::new(position as u64)));
///             }
///         });
///         Ok(client)
///     }
///
///     fn give(&self, client: &Self::Client, _: &str, _: &Outbound, index: usize) -> Result<(), Rejected> {
///         client.send(index).map_err(|_| Rejected::Over("the thread is gone".into()))
///     }
///
///     fn end(client: Self::Client) -> Option<DeliveryError> {
///         drop(client);
///         None
///     }
///
///     fn most(&self, envelope: &Envelope) -> usize {
///         envelope.size()
///     }
///
///     fn size(&self, record: &Outbound) -> usize {
///         record.envelope.size()
///     }
///
///     fn assumed(&self, topic: &Topic) -> TopicLimits {
///         TopicLimits::new(topic.as_str(), 1_000_000, false)
///     }
///
///     async fn is_gone(&self, _: &Topic) -> bool {
///         false
///     }
///
///     async fn refresh(&self, _: &Topic) {}
/// }
/// ```
pub trait Pipeline: Send + Sync + Sized + 'static {
    /// A client. Everything that it holds in memory or at the broker ends when it is dropped. The drop may block, also
    /// until a report under way has returned, so it never happens on a thread that reports.
    type Client: Send + 'static;

    /// Makes a client for records of up to `limit` bytes, as [`TopicLimits::limit`] counts. One that is `alone` makes a
    /// batch of each record, so that a refusal of the batch is one of the record. Called under locks, first and after
    /// each failure: the client does slow work by itself, later.
    ///
    /// # Errors
    /// The obstacle; the record that needed the client is told it as [`NotStored`](crate::backend::Fate::NotStored), or
    /// as [`Refused`](crate::backend::Fate::Refused) where the error is not retryable.
    fn client(&self, limit: usize, alone: bool, reports: DeliveryReports) -> Result<Self::Client>;

    /// Gives a client the next record of its partition, under the number by which it will be reported. `name` is the
    /// topic's, [`TopicLimits::name`]. Called under a lock for every record: writes the record, and waits for nothing.
    ///
    /// # Errors
    /// The reason why the record was not taken. It is certainly not stored then, and never will be by this client.
    fn give(&self, client: &Self::Client, name: &str, record: &Outbound, index: usize) -> Result<(), Rejected>;

    /// Ends a client that is given nothing more. Records not yet sent are called back, and records on their way may be
    /// reported for a bounded time. Once this returns, nothing is reported any more, and no unreported record is stored
    /// later; unreported records count as perhaps stored. Called on a thread that may block.
    ///
    /// Returns why the client came to its end, where it says so: this stands for every record that was reported as
    /// [`Unclear`](DeliveryErrorKind::Unclear), or not at all.
    fn end(client: Self::Client) -> Option<DeliveryError>;

    /// Returns at least the bytes that a record of this envelope takes, as [`TopicLimits::limit`] counts, without
    /// writing the record. Called for every record.
    fn most(&self, envelope: &Envelope) -> usize;

    /// Returns the bytes that the record takes, or a little more. Called only where [`most`](Self::most) is beyond the
    /// limit.
    fn size(&self, record: &Outbound) -> usize;

    /// Returns the limits to assume for a topic of which none are known.
    fn assumed(&self, topic: &Topic) -> TopicLimits;

    /// Returns whether the broker says that there is no such topic. `false` where it does not answer: the answer
    /// condemns a record. Within a bounded time; cancel safe.
    fn is_gone(&self, topic: &Topic) -> impl Future<Output = bool> + Send;

    /// Has the topic described anew and its limits put into [`KnownLimits`]; where that fails, the known ones stay.
    /// Within a bounded time; cancel safe.
    fn refresh(&self, topic: &Topic) -> impl Future<Output = ()> + Send;
}
