//! Context that a session shares with its jobs, and the plain data that they hand each other.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until};

use super::resume::ResumePoint;
use crate::backend::{Backend, Capabilities, Lease, Membership};
use crate::model::{Error, ErrorKind, Group, Position, Result, Topic};
use crate::observe::{BusEvent, Location, OwnershipChange, Retry};
use crate::publish::Lanes;
use crate::runtime::Mutex;
use crate::subscribe::handler::DeliveryContext;
use crate::subscribe::options::Settings;
use crate::subscribe::pool::{Opening, OutageChange};
use crate::subscribe::progress::finished::FinishedSet;
use crate::subscribe::progress::note::Trying;
use crate::subscribe::worker::Workers;

/// State that the session and its jobs share.
pub(crate) struct SessionContext {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) capabilities: Capabilities,
    pub(crate) membership: Arc<dyn Membership>,
    pub(crate) lanes: Arc<Lanes>,
    pub(crate) topic: Topic,
    pub(crate) group: Group,
    pub(crate) member: Arc<str>,
    /// The deadline of closing; it shortens hand-overs that are under way, too.
    pub(crate) close_by: CloseBy,
    /// The dead-letter topic; `None` where the policy needs none.
    pub(crate) dead_letters: Option<Topic>,
    pub(crate) settings: Settings,
    pub(crate) workers: Arc<Workers>,
}

#[derive(Debug, Clone)]
pub(crate) struct Claimed {
    pub(crate) partition: u32,
    pub(crate) epoch: u64,
    pub(crate) incarnation: String,
    pub(crate) next: Position,
    pub(crate) finished: FinishedSet,
    pub(crate) unclean_starts: u32,
    pub(crate) suspect_until: Option<Position>,
    pub(crate) tried: Option<Trying>,
}

/// The deadline of a subscription that closes; `None` until closing begins. Tasks that wait for a change are woken in
/// the order of waiting, so that a simulated run repeats itself (a `watch` channel wakes in a random order).
#[derive(Debug, Default)]
pub(crate) struct CloseBy {
    at: Mutex<Option<Instant>>,
    changed: Notify,
}

impl CloseBy {
    pub(crate) fn get(&self) -> Option<Instant> {
        *self.at.lock()
    }

    pub(crate) fn set(&self, at: Instant) {
        *self.at.lock() = Some(at);
        self.changed.notify_waiters();
    }

    /// Waits until the deadline differs from the one that the caller has seen.
    pub(crate) async fn changed(&self, seen: Option<Instant>) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if self.get() != seen {
                return;
            }
            changed.await;
        }
    }
}

#[derive(Debug, Default, Clone)]
pub(crate) struct DrainReport {
    /// Positions whose handlers were dropped at the deadline.
    pub(crate) abandoned: Vec<(u32, Position)>,
    /// Positions whose handlers could not be dropped.
    pub(crate) stuck: Vec<(u32, Position)>,
    /// Partitions whose last commit is not known to be stored: the envelopes finished since the commit before may come
    /// again.
    pub(crate) uncommitted: Vec<u32>,
}

impl DrainReport {
    pub(crate) fn merge(&mut self, other: Self) {
        self.abandoned.extend(other.abandoned);
        self.stuck.extend(other.stuck);
        self.uncommitted.extend(other.uncommitted);
    }
}

pub(super) struct Closing {
    pub(super) deadline: Instant,
    pub(super) replies: Vec<oneshot::Sender<DrainReport>>,
    pub(super) drained: DrainReport,
    pub(super) error: Option<Error>,
    /// Lost partitions whose handlers still run; `None` until all others are given back.
    pub(super) orphans: Option<usize>,
}

/// The error with which the session ended; `None` where it was closed.
pub(crate) type Ended = Option<Error>;

