//! A [`Run`], with which a case works: one isolated world with its processes, its faults and its history.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use eventbus_core::backend::{Backend, GroupDescription};
use eventbus_core::{BusConfig, Env, Envelope, Error, ErrorKind, Group, Mutant, Threads, Topic};
use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::ability::Ability;
use super::call::{Call, calls_of};
use super::env::SeededEnv;
use super::failure::Failure;
use super::fixture::{Armed, Clock, Connection, Fixture, Provider, PublishFault, Publishes, Setup};
use crate::harness::{BackendReader, LogReader, Node, Numbers, envelope_of, read_back};
use crate::history::{Event, History, Kind, MemoryRecorder, Recorder, monotonic_clock};
use crate::oracle::{Expectations, Oracle, Verdict};

/// The shortest pause between two looks at a condition, on either clock.
const LOOK: Duration = Duration::from_millis(2);

/// A run of one case. Clones are the same run.
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
    /// A connection that belongs to no bus under test.
    control: OnceCell<Arc<dyn Connection>>,
    /// History files of separate processes, read with the run's own.
    files: Mutex<Vec<PathBuf>>,
    /// The defect in every bus of the run, if there is one.
    mutant: Option<Mutant>,
}

impl Run {
    /// Starts a run outside of the registry, in a world of its own. `case` names it for a provider that keeps cases
    /// apart.
    ///
    /// # Errors
    /// The broker's error.
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

    /// Makes another run with the same seed, whose buses have one defect.
    pub(super) async fn broken(&self, mutant: Mutant) -> Result<Self, Failure> {
        let mut run = Self::make(self.0.provider.clone(), self.0.clock, self.0.seed, self.0.case).await?;
        if let Some(inner) = Arc::get_mut(&mut run.0) {
            inner.mutant = Some(mutant);
        }
        Ok(run)
    }

    /// Makes the same run in another world, with other settings.
    ///
    /// # Errors
    /// The broker's error.
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

    /// The world, on which faults are injected.
    #[must_use]
    pub fn fixture(&self) -> &Arc<dyn Fixture> {
        &self.0.fixture
    }

    /// Whether the provider's fixtures have this ability.
    #[must_use]
    pub fn can(&self, ability: super::Ability) -> bool {
        self.0.provider.abilities().contains(&ability)
    }

    /// Whether the run is on the host's clock.
    #[must_use]
    pub fn is_real(&self) -> bool {
        self.0.clock == Clock::Real
    }

    /// The answer of [`Provider::refusals`].
    pub async fn refusals(&self) -> Vec<(String, bool)> {
        self.0.provider.refusals().await
    }

    /// The answer of [`Provider::resolves_by_itself`].
    #[must_use]
    pub fn resolves_by_itself(&self) -> bool {
        self.0.provider.resolves_by_itself()
    }

    /// Draws a random number from the run's seed.
    #[must_use]
    pub fn random(&self) -> u64 {
        self.0.env.random()
    }

    /// The time of day in milliseconds, as the world and the buses have it.
    #[must_use]
    pub fn unix_millis(&self) -> u64 {
        self.0.env.unix_millis()
    }

