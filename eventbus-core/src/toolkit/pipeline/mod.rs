//! Publishing by clients that pipeline: each keeps several records of a partition in flight, stores them without a hole, and
//! guarantees nothing any more after its first failure (P1, P2).
//!
//! A backend implements [`Pipeline`] and passes its submissions to a [`Producer`]; which client a record goes by, what is given
//! when, what a failure means for whom, and how a failed client is replaced is stated here once.
//!
//! ```text
//! submit ──► facts ──► line ──► course ──► Pipeline::give ──► client ──► broker
//!              │ too     ▲        waiting, under way             │
//!              │ large   │ suspicion: a line of its own          │ DeliveryReports::told(index, position or failure)
//!              ▼         │                                       ▼
//!           refused    replace ◄──────── first failure ──── ticket told
//! ```
//!
//! | file | what it keeps |
//! |---|---|
//! | `facts` | what is known of topics, and what is refused before it is sent |
//! | `verdict` | what a failure says of its record, and what follows for its fate |
//! | `course` | where a client stands in a partition: what waits, what may be given |
//! | `line` | one client after another, and the records that they were given |
//! | `suspicion` | partitions that go by lines of their own, until the culprit is found |
//! | `producer` | submissions and reports |
//! | `replace` | the end of a client, and what is told then |
//!
//! # Invariants
//!
//! - Records of a partition enter one client's queue in the order of the submissions, and the client stores them in that order
//!   without a hole.
//! - A partition has records under way by one client at a time. By which line it goes may change, when its topic's limit does or
//!   it is suspected; it goes by the other one only once all that went by the first is stored, or told.
//! - Of what is submitted while records of its partition are on their way, little is given to the client before these are stored:
//!   so batches grow with the load, and a lone record waits for nothing.
//! - All that holds only up to a client's first failure. So *any* failed report ends the client: nothing more is given to it, all
//!   that it still has is called back, every ticket is told, and only then another client is put in its place.
//! - A record is condemned only by what was said of it alone ([`DeliveryErrorKind`]). Where a batch was refused, its partition goes on by
//!   a client of its own that sends one record at a time, until all of that batch are stored or condemned; other partitions do
//!   not wait for it.
//! - No ticket is told under a lock: it may submit from inside.
//!
//! No task and no channel for a message: a report finds its ticket by a number that travels with the record. A record is written
//! when it is given, on the thread that gives it.

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

/// What a backend gives for pipelined publishing: clients, and what only the broker can answer.
///
/// # What a client promises
///
/// It stores what it was given of a partition in the order of the calls and without a hole, *until its first failure*; it reports
/// every record at most once, by its index, to the [`DeliveryReports`] that it was made with, and never from inside
/// [`give`](Self::give): that is called under a lock which a report takes, too.
///
/// It must not give up a record by time: what is not reported is waited for.
///
/// ```
/// use std::sync::mpsc;
///
/// use eventbus_core::backend::Outbound;
/// use eventbus_core::toolkit::pipeline::{DeliveryReports, Pipeline, Rejected, TopicLimits};
/// use eventbus_core::{Envelope, Position, Result, Topic};
///
/// /// Stores all that it is given, on a thread of its own.
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
///     fn end(client: Self::Client) {
///         drop(client);
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
    /// A client. Whatever it has in memory or at the broker ends when it is dropped; that may block, also until a report that is
    /// under way has returned, so it is never done on a thread that reports.
    type Client: Send + 'static;

    /// Makes a client for records of up to `limit` bytes, as [`TopicLimits::limit`] counts. One that is `alone` makes a
    /// batch of each record, so that a refusal of its batch is one of the record. Called under locks, once and again after each failure: what
    /// takes time is the client's own, later.
    ///
    /// # Errors
    /// What stands in the way; the record that needed the client is told it as [`NotStored`](crate::backend::Fate::NotStored).
    fn client(&self, limit: usize, alone: bool, reports: DeliveryReports) -> Result<Self::Client>;

    /// Gives a client the next record of its partition, under a number by which it will be reported. `name` is the topic's,
    /// [`TopicLimits::name`]. Called under a lock for every record: writes it, and waits for nothing.
    ///
    /// # Errors
    /// Why it was not taken. It is certainly not stored then, and never will be by this client.
    fn give(&self, client: &Self::Client, name: &str, record: &Outbound, index: usize) -> Result<(), Rejected>;

    /// Ends a client that is given nothing more: what it has not sent is called back, and what is on its way may be reported for
    /// a bounded time. Nothing is reported any more, and nothing that was not is stored later, when it returns; what was not
    /// reported counts as perhaps stored. Called on a thread that may block.
    fn end(client: Self::Client);

    /// At least the bytes that a record of this envelope takes as [`TopicLimits::limit`] counts, found without writing it. Called for
    /// every record.
    fn most(&self, envelope: &Envelope) -> usize;

    /// The bytes that the record takes, or a little more. Asked only where [`most`](Self::most) is beyond the limit.
    fn size(&self, record: &Outbound) -> usize;

    /// What is assumed of a topic that nothing was learned of.
    fn assumed(&self, topic: &Topic) -> TopicLimits;

    /// Whether the broker says that there is no such topic. `false` where it does not answer: a record is condemned by it.
    /// Within a bounded time; cancel safe.
    fn is_gone(&self, topic: &Topic) -> impl Future<Output = bool> + Send;

    /// Has the topic looked at, and what it allows now put into [`KnownLimits`]; where it cannot be, that stays as it is. Within a
    /// bounded time; cancel safe.
    fn refresh(&self, topic: &Topic) -> impl Future<Output = ()> + Send;
}
