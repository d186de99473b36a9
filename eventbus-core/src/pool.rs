//! The keyed pool: one handler at a time for a key, any number of keys at once (S1, S2, S6).
//!
//! # Invariants
//!
//! **S1.** A lane is one key of one partition. It is in exactly one of these states: *ready* (its number stands once in the
//! ready queue), *running* (one worker holds its head), *waiting* (for a timer, a dead-letter write or its turn) or gone.
//! [`Pool::next`] alone takes a head, and only out of the ready queue; a lane enters that queue when its first envelope
//! arrives, or when its head was finished and another is behind it, or when its wait is over. So two handlers of one key
//! never overlap, and the next never starts before the head is finished. Where a head is left unfinished for good, nothing
//! more of its partition starts: the pool drains it by itself.
//!
//! **S2.** A failed head stays the head: [`Outcome::Retry`] puts the lane to wait and the worker goes on with another lane.
//! A waiting lane holds no slot.
//!
//! **S6.** The pool holds at most each partition's window and bytes plus what the backend delivers after it was asked to
//! pause; lanes exist only while they have work, and what a burst needed is given back; workers are as many as the
//! concurrency and no task is made for a message.
//!
//! **No lost wake-up.** Whenever a lane is ready and a handler may start, a worker is awake or about to be: a worker that
//! makes a lane ready takes one itself, everybody else wakes the idle ones, and [`Pool::sleep`] looks once more under the
//! lock. Only a worker that retires may leave a ready lane behind; it tells the session, whose look wakes another.
//!
//! Everything here is synchronous and under one lock, held for tens of instructions; handlers, hooks and encoding run
//! outside. Time comes in as an argument.

use std::collections::{BTreeMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::task::Waker;

use hashbrown::{DefaultHashBuilder, HashTable};
use slab::Slab;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::backend::Inbound;
use crate::handler::DeliveryContext;
use crate::key::Key;
use crate::mutant::{Mutant, Seam};
use crate::partition::{Admit, Opening, Partition};
use crate::position::Position;
use crate::sync::{Mutex, MutexGuard};
use crate::tracker::Ordinal;

mod control;
mod turns;
mod view;

pub(crate) use control::Progress;
pub use view::PartitionView;

#[cfg(test)]
mod tests;

/// One attempt to make.
#[derive(Debug)]
pub(crate) struct Job {
    /// Counts all jobs of the pool, from 1 on.
    pub(crate) number: u64,
    pub(crate) lane: usize,
    pub(crate) record: Inbound,
    /// From 1 on.
    pub(crate) attempt: u32,
    /// A second copy: not to be handled.
    pub(crate) copy: bool,
    pub(crate) context: Arc<DeliveryContext>,
}

/// How an attempt ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Finished: handled, skipped, or not for this group.
    Finished,
    /// Failed; the head is tried again at this time.
    Retry(Instant, Box<Inbound>),
    /// Failed for good; the head waits until its dead letter is confirmed.
    DeadLetter(Box<DeadJob>),
    /// Dropped without an end: stays unfinished, and nothing more of its partition starts in this ownership.
    Abandoned,
}

/// A head that waits for its dead letter.
#[derive(Debug)]
pub(crate) struct DeadJob {
    pub(crate) lane: usize,
    pub(crate) record: Inbound,
    pub(crate) attempts: u32,
    pub(crate) error: String,
    pub(crate) context: Arc<DeliveryContext>,
}

/// What a worker does next.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // moved once from the lock to the worker; a box would be an allocation a message
pub(crate) enum Next {
    Run(Job),
    Idle,
    Exit,
}

/// What an offered batch asks of the intake, and what it wants reported.
#[derive(Debug, Default)]
pub(crate) struct Offered {
    /// Partitions whose intake must pause.
    pub(crate) pause: Vec<u32>,
    /// A delivery that the watermark has passed already.
    pub(crate) broken: Option<(u32, Position)>,
}

/// A queued or running record, without its content.
#[derive(Debug)]
struct Item {
    position: Position,
    bytes: usize,
    queued: Queued,
    next: usize,
}

/// What a queued record's ledger entry says.
#[derive(Debug, Clone, Copy)]
struct Queued {
    ordinal: Ordinal,
    attempts: u32,
    /// A second copy, dropped when its turn comes (P3).
    copy: bool,
}

