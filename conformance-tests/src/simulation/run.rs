//! One schedule, from its seed to its judgement.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use eventbus_core::backend::{Backend, LogState, ensure_topic};
use eventbus_core::note::Note;
use eventbus_core::{Error, ErrorKind, Group, Mutant, Subscription, Topic};
use eventbus_memory::{MemoryBackend, MemoryWorld, OnCut};
use tokio::time::{Instant, sleep};

use super::coverage::Coverage;
use super::dice::{Dice, SeededEnv};
use super::plan::{GROUP, Plan, TOPIC};
use super::script::{Drawn, Shared};
use super::watch::{Met, expected_end, watch_bus, watch_faults};
use crate::harness::{BackendReader, Node, Numbers, Process, lock, read_back};
use crate::history::{EndOutcome, History, Kind, MemoryRecorder, PublishOutcome, Recorder};
use crate::oracle::{AfterRefusal, Expectations, Oracle, Verdict};

/// Milliseconds since the Unix epoch when every schedule begins.
const EPOCH: u64 = 1_700_000_000_000;
/// How long a healed group may take to become quiet.
const PATIENCE: Duration = Duration::from_secs(180);

/// What may be asked of a schedule beside its seed.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct Options {
    /// Breaks one thing of the shipped code.
    pub mutant: Option<Mutant>,
    /// No faults, and traffic enough for O9 and O10: many keys, several partitions, handlers that yield.
    pub steady: bool,
}

impl Options {
    /// With this defect.
    #[must_use]
    pub const fn broken(mutant: Mutant) -> Self {
        Self { mutant: Some(mutant), steady: false }
    }

    /// The same without faults, judged by O9 and O10 as well.
    #[must_use]
    pub const fn steady(mut self) -> Self {
        self.steady = true;
        self
    }
}

/// What came of a schedule.
#[derive(Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// Everything that happened.
    pub history: History,
    /// What the judge says of it.
    pub verdict: Verdict,
    /// What went wrong outside the rules: a subscription that ended for no reason that the schedule gives, a publish that
    /// was never resolved.
    pub unexpected: Vec<String>,
    /// What was met.
    pub coverage: Coverage,
    /// What the schedule was like.
    pub plan: Plan,
}

impl Outcome {
    /// Whether nothing was refuted.
    #[must_use]
    pub fn is_legal(&self) -> bool {
        self.verdict.is_legal() && self.unexpected.is_empty()
    }
}

/// Runs the schedule of a seed.
///
/// # Panics
/// When no runtime can be made.
#[must_use]
pub fn simulate(seed: u64, options: Options) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    #[allow(clippy::expect_used)] // a test's set-up
    let runtime = runtime.expect("a current-thread runtime");
    runtime.block_on(Box::pin(async move {
        let mut sim = Sim::new(seed, options);
        sim.run().await;
        sim.judge().await
    }))
}

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
    options: Options,
    pub(super) plan: Plan,
    pub(super) dice: Dice,
    pub(super) world: MemoryWorld,
    control: Arc<dyn Backend>,
    recorder: Arc<MemoryRecorder>,
    numbers: Arc<Numbers>,
    script: Arc<Drawn>,
    pub(super) topic: Topic,
    pub(super) group: Group,
    pub(super) nodes: Vec<Live>,
    processes: Vec<Arc<Process>>,
    pub(super) met: Met,
    pending: Arc<AtomicUsize>,
    unexpected: Arc<Mutex<Vec<String>>>,
    calm: bool,
}

