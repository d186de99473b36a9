//! What a case works with: [`Run`], one isolated world with its processes, its faults and its history.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use eventbus_core::backend::{Backend, GroupDescription};
use eventbus_core::{
    BusConfig, Env, Envelope, Error, ErrorKind, EventBus, Group, Mutant, Subscribe, Subscription, Threads, Topic,
    TopicSpec,
};
use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::env::SeededEnv;
use super::fixture::Ability;
use super::fixture::{
    Armed, Clock, Connection, FaultError, Fixture, Provider, PublishFault, Publishes, Setup, UnderWay,
};
use crate::harness::{BackendReader, LogReader, Node, Numbers, Publisher, Script, envelope_of, read_back};
use crate::history::{EndOutcome, Event, History, Kind, MemoryRecorder, Recorder, Start, monotonic_clock};
use crate::oracle::{Expectations, Oracle, Verdict};

/// How often a condition is looked at, on whatever clock.
const LOOK: Duration = Duration::from_millis(2);

/// Why a case did not pass.
#[derive(Debug)]
#[non_exhaustive]
pub enum Failure {
    /// A fault was not injected: most often the case asked for something that it had not said it needs.
    Fault(FaultError),
    /// The bus answered with an error that the case did not expect.
    Bus(eventbus_core::Error),
    /// Something that the case demands did not hold.
    Wrong(String),
    /// The oracle refuted the history.
    Illegal(Box<Verdict>),
}

impl Failure {
    /// Something that the case demands did not hold.
    pub fn wrong(what: impl Into<String>) -> Self {
        Self::Wrong(what.into())
    }

    /// What the oracle said, if it was the oracle.
    #[must_use]
    pub fn verdict(&self) -> Option<&Verdict> {
        match self {
            Self::Illegal(verdict) => Some(verdict),
            _ => None,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault(error) => error.fmt(f),
            Self::Bus(error) => write!(f, "the bus answered: {error}"),
            Self::Wrong(what) => f.write_str(what),
            Self::Illegal(verdict) => verdict.fmt(f),
        }
    }
}

impl From<eventbus_core::Error> for Failure {
    fn from(error: eventbus_core::Error) -> Self {
        Self::Bus(error)
    }
}

impl From<FaultError> for Failure {
    fn from(error: FaultError) -> Self {
        Self::Fault(error)
    }
}

/// Fails the case, saying why, unless the condition holds.
macro_rules! ensure {
    ($holds:expr, $($why:tt)+) => {
        if !$holds {
            return Err($crate::suite::Failure::wrong(format!($($why)+)));
        }
    };
}
pub(crate) use ensure;

/// One run of one case. Clones are the same run.
#[derive(Clone)]
pub struct Run(Arc<Inner>);

struct Inner {
    provider: Arc<dyn Provider>,
    fixture: Arc<dyn Fixture>,
    clock: Clock,
    seed: u64,
    env: Arc<dyn Env>,
    recorder: Arc<MemoryRecorder>,
    numbers: Arc<Numbers>,
    processes: Arc<AtomicU32>,
    waiting: Mutex<String>,
    /// The case's name and needs.
    case: (&'static str, &'static [Ability]),
    /// The connection that no bus under test has.
    control: OnceCell<Arc<dyn Connection>>,
    /// Where processes of their own record; read with the rest.
    files: Mutex<Vec<PathBuf>>,
    /// What is broken in every bus of the run, if anything is.
    mutant: Option<Mutant>,
}

impl Run {
    /// A run outside of the registry, in a world of its own. `case` names it where the provider keeps cases apart.
    ///
    /// # Errors
    /// What the broker says.
    pub async fn start(
        provider: Arc<dyn Provider>,
        seed: u64,
        case: &'static str,
        needs: &'static [Ability],
    ) -> Result<Self, Failure> {
        let clock = provider.clock();
        Self::make(provider, clock, seed, (case, needs)).await
    }

