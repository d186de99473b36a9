//! Everything at once, for a while: a server that is killed and frozen, connections that are cut, acknowledgements that
//! are lost, members in processes of their own that are killed, frozen past their lease, join and leave, and handlers
//! that fail - all drawn from a seed, under constant load. In the end the oracle judges the whole history.
//!
//! `chaos [--backend nats|kafka] [--minutes N] [--seed S] [--rate PER_SECOND] [--server TAG] [--groups classic|consumer]`

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use conformance_tests::brokers::{NatsVersion, shut_down, sweep};
use conformance_tests::history::{Kind, PublishOutcome};
use conformance_tests::members::{MemberProcess, MemberSpec, Work};
use conformance_tests::oracle::{Expectations, Verdict, failures_dir, write_failure};
use conformance_tests::suite::{
    Ability, Connection, Failure, GroupProtocol, KafkaProvider, NatsProvider, Peer, Provider, PublishFault, Publishes,
    Run, UnderWay, may_come_again,
};
use eventbus_core::TopicSpec;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const TOPIC: &str = "orders";
const GROUP: &str = "billing";
const PARTITIONS: u32 = 6;
const KEYS: usize = 200;
/// A member's lease, in milliseconds.
const LEASE: u64 = 1_500;
const MEMBERS: usize = 4;

/// The program's arguments.
#[derive(Clone, Debug)]
struct Asked {
    time: Duration,
    seed: u64,
    rate: u64,
    kafka: bool,
    version: NatsVersion,
    groups: GroupProtocol,
}

impl Asked {
    fn provider(&self) -> Arc<dyn Provider> {
        if self.kafka {
            return Arc::new(KafkaProvider::containers(self.groups));
        }
        Arc::new(NatsProvider::containers(self.version))
    }
}

fn asked() -> Result<Asked, String> {
    let (time, version, groups) = (Duration::from_secs(120), NatsVersion::Newest, GroupProtocol::Classic);
    let mut asked = Asked { time, seed: 1, rate: 300, kafka: false, version, groups };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name}: expected a value"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{name}: expected a number, got {value:?}"));
        match name.as_str() {
            "--minutes" => {
                let minutes: f64 = value.parse().map_err(|_| format!("{name}: expected a number, got {value:?}"))?;
                asked.time = Duration::try_from_secs_f64(minutes * 60.0).map_err(|error| error.to_string())?;
            }
            "--seed" => asked.seed = number()?,
            "--rate" => asked.rate = number()?.max(1),
            "--backend" => {
                asked.kafka = match value.as_str() {
                    "nats" => false,
                    "kafka" => true,
                    _ => return Err(format!("{name}: expected nats or kafka, got {value:?}")),
                }
            }
            "--groups" => {
                let known = GroupProtocol::ALL.into_iter().find(|protocol| protocol.as_str() == value);
                asked.groups = known.ok_or_else(|| format!("{name}: expected classic or consumer, got {value:?}"))?;
            }
            "--server" => {
                let known = NatsVersion::ALL.into_iter().find(|version| version.tag() == value);
                asked.version = known.ok_or_else(|| format!("{name}: expected 2.15 or 2.10, got {value:?}"))?;
            }
            other => {
                let known = "--backend, --minutes, --seed, --rate, --server or --groups";
                return Err(format!("unknown argument {other:?}: expected {known}"));
            }
        }
    }
    Ok(asked)
}

fn wrong(error: impl std::fmt::Display) -> Failure {
    Failure::wrong(error.to_string())
}

struct Member {
    process: MemberProcess,
    connection: Arc<dyn Connection>,
    spec: MemberSpec,
}

struct Chaos {
    run: Run,
    draws: ChaCha8Rng,
    folder: PathBuf,
    publisher: Arc<Peer>,
    members: Vec<Member>,
    injected: BTreeMap<&'static str, u32>,
    /// The largest memory (KiB) and number of threads of a member, in each quarter of the time: flat, if nothing grows.
    largest: [(u64, u64); 4],
    began: Instant,
    time: Duration,
}

impl Chaos {
    async fn join(&mut self) -> Result<(), Failure> {
        let connection = self.run.fixture().connect().await?;
        let (server, prefix) = connection.outside().ok_or_else(|| wrong("no process of its own can connect here"))?;
        let work = Work::FailSometimes { seed: self.draws.random(), micros: 10_000, one_in: 50 };
        let mut spec = MemberSpec::new(server, prefix, TOPIC, GROUP, work);
        spec.process = self.run.next_process();
        spec.session_ms = LEASE;
        spec.history = self.folder.join(format!("member-{}.ndjson", spec.process));
        self.run.adopt(&spec.history);
        let program = std::env::current_exe().map_err(wrong)?.with_file_name("member");
        let process = MemberProcess::start(program, &spec).await.map_err(wrong)?;
        self.members.push(Member { process, connection, spec });
        Ok(())
    }

    fn drawn(&mut self) -> usize {
        self.draws.random_range(0..self.members.len())
    }

