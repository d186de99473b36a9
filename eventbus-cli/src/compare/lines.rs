//! Lines of JSON for scripts: one per run, per summary, and per comparison with a baseline.

use std::io::{self, Write};

use serde::Serialize;

use super::baseline::Change;
use super::figures::{Run, Summary};

#[derive(Serialize)]
struct Line<'a, T> {
    /// `run`, `summary` or `baseline`.
    kind: &'static str,
    #[serde(flatten)]
    of: &'a T,
}

/// Writes a run, and flushes it. The data of the plots is in reports only.
pub(crate) fn write_run(to: impl Write, run: &Run) -> io::Result<()> {
    write(to, "run", &Run { detail: None, ..run.clone() })
}

/// Writes the summaries of one workload, in the order of the backends.
pub(crate) fn write_summaries(mut to: impl Write, summaries: &[Summary]) -> io::Result<()> {
    summaries.iter().try_for_each(|summary| {
        let run = Run { detail: None, ..summary.run.clone() };
        write(&mut to, "summary", &Summary { run, ..summary.clone() })
    })
}

pub(crate) fn write_changes(mut to: impl Write, changes: &[Change]) -> io::Result<()> {
    changes.iter().try_for_each(|change| write(&mut to, "baseline", change))
}

fn write(mut to: impl Write, kind: &'static str, of: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut to, &Line { kind, of })?;
    to.write_all(b"\n")?;
    to.flush()
}
