//! `subscribe` on a broker.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::program::{PATIENCE, Running, assert_all_once, by_key, event, events, lines};
use crate::world::World;

pub(crate) fn so_many_lines_and_nothing_finished_beyond(world: &World) {
    let (keys, count) = (7, 700);
    world.publish("t", &events(keys, count));
    let mut printed = Vec::new();
    for lines in ["1", "10", "289", "400"] {
        let arguments = ["--topic", "t", "--group", "g", "--count", lines];
        let of_run = world.run("subscribe", &arguments).ends_with(0).lines();
        assert_eq!(of_run.len().to_string(), lines);
        printed.extend(of_run);
    }
    // Every line was printed exactly once.
    assert_all_once(&printed, keys, count);
    // The count also holds with a command, and with failures in between.
    let fails = "test $EVENTBUS_SEQUENCE != 1 || test $EVENTBUS_ATTEMPT != 1";
    let arguments = ["--topic", "t", "--group", "h", "--exec", fails, "--backoff", "1", "--count", "21"];
    let of_run = world.run("subscribe", &arguments).ends_with(0).lines();
    assert_eq!(of_run.len(), 21);
    assert!(of_run.iter().any(|line| line["attempt"] == 2), "{of_run:?}");
}

pub(crate) fn a_group_starts_where_it_is_told(world: &World) {
    world.publish("t", &events(1, 10));
    let positions: Vec<(u64, u64)> = world
        .stored("t")
        .iter()
        .map(|line| (line["partition"].as_u64().unwrap(), line["position"].as_u64().unwrap()))
        .collect();
    let (partition, fourth) = positions[3];
    let numbers = |arguments: &[&str]| -> Vec<u64> {
        let group = ["--topic", "t", "--group", "g", "--idle-exit", "2"];
        let ran = world.run("subscribe", &[&group[..], arguments].concat()).ends_with(0);
        by_key(&ran.lines()).remove("k0").unwrap_or_default()
    };
    let at_fourth = format!("position:{partition}={fourth}");
    assert_eq!(numbers(&["--from", &at_fourth]), (4..=10).collect::<Vec<_>>());
    // Now the group has progress: only `--reset` moves it to another start.
    assert_eq!(numbers(&["--from", "earliest"]), [0; 0]);
    assert_eq!(numbers(&["--from", "earliest", "--reset"]), (1..=10).collect::<Vec<_>>());
    assert_eq!(numbers(&["--from", "latest", "--reset"]), [0; 0]);
    assert_eq!(numbers(&["--from", "time:2020-01-01T00:00:00Z", "--reset"]), (1..=10).collect::<Vec<_>>());
    assert_eq!(numbers(&["--from", "time:2100-01-01T00:00:00Z", "--reset"]), [0; 0]);

    // A group with an active member is not moved.
    let mut active = world.start("subscribe", &["--topic", "t", "--group", "g"]);
    world.publish("t", &event("k0", 11));
    assert_eq!(active.take(1)[0]["sequence"], 11);
    let ran = world.run("subscribe", &["--topic", "t", "--group", "g", "--reset", "--idle-exit", "1"]);
    ran.ends_with(1).says("group active");
    let ran = world.run("subscribe", &["--topic", "missing", "--group", "g", "--idle-exit", "1"]);
    ran.ends_with(1).says("unknown topic");
}

pub(crate) fn a_failing_command_is_tried_again_and_its_envelope_dead_lettered(world: &World) {
    let input = [event("good", 1), event("bad", 1), event("bad", 2), event("good", 2)].concat();
    world.publish("t", &input);
    let command = "read line; echo \"$line\" >&2; test \"$EVENTBUS_KEY $EVENTBUS_SEQUENCE\" != 'bad 1'";
    let options = ["--exec", command, "--attempts", "3", "--backoff", "1", "--count", "3", "--allow-given-up"];
    let ran = world.run("subscribe", &[&["--topic", "t", "--group", "g"][..], &options].concat()).ends_with(0);
    let numbers = by_key(&ran.lines());
    assert_eq!((&numbers["good"], &numbers["bad"]), (&vec![1, 2], &vec![2]));
    // The command's input is the line that is printed in the end.
    for line in ran.stdout.lines() {
        assert!(ran.stderr.contains(line), "{line} is not in {}", ran.stderr);
    }
    for attempt in 1..=3 {
        let seen = ran.stderr.lines().filter(|line| line.contains("\"bad\"") && line.contains("\"sequence\":1"));
        let seen = seen.filter(|line| line.contains(&format!("\"attempt\":{attempt}"))).count();
        assert_eq!(seen, 1, "attempt {attempt} in {}", ran.stderr);
    }
    assert!(ran.stderr.contains("dead-lettered after 3 attempts"), "{}", ran.stderr);
    assert!(ran.stderr.contains("the command ended with 1"), "{}", ran.stderr);
    assert!(ran.stderr.contains("3 handled, 3 attempts failed, 1 dead-lettered, 0 skipped"), "{}", ran.stderr);
}