    fn pause(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.draws.random_range(from..to))
    }

    /// Injects one fault or change, and ends it if it lasts.
    async fn strike(&mut self) -> Result<(), Failure> {
        let run = self.run.clone();
        let what = match self.draws.random_range(0..100) {
            0..8 => "broker killed",
            8..16 => "broker frozen",
            16..36 => "connection cut",
            36..56 => "acknowledgements lost",
            56..68 => "member killed",
            68..82 => "member frozen past its lease",
            82..91 => "member joins",
            _ => "member leaves",
        };
        *self.injected.entry(what).or_default() += 1;
        match what {
            "broker killed" => {
                run.fault(what, true);
                let down = self.pause(100, 1_500);
                run.fixture().restart(UnderWay::Either, down).await?;
                tokio::time::sleep(down).await;
                run.fixture().back().await;
                run.healed(what);
            }
            "broker frozen" => {
                run.fault(what, true);
                let long = self.pause(200, 4_000);
                run.fixture().freeze_broker(long).await?;
                run.healed(what);
            }
            "connection cut" => {
                let long = self.pause(50, 3_000);
                let connection = match self.draws.random_range(0..=self.members.len()) {
                    index if index < self.members.len() => self.members[index].connection.clone(),
                    _ => self.publisher.connection().clone(),
                };
                run.fault(what, true);
                connection.cut(UnderWay::Either).await?;
                tokio::time::sleep(long).await;
                connection.heal().await?;
                run.healed(what);
            }
            "acknowledgements lost" => {
                let times = self.draws.random_range(1..20);
                run.on_publish(PublishFault::LoseConfirmation, Publishes::to(TOPIC).times(times)).await?;
            }
            "member killed" => {
                let index = self.drawn();
                let mut member = self.members.swap_remove(index);
                self.seen(&member);
                member.process.kill().await.map_err(wrong)?;
                run.note(Kind::ProcessKilled { victim: member.process.number() });
                if self.members.is_empty() {
                    self.join().await?;
                }
            }
            "member frozen past its lease" => {
                let index = self.drawn();
                let long = self.pause(LEASE, 3 * LEASE);
                let member = &self.members[index];
                let name = format!("freeze of process {}", member.process.number());
                run.fault(&name, true);
                member.process.freeze().map_err(wrong)?;
                tokio::time::sleep(long).await;
                self.members[index].process.thaw().map_err(wrong)?;
                run.healed(&name);
            }
            "member joins" if self.members.len() < MEMBERS => self.join().await?,
            _ if self.members.len() > 1 => {
                let index = self.drawn();
                let mut member = self.members.swap_remove(index);
                self.seen(&member);
                // Envelopes that it could not finish in time come again; the oracle judges that.
                drop(member.process.leave().await);
            }
            _ => self.join().await?,
        }
        // A member that lost its bus for good ends with an error. Another takes its place, as under a supervisor.
        let mut left = Vec::new();
        for mut member in std::mem::take(&mut self.members) {
            if member.process.is_running() {
                left.push(member);
            } else {
                *self.injected.entry("member ended by itself").or_default() += 1;
                run.note(Kind::ProcessKilled { victim: member.spec.process });
            }
        }
        self.members = left;
        if self.members.is_empty() {
            self.join().await?;
        }
        Ok(())
    }

    /// Keeps the largest memory (KiB) and number of threads of a member.
    fn seen(&mut self, member: &Member) {
        let Some(status) = member.process.status() else { return };
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        let (memory, threads) = (number("VmRSS:").unwrap_or_default(), number("Threads:").unwrap_or_default());
        let quarter = 4.0 * self.began.elapsed().as_secs_f64() / self.time.as_secs_f64();
        let largest = &mut self.largest[(quarter as usize).min(3)];
        *largest = (largest.0.max(memory), largest.1.max(threads));
    }
}

/// Publishes at a steady rate until told to stop, whatever the outcomes.
async fn load(
    publisher: Arc<Peer>,
    rate: u64,
    seed: u64,
    stop: Arc<AtomicBool>,
) -> Vec<conformance_tests::harness::Outcome> {
    let mut draws = ChaCha8Rng::seed_from_u64(seed);
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    let mut outcomes = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        for _ in 0..(rate / 50).max(1) {
            let key = format!("order-{}", draws.random_range(0..KEYS));
            outcomes.push(publisher.publisher().publish(TOPIC, &key, 100));
        }
    }
    outcomes
}

