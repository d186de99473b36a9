//! The same workloads on a backend's own client, so that a comparison says what the bus costs.
//!
//! A bare client publishes as many at once as it takes and reads without a group, without progress, and without a promise
//! that any key's order survives a failure: it is the limit, not an alternative. Records have the attributes and the
//! headers that the bus writes.

#[cfg(feature = "kafka")]
mod kafka;
mod memory;
#[cfg(feature = "nats")]
mod nats;

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use eventbus::config::BackendConfig;
use eventbus::{Error, ErrorKind, Key, Result};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::clock::Clock;
use super::figures::{Client, Run};
use super::resources::Watch;
use super::run::wait_until_due;
use super::targets::Target;
use super::workloads::{Job, Plan, Shape, Workload};
use crate::interrupt::Interrupt;

/// Confirmations that are on their way at once: as many as the bus lets be.
const IN_FLIGHT: usize = 4_096;
/// A run in which nothing is handled for so long is over.
const SILENCE: Duration = Duration::from_secs(30);
/// Messages that a publisher publishes before it lets others run.
const TURN: usize = 128;

/// Runs a workload once. Interrupted, it gives nothing; what it made on the broker is removed however it ends.
///
/// # Errors
/// `Unsupported` where there is no bare client for the backend; what the broker says where it cannot be used at all.
pub(crate) async fn run(target: &Target, workload: &Workload, job: &Job, interrupt: &Interrupt) -> Result<Option<Run>> {
    let plan = job.plan(workload)?;
    let spec = target.config.topic("any");
    let race = Arc::new(Race {
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
    });
    let watch = Watch::start();
    let finished = match &target.config.backend {
        BackendConfig::Memory { .. } => memory::run(&race, interrupt).await?,
        #[cfg(feature = "nats")]
        BackendConfig::Nats(section) => nats::run(&race, section, interrupt).await?,
        #[cfg(feature = "kafka")]
        BackendConfig::Kafka(section) => kafka::run(&race, section, interrupt).await?,
        _ => return Err(Error::new(ErrorKind::Unsupported, "this program has no bare client for it: --no-bare")),
    };
    if !finished {
        return Ok(None);
    }
    let mut run = race.judge(target);
    watch.stop().told_by(&mut run);
    Ok(Some(run))
}

/// Whether this program has a bare client for it.
pub(crate) fn is_there_for(target: &Target) -> bool {
    match &target.config.backend {
        BackendConfig::Memory { .. } => true,
        #[cfg(feature = "nats")]
        BackendConfig::Nats(_) => true,
        #[cfg(feature = "kafka")]
        BackendConfig::Kafka(_) => true,
        _ => false,
    }
}

/// What a target's broker says of its release.
pub(crate) async fn release(target: &Target) -> String {
    match &target.config.backend {
        #[cfg(feature = "nats")]
        BackendConfig::Nats(section) => nats::release(section).await.unwrap_or_else(|error| error.to_string()),
        #[cfg(feature = "kafka")]
        BackendConfig::Kafka(section) => kafka::release(section).await.unwrap_or_else(|error| error.to_string()),
        other => other.scheme().to_owned(),
    }
}

/// A run of a bare client.
struct Race {
    plan: Arc<Plan>,
    workload: Workload,
    /// Of each topic.
    partitions: u32,
    #[cfg_attr(not(any(feature = "nats", feature = "kafka")), allow(dead_code))]
    replicas: u32,
    clock: Clock,
    confirmed: AtomicUsize,
    failed: AtomicUsize,
    handled: AtomicUsize,
    duplicates: AtomicUsize,
    foreign: AtomicUsize,
    done: Notify,
}

/// Sends one message of the plan, with room for many more on their way.
trait Send1: Send + Sync + 'static {
    fn send(&self, race: &Arc<Race>, index: usize) -> impl Future<Output = ()> + Send;
}

impl Race {
    /// A topic's name, which is also that of a stream.
    #[cfg(any(feature = "nats", feature = "kafka"))]
    fn topic(&self, topic: u32) -> String {
        self.plan.topics[topic as usize].replace('.', "-")
    }

    /// Where a message belongs, by the rule of the bus.
    fn partition(&self, index: usize) -> u32 {
        let key = self.plan.items[index].envelope.key();
        key.map_or(index as u32 % self.partitions, |key: &Key| key.partition(self.partitions))
    }

    fn confirmed(&self, index: usize) {
        self.clock.confirmed(index);
        self.confirmed.fetch_add(1, Ordering::Relaxed);
    }

    fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.tell_if_done();
    }

    /// A message arrived; `index` is what it says of itself.
    fn arrived(&self, index: Option<usize>, partition: u32) {
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

    /// Publishes all, and waits until all was read. Whether it was not interrupted.
    async fn run(self: &Arc<Self>, sender: impl Send1, interrupt: &Interrupt) -> bool {
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
        // A publisher does not panic; were it to, its messages would show as missing.
        publishers.join_all().await;
        let mut before = 0;
        while self.settled() < self.plan.items.len() {
            let silent = tokio::time::timeout(SILENCE, self.done.notified()).await.is_err();
            if silent && self.settled() == before {
                return;
            }
            before = self.settled();
        }
        // What was read may be ahead of its confirmation.
        let confirmed = async {
            while self.confirmed.load(Ordering::Acquire) + self.failed.load(Ordering::Acquire) < self.plan.items.len() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let _ = tokio::time::timeout(SILENCE, confirmed).await;
    }

    fn judge(&self, target: &Target) -> Run {
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

/// One publisher, as the bus has it.
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

/// What a broker's client says.
#[cfg_attr(not(any(feature = "nats", feature = "kafka")), allow(dead_code))]
fn unavailable(doing: &str, error: impl Display) -> Error {
    Error::new(ErrorKind::Unavailable, format!("the bare client, {doing}: {error}"))
}