    pub(super) async fn make(
        provider: Arc<dyn Provider>,
        clock: Clock,
        seed: u64,
        case: (&'static str, &'static [Ability]),
    ) -> Result<Self, Failure> {
        let env: Arc<dyn Env> = Arc::new(SeededEnv::new(seed, clock));
        let fixture = provider.world(Setup::new(seed, env.clone(), clock).for_case(case.0, case.1)).await?;
        let began = Instant::now();
        let nanos = move || u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let clock_of = match clock {
            Clock::Paused => Arc::new(nanos),
            Clock::Real => monotonic_clock(),
        };
        Ok(Self(Arc::new(Inner {
            provider,
            fixture,
            clock,
            seed,
            env,
            recorder: Arc::new(MemoryRecorder::new(clock_of)),
            numbers: Arc::default(),
            processes: Arc::new(AtomicU32::new(1)),
            waiting: Mutex::default(),
            case,
            control: OnceCell::new(),
            files: Mutex::default(),
            mutant: None,
        })))
    }

    /// A run of its own with the same seed, in whose buses one thing is broken.
    pub(super) async fn broken(&self, mutant: Mutant) -> Result<Self, Failure> {
        let mut run = Self::make(self.0.provider.clone(), self.0.clock, self.0.seed, self.0.case).await?;
        if let Some(inner) = Arc::get_mut(&mut run.0) {
            inner.mutant = Some(mutant);
        }
        Ok(run)
    }

    /// The same run in another world, made with other settings.
    ///
    /// # Errors
    /// What the broker says.
    pub async fn elsewhere(&self, change: impl FnOnce(&mut Setup)) -> Result<Self, Failure> {
        let inner = &self.0;
        let setup = Setup::new(inner.seed, inner.env.clone(), inner.clock);
        let mut setup = setup.for_case(inner.case.0, inner.case.1);
        change(&mut setup);
        let fixture = inner.provider.world(setup).await?;
        Ok(Self(Arc::new(Inner {
            provider: inner.provider.clone(),
            fixture,
            clock: inner.clock,
            seed: inner.seed,
            env: inner.env.clone(),
            recorder: inner.recorder.clone(),
            numbers: inner.numbers.clone(),
            processes: inner.processes.clone(),
            waiting: Mutex::default(),
            case: inner.case,
            control: OnceCell::new(),
            files: Mutex::default(),
            mutant: inner.mutant,
        })))
    }

    /// The world, for its faults.
    #[must_use]
    pub fn fixture(&self) -> &Arc<dyn Fixture> {
        &self.0.fixture
    }

    /// Whether the provider's fixtures can do this.
    #[must_use]
    pub fn can(&self, ability: super::Ability) -> bool {
        self.0.provider.abilities().contains(&ability)
    }

    /// Whether it is on the host's clock.
    #[must_use]
    pub fn is_real(&self) -> bool {
        self.0.clock == Clock::Real
    }

    /// What [`Provider::refusals`] says.
    pub async fn refusals(&self) -> Vec<(String, bool)> {
        self.0.provider.refusals().await
    }

    /// What [`Provider::resolves_by_itself`] says.
    #[must_use]
    pub fn resolves_by_itself(&self) -> bool {
        self.0.provider.resolves_by_itself()
    }

    /// A random number of the run.
    #[must_use]
    pub fn random(&self) -> u64 {
        self.0.env.random()
    }

    /// The time of day, as the world and the buses have it.
    #[must_use]
    pub fn unix_millis(&self) -> u64 {
        self.0.env.unix_millis()
    }

