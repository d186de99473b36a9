//! How the program ends.

use std::fmt;
use std::io::Write;

use eventbus::{ConfigError, Error, ErrorKind};

/// An exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All well.
    Well,
    /// The command ran, and something in it failed.
    Failed,
    /// Bad usage or configuration.
    Usage,
    /// Interrupted and drained.
    Interrupted,
}

impl Exit {
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Well => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Interrupted => 130,
        }
    }
}

/// Why the command could not go on.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
}

impl Failure {
    /// Bad usage or configuration.
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self { exit: Exit::Usage, message: message.to_string() }
    }

    /// Something failed on the way.
    pub(crate) fn failed(message: impl fmt::Display) -> Self {
        Self { exit: Exit::Failed, message: message.to_string() }
    }

    /// The same, naming what it is about.
    pub(crate) fn about(self, what: impl fmt::Display) -> Self {
        Self { message: format!("{what}: {}", self.message), ..self }
    }

    /// Says it on stderr, and gives the code to end with.
    pub(crate) fn report(self) -> Exit {
        // With stderr gone there is nobody left to tell.
        let _ = writeln!(std::io::stderr(), "eventbus: {}", self.message);
        self.exit
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        if is_usage(error.kind()) { Self::usage(error) } else { Self::failed(error) }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::usage(error)
    }
}

/// Whether the user asked for the impossible; otherwise the broker did not do it.
const fn is_usage(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::InvalidConfig | ErrorKind::UnsafeConfig | ErrorKind::InvalidName | ErrorKind::Unsupported)
}
