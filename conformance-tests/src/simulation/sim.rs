//! A schedule under way: its processes, and their actions.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use eventbus_core::backend::{Backend, LogState};
use eventbus_core::{Error, ErrorKind, Group, Subscription, Topic};
use eventbus_memory::{MemoryBackend, MemoryWorld, OnCut};
use tokio::time::{Instant, sleep};

use super::dice::{Dice, SeededEnv};
use super::plan::{GROUP, Options, Plan, TOPIC};
use super::script::{Drawn, Shared};
use super::watch::{Met, expected_end, watch_bus, watch_faults};
use crate::harness::{Node, Numbers, Process, lock};
use crate::history::MemoryRecorder;

/// Milliseconds since the Unix epoch when every schedule begins.
const EPOCH: u64 = 1_700_000_000_000;
/// A process that lives.
pub(super) struct Live {
    pub(super) node: Node,
    pub(super) backend: MemoryBackend,
    pub(super) subscription: Option<Arc<Subscription>>,
    pub(super) keys: Vec<String>,
    ended: Arc<AtomicBool>,
}

/// A schedule under way.
pub(super) struct Sim {
    seed: u64,
    pub(super) options: Options,
    pub(super) plan: Plan,
    pub(super) dice: Dice,
    pub(super) world: MemoryWorld,
    pub(super) control: Arc<dyn Backend>,
    pub(super) recorder: Arc<MemoryRecorder>,
    numbers: Arc<Numbers>,
    pub(super) script: Arc<Drawn>,
    pub(super) topic: Topic,
    pub(super) group: Group,
    pub(super) nodes: Vec<Live>,
    pub(super) processes: Vec<Arc<Process>>,
    pub(super) met: Met,
    pending: Arc<AtomicUsize>,
    pub(super) unexpected: Arc<Mutex<Vec<String>>>,
    pub(super) calm: bool,
}

impl Sim {
    pub(super) fn new(seed: u64, options: Options) -> Self {
        let plan = Plan::draw(&mut Dice::new(seed, 0));
        let plan = if options.steady { plan.steady() } else { plan };
        let begin = Instant::now();
        let clock = move || u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let recorder = Arc::new(MemoryRecorder::new(Arc::new(clock)));
        let env = Arc::new(SeededEnv::new(seed, 1, EPOCH));
        #[allow(clippy::expect_used)] // the plan's numbers are all above zero
        let world = plan.world().env(env).build().expect("a world");
        #[allow(clippy::expect_used)] // constants
        let (topic, group) = (TOPIC.parse().expect("a topic"), GROUP.parse().expect("a group"));
        let met = Met::default();
        watch_faults(&world, &recorder, &met);
        Self {
            seed,
            options,
            control: Arc::new(world.connect()),
            dice: Dice::new(seed, 2),
            script: Drawn::new(Dice::new(seed, 3), plan.clone()),
            plan,
            world,
            recorder,
            numbers: Arc::default(),
            topic,
            group,
            nodes: Vec::new(),
            processes: Vec::new(),
            met,
            pending: Arc::default(),
            unexpected: Arc::default(),
            calm: false,
        }
    }

    pub(super) async fn log_of(&self, partition: u32) -> Option<LogState> {
        let described = self.control.describe_topic(&self.topic).await.ok()?;
        described.partitions.get(partition as usize).cloned()
    }

    /// Waits until no publish is under way. `true` if it came to that.
    pub(super) async fn publishes_over(&self, within: Duration) -> bool {
        let begin = Instant::now();
        while self.unresolved() > 0 && begin.elapsed() < within {
            sleep(Duration::from_millis(20)).await;
        }
        self.unresolved() == 0
    }

    /// The number of publishes under way, also of those whose confirmation was dropped.
    pub(super) fn unresolved(&self) -> usize {
        let alive = self.processes.iter().filter(|process| process.is_alive());
        let dropped: usize = alive.map(|process| process.unresolved()).sum();
        dropped.max(self.pending.load(Ordering::Acquire))
    }

    /// Draws a time shorter or longer than a session.
    pub(super) fn around_session(&mut self) -> Duration {
        let session = u64::try_from(self.plan.session_timeout.as_millis()).unwrap_or(1_000);
        self.dice.millis(10, session * 2)
    }

    /// Draws the index of a process that lives.
    pub(super) fn pick(&mut self) -> Option<usize> {
        (!self.nodes.is_empty()).then(|| self.dice.index(self.nodes.len()))
    }