impl SessionContext {
    /// Makes a call to the broker, and gives it up at the deadline of closing.
    ///
    /// # Errors
    /// The call's own, or `Closed`.
    pub(crate) async fn until_closed<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let mut call = std::pin::pin!(call);
        loop {
            let limit = self.close_by.get();
            tokio::select! {
                biased;
                result = &mut call => return result,
                () = self.close_by.changed(limit) => {}
                () = sleep_until(limit.unwrap_or_else(Instant::now)), if limit.is_some() => {
                    return Err(Error::new(ErrorKind::Closed, "the subscription closed while it waited for the broker"));
                }
            }
        }
    }
}

/// Reports of the session: each goes through the hook and the metrics.
impl SessionContext {
    /// Adds the topic and partition to an error.
    pub(super) fn about(&self, partition: u32, error: Error) -> Error {
        error.about("topic", &self.topic).about("partition", partition)
    }

    fn location(&self, partition: u32) -> Location {
        Location {
            topic: self.topic.clone(),
            group: self.group.clone(),
            member: self.member.clone(),
            partition,
            position: None,
            key: None,
        }
    }

    pub(crate) fn report_found(&self, partition: u32, found: &ResumePoint) {
        if found.reset {
            self.report_reset(partition);
        }
        if let Some((from, to)) = found.lost {
            self.report_loss(partition, from, to);
        }
    }

    pub(super) fn report_reset(&self, partition: u32) {
        self.workers.hooks.emit(&BusEvent::LogReset { at: &self.location(partition) });
    }

    pub(super) fn report_loss(&self, partition: u32, from: Position, to: Position) {
        self.workers.telemetry.data_lost();
        self.workers.hooks.emit(&BusEvent::DataLost { at: &self.location(partition), from, to });
    }

    pub(super) fn report_ownership(&self, claimed: &Claimed, change: OwnershipChange) {
        let at = self.location(claimed.partition);
        self.workers.hooks.emit(&BusEvent::Ownership { at: &at, epoch: claimed.epoch, change });
    }

    pub(super) fn report_waiting(&self, partition: Option<u32>, age: Duration, error: &Error) {
        let retry = Retry { group: Some(&self.group), partition, ..Retry::new("receive", &self.topic, age, error) };
        tracing::warn!(target: "eventbus", "{retry}");
        self.workers.hooks.emit(&BusEvent::Retrying(&retry));
    }

    pub(super) fn report_outage(&self, change: OutageChange) {
        let (topic, group, member) = (&self.topic, &self.group, &*self.member);
        let event = match change {
            OutageChange::Suspended { keys } => BusEvent::Suspended { topic, group, member, keys },
            OutageChange::Resumed { after } => BusEvent::OutageOver { topic, group, member, after },
        };
        self.workers.telemetry.suspended(matches!(change, OutageChange::Suspended { .. }));
        self.workers.hooks.emit(&event);
    }

    pub(super) fn report_stalls(&self, now: Instant) {
        let pool = &self.workers.pool;
        for view in pool.stalled(self.settings.stall_after, now) {
            let Some((position, age)) = view.head else { continue };
            self.workers.telemetry.stalled();
            let at = Location { position: Some(position), key: view.head_key, ..self.location(view.partition) };
            self.workers.hooks.emit(&BusEvent::Stalled { at: &at, age, full: view.full });
        }
    }

    pub(super) fn open(&self, claimed: &Claimed, lease: Lease) {
        let context = DeliveryContext {
            topic: self.topic.clone(),
            group: self.group.clone(),
            member: self.member.clone(),
            partition: claimed.partition,
            epoch: claimed.epoch,
            incarnation: claimed.incarnation.as_str().into(),
        };
        self.workers.pool.open(Opening {
            context: Arc::new(context),
            lease,
            watermark: claimed.next,
            finished: claimed.finished.clone(),
            budget_bytes: self.settings.budget_bytes,
            suspect_until: claimed.suspect_until,
            tried: claimed.tried,
            dedup_by_id: self.settings.dedup_by_id,
            seam: self.workers.seam,
        });
        self.report_ownership(claimed, OwnershipChange::Claimed);
    }
}
