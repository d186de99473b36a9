//! The `eventbus` program.
//!
//! Scripts read NDJSON on stdout. People read stderr, or stdout if it is a terminal and the command is there to show a
//! table. Exit codes: `exit::Exit`.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod compare;
mod config;
mod dead_letter;
mod exit;
mod groups;
mod input;
mod interrupt;
mod lag;
mod output;
mod publish;
mod record;
mod seconds;
mod shell;
mod start;
mod stdio;
mod subscribe;
mod target;
mod topics;
mod verify;
mod voice;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use tracing::level_filters::LevelFilter;

use crate::exit::Failure;
use crate::voice::Voice;

/// An event bus that keeps the order of each key.
#[derive(Debug, Parser)]
#[command(name = "eventbus", version, after_help = EXIT_CODES, max_term_width = 110)]
struct Program {
    #[command(flatten)]
    voice: Voice,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 all well; 1 something failed on the way; 2 bad usage or configuration; 130 interrupted and drained.";

#[derive(Debug, Subcommand)]
enum Command {
    Publish(publish::Args),
    Subscribe(subscribe::Args),
    Lag(lag::Args),
    Topics(topics::Args),
    Groups(groups::Args),
    DeadLetter(dead_letter::Args),
    Verify(verify::Args),
    Config(config::Args),
    Completions(shell::Completions),
    Man(shell::Man),
    Compare(compare::Args),
}

fn main() -> ExitCode {
    let program = Program::parse();
    // The conformance cases make things go wrong on purpose.
    let usual = if matches!(program.command, Command::Verify(_)) { LevelFilter::OFF } else { LevelFilter::ERROR };
    program.voice.set(usual);
    let result = match program.command {
        Command::Publish(args) => publish::main(&args),
        Command::Subscribe(args) => subscribe::main(&args),
        Command::Lag(args) => lag::main(&args),
        Command::Topics(args) => topics::main(&args),
        Command::Groups(args) => groups::main(&args),
        Command::DeadLetter(args) => dead_letter::main(&args),
        Command::Verify(args) => verify::main(&args),
        Command::Config(args) => config::main(&args),
        Command::Completions(args) => shell::completions(&args, Program::command()),
        Command::Man(args) => shell::man(&args, Program::command()),
        Command::Compare(args) => compare::main(&args),
    };
    let exit = result.unwrap_or_else(Failure::report);
    ExitCode::from(exit.code())
}
