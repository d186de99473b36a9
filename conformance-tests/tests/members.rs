//! Cases that kill or freeze a member, with members in separate processes: SIGKILL, SIGSTOP, and their effects in the
//! operating system. The same oracle judges; the suite's own client reads logs and positions.
//!
//! `EVENTBUS_TEST_NATS_URL` and `EVENTBUS_TEST_KAFKA_URL` name running servers to be used instead of containers;
//! `EVENTBUS_SEED` is the seed of all that is drawn.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use conformance_tests::brokers::{NatsVersion, shut_down, sweep};
use conformance_tests::history::{FinishedBy, Kind};
use conformance_tests::members::{MemberSpec, Work};
use conformance_tests::suite::{GroupProtocol, KafkaProvider, NatsProvider, Provider, Run, RunOptions, until_owns};
use eventbus_core::dead_letter::topic_of;
use eventbus_core::{FailurePolicy, Position, Subscribe, TopicSpec};
use libtest_mimic::{Arguments, Trial};
use world::{GROUP, Member, TOPIC, Tested, expect, judged, keys, unsteady, until_ended, with_topic, wrong};

#[path = "trials/world.rs"]
mod world;

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

/// Case 14: members join, leave, are killed, are frozen and thawed, at random.
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
                // Envelopes that it could not finish in time come again; the oracle judges that.
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

/// Case 15a: SIGKILL behind a slow head; records that a commit had named are not handled again.
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
    // Readers on this library see one letter, however many the log holds.
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

/// Providers of servers of every kind, in containers or as the environment names them.
fn providers() -> Result<Vec<Arc<dyn Provider>>, eventbus_core::Error> {
    let mut providers: Vec<Arc<dyn Provider>> = Vec::new();
    match std::env::var("EVENTBUS_TEST_NATS_URL") {
        Ok(url) => providers.push(Arc::new(NatsProvider::running(&url)?)),
        Err(_) => NatsVersion::ALL.into_iter().for_each(|one| providers.push(Arc::new(NatsProvider::containers(one)))),
    }
    for protocol in GroupProtocol::ALL {
        providers.push(match std::env::var("EVENTBUS_TEST_KAFKA_URL") {
            Ok(url) => Arc::new(KafkaProvider::running(&url, protocol)?),
            Err(_) => Arc::new(KafkaProvider::containers(protocol)),
        });
    }
    Ok(providers)
}

fn run(arguments: &Arguments) -> Result<ExitCode, String> {
    let seed = RunOptions::from_env(1)?.seed;
    let providers = providers().map_err(|error| error.to_string())?;
    if !arguments.list {
        sweep().map_err(|error| error.to_string())?;
    }
    let mut trials = Vec::new();
    macro_rules! cases {
        ($($case:ident),* $(,)?) => {$(
            for provider in &providers {
                let provider = provider.clone();
                let name = format!("{}::{}", provider.name().replace(' ', "-"), stringify!($case));
                trials.push(Trial::test(name, move || {
                    judged(stringify!($case), &provider, seed, &[], $case).map_err(Into::into)
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
    if !arguments.list {
        shut_down().map_err(|error| error.to_string())?;
    }
    Ok(conclusion.exit_code())
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Each test runs up to four processes.
    arguments.test_threads.get_or_insert(4);
    run(&arguments).unwrap_or_else(|error| {
        eprintln!("{error}");
        ExitCode::FAILURE
    })
}
