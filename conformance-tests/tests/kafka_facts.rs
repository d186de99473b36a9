//! Behaviour seen on a real Kafka broker, and tests that the bus keeps its contract all the same.
//!
//! | fact | test |
//! |---|---|
//! | a refused batch ends the producer; some records behind it get no report | `lowered_limit_takes_innocents_along` |
//! | a topic that vanishes fails queued records, and the producer stays failed | `vanished_topic_takes_another_along` |
//! | a user's record can end a producer | `keyless_on_a_compacted_topic_ends_the_producer` |
//! | sizes are checked by the client and by the broker in different ways | `largest_legal_event_is_refused` |
//! | a member that was evicted while it held a partition is not told | `hold_outlasts_what_the_coordinator_waits` |
//! | a member that slept is handed records of another's partitions | `frozen_past_its_session` in `members.rs` |
//! | any live member may commit any partition | `late_commit_moves_progress_back` |
//! | the first record of a client in a partition may have any number | `first_refused_lets_others_in` |
//! | a partition may be wanted back just after it was assigned | `wanted_back_before_it_is_known` |
//! | a commit waits as long as the coordinator is away | `member_waits_for_a_coordinator_that_is_away` |
//! | a broker that stood still too long names no broker; clients forget it | `broker_out_of_its_session_is_forgotten` |
//! | progress that is missing or out of range is reset in silence | `progress_out_of_range_is_reset_in_silence` |
//! | a member is not told that its topic was deleted | `deleted_topic_is_waited_for` |
//! | a header's name may be any bytes, and the client panics on it | `foreign_bytes_are_handled_or_dead_lettered` |
//! | positions may hold a transaction's marker, or what it took back | `markers_of_transactions_are_no_records` |
//! | limits are numbers up to 2^63 - 1, beyond what a topic may be asked for with | `topic_with_the_largest_limits_has_members` |
//! | an open transaction ends what a reader sees of the log | `open_transaction_is_no_reset` |
//! | a topic may grow under a group that began at its end | `partitions_younger_than_the_group_are_read_from_their_beginning` |
//! | a topic may grow under its publishers, and other clients go by the new number | `grown_topic_moves_keys` |
//!
//! The cases of the suite run on the same broker too. `EVENTBUS_TEST_KAFKA_URL` names a running one; tests that would
//! harm it are left out then.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use conformance_tests::brokers::{shut_down, sweep};
use conformance_tests::harness::steadily;
use conformance_tests::history::{Event, Kind, Start};
use conformance_tests::oracle::Expectations;
use conformance_tests::proxy::Proxy;
use conformance_tests::proxy::kafka::Rules;
use conformance_tests::suite::{
    Ability, Gate, Gated, GroupProtocol, KafkaProvider, Provider, Run, RunOptions, kafka_config,
};
use eventbus_core::backend::{Backend, Join};
use eventbus_core::{
    Envelope, ErrorKind, EventBus, EventBusExt, Key, OnExisting, Position, Subscribe, TopicSpec, handler_fn,
};
use eventbus_kafka::{KafkaBackend, KafkaEventBus};
use futures_util::future::try_join_all;
use libtest_mimic::{Arguments, Trial};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use odd_records::{
    foreign_bytes_are_handled_or_dead_lettered, markers_of_transactions_are_no_records, open_transaction_is_no_reset,
    partitions_younger_than_the_group_are_read_from_their_beginning, topic_with_the_largest_limits_has_members,
};
use operator::Operator;
use publishing_facts::{
    first_refused_lets_others_in, keyless_on_a_compacted_topic_ends_the_producer, largest_legal_event_is_refused,
    lowered_limit_takes_innocents_along, vanished_topic_takes_another_along,
};
use world::{GROUP, TOPIC, Tested, expect, judged, keys, until_ended, with_topic, wrong};

#[path = "trials/odd_records.rs"]
mod odd_records;
#[path = "trials/operator.rs"]
mod operator;
#[path = "trials/publishing_facts.rs"]
mod publishing_facts;
#[path = "trials/raw_records.rs"]
mod raw_records;
#[path = "trials/world.rs"]
mod world;

fn subscribe() -> Subscribe {
    Subscribe::to(TOPIC)
        .group(GROUP)
        .concurrency(16)
        .session_timeout(Duration::from_secs(3))
        .drain_deadline(Duration::from_secs(10))
}

