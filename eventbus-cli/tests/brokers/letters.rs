//! `dead-letter` on a broker.

use serde_json::{Value, json};

use crate::program::{by_key, event};
use crate::world::World;

const GROUP: [&str; 4] = ["--topic", "t", "--group", "g"];

/// Makes three dead letters for each of two keys.
fn fail(world: &World) {
    let input: String = (1..=3).flat_map(|n| [event("a", n), event("b", n)]).collect();
    world.publish("t", &input);
    let fails = ["--exec", "echo no >&2; false", "--attempts", "2", "--backoff", "1", "--idle-exit", "2"];
    let ran = world.run("subscribe", &[&GROUP[..], &fails].concat()).ends_with(1);
    assert_eq!(ran.stdout, "");
    assert!(ran.stderr.contains("0 handled, 12 attempts failed, 6 dead-lettered, 0 skipped"), "{}", ran.stderr);
    assert_eq!(ran.stderr.matches("dead-lettered after 2 attempts").count(), 6, "{}", ran.stderr);
}

pub(crate) fn what_was_given_up_comes_back_in_order(world: &World) {
    fail(world);
    let letters = |arguments: &[&str]| world.run("dead-letter", &[arguments, &GROUP].concat());
    let originals = world.stored("t");
    let place = |line: &Value| json!({ "partition": line["partition"], "position": line["position"] });

    let listed = letters(&["list"]).ends_with(0).lines();
    assert_eq!((&by_key(&listed)["a"], &by_key(&listed)["b"]), (&vec![1, 2, 3], &vec![1, 2, 3]));
    for line in &listed {
        let original = originals.iter().find(|original| original["id"] == line["id"]).unwrap();
        assert_eq!(line["original"], place(original));
        assert_eq!((&line["attempts"], &line["error"]), (&2.into(), &"the command ended with 1".into()), "{line}");
        assert!(line.get("payload").is_none(), "{line}");
    }
    let shown = letters(&["show", "--key", "a"]).ends_with(0).lines();
    assert_eq!((by_key(&shown).len(), &shown[0]["payload"]), (1, &json!({ "n": 1 })));

    // One key's letters come back, marked as replayed, and only to this group.
    let replayed = letters(&["replay", "--key", "b"]).ends_with(0).says("3 replayed, 0 failed").lines();
    assert_eq!(by_key(&replayed)["b"], [1, 2, 3]);
    let handled = world.run("subscribe", &[&GROUP[..], &["--count", "3"]].concat()).ends_with(0).lines();
    assert_eq!(by_key(&handled)["b"], [1, 2, 3]);
    assert!(handled.iter().all(|line| line["replayed"] == true), "{handled:?}");
    assert!(replayed.iter().all(|line| handled.iter().any(|handled| place(handled) == line["replayed_as"])));
    let others = world.run("subscribe", &["--topic", "t", "--group", "other", "--idle-exit", "2"]).ends_with(0);
    assert_eq!(others.lines().len(), 6);

    // The letters of the other key are left, until they are purged.
    assert_eq!(by_key(&letters(&["list"]).ends_with(0).lines()).keys().collect::<Vec<_>>(), ["a"]);
    letters(&["replay", "--key", "b"]).ends_with(0).says("0 replayed");
    letters(&["purge"]).ends_with(0).says("3 purged");
    assert_eq!(letters(&["list"]).ends_with(0).stdout, "");
    let handled = world.run("subscribe", &[&GROUP[..], &["--idle-exit", "2"]].concat()).ends_with(0);
    assert_eq!(handled.stdout, "");
    // The dead-letter topic has no dead letters of its own.
    let topics = world.run("topics", &["list"]).ends_with(0).stdout;
    assert!(topics.contains("\"dead-letter.1.t.g\"") && !topics.contains(".dead-letter."), "{topics}");
}

pub(crate) fn a_group_without_dead_letters_has_none(world: &World) {
    world.publish("t", &event("a", 1));
    let letters = |arguments: &[&str]| world.run("dead-letter", &[arguments, &["--group", "g"]].concat());
    assert_eq!(letters(&["list", "--topic", "t"]).ends_with(0).stdout, "");
    letters(&["replay", "--topic", "t"]).ends_with(0).says("0 replayed");
    letters(&["list", "--topic", "missing"]).ends_with(1).says("unknown topic");
    letters(&["list", "--topic", "t", "--key", ""]).ends_with(2);
}
