//! Tests that need no broker: usage, configuration, brokers that cannot be reached, and the bus in memory.
#![allow(clippy::unwrap_used)]

mod program;

use std::io::Write as _;

use program::{event, events, run, run_with};

#[test]
fn bad_usage_is_named_and_ends_with_2() {
    let publish = ["publish", "--topic", "t"];
    let subscribe = ["subscribe", "--topic", "t", "--group", "g"];
    for (command, arguments, says) in [
        (&publish[..], &[][..], "no bus: give --url URL or --config FILE, or set EVENTBUS_URL"),
        (&publish, &["--url", "amqp://a"], "unknown scheme \"amqp\", known are: memory, nats, tls, kafka"),
        (&publish, &["--url", "localhost"], "expected it to begin with one of memory://"),
        (&publish, &["--url", "memory://?partition=2"], "did you mean \"partitions\"?"),
        (&publish, &["--url", "nats://"], "servers is missing"),
        (&publish, &["--url", "nats://127.0.0.1:99999"], "a port of 1 to 65535"),
        (&publish, &["--url", "kafka://127.0.0.1:99999"], "a port of 1 to 65535"),
        (&publish, &["--url", "memory://", "--partitions", "0"], "--partitions"),
        (&publish, &["--url", "memory://", "--in", "/nowhere/events"], "/nowhere/events"),
        (&publish, &["--url", "memory://", "--mode", "fire", "--receipts"], "--receipts"),
        (&publish, &["--config", "/nowhere/bus.toml"], "/nowhere/bus.toml"),
        (&["publish", "--url", "memory://"], &[], "--topic"),
        (&["publish", "--url", "memory://", "--topic", "a/b"], &[], "invalid name"),
        (&subscribe, &["--url", "memory://", "--from", "tomorrow"], "expected earliest, latest"),
        (&subscribe, &["--url", "memory://", "--idle-exit", "soon"], "--idle-exit"),
        (&subscribe, &["--url", "memory://", "--handler-timeout", "1"], "--exec"),
        (&subscribe, &["--url", "memory://", "--on-failure", "retry"], "dead-letter, skip, stop"),
        (&["subscribe", "--url", "memory://", "--topic", "t"], &[], "--group"),
        (&["nothing"], &[], "unrecognized subcommand"),
    ] {
        let ran = run(&[command, arguments].concat()).ends_with(2).says(says);
        assert!(ran.stdout.is_empty(), "{}", ran.stdout);
    }
}

#[test]
fn a_password_is_not_repeated() {
    for arguments in [
        &["--url", "nats://u:hunter2@127.0.0.1:1", "--connect-timeout", "1"][..],
        &["--url", "nats://u:hunter2@a?x=1"],
        &["--url", "nats://127.0.0.1:1?token=hunter2", "--connect-timeout", "1", "-vvv"],
    ] {
        let ran = run(&[&["publish", "--topic", "t"], arguments].concat());
        assert!(ran.code != Some(0) && !ran.stderr.contains("hunter2"), "{}", ran.stderr);
    }
}

#[test]
fn a_broker_that_cannot_be_reached_is_an_error() {
    // Nobody listens at the first port; the second one accepts and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("nats://{}", silent.local_addr().unwrap());
    for url in ["nats://127.0.0.1:1", &silent] {
        for command in [&["publish", "--topic", "t"][..], &["subscribe", "--topic", "t", "--group", "g"]] {
            let ran = run(&[command, &["--url", url, "--connect-timeout", "1"]].concat());
            ran.ends_with(1).says(url);
        }
    }
}

