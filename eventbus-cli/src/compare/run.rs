//! Run of one workload on one bus.
//!
//! Each run has its own topics, free of what an earlier run left, and removes them however it ends.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use conformance_tests::history::Kind;
use conformance_tests::oracle::{Expectations, Oracle, Rule};
use eventbus::config::BackendConfig;
use eventbus::{
    Confirmation, Delivery, Envelope, EventBus, Handler, HandlerError, Result, Storage, Subscribe, Subscription,
};
use tokio::task::JoinSet;

use super::check::{Check, GROUP, ORACLE_MESSAGES};
use super::figures::{Client, Run};
use super::resources::Watch;
use super::targets::Target;
use super::workloads::{Plan, Shape, Work, Workload, WorkloadSet};
use crate::interrupt::Interrupt;

/// The most confirmations that a publisher holds before it awaits the oldest.
const UNREAD: usize = 1_024;
/// Messages that a publisher publishes before it lets other tasks run.
const TURN: usize = 128;
/// Time without a handled message after which a run is over, and the missing messages are lost.
const SILENCE: Duration = Duration::from_secs(30);
/// How long the group may take until every partition has a member.
const JOINING: Duration = Duration::from_secs(30);
/// How long an interrupted run may take to end.
const DRAIN: Duration = Duration::from_secs(10);

/// Runs a workload once. After an interrupt it drains and returns `None`.
///
/// # Errors
/// What the bus says if it cannot be used at all. Faults in the run are part of its result.
pub(crate) async fn run(
    target: &Target,
    workload: &Workload,
    set: &WorkloadSet,
    interrupt: &Interrupt,
) -> Result<Option<Run>> {
    let Work::Stuck(_) = workload.work else {
        return play(target, workload, set, interrupt).await;
    };
    let free = Workload { work: Work::None, ..workload.clone() };
    let Some(without) = play(target, &free, set, interrupt).await? else { return Ok(None) };
    let Some(mut with) = play(target, workload, set, interrupt).await? else { return Ok(None) };
    with.compared_to("of the time without the stuck key", with.seconds / without.seconds);
    Ok(Some(with))
}

async fn play(target: &Target, workload: &Workload, set: &WorkloadSet, interrupt: &Interrupt) -> Result<Option<Run>> {
    let mut stage = Stage::set(target, workload, set).await?;
    let played = stage.play(interrupt).await;
    let removed = stage.remove().await;
    let run = played?;
    removed?;
    Ok(run)
}

/// Stage of a run: everything that it needs before its clock starts.
struct Stage {
    target: Target,
    workload: Workload,
    /// One connection per member; the first one also publishes.
    buses: Vec<Arc<dyn EventBus>>,
    check: Arc<Check>,
    partitions: usize,
    note: Option<String>,
}

