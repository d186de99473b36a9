//! One run of one workload on one bus.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use conformance_tests::history::Kind;
use conformance_tests::oracle::{Expectations, Oracle, Rule};
use eventbus::{
    Confirmation, Delivery, Envelope, EventBus, Handler, HandlerError, Result, Storage, Subscribe, Subscription,
};
use rand::Rng as _;
use tokio::task::JoinSet;

use super::check::{Check, GROUP, ORACLE_MESSAGES};
use super::latency::Latency;
use super::report::Run;
use super::resources::Watch;
use super::targets::Target;
use super::workloads::{Plan, Shape, Work, Workload};
use crate::interrupt::Interrupt;

/// Confirmations that a publisher holds before it awaits the oldest.
const UNREAD: usize = 1_024;
/// Messages that a publisher publishes before it lets others run.
const TURN: usize = 128;
/// A run in which nothing is handled for so long is over, and what is missing is lost.
const SILENCE: Duration = Duration::from_secs(30);
/// How long an interrupted run may take to end.
const DRAIN: Duration = Duration::from_secs(10);

/// What a run is of.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Subject<'a> {
    /// The workload's own messages.
    Fixed,
    /// The user's events.
    Events(&'a [Envelope]),
}

/// Runs a workload once. Interrupted, it drains and gives nothing.
///
/// # Errors
/// What the bus says where it cannot be used at all. What goes wrong in the run is part of what it gives.
pub(crate) async fn run(
    target: &Target,
    workload: &Workload,
    subject: Subject<'_>,
    interrupt: &Interrupt,
) -> Result<Option<Run>> {
    let Work::Stuck(_) = workload.work else {
        return Stage::set(target, workload, subject).await?.play(interrupt).await;
    };
    let free = Workload { work: Work::None, ..workload.clone() };
    let Some(without) = Stage::set(target, &free, subject).await?.play(interrupt).await? else { return Ok(None) };
    let Some(mut with) = Stage::set(target, workload, subject).await?.play(interrupt).await? else { return Ok(None) };
    with.compared_to("of the time without the stuck key", with.seconds / without.seconds);
    Ok(Some(with))
}

/// All that a run needs, before its clock starts.
struct Stage {
    target: Target,
    workload: Workload,
    bus: Arc<dyn EventBus>,
    check: Arc<Check>,
    watch: Watch,
}

