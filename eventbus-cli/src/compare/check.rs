//! Check of order, loss and duplicates, made while the clock runs.
//!
//! There are two checks. Every run has the *inline* check: two atomics per key hold the last number handled and whether
//! a handler of the key runs. They are compared at every start (O1, O2, O4, O6), and missing messages are counted at
//! the end (O5). Runs of up to [`ORACLE_MESSAGES`] messages are also recorded call by call and given to the conformance
//! suite's oracle, rules O1 to O8. Recording costs several hundred nanoseconds a message: a run of a million would
//! measure that instead of the bus. The output says which check a run had.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use conformance_tests::history::{
    CallIds, EndOutcome, HandlerCall, Kind, MemoryRecorder, Name, PublishOutcome, Recorder, SessionCause, Start,
    digest, monotonic_clock,
};
use eventbus::observe::{BusEvent, OwnershipChange};
use eventbus::{Delivery, ErrorKind, Receipt, Topic};
use tokio::sync::Notify;

use super::clock::Clock;
use super::workloads::Plan;

/// The most messages of a run whose history is recorded.
pub(crate) const ORACLE_MESSAGES: usize = 50_000;

/// Counts of what the inline check found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Handlers that started before the number before theirs was finished, or after a later one (O1, O2).
    pub(crate) order: AtomicUsize,
    /// Handlers that started while another one of their key ran (O4).
    pub(crate) overlaps: AtomicUsize,
    /// Deliveries of messages that were never offered, or whose key or bytes differ (O6).
    pub(crate) foreign: AtomicUsize,
    /// Handlings of a message after its first.
    pub(crate) duplicates: AtomicUsize,
}

/// Progress of one key.
#[derive(Debug, Default)]
struct Line {
    last: AtomicU32,
    busy: AtomicBool,
    /// Nanoseconds spent in the key's handlers.
    spent: AtomicU64,
}

/// Check and clock of a run, shared by its publishers, its handlers and the bus's hook.
#[derive(Debug)]
pub(crate) struct Check {
    pub(crate) plan: Arc<Plan>,
    pub(crate) found: Found,
    pub(crate) clock: Clock,
    lines: Vec<Line>,
    /// Nanoseconds spent in all handlers, and in the longest one without a key.
    spent: AtomicU64,
    longest: AtomicU64,
    confirmed: AtomicUsize,
    failed: AtomicUsize,
    handled: AtomicUsize,
    /// Key whose messages the run does not wait for.
    ignored: Option<u32>,
    /// Messages that the run still waits for.
    awaited: AtomicUsize,
    pub(crate) done: Notify,
    /// Partitions that members have claimed, each with its last claimant.
    claimed: Mutex<HashMap<(Topic, u32), Name>>,
    pub(crate) claims: Notify,
    pub(crate) recorder: Option<Arc<MemoryRecorder>>,
    calls: CallIds,
}

impl Check {
    pub(crate) fn new(plan: Arc<Plan>, ignored: Option<u32>, recorded: bool) -> Self {
        let awaited = plan.items.iter().filter(|item| ignored.is_none() || item.key != ignored).count();
        Self {
            found: Found::default(),
            clock: Clock::new(plan.items.len()),
            lines: plan.keys.iter().map(|_| Line::default()).collect(),
            spent: AtomicU64::new(0),
            longest: AtomicU64::new(0),
            confirmed: AtomicUsize::new(0),
            failed: AtomicUsize::new(0),
            handled: AtomicUsize::new(0),
            ignored,
            awaited: AtomicUsize::new(awaited),
            done: Notify::new(),
            claimed: Mutex::default(),
            claims: Notify::new(),
            recorder: recorded.then(|| Arc::new(MemoryRecorder::new(monotonic_clock()))),
            calls: CallIds::new(),
            plan,
        }
    }

    pub(crate) fn record(&self, kind: Kind) {
        if let Some(recorder) = &self.recorder {
            recorder.record(0, kind);
        }
    }

