//! What goes between the pool, its workers and the session.

use std::ops::Deref;
use std::sync::Arc;

use tokio::time::Instant;

use crate::backend::Inbound;
use crate::model::Position;
use crate::subscribe::handler::DeliveryContext;

/// One attempt to make.
#[derive(Debug)]
pub(crate) struct Attempt {
    /// Counts all jobs of the pool, from 1 on.
    pub(crate) number: u64,
    pub(crate) lane: usize,
    pub(crate) record: RecordBox,
    /// From 1 on.
    pub(crate) attempt: u32,
    /// A second copy: not to be handled.
    pub(crate) copy: bool,
    /// When the start check found that the partition is owned.
    pub(crate) checked: Instant,
    pub(crate) context: Arc<DeliveryContext>,
}

impl Attempt {
    /// Done with. The record is let go here, and not under the pool's lock.
    pub(crate) fn finished(mut self) -> AttemptResult {
        *self.record.0 = None;
        AttemptResult::Finished(self.record)
    }
}

/// A record in a box: it is large to move. Emptied, the box goes back to the pool for another record, so that in the
/// steady state nothing is allocated.
#[derive(Debug, Default)]
pub(crate) struct RecordBox(pub(super) Box<Option<Inbound>>);

/// Empty, it reads as a record of nothing.
impl Deref for RecordBox {
    type Target = Inbound;

    fn deref(&self) -> &Inbound {
        static NOTHING: Inbound = Inbound::nothing();
        Option::as_ref(&self.0).unwrap_or(&NOTHING)
    }
}

/// How an attempt ended.
#[derive(Debug)]
pub(crate) enum AttemptResult {
    /// Finished: handled, skipped, or not for this group. With the box of its record, empty.
    Finished(RecordBox),
    /// Failed; the head is tried again at this time.
    Retry(Instant, RecordBox),
    /// Failed for good; the head waits until its dead letter is confirmed.
    DeadLetter(Box<DeadJob>),
    /// Dropped without an end: stays unfinished, and nothing more of its partition starts in this ownership.
    Abandoned,
}

/// A head that waits for its dead letter.
#[derive(Debug)]
pub(crate) struct DeadJob {
    pub(crate) lane: usize,
    pub(crate) record: RecordBox,
    pub(crate) attempts: u32,
    pub(crate) error: String,
    pub(crate) context: Arc<DeliveryContext>,
}

/// What a worker does next.
#[derive(Debug)]
pub(crate) enum NextAttempt {
    Run(Attempt),
    Idle,
    Exit,
}

/// What an offered batch asks of the intake, and what it wants reported.
#[derive(Debug, Default)]
pub(crate) struct OfferResult {
    /// Partitions whose intake must pause.
    pub(crate) pause: Vec<u32>,
    /// A delivery that the watermark has passed already.
    pub(crate) broken: Option<(u32, Position)>,
}
