//! Submission of records: [`Outbound`], its [`Fate`], and the [`Ticket`] to which a backend tells that fate.

use std::fmt;
use std::sync::Arc;

use crate::model::{Envelope, Error, ErrorKind, Position, Stamp, Topic};

/// One record on its way to the log.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Outbound {
    /// The topic to store the record in.
    pub topic: Topic,
    /// The partition, computed by the core.
    pub partition: u32,
    /// The publish's stamp, the same on every re-send.
    pub stamp: Stamp,
    /// The content to store; see [`Envelope`] and [`crate::wire::encode`].
    pub envelope: Envelope,
}

impl Outbound {
    /// Makes a record for a partition of a topic.
    #[must_use]
    pub fn new(topic: Topic, partition: u32, stamp: Stamp, envelope: Envelope) -> Self {
        Self { topic, partition, stamp, envelope }
    }
}

/// Fate of a submitted record.
#[derive(Debug, Clone)]
pub enum Fate {
    /// The record is in the log.
    Stored {
        /// The record's position.
        position: Position,
        /// The broker had the record already, from an earlier send of the same stamp; `position` is the original's.
        duplicate: bool,
    },
    /// The record is certainly not in the log; sending again may help.
    NotStored(Error),
    /// The record is certainly not in the log; sending again cannot help.
    Refused(Error),
    /// The broker refuses the record now, but the client had perhaps sent it before under the same submission, so that
    /// it may be in the log. Sending again cannot help: the core reads the log, which decides.
    Doubtful(Error),
    /// The record may be in the log.
    Unknown(Error),
}

/// Receiver of one submitted record's fate, told exactly once, from any thread. A ticket dropped untold tells
/// [`Fate::Unknown`]: a backend cannot lose a publish.
#[must_use]
pub struct Ticket {
    sink: Option<Arc<dyn TicketSink>>,
    id: u64,
}

/// Sink of fates, such as the key lanes. Public only so that a backend's producer can be tested alone.
pub trait TicketSink: Send + Sync + 'static {
    /// Takes the fate of the submission with this id. Must not block.
    fn told(self: Arc<Self>, id: u64, fate: Fate);

    /// Returns whether the submission with this id may still be stored. Must not block; see [`Ticket::stands`].
    fn stands(&self, id: u64) -> bool;
}

impl Ticket {
    /// Makes a ticket with an id that the sink knows.
    pub fn new(sink: Arc<dyn TicketSink>, id: u64) -> Self {
        Self { sink: Some(sink), id }
    }

    /// Returns whether this record may still be stored.
    ///
    /// Only backends with [`Pipelining::PerPartition`](super::Pipelining::PerPartition) need to ask, at the moment at
    /// which they fix the record's place in its partition: under the lock, or on the thread, by which they tell the
    /// fates of the partition too. While this call of `submit` was on its way, another fate than `Stored` may have been
    /// told to the key lanes for an earlier record. This record then no longer stands and must not be stored behind the
    /// hole: tell `NotStored`. May be called under the backend's own locks.
    #[must_use]
    pub fn stands(&self) -> bool {
        self.sink.as_ref().is_some_and(|sink| sink.stands(self.id))
    }

    /// Tells the fate, and uses up the ticket.
    pub fn tell(mut self, fate: Fate) {
        if let Some(sink) = self.sink.take() {
            sink.told(self.id, fate);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(sink) = self.sink.take() {
            sink.told(self.id, Fate::Unknown(Error::new(ErrorKind::Unknown, "the backend dropped the submission")));
        }
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("id", &self.id).finish_non_exhaustive()
    }
}
