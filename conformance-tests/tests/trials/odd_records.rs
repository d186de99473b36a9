//! Records that a client cannot take, and positions that hold none: written by others, read by a running member.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use conformance_tests::suite::{Peer, RawRecord, Run, produce};
use eventbus_core::dead_letter::topic_of;
use eventbus_core::{
    Delivery, Envelope, ErrorKind, EventBusExt, FailurePolicy, GroupPartition, Handler, Position, StartFrom, Subscribe,
    Subscription, TopicSpec, handler_fn,
};
use rand::{Rng, SeedableRng};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::operator::Operator;
use super::raw_records::{bytes, drawn};
use super::world::{GROUP, TOPIC, Tested, with_topic, wrong};

const PATIENCE: Duration = Duration::from_secs(20);

/// The places that were handled: partition and position.
type Handled = Arc<Mutex<BTreeSet<(u32, u64)>>>;

fn noting(handled: &Handled) -> Arc<dyn Handler> {
    let handled = handled.clone();
    handler_fn(move |delivery: Delivery| {
        let handled = handled.clone();
        async move {
            handled.lock().unwrap().insert((delivery.partition(), delivery.position().get()));
            Ok(())
        }
    })
}

fn options() -> Subscribe {
    Subscribe::to(TOPIC).group(GROUP).concurrency(8).session_timeout(Duration::from_secs(6))
}

/// The broker's address, and the name of a topic there.
fn outside(peer: &Peer, topic: &str) -> Result<(String, String), conformance_tests::suite::Failure> {
    let (url, prefix) = peer.connection().outside().ok_or_else(|| wrong("no way to the broker"))?;
    let address = url.trim_start_matches("kafka://").split('?').next().unwrap_or_default().to_owned();
    Ok((address, format!("{prefix}{topic}")))
}

async fn store(
    peer: &Peer,
    partition: i32,
    record: RawRecord,
) -> Result<(u32, u64), conformance_tests::suite::Failure> {
    let (address, name) = outside(peer, TOPIC)?;
    let stored = tokio::task::spawn_blocking(move || produce(&address, &name, partition, &record)).await;
    let offset = stored.map_err(wrong)?.map_err(wrong)?;
    Ok((partition as u32, offset as u64))
}

