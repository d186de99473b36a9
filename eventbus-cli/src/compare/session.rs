//! Session of a comparison: makes the rounds of each workload, each over all backends in turn (A B A B …), the buses
//! first, then the bare clients.

use std::io;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::figures::{Client, Run, Summary};
use super::targets::Target;
use super::workloads::{Workload, WorkloadSet};
use super::{lines, raw, run};
use crate::exit::Failure;
use crate::interrupt::Interrupt;
use crate::voice::say;

/// How long a selection may take, for each backend.
const SELECTION: Duration = Duration::from_secs(170);

#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    pub(crate) rounds: usize,
    /// Whether each workload has a small run on each backend before its rounds, which is not counted.
    pub(crate) warm_up: bool,
    pub(crate) bare: bool,
    /// Whether rounds are left out that would make a selection take too long.
    pub(crate) limited: bool,
    pub(crate) json: bool,
}

/// Contender in a round: a client on a target.
#[derive(Debug, Clone, Copy)]
struct Contender<'a> {
    target: &'a Target,
    client: Client,
}

impl Contender<'_> {
    fn is_on(self, other: Self) -> bool {
        self.target.name == other.target.name
    }
}

#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) runs: Vec<Run>,
    /// Summaries by workload, in the order in which they ran; in each by contender.
    pub(crate) summaries: Vec<Vec<Summary>>,
    pub(crate) failures: Vec<String>,
    pub(crate) interrupted: bool,
}

impl Outcome {
    fn has_seen(&self, target: &Target) -> bool {
        self.runs.iter().any(|run| run.backend == target.name)
    }
}

pub(crate) struct Session<'a> {
    pub(crate) targets: &'a [Target],
    pub(crate) set: &'a WorkloadSet,
    pub(crate) manner: Manner,
    pub(crate) interrupt: &'a Interrupt,
}