pub(crate) fn skip_and_stop(world: &World) {
    world.publish("t", &[event("a", 1), event("a", 2), event("a", 3)].concat());
    let fails = ["--exec", "test $EVENTBUS_SEQUENCE != 2", "--attempts", "2", "--backoff", "1"];
    let with = |group: &str, more: &[&str]| {
        world.run("subscribe", &[&["--topic", "t", "--group", group][..], &fails, more].concat())
    };
    let ran = with("skip", &["--on-failure", "skip", "--count", "2"]).ends_with(1).says("skipped after 2 attempts");
    assert!(ran.stderr.contains("0 dead-lettered, 1 skipped"), "{}", ran.stderr);
    assert_eq!(by_key(&ran.lines())["a"], [1, 3]);
    let ran = with("stop", &["--on-failure", "stop"]).ends_with(1).says("the subscription stopped: handler failed");
    assert!(ran.stderr.contains("key=a"), "{}", ran.stderr);
    assert_eq!(by_key(&ran.lines())["a"], [1]);
    // Nothing after the failed envelope was acknowledged.
    let again = world.run("subscribe", &["--topic", "t", "--group", "stop", "--count", "2"]).ends_with(0);
    assert_eq!(by_key(&again.lines())["a"], [2, 3]);
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn lives(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A zombie no longer runs: it only has not been reaped yet.
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

pub(crate) fn a_command_that_takes_too_long_is_killed_with_all_it_started(world: &World) {
    world.publish("t", &event("a", 1));
    let directory = tempfile::tempdir().unwrap();
    let pids = directory.path().join("pids");
    let command = format!("sleep 1000 & echo $! >>{0}; echo $$ >>{0}; sleep 1000", pids.display());
    let options = ["--exec", &command, "--handler-timeout", "0.5", "--attempts", "2", "--backoff", "1"];
    let group = ["--topic", "t", "--group", "g", "--on-failure", "stop"];
    let ran = world.run("subscribe", &[&group[..], &options].concat()).ends_with(1);
    assert!(ran.stderr.contains("took longer than 0.5 s"), "{}", ran.stderr);
    let pids = std::fs::read_to_string(pids).unwrap();
    assert_eq!(pids.lines().count(), 4);
    assert!(!pids.lines().any(lives), "something of it lives");
}

/// Starts a member whose command, with the returned process id, waits for a file.
fn at_work(world: &World, directory: &std::path::Path, deadline: &str) -> (Running, String) {
    let (begun, go) = (directory.join("begun"), directory.join("go"));
    let command = format!(
        "echo $$ >{0}.new; mv {0}.new {0}; while ! test -e {1}; do sleep 0.02; done",
        begun.display(),
        go.display()
    );
    let options = ["--concurrency", "1", "--deadline", deadline, "--exec", &command];
    let member = world.start("subscribe", &[&["--topic", "t", "--group", "g"][..], &options].concat());
    until("the command begins", || begun.exists());
    let pid = std::fs::read_to_string(begun).unwrap();
    (member, pid.trim().to_owned())
}

pub(crate) fn an_interrupt_lets_the_command_finish(world: &World) {
    world.publish("t", &events(1, 3));
    let directory = tempfile::tempdir().unwrap();
    let (mut member, pid) = at_work(world, directory.path(), "60");
    member.signal("-INT");
    assert!(lives(&pid));
    std::fs::write(directory.path().join("go"), "").unwrap();
    assert_eq!(by_key(&member.rest())["k0"], [1]);
    let (code, said) = member.wait();
    assert_eq!(code, Some(130), "{said}");
    let again = world.run("subscribe", &["--topic", "t", "--group", "g", "--count", "2"]).ends_with(0);
    assert_eq!(by_key(&again.lines())["k0"], [2, 3]);
}

pub(crate) fn a_deadline_ends_the_command_without_an_attempt(world: &World) {
    world.publish("t", &events(1, 3));
    let directory = tempfile::tempdir().unwrap();
    let (mut member, pid) = at_work(world, directory.path(), "0.2");
    member.signal("-TERM");
    assert_eq!(member.rest(), Vec::<Value>::new());
    let (code, said) = member.wait();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("deadline exceeded"), "{said}");
    until("the command is gone", || !lives(&pid));
    let again = world.run("subscribe", &["--topic", "t", "--group", "g", "--count", "3"]).ends_with(0).lines();
    assert_eq!(by_key(&again)["k0"], [1, 2, 3]);
    assert!(again.iter().all(|line| line["attempt"] == 1), "{again:?}");
}

pub(crate) fn a_closed_pipe_is_no_failed_attempt(world: &World) {
    let (keys, count) = (10, 20_000);
    world.publish("t", &events(keys, count));
    let mut member = world.start("subscribe", &["--topic", "t", "--group", "g", "--attempts", "1"]);
    let mut printed = member.take(100);
    member.close_stdout();
    let (code, said) = member.wait();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("standard output cannot be written"), "{said}");
    assert!(said.contains(" 0 attempts failed, 0 dead-lettered, 0 skipped"), "{said}");
    let again = world.run("subscribe", &["--topic", "t", "--group", "g", "--idle-exit", "3"]).ends_with(0).lines();
    assert!(again.iter().all(|line| line["attempt"] == 1));
    // Lines in the pipe are lost with their reader. No others are lost, and none are out of order.
    let rest = by_key(&again);
    assert!(rest.values().all(|numbers| numbers.windows(2).all(|two| two[1] == two[0] + 1)));
    assert!(rest.values().all(|numbers| numbers.last() == Some(&(count / keys))));
    printed.extend(again);
    assert!(printed.len() as u64 > count / 2);
}