#[derive(Debug)]
struct Lane {
    partition: u32,
    /// The epoch it belongs to: completions of an earlier ownership are ignored.
    epoch: u64,
    hash: u64,
    key: Option<Key>,
    head: usize,
    tail: usize,
    state: LaneState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LaneState {
    Ready,
    Running,
    Timed(Instant, u64),
    DeadLetter,
    Held,
}

const NONE: usize = usize::MAX;

/// Hands envelopes to workers. Shared by the session, which offers, and the workers, which take.
#[derive(Debug)]
pub(crate) struct Pool {
    state: Mutex<State>,
    /// Wakes the session: something was put down for it.
    pub(crate) session: Notify,
    /// Wakes whoever waits for handlers to end.
    rest: Notify,
}

#[derive(Debug)]
struct State {
    partitions: BTreeMap<u32, Partition>,
    /// Whether a partition handles one at a time.
    any_alone: bool,
    lanes: Slab<Lane>,
    index: HashTable<usize>,
    /// Randomly seeded. Fast rather than proof against somebody who can measure the table: keys hash once a record.
    hasher: DefaultHashBuilder,
    items: Slab<Item>,
    /// What the items hold, under the same numbers; none where it is running. Apart, because a record is large to move.
    records: Vec<Option<Inbound>>,
    ready: VecDeque<usize>,
    timers: BTreeMap<(Instant, u64), usize>,
    timer_count: u64,
    dead: VecDeque<DeadJob>,
    window: usize,
    concurrency: usize,
    running: usize,
    paused: bool,
    closed: bool,
    workers: Vec<WorkerSlot>,
    /// Handlers still running of ownerships that are over.
    orphans: BTreeMap<u32, usize>,
    jobs: u64,
    /// Finished since a commit was last asked for.
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
    /// What it runs: the job's number, partition and position.
    job: Option<(u64, u32, Position)>,
}

impl Pool {
    pub(crate) fn new(concurrency: usize, window: usize, commit_every: u64, seam: Seam) -> Self {
        Self {
            state: Mutex::new(State {
                partitions: BTreeMap::new(),
                any_alone: false,
                lanes: Slab::new(),
                index: HashTable::new(),
                hasher: DefaultHashBuilder::default(),
                items: Slab::new(),
                records: Vec::new(),
                ready: VecDeque::new(),
                timers: BTreeMap::new(),
                timer_count: 0,
                dead: VecDeque::new(),
                window,
                concurrency,
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

    /// Takes delivered records into their keys' lanes and wakes as many workers as there is new work for.
    pub(crate) fn offer(&self, records: Vec<Inbound>, now: Instant) -> Offered {
        let mut offered = Offered::default();
        let mut state = self.state.lock();
        for record in records {
            state.offer_one(record, now, &mut offered);
        }
        let window = state.window;
        for (number, partition) in &mut state.partitions {
            if !partition.full && partition.over_budget(window) {
                partition.full = true;
                offered.pause.push(*number);
            }
        }
        wake_workers(state);
        offered
    }

    /// Gives back what a worker did and takes its next job.
    pub(crate) fn next(&self, worker: usize, done: Option<(usize, Outcome)>, now: Instant) -> Next {
        let mut state = self.state.lock();
        let mut tell_session = false;
        if let Some((lane, outcome)) = done {
            state.workers[worker].job = None;
            tell_session = state.complete(lane, outcome, now);
        }
        let next = state.take(worker, &mut tell_session);
        drop(state);
        if tell_session {
            self.session.notify_one();
            self.rest.notify_waiters();
        }
        next
    }

    /// Registers an idle worker's waker, unless there is work by now. Returns whether it may sleep.
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

impl State {
    fn offer_one(&mut self, record: Inbound, now: Instant, offered: &mut Offered) {
        // By reference up to here: a record is large to move.
        let Some((item, lane)) = self.admit(&record, now, offered) else { return };
        match self.records.get_mut(item) {
            Some(place) => *place = Some(record),
            // A slab gives out its numbers without gaps.
            None => self.records.push(Some(record)),
        }
        if let Some(lane) = lane {
            self.make_ready(lane);
        }
    }

    /// Takes a record into the ledger and its lane: its item, and the lane where it is a new one.
    fn admit(&mut self, record: &Inbound, now: Instant, offered: &mut Offered) -> Option<(usize, Option<usize>)> {
        let partition = self.partitions.get_mut(&record.partition)?;
        if partition.draining {
            // As if it had never come: what is committed last must not count it as seen.
            return None;
        }
        let (ordinal, copy) = match partition.admit(record) {
            Admit::Queue(ordinal, copy) => (ordinal, copy),
            Admit::Done | Admit::Repeated => return None,
            Admit::Broken => {
                offered.broken = Some((record.partition, record.position));
                return None;
            }
        };
        let queued = Queued { ordinal, attempts: partition.charged(record.position), copy };
        let epoch = partition.context.epoch;
        partition.note_head(now);
        let item = self.items.insert(Item { position: record.position, bytes: record.bytes, queued, next: NONE });
        let Some(key) = record.key.as_ref().filter(|_| !self.seam.is(Mutant::KeyNotRouted)) else {
            return Some((item, Some(self.add_lane(record.partition, epoch, 0, None, item))));
        };
        let salt = if self.seam.is(Mutant::LanesRoundRobin) { record.position.get() % 4 } else { 0 };
        let hash = self.hasher.hash_one((u64::from(record.partition) | salt << 32, key.as_bytes()));
        Some((item, self.append(record, hash, key, item, epoch)))
    }

    /// Queues an item behind the others of its key; the lane, where it is a new one.
    fn append(&mut self, record: &Inbound, hash: u64, key: &Key, item: usize, epoch: u64) -> Option<usize> {
        let lanes = &self.lanes;
        let found = self.index.find(hash, |&lane| {
            let lane = &lanes[lane];
            lane.hash == hash && lane.partition == record.partition && lane.key.as_ref() == Some(key)
        });
        if let Some(&lane) = found {
            let tail = std::mem::replace(&mut self.lanes[lane].tail, item);
            self.items[tail].next = item;
            return None;
        }
        let lane = self.add_lane(record.partition, epoch, hash, Some(key.clone()), item);
        let lanes = &self.lanes;
        self.index.insert_unique(hash, lane, |&lane| lanes[lane].hash);
        Some(lane)
    }

    fn add_lane(&mut self, partition: u32, epoch: u64, hash: u64, key: Option<Key>, item: usize) -> usize {
        let state = LaneState::Held;
        self.lanes.insert(Lane { partition, epoch, hash, key, head: item, tail: item, state })
    }

    /// Puts a lane in line, unless its partition handles one at a time and it is not this one's turn.
    fn make_ready(&mut self, lane: usize) {
        if self.any_alone
            && let Some(partition) = self.partitions.get_mut(&self.lanes[lane].partition)
            && let Some(alone) = &partition.alone
        {
            let head = self.items[self.lanes[lane].head].position;
            if !alone.is_granted(head) {
                self.lanes[lane].state = LaneState::Held;
                partition.held.insert(head, lane);
                return;
            }
        }
        self.lanes[lane].state = LaneState::Ready;
        self.ready.push_back(lane);
    }

    fn may_start(&self) -> bool {
        !self.paused && !self.closed && self.running < self.concurrency
    }

    /// Wakers for as many idle workers as there are lanes to start.
    fn workers_to_wake(&mut self) -> Vec<Waker> {
        if !self.may_start() || self.ready.is_empty() {
            return Vec::new();
        }
        let wanted = self.ready.len().min(self.concurrency - self.running);
        let idle = self.workers.iter_mut().take(self.concurrency).filter_map(|worker| worker.idle.take());
        idle.take(wanted).collect()
    }

    /// The start check, and the only place where a head is taken.
    fn take(&mut self, worker: usize, tell_session: &mut bool) -> Next {
        if self.closed || worker >= self.concurrency {
            self.workers[worker].alive = false;
            *tell_session = true;
            return Next::Exit;
        }
        while self.may_start() {
            let Some(lane) = self.ready.pop_front() else { break };
            let Some(partition) = self.partitions.get_mut(&self.lanes[lane].partition) else {
                self.drop_lane(lane);
                continue;
            };
            let head = self.lanes[lane].head;
            let item = &mut self.items[head];
            // S5: a member that may have lost the partition starts nothing more. The session revives or drops it.
            let unchecked = self.seam.is(Mutant::NoStartCheck) || self.seam.is(Mutant::StaleOwner);
            let owned = unchecked || partition.lease.is_valid();
            if !owned || !partition.is_read(item.position) {
                self.lanes[lane].state = LaneState::Held;
                partition.held.insert(item.position, lane);
                partition.free_turn();
                *tell_session = true;
                continue;
            }
            // A ready lane's head is always here; a lane without it is running, and must not start twice.
            let Some(record) = self.records[head].take() else { continue };
            item.queued.attempts += 1;
            let Queued { ordinal, attempts: attempt, copy } = item.queued;
            partition.running += 1;
            if self.seam.is(Mutant::AckBeforeHandling) {
                partition.tracker.finish(ordinal);
            }
            let context = partition.context.clone();
            self.lanes[lane].state = LaneState::Running;
            self.running += 1;
            self.jobs += 1;
            let number = self.jobs;
            self.workers[worker].job = Some((number, record.partition, record.position));
            return Next::Run(Job { number, lane, record, attempt, copy, context });
        }
        Next::Idle
    }

    /// Takes back a lane from a worker. Returns whether the session must look.
    fn complete(&mut self, lane: usize, outcome: Outcome, now: Instant) -> bool {
        self.running -= 1;
        let number = self.lanes[lane].partition;
        let Some(partition) = owner(&mut self.partitions, &self.lanes[lane]) else {
            // Its ownership is over: what came of it changes nothing here (S5).
            self.drop_lane(lane);
            if let Some(orphans) = self.orphans.get_mut(&number) {
                *orphans -= 1;
                if *orphans == 0 {
                    self.orphans.remove(&number);
                }
            }
            return true;
        };
        partition.running -= 1;
        // One at a time is about what runs: a key that waits for its retry or its dead letter lets others have their turn.
        let turn_over = partition.free_turn();
        let draining = partition.draining;
        let tell = match outcome {
            Outcome::Finished => {
                let item = &self.items[self.lanes[lane].head];
                let resumes = partition.finish(item.queued.ordinal, item.bytes, now, self.window);
                self.leave_head(lane) || resumes
            }
            Outcome::Abandoned => {
                // Its key's next must not start, nor may a later delivery of the key: nothing more of the partition does.
                self.drain(number);
                self.drop_lane(lane);
                true
            }
            _ if draining => {
                self.drop_lane(lane);
                true
            }
            Outcome::Retry(at, record) => self.wait_for_retry(lane, at, *record, now),
            Outcome::DeadLetter(job) => {
                self.lanes[lane].state = LaneState::DeadLetter;
                self.dead.push_back(*job);
                true
            }
        };
        tell || turn_over || draining
    }

    fn wait_for_retry(&mut self, lane: usize, at: Instant, record: Inbound, now: Instant) -> bool {
        let head = self.lanes[lane].head;
        self.records[head] = Some(record);
        let behind = self.items[head].next;
        if behind != NONE && (self.seam.is(Mutant::RetryAtTail) || self.seam.is(Mutant::NegativeAcknowledge)) {
            let tail = std::mem::replace(&mut self.lanes[lane].tail, head);
            self.items[tail].next = head;
            self.items[head].next = NONE;
            self.lanes[lane].head = behind;
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

    /// The head is finished: it leaves the ledger and its lane, and the next of its key gets in line.
    fn finish_head(&mut self, lane: usize, now: Instant) -> bool {
        let Some(partition) = owner(&mut self.partitions, &self.lanes[lane]) else { return false };
        let item = &self.items[self.lanes[lane].head];
        let resumes = partition.finish(item.queued.ordinal, item.bytes, now, self.window);
        self.leave_head(lane) || resumes
    }

    /// A finished head leaves its lane. Returns whether it is time for a commit.
    fn leave_head(&mut self, lane: usize) -> bool {
        let item = self.items.remove(self.lanes[lane].head);
        self.finished += 1;
        if item.next == NONE {
            self.remove_lane(lane);
        } else {
            self.lanes[lane].head = item.next;
            self.make_ready(lane);
        }
        // Once: the session starts the count again when it looks.
        self.finished == self.commit_every
    }

    fn remove_lane(&mut self, lane: usize) {
        self.unindex(lane);
        self.lanes.remove(lane);
    }

    /// A lane without its entry in the index takes no more envelopes.
    fn unindex(&mut self, lane: usize) {
        if self.lanes[lane].key.is_some()
            && let Ok(entry) = self.index.find_entry(self.lanes[lane].hash, |&other| other == lane)
        {
            entry.remove();
        }
    }

    /// Forgets a record, unfinished; the number of the one behind it.
    fn drop_item(&mut self, item: usize) -> usize {
        self.records[item] = None;
        self.items.remove(item).next
    }

    /// Forgets a lane with everything queued in it, unfinished.
    fn drop_lane(&mut self, lane: usize) {
        let mut item = self.lanes[lane].head;
        while item != NONE {
            item = self.drop_item(item);
        }
        if let LaneState::Timed(at, count) = self.lanes[lane].state {
            self.timers.remove(&(at, count));
        }
        self.remove_lane(lane);
    }
}

/// Lets go of the lock and wakes workers for what was made ready under it.
fn wake_workers(mut state: MutexGuard<'_, State>) {
    let wakers = state.workers_to_wake();
    drop(state);
    wakers.into_iter().for_each(Waker::wake);
}

/// The partition of a lane, if it is still owned in the lane's epoch.
fn owner<'a>(partitions: &'a mut BTreeMap<u32, Partition>, lane: &Lane) -> Option<&'a mut Partition> {
    partitions.get_mut(&lane.partition).filter(|partition| partition.context.epoch == lane.epoch)
}
