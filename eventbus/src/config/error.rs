//! Why a configuration is refused.

use std::io;
use std::path::PathBuf;

use eventbus_core::{Error, ErrorKind};

/// Why a configuration is refused. Names the part and what was expected; never holds a password, nor a URL as a whole,
/// since one may be in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A URL without a scheme, or a part of it that cannot be read.
    #[error("bus URL: {problem}")]
    Url {
        /// What is wrong with it.
        problem: String,
    },
    /// A scheme, or a backend's type, that no backend has.
    #[error("unknown scheme {scheme:?}, known are: {}", known.join(", "))]
    UnknownScheme {
        /// What was given.
        scheme: String,
        /// All that are known.
        known: Vec<&'static str>,
    },
    /// A scheme whose backend is not part of this program.
    #[error("the backend of scheme {scheme:?} is not part of this program: {why}")]
    NotBuilt {
        /// The scheme.
        scheme: &'static str,
        /// What would have to be done.
        why: &'static str,
    },
    /// A parameter, section or setting that does not exist.
    #[error("unknown {what} {name:?}{}; known are: {}", nearest.map(|near| format!(", did you mean {near:?}?")).unwrap_or_default(), known.join(", "))]
    Unknown {
        /// Parameter, section or setting.
        what: &'static str,
        /// What was given.
        name: String,
        /// The known one that it is most like, if it is like one.
        nearest: Option<&'static str>,
        /// All that are known.
        known: Vec<&'static str>,
    },
    /// A parameter that is given twice.
    #[error("parameter {name:?} is given twice")]
    Twice {
        /// Which.
        name: &'static str,
    },
    /// A value that is impossible.
    #[error("{name}: expected {expected}, got {got}")]
    Value {
        /// The setting.
        name: &'static str,
        /// What it takes.
        expected: String,
        /// What was given.
        got: String,
    },
    /// A setting that would break the ordering contract (S8).
    #[error("{name} is refused: {why}")]
    Unsafe {
        /// Which.
        name: &'static str,
        /// What it would break.
        why: &'static str,
    },
    /// What the backend refuses of its settings.
    #[error("{error}")]
    Backend {
        /// Why.
        error: Error,
    },
    /// A setting that has to be there.
    #[error("{name} is missing: expected {expected}")]
    Missing {
        /// Which.
        name: &'static str,
        /// What it takes.
        expected: String,
    },
    /// Text that is no TOML. The text itself is not repeated.
    #[error("no valid TOML{}: {message}", line.map(|line| format!(", line {line}")).unwrap_or_default())]
    Toml {
        /// The line, from 1 on, where it is known.
        line: Option<usize>,
        /// What the parser expected.
        message: String,
    },
    /// What one of several sources says.
    #[error("{origin}: {error}")]
    In {
        /// The file, the variable or the URL.
        origin: String,
        /// What is wrong with it.
        error: Box<ConfigError>,
    },
    /// A file that cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        let kind = error.kind();
        Self::new(kind, error.to_string()).caused_by(error)
    }
}

impl ConfigError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotBuilt { .. } => ErrorKind::Unsupported,
            Self::Unsafe { .. } => ErrorKind::UnsafeConfig,
            Self::Backend { error } => error.kind(),
            Self::In { error, .. } => error.kind(),
            _ => ErrorKind::InvalidConfig,
        }
    }

    pub(super) fn value(name: &'static str, expected: impl ToString, got: impl ToString) -> Self {
        Self::Value { name, expected: expected.to_string(), got: got.to_string() }
    }

    /// Refuses a value where this holds.
    pub(super) fn value_if(
        wrong: bool,
        name: &'static str,
        expected: impl ToString,
        got: impl ToString,
    ) -> Result<(), Self> {
        if wrong { Err(Self::value(name, expected, got)) } else { Ok(()) }
    }

    pub(super) fn url(problem: impl Into<String>) -> Self {
        Self::Url { problem: problem.into() }
    }

    /// Refuses a setting that would break the contract: by its name, also without its unit or with underlines for dots.
    pub(super) fn refuse(refused: &[(&'static str, &'static str)], name: &str) -> Result<(), Self> {
        let bare = name.strip_suffix("_ms").unwrap_or(name);
        let is_it = |known: &str| known == name || known == bare || known.replace('.', "_") == name;
        match refused.iter().find(|(known, _)| is_it(known)) {
            Some((name, why)) => Err(Self::Unsafe { name, why }),
            None => Ok(()),
        }
    }

    /// A name that is none of the known ones, with the nearest of these.
    pub(super) fn unknown(what: &'static str, name: &str, known: Vec<&'static str>) -> Self {
        // Only a short name can be like a known one, and the distance of long ones is costly.
        let near = |known: &&'static str| (strsim::levenshtein(name, known), *known);
        let nearest = (name.len() <= 64).then(|| known.iter().map(near).min()).flatten();
        let nearest = nearest.filter(|(away, nearest)| *away <= nearest.len() / 3).map(|(_, nearest)| nearest);
        Self::Unknown { what, name: name.to_owned(), nearest, known }
    }

    /// The same, naming the source.
    pub(super) fn of(self, origin: impl std::fmt::Display) -> Self {
        Self::In { origin: origin.to_string(), error: Box::new(self) }
    }
}
