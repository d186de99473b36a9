//! Cases that kill or freeze a member, with members in processes of their own: SIGKILL, SIGSTOP, and what the operating
//! system makes of it. The same oracle judges; logs and positions are read by the suite's own client.
//!
//! `EVENTBUS_TEST_NATS_URL` names a running server to be used instead of containers; `EVENTBUS_SEED` what is drawn.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use conformance_tests::brokers::{NatsVersion, shut_down, sweep};
use conformance_tests::history::{FinishedBy, Kind};
use conformance_tests::members::{MemberProcess, MemberSpec, Work};
use conformance_tests::oracle::{Expectations, failures_dir, write_failure};
use conformance_tests::suite::{Connection, Failure, NatsProvider, Peer, Provider, Run, RunOptions};
use eventbus_core::dead_letter::topic_of;
use eventbus_core::{FailurePolicy, Position, Subscribe, TopicSpec};
use libtest_mimic::{Arguments, Trial};

const TOPIC: &str = "orders";
const GROUP: &str = "billing";
const PROGRAM: &str = env!("CARGO_BIN_EXE_member");

type Tested = Result<(), Failure>;

fn keys(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}-{n}")).collect()
}

fn expect() -> Expectations {
    Expectations::new(16).quiet().log_read().overlap().group(TOPIC, GROUP)
}

fn wrong(error: impl std::fmt::Display) -> Failure {
    Failure::wrong(error.to_string())
}

/// A member and the connection whose place it takes.
struct Member {
    process: MemberProcess,
    _connection: Arc<dyn Connection>,
}

