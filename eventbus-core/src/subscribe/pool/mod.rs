//! The keyed pool: one handler at a time for a key, any number of keys at once (S1, S2, S6).
//!
//! # Invariants
//!
//! **S1.** A lane is one key of one partition. It is in exactly one of these states: *ready* (its number stands once in
//! the ready queue), *running* (one worker holds its head), *waiting* (for a timer, a dead-letter write, the lease or
//! its turn) or gone. [`Pool::next`] alone takes a head, and only out of the ready queue. A lane enters that queue when
//! its first envelope arrives, when its head was finished and another is behind it, or when its wait is over. So two
//! handlers of one key never overlap, and the next never starts before the head is finished. Where a head is left
//! unfinished for good, nothing more of its partition starts: the pool drains the partition by itself.
//!
//! **S2.** A failed head stays the head: [`AttemptResult::Retry`] makes the lane wait, and the worker goes on with
//! another lane. A waiting lane holds no slot.
//!
//! **S6.** The pool holds at most each partition's window and bytes, plus the records that the backend delivers after
//! it was asked to pause. Lanes exist only while they have work, and memory for a burst is given back. There are as
//! many workers as the concurrency, and no task is made for a message.
//!
//! **No lost wake-up.** Whenever a lane is ready and a handler may start, a worker is awake or about to be: a worker
//! that makes a lane ready takes one itself, all others wake the idle workers, and [`Pool::sleep`] checks once more
//! under the lock. Only a worker that retires may leave a ready lane behind; it notifies the session, which then wakes
//! another.
//!
//! Everything here is synchronous and under one lock, held for tens of instructions; handlers, hooks and encoding run
//! outside. Time comes in as an argument.

use std::collections::{BTreeMap, VecDeque};
use std::task::Waker;

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use slab::Slab;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::backend::Inbound;
use crate::model::Position;
use crate::mutant::{Mutant, Seam};
use crate::runtime::Mutex;
use crate::runtime::sync::MutexGuard;
use partition::{Partition, Partitions};

mod control;
mod defects;
mod guard;
mod job;
mod lane;
mod lanes;
mod one_at_a_time;
mod outage;
mod partition;
mod view;

pub(crate) use control::PartitionProgress;
pub(crate) use guard::OutageChange;
pub(crate) use job::{Attempt, AttemptResult, Charge, DeadJob, NextAttempt, OfferResult, RecordBox};
pub(crate) use partition::Opening;
pub use view::PartitionView;

use guard::{FailingHead, OutageGuard};
use lane::{Lane, LaneState, LedgerEntry, NONE, QueuedRecord};

#[cfg(test)]
mod tests;

/// Capacity in records that an empty pool keeps.
const KEPT_CAPACITY: usize = 8_192;

/// Pool of envelopes to handle. Shared by the session, which offers them, and the workers, which take them.
#[derive(Debug)]
pub(crate) struct Pool {
    state: Mutex<PoolState>,
    /// Wakes the session to look at its duties.
    pub(crate) session: Notify,
    /// Wakes tasks that wait for handlers to end.
    rest: Notify,
}

#[derive(Debug)]
struct PoolState {
    partitions: Partitions,
    /// Whether any partition handles one envelope at a time.
    any_alone: bool,
    lanes: Slab<Lane>,
    index: HashTable<usize>,
    /// The hasher of keys, randomly seeded. Fast rather than proof against an attacker who can measure the table: keys
    /// hash once a record.
    hasher: DefaultHashBuilder,
    items: Slab<QueuedRecord>,
    /// Lanes whose heads have failed or waited in this ownership. An entry goes with its head: the next of the key has
    /// not failed.
    failing: HashMap<usize, FailingHead>,
    guard: OutageGuard,
    /// Empty boxes for records to come: in the steady state nothing is allocated.
    spare: Vec<RecordBox>,
    ready: VecDeque<usize>,
    timers: BTreeMap<(Instant, u64), usize>,
    timer_count: u64,
    dead: VecDeque<DeadJob>,
    window: usize,
    concurrency: usize,
    /// The most handlers at once now: the concurrency, or fewer in and after an outage.
    at_once: usize,
    running: usize,
    paused: bool,
    closed: bool,
    workers: Vec<WorkerSlot>,
    /// Handlers still running, by partition, of ownerships that are over.
    orphans: BTreeMap<u32, usize>,
    jobs: u64,
    /// Records finished since a commit was last requested.
    finished: u64,
    commit_every: u64,
    seam: Seam,
    #[cfg(feature = "mutants")]
    removed: BTreeMap<u32, Partition>,
}