    /// The seed of the run.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.0.seed
    }

    /// What was offered of a key so far.
    #[must_use]
    pub fn offered(&self, topic: &str, key: &str) -> u64 {
        self.0.numbers.offered(topic, key)
    }

    /// The configuration of every bus of the run.
    pub fn config(&self) -> BusConfig {
        let threads = if self.0.clock == Clock::Paused { Threads::Caller } else { Threads::Own };
        let config = BusConfig::new().threads(threads).env(self.0.env.clone());
        match self.0.mutant {
            Some(mutant) => config.mutant(mutant),
            None => config,
        }
    }

    /// Starts a process: a connection and a bus of its own.
    ///
    /// # Errors
    /// What the broker or the bus says.
    pub async fn process(&self) -> Result<Peer, Failure> {
        self.process_with(self.config()).await
    }

    /// Starts a process whose bus has another configuration, made from [`config`](Self::config).
    ///
    /// # Errors
    /// What the broker or the bus says.
    pub async fn process_with(&self, config: BusConfig) -> Result<Peer, Failure> {
        let number = self.0.processes.fetch_add(1, Ordering::Relaxed);
        let connection = self.0.fixture.connect().await?;
        let recorder: Arc<dyn Recorder> = self.0.recorder.clone();
        let node = Node::connect(recorder, number, connection.backend(), self.0.numbers.clone(), config).await?;
        Ok(Peer { run: self.clone(), connection, node })
    }

    /// A backend of its own, opened, that no bus under test has; one for all of the run.
    ///
    /// # Errors
    /// What the broker says.
    pub async fn control(&self) -> Result<Arc<dyn Backend>, Failure> {
        let connect = || async {
            let connection = self.0.fixture.connect().await?;
            connection.backend().open().await?;
            Ok::<_, Failure>(connection)
        };
        Ok(self.0.control.get_or_try_init(connect).await?.backend())
    }

    /// Records that a fault was injected. A lasting one is ended by [`healed`](Self::healed).
    pub fn fault(&self, name: &str, lasting: bool) {
        self.note(Kind::Fault { name: name.into(), lasting });
    }

    /// Records that a lasting fault is over.
    pub fn healed(&self, name: &str) {
        self.note(Kind::Healed { name: name.into() });
    }

    /// Appends a record of the test's own.
    pub fn note(&self, kind: Kind) {
        self.0.recorder.record(0, kind);
    }

    /// Arms a fault on publishes, on the record.
    ///
    /// # Errors
    /// Where the fixture cannot.
    pub async fn on_publish(&self, fault: PublishFault, which: Publishes) -> Result<Armed, Failure> {
        self.fault(&format!("{fault:?} of {}", which.topic), false);
        Ok(self.0.fixture.on_publish(fault, which).await?)
    }

    /// A number for one more process, which no other has.
    #[must_use]
    pub fn next_process(&self) -> u32 {
        self.0.processes.fetch_add(1, Ordering::Relaxed)
    }

    /// Has the history of a process of its own read with the rest.
    pub fn adopt(&self, file: impl Into<PathBuf>) {
        self.0.files.lock().unwrap_or_else(PoisonError::into_inner).push(file.into());
    }

    /// The history so far, with that of processes of their own.
    #[must_use]
    pub fn history(&self) -> History {
        let own = self.0.recorder.snapshot();
        let files = self.0.files.lock().unwrap_or_else(PoisonError::into_inner);
        if files.is_empty() {
            return own;
        }
        // A file that is not there yet holds nothing.
        let others = files.iter().filter_map(|file| History::read(file).ok());
        crate::history::merge_processes(std::iter::once(own).chain(others))
    }

    /// Looks at the records so far.
    pub fn inspect<R>(&self, look: impl FnOnce(&[Event]) -> R) -> R {
        self.0.recorder.inspect(look)
    }

    /// All handler calls so far, in the order of their starts.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        if self.0.files.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
            return self.inspect(calls_of);
        }
        calls_of(&self.history().events)
    }

    /// How many handler calls so far are like this.
    pub fn count(&self, like: impl Fn(&Call) -> bool) -> usize {
        self.calls().iter().filter(|call| like(call)).count()
    }

    /// Waits until a condition holds. What is waited for is named if the case hangs.
    pub async fn until(&self, what: impl Into<String>, mut holds: impl FnMut() -> bool) {
        self.waits(what.into());
        let mut pause = LOOK;
        while !holds() {
            tokio::time::sleep(pause).await;
            // What takes long is looked at less often: histories are long as well.
            pause = (pause * 11 / 10).min(LOOK * 50);
        }
        self.waits(String::new());
    }

    /// Waits until so many handler calls are like this.
    pub async fn until_calls(&self, what: &str, at_least: usize, like: impl Fn(&Call) -> bool) {
        self.until(what, || self.count(&like) >= at_least).await;
    }

    /// A group's progress and owners, or why the broker says nothing of it now: it cannot be reached, or a member
    /// that has just joined is still on its way to the coordinator.
    ///
    /// # Errors
    /// What the broker says otherwise.
    pub async fn described(&self, topic: &str, group: &str) -> Result<Result<GroupDescription, Error>, Failure> {
        match self.control().await?.describe_group(&topic.parse()?, &group.parse()?).await {
            Err(error) if !error.is_retryable() && error.kind() != ErrorKind::UnknownGroup => Err(error.into()),
            described => Ok(described),
        }
    }

    /// Waits until groups have finished and committed all that a topic holds.
    ///
    /// # Errors
    /// What the broker says, other than that it cannot be reached.
    pub async fn settled(&self, topic: &str, groups: &[&str]) -> Result<(), Failure> {
        for group in groups {
            let what = format!("group {group} has finished what topic {topic} holds");
            self.waits(format!("{what}, not yet described"));
            loop {
                let seen = match self.described(topic, group).await? {
                    Ok(described) if described.partitions.iter().all(|partition| partition.lag == 0) => break,
                    Ok(described) => format!("{:?}", described.partitions),
                    Err(error) => error.to_string(),
                };
                self.waits(format!("{what}, last described: {seen}"));
                // Asking costs the broker and the machine more than looking: it is done less often.
                tokio::time::sleep(LOOK * 50).await;
            }
        }
        self.waits(String::new());
        Ok(())
    }

    /// What the case waits for now, for the report of a case that hangs.
    #[must_use]
    pub fn waiting_for(&self) -> String {
        let what = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if what.is_empty() { "nothing that it named".into() } else { what }
    }

    fn waits(&self, what: String) {
        *self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner) = what;
    }

    /// All envelopes that a topic holds, by partition and position, read by a connection of its own.
    ///
    /// # Errors
    /// What the broker says, and `Undecodable`.
    pub async fn log(&self, topic: &str) -> Result<Vec<Envelope>, Failure> {
        let topic: Topic = topic.parse()?;
        let records = self.reader().await?.records(&topic).await?;
        records.iter().map(|record| Ok(envelope_of(&topic, record)?)).collect()
    }

    /// What reads logs and positions: the suite's own client where the fixture has one.
    async fn reader(&self) -> Result<Arc<dyn LogReader>, Failure> {
        match self.0.fixture.reader().await? {
            Some(reader) => Ok(reader),
            None => Ok(Arc::new(BackendReader::new(self.control().await?))),
        }
    }

    /// Reads logs and committed positions back by a connection of its own, and has the oracle judge the whole history.
    ///
    /// # Errors
    /// What the oracle refutes.
    pub async fn judge(&self, expect: &Expectations, read: &[(&str, &[&str])]) -> Result<Verdict, Failure> {
        for (topic, groups) in read {
            let groups = groups.iter().map(|group| group.parse()).collect::<Result<Vec<Group>, _>>()?;
            let back = read_back(&*self.reader().await?, &topic.parse()?, &groups).await?;
            back.kinds.into_iter().for_each(|kind| self.note(kind));
        }
        let verdict = Oracle::judge(&self.history(), expect);
        if verdict.is_legal() { Ok(verdict) } else { Err(Failure::Illegal(Box::new(verdict))) }
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").field("seed", &self.0.seed).field("fixture", &self.0.fixture).finish_non_exhaustive()
    }
}

