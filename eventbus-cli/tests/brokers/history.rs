//! Real events with a known result, through the program alone. The figures are those of `data/README.md`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use conformance_tests::file_history::{Change, Tree};
use serde_json::Value;

use crate::program::{Running, by_key};
use crate::world::World;

const EVENTS: usize = 20_875;
const SHA256: &str = "c36f550ebdca3751b834c74dc8022b462452237ca04e32f2b86653e771ae7d63";

fn history() -> String {
    let file = File::open(concat!(env!("CARGO_MANIFEST_DIR"), "/../data/tokio-history.ndjson.gz")).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
    text
}

/// Returns the lines of the input that are not stored yet: for each key those after its stored prefix.
fn missing<'a>(history: &'a str, stored: &[Value]) -> Vec<&'a str> {
    let reached: BTreeMap<String, usize> = by_key(stored).into_iter().map(|(key, n)| (key, n.len())).collect();
    let is_missing = |line: &&str| {
        let event: Value = serde_json::from_str(line).unwrap();
        let reached = reached.get(event["key"].as_str().unwrap()).copied().unwrap_or_default();
        event["sequence"].as_u64().unwrap() > reached as u64
    };
    history.lines().filter(is_missing).collect()
}

/// Reads the lines that a member printed; the last line of a killed member may be cut off.
fn printed(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

pub(crate) fn the_fold_is_right_with_two_members_and_kills(world: &World) {
    let history = history();
    // The first publisher is killed; later ones publish the lines that are not stored.
    let mut publish = world.start("publish", &["--topic", "files", "--receipts"]);
    let mut stdin = publish.stdin.take().unwrap();
    let text = history.clone();
    let feed = std::thread::spawn(move || drop(stdin.write_all(text.as_bytes())));
    publish.take(1_000);
    publish.signal("-KILL");
    publish.wait();
    feed.join().unwrap();
    let stored = world.stored("files");
    let rest = missing(&history, &stored);
    let (begin, end) = rest.split_at(rest.len() / 2);
    world.publish("files", &begin.join("\n"));

    // Two members share the work. One of them is killed in the middle of it, and a third takes its place.
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let arguments = ["--topic", "files", "--group", "folding", "--idle-exit", "20"];
    let member = |name: &str| world.start_into(File::create(path(name)).unwrap(), "subscribe", &arguments);
    let mut one = member("one");
    let await_lines = |one: &mut Running, count: usize| {
        while printed(&path("one")).len() < count {
            assert!(!one.ended(), "it ended before its line {count}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    await_lines(&mut one, 500);
    let mut other = member("other");
    std::thread::scope(|scope| {
        scope.spawn(|| world.publish("files", &end.join("\n")));
        await_lines(&mut one, 2_000);
        one.signal("-KILL");
    });
    one.wait();
    let mut third = member("third");
    for member in [&mut other, &mut third] {
        let (code, said) = member.wait();
        assert_eq!(code, Some(0), "{said}");
    }
    // Epochs tell the order of a partition's owners; each member's own lines are in order.
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

/// Returns the example `file-history`, which cargo puts beside the program if it builds the whole workspace's tests.
fn example() -> PathBuf {
    let example = Path::new(env!("CARGO_BIN_EXE_eventbus")).with_file_name("examples").join("file-history");
    assert!(example.exists(), "{} is built by: cargo test --workspace", example.display());
    example
}

/// Makes a repository in which two files change, one is removed and comes back, and one has a name that is not text.
fn repository() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let script = r#"
        git init -q -b main .
        for i in $(seq 40); do
            echo $i > always; echo $((i / 3)) > sometimes; echo $((i / 2)) > "$(printf 'no text \377')"
            if [ $((i % 4)) -lt 2 ]; then echo $i > gone; else rm -f gone; fi
            git add -A; git -c user.name=T -c user.email=t@example.org -c commit.gpgSign=false commit -qm "$i"
        done"#;
    assert!(Command::new("bash").args(["-ec", script]).current_dir(&directory).status().unwrap().success());
    directory
}

pub(crate) fn another_url_is_all_that_another_broker_takes(world: &World) {
    let repository = repository();
    // The lines without the times and the counts of random failures.
    let told = |url: &str| {
        let ran = Command::new(example()).arg(repository.path()).env("EVENTBUS_URL", url).output().unwrap();
        let said = String::from_utf8(ran.stdout).unwrap();
        assert!(ran.status.success(), "{url}: {said}{}", String::from_utf8_lossy(&ran.stderr));
        said.lines().map(|line| line.split(": handled in").next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    let on_memory = told("memory://");
    assert!(on_memory[1].starts_with("4 files: the folded tree equals git's"), "{on_memory:?}");
    assert_eq!(told(&world.url), on_memory);
}
