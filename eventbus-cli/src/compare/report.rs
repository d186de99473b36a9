//! What a comparison says: a line of JSON per run and per summary, and a table for eyes.

use std::io::{self, Write};

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use serde::Serialize;

use super::latency::Latency;

/// One run of one workload on one backend.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Run {
    pub(crate) workload: String,
    pub(crate) backend: String,
    /// From 1 on; in a summary, how many there were.
    pub(crate) round: usize,
    pub(crate) messages: usize,
    pub(crate) confirmed: usize,
    pub(crate) handled: usize,
    /// First publish to last handled.
    pub(crate) seconds: f64,
    pub(crate) published_per_second: f64,
    pub(crate) handled_per_second: f64,
    pub(crate) publish_to_confirm_us: Option<Latency>,
    pub(crate) publish_to_handle_us: Option<Latency>,
    pub(crate) order_violations: usize,
    pub(crate) duplicates: usize,
    pub(crate) losses: usize,
    pub(crate) failed_publishes: usize,
    /// Deliveries of what was never published, or not with these bytes.
    pub(crate) foreign: usize,
    /// CPU time of the whole process, publishers and the check included.
    pub(crate) cpu_us_per_message: f64,
    /// Resident before the run, its messages included: what earlier runs left with the allocator too.
    pub(crate) start_memory_bytes: Option<u64>,
    pub(crate) peak_memory_bytes: Option<u64>,
    pub(crate) peak_tasks: usize,
    /// Which check was applied, and its rules.
    pub(crate) check: &'static str,
    /// The time as a multiple of another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ratio: Option<f64>,
    /// Of which other one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ratio_to: Option<&'static str>,
    /// What the oracle refuted, the first of each rule.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) violations: Vec<String>,
}

impl Run {
    pub(crate) fn compared_to(&mut self, what: &'static str, ratio: f64) {
        self.ratio = Some(ratio);
        self.ratio_to = Some(what);
    }

    /// Whether nothing was refuted, lost, or refused.
    pub(crate) fn is_well(&self) -> bool {
        let counts = [self.order_violations, self.duplicates, self.losses, self.failed_publishes, self.foreign];
        counts == [0; 5] && self.violations.is_empty()
    }

    /// Medians of what was measured, sums of what went wrong, the highest of the peaks.
    pub(crate) fn summary(runs: &[Self]) -> Option<Self> {
        let first = runs.first()?;
        let middle = |pick: fn(&Self) -> f64| median(runs.iter().map(pick)).unwrap_or_default();
        let sum = |pick: fn(&Self) -> usize| runs.iter().map(pick).sum();
        let latency =
            |pick: fn(&Self) -> Option<Latency>| Latency::median(&runs.iter().filter_map(pick).collect::<Vec<_>>());
        Some(Self {
            round: runs.len(),
            seconds: middle(|run| run.seconds),
            published_per_second: middle(|run| run.published_per_second),
            handled_per_second: middle(|run| run.handled_per_second),
            cpu_us_per_message: middle(|run| run.cpu_us_per_message),
            publish_to_confirm_us: latency(|run| run.publish_to_confirm_us),
            publish_to_handle_us: latency(|run| run.publish_to_handle_us),
            confirmed: runs.iter().map(|run| run.confirmed).min().unwrap_or_default(),
            handled: runs.iter().map(|run| run.handled).min().unwrap_or_default(),
            order_violations: sum(|run| run.order_violations),
            duplicates: sum(|run| run.duplicates),
            losses: sum(|run| run.losses),
            failed_publishes: sum(|run| run.failed_publishes),
            foreign: sum(|run| run.foreign),
            peak_memory_bytes: runs.iter().filter_map(|run| run.peak_memory_bytes).max(),
            peak_tasks: runs.iter().map(|run| run.peak_tasks).max().unwrap_or_default(),
            ratio: median(runs.iter().filter_map(|run| run.ratio)),
            violations: runs.iter().flat_map(|run| run.violations.clone()).take(20).collect(),
            ..first.clone()
        })
    }
}

/// The middle one; of an even number the mean of the two in the middle.
pub(crate) fn median(of: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = of.collect();
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = if values.len().is_multiple_of(2) { values[values.len() / 2 - 1] } else { upper };
    Some(f64::midpoint(lower, upper))
}

/// A line of the report.
#[derive(Serialize)]
struct Line<'a> {
    /// `run` or `summary`.
    kind: &'static str,
    #[serde(flatten)]
    run: &'a Run,
    /// Handled per second as a multiple of the first backend's.
    #[serde(skip_serializing_if = "Option::is_none")]
    of_first_backend: Option<f64>,
}

