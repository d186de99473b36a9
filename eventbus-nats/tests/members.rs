//! Several members, and the fate of one that is cut off (S5).

#![allow(clippy::unwrap_used)] // tests, though not every function here is one

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::proxy::Proxy;
use common::server::Server;
use common::{Handled, connect, publish, topic};
use eventbus_core::{Delivery, EventBus, Subscribe, Subscription, handler_fn};
use eventbus_nats::{NatsConfig, NatsEventBus};

const LEASE: Duration = Duration::from_secs(2);

/// Starts of handlers, in their order over all members: partition, epoch, member.
type Starts = Arc<Mutex<Vec<(u32, u64, String)>>>;

async fn member(bus: &NatsEventBus, name: &str, handled: &Handled, starts: &Starts) -> Subscription {
    let (handled, starts) = (handled.clone(), starts.clone());
    let handler = handler_fn(move |delivery: Delivery| {
        let (handled, starts) = (handled.clone(), starts.clone());
        async move {
            let start = (delivery.partition(), delivery.epoch(), delivery.member().to_owned());
            starts.lock().unwrap().push(start);
            tokio::time::sleep(Duration::from_millis(1)).await;
            handled.push(&delivery);
            Ok(())
        }
    });
    let options = Subscribe::to("t").group("g").member(name).concurrency(16).session_timeout(LEASE);
    bus.subscribe(options, handler).await.unwrap()
}

/// Counts the partitions of each owner, by the beginning of its name; the free ones under "".
async fn owners(bus: &NatsEventBus) -> BTreeMap<String, usize> {
    let mut owners = BTreeMap::new();
    for partition in bus.describe_group("t", "g").await.map(|group| group.partitions).unwrap_or_default() {
        let owner = partition.owner.unwrap_or_default();
        *owners.entry(owner.rsplit_once('-').map_or(owner.clone(), |(name, _)| name.to_owned())).or_insert(0) += 1;
    }
    owners
}

