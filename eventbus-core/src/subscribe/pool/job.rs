//! Jobs, results and offers: the data that the pool exchanges with its workers and the session.

use std::ops::Deref;
use std::sync::Arc;

use tokio::time::Instant;

use crate::backend::Inbound;
use crate::model::Position;
use crate::subscribe::handler::DeliveryContext;

/// One attempt at a record, for a worker to make.
#[derive(Debug)]
pub(crate) struct Attempt {
    /// The number of the job, counted over all jobs of the pool, from 1 on.
    pub(crate) number: u64,
    pub(crate) lane: usize,
    pub(crate) record: RecordBox,
    /// The number of the attempt at this record, from 1 on.
    pub(crate) attempt: u32,
    /// What the record is charged; `None` for its first attempt.
    pub(crate) charge: Option<Box<Charge>>,
    /// Whether the record is a second copy, not to be handled.
    pub(crate) copy: bool,
    /// The time at which the start check found that the partition is owned.
    pub(crate) checked: Instant,
    pub(crate) context: Arc<DeliveryContext>,
}

/// What a record is charged that was handed over before.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Charge {
    /// The attempts that count, with the one under way.
    pub(crate) attempts: u32,
    /// Attempts of those that ended their process.
    pub(crate) unclean: u32,
    /// The time since which the record fails or waits in this ownership.
    pub(crate) since: Option<Instant>,
}

impl Attempt {
    /// Returns what the record is charged.
    pub(crate) fn charge(&self) -> Charge {
        self.charge.as_deref().copied().unwrap_or(Charge { attempts: self.attempt, unclean: 0, since: None })
    }

    /// Ends the attempt as one whose handler succeeded.
    pub(crate) fn finished(self) -> AttemptResult {
        self.ended(true)
    }

    /// Ends the attempt as one that is finished without its handler: a copy, or one that is skipped.
    pub(crate) fn passed_over(self) -> AttemptResult {
        self.ended(false)
    }

    /// The record is dropped here, and not under the pool's lock.
    fn ended(mut self, handled: bool) -> AttemptResult {
        *self.record.0 = None;
        AttemptResult::Finished { emptied: self.record, handled }
    }
}

/// A record in a box: it is large to move. An emptied box goes back to the pool for another record, so that in the
/// steady state nothing is allocated.
#[derive(Debug, Default)]
pub(crate) struct RecordBox(pub(super) Box<Option<Inbound>>);

/// Reads as an empty record where the box is empty.
impl Deref for RecordBox {
    type Target = Inbound;

    fn deref(&self) -> &Inbound {
        static NOTHING: Inbound = Inbound::nothing();
        Option::as_ref(&self.0).unwrap_or(&NOTHING)
    }
}

#[derive(Debug)]
pub(crate) enum AttemptResult {
    /// The record is finished: handled, skipped, or not for this group. With its box, emptied.
    Finished { emptied: RecordBox, handled: bool },
    /// The attempt failed; the head is tried again at this time.
    Retry(Instant, RecordBox),
    /// The handler could not work yet; the head is handed over again at this time, and nothing is charged.
    Wait(Instant, RecordBox),
    /// The attempts are used up; the head waits until its dead letter is confirmed.
    DeadLetter(Box<DeadJob>),
    /// The attempt was dropped: its record stays unfinished, and nothing more of its partition starts in this
    /// ownership.
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

#[derive(Debug)]
pub(crate) enum NextAttempt {
    Run(Attempt),
    Idle,
    Exit,
}

#[derive(Debug, Default)]
pub(crate) struct OfferResult {
    /// Partitions whose intake must pause.
    pub(crate) pause: Vec<u32>,
    /// A delivery that the watermark has passed already, which is a defect of the backend.
    pub(crate) broken: Option<(u32, Position)>,
}
