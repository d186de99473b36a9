//! Command `eventbus compare`: the fixed workloads, or the user's own events, on one backend or several.
//!
//! Rounds are interleaved over the backends (A B A B …) and medians reported, since a machine changes more over minutes
//! than from one run to the next. The backends' own clients run in the same rounds, to show what the bus costs.

mod baseline;
mod check;
mod clock;
mod figures;
mod lines;
mod raw;
mod report;
mod resources;
mod run;
mod session;
mod table;
mod targets;
mod workloads;

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use self::figures::Run;
use self::report::{Environment, Report};
use self::session::{Manner, Outcome, Session};
use self::targets::{Target, Targets};
use self::workloads::{Choice, WorkloadSet};
use crate::exit::{Exit, Failure};
use crate::interrupt::Interrupt;
use crate::voice::say;

/// Run fixed workloads, judge order, loss and duplicates while they run, and print medians
///
/// Each backend has a broker of its own, started in a container where no URL is given; its own client is measured beside
/// the bus. Without --workload, --all or --input a selection runs that ends within three minutes per backend. On a
/// terminal the table is on stdout, else on stderr; with --json stdout has one line of JSON per run and per summary.
///
/// Latencies: "to confirm" ends when the bus knows the broker's answer, "to handle" when the handler has returned. A run's
/// check is the conformance oracle (rules O1 to O8) up to 50 000 messages, above and for stuck-key an inline check of each
/// delivery (O1, O2, O4, O5, O6). "Bare" is the backend's own client without a group and without a promise of order.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Backends, of memory, nats and kafka; memory is the default. One without a --url gets a broker in a container
    #[arg(long, value_delimiter = ',', value_name = "BACKEND")]
    backends: Vec<String>,
    /// A bus to compare, as a URL; may be given several times
    #[arg(long, value_name = "URL")]
    url: Vec<String>,
    #[command(flatten)]
    choice: Choice,
    /// Rounds of each workload: 6 put the true median between the lowest and the highest with 97 % confidence. What takes
    /// ten seconds and more runs once, and a selection leaves rounds out rather than take longer than it may
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    rounds: u16,
    /// Leaves out the small runs before the first round of each workload, which are not counted
    #[arg(long)]
    no_warm_up: bool,
    /// Leaves out the backends' own clients
    #[arg(long)]
    no_bare: bool,
    /// Prints all figures, in a table that no common terminal is wide enough for
    #[arg(long)]
    wide: bool,
    /// Writes report.json and index.html, a page with plots that needs no network, into this folder
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// A report.json (or its folder) to compare with
    #[arg(long, value_name = "REPORT")]
    baseline: Option<PathBuf>,
    /// Runs nothing: compares this report with the baseline
    #[arg(long, value_name = "REPORT", requires = "baseline", conflicts_with_all = ["backends", "url", "workload", "all", "input", "report"])]
    against: Option<PathBuf>,
    /// Prints one line of JSON per run and per summary on stdout, and the table on stderr
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  eventbus compare --backends memory,nats,kafka --report report
  eventbus compare --url nats://localhost:4222 --workload envelope --handler-ms 3 --members 2
  eventbus compare --backends nats,kafka --input events.ndjson --rounds 10 --json
  eventbus compare --baseline before/report.json --against after/report.json";

pub(crate) fn main(args: &Args) -> Result<Exit, Failure> {
    if args.choice.workload.iter().any(|name| name == "list") {
        list().map_err(Failure::failed)?;
        return Ok(Exit::Well);
    }
    let baseline = args.baseline.as_deref().map(Report::read).transpose()?;
    if let (Some(baseline), Some(now)) = (&baseline, &args.against) {
        show_changes(args, baseline, &Report::read(now)?).map_err(Failure::failed)?;
        return Ok(Exit::Well);
    }
    let mut targets = Targets::of(&args.backends, &args.url)?;
    let set = WorkloadSet::of(&args.choice, targets.are_memory())?;
    let runtime = tokio::runtime::Runtime::new().map_err(Failure::failed)?;
    // The signals are listened for before brokers start, so that an interrupt at any time removes these.
    let interrupt = {
        let _entered = runtime.enter();
        Interrupt::listen().map_err(Failure::failed)?
    };
    let running = targets.start()?;
    let environment = runtime.block_on(environment(&running));
    let outcome = runtime.block_on(compare(args, &running, &set, &interrupt))?;
    let report = Report::of(&outcome, &set.workloads, environment);
    tell(args, &outcome, &report, baseline.as_ref())?;
    Ok(verdict(&outcome, &interrupt))
}

