//! Commands `eventbus completions` and `eventbus man`: completions and manual pages, made from the program's help.

use std::io;
use std::path::PathBuf;

use clap_complete::Shell;

use crate::exit::{Exit, Failure};
use crate::output::print;
use crate::voice::say;

/// Print completions for a shell
///
/// For bash: eventbus completions bash >~/.local/share/bash-completion/completions/eventbus
#[derive(Debug, clap::Args)]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Print the manual page, or write those of all commands
///
/// To read one: eventbus man subscribe | man -l -
#[derive(Debug, clap::Args)]
pub(crate) struct Man {
    /// The command whose page is printed; without one the program's
    #[arg(value_name = "COMMAND", conflicts_with = "out")]
    command: Option<String>,
    /// Writes the pages of all commands into this directory
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Prints the script by which a shell completes the program's arguments.
pub(crate) fn completions(args: &Completions, mut program: clap::Command) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut program, "eventbus", &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Well)
}

/// Prints one manual page, or writes all.
pub(crate) fn man(args: &Man, mut program: clap::Command) -> Result<Exit, Failure> {
    if let Some(directory) = &args.out {
        let of_directory = |error: io::Error| Failure::failed(format!("{}: {error}", directory.display()));
        std::fs::create_dir_all(directory).map_err(of_directory)?;
        clap_mangen::generate_to(program, directory).map_err(of_directory)?;
        say(format_args!("the pages are in {}", directory.display()));
        return Ok(Exit::Well);
    }
    // Only a built command puts the program's name before those of its subcommands.
    program.build();
    let page = match &args.command {
        None => program,
        Some(name) => {
            let known = || program.get_subcommands().map(|command| command.get_name().to_owned()).collect::<Vec<_>>();
            let found = program.find_subcommand(name).cloned();
            found
                .ok_or_else(|| Failure::usage(format!("unknown command {name:?}; known are: {}", known().join(", "))))?
        }
    };
    let mut roff = Vec::new();
    clap_mangen::Man::new(page).render(&mut roff).map_err(Failure::failed)?;
    print(&String::from_utf8_lossy(&roff))?;
    Ok(Exit::Well)
}
