//! The members in processes of their own, and who looks after them.

use std::sync::Arc;
use std::time::Duration;

use conformance_tests::history::Kind;
use conformance_tests::members::{MemberError, MemberProcess, MemberSpec, Work};
use conformance_tests::suite::{Connection, Failure};
use rand::Rng;

use super::{Chaos, GROUP, LEASE, TOPIC, say, wrong};

/// Members that a group begins with.
pub(crate) const BEGIN: usize = 3;

/// Time within which members end that have a reason to.
const ENDS: Duration = Duration::from_secs(60);

/// Beginnings of the last words of a member that nothing but an operator can cause.
const OPERATORS: [&str; 6] =
    ["log reset", "data lost", "permission denied", "unsafe config", "topic mismatch", "unknown topic"];

pub(crate) struct Member {
    pub(crate) process: MemberProcess,
    pub(crate) connection: Arc<dyn Connection>,
}

/// The largest memory (KiB) and number of threads of a member.
pub(crate) type Size = (u64, u64);

impl Chaos {
    pub(crate) async fn join(&mut self) -> Result<(), Failure> {
        self.start(|_| ()).await?.map_err(wrong)
    }

    /// Starts a member. Returns its error where it does not join.
    pub(crate) async fn start(
        &mut self,
        change: impl FnOnce(&mut MemberSpec),
    ) -> Result<Result<(), MemberError>, Failure> {
        let connection = self.run.fixture().connect().await?;
        let (server, prefix) = connection.outside().ok_or_else(|| wrong("no process of its own can connect here"))?;
        let work = Work::FailSometimes { seed: self.draws.random(), micros: 10_000, one_in: 50 };
        let mut spec = MemberSpec::new(server, prefix, TOPIC, GROUP, work);
        spec.process = self.run.next_process();
        spec.session_ms = LEASE;
        spec.history = self.folder.join(format!("member-{}.ndjson", spec.process));
        spec.passes_losses = self.operator.is_some();
        change(&mut spec);
        self.run.adopt(&spec.history);
        let program = std::env::current_exe().map_err(wrong)?.with_file_name("member");
        let started = MemberProcess::start(program, &spec).await;
        if started.is_err() {
            self.run.note(Kind::ProcessKilled { victim: spec.process });
        }
        Ok(started.map(|process| self.members.push(Member { process, connection })))
    }

    /// Has members join again after all have gone. A broker may need a moment to let them.
    pub(crate) async fn join_again(&mut self, change: impl Fn(&mut MemberSpec)) -> Result<(), Failure> {
        let began = std::time::Instant::now();
        while self.members.len() < BEGIN {
            match self.start(&change).await? {
                Err(error) if began.elapsed() > ENDS => return Err(wrong(error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Kills all members, or lets them leave.
    pub(crate) async fn away(&mut self, killed: bool) -> Result<(), Failure> {
        for mut member in std::mem::take(&mut self.members) {
            self.seen(&member);
            if killed {
                member.process.kill().await.map_err(wrong)?;
            } else {
                drop(member.process.leave().await);
            }
            self.run.note(Kind::ProcessKilled { victim: member.process.number() });
        }
        Ok(())
    }

    /// Waits until all members have ended by themselves, with words that begin like this.
    pub(crate) async fn all_end(&mut self, with: &str) -> Result<(), Failure> {
        for mut member in std::mem::take(&mut self.members) {
            self.seen(&member);
            let number = member.process.number();
            let said = tokio::time::timeout(ENDS, member.process.ended()).await;
            let said = said.map_err(|_| wrong(format!("process {number} was to end with {with:?}, and runs on")))?;
            let said = said.map_err(wrong)?.unwrap_or_default();
            if !said.starts_with(with) {
                return Err(wrong(format!("process {number} was to end with {with:?}, and said {said:?}")));
            }
            self.run.note(Kind::ProcessKilled { victim: number });
        }
        Ok(())
    }

    /// Puts others in the place of members that lost their bus for good, as a supervisor does.
    pub(crate) async fn supervise(&mut self) -> Result<(), Failure> {
        let mut left = Vec::new();
        for mut member in std::mem::take(&mut self.members) {
            if member.process.is_running() {
                self.seen(&member);
                left.push(member);
                continue;
            }
            *self.injected.entry("member ended by itself").or_default() += 1;
            self.run.note(Kind::ProcessKilled { victim: member.process.number() });
            let said = member.process.ended().await.map_err(wrong)?.unwrap_or_default();
            say(format_args!("process {} ended: {said}", member.process.number()));
            if OPERATORS.iter().any(|words| said.starts_with(words)) {
                return Err(wrong(format!("a member ended, and no operator was the reason: {said}")));
            }
        }
        self.members = left;
        if self.members.is_empty() {
            self.join().await?;
        }
        Ok(())
    }

    /// Keeps the largest memory and number of threads of a member.
    pub(crate) fn seen(&mut self, member: &Member) {
        let Some(status) = member.process.status() else { return };
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        let (memory, threads) = (number("VmRSS:").unwrap_or_default(), number("Threads:").unwrap_or_default());
        let quarter = 4.0 * self.began.elapsed().as_secs_f64() / self.time.as_secs_f64();
        let largest = &mut self.largest[(quarter as usize).min(3)];
        *largest = (largest.0.max(memory), largest.1.max(threads));
    }
}
