//! Exit codes and failures of the program.

use std::fmt;
use std::io::Write;

use eventbus::{ConfigError, Error, ErrorKind};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All well: 0.
    Well,
    /// Something in the command failed: 1.
    Failed,
    /// Bad usage or configuration: 2.
    Usage,
    /// Interrupted and drained: 130.
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

/// Failure that ends a command.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
}

impl Failure {
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self { exit: Exit::Usage, message: message.to_string() }
    }

    pub(crate) fn failed(message: impl fmt::Display) -> Self {
        Self { exit: Exit::Failed, message: message.to_string() }
    }

    /// Puts the subject of the failure before its message.
    pub(crate) fn about(self, what: impl fmt::Display) -> Self {
        Self { message: format!("{what}: {}", self.message), ..self }
    }

    /// Writes the message to stderr, and returns the code to end with.
    pub(crate) fn report(self) -> Exit {
        // If stderr is gone, there is nobody left to tell.
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

/// Returns whether the user asked for something impossible. All other errors are failures on the way.
const fn is_usage(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::InvalidConfig | ErrorKind::UnsafeConfig | ErrorKind::InvalidName | ErrorKind::Unsupported)
}