/// Writes a run as a line of JSON, and gives it on at once.
pub(crate) fn write_run(mut to: impl Write, run: &Run) -> io::Result<()> {
    write_line(&mut to, &Line { kind: "run", run, of_first_backend: None })
}

/// Writes the summaries of one workload, the first backend's first.
pub(crate) fn write_summaries(mut to: impl Write, summaries: &[Run]) -> io::Result<()> {
    summaries.iter().enumerate().try_for_each(|(place, run)| {
        let of_first_backend = (place > 0).then(|| run.handled_per_second / summaries[0].handled_per_second);
        write_line(&mut to, &Line { kind: "summary", run, of_first_backend })
    })
}

fn write_line(to: &mut impl Write, line: &Line<'_>) -> io::Result<()> {
    serde_json::to_writer(&mut *to, line)?;
    to.write_all(b"\n")?;
    to.flush()
}

/// The table: for each workload a row per backend.
pub(crate) fn table(workloads: &[Vec<Run>]) -> String {
    let several = workloads.iter().any(|backends| backends.len() > 1);
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Disabled);
    let mut header =
        vec!["workload", "published/s", "handled/s", "to confirm\np50 / p99 / max", "to handle\np50 / p99 / max"];
    header.extend(["order", "dup", "lost", "CPU/msg", "memory", "tasks", "check", "time"]);
    if several {
        header.insert(1, "backend");
        header.insert(4, "× first");
    }
    let texts = if several { 2 } else { 1 };
    table.set_header(header);
    for backends in workloads {
        for run in backends {
            table.add_row(row(run, &backends[0], several));
        }
    }
    let columns = table.column_count();
    for column in table.column_iter_mut().skip(texts).take(columns - texts - 2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

fn row(run: &Run, first: &Run, several: bool) -> Vec<String> {
    let latency = |latency: Option<Latency>| match latency {
        Some(l) => format!("{} / {} / {}", micros(l.p50), micros(l.p99), micros(l.max)),
        None => "–".to_owned(),
    };
    let memory = run.peak_memory_bytes.map_or("–".to_owned(), |bytes| format!("{} MiB", bytes >> 20));
    let time = match (run.ratio, run.ratio_to) {
        (Some(ratio), Some(of)) => format!("{}, {ratio:.3} {of}", seconds(run.seconds)),
        _ => seconds(run.seconds),
    };
    let mut row = vec![
        run.workload.clone(),
        rate(run.published_per_second),
        rate(run.handled_per_second),
        latency(run.publish_to_confirm_us),
        latency(run.publish_to_handle_us),
        run.order_violations.to_string(),
        run.duplicates.to_string(),
        run.losses.to_string(),
        micros(run.cpu_us_per_message),
        memory,
        run.peak_tasks.to_string(),
        run.check.split(':').next().unwrap_or_default().to_owned(),
        time,
    ];
    if several {
        row.insert(1, run.backend.clone());
        row.insert(4, format!("{:.2}", run.handled_per_second / first.handled_per_second));
    }
    row
}

fn seconds(seconds: f64) -> String {
    if seconds < 1.0 { format!("{:.0} ms", seconds * 1_000.0) } else { format!("{seconds:.2} s") }
}

fn micros(micros: f64) -> String {
    match micros {
        under if under < 10.0 => format!("{under:.1} µs"),
        under if under < 1_000.0 => format!("{under:.0} µs"),
        under if under < 1_000_000.0 => format!("{:.1} ms", under / 1_000.0),
        over => format!("{:.1} s", over / 1_000_000.0),
    }
}

/// A rate with its thousands apart.
fn rate(rate: f64) -> String {
    let digits = format!("{rate:.0}");
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), Some(2.0));
        assert_eq!(median([4.0, 1.0].into_iter()), Some(2.5));
        assert_eq!(median(std::iter::empty()), None);
    }

    #[test]
    fn a_summary_hides_nothing_that_went_wrong() {
        let run = |seconds, losses| Run { seconds, losses, ..Run::default() };
        let summary = Run::summary(&[run(1.0, 0), run(9.0, 1), run(2.0, 0)]).unwrap();
        assert_eq!((summary.seconds, summary.losses, summary.round), (2.0, 1, 3));
        assert!(!summary.is_well());
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!(rate(1_234_567.4), "1 234 567");
        assert_eq!(rate(12.0), "12");
        assert_eq!(micros(1_500.0), "1.5 ms");
        let table = table(&[vec![Run { workload: "w".into(), backend: "a".into(), ..Run::default() }]]);
        assert!(table.contains("workload") && !table.contains("backend"), "{table}");
    }
}
