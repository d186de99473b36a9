//! The `eventbus` program.
//!
//! What scripts read is NDJSON on stdout; what eyes read is on stderr, or on stdout where that is a terminal and the table
//! is what the command is for. Exit codes: `exit::Exit`.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod compare;
mod exit;
mod input;
mod interrupt;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::exit::Failure;

/// An event bus that keeps the order of each key.
#[derive(Debug, Parser)]
#[command(name = "eventbus", version)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Compare(compare::Args),
}

fn main() -> ExitCode {
    let program = Program::parse();
    let result = match program.command {
        Command::Compare(args) => compare::main(&args),
    };
    let exit = result.unwrap_or_else(Failure::report);
    ExitCode::from(exit.code())
}
