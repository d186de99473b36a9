//! Run of a bare client of any backend: sends the plan's messages, and counts those that arrive.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use eventbus::{Error, ErrorKind, Key};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::compare::clock::Clock;
use crate::compare::figures::{Client, Run};
use crate::compare::run::wait_until_due;
use crate::compare::targets::Target;
use crate::compare::workloads::{Plan, Shape, Workload};
use crate::interrupt::Interrupt;

/// The most confirmations awaited at once: the default of the bus's JetStream backend.
pub(super) const IN_FLIGHT: usize = 4_096;
/// Time without a handled message after which a run is over.
const SILENCE: Duration = Duration::from_secs(30);
/// Messages that a publisher publishes before it lets others run.
const TURN: usize = 128;

pub(super) struct Race {
    pub(super) plan: Arc<Plan>,
    pub(super) workload: Workload,
    /// Partitions of each topic.
    pub(super) partitions: u32,
    #[cfg_attr(not(any(feature = "nats", feature = "kafka")), allow(dead_code))]
    pub(super) replicas: u32,
    clock: Clock,
    confirmed: AtomicUsize,
    failed: AtomicUsize,
    handled: AtomicUsize,
    duplicates: AtomicUsize,
    foreign: AtomicUsize,
    done: Notify,
}

/// Publisher of a bare client: sends one message of the plan, with many more in flight.
pub(super) trait Send1: Send + Sync + 'static {
    fn send(&self, race: &Arc<Race>, index: usize) -> impl Future<Output = ()> + Send;
}

impl Race {
    pub(super) fn new(target: &Target, workload: &Workload, plan: Arc<Plan>) -> Self {
        let spec = target.config.topic("any");
        Self {
            clock: Clock::new(plan.items.len()),
            partitions: workload.partitions.unwrap_or(spec.partitions),
            replicas: spec.replicas,
            workload: workload.clone(),
            confirmed: AtomicUsize::new(0),
            failed: AtomicUsize::new(0),
            handled: AtomicUsize::new(0),
            duplicates: AtomicUsize::new(0),
            foreign: AtomicUsize::new(0),
            done: Notify::new(),
            plan,
        }
    }

    /// Returns the name of a topic, which may also be a stream's.
    #[cfg(any(feature = "nats", feature = "kafka"))]
    pub(super) fn topic(&self, topic: u32) -> String {
        self.plan.topics[topic as usize].replace('.', "-")
    }

    /// Returns a message's partition, by the bus's rule for keys.
    pub(super) fn partition(&self, index: usize) -> u32 {
        let key = self.plan.items[index].envelope.key();
        key.map_or(index as u32 % self.partitions, |key: &Key| key.partition(self.partitions))
    }

    pub(super) fn confirmed(&self, index: usize) {
        self.clock.confirmed(index);
        self.confirmed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.tell_if_done();
    }

    /// Counts a message that arrived. `index` is what it says of itself.
    pub(super) fn arrived(&self, index: Option<usize>, partition: u32) {
        let Some(index) = index.filter(|index| *index < self.plan.items.len()) else {
            self.foreign.fetch_add(1, Ordering::Relaxed);
            return;
        };
        if self.clock.handled(index, partition, Instant::now()) {
            self.handled.fetch_add(1, Ordering::AcqRel);
            self.tell_if_done();
        } else {
            self.duplicates.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn settled(&self) -> usize {
        self.handled.load(Ordering::Acquire) + self.failed.load(Ordering::Acquire)
    }

    fn tell_if_done(&self) {
        if self.settled() >= self.plan.items.len() {
            self.done.notify_one();
        }
    }

    /// Publishes everything, and waits until all of it was read. Returns false after an interrupt.
    pub(super) async fn run(self: &Arc<Self>, sender: impl Send1, interrupt: &Interrupt) -> bool {
        tokio::select! {
            biased;
            () = interrupt.wait() => false,
            () = self.through(sender) => true,
        }
    }

    async fn through(self: &Arc<Self>, sender: impl Send1) {
        let sender = Arc::new(sender);
        let mut publishers = JoinSet::new();
        for publisher in 0..self.plan.publishers.len() {
            publishers.spawn(publish(self.clone(), sender.clone(), publisher));
        }
        // A publisher does not panic. If one did, its messages would show as missing.
        publishers.join_all().await;
        let mut before = 0;
        while self.settled() < self.plan.items.len() {
            let silent = tokio::time::timeout(SILENCE, self.done.notified()).await.is_err();
            if silent && self.settled() == before {
                return;
            }
            before = self.settled();
        }
        // A message may be read before its confirmation comes.
        let confirmed = async {
            while self.confirmed.load(Ordering::Acquire) + self.failed.load(Ordering::Acquire) < self.plan.items.len() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let _ = tokio::time::timeout(SILENCE, confirmed).await;
    }

    pub(super) fn judge(&self, target: &Target) -> Run {
        let load = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
        let lost = |index: &usize| self.clock.was_confirmed(*index) && !self.clock.was_handled(*index);
        let mut run = Run {
            workload: self.workload.name.clone(),
            backend: target.name.clone(),
            client: Client::Bare,
            messages: self.plan.items.len(),
            confirmed: load(&self.confirmed),
            handled: load(&self.handled),
            duplicates: load(&self.duplicates),
            losses: (0..self.plan.items.len()).filter(lost).count(),
            failed_publishes: load(&self.failed),
            foreign: load(&self.foreign),
            check: "counted: O5 O6".to_owned(),
            ..Run::default()
        };
        self.clock.tell(&mut run, &self.plan, None, self.clock.handling(None, |_| true));
        run
    }
}

async fn publish<S: Send1>(race: Arc<Race>, sender: Arc<S>, publisher: usize) {
    let start = Instant::now();
    for (turn, index) in (1..).zip(&race.plan.publishers[publisher]) {
        let due = match race.workload.shape {
            Shape::Paced(every) => wait_until_due(start + every * (turn - 1)).await,
            _ => None,
        };
        race.clock.offered(*index as usize, due);
        sender.send(&race, *index as usize).await;
        if (turn as usize).is_multiple_of(TURN) {
            tokio::task::yield_now().await;
        }
    }
}

#[cfg_attr(not(any(feature = "nats", feature = "kafka")), allow(dead_code))]
pub(super) fn unavailable(doing: &str, error: impl Display) -> Error {
    Error::new(ErrorKind::Unavailable, format!("the bare client, {doing}: {error}"))
}
