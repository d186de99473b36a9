//! A member's process, as the test holds it.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::spec::MemberSpec;
use crate::history::{History, ReadError};

/// The reason why a member did not do what it was told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemberError {
    /// The member's program could not be started, or told.
    #[error("the member's program: {0}")]
    Program(#[from] io::Error),
    /// A signal could not be sent.
    #[error("no signal could be sent to the member: {0}")]
    Signal(#[from] rustix::io::Errno),
    /// The member ended or said something else.
    #[error("expected the member to say {expected:?}, it said {said:?}")]
    Said {
        /// The expected word.
        expected: &'static str,
        /// The line that came; `None` if it ended.
        said: Option<String>,
    },
    /// The member's history cannot be read.
    #[error(transparent)]
    History(#[from] ReadError),
}

/// A member that runs. Dropping it kills it.
#[derive(Debug)]
pub struct MemberProcess {
    child: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
    number: u32,
    member: String,
    history: PathBuf,
}

impl MemberProcess {
    /// Starts the member's program and waits until it has joined.
    ///
    /// # Errors
    /// If the process does not start or does not join.
    pub async fn start(program: impl AsRef<Path>, spec: &MemberSpec) -> Result<Self, MemberError> {
        let told = serde_json::to_string(spec).map_err(io::Error::from)?;
        let mut child = Command::new(program.as_ref())
            .arg(told)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let input = child.stdin.take();
        let output = child.stdout.take().ok_or_else(|| io::Error::other("it has no output"))?;
        let output = BufReader::new(output).lines();
        let (number, history) = (spec.process, spec.history.clone());
        let mut member = Self { child, input, output, number, member: String::new(), history };
        let said = member.output.next_line().await?;
        match said.as_deref().and_then(|said| said.strip_prefix("joined ")) {
            Some(name) => member.member = name.to_owned(),
            None => return Err(MemberError::Said { expected: "joined", said }),
        }
        Ok(member)
    }

    /// The member's name in the group.
    #[must_use]
    pub fn member(&self) -> &str {
        &self.member
    }

    /// The process's number in the history.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    fn signal(&self, signal: Signal) -> Result<(), MemberError> {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("it has ended"))?;
        Ok(kill_process(pid, signal)?)
    }

    /// Freezes the process: SIGSTOP.
    ///
    /// # Errors
    /// If the process has ended.
    pub fn freeze(&self) -> Result<(), MemberError> {
        self.signal(Signal::STOP)
    }

    /// Ends a freeze: SIGCONT.
    ///
    /// # Errors
    /// If the process has ended.
    pub fn thaw(&self) -> Result<(), MemberError> {
        self.signal(Signal::CONT)
    }

    /// Kills the process, SIGKILL, and waits until it is gone.
    ///
    /// # Errors
    /// If the process has ended before.
    pub async fn kill(&mut self) -> Result<(), MemberError> {
        self.signal(Signal::KILL)?;
        self.child.wait().await?;
        Ok(())
    }

    /// Tells the member to leave, and waits until its process has ended.
    ///
    /// # Errors
    /// If the process ends otherwise.
    pub async fn leave(&mut self) -> Result<(), MemberError> {
        if let Some(mut input) = self.input.take() {
            input.write_all(b"leave\n").await?;
            let said = self.output.next_line().await?;
            if said.as_deref() != Some("left") {
                return Err(MemberError::Said { expected: "left", said });
            }
        }
        self.child.wait().await?;
        Ok(())
    }

    /// Waits until the process has ended by itself. Returns why, in its words; `None` where it has said nothing.
    ///
    /// # Errors
    /// If it cannot be waited for.
    pub async fn ended(&mut self) -> Result<Option<String>, MemberError> {
        let mut last = None;
        while let Some(line) = self.output.next_line().await? {
            last = line.strip_prefix("ended: ").map(str::to_owned);
        }
        self.child.wait().await?;
        Ok(last)
    }

    /// Whether the process runs, if only frozen.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The operating system's figures of it: memory, threads and more, as in `/proc`.
    #[must_use]
    pub fn status(&self) -> Option<String> {
        std::fs::read_to_string(format!("/proc/{}/status", self.child.id()?)).ok()
    }

    /// The records that it has made so far.
    ///
    /// # Errors
    /// Where its file is no history.
    pub fn history(&self) -> Result<History, MemberError> {
        Ok(History::read(&self.history)?)
    }

    /// The file of its history.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.history
    }
}