    /// The seed of the run.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.0.seed
    }

    /// The number of envelopes of a key that were offered so far.
    #[must_use]
    pub fn offered(&self, topic: &str, key: &str) -> u64 {
        self.0.numbers.offered(topic, key)
    }

    /// The configuration for every bus of the run, with its defect if there is one.
    pub fn config(&self) -> BusConfig {
        let threads = if self.0.clock == Clock::Paused { Threads::Caller } else { Threads::Own };
        let config = BusConfig::new().threads(threads).env(self.0.env.clone());
        match self.0.mutant {
            Some(mutant) => config.mutant(mutant),
            None => config,
        }
    }

    /// Makes one more process: its connection, and its node of the harness.
    pub(super) async fn connect(&self, config: BusConfig) -> Result<(Arc<dyn Connection>, Node), Failure> {
        let number = self.0.processes.fetch_add(1, Ordering::Relaxed);
        let connection = self.0.fixture.connect().await?;
        let recorder: Arc<dyn Recorder> = self.0.recorder.clone();
        let node = Node::connect(recorder, number, connection.backend(), self.0.numbers.clone(), config).await?;
        Ok((connection, node))
    }

    /// The backend that no bus under test has: opened at the first call, and one for the whole run.
    ///
    /// # Errors
    /// The broker's error.
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

    /// Appends an event of the test itself to the history.
    pub fn note(&self, kind: Kind) {
        self.0.recorder.record(0, kind);
    }

    /// Arms a fault on publishes, and records it.
    ///
    /// # Errors
    /// The fixture's error, if it cannot.
    pub async fn on_publish(&self, fault: PublishFault, which: Publishes) -> Result<Armed, Failure> {
        self.fault(&format!("{fault:?} of {}", which.topic), false);
        Ok(self.0.fixture.on_publish(fault, which).await?)
    }

    /// Returns a number for one more process, which no other has.
    #[must_use]
    pub fn next_process(&self) -> u32 {
        self.0.processes.fetch_add(1, Ordering::Relaxed)
    }

    /// Adds the history file of a separate process, to be read with the rest.
    pub fn adopt(&self, file: impl Into<PathBuf>) {
        self.0.files.lock().unwrap_or_else(PoisonError::into_inner).push(file.into());
    }

    /// The history so far, with that of separate processes.
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

    /// Gives `look` the run's own events so far.
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

    /// Counts the handler calls so far that `like` accepts.
    pub fn count(&self, like: impl Fn(&Call) -> bool) -> usize {
        self.calls().iter().filter(|call| like(call)).count()
    }

    /// Waits until a condition holds. `what` names the condition if the case hangs.
    pub async fn until(&self, what: impl Into<String>, mut holds: impl FnMut() -> bool) {
        self.waits(what.into());
        let mut pause = LOOK;
        while !holds() {
            tokio::time::sleep(pause).await;
            // A condition that takes long is looked at less often: histories grow long as well.
            pause = (pause * 11 / 10).min(LOOK * 50);
        }
        self.waits(String::new());
    }

    /// Waits until `like` accepts at least so many handler calls.
    pub async fn until_calls(&self, what: &str, at_least: usize, like: impl Fn(&Call) -> bool) {
        self.until(what, || self.count(&like) >= at_least).await;
    }

    /// Returns a group's progress and owners, or the reason why the broker does not tell them now: it cannot be
    /// reached, or a member that has just joined is still on its way to the coordinator.
    ///
    /// # Errors
    /// Any other error of the broker.
    pub async fn described(&self, topic: &str, group: &str) -> Result<Result<GroupDescription, Error>, Failure> {
        match self.control().await?.describe_group(&topic.parse()?, &group.parse()?).await {
            Err(error) if !error.is_retryable() && error.kind() != ErrorKind::UnknownGroup => Err(error.into()),
            described => Ok(described),
        }
    }

    /// Waits until the groups have finished and committed all that a topic holds.
    ///
    /// # Errors
    /// An error of the broker, other than that it cannot be reached.
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
                // A request costs the broker and the machine more than a look does, so there are fewer.
                tokio::time::sleep(LOOK * 50).await;
            }
        }
        self.waits(String::new());
        Ok(())
    }

    /// The condition that the case waits for now, for the report of a case that hangs.
    #[must_use]
    pub fn waiting_for(&self) -> String {
        let what = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if what.is_empty() { "nothing that it named".into() } else { what }
    }

    fn waits(&self, what: String) {
        *self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner) = what;
    }

    /// Reads all envelopes that a topic holds, by partition and position, on a connection of its own.
    ///
    /// # Errors
    /// The broker's error, or `Undecodable`.
    pub async fn log(&self, topic: &str) -> Result<Vec<Envelope>, Failure> {
        let topic: Topic = topic.parse()?;
        let records = self.reader().await?.records(&topic).await?;
        records.iter().map(|record| Ok(envelope_of(&topic, record)?)).collect()
    }

    /// The reader of logs and positions: the suite's own client if the fixture has one, else the control backend.
    async fn reader(&self) -> Result<Arc<dyn LogReader>, Failure> {
        match self.0.fixture.reader().await? {
            Some(reader) => Ok(reader),
            None => Ok(Arc::new(BackendReader::new(self.control().await?))),
        }
    }

    /// Reads logs and committed positions back on a connection of its own, and has the oracle judge the whole history.
    ///
    /// # Errors
    /// The oracle's verdict, if it refutes the history; an error of the broker.
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
