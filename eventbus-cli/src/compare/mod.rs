//! `eventbus compare`: the fixed workloads, or the user's own events, on one backend or several.
//!
//! Rounds are interleaved over the backends (A B A B …) and medians reported, since a machine's mood changes more between
//! minutes than between neighbours.

mod check;
mod latency;
mod report;
mod resources;
mod run;
mod targets;
mod workloads;

use std::fs::File;
use std::io::{self, BufReader, IsTerminal, Write};
use std::path::{Path, PathBuf};

use eventbus::Envelope;
use indicatif::{ProgressBar, ProgressStyle};

use self::report::Run;
use self::run::Subject;
use self::targets::{Target, Targets};
use self::workloads::{Keys, Payload, Shape, Work, Workload};
use crate::exit::{Exit, Failure};
use crate::input;
use crate::interrupt::Interrupt;

/// Run fixed workloads, judge order, loss and duplicates while they run, and print medians.
///
/// Without --workload or --all a selection runs that ends within three minutes per backend. On a terminal the table is on
/// stdout, else on stderr; with --json stdout has one line of JSON per run and per summary.
///
/// Latencies: "to confirm" ends when the bus knows the broker's answer, "to handle" when the handler has returned. A run's
/// check is the conformance oracle (rules O1 to O8) up to 50 000 messages, above and for stuck-key an inline check of each
/// delivery (O1, O2, O4, O5, O6).
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Backends, each on a broker of its own; memory is the default.
    #[arg(long, value_delimiter = ',', value_name = "BACKEND")]
    backends: Vec<String>,
    /// A bus to compare, as a URL; may be given several times.
    #[arg(long, value_name = "URL")]
    url: Vec<String>,
    /// A workload, or a family of them (`pressure`); may be given several times. `--workload list` lists all.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["all", "input"])]
    workload: Vec<String>,
    /// All workloads; says beforehand how long they take.
    #[arg(long, conflicts_with = "input")]
    all: bool,
    /// The user's own events instead: NDJSON as `publish` reads it.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Rounds of each workload; those that take ten seconds and more run once.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    rounds: u16,
    /// Prints one line of JSON per run and per summary on stdout, and the table on stderr.
    #[arg(long)]
    json: bool,
}

pub(crate) fn main(args: &Args) -> Result<Exit, Failure> {
    if args.workload.iter().any(|name| name == "list") {
        list().map_err(Failure::failed)?;
        return Ok(Exit::Well);
    }
    let job = Job::of(args)?;
    let mut targets = Targets::of(&args.backends, &args.url)?;
    let runtime = tokio::runtime::Runtime::new().map_err(Failure::failed)?;
    // Before brokers are started, so that they are removed whenever it comes.
    let interrupt = {
        let _entered = runtime.enter();
        Interrupt::listen().map_err(Failure::failed)?
    };
    let running = targets.start()?;
    runtime.block_on(compare(args, &running, &job, &interrupt))
}

/// What runs.
struct Job {
    workloads: Vec<Workload>,
    /// The user's events, which are then the one workload.
    events: Option<Vec<Envelope>>,
}

impl Job {
    fn of(args: &Args) -> Result<Self, Failure> {
        if let Some(path) = &args.input {
            let events = read_events(path)?;
            return Ok(Self { workloads: vec![input_workload(events.len())], events: Some(events) });
        }
        let all = workloads::all();
        for name in &args.workload {
            if !all.iter().any(|workload| workload.is_meant_by(name)) {
                let known: Vec<&str> = all.iter().map(|workload| workload.name.as_str()).collect();
                return Err(Failure::usage(format!("unknown workload {name:?}; known are: {}", known.join(", "))));
            }
        }
        let wanted = |workload: &Workload| {
            let named = args.workload.iter().any(|name| workload.is_meant_by(name));
            named || args.all || args.workload.is_empty() && workload.selected
        };
        Ok(Self { workloads: all.into_iter().filter(wanted).collect(), events: None })
    }

    fn subject(&self) -> Subject<'_> {
        self.events.as_deref().map_or(Subject::Fixed, Subject::Events)
    }

    /// About how long it takes.
    fn seconds(&self, args: &Args, targets: usize) -> f64 {
        let rounds = |workload: &Workload| workload.rounds(args.rounds.into()) * targets;
        self.workloads.iter().map(|workload| workload.seconds * rounds(workload) as f64).sum()
    }
}