/// A hand-over never takes longer than the coordinator waits for it: a longer drain deadline is refused.
async fn hold_outlasts_what_the_coordinator_waits(run: Run, _: Arc<tempfile::TempDir>) -> Tested {
    let publisher = with_topic(&run, 2).await?;
    let (url, prefix) = publisher.connection().outside().ok_or_else(|| wrong("no way to the broker"))?;
    let config = kafka_config(&url, &prefix)?.max_poll_interval(Duration::from_secs(10));
    let backend: Arc<dyn Backend> = Arc::new(KafkaBackend::new(config));
    backend.open().await?;
    let topic = backend.describe_topic(&TOPIC.parse()?).await?;
    let mut join = Join::new(topic, GROUP.parse()?, "holder");
    join.drain_deadline = Duration::from_secs(30);
    let joined = backend.join(join).await;
    let refused =
        |error: &eventbus_core::Error| matches!(error.kind(), ErrorKind::UnsafeConfig | ErrorKind::InvalidConfig);
    if !joined.as_ref().is_err_and(refused) {
        return Err(wrong(format!("a drain of 30 s where the coordinator waits 10 s: {joined:?}")));
    }
    backend.close().await?;
    Ok(())
}

/// A handler outlasts the hand-over of its partition; its member lives on, and the commit that it would then make is
/// refused.
async fn late_commit_moves_progress_back(run: Run, _: Arc<tempfile::TempDir>) -> Tested {
    let publisher = with_topic(&run, 4).await?;
    let (first, second) = (run.process().await?, run.process().await?);
    let gate = Gate::new();
    let script = Gated::new(steadily(Duration::from_millis(1)), &gate, |delivery, number| {
        // The first of each partition: whichever partition moves, one is held.
        number == 1 && delivery.position() == Position::ZERO
    });
    let one = first.subscribe(subscribe().member("one").drain_deadline(Duration::from_secs(1)), script).await?;
    publisher.publish_rounds(TOPIC, &keys("order", 100), 5).await?;
    until_ended(&run, 100).await;
    let two = second.subscribe(subscribe().member("two"), steadily(Duration::from_millis(1))).await?;
    let of_two = async || {
        let described = run.described(TOPIC, GROUP).await?;
        let partitions = described.map(|described| described.partitions).unwrap_or_default();
        let owned = partitions.into_iter().filter(|one| one.owner.as_deref() == Some(two.member()));
        Ok::<_, conformance_tests::suite::Failure>(owned.collect::<Vec<_>>())
    };
    // The second member has handled all records of the partitions that moved.
    while !Some(of_two().await?).is_some_and(|owned| !owned.is_empty() && owned.iter().all(|one| one.lag == 0)) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let reader = run.fixture().reader().await?.ok_or_else(|| wrong("no reader"))?;
    let moved: Vec<u32> = of_two().await?.into_iter().map(|one| one.partition).collect();
    gate.open();
    run.settled(TOPIC, &[GROUP]).await?;
    // Any late commit of the first member has been made by the time that it has left.
    drop(one.drain(Duration::from_secs(5)).await);
    let ends: BTreeMap<u32, u64> =
        (0..).zip(reader.bounds(&TOPIC.parse()?).await?.into_iter().map(|(_, end)| end)).collect();
    let committed: BTreeMap<u32, u64> = reader.committed(&TOPIC.parse()?, &GROUP.parse()?).await?.into_iter().collect();
    let back: Vec<_> = moved.iter().filter(|partition| committed.get(partition) != ends.get(partition)).collect();
    if !back.is_empty() {
        return Err(wrong(format!("progress of {back:?} went back: {committed:?} of {ends:?}")));
    }
    run.judge(&expect(), &[(TOPIC, &[GROUP])]).await?;
    Ok(())
}

/// A second member joins while the first still looks up what is committed for all partitions: half of them are wanted
/// back before the core has heard of them. Nobody waits for their release until a deadline takes them.
async fn wanted_back_before_it_is_known(run: Run, _: Arc<tempfile::TempDir>) -> Tested {
    let publisher = with_topic(&run, 6).await?;
    let (first, second) = (run.process().await?, run.process().await?);
    publisher.publish_rounds(TOPIC, &keys("order", 60), 2).await?;
    for n in 0..12 {
        let group = format!("{GROUP}-{n}");
        let join = || subscribe().group(&group);
        let one = first.subscribe(join(), steadily(Duration::from_millis(1))).await?;
        let two = second.subscribe(join(), steadily(Duration::from_millis(1))).await?;
        run.settled(TOPIC, &[&group]).await?;
        one.drain(Duration::from_secs(10)).await?;
        two.drain(Duration::from_secs(10)).await?;
        let expect = Expectations::new(16).quiet().log_read().overlap().group(TOPIC, &*group);
        run.judge(&expect, &[(TOPIC, &[&group])]).await?;
    }
    let idle = run.inspect(lost_without_a_start);
    if idle.is_empty() {
        Ok(())
    } else {
        Err(wrong(format!("held until a deadline took them, and nothing handled: {idle:?}")))
    }
}

