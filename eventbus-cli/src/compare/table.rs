//! Tables for the terminal.

use comfy_table::presets::{NOTHING, UTF8_FULL_CONDENSED};
use comfy_table::{CellAlignment, ContentArrangement, Table};

use super::baseline::Change;
use super::figures::{Client, Latency, Range, Run, Summary};

/// Width of the table, in columns, that common terminals have.
const WIDTH: u16 = 100;

/// Makes the table: for each workload a row per backend, and per bare client. It says first what order, duplicates and
/// losses came to, then rates, then latencies, and fits a terminal.
pub(crate) fn of(workloads: &[Vec<Summary>]) -> String {
    let several = workloads.iter().any(|rows| rows.len() > 1);
    let mut table = Table::new();
    table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH);
    let mut header = vec!["workload", "out of\norder", "twice", "lost", "handled/s"];
    header.extend(["to handle,\np50", "\np99"]);
    let texts = if several { 2 } else { 1 };
    if several {
        header.insert(1, "on");
        header.splice(6..6, ["×\nfirst", "×\nbare"]);
    }
    table.set_header(header);
    for summary in workloads.iter().flatten() {
        table.add_row(row(summary, several));
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if index >= texts {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    let times: String = workloads.iter().flatten().filter_map(|one| told_apart(&one.run)).collect();
    let (verdict, confidence) = (verdict(workloads.iter().flatten()), confidence(workloads.iter().flatten()));
    format!("{verdict}\n\n{}\n\n{times}{confidence} --wide has all figures.", lines.join("\n"))
}

fn row(summary: &Summary, several: bool) -> Vec<String> {
    let run = &summary.run;
    let part = |pick: fn(Latency) -> f64| run.publish_to_handle_us.map_or("–".to_owned(), |all| micros(pick(all)));
    let mut row = vec![
        run.workload.clone(),
        run.order_violations.to_string(),
        run.duplicates.to_string(),
        run.losses.to_string(),
        rate(run.handled_per_second),
        part(|all| all.p50),
        part(|all| all.p99),
    ];
    if several {
        row.insert(1, run.client.on(&run.backend));
        row.splice(6..6, [ratio(summary.of_first_backend), ratio(summary.of_bare_client)]);
    }
    row
}

/// Sums up what the bus's runs came to: the first thing that a reader wants to know.
pub(crate) fn verdict<'a>(summaries: impl Iterator<Item = &'a Summary> + Clone) -> String {
    let runs = summaries.map(|one| &one.run).filter(|run| run.client == Client::Bus);
    let sum = |pick: fn(&Run) -> usize| runs.clone().map(pick).sum::<usize>();
    format!(
        "{} out of order, {} handled twice, {} lost in {} runs of the bus",
        sum(|run| run.order_violations),
        sum(|run| run.duplicates),
        sum(|run| run.losses),
        sum(|run| run.round)
    )
}

/// Words the time of a run that is about time, or that was different on this backend; `None` for the others.
fn told_apart(run: &Run) -> Option<String> {
    let is_told = run.ratio.is_some() || run.note.is_some();
    is_told.then(|| format!("{} on {}: {}\n", run.workload, run.client.on(&run.backend), time(run)))
}

/// Words a ratio; an empty text where there is none.
pub(crate) fn ratio(ratio: Option<f64>) -> String {
    ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}"))
}

/// Makes the table with all figures, however wide.
pub(crate) fn wide(workloads: &[Vec<Summary>]) -> String {
    let several = workloads.iter().any(|rows| rows.len() > 1);
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Disabled);
    let mut header = vec!["workload", "order", "dup", "lost", "published/s", "handled/s\nmin – max"];
    header.extend(["to confirm\np50 / p99 / max", "to handle\np50 / p99 / max"]);
    header.extend(["CPU/msg", "memory", "check", "rounds", "time"]);
    let texts = if several { 2 } else { 1 };
    if several {
        header.insert(1, "on");
        header.splice(7..7, ["× first", "× bare"]);
    }
    table.set_header(header);
    for summary in workloads.iter().flatten() {
        table.add_row(wide_row(summary, several));
    }
    let columns = table.column_count();
    for column in table.column_iter_mut().skip(texts).take(columns - texts - 3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{}\n\n{table}\n{}", verdict(workloads.iter().flatten()), confidence(workloads.iter().flatten()))
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

fn wide_row(summary: &Summary, several: bool) -> Vec<String> {
    let run = &summary.run;
    let mut handled = rate(run.handled_per_second);
    if run.round > 1 {
        handled += &format!("\n{}", range(summary.handled_range));
    }
    let mut row = vec![
        run.workload.clone(),
        run.order_violations.to_string(),
        run.duplicates.to_string(),
        run.losses.to_string(),
        rate(run.published_per_second),
        handled,
        latency(run.publish_to_confirm_us),
        latency(run.publish_to_handle_us),
        micros(run.cpu_us_per_message),
        run.peak_memory_bytes.map_or("–".to_owned(), |bytes| format!("{} MiB", bytes >> 20)),
        run.check.split(':').next().unwrap_or_default().to_owned(),
        run.round.to_string(),
        time(run),
    ];
    if several {
        row.insert(1, run.client.on(&run.backend));
        row.splice(7..7, [ratio(summary.of_first_backend), ratio(summary.of_bare_client)]);
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
        let table = wide(&[Summary::of(&[run]).into_iter().collect()]);
        assert!(table.contains("workload") && !table.contains("× first"), "{table}");
    }

    #[test]
    fn the_table_fits_a_terminal_and_says_first_what_became_of_order() {
        let latency = Latency { p50: 999_900.0, p99: 999_900.0, ..Latency::default() };
        let run = |client| Run {
            workload: "ephemeral-extreme".into(),
            backend: "memory".into(),
            client,
            order_violations: 99_999,
            duplicates: 99_999,
            losses: 99_999,
            handled_per_second: 1_234_567.0,
            publish_to_handle_us: Some(latency),
            ratio: Some(1.0),
            ratio_to: Some("of the ideal time".into()),
            ..Run::default()
        };
        let summary = |client| Summary {
            of_first_backend: Some(123.0),
            of_bare_client: Some(0.5),
            ..Summary::of(&[run(client)]).unwrap()
        };
        let long =
            Run { workload: "burst messages=300 payload=10 keys=7 handler-ms=1 members=3".into(), ..run(Client::Bus) };
        let table =
            of(&[vec![summary(Client::Bus), summary(Client::Bare)], Summary::of(&[long]).into_iter().collect()]);
        for line in table.lines().skip(1).take_while(|line| !line.contains("ideal")) {
            assert!(line.chars().count() <= usize::from(WIDTH), "{} in {line}", line.chars().count());
        }
        assert!(
            table.starts_with("199998 out of order, 199998 handled twice, 199998 lost in 2 runs of the bus"),
            "{table}"
        );
        assert!(table.contains("ephemeral-extreme on memory: 0 ms, 1.000 of the ideal time"), "{table}");
    }
}