#[derive(Debug, Default)]
struct WorkerSlot {
    idle: Option<Waker>,
    alive: bool,
    /// The running job's number, partition and position.
    job: Option<(u64, u32, Position)>,
}

impl Pool {
    pub(crate) fn new(concurrency: usize, window: usize, commit_every: u64, seam: Seam) -> Self {
        Self {
            state: Mutex::new(PoolState {
                partitions: Partitions::default(),
                any_alone: false,
                lanes: Slab::new(),
                index: HashTable::new(),
                hasher: DefaultHashBuilder::default(),
                items: Slab::new(),
                failing: HashMap::new(),
                guard: OutageGuard::default(),
                spare: Vec::new(),
                ready: VecDeque::new(),
                timers: BTreeMap::new(),
                timer_count: 0,
                dead: VecDeque::new(),
                window,
                concurrency,
                at_once: concurrency,
                running: 0,
                paused: false,
                closed: false,
                workers: Vec::new(),
                orphans: BTreeMap::new(),
                jobs: 0,
                finished: 0,
                commit_every,
                seam,
                #[cfg(feature = "mutants")]
                removed: BTreeMap::new(),
            }),
            session: Notify::new(),
            rest: Notify::new(),
        }
    }

    /// Opens a partition, in place of any earlier ownership of it.
    pub(crate) fn open(&self, opening: Opening) {
        let mut state = self.state.lock();
        let partition = opening.context.partition;
        // A key must never find a lane of an ownership that is over.
        state.remove(partition);
        state.any_alone |= opening.suspect_until.is_some();
        let opened = Partition::new(opening);
        #[cfg(feature = "mutants")]
        let opened = state.with_copies_kept(opened);
        state.partitions.insert(partition, opened);
    }

    /// Takes delivered records into the lanes of their keys, and wakes as many workers as there is new work for.
    pub(crate) fn offer(&self, records: Vec<Inbound>, now: Instant) -> OfferResult {
        let mut offered = OfferResult::default();
        let mut records = records.into_iter();
        let mut guard = self.state.lock();
        let state = &mut *guard;
        while !records.as_slice().is_empty() {
            state.offer_one(&mut records, now, &mut offered);
        }
        let window = state.window;
        for partition in state.partitions.values_mut() {
            if !partition.full && partition.over_budget(window) {
                partition.full = true;
                offered.pause.push(partition.context.partition);
            }
        }
        wake_workers(guard);
        offered
    }

    /// Takes back a worker's last result and returns its next job.
    pub(crate) fn next(&self, worker: usize, done: Option<(usize, AttemptResult)>, now: Instant) -> NextAttempt {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let mut tell_session = false;
        if let Some((lane, outcome)) = done {
            state.workers[worker].job = None;
            tell_session = state.complete(lane, outcome, now);
        }
        let next = state.take(worker, now, &mut tell_session);
        drop(guard);
        if tell_session {
            self.session.notify_one();
            self.rest.notify_waiters();
        }
        next
    }

    /// Frees the slot of a worker that died unbidden; the head that it held counts as abandoned.
    pub(crate) fn worker_died(&self, worker: usize, lane: Option<usize>) {
        let mut state = self.state.lock();
        state.workers[worker].job = None;
        state.workers[worker].alive = false;
        if let Some(lane) = lane {
            state.complete(lane, AttemptResult::Abandoned, Instant::now());
        }
        drop(state);
        self.session.notify_one();
        self.rest.notify_waiters();
    }

