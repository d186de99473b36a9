//! Control of the pool by the session, besides offering: progress, timers, draining, live settings.

use std::sync::Arc;
use std::task::Waker;

use tokio::time::Instant;

use super::guard::OutageChange;
use super::job::DeadJob;
use super::lane::{LaneState, NONE};
use super::partition::{OneAtATime, Partition};
use super::{KEPT_CAPACITY, Pool, PoolState, wake_workers};
use crate::model::Position;
use crate::mutant::Mutant;
use crate::subscribe::handler::DeliveryContext;
use crate::subscribe::progress::finished::FinishedSet;
use crate::subscribe::progress::note::Trying;

/// Progress of one partition, as a commit would store it.
#[derive(Debug, Clone)]
pub(crate) struct PartitionProgress {
    pub(crate) partition: u32,
    pub(crate) epoch: u64,
    pub(crate) next: Position,
    pub(crate) finished: FinishedSet,
    /// Records finished since the last confirmed commit, for [`Pool::committed`].
    pub(crate) count: u64,
    pub(crate) suspect_until: Option<Position>,
    pub(crate) trying: Option<Trying>,
}

/// Duties of the session after a look at the pool.
#[derive(Debug, Default)]
pub(crate) struct Duties {
    /// Dead letters to write.
    pub(crate) dead: Vec<DeadJob>,
    /// Partitions whose note must name this envelope before it may start.
    pub(crate) turns: Vec<(u32, Trying)>,
    /// Partitions whose intake may go on.
    pub(crate) resume: Vec<u32>,
    /// Whether enough is finished for a commit before its time.
    pub(crate) commit: bool,
    /// The beginning or end of an outage.
    pub(crate) outage: Option<OutageChange>,
    /// The time at which the next retry is due.
    pub(crate) timer: Option<Instant>,
}

impl Pool {
    /// Collects all work that waits for the session, and makes lanes ready whose wait is over.
    pub(crate) fn duties(&self, now: Instant) -> Duties {
        let mut state = self.state.lock();
        state.expire(now);
        state.revive();
        state.give_back_memory();
        let next_try = state.try_again(now);
        let retry = state.timers.first_key_value().map(|((at, _), _)| *at);
        let duties = Duties {
            dead: std::mem::take(&mut state.dead).into(),
            turns: state.turns(),
            resume: state.resumable(),
            commit: state.commit_is_due(),
            outage: state.outage_change(),
            timer: retry.into_iter().chain(next_try).min(),
        };
        wake_workers(state);
        duties
    }

    /// Finishes a head whose dead letter is confirmed. Returns false if the lane no longer waits for it.
    pub(crate) fn dead_lettered(&self, lane: usize, context: &Arc<DeliveryContext>, now: Instant) -> bool {
        let mut state = self.state.lock();
        let known = state.awaits_letter(lane, context);
        if known {
            state.finish_head(lane, now);
        }
        wake_workers(state);
        known
    }

    /// Returns whether the head of this lane still waits for its dead letter, in the ownership in which it failed.
    pub(crate) fn awaits_letter(&self, lane: usize, context: &DeliveryContext) -> bool {
        self.state.lock().awaits_letter(lane, context)
    }

    /// Returns whether the partition is still held in the epoch of this delivery.
    pub(crate) fn owns(&self, context: &DeliveryContext) -> bool {
        let state = self.state.lock();
        state.partitions.get(context.partition).is_some_and(|owned| owned.epoch == context.epoch)
    }

    /// Returns the progress of partitions with something new, or of `all`.
    pub(crate) fn progress(&self, all: bool) -> Vec<PartitionProgress> {
        let state = self.state.lock();
        let owned = state.partitions.values();
        owned.filter(|owned| all || owned.dirty()).map(|owned| state.progress_of(owned)).collect()
    }

    pub(crate) fn progress_of(&self, partition: u32) -> Option<PartitionProgress> {
        let state = self.state.lock();
        state.partitions.get(partition).map(|owned| state.progress_of(owned))
    }

    pub(crate) fn committed(&self, progress: &PartitionProgress) {
        let mut state = self.state.lock();
        if let Some(owned) = state.partitions.get_mut(progress.partition)
            && owned.context.epoch == progress.epoch
        {
            owned.tracker.committed(progress.count);
            owned.committed = owned.committed.max(Some(progress.next));
        }
    }

    /// Lifts the watermark over positions without records: nothing of this partition is left undelivered below `next`.
    pub(crate) fn advance_to(&self, partition: u32, next: Position) {
        let mut state = self.state.lock();
        if let Some(owned) = state.partitions.get_mut(partition)
            && !owned.draining
            && !owned.beginning
        {
            owned.tracker.advance_to(next);
        }
    }

