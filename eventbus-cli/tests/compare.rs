//! Tests of `compare` as a script sees it.
#![allow(clippy::unwrap_used)]

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

fn program(arguments: &[&str]) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_eventbus"));
    // Brokers that the program starts belong to it, not to this test run.
    program.args(arguments).stdin(Stdio::null()).env_remove("NEXTEST").env_remove("EVENTBUS_TEST_OWNER");
    program
}

fn eventbus(arguments: &[&str]) -> Output {
    program(arguments).output().unwrap()
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
    let output = eventbus(&[
        "compare",
        "--workload",
        "single-key",
        "--workload",
        "envelope-low",
        "--rounds",
        "2",
        "--no-bare",
        "--json",
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let lines = lines(&output);
    let kinds: Vec<(&str, &str)> =
        lines.iter().map(|line| (line["kind"].as_str().unwrap(), line["workload"].as_str().unwrap())).collect();
    let single = ["run", "run", "summary", "summary"].map(|kind| (kind, "single-key"));
    assert_eq!(kinds[..3], single[..3]);
    // Each of the four workloads has two runs and a summary.
    assert_eq!(kinds.len(), 4 * 3, "{kinds:?}");
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
        assert_eq!((&line["check"], &line["client"]), (&"oracle: O1 to O8".into(), &"bus".into()));
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
    let output = eventbus(
        &[&["compare", "--workload", "single-key", "--rounds", "2", "--no-bare", "--json"][..], &urls].concat(),
    );
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let lines = lines(&output);
    let order: Vec<&str> = lines.iter().map(|line| line["backend"].as_str().unwrap()).collect();
    assert_eq!(order, ["memory", "memory#2", "memory", "memory#2", "memory", "memory#2"]);
    assert!(lines[4].get("of_first_backend").is_none() && lines[5]["of_first_backend"].is_number());
}

#[test]
fn the_bare_client_runs_in_the_same_rounds_and_the_bus_is_told_against_it() {
    let output = eventbus(&[
        "compare",
        "--workload",
        "single-key",
        "--workload",
        "parallel-10",
        "--messages",
        "200",
        "--rounds",
        "2",
        "--json",
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let lines = lines(&output);
    let single = lines.iter().filter(|line| line["workload"] == "single-key messages=200");
    let clients: Vec<&str> = single.clone().map(|line| line["client"].as_str().unwrap()).collect();
    assert_eq!(clients, ["bus", "bare", "bus", "bare", "bus", "bare"]);
    let summaries: Vec<_> = single.filter(|line| line["kind"] == "summary").collect();
    assert!(summaries[0]["of_bare_client"].as_f64().unwrap() > 0.0 && summaries[1].get("of_bare_client").is_none());
    assert_eq!(summaries[1]["handled"], 200);
    assert_eq!(summaries[0]["confidence"], 0.5);
    let range = &summaries[0]["handled_range"];
    assert!(range["min"].as_f64().unwrap() <= range["max"].as_f64().unwrap());
    // Where handlers take time, the bus is compared with the ideal time.
    let parallel: Vec<_> = lines.iter().filter(|line| line["workload"] == "parallel-10 messages=200").collect();
    assert!(
        parallel.iter().all(|line| line["client"] == "bus" && line["ratio"].as_f64().unwrap() > 0.9),
        "{parallel:?}"
    );
}

#[test]
fn members_keys_handlers_and_sizes_are_settable() {
    let changes = [
        "--messages",
        "300",
        "--keys",
        "7",
        "--payload",
        "10",
        "--handler-ms",
        "1",
        "--concurrency",
        "5",
        "--members",
        "3",
        "--partitions",
        "6",
    ];
    let output = eventbus(&[&["compare", "--workload", "burst", "--rounds", "1", "--json"][..], &changes].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let run = &lines(&output)[0];
    let name = "burst messages=300 payload=10 keys=7 handler-ms=1 concurrency=5 members=3 partitions=6";
    assert_eq!((run["workload"].as_str(), run["handled"].as_u64()), (Some(name), Some(300)));
    assert_eq!(run["order_violations"], 0);
}

#[test]
fn a_report_is_one_page_without_a_network_and_a_baseline_for_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    let run = |to: &std::path::Path, more: &[&str]| {
        let arguments = ["compare", "--workload", "single-key", "--workload", "parallel-10", "--messages", "100"];
        let to = ["--rounds", "2", "--report", to.to_str().unwrap()];
        eventbus(&[&arguments[..], &to, more].concat())
    };
    let output = run(&first, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains("index.html"), "{}", stderr(&output));
    let page = std::fs::read_to_string(first.join("index.html")).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>"));
    for external in ["http:", "https:", "src=", "href=", "url(", "@import"] {
        assert!(!page.contains(external), "{external} in the page");
    }
    for part in [
        "What order costs",
        "Publish to handle",
        "Latency over time",
        "Partitions",
        "How it was measured",
        "single-key",
    ] {
        assert!(page.contains(part), "no {part} in the page");
    }
    let text = std::fs::read_to_string(first.join("report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["form"], 1);
    assert!(report["command"].as_str().unwrap().starts_with("eventbus compare --workload single-key"), "{report}");
    // Both workloads have two rounds of the bus, and one of them two rounds of the bare client.
    assert_eq!((report["runs"].as_array().unwrap().len(), report["summaries"].as_array().unwrap().len()), (6, 3));
    assert!(report["environment"]["threads"].as_u64().unwrap() > 0);
    let detail = &report["summaries"][0]["detail"];
    assert!(
        !detail["to_handle"].as_array().unwrap().is_empty() && !detail["partitions"].as_array().unwrap().is_empty()
    );

    let baseline = ["--baseline", first.to_str().unwrap(), "--json"];
    let output = run(&second, &baseline);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let changes = |output: &Output| lines(output).into_iter().filter(|line| line["kind"] == "baseline").count();
    assert_eq!(changes(&output), 3);
    assert!(std::fs::read_to_string(second.join("index.html")).unwrap().contains("Against "));
    // Comparing two reports runs nothing.
    let output = eventbus(&[&["compare", "--against", second.to_str().unwrap()][..], &baseline].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!((changes(&output), lines(&output).len()), (3, 3));
}

#[test]
fn secrets_of_urls_are_in_no_report() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().to_str().unwrap();
    // No broker is there: the error must not show the password.
    let url = "nats://user:geheim@127.0.0.1:1?connect_timeout_ms=300";
    let output = eventbus(&["compare", "--url", url, "--workload", "single-key", "--report", report]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("single-key on nats") && !stderr(&output).contains("geheim"),
        "{}",
        stderr(&output)
    );
    assert!(!folder.path().join("report.json").exists());
}

#[test]
fn bad_usage_is_named_and_ends_with_2() {
    for (arguments, says) in [
        (&["--workload", "nothing"][..], "unknown workload \"nothing\"; known are: single-key"),
        (&["--backends", "amqp"], "unknown scheme \"amqp\", known are: memory, nats, tls, kafka"),
        #[cfg(not(feature = "brokers"))]
        (&["--backends", "memory,nats"], "no --url nats://… for nats"),
        (&["--baseline", "/nowhere/report.json"], "/nowhere/report.json"),
        (&["--against", "/nowhere/report.json"], "--baseline"),
        (&["--baseline", "Cargo.toml"], "no report"),
        (&["--input", "e.ndjson", "--keys", "3"], "cannot be used with"),
        (&["--members", "0"], "--members"),
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
    // The events have ids that repeat, keys that are not ASCII, or no key.
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
    let mut child =
        program(&["compare", "--workload", "single-key", "--workload", "steady", "--rounds", "1", "--json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
    // The first workload's lines show that the program runs; the second workload takes half a minute.
    let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
    for _ in 0..2 {
        let mut line = String::new();
        assert!(std::io::BufRead::read_line(&mut out, &mut line).unwrap() > 0);
    }
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

/// Tests of brokers in containers, which the program starts and removes.
#[cfg(feature = "brokers")]
mod brokers {
    use super::*;

    /// Lists the containers that belong to the process.
    fn containers_of(pid: u32) -> String {
        let filter = "label=eventbus.owner";
        let format = "{{.ID}} {{.Label \"eventbus.owner\"}}";
        let listed =
            Command::new("docker").args(["ps", "--all", "--filter", filter, "--format", format]).output().unwrap();
        let all = String::from_utf8(listed.stdout).unwrap();
        all.lines().filter(|line| line.contains(&format!(" {pid}:"))).map(|line| format!("{line}\n")).collect()
    }

    #[test]
    fn brokers_are_started_where_no_url_is_given_and_are_gone_at_the_end() {
        let backends = ["memory", "nats", "kafka"];
        let child = program(&[
            "compare",
            "--backends",
            &backends.join(","),
            "--workload",
            "envelope-low",
            "--workload",
            "ephemeral-low",
        ])
        .args(["--messages", "200", "--rounds", "1", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
        let pid = child.id();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let lines = lines(&output);
        for workload in ["envelope-low messages=200", "envelope-low-2ms messages=200", "ephemeral-low messages=200"] {
            for backend in backends {
                let is_it = |line: &&serde_json::Value| {
                    line["workload"] == workload && line["backend"] == backend && line["client"] == "bus"
                };
                let run = lines.iter().find(is_it).unwrap_or_else(|| panic!("no {workload} on {backend}"));
                assert_eq!((&run["handled"], &run["order_violations"]), (&200.into(), &0.into()), "{run}");
                let on_disk = backend == "kafka" && workload.starts_with("ephemeral");
                assert_eq!(run.get("note").is_some(), on_disk, "{run}");
            }
        }
        assert_eq!(containers_of(pid), "");
    }

    #[test]
    fn an_interrupt_removes_the_brokers_too() {
        let mut child = program(&["compare", "--backends", "nats", "--workload", "single-key", "--workload", "steady"])
            .args(["--rounds", "1", "--json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        assert!(std::io::BufRead::read_line(&mut out, &mut line).unwrap() > 0);
        assert_ne!(containers_of(child.id()), "");
        let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        assert_eq!(child.wait().unwrap().code(), Some(130));
        assert_eq!(containers_of(child.id()), "");
    }
}
