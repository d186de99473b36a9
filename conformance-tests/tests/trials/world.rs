//! A world for one test on a provider, with members in separate processes.
#![allow(dead_code)] // each test program uses its part

use std::sync::Arc;
use std::time::Duration;

use conformance_tests::history::Kind;
use conformance_tests::members::{MemberProcess, MemberSpec, Work};
use conformance_tests::oracle::{Expectations, failures_dir, write_failure};
use conformance_tests::suite::{Ability, Connection, Failure, Peer, Provider, Run};
use eventbus_core::TopicSpec;

pub(crate) const TOPIC: &str = "orders";
pub(crate) const GROUP: &str = "billing";
const PROGRAM: &str = env!("CARGO_BIN_EXE_member");

pub(crate) type Tested = Result<(), Failure>;

pub(crate) fn keys(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}-{n}")).collect()
}

pub(crate) fn expect() -> Expectations {
    Expectations::new(16).quiet().log_read().overlap().group(TOPIC, GROUP)
}

pub(crate) fn wrong(error: impl std::fmt::Display) -> Failure {
    Failure::wrong(error.to_string())
}

/// A member process, and the connection whose place it takes.
pub(crate) struct Member {
    pub(crate) process: MemberProcess,
    _connection: Arc<dyn Connection>,
}

impl Member {
    pub(crate) async fn start(
        run: &Run,
        folder: &tempfile::TempDir,
        work: Work,
        change: impl FnOnce(&mut MemberSpec),
    ) -> Result<Self, Failure> {
        let connection = run.fixture().connect().await?;
        let (server, prefix) = connection.outside().ok_or_else(|| wrong("no process of its own can connect here"))?;
        let mut spec = MemberSpec::new(server, prefix, TOPIC, GROUP, work);
        spec.process = run.next_process();
        spec.history = folder.path().join(format!("member-{}.ndjson", spec.process));
        change(&mut spec);
        run.adopt(&spec.history);
        let process = MemberProcess::start(PROGRAM, &spec).await.map_err(wrong)?;
        Ok(Self { process, _connection: connection })
    }

    fn fault(&self) -> String {
        format!("freeze of process {}", self.process.number())
    }

    pub(crate) fn freeze(&self, run: &Run) -> Tested {
        run.fault(&self.fault(), true);
        self.process.freeze().map_err(wrong)
    }

    pub(crate) fn thaw(&self, run: &Run) -> Tested {
        self.process.thaw().map_err(wrong)?;
        run.healed(&self.fault());
        Ok(())
    }

    pub(crate) async fn kill(&mut self, run: &Run) -> Tested {
        self.process.kill().await.map_err(wrong)?;
        run.note(Kind::ProcessKilled { victim: self.process.number() });
        Ok(())
    }
}

pub(crate) fn unsteady(run: &Run, micros: u64) -> Work {
    Work::Unsteady { seed: run.seed(), micros }
}

pub(crate) async fn with_topic(run: &Run, partitions: u32) -> Result<Peer, Failure> {
    let publisher = run.process().await?;
    publisher.topic(TopicSpec::new(TOPIC).partitions(partitions)).await?;
    Ok(publisher)
}

pub(crate) fn ended(run: &Run) -> usize {
    run.count(|call| call.succeeded())
}

pub(crate) async fn until_ended(run: &Run, at_least: usize) {
    while ended(run) < at_least {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Runs a test in a world of its own on a provider, and writes down the history of a failure.
pub(crate) fn judged<F>(
    name: &str,
    provider: &Arc<dyn Provider>,
    seed: u64,
    needs: &'static [Ability],
    case: impl FnOnce(Run, Arc<tempfile::TempDir>) -> F,
) -> Result<(), String>
where
    F: Future<Output = Tested> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let folder = Arc::new(tempfile::tempdir().map_err(|error| error.to_string())?);
    let run =
        runtime.block_on(Run::start(provider.clone(), seed, "world", needs)).map_err(|error| error.to_string())?;
    let patience = provider.patience();
    let ended = runtime.block_on(async {
        let task = tokio::spawn(case(run.clone(), folder));
        match tokio::time::timeout(patience, task).await {
            Ok(ended) => ended.unwrap_or_else(|error| Err(wrong(error))),
            Err(_) => Err(wrong(format!("hung: {}", run.waiting_for()))),
        }
    });
    runtime.shutdown_background();
    ended.map_err(|failure| {
        let verdict = failure.verdict().cloned().unwrap_or_default();
        let kept =
            write_failure(failures_dir(), &format!("{name} on {}", provider.name()), seed, &run.history(), &verdict);
        format!("{failure}\nhistory: {:?}\nseed: {seed}", kept.map(|path| path.display().to_string()))
    })
}
