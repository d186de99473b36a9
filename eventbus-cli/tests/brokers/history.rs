//! Real events with a right answer, through the program alone: `data/README.md` has the facts.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::Duration;

use conformance_tests::file_history::{Change, Tree};
use serde_json::Value;

use crate::program::by_key;
use crate::world::World;

const EVENTS: usize = 20_875;
const SHA256: &str = "c36f550ebdca3751b834c74dc8022b462452237ca04e32f2b86653e771ae7d63";

fn history() -> String {
    let file = File::open(concat!(env!("CARGO_MANIFEST_DIR"), "/../data/tokio-history.ndjson.gz")).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
    text
}

/// What of the input is not stored yet: of each key what comes after its prefix.
fn missing<'a>(history: &'a str, stored: &[Value]) -> Vec<&'a str> {
    let reached: BTreeMap<String, usize> = by_key(stored).into_iter().map(|(key, n)| (key, n.len())).collect();
    let is_missing = |line: &&str| {
        let event: Value = serde_json::from_str(line).unwrap();
        let reached = reached.get(event["key"].as_str().unwrap()).copied().unwrap_or_default();
        event["sequence"].as_u64().unwrap() > reached as u64
    };
    history.lines().filter(is_missing).collect()
}

/// What a member printed; the last line of a killed one may be cut off.
fn printed(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

pub(crate) fn the_fold_is_right_with_two_members_and_kills(world: &World) {
    let history = history();
    // Publishing is killed, and goes on with what is not stored.
    let mut publish = world.start("publish", &["--topic", "files", "--receipts"]);
    let mut stdin = publish.stdin.take().unwrap();
    let text = history.clone();
    let feed = std::thread::spawn(move || drop(stdin.write_all(text.as_bytes())));
    publish.take(1_000);
    publish.signal("-KILL");
    publish.wait();
    feed.join().unwrap();
    let rest = missing(&history, &world.stored("files")).join("\n");
    world.publish("files", &rest);

    // Two members share the work; one of them is killed, and another takes its place.
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let arguments = ["--topic", "files", "--group", "folding", "--idle-exit", "20"];
    let member = |name: &str| world.start_into(File::create(path(name)).unwrap(), "subscribe", &arguments);
    let (mut one, mut other) = (member("one"), member("other"));
    while printed(&path("one")).len() < 2_000 && !one.ended() {
        std::thread::sleep(Duration::from_millis(20));
    }
    one.signal("-KILL");
    one.wait();
    let mut third = member("third");
    for member in [&mut other, &mut third] {
        let (code, said) = member.wait();
        assert_eq!(code, Some(0), "{said}");
    }
    // Who handled a partition before whom is what epochs tell; each member's own lines are in order.
    let mut handled: Vec<Value> = ["one", "other", "third"].iter().flat_map(|name| printed(&path(name))).collect();
    handled.sort_by_key(|line| (line["partition"].as_u64(), line["epoch"].as_u64()));
    assert!(handled.len() >= EVENTS, "{} of {EVENTS}", handled.len());
    let mut tree = Tree::at_least_once();
    for line in &handled {
        let change: Change = serde_json::from_value(line["payload"].clone()).unwrap();
        tree.fold(line["key"].as_str().unwrap().as_bytes(), line["sequence"].as_u64().unwrap(), &change);
    }
    assert!(tree.broken().is_empty(), "out of order, first {}", tree.broken()[0]);
    assert_eq!(tree.sha256(), SHA256);
}