impl Member {
    async fn start(
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

    fn freeze(&self, run: &Run) -> Tested {
        run.fault(&self.fault(), true);
        self.process.freeze().map_err(wrong)
    }

    fn thaw(&self, run: &Run) -> Tested {
        self.process.thaw().map_err(wrong)?;
        run.healed(&self.fault());
        Ok(())
    }

    async fn kill(&mut self, run: &Run) -> Tested {
        self.process.kill().await.map_err(wrong)?;
        run.note(Kind::ProcessKilled { victim: self.process.number() });
        Ok(())
    }
}

fn unsteady(run: &Run, micros: u64) -> Work {
    Work::Unsteady { seed: run.seed(), micros }
}

async fn until_owns(run: &Run, member: &str, partitions: usize) -> Tested {
    let control = run.control().await?;
    loop {
        match control.describe_group(&TOPIC.parse()?, &GROUP.parse()?).await {
            Ok(described) => {
                let owned = described.partitions.iter().filter(|one| one.owner.as_deref() == Some(member)).count();
                if owned == partitions {
                    return Ok(());
                }
            }
            Err(error) if error.is_retryable() => {}
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn with_topic(run: &Run, partitions: u32) -> Result<Peer, Failure> {
    let publisher = run.process().await?;
    publisher.topic(TopicSpec::new(TOPIC).partitions(partitions)).await?;
    Ok(publisher)
}

fn ended(run: &Run) -> usize {
    run.count(|call| call.succeeded())
}

async fn until_ended(run: &Run, at_least: usize) {
    while ended(run) < at_least {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Case 9a: SIGSTOP past the lease, then SIGCONT.
async fn frozen_past_its_session(run: Run, folder: Arc<tempfile::TempDir>) -> Tested {
    let publisher = with_topic(&run, 6).await?;
    let work = unsteady(&run, 8_000);
    let one = Member::start(&run, &folder, work.clone(), |spec| spec.name = "one".into()).await?;
    let two = Member::start(&run, &folder, work, |spec| spec.name = "two".into()).await?;
    until_owns(&run, one.process.member(), 3).await?;
    publisher.publish_rounds(TOPIC, &keys("order", 100), 10).await?;
    until_ended(&run, 100).await;
    one.freeze(&run)?;
    until_owns(&run, two.process.member(), 6).await?;
    one.thaw(&run)?;
    until_owns(&run, one.process.member(), 3).await?;
    publisher.publish_rounds(TOPIC, &keys("order", 100), 2).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    run.judge(&expect().spread(100, 6), &[(TOPIC, &[GROUP])]).await?;
    Ok(())
}

/// Case 10: SIGKILL in the middle of keys.
async fn killed_mid_key(run: Run, folder: Arc<tempfile::TempDir>) -> Tested {
    let publisher = with_topic(&run, 6).await?;
    publisher.publish_rounds(TOPIC, &keys("order", 100), 10).await?;
    let mut one = Member::start(&run, &folder, unsteady(&run, 10_000), |_| ()).await?;
    until_ended(&run, 300).await;
    one.kill(&run).await?;
    let _two = Member::start(&run, &folder, unsteady(&run, 10_000), |_| ()).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    let verdict = run.judge(&expect().spread(100, 6), &[(TOPIC, &[GROUP])]).await?;
    if verdict.counts.repeats == 0 {
        return Err(wrong("something was running when the member was killed, and none was repeated"));
    }
    Ok(())
}

/// Case 14: members come, leave, are killed, are frozen and thawed, at random.
async fn churn(run: Run, folder: Arc<tempfile::TempDir>) -> Tested {
    let publisher = with_topic(&run, 6).await?;
    let all = keys("order", 100);
    let join = |run: Run, folder: Arc<tempfile::TempDir>| async move {
        let work = Work::Unsteady { seed: run.random(), micros: 10_000 };
        Member::start(&run, &folder, work, |spec| spec.session_ms = 1_000).await.map(|member| (member, false))
    };
    let mut members = vec![join(run.clone(), folder.clone()).await?];
    for _ in 0..24 {
        publisher.publish_rounds(TOPIC, &all, 1).await?;
        let draw = run.random();
        let index = usize::try_from(draw >> 32).unwrap_or(0) % members.len();
        match draw % 6 {
            0 | 1 if members.len() < 4 => members.push(join(run.clone(), folder.clone()).await?),
            2 if members.len() > 1 => {
                let (mut member, frozen) = members.swap_remove(index);
                if frozen {
                    member.thaw(&run)?;
                }
                // What it could not finish in time comes again; the oracle judges that.
                drop(member.process.leave().await);
            }
            3 if members.len() > 1 => members.swap_remove(index).0.kill(&run).await?,
            _ => {
                let (member, frozen) = &mut members[index];
                if *frozen {
                    member.thaw(&run)?
                } else {
                    member.freeze(&run)?
                }
                *frozen = !*frozen;
            }
        }
        tokio::time::sleep(Duration::from_millis(run.random() % 500)).await;
    }
    for (member, _) in members.iter().filter(|(_, frozen)| *frozen) {
        member.thaw(&run)?;
    }
    run.settled(TOPIC, &[GROUP]).await?;
    let verdict = run.judge(&expect().spread(100, 6), &[(TOPIC, &[GROUP])]).await?;
    if verdict.counts.sessions <= 10 {
        return Err(wrong(format!("too few sessions to show anything: {:?}", verdict.counts)));
    }
    Ok(())
}

/// Case 15a: SIGKILL behind a slow head; what a commit had named is not done again.
async fn fast_tail_is_not_repeated(run: Run, folder: Arc<tempfile::TempDir>) -> Tested {
    let publisher = with_topic(&run, 1).await?;
    publisher.publish_rounds(TOPIC, &keys("slow", 1), 1).await?;
    publisher.publish_rounds(TOPIC, &keys("fast", 100), 10).await?;
    let work = Work::FailKeys { prefix: "slow".into() };
    let for_ever = |spec: &mut MemberSpec| (spec.backoff_ms, spec.attempts) = (86_400_000, 9);
    let mut one = Member::start(&run, &folder, work, for_ever).await?;
    let last = |run: &Run| {
        let commits = run.history().events.into_iter().rev().filter_map(|event| match event.kind {
            Kind::CommitConfirmed(commit) => Some(commit.beyond.iter().map(|(from, to)| to - from).sum::<u64>()),
            _ => None,
        });
        commits.take(1).next().unwrap_or_default()
    };
    while last(&run) < 1_000 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    one.kill(&run).await?;
    let before = run.history().events.len();
    let _two = Member::start(&run, &folder, unsteady(&run, 1_000), |_| ()).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    run.judge(&expect(), &[(TOPIC, &[GROUP])]).await?;
    let again = run.count(|call| call.began >= before && !call.of("slow-0"));
    if again > 0 {
        return Err(wrong(format!("{again} were done again that a commit had named")));
    }
    Ok(())
}

fn finished(run: &Run, by: FinishedBy) -> usize {
    let of = |kind: &Kind| matches!(kind, Kind::Finished { by: found, .. } if *found == by);
    run.history().events.iter().filter(|event| of(&event.kind)).count()
}

async fn until_finished(run: &Run, by: FinishedBy, count: usize) {
    while finished(run, by) < count {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Case 17f: SIGKILL between a dead letter's write and the commit.
async fn dead_letter_then_killed(run: Run, folder: Arc<tempfile::TempDir>) -> Tested {
    let publisher = with_topic(&run, 4).await?;
    let mut all = keys("order", 20);
    all.push("k".into());
    publisher.publish_rounds(TOPIC, &all, 6).await?;
    let work = || Work::FailOne { key: "k".into(), number: 3 };
    let never = |spec: &mut MemberSpec| (spec.commit_ms, spec.attempts) = (600_000, 3);
    let mut one = Member::start(&run, &folder, work(), never).await?;
    until_finished(&run, FinishedBy::DeadLettered, 1).await;
    one.kill(&run).await?;
    let _two = Member::start(&run, &folder, work(), |spec| spec.attempts = 3).await?;
    until_finished(&run, FinishedBy::DeadLettered, 2).await;
    run.settled(TOPIC, &[GROUP]).await?;
    run.judge(&expect(), &[(TOPIC, &[GROUP])]).await?;
    // One letter for readers on this library, however many the log holds.
    let reader = run.process().await?;
    let letters = topic_of(&TOPIC.parse()?, &GROUP.parse()?)?.to_string();
    let options = Subscribe::to(letters.as_str()).group("letters").then(FailurePolicy::Skip);
    let reading = reader.subscribe(options, conformance_tests::harness::steadily(Duration::ZERO)).await?;
    run.settled(&letters, &["letters"]).await?;
    reading.drain(Duration::from_secs(5)).await?;
    let read = run.count(|call| &*call.start.group == "letters" && call.end.is_some());
    if read != 1 {
        return Err(wrong(format!("readers saw {read} letters of one envelope")));
    }
    Ok(())
}

/// Case 29b: second copies before and after SIGKILL.
async fn copies_across_a_kill(run: Run, folder: Arc<tempfile::TempDir>) -> Tested {
    let publisher = run.process().await?;
    publisher.topic(TopicSpec::new(TOPIC).partitions(2).duplicate_window(Duration::from_millis(200))).await?;
    let mut one = Member::start(&run, &folder, unsteady(&run, 1_000), |_| ()).await?;
    let all = keys("order", 20);
    publisher.publish_rounds(TOPIC, &all, 3).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    let found = run.calls().into_iter().find(|call| call.is("order-7", 2));
    let found = found.map(|call| (call.start.partition, Position::new(call.start.position)));
    let (partition, position) = found.ok_or_else(|| wrong("it was not handled"))?;
    run.fixture().store_copy(TOPIC, partition, position).await?;
    until_finished(&run, FinishedBy::DroppedCopy, 1).await;
    run.settled(TOPIC, &[GROUP]).await?;
    one.kill(&run).await?;
    run.fixture().store_copy(TOPIC, partition, position).await?;
    let _two = Member::start(&run, &folder, unsteady(&run, 1_000), |_| ()).await?;
    until_finished(&run, FinishedBy::DroppedCopy, 2).await;
    publisher.publish_rounds(TOPIC, &all, 1).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    let verdict = run.judge(&expect().copies_allowed(), &[(TOPIC, &[GROUP])]).await?;
    let handled = run.count(|call| call.is("order-7", 2));
    if (verdict.counts.copies, handled) != (2, 1) {
        return Err(wrong(format!("one with two copies was handled {handled} times: {:?}", verdict.counts)));
    }
    Ok(())
}

const PATIENCE: Duration = Duration::from_secs(120);

fn judged<F>(
    name: &str,
    provider: &Arc<dyn Provider>,
    seed: u64,
    case: impl FnOnce(Run, Arc<tempfile::TempDir>) -> F,
) -> Result<(), String>
where
    F: Future<Output = Tested> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let folder = Arc::new(tempfile::tempdir().map_err(|error| error.to_string())?);
    let run = runtime.block_on(Run::start(provider.clone(), seed, "", &[])).map_err(|error| error.to_string())?;
    let ended = runtime.block_on(async {
        let task = tokio::spawn(case(run.clone(), folder));
        match tokio::time::timeout(PATIENCE, task).await {
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

fn run(arguments: &Arguments) -> Result<ExitCode, String> {
    let seed = RunOptions::from_env(1)?.seed;
    let running = std::env::var("EVENTBUS_TEST_NATS_URL").ok();
    let providers: Vec<Arc<dyn Provider>> = match &running {
        Some(url) => vec![Arc::new(NatsProvider::running(url).map_err(|error| error.to_string())?)],
        None => NatsVersion::ALL.into_iter().map(|version| Arc::new(NatsProvider::containers(version)) as _).collect(),
    };
    if !arguments.list && running.is_none() {
        sweep().map_err(|error| error.to_string())?;
    }
    let mut trials = Vec::new();
    macro_rules! cases {
        ($($case:ident),* $(,)?) => {$(
            for provider in &providers {
                let provider = provider.clone();
                let name = format!("{}::{}", provider.name().replace(' ', "-"), stringify!($case));
                trials.push(Trial::test(name, move || {
                    judged(stringify!($case), &provider, seed, $case).map_err(Into::into)
                }));
            }
        )*};
    }
    cases![
        churn,
        frozen_past_its_session,
        killed_mid_key,
        fast_tail_is_not_repeated,
        dead_letter_then_killed,
        copies_across_a_kill,
    ];
    let conclusion = libtest_mimic::run(arguments, trials);
    if !arguments.list && running.is_none() {
        shut_down().map_err(|error| error.to_string())?;
    }
    Ok(conclusion.exit_code())
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(6);
    run(&arguments).unwrap_or_else(|error| {
        eprintln!("{error}");
        ExitCode::FAILURE
    })
}