    /// Records a message just before its publish. `due` is its time in the timetable, if the publisher is behind that.
    pub(crate) fn offered(&self, index: u32, due: Option<Instant>) {
        if self.recorder.is_some() {
            let item = &self.plan.items[index as usize];
            self.record(Kind::Offered {
                call: index.into(),
                bus: 0,
                topic: self.plan.topics[item.topic as usize].clone(),
                key: self.key(item.key),
                number: item.number.into(),
                id: item.envelope.id().into(),
                digest: digest(item.envelope.payload()),
            });
        }
        self.clock.offered(index as usize, due);
    }

    fn key(&self, key: Option<u32>) -> conformance_tests::history::Key {
        key.map(|key| self.plan.keys[key as usize].clone()).unwrap_or_default()
    }

    pub(crate) fn told(&self, event: &BusEvent<'_>) {
        match event {
            BusEvent::Published { envelope, result, .. } => {
                if let Some(index) = self.plan.index_of(envelope) {
                    self.published(index, result);
                }
            }
            BusEvent::Ownership { at, epoch, change: OwnershipChange::Claimed } => {
                self.record(Kind::SessionStart {
                    topic: at.topic.as_str().into(),
                    group: at.group.as_str().into(),
                    partition: at.partition,
                    member: at.member.clone(),
                    epoch: *epoch,
                    cause: SessionCause::Assigned,
                    from: None,
                });
                self.claimed().insert((at.topic.clone(), at.partition), at.member.clone());
                self.claims.notify_one();
            }
            _ => {}
        }
    }

    fn claimed(&self) -> MutexGuard<'_, HashMap<(Topic, u32), Name>> {
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether at least so many partitions are claimed, by at least so many members.
    pub(crate) fn is_claimed(&self, partitions: usize, members: usize) -> bool {
        let claimed = self.claimed();
        claimed.len() >= partitions && claimed.values().collect::<HashSet<_>>().len() >= members
    }

    /// Records the end of a publish. The time is taken here, when the bus knows the answer: otherwise a caller that
    /// awaits confirmations in bulk would measure its own reading, too.
    fn published(&self, index: usize, result: &Result<Receipt, eventbus::Error>) {
        let outcome = match result {
            Ok(receipt) => {
                self.clock.confirmed(index);
                self.confirmed.fetch_add(1, Ordering::Relaxed);
                let (partition, position) = (receipt.partition, Some(receipt.position.get()));
                PublishOutcome::Confirmed { partition, position, duplicate: receipt.duplicate }
            }
            Err(error) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                // The message will not come, so the run must not wait for it.
                self.settle(self.plan.items[index].key);
                match error.kind() {
                    ErrorKind::Unknown => PublishOutcome::Unknown,
                    kind => PublishOutcome::Refused { class: kind.as_str().into(), root: None },
                }
            }
        };
        self.record(Kind::Published { call: index as u64, outcome });
    }

    fn settle(&self, key: Option<u32>) {
        if (self.ignored.is_none() || key != self.ignored) && self.awaited.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.done.notify_one();
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.awaited.load(Ordering::Acquire) == 0
    }

    /// Records the start of a handler; `None` if the delivery is foreign to the plan.
    pub(crate) fn start(self: &Arc<Self>, delivery: &Delivery) -> Option<Running> {
        let envelope = delivery.envelope();
        let index = self.plan.index_of(envelope).filter(|index| {
            let item = &self.plan.items[*index];
            item.envelope.key() == envelope.key() && item.envelope.payload() == envelope.payload()
        });
        let Some(index) = index else {
            self.found.foreign.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        let call = self.recorder.clone().map(|recorder| HandlerCall::begin(recorder, 0, self.started(index, delivery)));
        let item = &self.plan.items[index];
        if let Some(key) = item.key {
            let line = &self.lines[key as usize];
            if line.busy.swap(true, Ordering::AcqRel) {
                self.found.overlaps.fetch_add(1, Ordering::Relaxed);
            }
            if line.last.load(Ordering::Acquire) + 1 != item.number {
                self.found.order.fetch_add(1, Ordering::Relaxed);
            }
        }
        let partition = delivery.partition();
        Some(Running { check: self.clone(), index, partition, call, began: Instant::now() })
    }

    fn started(&self, index: usize, delivery: &Delivery) -> Start {
        let item = &self.plan.items[index];
        Start {
            call: self.calls.next(),
            topic: self.plan.topics[item.topic as usize].clone(),
            group: GROUP.into(),
            key: self.key(item.key),
            number: item.number.into(),
            digest: digest(delivery.envelope().payload()),
            attempt: delivery.attempt(),
            member: Name::from(delivery.member()),
            epoch: delivery.epoch(),
            partition: delivery.partition(),
            position: delivery.position().get(),
            replayed: delivery.is_replayed(),
            checked: None,
        }
    }
}