    /// Returns the first position of a partition about which nothing is known yet.
    pub(crate) fn expected(&self, partition: u32) -> Option<Position> {
        self.state.lock().partitions.get(partition).map(Partition::expected)
    }

    /// Returns the first of these positions that was not handled before this ownership; `None` where all were, or the
    /// partition is not owned.
    pub(crate) fn unhandled_before(&self, partition: u32, from: Position, to: Position) -> Option<Position> {
        let state = self.state.lock();
        Some(state.partitions.get(partition)?.unhandled_from(from)).filter(|first| *first < to)
    }

    /// Begins a read of a partition. Returns where it begins, and the first position about which nothing is known yet.
    /// From that position on nothing starts until [`read_is_good`](Self::read_is_good).
    pub(crate) fn begin_read(&self, partition: u32, lookback: u64) -> Option<(Position, Position)> {
        let mut state = self.state.lock();
        let owned = state.partitions.get_mut(partition)?;
        let expected = owned.expected();
        owned.unread.get_or_insert(expected);
        Some((owned.read_from(lookback), expected))
    }

    /// Confirms that a read found the expected log, so that handlers may start again.
    pub(crate) fn read_is_good(&self, partition: u32) {
        if let Some(owned) = self.state.lock().partitions.get_mut(partition) {
            owned.unread = None;
        }
    }

    /// Prepares for a new read after a seek, while the old delivery still goes on; the old one, parked, brings nothing
    /// from below `parked`. If the new read begins below `parked`, a record from there on belongs to the old delivery,
    /// until one comes from below. If it begins above, the old delivery brings only records that the new one would
    /// bring too, in the same order.
    pub(crate) fn expect_new_read(&self, partition: u32, parked: Position, lookback: u64) {
        let mut state = self.state.lock();
        if let Some(owned) = state.partitions.get_mut(partition) {
            let begin = owned.read_from(lookback);
            owned.stale_from = Some(parked).filter(|parked| begin < *parked);
            owned.beginning = true;
        }
    }

    /// Marks the new delivery as begun and the old one as over. Returns true if no record of the new one was recognised
    /// yet.
    pub(crate) fn new_read_began(&self, partition: u32) -> bool {
        let mut state = self.state.lock();
        state.partitions.get_mut(partition).is_some_and(|owned| {
            owned.beginning = false;
            owned.stale_from.take().is_some()
        })
    }

    /// S7: starts nothing more of a partition and forgets its queued records. Returns how many handlers go on running.
    pub(crate) fn drain(&self, partition: u32) -> usize {
        self.state.lock().drain(partition)
    }

    /// Ends an ownership. Handlers that still run are orphans: they finish, and their results change nothing here.
    pub(crate) fn remove(&self, partition: u32) {
        self.state.lock().remove(partition);
    }

    /// Returns the partitions whose ownership is over while handlers of them still run.
    pub(crate) fn orphaned(&self) -> Vec<u32> {
        self.state.lock().orphans.keys().copied().collect()
    }

    /// Waits until no handler of this partition runs.
    pub(crate) async fn at_rest(&self, partition: u32) {
        loop {
            let rest = self.rest.notified();
            if self.running_in(partition) == 0 {
                return;
            }
            rest.await;
        }
    }

    /// Counts the running handlers of this partition, whatever their epoch.
    pub(crate) fn running_in(&self, partition: u32) -> usize {
        let state = self.state.lock();
        let owned = state.partitions.get(partition).map_or(0, |owned| owned.running);
        owned + state.orphans.get(&partition).copied().unwrap_or(0)
    }

    /// Returns the workers that run handlers of this partition: worker, job and position.
    pub(crate) fn busy_with(&self, partition: u32) -> Vec<(usize, u64, Position)> {
        let state = self.state.lock();
        let jobs = state.workers.iter().enumerate().filter_map(|(worker, slot)| Some((worker, slot.job?)));
        jobs.filter(|(_, job)| job.1 == partition).map(|(worker, (job, _, position))| (worker, job, position)).collect()
    }

    pub(crate) fn set_paused(&self, paused: bool) {
        let mut state = self.state.lock();
        state.paused = paused;
        wake_workers(state);
    }

    /// Changes the most handlers at once. Returns the workers that must be started.
    pub(crate) fn set_concurrency(&self, concurrency: usize) -> Vec<usize> {
        let mut state = self.state.lock();
        state.concurrency = if state.seam.is(Mutant::OneTask) { 1 } else { concurrency };
        let concurrency = state.concurrency;
        state.limit_handlers();
        if state.workers.len() < concurrency {
            state.workers.resize_with(concurrency, Default::default);
        }
        let mut start = Vec::new();
        for (number, worker) in state.workers.iter_mut().take(concurrency).enumerate() {
            if !worker.alive {
                worker.alive = true;
                start.push(number);
            }
        }
        let retired: Vec<Waker> = state.workers.iter_mut().skip(concurrency).filter_map(|w| w.idle.take()).collect();
        let wakers = state.workers_to_wake();
        drop(state);
        retired.into_iter().chain(wakers).for_each(Waker::wake);
        start
    }

