//! The program as a script runs it: a process, read line by line.
#![allow(dead_code, clippy::unwrap_used)] // each test program uses a part of it

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

/// How long anything may take before a test counts as hung. Tests judge nothing by time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Makes the command with these arguments, and without the environment's configuration.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_eventbus"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("EVENTBUS_") {
            command.env_remove(name);
        }
    }
    command.args(arguments);
    command
}

/// Runs the program to its end, with this text on its standard input.
pub(crate) fn run_with(arguments: &[&str], input: &str) -> Ran {
    let mut child = command(arguments);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // A program that ends early reads no more, so writing may fail.
    let feed = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let output = child.wait_with_output().unwrap();
    feed.join().unwrap();
    Ran::of(arguments, output)
}

/// Runs the program to its end, with nothing on its standard input.
pub(crate) fn run(arguments: &[&str]) -> Ran {
    run_with(arguments, "")
}

#[derive(Debug)]
pub(crate) struct Ran {
    what: String,
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    fn of(arguments: &[&str], output: Output) -> Self {
        Self {
            what: arguments.join(" "),
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Checks the exit code, and returns the run.
    #[track_caller]
    pub(crate) fn ends_with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}\n{}", self.what, self.stdout, self.stderr);
        self
    }

    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "{}: {text:?} is not in\n{}", self.what, self.stderr);
        self
    }

    #[track_caller]
    pub(crate) fn lines(&self) -> Vec<Value> {
        lines(&self.stdout)
    }
}

#[track_caller]
pub(crate) fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))).collect()
}

/// Running program, whose lines are read as they come.
pub(crate) struct Running {
    child: Child,
    pub(crate) stdin: Option<ChildStdin>,
    lines: Option<mpsc::Receiver<String>>,
    stderr: mpsc::Receiver<String>,
}

impl Running {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::spawn(&mut command(arguments), true)
    }

    /// Starts the program with this file as its standard output.
    pub(crate) fn into_file(arguments: &[&str], file: File) -> Self {
        Self::spawn(command(arguments).stdout(file), false)
    }

    pub(crate) fn spawn(command: &mut Command, piped: bool) -> Self {
        if piped {
            command.stdout(Stdio::piped());
        }
        let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = reading(child.stderr.take().unwrap());
        let lines = child.stdout.take().map(reading);
        Self { stdin: child.stdin.take(), child, lines, stderr }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the next line; `None` at the end of the output.
    pub(crate) fn next(&mut self) -> Option<Value> {
        match self.lines.as_ref().unwrap().recv_timeout(PATIENCE) {
            Ok(line) => Some(serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"))),
            Err(mpsc::RecvTimeoutError::Disconnected) => None,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("no line came: {}", self.said()),
        }
    }

    pub(crate) fn take(&mut self, count: usize) -> Vec<Value> {
        (0..count).map(|_| self.next().unwrap_or_else(|| panic!("it ended early: {}", self.said()))).collect()
    }

    /// Returns all lines to the end of the output.
    pub(crate) fn rest(&mut self) -> Vec<Value> {
        std::iter::from_fn(|| self.next()).collect()
    }

    /// Returns all whole lines that a killed program had written.
    pub(crate) fn rest_of_a_killed(&mut self) -> Vec<Value> {
        self.lines.as_ref().unwrap().iter().filter_map(|line| serde_json::from_str(&line).ok()).collect()
    }

    pub(crate) fn write(&mut self, text: &str) {
        self.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Closes the reading end of the program's standard output.
    pub(crate) fn close_stdout(&mut self) {
        self.lines = None;
    }

    pub(crate) fn ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for the program's end. Returns the exit code, `None` if a signal ended it, and its stderr.
    pub(crate) fn wait(&mut self) -> (Option<i32>, String) {
        let code = self.child.wait().unwrap().code();
        (code, self.said())
    }

    /// Waits until the program says this on stderr, and returns the line.
    #[allow(dead_code)] // used by the tests on brokers
    pub(crate) fn hears(&mut self, what: &str) -> String {
        loop {
            match self.stderr.recv_timeout(PATIENCE) {
                Ok(line) if line.contains(what) => return line,
                Ok(_) => {}
                Err(error) => panic!("{what:?} was not said: {error}"),
            }
        }
    }

    /// Waits until the program has said this on stderr.
    pub(crate) fn said_once(&self, text: &str) {
        while !self.stderr.recv_timeout(PATIENCE).unwrap().contains(text) {}
    }

    fn said(&self) -> String {
        self.stderr.try_iter().map(|line| line + "\n").collect()
    }
}

/// Kills the program, so that none goes on after a failed test.
impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads lines on a thread, which stops, and closes its end, when nobody takes the lines any more.
fn reading(from: impl std::io::Read + Send + 'static) -> mpsc::Receiver<String> {
    let (lines, read) = mpsc::sync_channel(16);
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines() {
            let Ok(line) = line else { return };
            if lines.send(line).is_err() {
                return;
            }
        }
    });
    read
}

/// Returns events of so many keys in turn; each key's are numbered from 1 on.
pub(crate) fn events(keys: u64, events: u64) -> String {
    (0..events).map(|n| event(&format!("k{}", n % keys), n / keys + 1)).collect()
}

pub(crate) fn event(key: &str, number: u64) -> String {
    format!("{{\"key\":\"{key}\",\"type\":\"T\",\"sequence\":{number},\"payload\":{{\"n\":{number}}}}}\n")
}

/// Returns the numbers of each key, in the order of the lines.
pub(crate) fn by_key(lines: &[Value]) -> BTreeMap<String, Vec<u64>> {
    let mut keys: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for line in lines {
        let number = line["sequence"].as_u64().unwrap_or_else(|| panic!("no sequence: {line}"));
        keys.entry(line["key"].as_str().unwrap().to_owned()).or_default().push(number);
    }
    keys
}

/// Checks that each key has all its numbers, once and in order.
#[track_caller]
pub(crate) fn assert_all_once(lines: &[Value], keys: u64, events: u64) {
    let found = by_key(lines);
    assert_eq!(found.len() as u64, keys);
    for (key, numbers) in found {
        assert_eq!(numbers, (1..=events / keys).collect::<Vec<_>>(), "key {key}");
    }
}