/// Waits until the group's description is so, or its subscription has ended by itself.
async fn until_group(subscription: &Subscription, what: &str, holds: impl Fn(&[GroupPartition]) -> bool) -> Tested {
    let look = async {
        loop {
            match subscription.lag().await {
                Ok(seen) if holds(&seen) => return Ok(()),
                // The coordinator admits the first member of a group a moment after the subscription has begun.
                Err(error) if error.kind() != ErrorKind::UnknownGroup && !error.is_retryable() => {
                    return Err(error.into());
                }
                _ => {}
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        ended = subscription.closed() => Err(wrong(format!("{what}: the subscription has ended: {ended:?}"))),
        seen = tokio::time::timeout(PATIENCE, look) => match seen {
            Ok(seen) => seen,
            Err(_) => Err(wrong(format!("{what}: {:?}", subscription.lag().await))),
        },
    }
}

fn no_lag(partitions: &[GroupPartition]) -> bool {
    partitions.iter().all(|partition| partition.lag == 0 && partition.oldest.is_none())
}

/// Headers, keys and values of any bytes: each record is handled, or is a dead letter, and the member goes on.
/// `EVENTBUS_ODD_RECORDS` sets their number; `scripts/fuzz` sets a large one.
pub(crate) async fn foreign_bytes_are_handled_or_dead_lettered(run: Run, _: Arc<tempfile::TempDir>) -> Tested {
    let records = std::env::var("EVENTBUS_ODD_RECORDS").map_or(Ok(150), |records| records.parse()).map_err(wrong)?;
    let peer = with_topic(&run, 3).await?;
    let handled = Handled::default();
    let subscription = peer.bus().subscribe(options().then(FailurePolicy::DeadLetter), noting(&handled)).await?;
    let letters = topic_of(&TOPIC.parse()?, &GROUP.parse()?)?;
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(run.seed());
    let mut stored = BTreeSet::new();
    for n in 0..records {
        let key = match random.random_range(0..4) {
            0 => None,
            1 => Some(bytes(&mut random, 5)),
            _ => Some(format!("k{}", n % 9).into_bytes()),
        };
        let partition = random.random_range(0..3);
        stored.insert(store(&peer, partition, drawn(&mut random, key)).await?);
    }
    // One that is certainly handled although a name is not UTF-8, and one that certainly is not.
    let odd = vec![(b"caf\xe9".to_vec(), Some(b"x".to_vec()))];
    let odd = RawRecord { key: Some(b"k".to_vec()), value: Some(b"{}".to_vec()), headers: odd, time: 1 };
    let good = store(&peer, 0, odd.clone()).await?;
    let many = store(&peer, 1, RawRecord { headers: vec![(b"a".to_vec(), None); 90_000], ..odd }).await?;
    stored.extend([good, many]);
    let ours = peer.bus().publish_confirmed(TOPIC, Envelope::builder("T", "/s").key("k").build()?).await?;
    stored.insert((ours.partition, ours.position.get()));
    until_group(&subscription, "all is handled or dead-lettered", no_lag).await?;
    let letters = peer.bus().describe_topic(letters.as_str()).await?;
    let handled = handled.lock().unwrap().clone();
    if !handled.contains(&good) || handled.contains(&many) || !handled.contains(&(ours.partition, ours.position.get()))
    {
        return Err(wrong(format!("{good:?} is to be handled, {many:?} is not: {handled:?}")));
    }
    if handled.len() as u64 + letters.records != stored.len() as u64 || !handled.is_subset(&stored) {
        let (handled, all) = (handled.len(), stored.len());
        return Err(wrong(format!("{handled} handled and {} dead letters of {all}", letters.records)));
    }
    subscription.drain(PATIENCE).await?;
    Ok(())
}

fn transactional(peer: &Peer) -> Result<(BaseProducer, String), conformance_tests::suite::Failure> {
    let (address, name) = outside(peer, TOPIC)?;
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", address).set("transactional.id", &name).create().map_err(wrong)?;
    tokio::task::block_in_place(|| producer.init_transactions(PATIENCE)).map_err(wrong)?;
    Ok((producer, name))
}

/// Writes records of partition 0 in one transaction, and leaves it open.
fn begin(producer: &BaseProducer, name: &str, records: usize) -> Tested {
    tokio::task::block_in_place(|| {
        producer.begin_transaction().map_err(wrong)?;
        for n in 0..records {
            let key = format!("t{n}");
            let record = BaseRecord::to(name).partition(0).key(&key).payload("{}");
            producer.send(record).map_err(|(error, _)| wrong(error))?;
        }
        producer.flush(PATIENCE).map_err(wrong)
    })
}

fn commit(producer: &BaseProducer) -> Tested {
    tokio::task::block_in_place(|| producer.commit_transaction(PATIENCE)).map_err(wrong)
}

fn abort(producer: &BaseProducer) -> Tested {
    tokio::task::block_in_place(|| producer.abort_transaction(PATIENCE)).map_err(wrong)
}

/// Markers of transactions, and what was taken back, are no records: no lag is left, and where retention takes them
/// nothing was lost.
pub(crate) async fn markers_of_transactions_are_no_records(run: Run, _: Arc<tempfile::TempDir>) -> Tested {
    let peer = with_topic(&run, 1).await?;
    let (producer, name) = transactional(&peer)?;
    begin(&producer, &name, 5)?;
    commit(&producer)?;
    begin(&producer, &name, 7)?;
    abort(&producer)?;
    let handled = Handled::default();
    let subscription = peer.bus().subscribe(options(), noting(&handled)).await?;
    // Five records and a marker, seven that were taken back and a marker.
    let lifted = |partitions: &[GroupPartition]| {
        partitions.iter().all(|one| one.committed.as_ref().is_some_and(|committed| committed.next == Position::new(14)))
    };
    until_group(&subscription, "the watermark is behind the last marker", |seen| lifted(seen) && no_lag(seen)).await?;
    subscription.drain(PATIENCE).await?;
    // Nobody reads what comes now.
    begin(&producer, &name, 3)?;
    abort(&producer)?;
    let lag = |described: &[GroupPartition]| described.first().map_or(u64::MAX, |one| one.lag);
    let idle = peer.bus().describe_group(TOPIC, GROUP).await?.partitions;
    begin(&producer, &name, 2)?;
    commit(&producer)?;
    let behind = peer.bus().describe_group(TOPIC, GROUP).await?.partitions;
    if (lag(&idle), lag(&behind)) != (0, 2) || behind.iter().any(|one| one.oldest.is_none()) {
        return Err(wrong(format!("taken back: {idle:?}; two that are not handled: {behind:?}")));
    }
    let subscription = peer.bus().subscribe(options(), noting(&handled)).await?;
    until_group(&subscription, "all is handled", no_lag).await?;
    subscription.drain(PATIENCE).await?;
    Operator::of(&run).await?.truncate(TOPIC, 0).await?;
    let subscription = peer.bus().subscribe(options(), noting(&handled)).await?;
    let ours = peer.bus().publish_confirmed(TOPIC, Envelope::builder("T", "/s").key("k").build()?).await?;
    until_group(&subscription, "what came after the cut is handled", |seen| {
        seen.iter().all(|one| one.committed.as_ref().is_some_and(|committed| committed.next > ours.position))
    })
    .await?;
    subscription.drain(PATIENCE).await?;
    match handled.lock().unwrap().len() {
        8 => Ok(()),
        other => Err(wrong(format!("{other} handled of 8"))),
    }
}

/// An operator's topic keeps its records for ever, in the largest numbers that the broker takes.
pub(crate) async fn topic_with_the_largest_limits_has_members(run: Run, _: Arc<tempfile::TempDir>) -> Tested {
    let largest = i64::MAX.to_string();
    let limits = [("retention.ms", &*largest), ("retention.bytes", &*largest)];
    Operator::of(&run).await?.create(TOPIC, 3, &limits).await?;
    let peer = run.process().await?;
    let handled = Handled::default();
    let subscription = peer.bus().subscribe(options().then(FailurePolicy::DeadLetter), noting(&handled)).await?;
    let ours = peer.bus().publish_confirmed(TOPIC, Envelope::builder("T", "/s").key("k").build()?).await?;
    until_group(&subscription, "all is handled", no_lag).await?;
    subscription.drain(PATIENCE).await?;
    let handled = handled.lock().unwrap().clone();
    let all = BTreeSet::from([(ours.partition, ours.position.get())]);
    if handled == all { Ok(()) } else { Err(wrong(format!("handled: {handled:?}"))) }
}

/// A group whose progress lies above another program's open transaction reads the same log as before.
pub(crate) async fn open_transaction_is_no_reset(run: Run, _: Arc<tempfile::TempDir>) -> Tested {
    let peer = with_topic(&run, 1).await?;
    let handled = Handled::default();
    let send = async || peer.bus().publish_confirmed(TOPIC, Envelope::builder("T", "/s").key("k").build()?).await;
    send().await?;
    let subscription = peer.bus().subscribe(options(), noting(&handled)).await?;
    until_group(&subscription, "the first is handled", no_lag).await?;
    subscription.drain(PATIENCE).await?;
    let (producer, name) = transactional(&peer)?;
    begin(&producer, &name, 1)?;
    let behind = send().await?;
    peer.bus().reset_group(TOPIC, GROUP, &StartFrom::Latest).await?;
    let set = peer.bus().describe_group(TOPIC, GROUP).await?.partitions;
    let next = set.first().and_then(|one| Some(one.committed.as_ref()?.next));
    if next != Some(behind.position.next()) {
        return Err(wrong(format!("set to the end of the log: {set:?}")));
    }
    let subscription = peer.bus().subscribe(options(), noting(&handled)).await?;
    // The claim is stored once the log has been compared with the progress.
    until_group(&subscription, "the partition is claimed", |seen| seen.iter().all(|one| one.owner.is_some())).await?;
    abort(&producer)?;
    let last = send().await?;
    until_group(&subscription, "what came after is handled", |seen| {
        seen.iter().all(|one| one.committed.as_ref().is_some_and(|committed| committed.next > last.position))
    })
    .await?;
    subscription.drain(PATIENCE).await?;
    let handled = handled.lock().unwrap().clone();
    if handled == BTreeSet::from([(0, 0), (0, last.position.get())]) {
        return Ok(());
    }
    Err(wrong(format!("handled: {handled:?}, the last is {last:?}")))
}

/// A group that began at the end of the log handles all that is stored in partitions that the topic was given later.
pub(crate) async fn partitions_younger_than_the_group_are_read_from_their_beginning(
    run: Run,
    _: Arc<tempfile::TempDir>,
) -> Tested {
    let peer = run.process().await?;
    peer.topic(TopicSpec::new(TOPIC).partitions(1)).await?;
    let raw = || RawRecord { key: None, value: Some(b"{}".to_vec()), headers: Vec::new(), time: 1 };
    store(&peer, 0, raw()).await?;
    let handled = Handled::default();
    let latest = || options().start(StartFrom::Latest);
    let subscription = peer.bus().subscribe(latest(), noting(&handled)).await?;
    until_group(&subscription, "the group has progress", |seen| seen.iter().all(|one| one.committed.is_some())).await?;
    subscription.drain(PATIENCE).await?;
    Operator::of(&run).await?.grow(TOPIC, 3).await?;
    let stored = tokio::time::timeout(PATIENCE, async {
        loop {
            // The broker takes a moment to lead the new partitions.
            if let Ok(stored) = store(&peer, 2, raw()).await {
                return stored;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let stored = stored.await.map_err(wrong)?;
    let other = run.process().await?;
    let subscription = other.bus().subscribe(latest(), noting(&handled)).await?;
    until_group(&subscription, "all partitions are caught up with", |seen| {
        seen.len() == 3 && seen.iter().all(|one| one.committed.is_some()) && no_lag(seen)
    })
    .await?;
    subscription.drain(PATIENCE).await?;
    let handled = handled.lock().unwrap().clone();
    if handled == BTreeSet::from([stored]) { Ok(()) } else { Err(wrong(format!("handled: {handled:?}"))) }
}