async fn compare(
    args: &Args,
    targets: &[Target],
    set: &WorkloadSet,
    interrupt: &Interrupt,
) -> Result<Outcome, Failure> {
    let is_selection = args.choice.is_selection();
    let manner = Manner {
        rounds: args.rounds.into(),
        warm_up: !args.no_warm_up,
        bare: !args.no_bare,
        limited: is_selection,
        json: args.json,
    };
    let session = Session { targets, set, manner, interrupt };
    if !is_selection {
        session.announce();
    }
    session.run().await
}

/// Asks the brokers for their releases, and describes the environment.
async fn environment(targets: &[Target]) -> Environment {
    let mut backends = BTreeMap::new();
    for target in targets {
        let release = raw::release(target).await;
        let place = target.image.as_ref().map_or_else(
            || format!("at {}", target.config.backend),
            |image| format!("in a container of {image} on this machine and its own network"),
        );
        let told = if target.is_memory() { "in this process".to_owned() } else { format!("{release}, {place}") };
        backends.insert(target.name.clone(), told);
    }
    Environment::of(backends)
}

/// Prints the tables, and writes the report.
fn tell(args: &Args, outcome: &Outcome, report: &Report, baseline: Option<&Report>) -> Result<(), Failure> {
    if outcome.summaries.is_empty() {
        return Ok(());
    }
    let table = if args.wide { table::wide } else { table::of };
    show(args, &table(&outcome.summaries)).map_err(Failure::failed)?;
    if let Some(baseline) = baseline {
        show_changes(args, baseline, report).map_err(Failure::failed)?;
    }
    if let Some(folder) = &args.report {
        report.write(folder, baseline)?;
        say(format!("the report is {}", folder.join("index.html").display()));
    }
    Ok(())
}

fn show_changes(args: &Args, before: &Report, now: &Report) -> io::Result<()> {
    let changes = baseline::changes(&before.summaries, &now.summaries);
    if args.json {
        lines::write_changes(io::stdout().lock(), &changes)?;
    }
    show(args, &table::of_changes(&changes))
}

/// Prints a table to stderr, or to stdout if that is a terminal and `--json` does not use it.
fn show(args: &Args, table: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if !args.json && out.is_terminal() { writeln!(out, "{table}") } else { writeln!(io::stderr(), "{table}") }
}

fn verdict(outcome: &Outcome, interrupt: &Interrupt) -> Exit {
    let broken: Vec<&Run> =
        outcome.summaries.iter().flatten().map(|one| &one.run).filter(|run| !run.is_well()).collect();
    for run in &broken {
        say(format!(
            "{} on {}: {} out of order, {} twice, {} lost, {} not published, {} not ours",
            run.workload,
            run.client.on(&run.backend),
            run.order_violations,
            run.duplicates,
            run.losses,
            run.failed_publishes,
            run.foreign
        ));
        run.violations.iter().for_each(say);
    }
    if outcome.interrupted || interrupt.is_set() {
        Exit::Interrupted
    } else if broken.is_empty() && outcome.failures.is_empty() {
        Exit::Well
    } else {
        Exit::Failed
    }
}

fn list() -> io::Result<()> {
    let mut out = io::stdout().lock();
    workloads::all().iter().try_for_each(|workload| {
        let selected = if workload.selected { "*" } else { " " };
        writeln!(out, "{selected} {:<22} {}", workload.name, workload.about)
    })
}
