//! Command of the user's for each attempt: `--exec`.
//!
//! **Invariants.** Each command has its own process group, so that the terminal's Ctrl-C does not reach it. A command
//! that takes too long is killed with its group, and reaped, before the attempt counts as failed: the next attempt
//! never runs beside it. If the program's own shutdown drops an attempt, its command is killed, too, and the attempt
//! does not count.

use std::io;
use std::os::fd::AsFd;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use eventbus::Delivery;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use time::format_description::well_known::Rfc3339;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

/// How long the processes of a killed group may take until they are gone.
const GONE: Duration = Duration::from_secs(1);

/// Command to run, and how long one run may take.
#[derive(Debug)]
pub(super) struct Exec {
    command: String,
    timeout: Option<Duration>,
}

/// Running command and its process group. Both are killed if this is dropped before the command's end.
struct Group {
    child: Child,
    group: Option<Pid>,
}

impl Group {
    fn kill(&self) {
        if let Some(group) = self.group {
            // The group may have ended by itself just now.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }

    /// Kills the group, reaps the command, and waits until no process of the group is left.
    async fn end(&mut self) -> io::Result<()> {
        self.kill();
        self.child.wait().await?;
        let began = tokio::time::Instant::now();
        while let Some(group) = self.group
            && test_kill_process_group(group).is_ok()
            && began.elapsed() < GONE
        {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.group = None;
        Ok(())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Exec {
    pub(super) fn new(command: &str, timeout: Option<Duration>) -> Self {
        Self { command: command.to_owned(), timeout }
    }

    /// Runs the command for one attempt.
    ///
    /// # Errors
    /// How the command failed.
    pub(super) async fn run(&self, delivery: &Delivery, line: &[u8]) -> Result<(), String> {
        let mut running = self.start(delivery).map_err(|error| format!("the command cannot be run: {error}"))?;
        let ended = match self.timeout {
            None => finish(&mut running, line).await,
            Some(limit) => match tokio::time::timeout(limit, finish(&mut running, line)).await {
                Ok(ended) => ended,
                Err(_) => {
                    running.end().await.map_err(|error| error.to_string())?;
                    return Err(format!("the command took longer than {} s", limit.as_secs_f64()));
                }
            },
        };
        // The command is reaped: from now on its id may belong to another process.
        running.group = None;
        judge(ended.map_err(|error| format!("the command's end is not known: {error}"))?)
    }

    fn start(&self, delivery: &Delivery) -> io::Result<Group> {
        // Stdout is for the program's own lines.
        let output = io::stderr().as_fd().try_clone_to_owned()?;
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(&self.command).process_group(0).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::from(output));
        for (name, value) in variables(delivery) {
            match value.filter(|value| !value.contains('\0')) {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let child = command.spawn()?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Ok(Group { child, group })
    }
}

/// Writes the line to the command and waits for its end. A command need not read its input.
async fn finish(running: &mut Group, line: &[u8]) -> io::Result<ExitStatus> {
    let stdin = running.child.stdin.take();
    let write = async {
        if let Some(mut stdin) = stdin {
            let _ = stdin.write_all(line).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        ended = running.child.wait() => ended,
        () = write => Err(io::Error::other("unreachable")),
    }
}

fn judge(status: ExitStatus) -> Result<(), String> {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(format!("the command ended with {code}")),
        (None, Some(signal)) => Err(format!("the command was ended by signal {signal}")),
        (None, None) => Err("the command failed".to_owned()),
    }
}

/// Returns the line's short fields, for the environment.
fn variables(delivery: &Delivery) -> [(&'static str, Option<String>); 14] {
    let envelope = delivery.envelope();
    [
        ("EVENTBUS_KEY", envelope.key().and_then(|key| key.as_str()).map(str::to_owned)),
        ("EVENTBUS_ID", Some(envelope.id().to_owned())),
        ("EVENTBUS_TYPE", Some(envelope.event_type().to_owned())),
        ("EVENTBUS_SOURCE", Some(envelope.source().to_owned())),
        ("EVENTBUS_TIME", envelope.time().format(&Rfc3339).ok()),
        ("EVENTBUS_SEQUENCE", envelope.sequence().map(|sequence| sequence.to_string())),
        ("EVENTBUS_TOPIC", Some(delivery.topic().to_string())),
        ("EVENTBUS_GROUP", Some(delivery.group().to_string())),
        ("EVENTBUS_PARTITION", Some(delivery.partition().to_string())),
        ("EVENTBUS_POSITION", Some(delivery.position().to_string())),
        ("EVENTBUS_ATTEMPT", Some(delivery.attempt().to_string())),
        ("EVENTBUS_MEMBER", Some(delivery.member().to_owned())),
        ("EVENTBUS_EPOCH", Some(delivery.epoch().to_string())),
        ("EVENTBUS_REPLAYED", delivery.is_replayed().then(|| "true".to_owned())),
    ]
}