fn say(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

async fn chaos(run: Run, asked: Asked, folder: PathBuf) -> Result<(), Failure> {
    let publisher = Arc::new(run.process().await?);
    publisher.topic(TopicSpec::new(TOPIC).partitions(PARTITIONS)).await?;
    let draws = ChaCha8Rng::seed_from_u64(asked.seed);
    let (injected, largest, began, time) = (BTreeMap::new(), Default::default(), Instant::now(), asked.time);
    let mut chaos = Chaos {
        run: run.clone(),
        draws,
        folder,
        publisher: publisher.clone(),
        members: Vec::new(),
        injected,
        largest,
        began,
        time,
    };
    for _ in 0..3 {
        chaos.join().await?;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let loading = tokio::spawn(load(publisher, asked.rate, asked.seed, stop.clone()));
    while began.elapsed() < asked.time {
        let pause = chaos.pause(100, 1_500);
        tokio::time::sleep(pause).await;
        chaos.strike().await?;
        let members = std::mem::take(&mut chaos.members);
        members.iter().for_each(|member| chaos.seen(member));
        chaos.members = members;
    }
    stop.store(true, Ordering::Relaxed);
    let outcomes = loading.await.map_err(wrong)?;
    say(format_args!("{} published; waiting for their confirmations", outcomes.len()));
    for outcome in outcomes {
        outcome.await?;
    }
    say("all confirmed; waiting for the group");
    run.settled(TOPIC, &[GROUP]).await?;
    let members = std::mem::take(&mut chaos.members);
    members.iter().for_each(|member| chaos.seen(member));
    let expect =
        Expectations::new(16).quiet().log_read().overlap().spread(100, PARTITIONS as usize).group(TOPIC, GROUP);
    // A coordinator moves partitions in rounds, and waits in each for members that may be gone.
    let expect = expect.explained_for(Duration::from_millis(2 * LEASE).as_nanos() as u64);
    let verdict = run.judge(&expect, &[(TOPIC, &[GROUP])]).await?;
    let (repeats, bound) = (verdict.counts.repeats, may_come_again(&run.history().events));
    if repeats > bound {
        return Err(wrong(format!("{repeats} came again, where {bound} were running or finished since a commit")));
    }
    say(format_args!("{repeats} came again, of {bound} that were running or finished since a commit"));
    figures(&chaos, &verdict, began.elapsed());
    Ok(())
}

fn figures(chaos: &Chaos, verdict: &Verdict, took: Duration) {
    let counts = &verdict.counts;
    say(format_args!("injected: {:?}", chaos.injected));
    say(format_args!(
        "{} confirmed of {} offered in {} s; {} copies in the log",
        counts.confirmed,
        counts.offered,
        took.as_secs(),
        counts.copies
    ));
    say(format_args!(
        "{} deliveries, {} of them further attempts; {} handlers of superseded owners ran on",
        counts.deliveries, counts.retries, counts.exempt_overlaps
    ));
    say(format_args!(
        "{} sessions, {} of them unexplained; {} commits",
        counts.sessions, counts.unexplained_sessions, counts.commits
    ));
    let again = |kind: &Kind| {
        matches!(kind, Kind::Published { outcome: PublishOutcome::Confirmed { duplicate: true, .. }, .. })
    };
    let again = chaos.run.inspect(|events| events.iter().filter(|event| again(&event.kind)).count());
    say(format_args!("{again} publishes were confirmed by an earlier send of theirs"));
    let sizes = chaos.largest.map(|(memory, threads)| format!("{} MiB and {threads} threads", memory / 1024));
    say(format_args!("largest member by quarter: {}", sizes.join(", ")));
    say("0 violations");
}

/// Time that a run may take beyond its own: confirming, settling, judging.
const AFTER: Duration = Duration::from_secs(180);

fn program() -> Result<(), String> {
    let asked = asked()?;
    let words = |error: &dyn std::fmt::Display| error.to_string();
    sweep().map_err(|error| words(&error))?;
    let folder = std::env::temp_dir().join(format!("eventbus-chaos-{}-{}", asked.seed, std::process::id()));
    std::fs::create_dir_all(&folder).map_err(|error| words(&error))?;
    let provider = asked.provider();
    say(format_args!("chaos on {} for {} s, seed {}", provider.name(), asked.time.as_secs(), asked.seed));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| words(&error))?;
    let needs: &[Ability] = &[Ability::RestartBroker];
    let run = runtime.block_on(Run::start(provider, asked.seed, "chaos", needs)).map_err(|error| words(&error))?;
    let (patience, seed) = (asked.time + AFTER, asked.seed);
    let ended = runtime.block_on(async {
        match tokio::time::timeout(patience, chaos(run.clone(), asked, folder.clone())).await {
            Ok(ended) => ended,
            Err(_) => Err(wrong(format!("hung: {}", run.waiting_for()))),
        }
    });
    let ended = ended.map_err(|failure| {
        let verdict = failure.verdict().cloned().unwrap_or_default();
        let kept = write_failure(failures_dir(), "chaos", seed, &run.history(), &verdict);
        format!("{failure}\nhistory: {:?}\nseed: {seed}", kept.map(|path| path.display().to_string()))
    });
    drop(run);
    runtime.shutdown_background();
    let _ = std::fs::remove_dir_all(&folder);
    shut_down().map_err(|error| words(&error))?;
    ended
}

fn main() -> ExitCode {
    match program() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}
