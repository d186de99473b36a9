//! Report of `publish` on its lines: receipts on stdout, refusals and a summary on stderr.

use std::io::{self, Write};

use eventbus::{Error, ErrorKind, Key, Receipt};
use serde::Serialize;

use super::flight::Outcome;
use crate::exit::{Exit, Failure};
use crate::voice::say;

/// The most failures that are reported one by one.
const TOLD: u64 = 20;
/// Bytes of receipts at which they are written.
const LARGE: usize = 64 << 10;

/// Reason why no more lines are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    Input,
    /// A line is broken; the message names it.
    Broken(String),
    Interrupted,
    Output,
}

#[derive(Debug)]
pub(super) struct Report {
    receipts: bool,
    written: Vec<u8>,
    /// Error since which receipts cannot be written.
    broken: Option<io::Error>,
    confirmed: u64,
    refused: u64,
    unknown: u64,
}

#[derive(Serialize)]
struct Line<'a> {
    line: usize,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    partition: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duplicate: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Returns whether the line is certainly not stored.
fn is_refusal(error: &Error) -> bool {
    error.kind() != ErrorKind::Unknown
}

impl Report {
    pub(super) const fn new(receipts: bool) -> Self {
        Self { receipts, written: Vec::new(), broken: None, confirmed: 0, refused: 0, unknown: 0 }
    }

    pub(super) const fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    pub(super) const fn is_large(&self) -> bool {
        self.written.len() >= LARGE
    }

    /// Counts a line's outcome, and writes its receipt into the buffer.
    pub(super) fn outcome(&mut self, outcome: &Outcome) {
        let Some(result) = &outcome.result else { return };
        match result {
            Ok(_) => self.confirmed += 1,
            Err(error) => self.failed(error, Some(outcome.line.number)),
        }
        if !self.receipts || self.is_broken() {
            return;
        }
        let receipt: Option<&Receipt> = result.as_ref().ok();
        let line = Line {
            line: outcome.line.number,
            id: &outcome.line.id,
            key: outcome.line.key.as_ref().and_then(Key::as_str),
            outcome: match result {
                Ok(_) => "confirmed",
                Err(error) if is_refusal(error) => "refused",
                Err(_) => "unknown",
            },
            partition: receipt.map(|receipt| receipt.partition),
            position: receipt.map(|receipt| receipt.position.get()),
            duplicate: receipt.map(|receipt| receipt.duplicate),
            error: result.as_ref().err().map(ToString::to_string),
        };
        match serde_json::to_writer(&mut self.written, &line) {
            Ok(()) => self.written.push(b'\n'),
            Err(error) => self.broken = Some(error.into()),
        }
    }

    /// Counts the end of a publish whose line nobody waits for.
    pub(super) fn fired(&mut self, error: Option<&Error>) {
        match error {
            None => self.confirmed += 1,
            Some(error) => self.failed(error, None),
        }
    }

    /// Counts publishes whose end is not known.
    pub(super) const fn lost(&mut self, count: usize) {
        self.unknown += count as u64;
    }

    fn failed(&mut self, error: &Error, line: Option<usize>) {
        if is_refusal(error) {
            self.refused += 1;
        } else {
            self.unknown += 1;
        }
        let told = self.refused + self.unknown;
        if told <= TOLD {
            match line {
                Some(line) => say(format_args!("line {line}: {error}")),
                None => say(error),
            }
        } else if told == TOLD + 1 {
            say("further failures are counted only");
        }
    }

    pub(super) fn flush(&mut self) {
        let written = std::mem::take(&mut self.written);
        if written.is_empty() || self.is_broken() {
            return;
        }
        let mut out = io::stdout().lock();
        self.broken = out.write_all(&written).and_then(|()| out.flush()).err();
    }

    /// Says the summary, and ends the command.
    pub(super) fn end(self, ended: Ended, interrupted: bool) -> Result<Exit, Failure> {
        say(format_args!("{} confirmed, {} refused, {} unknown", self.confirmed, self.refused, self.unknown));
        if let Some(error) = self.broken {
            return Err(Failure::failed(format!("receipts cannot be written: {error}")));
        }
        if let Ended::Broken(line) = ended {
            return Err(Failure::failed(line));
        }
        if self.refused + self.unknown > 0 {
            return Ok(Exit::Failed);
        }
        Ok(if interrupted { Exit::Interrupted } else { Exit::Well })
    }
}