#[test]
fn lines_are_published_in_memory_and_it_is_said_that_they_do_not_stay() {
    let ran =
        run_with(&["publish", "--url", "memory://", "--topic", "t", "--receipts"], &events(10, 1_000)).ends_with(0);
    assert!(ran.stderr.contains("nothing outlives the process"), "{}", ran.stderr);
    assert!(ran.stderr.contains("1000 confirmed, 0 refused, 0 unknown"), "{}", ran.stderr);
    let mut receipts = ran.lines();
    receipts.sort_by_key(|receipt| receipt["line"].as_u64());
    assert_eq!(receipts.len(), 1_000);
    for (number, receipt) in (1..).zip(&receipts) {
        assert_eq!((receipt["line"].as_u64(), &receipt["outcome"]), (Some(number), &"confirmed".into()));
        assert!(receipt["partition"].is_number() && receipt["position"].is_number(), "{receipt}");
        assert_eq!(receipt["duplicate"], false);
        assert!(receipt["key"].as_str().is_some_and(|key| key.starts_with('k')), "{receipt}");
        assert!(receipt["id"].is_string() && receipt.get("error").is_none(), "{receipt}");
    }
}

#[test]
fn every_mode_publishes_all() {
    for mode in ["confirm", "batch", "fire"] {
        let arguments = ["publish", "--url", "memory://", "--topic", "t", "--mode", mode];
        let ran = run_with(&arguments, &events(100, 20_000)).ends_with(0).says("20000 confirmed, 0 refused, 0 unknown");
        assert!(ran.stdout.is_empty());
    }
}

#[test]
fn quiet_says_nothing() {
    let ran = run_with(&["publish", "-q", "--url", "memory://", "--topic", "t"], &events(1, 1)).ends_with(0);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", ""));
}

#[test]
fn a_broken_line_is_named_and_what_was_read_before_it_is_published() {
    for (broken, says) in [
        ("{\"key\":\"k\"", "line 4: EOF while parsing"),
        ("{\"key\":\"k\"}", "line 4: missing field `type`"),
        ("{\"type\":\"T\",\"keys\":1}", "line 4: unknown field `keys`"),
        ("\u{0}", "line 4:"),
    ] {
        let input = format!("{}{}\n{broken}\n{}", event("a", 1), event("a", 2), event("a", 3));
        for mode in ["confirm", "batch"] {
            let arguments = ["publish", "--url", "memory://", "--topic", "t", "--receipts", "--mode", mode];
            let ran = run_with(&arguments, &input).ends_with(1).says(says);
            let numbers: Vec<_> = ran.lines().iter().map(|receipt| receipt["line"].as_u64().unwrap()).collect();
            assert_eq!(numbers, [1, 2], "{}", ran.stdout);
        }
    }
}

#[test]
fn a_refused_line_fails_no_line_of_another_key() {
    // An envelope larger than the publish budget is refused, and with it those of its key read meanwhile.
    let large = format!("{{\"key\":\"a\",\"type\":\"T\",\"payload\":\"{}\"}}\n", "x".repeat(20_000));
    let input = [event("a", 1), large, event("b", 1), event("a", 2)].concat();
    for mode in ["confirm", "batch"] {
        let url = "memory://?budget_bytes=10000&share=1";
        let arguments = ["publish", "--url", url, "--topic", "t", "--receipts", "--mode", mode];
        let ran = run_with(&arguments, &input).ends_with(1).says("line 2: too large");
        assert_eq!(ran.lines().len(), 4, "{}", ran.stdout);
        for receipt in ran.lines() {
            let (line, outcome) = (receipt["line"].as_u64().unwrap(), receipt["outcome"].as_str().unwrap());
            assert_eq!(outcome == "refused", receipt["error"].is_string(), "{receipt}");
            assert!(line != 2 || outcome == "refused", "{receipt}");
            assert!(receipt["key"] != "b" || outcome == "confirmed", "{receipt}");
            // In a batch the others of its key go, too: it is known before anything is published.
            assert!(mode != "batch" || line == 2 || outcome == "confirmed", "{receipt}");
        }
    }
}

