//! Kills of the program by `kill -9`, in the middle of its work.

use std::collections::BTreeSet;
use std::io::Write as _;

use crate::program::{by_key, events};
use crate::world::World;

pub(crate) fn a_killed_publish_leaves_a_prefix_of_each_key(world: &World) {
    let mut publish = world.start("publish", &["--topic", "t", "--receipts"]);
    let mut stdin = publish.stdin.take().unwrap();
    // The publisher is killed long before the end of this input.
    let feed = std::thread::spawn(move || drop(stdin.write_all(events(100, 2_000_000).as_bytes())));
    let mut receipts = publish.take(3_000);
    publish.signal("-KILL");
    assert_eq!(publish.wait().0, None);
    // The receipts that it had written before the kill count, too.
    receipts.extend(publish.rest_of_a_killed());
    feed.join().unwrap();

    let stored = world.stored("t");
    for (key, numbers) in by_key(&stored) {
        assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "key {key} has a hole or is out of order");
    }
    let ids: BTreeSet<&str> = stored.iter().map(|line| line["id"].as_str().unwrap()).collect();
    let confirmed = receipts.iter().filter(|receipt| receipt["outcome"] == "confirmed");
    let lost: Vec<_> = confirmed.filter(|receipt| !ids.contains(receipt["id"].as_str().unwrap())).collect();
    assert!(lost.is_empty(), "confirmed and not stored: {lost:?}");
    assert!(stored.len() < 2_000_000);
}

pub(crate) fn a_killed_subscription_resumes_right_after(world: &World) {
    let (keys, count) = (100, 20_000);
    let group = ["--topic", "t", "--group", "g"];
    world.publish("t", &events(keys, count));
    let arguments = [&group[..], &["--concurrency", "64"]].concat();
    let mut printed = Vec::new();
    for (lines, commits) in [(2_000, false), (8_000, true)] {
        let mut subscribe = world.start("subscribe", &arguments);
        let mut of_run = subscribe.take(lines);
        // Progress is committed beside the handling: the kill may come before the first commit.
        let lag = || -> u64 {
            let lines = world.run("lag", &group).ends_with(0).lines();
            lines.iter().map(|line| line["lag"].as_u64().unwrap()).sum()
        };
        while commits && lag() == count {}
        subscribe.signal("-KILL");
        assert_eq!(subscribe.wait().0, None);
        of_run.extend(subscribe.rest_of_a_killed());
        printed.push(of_run);
    }
    // The killed member keeps its partitions until its session ends.
    let last = world.run("subscribe", &[&arguments[..], &["--idle-exit", "15"]].concat()).ends_with(0).lines();
    printed.push(last);

    // Within a run a key's numbers rise by one. A later run begins at most one after the end of the run before.
    let mut reached = std::collections::BTreeMap::<String, u64>::new();
    for run in &printed {
        for (key, numbers) in by_key(run) {
            let before = reached.get(&key).copied().unwrap_or_default();
            assert!(numbers[0] <= before + 1, "key {key} leaves out what is between {before} and {}", numbers[0]);
            assert!(numbers.windows(2).all(|two| two[1] == two[0] + 1), "key {key}: {numbers:?}");
            reached.insert(key, *numbers.last().unwrap());
        }
    }
    assert_eq!(reached.len() as u64, keys);
    assert!(reached.values().all(|last| *last == count / keys), "something is lost: {reached:?}");
    // Only lines that were not committed are repeated.
    let all: usize = printed.iter().map(Vec::len).sum();
    let (repeated, killed) = (all as u64 - count, (printed[0].len() + printed[1].len()) as u64);
    assert!(repeated < killed, "all of it was repeated: {repeated} of {killed}");
}
