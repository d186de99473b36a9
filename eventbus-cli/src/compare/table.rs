//! Tables for the terminal.

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, ContentArrangement, Table};

use super::baseline::Change;
use super::figures::{Latency, Range, Run, Summary};

/// Makes the table: for each workload a row per backend, and per bare client.
pub(crate) fn of(workloads: &[Vec<Summary>]) -> String {
    let several = workloads.iter().any(|rows| rows.len() > 1);
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Disabled);
    let mut header = vec!["workload", "published/s", "handled/s\nmin – max"];
    header.extend(["to confirm\np50 / p99 / max", "to handle\np50 / p99 / max"]);
    header.extend(["order", "dup", "lost", "CPU/msg", "memory", "check", "rounds", "time"]);
    if several {
        header.insert(1, "on");
        header.splice(4..4, ["× first", "× bare"]);
    }
    let texts = if several { 2 } else { 1 };
    table.set_header(header);
    for summary in workloads.iter().flatten() {
        table.add_row(row(summary, several));
    }
    let columns = table.column_count();
    for column in table.column_iter_mut().skip(texts).take(columns - texts - 3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let confidence = confidence(workloads.iter().flatten());
    format!("{table}\n{confidence}")
}

/// Words what the rows are, and the confidence of the medians.
pub(crate) fn confidence<'a>(summaries: impl Iterator<Item = &'a Summary>) -> String {
    let least = summaries.filter_map(|one| Some((one.run.round, one.confidence?))).min_by_key(|(rounds, _)| *rounds);
    let least = least.map_or(String::new(), |(rounds, sure)| {
        format!(
            " The true median lies between min and max with {:.1} % confidence ({rounds} rounds) or more.",
            sure * 100.0
        )
    });
    format!("Medians over the rounds; order, duplicates and losses are sums.{least}")
}

pub(crate) fn of_changes(changes: &[Change]) -> String {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["workload", "on", "handled/s\nbefore", "now", "×", "p99 to handle\nbefore", "now", ""]);
    for change in changes {
        let p99 = |of: Option<f64>| of.map_or_else(|| "–".to_owned(), micros);
        table.add_row([
            change.workload.clone(),
            change.client.on(&change.backend),
            rate(change.handled_per_second_before),
            rate(change.handled_per_second),
            format!("{:.2}", change.ratio),
            p99(change.p99_before_us),
            p99(change.p99_us),
            change.word().to_owned(),
        ]);
    }
    for column in table.column_iter_mut().skip(2).take(5) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

fn row(summary: &Summary, several: bool) -> Vec<String> {
    let run = &summary.run;
    let mut handled = rate(run.handled_per_second);
    if run.round > 1 {
        handled += &format!("\n{}", range(summary.handled_range));
    }
    let mut row = vec![
        run.workload.clone(),
        rate(run.published_per_second),
        handled,
        latency(run.publish_to_confirm_us),
        latency(run.publish_to_handle_us),
        run.order_violations.to_string(),
        run.duplicates.to_string(),
        run.losses.to_string(),
        micros(run.cpu_us_per_message),
        run.peak_memory_bytes.map_or("–".to_owned(), |bytes| format!("{} MiB", bytes >> 20)),
        run.check.split(':').next().unwrap_or_default().to_owned(),
        run.round.to_string(),
        time(run),
    ];
    if several {
        let ratio = |ratio: Option<f64>| ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}"));
        row.insert(1, run.client.on(&run.backend));
        row.splice(4..4, [ratio(summary.of_first_backend), ratio(summary.of_bare_client)]);
    }
    row
}

/// Words the time of a run, what it is compared with, and what was different on this backend.
pub(crate) fn time(run: &Run) -> String {
    let ratio = run.ratio.zip(run.ratio_to.as_ref()).map(|(ratio, of)| format!(", {ratio:.3} {of}"));
    let note = run.note.as_ref().map(|note| format!(", {note}"));
    seconds(run.seconds) + &ratio.unwrap_or_default() + &note.unwrap_or_default()
}

pub(crate) fn latency(latency: Option<Latency>) -> String {
    let told = |l: Latency| format!("{} / {} / {}", micros(l.p50), micros(l.p99), micros(l.max));
    latency.map_or_else(|| "–".to_owned(), told)
}

pub(crate) fn range(range: Range) -> String {
    format!("{} – {}", rate(range.min), rate(range.max))
}

pub(crate) fn seconds(seconds: f64) -> String {
    if seconds < 1.0 { format!("{:.0} ms", seconds * 1_000.0) } else { format!("{seconds:.2} s") }
}

pub(crate) fn micros(micros: f64) -> String {
    match micros {
        under if under < 10.0 => format!("{under:.1} µs"),
        under if under < 1_000.0 => format!("{under:.0} µs"),
        under if under < 1_000_000.0 => format!("{:.1} ms", under / 1_000.0),
        over => format!("{:.1} s", over / 1_000_000.0),
    }
}

/// Writes a rate with its thousands apart.
pub(crate) fn rate(rate: f64) -> String {
    let digits = format!("{rate:.0}");
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(rate(1_234_567.4), "1 234 567");
        assert_eq!(rate(12.0), "12");
        assert_eq!(micros(1_500.0), "1.5 ms");
        let run = Run { workload: "w".into(), backend: "a".into(), ..Run::default() };
        let table = of(&[Summary::of(&[run]).into_iter().collect()]);
        assert!(table.contains("workload") && !table.contains("× first"), "{table}");
    }
}
