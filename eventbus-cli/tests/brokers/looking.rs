//! `lag`, `topics` and `groups` on a broker.

use serde_json::Value;

use crate::program::{by_key, event, events};
use crate::world::World;

const GROUP: [&str; 4] = ["--topic", "t", "--group", "g"];

pub(crate) fn lag_counts_records(world: &World) {
    world.run_with("publish", &["--topic", "t", "--partitions", "4"], &events(20, 100)).ends_with(0);
    world.run("lag", &GROUP).ends_with(1).says("unknown group");
    world.run("lag", &["--topic", "missing", "--group", "g"]).ends_with(1).says("unknown topic");
    world.run("subscribe", &[&GROUP[..], &["--count", "30"]].concat()).ends_with(0);
    let lines = world.run("lag", &GROUP).ends_with(0).lines();
    let partitions: Vec<u64> = lines.iter().map(|line| line["partition"].as_u64().unwrap()).collect();
    assert_eq!(partitions, [0, 1, 2, 3]);
    // Records finished above a watermark count as lag until the watermark has passed them.
    let lag: u64 = lines.iter().map(|line| line["lag"].as_u64().unwrap()).sum();
    assert!((70..=100).contains(&lag), "{lines:?}");
    for line in &lines {
        assert!(line["committed"].is_number() && line["end"].is_number() && line["epoch"].is_number(), "{line}");
        assert!(line["owner"].is_null(), "{line}");
        assert_eq!(line["oldest_unfinished_seconds"].as_f64().is_some(), line["lag"] != 0, "{line}");
    }
    world.run("subscribe", &[&GROUP[..], &["--count", "70"]].concat()).ends_with(0);
    let lines = world.run("lag", &GROUP).ends_with(0).lines();
    assert!(lines.iter().all(|line| line["lag"] == 0 && line["oldest_unfinished_seconds"].is_null()), "{lines:?}");
}

pub(crate) fn lag_is_watched_until_an_interrupt(world: &World) {
    world.publish("t", &events(1, 1));
    let mut member = world.start("subscribe", &GROUP);
    member.take(1);
    let mut watch = world.start("lag", &[&GROUP[..], &["--watch=0.05"]].concat());
    // The output is several rounds, each with all partitions and their owner.
    let rounds = watch.take(48);
    assert!(rounds.iter().all(|line| line["owner"].is_string()), "{rounds:?}");
    assert_eq!(rounds.iter().filter(|line| line["partition"] == 0).count(), 3);
    watch.signal("-INT");
    assert_eq!(watch.wait().0, Some(130));
}

pub(crate) fn topics_are_made_shown_and_removed(world: &World) {
    assert_eq!(world.run("topics", &["list"]).ends_with(0).stdout, "");
    let made = world.run("topics", &["create", "t", "--partitions", "3", "--max-age", "3600"]).ends_with(0).lines();
    assert_eq!((&made[0]["topic"], &made[0]["partitions"], &made[0]["records"]), (&"t".into(), &3.into(), &0.into()));
    assert_eq!(made[0]["settings"]["max_age_ms"], 3_600_000);
    world.run("topics", &["create", "t"]).ends_with(1).says("topic exists");
    world.run("topics", &["create", "t", "--if-missing"]).ends_with(0);
    world.run("topics", &["create", "u"]).ends_with(0);
    world.publish("t", &events(5, 10));
    let listed = world.run("topics", &["list"]).ends_with(0).lines();
    let names: Vec<&str> = listed.iter().map(|line| line["topic"].as_str().unwrap()).collect();
    assert_eq!(names, ["t", "u"]);
    // Kafka does not tell its clients how many bytes it holds.
    assert_eq!(listed[0]["bytes"].is_null(), world.url.starts_with("kafka"), "{listed:?}");
    assert_eq!(listed[0]["settings"]["replicas"], 1, "{listed:?}");
    let described = world.run("topics", &["describe", "t"]).ends_with(0).lines();
    assert_eq!((&described[0]["records"], described[0]["logs"].as_array().unwrap().len()), (&10.into(), 3));
    world.run("topics", &["describe", "missing"]).ends_with(1).says("unknown topic");
    world.run("topics", &["describe"]).ends_with(2).says("TOPIC");
    world.run("topics", &["delete", "t"]).ends_with(0);
    world.run("topics", &["delete", "t"]).ends_with(1).says("unknown topic");
    assert_eq!(world.run("topics", &["list"]).ends_with(0).lines().len(), 1);
}

pub(crate) fn groups_are_shown_moved_and_forgotten(world: &World) {
    world.publish("t", &events(1, 10));
    let groups = |arguments: &[&str]| world.run("groups", &[arguments, &["--topic", "t"]].concat());
    assert_eq!(groups(&["list"]).ends_with(0).stdout, "");
    world.run("subscribe", &[&GROUP[..], &["--count", "10"]].concat()).ends_with(0);
    let listed = groups(&["list"]).ends_with(0).lines();
    assert_eq!(listed, [serde_json::json!({"group": "g", "members": [], "lag": 0})]);
    let described = groups(&["describe", "--group", "g"]).ends_with(0).lines();
    assert_eq!(described[0]["partitions"].as_array().map(Vec::len), Some(16));
    groups(&["describe"]).ends_with(2).says("--group");
    groups(&["reset", "--group", "g"]).ends_with(2).says("--from");
    groups(&["reset", "--group", "g", "--from", "earliest"]).ends_with(0);
    assert_eq!(groups(&["list"]).ends_with(0).lines()[0]["lag"], 10);
    let again = world.run("subscribe", &[&GROUP[..], &["--count", "10"]].concat()).ends_with(0).lines();
    assert_eq!(by_key(&again)["k0"], (1..=10).collect::<Vec<_>>());

    let mut member = world.start("subscribe", &GROUP);
    world.publish("t", &event("k0", 11));
    let line: Value = member.take(1).remove(0);
    let described = groups(&["describe", "--group", "g"]).ends_with(0).lines();
    assert_eq!(described[0]["members"][0], line["member"]);
    groups(&["reset", "--group", "g", "--from", "latest"]).ends_with(1).says("group active");
    groups(&["delete", "--group", "g"]).ends_with(1).says("group active");
    member.signal("-TERM");
    assert_eq!(member.wait().0, Some(130));
    groups(&["delete", "--group", "g"]).ends_with(0);
    assert_eq!(groups(&["list"]).ends_with(0).stdout, "");
    groups(&["delete", "--group", "g"]).ends_with(1).says("unknown group");
}