impl Sim {
    fn new(seed: u64, options: Options) -> Self {
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

    async fn run(&mut self) {
        if self.plan.pipelined {
            self.met.see("pipelined");
        }
        if self.plan.shared_positions {
            self.met.see("positions shared");
        }
        if let Err(error) = ensure_topic(&*self.control, &self.plan.topic()).await {
            return self.surprise("the topic", &error);
        }
        for _ in 0..self.plan.nodes {
            self.start_node().await;
        }
        for (at, action) in self.actions() {
            tokio::time::sleep_until(at).await;
            self.reap();
            match action {
                Action::Publish => self.publish(),
                Action::Trouble => {
                    if !self.plan.chaos.is_empty() {
                        let chaos = self.plan.chaos[self.dice.index(self.plan.chaos.len())];
                        self.trouble(chaos).await;
                    }
                }
                Action::Replace => self.replace().await,
            }
        }
        self.settle().await;
        for live in std::mem::take(&mut self.nodes) {
            if let Err(error) = live.node.bus().close(Duration::from_secs(20)).await
                && !expected_end(&error, self.plan.policy)
            {
                self.surprise("a close", &error);
            }
        }
    }

    /// When what is done. Publishes come in bursts.
    fn actions(&mut self) -> Vec<(Instant, Action)> {
        let (begin, most) = (Instant::now(), u64::try_from(self.plan.trouble.as_millis()).unwrap_or(1));
        let mut actions = Vec::new();
        let mut at = begin;
        for _ in 0..self.plan.envelopes {
            if self.dice.percent(30) {
                at = begin + self.dice.millis(0, most);
            }
            actions.push((at, Action::Publish));
        }
        for _ in 0..self.plan.troubles {
            actions.push((begin + self.dice.millis(0, most), Action::Trouble));
        }
        for tenth in 1..10 {
            actions.push((begin + Duration::from_millis(most * tenth / 10), Action::Replace));
        }
        actions.sort_by_key(|(at, _)| *at);
        actions
    }

    /// Everything heals, and is handled.
    async fn settle(&mut self) {
        self.script.calm();
        self.calm = true;
        self.world.faults().heal_all();
        let begin = Instant::now();
        let mut quiet = 0;
        while begin.elapsed() < PATIENCE && quiet < 2 {
            self.reap();
            self.replace().await;
            sleep(Duration::from_millis(300)).await;
            let settled = self.unresolved() == 0 && self.lag().await == Some(0);
            quiet = if settled { quiet + 1 } else { 0 };
        }
        let pending = self.unresolved();
        if pending > 0 {
            lock(&self.unexpected).push(format!("{pending} publishes were never resolved"));
        }
    }

    async fn lag(&self) -> Option<u64> {
        let described = self.control.describe_group(&self.topic, &self.group).await.ok()?;
        let mut lag = 0;
        for partition in &described.partitions {
            // What is left of an earlier log says nothing about this one.
            let committed = partition.committed.as_ref()?;
            let note = Note::decode(&committed.note).ok()?;
            if note.incarnation != partition.log.incarnation || partition.owner.is_none() {
                return None;
            }
            // What retention took may be in a member's hands yet.
            if committed.next < partition.log.first {
                return None;
            }
            lag += partition.lag;
        }
        Some(lag)
    }

    pub(super) async fn log_of(&self, partition: u32) -> Option<LogState> {
        let described = self.control.describe_topic(&self.topic).await.ok()?;
        described.partitions.get(partition as usize).cloned()
    }

    /// Waits until no publish is under way. Whether it came to that.
    pub(super) async fn publishes_over(&self, within: Duration) -> bool {
        let begin = Instant::now();
        while self.unresolved() > 0 && begin.elapsed() < within {
            sleep(Duration::from_millis(20)).await;
        }
        self.unresolved() == 0
    }

    /// Publishes under way, also those whose confirmation was dropped.
    fn unresolved(&self) -> usize {
        let alive = self.processes.iter().filter(|process| process.is_alive());
        let dropped: usize = alive.map(|process| process.unresolved()).sum();
        dropped.max(self.pending.load(Ordering::Acquire))
    }

    /// A time shorter or longer than a session.
    pub(super) fn around_session(&mut self) -> Duration {
        let session = u64::try_from(self.plan.session_timeout.as_millis()).unwrap_or(1_000);
        self.dice.millis(10, session * 2)
    }

    /// The index of a process that lives.
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
    fn reap(&mut self) {
        self.nodes.retain(|live| live.node.process().is_alive());
    }

    /// Subscribes again where a subscription has ended, and sees to it that somebody is there.
    async fn replace(&mut self) {
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

    fn publish(&mut self) {
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

    fn surprise(&self, what: &str, error: &Error) {
        lock(&self.unexpected).push(format!("{what}: {error}"));
    }

    async fn judge(mut self) -> Outcome {
        let groups = [self.group.clone()];
        match read_back(&BackendReader::new(self.control.clone()), &self.topic, &groups).await {
            Ok(read) => read.kinds.into_iter().for_each(|kind| self.recorder.record(0, kind)),
            Err(error) => self.surprise("reading back", &error),
        }
        let history = self.recorder.take();
        let grace = self.plan.session_timeout + self.plan.drain_deadline + Duration::from_secs(5);
        let mut expect = Expectations::new(u32::try_from(self.plan.concurrency).unwrap_or(u32::MAX))
            .quiet()
            .log_read()
            .strict_sessions(u64::try_from(grace.as_nanos()).unwrap_or(u64::MAX))
            .group(TOPIC, GROUP);
        if self.plan.copies_allowed() {
            expect = expect.copies_allowed();
        }
        if self.plan.seals_topic() {
            expect = expect.after_refusal(TOPIC, AfterRefusal::Continue);
        }
        if self.options.steady {
            expect = expect.overlap().spread(100, 2);
        }
        let verdict = Oracle::judge(&history, &expect);
        self.count(&history, &verdict);
        let coverage = Coverage::of_one(self.met.take());
        let unexpected = std::mem::take(&mut *lock(&self.unexpected));
        Outcome { history, verdict, unexpected, coverage, plan: self.plan }
    }

    /// What only the history tells.
    fn count(&mut self, history: &History, verdict: &Verdict) {
        for sight in self.processes.iter().flat_map(|process| process.sights().into_keys()) {
            self.met.see(sight);
        }
        let counts = &verdict.counts;
        for (count, name) in [
            (counts.unknown_stored, "unknown at the end, and stored"),
            (counts.repeats, "repeated after a session"),
            (counts.retries, "retry"),
            (counts.exempt_overlaps, "superseded while running"),
        ] {
            if count > 0 {
                self.met.see(name);
            }
        }
        let mut killed: BTreeSet<u32> = BTreeSet::new();
        for event in &history.events {
            match &event.kind {
                Kind::End { outcome: EndOutcome::Failed, .. } => self.met.see("handler failed"),
                Kind::End { outcome: EndOutcome::Panicked, .. } => self.met.see("handler panicked"),
                Kind::End { outcome: EndOutcome::Abandoned, .. } => self.met.see("handler abandoned"),
                Kind::Published { outcome: PublishOutcome::Confirmed { duplicate: true, .. }, .. } => {
                    self.met.see("duplicate recognised");
                    self.met.see("unknown resolved");
                }
                Kind::CommitConfirmed(commit) if !commit.beyond.is_empty() => {
                    self.met.see("finished beyond the watermark");
                }
                Kind::ProcessKilled { victim } => drop(killed.insert(*victim)),
                _ => {}
            }
        }
        if self.plan.poison && !killed.is_empty() && !self.plan.chaos.contains(&super::chaos::Chaos::Kill) {
            self.met.see("killed by its own handler");
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Action {
    Publish,
    Trouble,
    Replace,
}
