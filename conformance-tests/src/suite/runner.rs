//! Runner of one case: makes its runtime and its world, waits no longer than the provider's patience, and writes down
//! the history of a failure.

use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use super::case::{Case, CaseRuntime};
use super::failure::Failure;
use super::fixture::{Clock, HANGS_AFTER, Provider};
use super::matrix::Outcome;
use super::run::Run;
use crate::oracle::{failures_dir, write_failure};

/// The seeds that a case is run with.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct RunOptions {
    /// The first seed.
    pub seed: u64,
    /// Number of seeds, one after another. One is enough on the real clock, where the threads' schedules vary anyway.
    pub seeds: u64,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self { seed: 1, seeds: 1 }
    }
}

impl RunOptions {
    /// Reads the environment: `EVENTBUS_SEED` is the first seed (default 1), `EVENTBUS_SEEDS` their number (default
    /// `seeds`).
    ///
    /// # Errors
    /// The name of a variable that is no number.
    pub fn from_env(seeds: u64) -> Result<Self, String> {
        let number = |name: &str, default: u64| match std::env::var(name) {
            Err(_) => Ok(default),
            Ok(text) => text.parse().map_err(|_| format!("{name}: expected a number, got {text:?}")),
        };
        Ok(Self { seed: number("EVENTBUS_SEED", 1)?, seeds: number("EVENTBUS_SEEDS", seeds)?.max(1) })
    }
}

/// Runs a case with one seed after another, each in a world of its own, until the first failure.
///
/// Makes its own runtime, so it must be called outside of any. The history of a failure is written by
/// [`write_failure`](crate::oracle::write_failure) and named in the outcome.
#[must_use]
pub fn run_case(case: &Case, provider: &Arc<dyn Provider>, options: &RunOptions) -> Outcome {
    let abilities = provider.abilities();
    let missing: Vec<_> = case.needs.iter().copied().filter(|need| !abilities.contains(need)).collect();
    if !missing.is_empty() {
        return Outcome::Skip(missing);
    }
    let clock = if case.place == CaseRuntime::Threads { Clock::Real } else { provider.clock() };
    let seeds = if clock == Clock::Real || case.place == CaseRuntime::Large { 1 } else { options.seeds };
    for seed in (options.seed..).take(usize::try_from(seeds).unwrap_or(usize::MAX)) {
        if let Err((run, failure)) = run_seed(case, provider, clock, seed) {
            return left_of(case, provider, seed, run.as_ref(), &failure);
        }
    }
    Outcome::Pass
}

type Failed = (Option<Run>, Failure);

/// Wall-clock time after which a case that stands still ends the process. The provider's patience may never end: a task
/// that never rests holds a paused clock back.
const STANDS_AFTER: Duration = Duration::from_secs(900);

/// Aborts the process, naming the case, unless the returned sender is dropped in time.
fn watch(case: &Case, provider: &dyn Provider, seed: u64) -> mpsc::Sender<()> {
    let (over, ended) = mpsc::channel();
    let name = format!("{} on {}, seed {seed}", case.name, provider.name());
    std::thread::spawn(move || {
        if ended.recv_timeout(STANDS_AFTER) == Err(mpsc::RecvTimeoutError::Timeout) {
            let _ = writeln!(std::io::stderr(), "stands still, and its clock with it: {name}");
            std::process::abort();
        }
    });
    over
}

fn run_seed(case: &Case, provider: &Arc<dyn Provider>, clock: Clock, seed: u64) -> Result<(), Failed> {
    let _over = watch(case, &**provider, seed);
    let runtime = runtime(case.place, clock).map_err(|error| (None, Failure::wrong(format!("no runtime: {error}"))))?;
    let run = runtime
        .block_on(Run::make(provider.clone(), clock, seed, (case.name, case.needs)))
        .map_err(|failure| (None, failure))?;
    let patience = if clock == provider.clock() { provider.patience() } else { HANGS_AFTER };
    let ended = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async {
            let mut task = tokio::spawn((case.run)(run.clone()));
            match tokio::time::timeout(patience, &mut task).await {
                Ok(ended) => ended.unwrap_or_else(|error| Err(Failure::wrong(format!("the case panicked: {error}")))),
                Err(_) => {
                    task.abort();
                    Err(Failure::wrong(format!("hung: {}", run.waiting_for())))
                }
            }
        })
    }));
    // The suite does not wait for a handler that blocks its thread.
    runtime.shutdown_background();
    match ended {
        Ok(Ok(())) => Ok(()),
        Ok(Err(failure)) => Err((Some(run), failure)),
        Err(_) => Err((Some(run), Failure::wrong("the case panicked"))),
    }
}

fn runtime(place: CaseRuntime, clock: Clock) -> std::io::Result<Runtime> {
    if place == CaseRuntime::Threads {
        return Builder::new_multi_thread().worker_threads(4).enable_all().build();
    }
    Builder::new_current_thread().enable_all().start_paused(clock == Clock::Paused).build()
}

fn left_of(case: &Case, provider: &Arc<dyn Provider>, seed: u64, run: Option<&Run>, failure: &Failure) -> Outcome {
    let mut message = failure.to_string();
    let history = run.and_then(|run| {
        let name = format!("{} on {}", case.name, provider.name());
        match write_failure(failures_dir(), &name, seed, &run.history(), failure) {
            Ok(path) => {
                message.push_str(&format!("\nhistory: {}", path.display()));
                Some(path)
            }
            Err(error) => {
                message.push_str(&format!("\nthe history could not be written: {error}"));
                None
            }
        }
    });
    message.push_str(&format!("\nseed: {seed}"));
    Outcome::Fail { message, seed, history }
}
