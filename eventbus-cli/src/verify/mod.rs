//! Command `eventbus verify`: the conformance cases that need no power over the broker, run on the user's own broker.

mod provider;

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Instant;

use clap::builder::styling::{AnsiColor, Style};
use conformance_tests::suite::{CASES, Case, Outcome, Provider, RunOptions, run_case};
use serde::Serialize;
use tokio::sync::mpsc;

use self::provider::Places;
use crate::exit::{Exit, Failure};
use crate::interrupt::Interrupt;
use crate::output::{self, Form};
use crate::target::{Target, leave};
use crate::voice::say;

/// Run the conformance cases that need no power over the broker, on your own broker
///
/// Every case works under names of its own, beginning with "eventbus-verify-", which are removed afterwards, also when the
/// command is interrupted. A case that would have to harm the broker, or to come between it and a client, is skipped by name.
/// Exits with 1 where a case fails.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    /// Only this case, or all of a module (p0::order); may be given several times
    #[arg(long, value_name = "NAME")]
    case: Vec<String>,
    /// Lists the cases, and runs none
    #[arg(long)]
    list: bool,
    /// Cases at once
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: u16,
    /// What is drawn by chance is drawn from this
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    form: Form,
}

const EXAMPLES: &str = r#"Examples:
  eventbus verify --url nats://localhost:4222
  eventbus verify --list
  eventbus verify --url nats://localhost:4222 --case p0::order --case p1::flow::lag_is_right

A line: {"case":"p0::order::per_key_order","outcome":"pass","seconds":1.2}
outcome is pass, skip or fail, the latter two with reason."#;

#[derive(Debug, Serialize)]
struct Line {
    case: String,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    seconds: f64,
}

#[derive(Debug, Serialize)]
struct Listed {
    case: String,
    number: String,
    title: &'static str,
    needs: Vec<&'static str>,
}

pub(crate) fn main(args: &Args) -> Result<Exit, Failure> {
    let cases = chosen(&args.case)?;
    if args.list {
        list(args, &cases)?;
        return Ok(Exit::Well);
    }
    let config = args.target.configuration()?;
    // Panicking handlers are part of the cases. A panic that brings a case down is told with the case's outcome.
    std::panic::set_hook(Box::new(|panic| tracing::info!(%panic, "a panic")));
    let runtime = tokio::runtime::Runtime::new().map_err(Failure::failed)?;
    let ended = runtime.block_on(async {
        let interrupt = Interrupt::listen().map_err(Failure::failed)?;
        // Connecting first tells a wrong URL once, instead of in every case.
        let Some(bus) = args.target.connect_unless(&interrupt, &config, |bus| bus).await? else {
            return Ok(Exit::Interrupted);
        };
        let health = bus.health().await;
        leave(&bus).await;
        let server = health.server.unwrap_or_default();
        let count = cases.len();
        let said = format!("{} {server}", config.backend);
        let places = Arc::new(Places::new(config));
        say(format_args!("{said}: {count} cases, under {}", places.names()));
        let exit = run(args, cases, &places, &interrupt).await;
        places.remove_all().await.and(exit)
    });
    // A thread of an interrupted case may still run, but it reaches the broker no more.
    runtime.shutdown_background();
    ended
}

/// Returns a case's name as users write it: module and function.
fn name(case: &Case) -> String {
    case.name.replace(' ', "")
}

/// Returns the cases of these names, or all without a name.
fn chosen(names: &[String]) -> Result<Vec<&'static Case>, Failure> {
    let is_of = |case: &Case, asked: &str| {
        let name = name(case);
        name == asked || name.strip_prefix(asked).is_some_and(|rest| rest.starts_with("::"))
    };
    for asked in names {
        if !CASES.iter().any(|case| is_of(case, asked)) {
            return Err(Failure::usage(format!("unknown case {asked:?}; --list lists them")));
        }
    }
    let is_chosen = |case: &&Case| names.is_empty() || names.iter().any(|asked| is_of(case, asked));
    Ok(CASES.iter().filter(is_chosen).collect())
}

fn list(args: &Args, cases: &[&'static Case]) -> Result<(), Failure> {
    let listed = |case: &&'static Case| Listed {
        case: name(case),
        number: format!("{} {}", case.priority.as_str(), case.number),
        title: case.title,
        needs: case.needs.iter().map(|need| need.as_str()).collect(),
    };
    let listed: Vec<Listed> = cases.iter().map(listed).collect();
    args.form.print(&["number", "case", "title", "needs"], &listed)
}

async fn run(
    args: &Args,
    cases: Vec<&'static Case>,
    places: &Arc<Places>,
    interrupt: &Interrupt,
) -> Result<Exit, Failure> {
    let mut waiting = cases.into_iter();
    let (ended, mut ends) = mpsc::channel(1);
    let start = |case: &'static Case| {
        let mut options = RunOptions::default();
        options.seed = args.seed;
        let (provider, ended) = (places.clone() as Arc<dyn Provider>, ended.clone());
        std::thread::spawn(move || {
            let began = Instant::now();
            let outcome = run_case(case, &provider, &options);
            // After an interrupt nobody receives this.
            let _ = ended.blocking_send((case, outcome, began.elapsed().as_secs_f64()));
        });
    };
    let mut running = 0;
    let mut counts = BTreeMap::<&str, usize>::new();
    loop {
        while running < usize::from(args.jobs) {
            let Some(case) = waiting.next() else { break };
            start(case);
            running += 1;
        }
        if running == 0 {
            break;
        }
        tokio::select! {
            biased;
            () = interrupt.wait() => return Ok(Exit::Interrupted),
            Some((case, outcome, seconds)) = ends.recv() => {
                running -= 1;
                let line = line(case, outcome, seconds);
                *counts.entry(line.outcome).or_default() += 1;
                show(args, case, &line)?;
            }
        }
    }
    let count = |outcome| counts.get(outcome).copied().unwrap_or_default();
    say(format_args!("{} PASS, {} SKIP, {} FAIL", count("pass"), count("skip"), count("fail")));
    Ok(if count("fail") == 0 { Exit::Well } else { Exit::Failed })
}

fn line(case: &'static Case, outcome: Outcome, seconds: f64) -> Line {
    let (outcome, reason) = match outcome {
        Outcome::Pass => ("pass", None),
        Outcome::Skip(missing) => {
            let missing: Vec<&str> = missing.iter().map(|ability| ability.as_str()).collect();
            ("skip", Some(format!("cannot {}", missing.join(", "))))
        }
        Outcome::Fail { message, .. } => ("fail", Some(message)),
        other => ("fail", Some(other.to_string())),
    };
    Line { case: name(case), outcome, reason, seconds: (seconds * 1_000.0).round() / 1_000.0 }
}

/// Prints a line for scripts, or a row of the matrix on a terminal.
fn show(args: &Args, case: &Case, line: &Line) -> Result<(), Failure> {
    if !args.form.is_table() {
        return args.form.print(&[], &[line]);
    }
    let colour = match line.outcome {
        "pass" => AnsiColor::Green,
        "skip" => AnsiColor::Yellow,
        _ => AnsiColor::Red,
    };
    let plain = std::env::var_os("NO_COLOR").is_some() || !std::io::stdout().is_terminal();
    let style = if plain { Style::new() } else { colour.on_default() };
    let outcome = line.outcome.to_uppercase();
    let reason = line.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    let (priority, number, title) = (case.priority.as_str(), case.number, case.title);
    let row = format!("{priority} {number:<3} {title:<88} {style}{outcome}{style:#}{reason} {:.1} s\n", line.seconds);
    output::print(&row)
}