    /// Lets every worker exit once its handler has ended.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        let wakers: Vec<Waker> = state.workers.iter_mut().filter_map(|worker| worker.idle.take()).collect();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl PoolState {
    fn awaits_letter(&self, lane: usize, context: &DeliveryContext) -> bool {
        self.lanes.get(lane).is_some_and(|found| {
            found.state == LaneState::DeadLetter && found.epoch == context.epoch && found.partition == context.partition
        })
    }

    fn progress_of(&self, owned: &Partition) -> PartitionProgress {
        let (mut next, mut finished) = owned.progress();
        if self.seam.is(Mutant::CommitPastHole)
            && let Some(run) = finished.runs().last()
        {
            (next, finished) = (run.last.next(), FinishedSet::default());
        }
        let alone = owned.alone.as_ref();
        PartitionProgress {
            partition: owned.context.partition,
            epoch: owned.context.epoch,
            next,
            finished,
            count: owned.tracker.finished_since_commit(),
            suspect_until: alone.map(|alone| alone.until),
            trying: alone.and_then(|alone| match alone.turn {
                OneAtATime::Free => None,
                OneAtATime::Writing(trying) | OneAtATime::Granted(trying) => Some(trying),
            }),
        }
    }

    /// Makes lanes ready whose back-off is over.
    fn expire(&mut self, now: Instant) {
        while let Some(entry) = self.timers.first_entry()
            && entry.key().0 <= now
        {
            let lane = entry.remove();
            self.make_ready(lane);
        }
    }

    fn resumable(&mut self) -> Vec<u32> {
        let window = self.window;
        let full = self.partitions.values_mut().filter(|owned| owned.full && owned.has_room(window));
        full.map(|owned| {
            owned.full = false;
            owned.context.partition
        })
        .collect()
    }

    /// Returns whether enough was finished since this last returned true.
    fn commit_is_due(&mut self) -> bool {
        let due = self.finished >= self.commit_every;
        if due {
            self.finished = 0;
        }
        due
    }

    /// S6: gives back the memory of a burst once the pool is empty.
    fn give_back_memory(&mut self) {
        if self.items.is_empty() && self.items.capacity() > KEPT_CAPACITY {
            self.items.shrink_to_fit();
            self.spare.shrink_to(KEPT_CAPACITY);
            self.lanes.shrink_to_fit();
            self.ready.shrink_to(KEPT_CAPACITY);
            self.index.shrink_to(KEPT_CAPACITY, |_| 0);
        }
    }

    pub(super) fn drain(&mut self, partition: u32) -> usize {
        let acknowledge = self.seam.is(Mutant::ShutdownAcknowledges);
        self.forget_queued(partition, acknowledge);
        let Some(owned) = self.partitions.get_mut(partition) else { return 0 };
        owned.draining = true;
        owned.held.clear();
        owned.running
    }

    pub(super) fn remove(&mut self, partition: u32) {
        let running = self.drain(partition);
        let removed = self.partitions.remove(partition);
        if removed.is_some() && running > 0 {
            *self.orphans.entry(partition).or_default() += running;
        }
        #[cfg(feature = "mutants")]
        self.removed.extend(removed.map(|removed| (partition, removed)));
    }

    /// Drops every lane of a partition that is not running, and the records queued behind running heads.
    fn forget_queued(&mut self, partition: u32, acknowledge: bool) {
        let lanes: Vec<usize> =
            self.lanes.iter().filter(|(_, lane)| lane.partition == partition).map(|(number, _)| number).collect();
        self.ready.retain(|lane| self.lanes[*lane].partition != partition);
        // A letter that is not written yet: its envelope is delivered again, and must not pass for handled meanwhile.
        self.dead.retain(|job| job.context.partition != partition);
        for lane in lanes {
            if acknowledge {
                self.acknowledge_lane(lane);
            }
            if self.lanes[lane].state != LaneState::Running {
                self.drop_lane(lane);
                continue;
            }
            let head = self.lanes[lane].head;
            let mut behind = std::mem::replace(&mut self.items[head].next, NONE);
            while behind != NONE {
                behind = self.drop_item(behind);
            }
            self.lanes[lane].tail = head;
            self.unindex(lane);
        }
    }
}
