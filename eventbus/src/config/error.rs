//! Configuration errors: why a configuration is refused.

use std::io;
use std::path::PathBuf;

use eventbus_core::{Error, ErrorKind};

/// Refusal of a configuration. It names the part that is wrong and what was expected. It never holds a password, nor a
/// whole URL, which may have one in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A URL without a scheme, or a part of it that cannot be read.
    #[error("bus URL: {problem}")]
    Url {
        /// The problem, in words.
        problem: String,
    },
    /// A scheme, or the type of a backend, that no backend has.
    #[error("unknown scheme {scheme:?}, known are: {}", known.join(", "))]
    UnknownScheme {
        /// The given scheme, cut short: a wrong URL may begin with a password.
        scheme: String,
        /// The known schemes.
        known: Vec<&'static str>,
    },
    /// A scheme whose backend is not part of this program.
    #[error("the backend of scheme {scheme:?} is not part of this program: {why}")]
    NotBuilt {
        /// The scheme.
        scheme: &'static str,
        /// The way to build a program that has it.
        why: &'static str,
    },
    /// A parameter, section or setting that does not exist.
    #[error("unknown {what} {name:?}{}; known are: {}", nearest.map(|near| format!(", did you mean {near:?}?")).unwrap_or_default(), known.join(", "))]
    Unknown {
        /// Parameter, section or setting.
        what: &'static str,
        /// The given name.
        name: String,
        /// The most similar known name, if one is similar enough.
        nearest: Option<&'static str>,
        /// The known names.
        known: Vec<&'static str>,
    },
    /// A parameter that is given twice.
    #[error("parameter {name:?} is given twice")]
    Twice {
        /// The parameter's name.
        name: &'static str,
    },
    /// A value that the setting does not take.
    #[error("{name}: expected {expected}, got {got}")]
    Value {
        /// The setting's name.
        name: &'static str,
        /// The values that it takes.
        expected: String,
        /// The given value, or only its type where it may be secret.
        got: String,
    },
    /// A setting that would break the ordering contract (S8).
    #[error("{name} is refused: {why}")]
    Unsafe {
        /// The setting's name.
        name: &'static str,
        /// The part of the contract that it would break.
        why: &'static str,
    },
    /// A refusal of the settings by the backend itself.
    #[error("{error}")]
    Backend {
        /// The backend's error.
        error: Error,
    },
    /// A setting that must be there.
    #[error("{name} is missing: expected {expected}")]
    Missing {
        /// The setting's name.
        name: &'static str,
        /// The values that it takes.
        expected: String,
    },
    /// Text that is not valid TOML. The error does not repeat the text.
    #[error("no valid TOML{}: {message}", line.map(|line| format!(", line {line}")).unwrap_or_default())]
    Toml {
        /// The line, counted from 1, if it is known.
        line: Option<usize>,
        /// The parser's message.
        message: String,
    },
    /// An error of one source among several.
    #[error("{origin}: {error}")]
    In {
        /// The file, the variable or the URL.
        origin: String,
        /// The error.
        error: Box<ConfigError>,
    },
    /// A file that cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file's path.
        path: PathBuf,
        /// The cause.
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

    /// Refuses the value if `wrong` holds.
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

    /// Refuses a setting that would break the contract. The name matches with or without its unit, and with underscores
    /// in place of dots.
    pub(super) fn refuse(refused: &[(&'static str, &'static str)], name: &str) -> Result<(), Self> {
        let bare = name.strip_suffix("_ms").unwrap_or(name);
        let is_it = |known: &str| known == name || known == bare || known.replace('.', "_") == name;
        match refused.iter().find(|(known, _)| is_it(known)) {
            Some((name, why)) => Err(Self::Unsafe { name, why }),
            None => Ok(()),
        }
    }

    /// Makes the error for a name that is not known, with the most similar known one.
    pub(super) fn unknown(what: &'static str, name: &str, known: Vec<&'static str>) -> Self {
        // Only a short name can be similar to a known one, and comparing long names is costly.
        let near = |known: &&'static str| (strsim::levenshtein(name, known), *known);
        let nearest = (name.len() <= 64).then(|| known.iter().map(near).min()).flatten();
        let nearest = nearest.filter(|(away, nearest)| *away <= nearest.len() / 3).map(|(_, nearest)| nearest);
        Self::Unknown { what, name: name.to_owned(), nearest, known }
    }

    /// Adds the source that the error comes from.
    pub(super) fn of(self, origin: impl std::fmt::Display) -> Self {
        Self::In { origin: origin.to_string(), error: Box::new(self) }
    }
}