    /// Registers an idle worker's waker, unless there is work by now. Returns whether the worker may sleep.
    pub(crate) fn sleep(&self, worker: usize, waker: &Waker) -> bool {
        let mut state = self.state.lock();
        if state.may_start() && !state.ready.is_empty() || state.closed || worker >= state.concurrency {
            return false;
        }
        match &mut state.workers[worker].idle {
            Some(known) if known.will_wake(waker) => {}
            idle => *idle = Some(waker.clone()),
        }
        true
    }
}

impl PoolState {
    fn may_start(&self) -> bool {
        !self.paused && !self.closed && self.running < self.at_once
    }

    /// Takes the wakers of as many idle workers as there are lanes to start.
    fn workers_to_wake(&mut self) -> Vec<Waker> {
        if !self.may_start() || self.ready.is_empty() {
            return Vec::new();
        }
        let wanted = self.ready.len().min(self.at_once - self.running);
        let idle = self.workers.iter_mut().take(self.concurrency).filter_map(|worker| worker.idle.take());
        idle.take(wanted).collect()
    }

    /// Performs the start check, and takes a head. No other function takes one.
    fn take(&mut self, worker: usize, now: Instant, tell_session: &mut bool) -> NextAttempt {
        if self.closed || worker >= self.concurrency {
            self.workers[worker].alive = false;
            *tell_session = true;
            return NextAttempt::Exit;
        }
        if self.guard.is_suspended() && self.may_start() {
            self.choose_try();
        }
        while self.may_start() {
            let Some(number) = self.ready.pop_front() else { break };
            let lane = &mut self.lanes[number];
            let Some(partition) = self.partitions.get_mut(lane.partition) else {
                self.drop_lane(number);
                continue;
            };
            let item = &mut self.items[lane.head];
            // S5: a member that may have lost the partition starts nothing more. The session revives or drops the lane.
            let unchecked = self.seam.is(Mutant::NoStartCheck) || self.seam.is(Mutant::StaleOwner);
            let checked = if unchecked { Some(now) } else { partition.lease.check(now) };
            let Some(checked) = checked.filter(|_| partition.is_read(item.position)) else {
                lane.state = LaneState::Held;
                partition.held.insert(item.position, number);
                partition.free_turn();
                *tell_session = true;
                continue;
            };
            // A ready lane's head is always here; a lane without it is running, and must not start twice.
            let Some(record) = item.record.take() else { continue };
            item.queued.attempts += 1;
            let LedgerEntry { ordinal, attempts: attempt, copy } = item.queued;
            partition.running += 1;
            let unclean = if attempt > 1 { partition.charged(item.position) } else { 0 };
            if self.seam.is(Mutant::AckBeforeHandling) {
                partition.tracker.finish(ordinal);
            }
            let context = partition.context.clone();
            lane.state = LaneState::Running;
            self.running += 1;
            self.jobs += 1;
            self.workers[worker].job = Some((self.jobs, lane.partition, item.position));
            if self.guard.is_suspended() {
                self.trying(number);
            }
            let charge = if attempt > 1 { Some(self.charge_of(number, attempt, unclean)) } else { None };
            return NextAttempt::Run(Attempt {
                number: self.jobs,
                lane: number,
                record,
                attempt,
                charge,
                copy,
                checked,
                context,
            });
        }
        NextAttempt::Idle
    }

    /// Returns what a record that was handed over before is charged.
    fn charge_of(&self, lane: usize, attempt: u32, unclean: u32) -> Box<Charge> {
        let FailingHead { since, uncharged, .. } = self.failing.get(&lane).copied().unwrap_or_default();
        Box::new(Charge { attempts: attempt.saturating_sub(uncharged), unclean, since })
    }

