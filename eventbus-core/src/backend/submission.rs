//! Records on their way to the log, and what became of them: [`Outbound`], [`Fate`], and the [`Ticket`] by which a backend
//! tells it.

use std::fmt;
use std::sync::Arc;

use crate::model::{Envelope, Error, ErrorKind, Position, Stamp, Topic};

/// One record on its way to the log.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Outbound {
    /// The topic.
    pub topic: Topic,
    /// The partition, computed by the core.
    pub partition: u32,
    /// The publish's stamp, the same on every re-send.
    pub stamp: Stamp,
    /// What to store; see [`Envelope`] and [`crate::wire::encode`].
    pub envelope: Envelope,
}

impl Outbound {
    /// A record for a partition of a topic.
    #[must_use]
    pub fn new(topic: Topic, partition: u32, stamp: Stamp, envelope: Envelope) -> Self {
        Self { topic, partition, stamp, envelope }
    }
}

/// What became of a submitted record.
#[derive(Debug, Clone)]
pub enum Fate {
    /// In the log.
    Stored {
        /// Where.
        position: Position,
        /// The broker had it already, from an earlier send of the same stamp; `position` is the original's.
        duplicate: bool,
    },
    /// Certainly not in the log; sending again may help.
    NotStored(Error),
    /// Certainly not in the log; sending again cannot help.
    Refused(Error),
    /// Perhaps in the log.
    Unknown(Error),
}

/// Told exactly once what became of a submitted record, from any thread. Dropped untold, it tells [`Fate::Unknown`]: a
/// backend cannot lose a publish.
#[must_use]
pub struct Ticket {
    sink: Option<Arc<dyn TicketSink>>,
    id: u64,
}

/// Takes fates; the key lanes are one. Public for tests of a backend's producer alone.
pub trait TicketSink: Send + Sync + 'static {
    /// The fate of the submission with this id. Must not block.
    fn told(self: Arc<Self>, id: u64, fate: Fate);

    /// Whether the submission with this id may still be stored. Must not block; see [`Ticket::stands`].
    fn stands(&self, id: u64) -> bool;
}

impl Ticket {
    /// A ticket with an id that the sink knows.
    pub fn new(sink: Arc<dyn TicketSink>, id: u64) -> Self {
        Self { sink: Some(sink), id }
    }

    /// Whether this record may still be stored.
    ///
    /// Only backends with [`Pipelining::PerPartition`](super::Pipelining::PerPartition) need to ask, at the
    /// moment in which the record's place in its partition is fixed (under the lock, or on the thread, by which fates of
    /// the partition are told too). A fate other than `Stored` may have been told to the key lanes while this very call of
    /// `submit` was on its way, decided before: it no longer stands, and must not be stored behind the hole. Tell
    /// `NotStored` then. May be called under the backend's own locks.
    #[must_use]
    pub fn stands(&self) -> bool {
        self.sink.as_ref().is_some_and(|sink| sink.stands(self.id))
    }

    /// Tells the fate.
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
