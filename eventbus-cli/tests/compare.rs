//! The program as a script sees it.
#![allow(clippy::unwrap_used)]

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

fn eventbus(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_eventbus")).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn lines(output: &Output) -> Vec<serde_json::Value> {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))).collect()
}

#[test]
fn json_has_every_figure_of_every_run_and_nothing_else() {
    let output =
        eventbus(&["compare", "--workload", "single-key", "--workload", "envelope-low", "--rounds", "2", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let lines = lines(&output);
    let kinds: Vec<(&str, &str)> =
        lines.iter().map(|line| (line["kind"].as_str().unwrap(), line["workload"].as_str().unwrap())).collect();
    let single = ["run", "run", "summary", "summary"].map(|kind| (kind, "single-key"));
    assert_eq!(kinds[..3], single[..3]);
    assert_eq!(kinds.len(), 6 + 6, "{kinds:?}");
    for line in &lines {
        for field in ["published_per_second", "handled_per_second", "seconds"] {
            assert!(line[field].as_f64().unwrap() > 0.0, "{field} of {line}");
        }
        for latency in ["publish_to_confirm_us", "publish_to_handle_us"] {
            for percentile in ["p50", "p90", "p99", "p99.9", "max"] {
                assert!(line[latency][percentile].is_number(), "{latency} {percentile} of {line}");
            }
        }
        for count in ["order_violations", "duplicates", "losses", "failed_publishes", "foreign"] {
            assert_eq!(line[count], 0, "{count} of {line}");
        }
        assert_eq!(line["handled"], line["messages"]);
        assert_eq!(line["check"], "oracle: O1 to O8");
        assert!(line["peak_tasks"].is_number() && line["backend"] == "memory");
    }
}

#[test]
fn without_json_a_pipe_gets_nothing_that_is_for_eyes() {
    let output = eventbus(&["compare", "--workload", "single-key", "--rounds", "1"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stdout.is_empty());
    assert!(stderr(&output).contains("single-key"), "{}", stderr(&output));
}

#[test]
fn several_backends_are_interleaved_and_compared_to_the_first() {
    let urls = ["--url", "memory://", "--url", "memory://?partitions=1"];
    let output = eventbus(&[&["compare", "--workload", "single-key", "--rounds", "2", "--json"][..], &urls].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let lines = lines(&output);
    let order: Vec<&str> = lines.iter().map(|line| line["backend"].as_str().unwrap()).collect();
    assert_eq!(order, ["memory", "memory#2", "memory", "memory#2", "memory", "memory#2"]);
    assert!(lines[4].get("of_first_backend").is_none() && lines[5]["of_first_backend"].is_number());
}

#[test]
fn bad_usage_is_named_and_ends_with_2() {
    for (arguments, says) in [
        (&["--workload", "nothing"][..], "unknown workload \"nothing\"; known are: single-key"),
        (&["--backends", "amqp"], "unknown scheme \"amqp\", known are: memory, nats, tls, kafka"),
        (&["--backends", "memory,kafka"], "not part of this program"),
        (&["--backends", "memory,nats"], "servers is missing"),
        (&["--url", "memory://?partition=1"], "did you mean \"partitions\"?"),
        (&["--rounds", "0"], "--rounds"),
        (&["--all", "--workload", "burst"], "cannot be used with"),
        (&["--input", "/nowhere/events.ndjson"], "/nowhere/events.ndjson"),
    ] {
        let output = eventbus(&[&["compare"], arguments].concat());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(says), "{arguments:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty());
    }
}

fn events(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[test]
fn a_broken_line_of_the_input_is_named_by_its_number() {
    let file = events("{\"type\":\"T\",\"key\":\"k\"}\n\n{\"type\":\"T\",\"key\":\"k\"\n");
    let output = eventbus(&["compare", "--input", file.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("line 3: EOF while parsing an object"), "{}", stderr(&output));
    let empty = events("\n");
    let output = eventbus(&["compare", "--input", empty.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("no event in it"), "{}", stderr(&output));
}

#[test]
fn the_users_events_are_judged_whatever_their_ids_and_keys() {
    // Ids that repeat, keys that are no plain text, events without a key.
    let line = |n: u32| match n % 4 {
        0 => format!("{{\"type\":\"T\",\"id\":\"same\",\"payload\":{n}}}"),
        key => format!("{{\"type\":\"T\",\"id\":\"{}\",\"key\":\"ключ {key}\",\"sequence\":7,\"payload\":{n}}}", n % 2),
    };
    let file = events(&(0..400).map(|n| line(n) + "\n").collect::<String>());
    let output = eventbus(&["compare", "--input", file.path().to_str().unwrap(), "--rounds", "1", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let run = &lines(&output)[0];
    assert_eq!((run["workload"].as_str(), run["handled"].as_u64()), (Some("input"), Some(400)));
}

#[test]
fn an_interrupt_drains_and_ends_with_130() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_eventbus"))
        .args(["compare", "--workload", "single-key", "--workload", "steady", "--rounds", "1", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // The first workload's lines say that the program runs; the second one takes half a minute.
    let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
    for _ in 0..2 {
        let mut line = String::new();
        assert!(std::io::BufRead::read_line(&mut out, &mut line).unwrap() > 0);
    }
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
}