pub(crate) fn two_members_share_the_work(world: &World) {
    let (keys, count) = (40, 8_000);
    world.publish("t", &events(keys, 40));
    let arguments = ["--topic", "t", "--group", "g"];
    let directory = tempfile::tempdir().unwrap();
    let paths = ["one", "other"].map(|name| directory.path().join(name));
    let start = |path: &PathBuf| world.start_into(File::create(path).unwrap(), "subscribe", &arguments);
    let mut members = [start(&paths[0]), start(&paths[1])];
    // Both members own partitions before most of the events come.
    until("both own partitions", || {
        let lag = world.run("lag", &["--topic", "t", "--group", "g"]);
        let owners: BTreeSet<String> =
            lag.lines().iter().filter_map(|line| line["owner"].as_str().map(str::to_owned)).collect();
        owners.len() == 2
    });
    let rest: String = (40..count).map(|n| event(&format!("k{}", n % keys), n / keys + 1)).collect();
    world.publish("t", &rest);
    until("all of it is handled", || {
        let lag = world.run("lag", &["--topic", "t", "--group", "g"]).ends_with(0);
        lag.lines().iter().all(|line| line["lag"] == 0)
    });
    let mut printed = Vec::new();
    for (member, path) in members.iter_mut().zip(&paths) {
        member.signal("-TERM");
        let (code, said) = member.wait();
        assert_eq!(code, Some(130), "{said}");
        let of_member = lines(&std::fs::read_to_string(path).unwrap());
        assert!(!of_member.is_empty(), "one did all the work");
        printed.extend(of_member);
    }
    // A planned hand-over repeats nothing. A key's lines are in order, whichever member handles them.
    printed.sort_by_key(|line| (line["partition"].as_u64(), line["position"].as_u64()));
    assert_all_once(&printed, keys, count);
}

pub(crate) fn a_closed_output_acknowledges_nothing(world: &World) {
    world.publish("t", &events(1, 5));
    let program = env!("CARGO_BIN_EXE_eventbus");
    let command = format!("{program} subscribe --url '{}' --topic t --group g --idle-exit 1 >&-", world.url);
    let output = std::process::Command::new("sh").args(["-c", &command]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("standard output is closed"), "{said}");
    let again = world.run("subscribe", &["--topic", "t", "--group", "g", "--count", "5"]).ends_with(0);
    assert_all_once(&again.lines(), 1, 5);
}

pub(crate) fn a_topic_that_is_made_later_is_waited_for(world: &World) {
    let group = ["--topic", "later", "--group", "g"];
    let waits = |seconds| [&group[..], &["--count", "2", "--reset", "--wait-for-topic", seconds]].concat();
    let mut waiting = world.start("subscribe", &waits("100"));
    let ran = world.run("subscribe", &waits("0.5")).ends_with(1).says("unknown topic");
    assert!(ran.stderr.contains("topic later does not exist; waiting for it"), "{}", ran.stderr);
    world.publish("later", &events(1, 2));
    assert_all_once(&waiting.rest(), 1, 2);
    assert_eq!(waiting.wait().0, Some(0));
    // The wait can be interrupted.
    let mut waiting = world.start("subscribe", &["--topic", "never", "--group", "g", "--wait-for-topic", "100"]);
    waiting.said_once("waiting for it");
    waiting.signal("-INT");
    assert_eq!(waiting.wait().0, Some(130));
}