/// Lists partitions that members lost before they had handled anything of them: member, group and partition.
fn lost_without_a_start(events: &[Event]) -> Vec<(String, String, u32)> {
    let mut started = BTreeSet::new();
    let mut idle = Vec::new();
    for event in events {
        match &event.kind {
            Kind::Start(Start { group, member, partition, .. }) => {
                started.insert((member.to_string(), group.to_string(), *partition));
            }
            Kind::OwnershipLost { group, member, partition, .. } => {
                let held = (member.to_string(), group.to_string(), *partition);
                if !started.contains(&held) {
                    idle.push(held);
                }
            }
            _ => {}
        }
    }
    idle
}

/// The coordinator is away while a member works, and while it leaves: neither waits for it for ever.
async fn member_waits_for_a_coordinator_that_is_away(run: Run, _: Arc<tempfile::TempDir>) -> Tested {
    let publisher = with_topic(&run, 4).await?;
    let (first, second) = (run.process().await?, run.process().await?);
    let one = first.subscribe(subscribe(), steadily(Duration::from_millis(5))).await?;
    let two = second.subscribe(subscribe(), steadily(Duration::from_millis(5))).await?;
    publisher.publish_rounds(TOPIC, &keys("order", 100), 10).await?;
    until_ended(&run, 100).await;
    run.fault("broker frozen", true);
    let left = async {
        // The drain begins while the broker is silent.
        tokio::time::sleep(Duration::from_millis(500)).await;
        one.drain(Duration::from_secs(2)).await
    };
    let (frozen, left) = tokio::join!(run.fixture().freeze_broker(Duration::from_secs(8)), left);
    frozen?;
    run.healed("broker frozen");
    drop(left);
    run.fixture().back().await;
    publisher.publish_rounds(TOPIC, &keys("order", 100), 2).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    run.judge(&expect(), &[(TOPIC, &[GROUP])]).await?;
    drop(two);
    Ok(())
}

