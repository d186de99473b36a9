//! Output of the commands that show something: a table on a terminal, NDJSON otherwise.

use std::io::{self, IsTerminal, Write};

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use serde_json::Value;

use crate::exit::Failure;
use crate::stdio;

/// Whether a table is wanted.
#[derive(Debug, clap::Args)]
pub(crate) struct Form {
    /// Prints NDJSON on a terminal, too, in place of a table
    #[arg(long)]
    json: bool,
}

impl Form {
    /// Prints rows: a table with these of their fields as columns, or all fields of each row as a line of JSON.
    pub(crate) fn print(&self, columns: &[&str], rows: &[impl Serialize]) -> Result<(), Failure> {
        let rows: Result<Vec<Value>, _> = rows.iter().map(serde_json::to_value).collect();
        let rows = rows.map_err(Failure::failed)?;
        let text = if self.is_table() { table(columns, &rows) } else { lines(&rows) };
        print(&text)
    }

    /// Whether rows are printed as a table.
    pub(crate) fn is_table(&self) -> bool {
        !self.json && io::stdout().is_terminal()
    }

    /// Clears the screen before a table that is drawn again.
    pub(crate) fn clear(&self) -> Result<(), Failure> {
        if self.is_table() { print("\x1b[H\x1b[2J") } else { Ok(()) }
    }
}

/// Writes text to stdout, and flushes it.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    stdio::output_is_open()?;
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| Failure::failed(format!("standard output cannot be written: {error}")))
}

fn lines(rows: &[Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

fn table(columns: &[&str], rows: &[Value]) -> String {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_header(columns.iter().map(|column| column.replace('_', " ").to_uppercase()));
    for row in rows {
        table.add_row(columns.iter().map(|column| cell(&row[*column])));
    }
    for (index, column) in columns.iter().enumerate() {
        let is_number = rows.iter().any(|row| row[*column].is_number());
        if is_number && let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    format!("{table}\n")
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Array(values) if values.is_empty() => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(cell).collect::<Vec<_>>().join(" "),
        Value::Object(fields) => {
            let said = fields.iter().filter(|(_, value)| !value.is_null());
            said.map(|(name, value)| format!("{name}={}", cell(value))).collect::<Vec<_>>().join(" ")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_the_columns_that_were_asked_for() {
        let rows =
            [serde_json::json!({"topic": "t", "records": 12, "bytes": null, "settings": {"replicas": 1, "x": null}})];
        let text = table(&["topic", "records", "bytes", "settings"], &rows);
        let words: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words, [["TOPIC", "RECORDS", "BYTES", "SETTINGS"], ["t", "12", "-", "replicas=1"]]);
    }
}
