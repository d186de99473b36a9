//! Voice of the program beside its output: notes for people, and the library's log, all on stderr.

use std::fmt;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::level_filters::LevelFilter;

static QUIET: AtomicBool = AtomicBool::new(false);

/// How much is said on stderr.
#[derive(Debug, clap::Args)]
pub(crate) struct Voice {
    /// Says nothing on stderr but why the command failed
    #[arg(long, short, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Shows the library's log on stderr; more with -vv and -vvv
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

impl Voice {
    /// Sets how much is said, for the whole process. Without `-v` the log shows the level `usual`.
    pub(crate) fn set(&self, usual: LevelFilter) {
        QUIET.store(self.quiet, Ordering::Relaxed);
        let level = match self.verbose {
            _ if self.quiet => LevelFilter::OFF,
            0 => usual,
            1 => LevelFilter::INFO,
            2 => LevelFilter::DEBUG,
            _ => LevelFilter::TRACE,
        };
        let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        tracing_subscriber::fmt().with_max_level(level).with_ansi(colours).with_writer(std::io::stderr).init();
    }
}

/// Says a note, on stderr.
pub(crate) fn say(text: impl fmt::Display) {
    if !QUIET.load(Ordering::Relaxed) {
        // A line is one write, since the user's commands write to stderr, too. If stderr is gone, there is nobody left
        // to tell.
        let _ = std::io::stderr().write_all(format!("{text}\n").as_bytes());
    }
}