/// A broker that stood still for longer than its own session at the controller tells its clients for a moment that
/// there are no brokers; some clients then never reach one again. Publishing, handling and requests go on with new
/// clients.
async fn broker_out_of_its_session_is_forgotten(run: Run, _: Arc<tempfile::TempDir>) -> Tested {
    let publisher = with_topic(&run, 4).await?;
    let (url, prefix) = publisher.connection().outside().ok_or_else(|| wrong("no way to the broker"))?;
    let address = url.trim_start_matches("kafka://").split('?').next().unwrap_or_default();
    let rules = Rules::new();
    let proxy = Proxy::start(address.parse().map_err(wrong)?, rules.clone()).await.map_err(wrong)?;
    let url = url.replace(address, &proxy.address().to_string());
    let bus = KafkaEventBus::connect(kafka_config(&url, &prefix)?).await?;
    let handled: Arc<Mutex<BTreeMap<String, Vec<u64>>>> = Arc::default();
    let seen = Arc::clone(&handled);
    let handler = handler_fn(move |delivery| {
        let envelope = delivery.envelope();
        let key = envelope.key().map(|key| String::from_utf8_lossy(key.as_bytes()).into_owned());
        let number = std::str::from_utf8(envelope.payload()).ok().and_then(|text| text.parse().ok());
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.entry(key.unwrap_or_default()).or_default().push(number.unwrap_or(u64::MAX));
        async { Ok(()) }
    });
    let subscription = bus.subscribe(subscribe(), handler).await?;
    let all = keys("order", 20);
    let publish = |number: u64| {
        let envelope =
            |key: &String| Envelope::builder("T", "/s").key(key.as_str()).payload(number.to_string()).build();
        let confirmed = |envelope| bus.publish_confirmed(TOPIC, envelope);
        let all: Result<Vec<_>, _> = all.iter().map(|key| envelope(key).map(confirmed)).collect();
        async move { try_join_all(all?).await.map(drop) }
    };
    for round in 0..4 {
        publish(2 * round).await?;
        rules.hide_brokers(3);
        // Each client asks every two seconds.
        while rules.still_hidden() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        publish(2 * round + 1).await?;
        let through = || {
            let handled = handled.lock().unwrap_or_else(PoisonError::into_inner);
            handled.values().filter(|numbers| numbers.last() == Some(&(2 * round + 1))).count() == all.len()
        };
        while !through() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    // Each key goes on where it stood, or again from the committed position.
    for (key, numbers) in &*handled.lock().unwrap_or_else(PoisonError::into_inner) {
        let gap = numbers.windows(2).find(|pair| pair[1] > pair[0] + 1);
        if numbers.first() != Some(&0) || gap.is_some() {
            return Err(wrong(format!("{key} was handled as {numbers:?}")));
        }
    }
    drop(subscription);
    Ok(bus.close(Duration::from_secs(10)).await?)
}

/// Progress before the beginning of the log, and progress beyond its end: each is reported, and nothing is handled.
async fn progress_out_of_range_is_reset_in_silence(run: Run, _: Arc<tempfile::TempDir>) -> Tested {
    let publisher = with_topic(&run, 1).await?;
    publisher.publish_rounds(TOPIC, &keys("order", 20), 5).await?;
    let control = run.control().await?;
    for (at, expected) in [(10, ErrorKind::DataLost), (1_000, ErrorKind::LogReset)] {
        control.reset_group(&TOPIC.parse()?, &GROUP.parse()?, &[(0, Position::new(at))]).await?;
        run.fixture().truncate(TOPIC, 0, Position::new(50)).await?;
        let subscription = publisher.subscribe(subscribe(), steadily(Duration::from_millis(1))).await?;
        let Err(error) = subscription.closed().await else { return Err(wrong("it ended without an error")) };
        if error.kind() != expected {
            return Err(wrong(format!("progress at {at} of 50 to 100: {error}")));
        }
    }
    if run.calls().is_empty() { Ok(()) } else { Err(wrong("something was handled all the same")) }
}

/// A topic that is deleted under its member ends the subscription with an error that says so.
async fn deleted_topic_is_waited_for(run: Run, _: Arc<tempfile::TempDir>) -> Tested {
    let publisher = with_topic(&run, 2).await?;
    publisher.publish_rounds(TOPIC, &keys("order", 20), 2).await?;
    let member = run.process().await?;
    let subscription = member.subscribe(subscribe(), steadily(Duration::from_millis(1))).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    Operator::of(&run).await?.delete(TOPIC).await?;
    let Err(error) = subscription.closed().await else { return Err(wrong("it ended without an error")) };
    if !matches!(error.kind(), ErrorKind::UnknownTopic | ErrorKind::LogReset) {
        return Err(wrong(format!("a deleted topic: {error}")));
    }
    // A new topic of that name is another topic.
    publisher.topic(TopicSpec::new(TOPIC).partitions(2).on_existing(OnExisting::CreateOnly)).await?;
    Ok(())
}

/// A topic that grows under a publisher: its keys stay where they are, are stopped then, and move once the new number
/// is accepted.
async fn grown_topic_moves_keys(run: Run, _: Arc<tempfile::TempDir>) -> Tested {
    let publisher = run.process_with(run.config().recount(Duration::from_millis(100))).await?;
    publisher.topic(TopicSpec::new(TOPIC).partitions(4)).await?;
    let all = keys("order", 50);
    publisher.publish_rounds(TOPIC, &all, 2).await?;
    let member = run.process().await?;
    let subscription = member.subscribe(subscribe(), steadily(Duration::from_millis(1))).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    Operator::of(&run).await?.grow(TOPIC, 8).await?;
    let stopped = loop {
        match publisher.publisher().publish(TOPIC, "probe", 0).await {
            Ok(receipt) if receipt.partition == partition_of("probe", 4) => {}
            Ok(receipt) => return Err(wrong(format!("a key moved in silence: {receipt:?}"))),
            Err(error) => break error,
        }
    };
    if stopped.kind() != ErrorKind::PartitionsChanged {
        return Err(wrong(format!("a grown topic: {stopped}")));
    }
    publisher.publisher().publish(TOPIC, "", 0).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    let bus = publisher.bus();
    let refused = bus.accept_partitions(TOPIC, 7).await.err().map(|error| error.kind());
    if refused != Some(ErrorKind::TopicMismatch) {
        return Err(wrong(format!("a number that is not the topic's: {refused:?}")));
    }
    bus.accept_partitions(TOPIC, 8).await?;
    for key in all.iter().map(String::as_str).chain(["probe"]) {
        let receipt = publisher.publisher().publish(TOPIC, key, 0).await?;
        if receipt.partition != partition_of(key, 8) {
            return Err(wrong(format!("{key} is not where other clients put it: {receipt:?}")));
        }
    }
    run.settled(TOPIC, &[GROUP]).await?;
    run.judge(&expect(), &[(TOPIC, &[GROUP])]).await?;
    drop(subscription);
    Ok(())
}

/// The client's statistics become metrics. This is behaviour of the client, not of the broker.
async fn client_tells_how_it_fares(run: Run, _: Arc<tempfile::TempDir>) -> Tested {
    // A process has one recorder.
    static SEEN: LazyLock<Snapshotter> = LazyLock::new(|| {
        let recorder = DebuggingRecorder::new();
        let seen = recorder.snapshotter();
        recorder.install().expect("no other recorder");
        seen
    });
    LazyLock::force(&SEEN);
    let publisher = with_topic(&run, 2).await?;
    let (url, prefix) = publisher.connection().outside().ok_or_else(|| wrong("no way to the broker"))?;
    let config = kafka_config(&url, &prefix)?.name(&prefix).statistics_interval(Duration::from_millis(50));
    let bus = KafkaEventBus::connect(config).await?;
    bus.publish_confirmed(TOPIC, Envelope::builder("T", "/s").key("k").build()?).await?;
    let bytes = || {
        let all = SEEN.snapshot().into_vec().into_iter();
        all.map(|(key, _, _, value)| (key.key().clone(), value)).find_map(|(key, value)| match value {
            DebugValue::Gauge(bytes)
                if key.name() == "eventbus.client.sent.bytes" && key.labels().any(|label| label.value() == prefix) =>
            {
                Some(bytes.into_inner())
            }
            _ => None,
        })
    };
    while bytes().is_none_or(|bytes| bytes < 100.0) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bus.close(Duration::from_secs(10)).await?;
    Ok(())
}

fn partition_of(key: &str, partitions: u32) -> u32 {
    Key::try_from(key).map_or(0, |key| key.partition(partitions))
}

fn run(arguments: &Arguments) -> Result<ExitCode, String> {
    let seed = RunOptions::from_env(1)?.seed;
    let running = std::env::var("EVENTBUS_TEST_KAFKA_URL").ok();
    let provider = |protocol| -> Result<Arc<dyn Provider>, String> {
        Ok(match &running {
            Some(url) => Arc::new(KafkaProvider::running(url, protocol).map_err(|error| error.to_string())?),
            None => Arc::new(KafkaProvider::containers(protocol)),
        })
    };
    if !arguments.list && running.is_none() {
        sweep().map_err(|error| error.to_string())?;
    }
    let mut trials = Vec::new();
    macro_rules! facts {
        ($($fact:ident $([$($need:ident),*])?),* $(,)?) => {$(
            for protocol in GroupProtocol::ALL {
                let provider = provider(protocol)?;
                let needs: &'static [Ability] = &[$($(Ability::$need),*)?];
                let can = needs.iter().all(|need| provider.abilities().contains(need));
                let name = format!("{}::{}", provider.name().replace(' ', "-"), stringify!($fact));
                let run = move || judged(stringify!($fact), &provider, seed, needs, $fact).map_err(Into::into);
                trials.push(Trial::test(name, run).with_ignored_flag(!can));
            }
        )*};
    }
    facts![
        lowered_limit_takes_innocents_along,
        vanished_topic_takes_another_along,
        keyless_on_a_compacted_topic_ends_the_producer,
        largest_legal_event_is_refused,
        hold_outlasts_what_the_coordinator_waits,
        late_commit_moves_progress_back,
        first_refused_lets_others_in,
        wanted_back_before_it_is_known,
        member_waits_for_a_coordinator_that_is_away[RestartBroker],
        broker_out_of_its_session_is_forgotten,
        progress_out_of_range_is_reset_in_silence,
        deleted_topic_is_waited_for,
        grown_topic_moves_keys,
        client_tells_how_it_fares,
        foreign_bytes_are_handled_or_dead_lettered,
        markers_of_transactions_are_no_records,
        topic_with_the_largest_limits_has_members,
        open_transaction_is_no_reset,
        partitions_younger_than_the_group_are_read_from_their_beginning,
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