impl Stage {
    async fn set(target: &Target, workload: &Workload, set: &WorkloadSet) -> Result<Self> {
        let plan = set.plan(workload)?;
        let mut config = target.config.clone();
        if let BackendConfig::Memory { name: name @ None } = &mut config.backend {
            // Members with their own connections see the same log only if it has a name.
            *name = (workload.members > 1).then(|| plan.topics[0].to_string());
        }
        // The stuck key is the first one. The run without a stuck key ignores that key, too.
        let ignored = workload.has_stuck_key.then_some(0);
        let recorded = plan.items.len() <= ORACLE_MESSAGES && ignored.is_none();
        let check = Arc::new(Check::new(plan, ignored, recorded));
        let mut buses = Vec::new();
        for _ in 0..workload.members {
            let hook = check.clone();
            let connecting =
                config.connect_with(|bus| bus.hook(move |event: &eventbus::observe::BusEvent<'_>| hook.told(event)));
            buses.push(connecting.await?);
        }
        Ok(Self { target: target.clone(), workload: workload.clone(), buses, check, partitions: 0, note: None })
    }

    fn bus(&self) -> &Arc<dyn EventBus> {
        &self.buses[0]
    }

    /// Returns the topic of the first message, which is not part of the run; `None` in memory.
    fn first_topic(&self) -> Option<String> {
        (!self.target.is_memory()).then(|| format!("{}.first", self.check.plan.topics[0]))
    }

    /// Publishes one message before the run. Some clients negotiate with the broker at their first publish, Kafka's for
    /// half a second: that is not part of the measurement.
    async fn publish_first(&self) -> Result<()> {
        let Some(topic) = self.first_topic() else { return Ok(()) };
        self.bus().ensure_topic(&self.target.config.topic(&*topic).partitions(1)).await?;
        let first = Envelope::builder("First", "/compare").id("first").key("first").build()?;
        self.bus().publish(&topic, first).await?.await.map(drop)
    }

    async fn make_topics(&mut self) -> Result<()> {
        let in_memory = self.workload.in_memory && self.bus().capabilities().memory_storage;
        if self.workload.in_memory && !in_memory {
            self.note = Some("on disk: this backend has no storage in memory".to_owned());
        }
        for topic in &self.check.plan.topics {
            let mut spec = self.target.config.topic(&**topic);
            if let Some(partitions) = self.workload.partitions {
                spec = spec.partitions(partitions);
            }
            if in_memory {
                spec = spec.storage(Storage::Memory);
            }
            self.partitions += self.bus().ensure_topic(&spec).await?.spec.partitions as usize;
        }
        Ok(())
    }

    async fn remove(self) -> Result<()> {
        let mut removed = Ok(());
        for topic in &self.check.plan.topics {
            removed = removed.and(self.bus().delete_topic(topic).await);
        }
        if let Some(topic) = self.first_topic() {
            removed = removed.and(self.bus().delete_topic(&topic).await);
        }
        for bus in &self.buses {
            removed = removed.and(bus.close(DRAIN).await);
        }
        removed
    }

    async fn play(&mut self, interrupt: &Interrupt) -> Result<Option<Run>> {
        self.make_topics().await?;
        self.publish_first().await?;
        let watch = Watch::start();
        let played = tokio::select! {
            biased;
            () = interrupt.wait() => return Ok(None),
            played = self.measure() => played?,
        };
        let (subscriptions, began) = played;
        let used = watch.stop();
        // The run does not wait for the stuck key's handler.
        let is_stuck = matches!(self.workload.work, Work::Stuck(_));
        let deadline = if is_stuck { Duration::ZERO } else { DRAIN };
        for subscription in subscriptions {
            let closed = subscription.drain(deadline).await;
            if !is_stuck {
                closed?;
            }
        }
        let mut run = self.judge(began);
        used.told_by(&mut run);
        if self.check.recorder.is_some() {
            self.read_committed().await?;
            self.ask_the_oracle(&mut run);
        }
        Ok(Some(run))
    }

    /// Publishes and handles. Returns the subscriptions, and when the clock started, if not at the first publish.
    async fn measure(&self) -> Result<(Vec<Subscription>, Option<u64>)> {
        if self.workload.shape == Shape::Prefilled {
            self.publish().await;
            let began = self.check.clock.now();
            let subscriptions = self.subscribe().await?;
            self.wait().await;
            return Ok((subscriptions, Some(began)));
        }
        let subscriptions = self.subscribe().await?;
        self.wait_for_members().await;
        self.publish().await;
        self.wait().await;
        Ok((subscriptions, None))
    }

    async fn subscribe(&self) -> Result<Vec<Subscription>> {
        let mut subscriptions = Vec::new();
        for (number, bus) in self.buses.iter().enumerate() {
            for topic in &self.check.plan.topics {
                let member = format!("compare-{number}").as_str().into();
                self.check.record(Kind::MemberJoined { group: GROUP.into(), member });
                let mut options = Subscribe::to(&**topic).group(GROUP);
                if let Some(handlers) = self.workload.handlers {
                    options = options.concurrency(handlers);
                }
                let handler = Measured { check: self.check.clone(), work: self.workload.work };
                subscriptions.push(bus.subscribe(options, Arc::new(handler)).await?);
            }
        }
        Ok(subscriptions)
    }

    /// Waits until every partition has a member. On some brokers joining takes seconds, which are not part of the
    /// measurement. The wait is limited: if a member comes late, the figures show it.
    async fn wait_for_members(&self) {
        let topics = self.check.plan.topics.len();
        let members = (self.workload.members * topics).min(self.partitions);
        let joined = async {
            while !self.check.is_claimed(self.partitions, members) {
                self.check.claims.notified().await;
            }
        };
        let _ = tokio::time::timeout(JOINING, joined).await;
    }

    /// Runs all publishers to their ends. The hook counts refused publishes.
    async fn publish(&self) {
        let every = match self.workload.shape {
            Shape::Paced(every) => Some(every),
            _ => None,
        };
        let mut publishers = JoinSet::new();
        for publisher in 0..self.check.plan.publishers.len() {
            publishers.spawn(publish(self.bus().clone(), self.check.clone(), publisher, every));
        }
        // A publisher does not panic. If one did, its messages would show as missing.
        publishers.join_all().await;
    }

    async fn wait(&self) {
        let mut before = 0;
        while !self.check.is_done() {
            let silent = tokio::time::timeout(SILENCE, self.check.done.notified()).await.is_err();
            let handled = self.check.handled();
            if silent && handled == before {
                return;
            }
            before = handled;
        }
    }

    fn judge(&self, began: Option<u64>) -> Run {
        let (check, workload) = (&self.check, &self.workload);
        // Each topic has a subscription per member, each with so many handlers.
        let handlers = workload.handlers() * check.plan.topics.len() * workload.members;
        let times = check.times(began, handlers);
        let load = |counter: &std::sync::atomic::AtomicUsize| counter.load(Ordering::Relaxed);
        let found = &check.found;
        let mut run = Run {
            workload: workload.name.clone(),
            backend: self.target.name.clone(),
            client: Client::Bus,
            messages: check.plan.items.len(),
            confirmed: times.confirmed,
            handled: times.handled,
            order_violations: load(&found.order) + load(&found.overlaps),
            duplicates: load(&found.duplicates),
            losses: times.losses,
            failed_publishes: times.failed,
            foreign: load(&found.foreign),
            check: "inline: O1 O2 O4 O5 O6".to_owned(),
            note: self.note.clone(),
            ..Run::default()
        };
        check.clock.tell(&mut run, &check.plan, began, times.handling);
        if let Work::Random(_) | Work::Fixed(_) = workload.work {
            run.compared_to("of the ideal time", times.handling.as_secs_f64() / times.ideal.as_secs_f64());
        }
        run
    }

    /// Records the positions that the group has committed, as the bus tells them.
    async fn read_committed(&self) -> Result<()> {
        for topic in &self.check.plan.topics {
            for partition in self.bus().describe_group(topic, GROUP).await?.partitions {
                if let Some(committed) = partition.committed {
                    self.check.record(Kind::CommittedRead {
                        topic: topic.clone(),
                        group: GROUP.into(),
                        partition: partition.partition,
                        position: committed.next.get(),
                    });
                }
            }
        }
        Ok(())
    }

    fn ask_the_oracle(&self, run: &mut Run) {
        let Some(recorder) = &self.check.recorder else { return };
        let handlers = u32::try_from(self.workload.handlers()).unwrap_or(u32::MAX);
        let topics = self.check.plan.topics.iter();
        let expect =
            topics.fold(Expectations::new(handlers).quiet(), |expect, topic| expect.group(topic.clone(), GROUP));
        let verdict = Oracle::judge(&recorder.take(), &expect);
        run.check = "oracle: O1 to O8".to_owned();
        let ordering = [Rule::O1, Rule::O2, Rule::O3, Rule::O4, Rule::O7];
        let order: usize = ordering.into_iter().map(|rule| verdict.count(rule)).sum();
        run.order_violations = run.order_violations.max(order);
        run.duplicates = run.duplicates.max(verdict.counts.repeats);
        run.losses = run.losses.max(verdict.count(Rule::O5));
        run.foreign = run.foreign.max(verdict.count(Rule::O6));
        run.violations = verdict.violations.iter().map(ToString::to_string).collect();
    }
}

/// Runs one publisher: it publishes its messages in order, with many unconfirmed.
async fn publish(bus: Arc<dyn EventBus>, check: Arc<Check>, publisher: usize, every: Option<Duration>) {
    let plan: Arc<Plan> = check.plan.clone();
    let mut unread: std::collections::VecDeque<Confirmation> = std::collections::VecDeque::new();
    let start = Instant::now();
    for (turn, index) in (1..).zip(&plan.publishers[publisher]) {
        let due = match every {
            Some(every) => wait_until_due(start + every * (turn - 1)).await,
            None => None,
        };
        let item = &plan.items[*index as usize];
        let envelope = item.envelope.clone();
        check.offered(*index, due);
        // The hook is told of failures.
        if let Ok(confirmation) = bus.publish(&plan.topics[item.topic as usize], envelope).await {
            unread.push_back(confirmation);
        }
        if unread.len() > UNREAD
            && let Some(oldest) = unread.pop_front()
        {
            let _ = oldest.await;
        }
        if (turn as usize).is_multiple_of(TURN) {
            tokio::task::yield_now().await;
        }
    }
    for confirmation in unread {
        let _ = confirmation.await;
    }
}

/// Waits until a message is due. If that time has passed, because the bus held the publisher up, it is returned, and
/// latency counts from it. A timer that fires late is not the bus's fault.
pub(crate) async fn wait_until_due(due: Instant) -> Option<Instant> {
    if Instant::now() >= due {
        return Some(due);
    }
    tokio::time::sleep_until(due.into()).await;
    None
}

struct Measured {
    check: Arc<Check>,
    work: Work,
}

#[async_trait]
impl Handler for Measured {
    async fn handle(&self, delivery: Delivery) -> Result<(), HandlerError> {
        let Some(running) = self.check.start(&delivery) else {
            return Ok(());
        };
        let pause = match self.work {
            Work::None => None,
            Work::Fixed(pause) => Some(pause),
            Work::Random(most) => Some(most.mul_f64(rand::random())),
            Work::Stuck(pause) => (running.key() == Some(0)).then_some(pause),
        };
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
        running.end();
        Ok(())
    }
}