impl Stage {
    async fn set(target: &Target, workload: &Workload, subject: Subject<'_>) -> Result<Self> {
        // Each run has topics of its own, so that nothing is left of the one before.
        let prefix = format!("compare.{}.{:08x}", workload.name, rand::rng().random::<u32>());
        let plan = Arc::new(match subject {
            Subject::Fixed => Plan::of(workload, &prefix)?,
            Subject::Events(events) => Plan::of_events(events, &prefix)?,
        });
        // The stuck key is the first; the same run without it does not wait for it either.
        let ignored = (workload.name == STUCK).then_some(0);
        let recorded = plan.items.len() <= ORACLE_MESSAGES && ignored.is_none();
        let check = Arc::new(Check::new(plan, ignored, recorded));
        let hook = check.clone();
        let bus = eventbus::connect_customized(&target.config, |bus| {
            bus.hook(move |event: &eventbus::BusEvent<'_>| hook.told(event))
        })
        .await?;
        for topic in &check.plan.topics {
            let mut spec = target.config.topic(&**topic);
            if let Some(partitions) = workload.partitions {
                spec = spec.partitions(partitions);
            }
            if workload.in_memory {
                spec = spec.storage(Storage::Memory);
            }
            bus.ensure_topic(&spec).await?;
        }
        Ok(Self { target: target.clone(), workload: workload.clone(), bus, check, watch: Watch::start() })
    }

    async fn play(self, interrupt: &Interrupt) -> Result<Option<Run>> {
        let played = tokio::select! {
            biased;
            () = interrupt.wait() => None,
            played = self.measure() => Some(played?),
        };
        let Some((subscriptions, began)) = played else {
            self.bus.close(DRAIN).await?;
            return Ok(None);
        };
        let used = self.watch.stop();
        // The stuck key's handler is not waited for.
        let deadline = if matches!(self.workload.work, Work::Stuck(_)) { Duration::ZERO } else { DRAIN };
        for subscription in subscriptions {
            let closed = subscription.close(deadline).await;
            if !matches!(self.workload.work, Work::Stuck(_)) {
                closed?;
            }
        }
        let mut run = self.judge(began);
        run.cpu_us_per_message = used.cpu.as_secs_f64() * 1e6 / run.messages as f64;
        run.start_memory_bytes = used.memory_at_start;
        run.peak_memory_bytes = used.memory_at_peak;
        run.peak_tasks = used.tasks;
        if self.check.recorder.is_some() {
            self.read_committed().await?;
            self.ask_the_oracle(&mut run);
        }
        for topic in &self.check.plan.topics {
            self.bus.delete_topic(topic).await?;
        }
        self.bus.close(DRAIN).await?;
        Ok(Some(run))
    }

    /// Publishes and handles; gives the subscriptions, and when the clock started where not with the first publish.
    async fn measure(&self) -> Result<(Vec<Subscription>, Option<u64>)> {
        if self.workload.shape == Shape::Prefilled {
            self.publish().await?;
            let began = self.check.now();
            let subscriptions = self.subscribe().await?;
            self.wait().await;
            return Ok((subscriptions, Some(began)));
        }
        let subscriptions = self.subscribe().await?;
        self.publish().await?;
        self.wait().await;
        Ok((subscriptions, None))
    }

    async fn subscribe(&self) -> Result<Vec<Subscription>> {
        let mut subscriptions = Vec::new();
        for topic in &self.check.plan.topics {
            self.check.record(Kind::MemberJoined { group: GROUP.into(), member: "compare".into() });
            let mut options = Subscribe::to(&**topic).group(GROUP);
            if let Some(handlers) = self.workload.handlers {
                options = options.concurrency(handlers);
            }
            let handler = Measured { check: self.check.clone(), work: self.workload.work };
            subscriptions.push(self.bus.subscribe(options, Arc::new(handler)).await?);
        }
        Ok(subscriptions)
    }

    /// Runs all publishers to their ends. A refused publish is counted by the hook.
    async fn publish(&self) -> Result<()> {
        let every = match self.workload.shape {
            Shape::Paced(every) => Some(every),
            _ => None,
        };
        let mut publishers = JoinSet::new();
        for publisher in 0..self.check.plan.publishers.len() {
            publishers.spawn(publish(self.bus.clone(), self.check.clone(), publisher, every));
        }
        // A publisher does not panic; were it to, its messages would show as missing.
        publishers.join_all().await;
        Ok(())
    }

    async fn wait(&self) {
        let mut before = 0;
        while !self.check.is_done() {
            let silent = tokio::time::timeout(SILENCE, self.check.done.notified()).await.is_err();
            let handled = self.check.times(None, 1).handled;
            if silent && handled == before {
                return;
            }
            before = handled;
        }
    }

    fn judge(&self, began: Option<u64>) -> Run {
        let found = &self.check.found;
        // Each topic has a subscription with that many handlers.
        let times = self.check.times(began, self.workload.handlers() * self.check.plan.topics.len());
        let load = |counter: &std::sync::atomic::AtomicUsize| counter.load(Ordering::Relaxed);
        let rate = |count: usize, time: Duration| count as f64 / time.as_secs_f64().max(1e-9);
        let (order, foreign) = (load(&found.order) + load(&found.overlaps), load(&found.foreign));
        let mut run = Run {
            workload: self.workload.name.clone(),
            backend: self.target.name.clone(),
            messages: self.check.plan.items.len(),
            confirmed: times.confirmed,
            handled: times.handled,
            seconds: times.handling.as_secs_f64(),
            published_per_second: rate(times.confirmed, times.publishing),
            handled_per_second: rate(times.handled, times.handling),
            publish_to_confirm_us: Latency::of(self.check.confirm_spans()),
            // A log that was filled before the clock started says nothing about latency.
            publish_to_handle_us: Latency::of(self.check.handle_spans()).filter(|_| began.is_none()),
            order_violations: order,
            duplicates: load(&found.duplicates),
            losses: times.losses,
            failed_publishes: times.failed,
            foreign,
            check: "inline: O1 O2 O4 O5 O6",
            ..Run::default()
        };
        if let Work::Random(_) | Work::Fixed(_) = self.workload.work {
            run.compared_to("of the ideal time", times.handling.as_secs_f64() / times.ideal.as_secs_f64());
        }
        run
    }

    /// What the group has committed, as the bus tells it.
    async fn read_committed(&self) -> Result<()> {
        for topic in &self.check.plan.topics {
            for partition in self.bus.describe_group(topic, GROUP).await?.partitions {
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
        run.check = "oracle: O1 to O8";
        let ordering = [Rule::O1, Rule::O2, Rule::O3, Rule::O4, Rule::O7];
        let order: usize = ordering.into_iter().map(|rule| verdict.count(rule)).sum();
        run.order_violations = run.order_violations.max(order);
        run.duplicates = run.duplicates.max(verdict.counts.repeats);
        run.losses = run.losses.max(verdict.count(Rule::O5));
        run.foreign = run.foreign.max(verdict.count(Rule::O6));
        run.violations = verdict.violations.iter().map(ToString::to_string).collect();
    }
}

/// The workload whose first key is stuck.
const STUCK: &str = "stuck-key";

/// One publisher: its messages in order, at the call, with many unconfirmed.
async fn publish(bus: Arc<dyn EventBus>, check: Arc<Check>, publisher: usize, every: Option<Duration>) {
    let plan = check.plan.clone();
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
        // What fails is told to the hook.
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

/// Waits for a message's time. Where that has passed, because the bus held the publisher up, latency counts from it; a
/// timer that fires late is no part of the bus.
async fn wait_until_due(due: Instant) -> Option<Instant> {
    if Instant::now() >= due {
        return Some(due);
    }
    tokio::time::sleep_until(due.into()).await;
    None
}

/// The handler that is measured.
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
