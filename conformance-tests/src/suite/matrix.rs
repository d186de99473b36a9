//! The matrix of a run of the suite: one line a case, one column a backend.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::ability::Ability;
use super::case::Case;
use super::registry::CASES;

/// The outcome of a case on one backend.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// All demands held.
    Pass,
    /// The fixture lacks these abilities; at least one.
    Skip(Vec<Ability>),
    /// A demand did not hold.
    Fail {
        /// The demand, and what was found.
        message: String,
        /// The seed that shows it.
        seed: u64,
        /// The file of the history, if it could be written.
        history: Option<PathBuf>,
    },
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pass => f.write_str("PASS"),
            Self::Skip(missing) => {
                let names: Vec<&str> = missing.iter().map(|ability| ability.as_str()).collect();
                write!(f, "SKIP (cannot {})", names.join(", "))
            }
            Self::Fail { seed, history, .. } => match history {
                Some(path) => write!(f, "FAIL ({}, seed {seed})", path.display()),
                None => write!(f, "FAIL (seed {seed})"),
            },
        }
    }
}

/// Outcomes of many cases on some backends. Printed by `Display`.
#[derive(Clone, Debug, Default)]
pub struct Matrix {
    columns: Vec<String>,
    cells: BTreeMap<(&'static str, usize), Outcome>,
}

impl Matrix {
    /// A matrix with these backends as columns.
    #[must_use]
    pub fn new(columns: Vec<String>) -> Self {
        Self { columns, cells: BTreeMap::new() }
    }

    /// Enters an outcome. A column that is not there yet is added.
    pub fn enter(&mut self, case: &Case, column: &str, outcome: Outcome) {
        let index = self.columns.iter().position(|known| known == column).unwrap_or_else(|| {
            self.columns.push(column.to_owned());
            self.columns.len() - 1
        });
        self.cells.insert((case.name, index), outcome);
    }

    /// Numbers of cells that passed, were skipped, failed.
    #[must_use]
    pub fn totals(&self) -> (usize, usize, usize) {
        self.cells.values().fold((0, 0, 0), |(pass, skip, fail), outcome| match outcome {
            Outcome::Pass => (pass + 1, skip, fail),
            Outcome::Skip(_) => (pass, skip + 1, fail),
            Outcome::Fail { .. } => (pass, skip, fail + 1),
        })
    }

    /// The case's cells. Columns with the same text are put together: most often that is all of them.
    fn row(&self, case: &Case) -> Vec<(String, String)> {
        let mut said: Vec<(String, Vec<&str>)> = Vec::new();
        for (index, column) in self.columns.iter().enumerate() {
            let text = self.cells.get(&(case.name, index)).map_or_else(|| "not run".to_owned(), ToString::to_string);
            match said.iter_mut().find(|(known, _)| *known == text) {
                Some((_, columns)) => columns.push(column),
                None => said.push((text, vec![column])),
            }
        }
        let all = self.columns.len();
        let place = |columns: Vec<&str>| if columns.len() == all { String::new() } else { columns.join(", ") };
        said.into_iter().map(|(text, columns)| (text, place(columns))).collect()
    }
}

impl fmt::Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "conformance on {}", self.columns.join(", "))?;
        for case in CASES {
            for (line, (text, columns)) in self.row(case).into_iter().enumerate() {
                let (number, title) = if line == 0 { (case.number, case.title) } else { ("", "") };
                let priority = if line == 0 { case.priority.as_str() } else { "" };
                write!(f, "{priority:<2} {number:<3} {title:<88} {text}")?;
                if columns.is_empty() { writeln!(f)? } else { writeln!(f, " on {columns}")? }
            }
        }
        let (pass, skip, fail) = self.totals();
        writeln!(f, "{pass} PASS, {skip} SKIP, {fail} FAIL")
    }
}