impl Session<'_> {
    /// Returns the contenders of a workload, the buses first.
    fn contenders<'a>(&'a self, workload: &'a Workload) -> Vec<Contender<'a>> {
        let on = |client| {
            let able = self.targets.iter().filter(|target| workload.runs_on(target.is_memory()));
            able.map(move |target| Contender { target, client })
        };
        let bare = self.manner.bare && workload.has_bare_client();
        on(Client::Bus).chain(on(Client::Bare).filter(|one| bare && raw::is_there_for(one.target))).collect()
    }

    fn seconds(&self, workload: &Workload) -> f64 {
        let each = |one: Contender<'_>| workload.seconds_on(one.target.config.backend.scheme());
        self.contenders(workload).into_iter().map(each).sum()
    }

    pub(crate) fn estimate(&self) -> Duration {
        let rounds = |workload: &Workload| workload.rounds(self.manner.rounds) as f64;
        let each = self.set.workloads.iter().map(|workload| self.seconds(workload) * rounds(workload));
        Duration::from_secs_f64(each.sum())
    }

    /// Makes all runs. After an interrupt the outcome has those made so far.
    pub(crate) async fn run(&self) -> Result<Outcome, Failure> {
        let steps = |workload: &Workload| self.contenders(workload).len() * workload.rounds(self.manner.rounds);
        let bar = progress(self.set.workloads.iter().map(steps).sum::<usize>() as u64);
        let mut outcome = Outcome::default();
        let began = Instant::now();
        for (place, workload) in self.set.workloads.iter().enumerate() {
            // The time of one round is kept for each later workload, whatever is left out here.
            let later: f64 = self.set.workloads[place + 1..].iter().map(|later| self.seconds(later)).sum();
            let allowed = SELECTION * u32::try_from(self.targets.len()).unwrap_or(u32::MAX);
            let deadline = began + allowed.saturating_sub(Duration::from_secs_f64(later));
            let all = self.rounds(workload, deadline, &bar, &mut outcome).await?;
            let mut of_workload: Vec<Summary> = all.iter().filter_map(|runs| Summary::of(runs)).collect();
            Summary::relate(&mut of_workload);
            if self.manner.json {
                lines::write_summaries(io::stdout().lock(), &of_workload).map_err(Failure::failed)?;
            }
            outcome.runs.extend(all.into_iter().flatten());
            if !of_workload.is_empty() {
                outcome.summaries.push(of_workload);
            }
            if outcome.interrupted {
                break;
            }
        }
        bar.finish_and_clear();
        Ok(outcome)
    }

    /// Makes the runs of one workload, round by round with all contenders in turn, and returns them by contender. A
    /// contender that could not run is left out of the rest. If the bus never ran on its backend, the session ends.
    async fn rounds(
        &self,
        workload: &Workload,
        deadline: Instant,
        bar: &ProgressBar,
        outcome: &mut Outcome,
    ) -> Result<Vec<Vec<Run>>, Failure> {
        let contenders = self.contenders(workload);
        let mut all: Vec<Vec<Run>> = vec![Vec::new(); contenders.len()];
        let mut out = vec![false; contenders.len()];
        let mut longest = Duration::ZERO;
        let asked = workload.rounds(self.manner.rounds);
        for round in 0..=asked {
            let is_warm_up = round == 0;
            if is_warm_up && !self.manner.warm_up {
                continue;
            }
            let began = Instant::now();
            if self.manner.limited && round > 1 && began + longest > deadline {
                bar.inc((contenders.len() * (asked + 1 - round)) as u64);
                break;
            }
            let able: Vec<usize> = (0..contenders.len()).filter(|which| !out[*which]).collect();
            for which in able {
                let one = contenders[which];
                let mut run = match self.turn(one, workload, round, bar).await {
                    Ok(Some(run)) => run,
                    Ok(None) => {
                        outcome.interrupted = true;
                        return Ok(all);
                    }
                    Err(failure) => {
                        let ran = contenders.iter().zip(&all).any(|(other, runs)| other.is_on(one) && !runs.is_empty());
                        if !ran && !outcome.has_seen(one.target) {
                            return Err(Failure::failed(failure));
                        }
                        say(&failure);
                        outcome.failures.push(failure);
                        out[which] = true;
                        continue;
                    }
                };
                if is_warm_up {
                    continue;
                }
                run.round = round;
                bar.inc(1);
                if self.manner.json {
                    lines::write_run(io::stdout().lock(), &run).map_err(Failure::failed)?;
                }
                all[which].push(run);
            }
            if !is_warm_up {
                longest = longest.max(began.elapsed());
            }
        }
        Ok(all)
    }

    /// Makes one run; in round 0 a small one, to warm up. An error names the workload and the contender.
    async fn turn(
        &self,
        one: Contender<'_>,
        workload: &Workload,
        round: usize,
        bar: &ProgressBar,
    ) -> Result<Option<Run>, String> {
        let name = one.client.on(&one.target.name);
        let what = if round == 0 { "warm-up".to_owned() } else { format!("round {round}") };
        bar.set_message(format!("{} on {name}, {what}", workload.name));
        let sized = if round == 0 { workload.to_warm_up() } else { workload.clone() };
        let ran = match one.client {
            Client::Bus => run::run(one.target, &sized, self.set, self.interrupt).await,
            Client::Bare => raw::run(one.target, &sized, self.set, self.interrupt).await,
        };
        ran.map_err(|error| format!("{} on {name}: {error}", workload.name))
    }

    /// Says how long the session takes, on stderr.
    pub(crate) fn announce(&self) {
        let minutes = self.estimate().as_secs_f64() / 60.0;
        say(format!("{} workloads, about {minutes:.1} minutes", self.set.workloads.len()));
    }
}

/// Makes a progress bar on stderr, hidden if that is not a terminal.
fn progress(runs: u64) -> ProgressBar {
    use std::io::IsTerminal as _;
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(runs);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} ({elapsed})") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
