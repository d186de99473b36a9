//! Everything at once, for a while: a server that is killed and frozen, connections that are cut, acknowledgements that
//! are lost, members in processes of their own that are killed, frozen past their lease, join and leave, handlers that
//! fail, and an operator who changes limits and permissions, purges records and removes readers and progress - all drawn
//! from a seed, under constant load. In the end the oracle judges the whole history.
//!
//! `chaos [--backend nats|kafka] [--minutes N] [--seed S] [--rate PER_SECOND] [--operator on|off] [--server TAG]
//! [--groups classic|consumer]`

mod arguments;
mod faults;
mod figures;
mod load;
mod members;
mod operator;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arguments::{Asked, asked};
use conformance_tests::brokers::{shut_down, sweep};
use conformance_tests::oracle::{Expectations, failures_dir, write_failure};
use conformance_tests::suite::{Ability, Failure, Peer, Run, may_come_again};
use eventbus_core::TopicSpec;
use load::{Load, Refusals};
use members::{BEGIN, Member, Size};
use operator::Operator;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const TOPIC: &str = "orders";
const GROUP: &str = "billing";
const PARTITIONS: u32 = 6;
const KEYS: usize = 200;
/// A member's lease, in milliseconds.
const LEASE: u64 = 1_500;
const MEMBERS: usize = 4;

fn wrong(error: impl std::fmt::Display) -> Failure {
    Failure::wrong(error.to_string())
}

fn say(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

struct Chaos {
    run: Run,
    draws: ChaCha8Rng,
    folder: PathBuf,
    publisher: Arc<Peer>,
    refusals: Refusals,
    members: Vec<Member>,
    operator: Option<Operator>,
    injected: BTreeMap<&'static str, u32>,
    /// The largest member in each quarter of the time: flat, if nothing grows.
    largest: [Size; 4],
    began: Instant,
    time: Duration,
}

impl Chaos {
    fn pause(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.draws.random_range(from..to))
    }

    /// Strikes until the time is over. About every third is a hand of the operator.
    async fn strikes(&mut self) -> Result<(), Failure> {
        while self.began.elapsed() < self.time {
            let pause = self.pause(100, 1_500);
            tokio::time::sleep(pause).await;
            if self.operator.is_some() && self.draws.random_range(0..3) == 0 {
                self.hand().await?;
            } else {
                self.strike().await?;
            }
            self.supervise().await?;
        }
        Ok(())
    }
}

async fn chaos(run: Run, asked: Asked, folder: PathBuf) -> Result<(), Failure> {
    let publisher = Arc::new(run.process().await?);
    publisher.topic(TopicSpec::new(TOPIC).partitions(PARTITIONS)).await?;
    let load = Load::start(publisher.clone(), asked.rate, asked.seed);
    let mut chaos = Chaos {
        run: run.clone(),
        draws: ChaCha8Rng::seed_from_u64(asked.seed),
        folder,
        publisher,
        refusals: load.refusals.clone(),
        members: Vec::new(),
        operator: asked.operator.then(|| Operator::new(asked.kafka)),
        injected: BTreeMap::new(),
        largest: Default::default(),
        began: Instant::now(),
        time: asked.time,
    };
    for _ in 0..BEGIN {
        chaos.join().await?;
    }
    chaos.strikes().await?;
    let offered = load.stop().await?;
    say(format_args!("{} published; waiting for their outcomes", offered.count));
    offered.outcomes().await?;
    let none = Operator::new(asked.kafka);
    chaos.operator.as_ref().map_or_else(
        || none.check(Duration::ZERO, &chaos.refusals),
        |operator| operator.check(asked.time, &chaos.refusals),
    )?;
    say("all have one; waiting for the group");
    run.settled(TOPIC, &[GROUP]).await?;
    chaos.supervise().await?;
    judge(&chaos, asked.kafka).await
}

async fn judge(chaos: &Chaos, kafka: bool) -> Result<(), Failure> {
    let expect =
        Expectations::new(16).quiet().log_read().overlap().spread(100, PARTITIONS as usize).group(TOPIC, GROUP);
    // A coordinator moves partitions in rounds, and waits in each for members that may be gone.
    let expect = expect.explained_for(Duration::from_millis(2 * LEASE).as_nanos() as u64);
    let expect = if kafka { expect } else { expect.shared_positions() };
    let verdict = chaos.run.judge(&expect, &[(TOPIC, &[GROUP])]).await?;
    let (repeats, bound) = (verdict.counts.repeats, may_come_again(&chaos.run.history().events));
    if repeats > bound {
        return Err(wrong(format!("{repeats} came again, where {bound} were running or finished since a commit")));
    }
    say(format_args!("{repeats} came again, of {bound} that were running or finished since a commit"));
    figures::figures(chaos, &verdict, chaos.began.elapsed());
    Ok(())
}

/// Time that a run may take beyond its own: confirming, settling, judging.
const AFTER: Duration = Duration::from_secs(300);

fn program() -> Result<(), String> {
    let asked = asked()?;
    let words = |error: &dyn std::fmt::Display| error.to_string();
    sweep().map_err(|error| words(&error))?;
    let folder = std::env::temp_dir().join(format!("eventbus-chaos-{}-{}", asked.seed, std::process::id()));
    std::fs::create_dir_all(&folder).map_err(|error| words(&error))?;
    let provider = asked.provider().map_err(|error| words(&error))?;
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