/// One handler call, as the history shows it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Call {
    /// Its start.
    pub start: Start,
    /// The process it ran in.
    pub process: u32,
    /// The place of its start in the history.
    pub began: usize,
    /// When it began, in nanoseconds of the history's clock.
    pub at: u64,
    /// How it ended and where in the history, if it has.
    pub end: Option<(EndOutcome, usize)>,
}

impl Call {
    /// Whether it is of this key.
    #[must_use]
    pub fn of(&self, key: &str) -> bool {
        // Not by a key made of it: conditions compare millions of them.
        self.start.key.bytes() == (!key.is_empty()).then_some(key.as_bytes())
    }

    /// Whether it is of this number of this key.
    #[must_use]
    pub fn is(&self, key: &str, number: u64) -> bool {
        self.start.number == number && self.of(key)
    }

    /// Whether it succeeded.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        matches!(self.end, Some((EndOutcome::Ok, _)))
    }
}

fn calls_of(events: &[Event]) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    let mut open: std::collections::BTreeMap<(u32, u64), usize> = std::collections::BTreeMap::new();
    for (index, event) in events.iter().enumerate() {
        match &event.kind {
            Kind::Start(start) => {
                open.insert((event.process, start.call), calls.len());
                let (process, at) = (event.process, event.at);
                calls.push(Call { start: start.clone(), process, began: index, at, end: None });
            }
            Kind::End { call, outcome } => {
                if let Some(call) = open.remove(&(event.process, *call)).and_then(|at| calls.get_mut(at)) {
                    call.end = Some((*outcome, index));
                }
            }
            _ => {}
        }
    }
    calls
}