fn read_events(path: &Path) -> Result<Vec<Envelope>, Failure> {
    let file = File::open(path).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    let events: Result<Vec<Envelope>, _> = input::read(BufReader::new(file)).collect();
    let events = events.map_err(|broken| Failure::usage(format!("{}, {broken}", path.display())))?;
    if events.is_empty() {
        return Err(Failure::usage(format!("{}: no event in it", path.display())));
    }
    Ok(events)
}

fn input_workload(messages: usize) -> Workload {
    Workload {
        name: "input".into(),
        about: "the user's own events, in their order, by one publisher".into(),
        messages,
        topics: 1,
        partitions: None,
        keys: Keys::None,
        payload: Payload::SmallJson,
        publishers: 1,
        work: Work::None,
        handlers: None,
        in_memory: false,
        shape: Shape::Flow,
        selected: true,
        seconds: 1.0,
    }
}

fn list() -> io::Result<()> {
    let mut out = io::stdout().lock();
    workloads::all().iter().try_for_each(|workload| {
        let selected = if workload.selected { "*" } else { " " };
        writeln!(out, "{selected} {:<22} {}", workload.name, workload.about)
    })
}

async fn compare(args: &Args, targets: &[Target], job: &Job, interrupt: &Interrupt) -> Result<Exit, Failure> {
    if args.all {
        let minutes = job.seconds(args, targets.len()) / 60.0;
        say(&format!("{} workloads, about {minutes:.1} minutes", job.workloads.len()));
    }
    let total: usize = job.workloads.iter().map(|workload| workload.rounds(args.rounds.into()) * targets.len()).sum();
    let bar = progress(total as u64);
    let mut summaries = Vec::new();
    let mut interrupted = false;
    for workload in &job.workloads {
        let mut runs: Vec<Vec<Run>> = vec![Vec::new(); targets.len()];
        'rounds: for round in 1..=workload.rounds(args.rounds.into()) {
            for (target, runs) in targets.iter().zip(&mut runs) {
                bar.set_message(format!("{} on {}, round {round}", workload.name, target.name));
                let failed = |error| Failure::failed(format!("{} on {}: {error}", workload.name, target.name));
                let Some(mut run) = run::run(target, workload, job.subject(), interrupt).await.map_err(failed)? else {
                    interrupted = true;
                    break 'rounds;
                };
                run.round = round;
                bar.inc(1);
                if args.json {
                    report::write_run(io::stdout().lock(), &run).map_err(Failure::failed)?;
                }
                runs.push(run);
            }
        }
        let of_workload: Vec<Run> = runs.iter().filter_map(|runs| Run::summary(runs)).collect();
        if args.json {
            report::write_summaries(io::stdout().lock(), &of_workload).map_err(Failure::failed)?;
        }
        if !of_workload.is_empty() {
            summaries.push(of_workload);
        }
        if interrupted {
            break;
        }
    }
    bar.finish_and_clear();
    show(args, &summaries).map_err(Failure::failed)?;
    Ok(verdict(&summaries, interrupted, interrupt))
}

fn verdict(summaries: &[Vec<Run>], interrupted: bool, interrupt: &Interrupt) -> Exit {
    let broken: Vec<&Run> = summaries.iter().flatten().filter(|run| !run.is_well()).collect();
    for run in &broken {
        say(&format!(
            "{} on {}: {} out of order, {} twice, {} lost, {} not published, {} not ours",
            run.workload,
            run.backend,
            run.order_violations,
            run.duplicates,
            run.losses,
            run.failed_publishes,
            run.foreign
        ));
        run.violations.iter().for_each(|violation| say(violation));
    }
    if interrupted || interrupt.is_set() {
        Exit::Interrupted
    } else if broken.is_empty() {
        Exit::Well
    } else {
        Exit::Failed
    }
}

/// The table, where eyes are.
fn show(args: &Args, summaries: &[Vec<Run>]) -> io::Result<()> {
    if summaries.is_empty() {
        return Ok(());
    }
    let table = report::table(summaries);
    let mut out = io::stdout().lock();
    if !args.json && out.is_terminal() { writeln!(out, "{table}") } else { writeln!(io::stderr(), "{table}") }
}

/// A bar on stderr, if that is a terminal.
fn progress(runs: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(runs);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} ({elapsed})") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(std::time::Duration::from_millis(200));
    bar
}

fn say(text: &str) {
    // With stderr gone there is nobody left to tell.
    let _ = writeln!(io::stderr(), "{text}");
}