pub(crate) const GROUP: &str = "compare";

#[derive(Debug)]
pub(crate) struct Running {
    check: Arc<Check>,
    index: usize,
    partition: u32,
    call: Option<HandlerCall>,
    began: Instant,
}

impl Running {
    pub(crate) fn key(&self) -> Option<u32> {
        self.check.plan.items[self.index].key
    }

    /// Records that the handler succeeds.
    pub(crate) fn end(mut self) {
        let check = &self.check;
        let now = Instant::now();
        let spent = u64::try_from((now - self.began).as_nanos()).unwrap_or(u64::MAX);
        check.spent.fetch_add(spent, Ordering::Relaxed);
        let item = &check.plan.items[self.index];
        match item.key {
            None => {
                check.longest.fetch_max(spent, Ordering::Relaxed);
            }
            Some(key) => {
                let line = &check.lines[key as usize];
                line.spent.fetch_add(spent, Ordering::Relaxed);
                line.last.store(item.number, Ordering::Release);
                line.busy.store(false, Ordering::Release);
            }
        }
        if let Some(call) = self.call.take() {
            call.end(EndOutcome::Ok);
        }
        if check.clock.handled(self.index, self.partition, now) {
            check.handled.fetch_add(1, Ordering::Relaxed);
            check.settle(item.key);
        } else {
            check.found.duplicates.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Times and counts of a run.
#[derive(Debug)]
pub(crate) struct Times {
    pub(crate) confirmed: usize,
    pub(crate) failed: usize,
    pub(crate) handled: usize,
    /// From the first publish to the last handled message; with a log that was filled before, from the subscription on.
    pub(crate) handling: Duration,
    /// Ideal time by the measured handler times: max(longest key's sum, total / handlers).
    pub(crate) ideal: Duration,
    pub(crate) losses: usize,
}

impl Check {
    /// Sums up the run. `began` is when the clock started, if not at the first publish.
    pub(crate) fn times(&self, began: Option<u64>, handlers: usize) -> Times {
        let waited = |index: usize| self.ignored.is_none() || self.plan.items[index].key != self.ignored;
        let longest = self.lines.iter().map(|line| line.spent.load(Ordering::Relaxed)).max().unwrap_or_default();
        let longest = longest.max(self.longest.load(Ordering::Relaxed));
        let shared = self.spent.load(Ordering::Relaxed) / handlers.max(1) as u64;
        let clock = &self.clock;
        let lost = |index: &usize| clock.was_confirmed(*index) && waited(*index) && !clock.was_handled(*index);
        Times {
            confirmed: self.confirmed.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            handled: self.handled(),
            handling: clock.handling(began, waited),
            ideal: Duration::from_nanos(longest.max(shared)),
            losses: (0..self.plan.items.len()).filter(lost).count(),
        }
    }

    pub(crate) fn handled(&self) -> usize {
        self.handled.load(Ordering::Relaxed)
    }
}