    /// Takes back a lane from a worker. Returns whether the session must look.
    fn complete(&mut self, number: usize, outcome: AttemptResult, now: Instant) -> bool {
        self.running -= 1;
        // What it makes of the result is the session's to tell, and to wait for.
        let guarded = self.guard.is_active();
        if guarded {
            let handled = matches!(outcome, AttemptResult::Finished { handled: true, .. });
            self.guard_ended(number, handled, now);
        }
        let lane = &self.lanes[number];
        let Some(partition) = owner(&mut self.partitions, lane) else {
            self.orphan_ended(number);
            return true;
        };
        partition.running -= 1;
        // One at a time limits running handlers: a key that waits for its retry or its dead letter lets others have
        // their turn.
        let turn_over = partition.free_turn();
        let draining = partition.draining;
        let tell = match outcome {
            AttemptResult::Finished { emptied, .. } => {
                let head = &self.items[lane.head];
                let resumes = partition.finish(head.queued.ordinal, head.bytes, now, self.window);
                if self.spare.len() < KEPT_CAPACITY && emptied.0.is_none() {
                    self.spare.push(emptied);
                }
                self.leave_head(number) || resumes
            }
            AttemptResult::Abandoned => {
                // Neither the key's next nor a later delivery of the key may start: nothing more of the partition does.
                let partition = lane.partition;
                self.drain(partition);
                self.drop_lane(number);
                true
            }
            _ if draining => {
                self.drop_lane(number);
                true
            }
            AttemptResult::Retry(at, record) => {
                if self.guard_failed(number, now) {
                    self.charge(number, false, now);
                    self.wait_for_retry(number, at, record, now)
                } else {
                    self.wait_for_retry(number, now, record, now);
                    true
                }
            }
            AttemptResult::Wait(at, record) => {
                self.charge(number, true, now);
                self.wait_for_retry(number, at, record, now)
            }
            AttemptResult::DeadLetter(job) => {
                self.lanes[number].state = LaneState::DeadLetter;
                self.dead.push_back(*job);
                true
            }
        };
        tell || turn_over || draining || guarded
    }

    /// Ends a handler whose ownership is over: its result changes nothing here (S5).
    fn orphan_ended(&mut self, lane: usize) {
        let partition = self.lanes[lane].partition;
        self.drop_lane(lane);
        if let Some(orphans) = self.orphans.get_mut(&partition) {
            *orphans -= 1;
            if *orphans == 0 {
                self.orphans.remove(&partition);
            }
        }
    }

    /// Has a head's time run, from its first failure or wait on.
    fn charge(&mut self, lane: usize, waits: bool, now: Instant) {
        let head = self.failing.entry(lane).or_default();
        head.since.get_or_insert(now);
        head.uncharged += u32::from(waits);
        head.waits = waits;
    }

    fn wait_for_retry(&mut self, lane: usize, at: Instant, record: RecordBox, now: Instant) -> bool {
        let head = self.lanes[lane].head;
        self.items[head].record = Some(record);
        let behind = self.items[head].next;
        if behind != NONE && (self.seam.is(Mutant::RetryAtTail) || self.seam.is(Mutant::NegativeAcknowledge)) {
            self.put_at_tail(lane);
            if self.seam.is(Mutant::NegativeAcknowledge) {
                self.make_ready(lane);
                return false;
            }
        }
        if at <= now {
            self.make_ready(lane);
            return false;
        }
        let earliest = self.timers.first_key_value().map(|((at, _), _)| *at);
        self.timer_count += 1;
        self.timers.insert((at, self.timer_count), lane);
        self.lanes[lane].state = LaneState::Timed(at, self.timer_count);
        earliest.is_none_or(|earliest| at < earliest)
    }
}

/// Releases the lock and wakes workers for the lanes made ready under it.
fn wake_workers(mut state: MutexGuard<'_, PoolState>) {
    let wakers = state.workers_to_wake();
    drop(state);
    wakers.into_iter().for_each(Waker::wake);
}

/// Returns the partition of a lane, if it is still owned in the lane's epoch.
fn owner<'a>(partitions: &'a mut Partitions, lane: &Lane) -> Option<&'a mut Partition> {
    partitions.get_mut(lane.partition).filter(|partition| partition.epoch == lane.epoch)
}
