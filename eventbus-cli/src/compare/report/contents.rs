//! Contents of `report.json`: [`Report`].

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::environment::{self, Environment};
use crate::compare::figures::{Run, Summary};
use crate::compare::session::Outcome;
use crate::compare::workloads::Workload;
use crate::exit::Failure;

/// Version of the form of `report.json`; a reader refuses all others.
const FORM: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) form: u32,
    /// Time at which it was made, in RFC 3339.
    pub(crate) made: String,
    /// Command as it was called, with secrets masked.
    pub(crate) command: String,
    pub(crate) environment: Environment,
    pub(crate) workloads: Vec<About>,
    pub(crate) failures: Vec<String>,
    pub(crate) summaries: Vec<Summary>,
    pub(crate) runs: Vec<Run>,
}

/// Description of a workload in a line.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct About {
    pub(crate) name: String,
    pub(crate) about: String,
}

impl Report {
    pub(crate) fn of(outcome: &Outcome, workloads: &[Workload], environment: Environment) -> Self {
        // The data of the plots is kept in the summaries only: plots are drawn from those.
        let runs = outcome.runs.iter().map(|run| Run { detail: None, ..run.clone() });
        let about = |one: &Workload| About { name: one.name.clone(), about: one.about.clone() };
        let now = OffsetDateTime::now_utc();
        let now = now.replace_nanosecond(0).unwrap_or(now);
        Self {
            form: FORM,
            made: now.format(&Rfc3339).unwrap_or_default(),
            command: environment::command(),
            environment,
            workloads: workloads.iter().map(about).collect(),
            failures: outcome.failures.clone(),
            summaries: outcome.summaries.iter().flatten().cloned().collect(),
            runs: runs.collect(),
        }
    }

    /// Reads a `report.json`, or the one in a folder.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let path = if path.is_dir() { path.join("report.json") } else { path.to_owned() };
        let named = |error: &dyn std::fmt::Display| Failure::usage(format!("{}: {error}", path.display()));
        let text = fs::read_to_string(&path).map_err(|error| named(&error))?;
        let report: Self = serde_json::from_str(&text).map_err(|error| named(&format!("no report: {error}")))?;
        if report.form != FORM {
            return Err(named(&format!("a report of form {}, expected {FORM}", report.form)));
        }
        Ok(report)
    }
}