/// One process of a run.
pub struct Peer {
    run: Run,
    connection: Arc<dyn Connection>,
    node: Node,
}

impl Peer {
    /// Its bus.
    #[must_use]
    pub fn bus(&self) -> &Arc<dyn EventBus> {
        self.node.bus()
    }

    /// Its publisher, on the record.
    #[must_use]
    pub fn publisher(&self) -> &Publisher {
        self.node.publisher()
    }

    /// Its node of the harness.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Its connection.
    #[must_use]
    pub fn connection(&self) -> &Arc<dyn Connection> {
        &self.connection
    }

    /// Makes a topic.
    ///
    /// # Errors
    /// What the bus says.
    pub async fn topic(&self, spec: TopicSpec) -> Result<(), Failure> {
        self.bus().ensure_topic(&spec).await?;
        Ok(())
    }

    /// Subscribes with a recording handler.
    ///
    /// # Errors
    /// What the bus says.
    pub async fn subscribe(&self, options: Subscribe, script: impl Script) -> Result<Subscription, Failure> {
        Ok(self.node.subscribe(options, script).await?)
    }

    /// Publishes these numbers of envelopes of each key, a round of all keys after another, and awaits all confirmations.
    ///
    /// # Errors
    /// The first error of a publish.
    pub async fn publish_rounds(&self, topic: &str, keys: &[String], rounds: usize) -> Result<(), Failure> {
        let mut outcomes = Vec::with_capacity(keys.len() * rounds);
        for _ in 0..rounds {
            outcomes.extend(keys.iter().map(|key| self.publisher().publish(topic, key, 0)));
        }
        for outcome in outcomes {
            outcome.await?;
        }
        Ok(())
    }

    /// Kills the process, as kill -9 does.
    ///
    /// # Errors
    /// Where the fixture cannot.
    pub async fn kill(&self, under_way: UnderWay) -> Result<(), Failure> {
        self.node.process().kill();
        Ok(self.connection.kill(under_way).await?)
    }

    /// Cuts the process off, on the record.
    ///
    /// # Errors
    /// Where the fixture cannot.
    pub async fn cut(&self, under_way: UnderWay) -> Result<(), Failure> {
        self.run.fault(&self.fault_name("cut"), true);
        Ok(self.connection.cut(under_way).await?)
    }

    /// Ends a cut, on the record.
    ///
    /// # Errors
    /// Where the fixture cannot.
    pub async fn heal(&self) -> Result<(), Failure> {
        self.connection.heal().await?;
        self.run.healed(&self.fault_name("cut"));
        Ok(())
    }

    /// Freezes the process, on the record.
    ///
    /// # Errors
    /// Where the fixture cannot.
    pub async fn freeze(&self) -> Result<(), Failure> {
        self.run.fault(&self.fault_name("freeze"), true);
        Ok(self.connection.freeze().await?)
    }

    /// Ends a freeze, on the record.
    ///
    /// # Errors
    /// Where the fixture cannot.
    pub async fn thaw(&self) -> Result<(), Failure> {
        self.connection.thaw().await?;
        self.run.healed(&self.fault_name("freeze"));
        Ok(())
    }

    fn fault_name(&self, what: &str) -> String {
        format!("{what} of process {}", self.node.process().number())
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("node", &self.node).finish_non_exhaustive()
    }
}