/// Waits until `members` members share the partitions to within one.
async fn balanced(bus: &NatsEventBus, members: usize) {
    let wait = async {
        loop {
            let owners = owners(bus).await;
            let spread = owners.values().max().zip(owners.values().min()).map(|(most, least)| most - least);
            if !owners.contains_key("") && owners.len() == members && spread <= Some(1) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(20), wait).await.is_err() {
        panic!("not balanced over {members}: {:?}", owners(bus).await);
    }
}

/// Asserts that the epochs of each partition's starts only rise: no start of an older epoch comes after one of a newer.
fn assert_fenced(starts: &Starts) {
    let mut newest: BTreeMap<u32, u64> = BTreeMap::new();
    for (partition, epoch, member) in starts.lock().unwrap().iter() {
        let before = newest.entry(*partition).or_insert(*epoch);
        assert!(epoch >= before, "{member} started in epoch {epoch} of partition {partition} after {before}");
        *before = *epoch;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_come_and_go_balanced_and_nothing_is_handled_twice() {
    let server = Server::start("");
    let (handled, starts) = (Handled::default(), Starts::default());
    let buses = [connect(&server.config()).await, connect(&server.config()).await, connect(&server.config()).await];
    topic(&buses[0], "t", 16).await;
    let first = member(&buses[0], "a", &handled, &starts).await;
    balanced(&buses[0], 1).await;
    let publisher = connect(&server.config()).await;
    let publishing = tokio::spawn(async move { publish(&publisher, "t", 100, 1, 200).await });
    handled.until(2_000).await;
    let second = member(&buses[1], "b", &handled, &starts).await;
    balanced(&buses[0], 2).await;
    let third = member(&buses[2], "c", &handled, &starts).await;
    balanced(&buses[0], 3).await;
    first.drain(Duration::from_secs(10)).await.unwrap();
    balanced(&buses[0], 2).await;
    publishing.await.unwrap();
    handled.until(20_000).await;
    second.drain(Duration::from_secs(10)).await.unwrap();
    third.drain(Duration::from_secs(10)).await.unwrap();
    handled.assert_ordered();
    assert_fenced(&starts);
    assert_eq!(handled.count(), 20_000, "a planned hand-over repeats nothing");
    let group = buses[0].describe_group("t", "g").await.unwrap();
    assert_eq!(group.members, Vec::<String>::new());
    assert_eq!(group.partitions.iter().map(|partition| partition.lag).sum::<u64>(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_cut_off_past_its_lease_starts_nothing_more_and_commits_nothing() {
    let server = Server::start("");
    let proxy = Proxy::start(server.port).await;
    let (handled, starts) = (Handled::default(), Starts::default());
    let near = connect(&server.config()).await;
    let far = connect(&NatsConfig::new(format!("nats://127.0.0.1:{}", proxy.port))).await;
    topic(&near, "t", 8).await;
    let cut_off = member(&far, "far", &handled, &starts).await;
    balanced(&near, 1).await;
    let publisher = connect(&server.config()).await;
    let publishing = tokio::spawn(async move { publish(&publisher, "t", 50, 1, 200).await });
    handled.until(1_000).await;
    let taking_over = member(&near, "near", &handled, &starts).await;
    proxy.rules.frozen.store(true, Ordering::Relaxed);
    handled.until(10_000).await;
    publishing.await.unwrap();
    assert_eq!(owners(&near).await, BTreeMap::from([("near".to_owned(), 8)]));
    proxy.rules.frozen.store(false, Ordering::Relaxed);
    balanced(&near, 2).await;
    publish(&near, "t", 50, 201, 220).await;
    handled.until(11_000).await;
    for subscription in [cut_off, taking_over] {
        subscription.drain(Duration::from_secs(10)).await.unwrap();
    }
    handled.assert_ordered();
    assert_fenced(&starts);
}

#[tokio::test(flavor = "multi_thread")]
async fn handling_stops_when_the_bucket_is_out_of_reach_and_goes_on_in_the_same_epoch() {
    let server = Server::start("");
    let proxy = Proxy::start(server.port).await;
    let (handled, starts) = (Handled::default(), Starts::default());
    let bus = connect(&NatsConfig::new(format!("nats://127.0.0.1:{}", proxy.port))).await;
    topic(&bus, "t", 4).await;
    let subscription = member(&bus, "a", &handled, &starts).await;
    publish(&bus, "t", 50, 1, 10).await;
    handled.until(500).await;
    proxy.rules.no_bucket.store(true, Ordering::Relaxed);
    // Records still flow, but the lease is not renewed.
    tokio::time::sleep(LEASE * 2).await;
    publish(&bus, "t", 50, 11, 20).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(handled.distinct(), 500, "no handler starts without a lease");
    assert!(proxy.rules.dropped.load(Ordering::Relaxed) > 0);
    proxy.rules.no_bucket.store(false, Ordering::Relaxed);
    handled.until(1_000).await;
    subscription.drain(Duration::from_secs(10)).await.unwrap();
    handled.assert_ordered();
    let mut epochs: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for (partition, epoch, _) in starts.lock().unwrap().iter() {
        epochs.entry(*partition).or_default().push(*epoch);
    }
    for (partition, mut epochs) in epochs {
        epochs.dedup();
        assert_eq!(epochs.len(), 1, "partition {partition} was held all the time: {epochs:?}");
    }
    assert_eq!(handled.count(), 1_000);
}

/// Waits until the count of a rule of the proxy is used up.
async fn spent(rule: &std::sync::atomic::AtomicU64) {
    while rule.load(Ordering::Relaxed) > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_and_late_answers_to_renewals_cost_no_ownership() {
    let server = Server::start("");
    let proxy = Proxy::start(server.port).await;
    let (handled, starts) = (Handled::default(), Starts::default());
    let bus = connect(&NatsConfig::new(format!("nats://127.0.0.1:{}", proxy.port))).await;
    topic(&bus, "t", 4).await;
    let subscription = member(&bus, "a", &handled, &starts).await;
    publish(&bus, "t", 50, 1, 10).await;
    handled.until(500).await;
    proxy.rules.lose_confirmations.store(20, Ordering::Relaxed);
    publish(&bus, "t", 50, 11, 40).await;
    handled.until(2_000).await;
    spent(&proxy.rules.lose_confirmations).await;
    proxy.rules.hold_confirmations.store(4, Ordering::Relaxed);
    publish(&bus, "t", 50, 41, 50).await;
    handled.until(2_500).await;
    spent(&proxy.rules.hold_confirmations).await;
    publish(&bus, "t", 50, 51, 60).await;
    handled.until(3_000).await;
    subscription.drain(Duration::from_secs(10)).await.unwrap();
    handled.assert_ordered();
    assert_eq!(handled.count(), 3_000);
    let epochs: std::collections::BTreeSet<(u32, u64)> =
        starts.lock().unwrap().iter().map(|(p, e, _)| (*p, *e)).collect();
    assert_eq!(epochs.len(), 4, "each partition in one epoch: {epochs:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_acknowledgement_of_a_publish_leaves_one_copy_in_its_place() {
    let server = Server::start("");
    let proxy = Proxy::start(server.port).await;
    let config =
        NatsConfig::new(format!("nats://127.0.0.1:{}", proxy.port)).publish_timeout(Duration::from_millis(300));
    let bus = connect(&config).await;
    topic(&bus, "t", 4).await;
    proxy.rules.lose_acknowledgements.store(200, Ordering::Relaxed);
    publish(&bus, "t", 50, 1, 20).await;
    assert_eq!(bus.describe_topic("t").await.unwrap().records, 1_000);
    let (handled, starts) = (Handled::default(), Starts::default());
    let subscription = member(&bus, "a", &handled, &starts).await;
    handled.until(1_000).await;
    subscription.drain(Duration::from_secs(10)).await.unwrap();
    handled.assert_ordered();
}