#[test]
fn a_closed_standard_stream_is_an_error_and_not_an_empty_or_silent_one() {
    let program = env!("CARGO_BIN_EXE_eventbus");
    let memory = "--url memory:// --topic t";
    for (arguments, says) in [
        (format!("subscribe {memory} --group g --idle-exit 0.1 >&-"), "standard output is closed"),
        (format!("publish {memory} --receipts </dev/null >&-"), "standard output is closed"),
        (format!("publish {memory} <&-"), "standard input is closed"),
        ("topics --url memory:// list >&-".to_owned(), "standard output is closed"),
    ] {
        let output = std::process::Command::new("sh").args(["-c", &format!("{program} {arguments}")]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments}: {said}");
        assert!(said.contains(says), "{arguments}: {said}");
    }
    // A stream that leads nowhere on purpose is open.
    for redirected in ["<>/dev/null 1<>/dev/null", "</dev/null >/dev/null"] {
        let command = format!("{program} publish {memory} --receipts {redirected}");
        let output = std::process::Command::new("sh").args(["-c", &command]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{command}: {output:?}");
    }
}

#[test]
fn a_byte_order_mark_and_a_payload_of_null_are_read() {
    let input = "\u{feff}{\"key\":\"k\",\"type\":\"T\",\"payload\":null}\n{\"type\":\"T\",\"payload\":1}\n";
    let publish = ["publish", "--url", "memory://", "--topic", "t"];
    run_with(&publish, input).ends_with(0).says("2 confirmed, 0 refused, 0 unknown");
}

#[test]
fn one_too_large_in_a_full_batch_is_refused_alone() {
    let large = format!("{{\"key\":\"k3\",\"type\":\"T\",\"payload\":\"{}\"}}\n", "x".repeat(200_000));
    let input = [events(7, 490), large.clone(), events(7, 490), large].concat();
    let url = "memory://?budget_bytes=150000&share=1";
    let arguments = ["publish", "--url", url, "--topic", "t", "--receipts", "--mode", "batch"];
    let ran = run_with(&arguments, &input).ends_with(1).says("980 confirmed, 2 refused, 0 unknown");
    let refused = ran.lines().into_iter().filter(|receipt| receipt["outcome"] == "refused");
    assert_eq!(refused.map(|receipt| receipt["line"].as_u64().unwrap()).collect::<Vec<_>>(), [491, 982]);
}

#[test]
fn the_configuration_may_be_a_file_or_a_variable() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"[backend]\ntype = \"memory\"\n[topic]\npartitions = 1\n").unwrap();
    let path = file.path().to_str().unwrap();
    let publish = ["publish", "--topic", "t", "--receipts"];
    let ran = run_with(&[&publish[..], &["--config", path]].concat(), &events(10, 10)).ends_with(0);
    assert!(ran.lines().iter().all(|receipt| receipt["partition"] == 0), "{}", ran.stdout);
    let mut command = program::command(&publish);
    let output = command.env("EVENTBUS_URL", "memory://?partitions=0").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_subscription_in_memory_ends_when_nothing_comes() {
    let arguments = ["subscribe", "--url", "memory://", "--topic", "t", "--group", "g", "--idle-exit", "0.2"];
    let ran = run(&arguments).ends_with(0).says("nothing outlives the process");
    assert!(ran.stdout.is_empty());
}