    pub(super) async fn start_node(&mut self) {
        let number = u32::try_from(self.processes.len()).unwrap_or(u32::MAX) + 1;
        if self.nodes.len() >= 4 || number > 40 {
            return;
        }
        let backend = self.world.connect();
        let skew = self.dice.between(0, 2_000);
        let env = SeededEnv::new(self.seed, 100 + u64::from(number), self.world.unix_millis() + skew);
        let ended = Arc::new(AtomicBool::new(false));
        let watch = watch_bus(self.met.clone(), ended.clone(), self.unexpected.clone(), self.plan.policy);
        let mut config = self.plan.bus().env(Arc::new(env)).hook(watch);
        if let Some(mutant) = self.options.mutant {
            config = config.mutant(mutant);
        }
        let (recorder, numbers) = (self.recorder.clone(), self.numbers.clone());
        let node = match Node::start(recorder, number, Arc::new(backend.clone()), numbers, config) {
            Ok(node) => node,
            Err(error) => return self.surprise("a bus", &error),
        };
        let process = node.process().clone();
        self.processes.push(process.clone());
        let (faults, dying) = (self.world.faults(), backend.clone());
        tokio::spawn(async move {
            process.killed().await;
            faults.kill(&dying, OnCut::Drawn);
        });
        let keys = (0..self.plan.keys).map(|key| format!("key-{number}-{key}")).collect();
        self.nodes.push(Live { node, backend, subscription: None, keys, ended });
        self.met.see("join");
        let last = self.nodes.len() - 1;
        self.subscribe(last).await;
    }

    /// Joins the group; while the broker cannot be reached that fails, and is tried again later.
    async fn subscribe(&mut self, node: usize) {
        let options = self.plan.subscribe().member(format!("m{}", self.nodes[node].node.process().number()));
        self.nodes[node].ended.store(false, Ordering::Release);
        let live = &self.nodes[node].node;
        let joining =
            tokio::time::timeout(Duration::from_secs(3), live.subscribe(options, Shared(self.script.clone())));
        match joining.await {
            Ok(Ok(subscription)) => self.nodes[node].subscription = Some(Arc::new(subscription)),
            Ok(Err(error)) if !error.is_retryable() && live.process().is_alive() => {
                self.surprise("a subscribe", &error)
            }
            _ => {}
        }
    }

    /// Forgets processes that were killed.
    pub(super) fn reap(&mut self) {
        self.nodes.retain(|live| live.node.process().is_alive());
    }

    /// Subscribes again where a subscription has ended, and starts a process if none is left.
    pub(super) async fn replace(&mut self) {
        if self.nodes.is_empty() || (!self.calm && self.nodes.len() < self.plan.nodes && self.dice.percent(50)) {
            self.start_node().await;
        }
        for node in 0..self.nodes.len() {
            let live = &mut self.nodes[node];
            if live.ended.load(Ordering::Acquire) {
                live.subscription = None;
            }
            if live.subscription.is_none() && (self.calm || self.dice.percent(50)) {
                self.subscribe(node).await;
            }
        }
    }

    pub(super) async fn kill_one(&mut self) {
        let Some(node) = self.pick() else { return };
        let live = self.nodes.swap_remove(node);
        self.met.see("process killed");
        live.node.process().kill();
    }

    pub(super) fn leave_one(&mut self, politely: bool) {
        let Some(node) = self.pick() else { return };
        let Some(subscription) = self.nodes[node].subscription.take() else { return };
        if !politely {
            self.met.see("subscription dropped");
            return drop(subscription);
        }
        self.met.see("leave");
        let deadline = self.dice.millis(0, 2_000);
        let (met, unexpected) = (self.met.clone(), self.unexpected.clone());
        let (process, policy) = (self.nodes[node].node.process().clone(), self.plan.policy);
        tokio::spawn(async move {
            match subscription.drain(deadline).await {
                Err(error) if error.kind() == ErrorKind::DeadlineExceeded => met.see("abandoned at a deadline"),
                Err(error) if process.is_alive() && !expected_end(&error, policy) => {
                    lock(&unexpected).push(format!("a drain: {error}"));
                }
                _ => {}
            }
        });
    }

    pub(super) fn publish(&mut self) {
        let Some(node) = self.pick() else { return };
        let keyless = self.plan.keyless && self.dice.percent(20);
        let live = &self.nodes[node];
        let key = if keyless { "" } else { live.keys[self.dice.index(live.keys.len())].as_str() };
        let size = if self.dice.percent(1) { 8_000 } else { self.dice.index(120) };
        let outcome = live.node.publisher().publish(TOPIC, key, size);
        if self.dice.percent(3) && outcome.cancel() {
            self.met.see("withdrawn");
        }
        if self.dice.percent(8) {
            self.met.see("confirmation dropped");
            return drop(outcome);
        }
        let pending = self.pending.clone();
        let process = live.node.process().clone();
        pending.fetch_add(1, Ordering::AcqRel);
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = process.killed() => {}
                _ = outcome => {}
            }
            pending.fetch_sub(1, Ordering::AcqRel);
        });
    }

    pub(super) fn surprise(&self, what: &str, error: &Error) {
        lock(&self.unexpected).push(format!("{what}: {error}"));
    }
}