#[test]
fn the_configuration_in_force_is_shown_with_its_sources() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"[backend]\ntype = \"nats\"\nservers = \"a:1\"\npassword = \"hunter2\"\nuser = \"u\"\n[topic]\npartitions = 3\n").unwrap();
    let path = file.path().to_str().unwrap();
    let mut command = program::command(&["config", "check", "--config", path]);
    let output = command.env("EVENTBUS_SUBSCRIBE__CONCURRENCY", "64").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains("hunter2"), "{text}");
    let lines = program::lines(&text);
    let of = |setting: &str| {
        let line = lines.iter().find(|line| line["setting"] == setting).unwrap();
        (line["value"].as_str().unwrap().to_owned(), line["origin"].as_str().unwrap().to_owned())
    };
    assert_eq!(of("url"), ("nats://a:1".into(), path.into()));
    assert_eq!(of("password"), ("********".into(), path.into()));
    assert_eq!(of("partitions"), ("3".into(), path.into()));
    assert_eq!(of("concurrency"), ("64".into(), "EVENTBUS_SUBSCRIBE__CONCURRENCY".into()));
    assert_eq!(of("attempts"), ("5".into(), "default".into()));

    let ran = run(&["config", "check", "--config", path, "--url", "memory://shop?attempts=2"]).ends_with(0);
    let lines = ran.lines();
    assert!(lines.iter().any(|line| line["setting"] == "attempts" && line["origin"] == "--url"), "{}", ran.stdout);
    assert!(lines.iter().all(|line| line["setting"] != "password"), "{}", ran.stdout);
    let mut command = program::command(&["config", "check", "--url", "memory://"]);
    let output = command.env("EVENTBUS_SUBSCRIBE__CONCURENCY", "64").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        said.contains("EVENTBUS_SUBSCRIBE__CONCURENCY") && said.contains("did you mean \"concurrency\"?"),
        "{said}"
    );
    run(&["config", "check"]).ends_with(2).says("no bus");
}

#[test]
fn schema_reference_completions_and_pages_are_printed() {
    let schema: serde_json::Value = serde_json::from_str(&run(&["config", "schema"]).ends_with(0).stdout).unwrap();
    assert_eq!(schema["properties"]["topic"]["properties"]["partitions"]["maximum"], 4096);
    assert!(run(&["config", "reference"]).ends_with(0).stdout.contains("| `partitions` |"));
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&["completions", shell]).ends_with(0).stdout;
        assert!(script.contains("dead-letter") && script.contains("subscribe"), "{shell}");
    }
    assert!(run(&["man"]).ends_with(0).stdout.contains(".TH eventbus 1"));
    assert!(run(&["man", "subscribe"]).ends_with(0).stdout.contains("\\-\\-handler\\-timeout"));
    run(&["man", "nothing"]).ends_with(2).says("known are: publish, subscribe");
    let directory = tempfile::tempdir().unwrap();
    run(&["man", "--out", directory.path().to_str().unwrap()]).ends_with(0);
    let mut pages: Vec<_> =
        directory.path().read_dir().unwrap().map(|page| page.unwrap().file_name().into_string().unwrap()).collect();
    pages.sort();
    assert!(
        pages.contains(&"eventbus-dead-letter.1".to_owned()) && pages.contains(&"eventbus.1".to_owned()),
        "{pages:?}"
    );
}

#[test]
fn every_command_has_a_help_with_examples() {
    for command in ["publish", "subscribe", "lag", "topics", "groups", "dead-letter", "verify", "config"] {
        let help = run(&[command, "--help"]).ends_with(0).stdout;
        assert!(help.contains("Examples:") && help.contains("eventbus "), "{command}: {help}");
        assert!(help.lines().all(|line| line.chars().count() <= 110), "{command}: {help}");
    }
    let help = run(&["--help"]).ends_with(0).stdout;
    assert!(help.contains("Exit codes: 0 all well"), "{help}");
}

#[test]
fn cases_are_listed_and_verified_in_memory() {
    let listed = run(&["verify", "--list"]).ends_with(0).lines();
    assert!(
        listed.iter().any(|line| line["case"] == "p0::order::per_key_order" && line["needs"] == serde_json::json!([]))
    );
    let ran = run(&["verify", "--url", "memory://", "--case", "p1::keys"]).ends_with(0).says("3 PASS, 0 SKIP, 0 FAIL");
    assert!(ran.lines().iter().all(|line| line["outcome"] == "pass"), "{}", ran.stdout);
    let ran = run(&["verify", "--url", "memory://", "--case", "p1::handlers::panics_in_odd_places"]).ends_with(0);
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
    run(&["verify", "--url", "memory://", "--case", "p1::nothing"]).ends_with(2).says("unknown case");
    run(&["verify", "--url", "nats://127.0.0.1:1", "--connect-timeout", "1"]).ends_with(1);
}
