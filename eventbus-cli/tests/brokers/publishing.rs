//! `publish` on a broker.

use crate::program::{Running, assert_all_once, event, events};
use crate::world::{Link, World};

pub(crate) fn what_is_published_is_printed_in_order(world: &World) {
    let input = events(50, 2_000);
    let ran = world.run_with("publish", &["--topic", "t", "--receipts"], &input).ends_with(0);
    let mut lines: Vec<u64> = ran.lines().iter().map(|receipt| receipt["line"].as_u64().unwrap()).collect();
    lines.sort_unstable();
    assert_eq!(lines, (1..=2_000).collect::<Vec<_>>());
    assert!(ran.lines().iter().all(|receipt| receipt["outcome"] == "confirmed"));

    let arguments = ["--topic", "t", "--group", "g", "--count", "2000"];
    let printed = world.run("subscribe", &arguments).ends_with(0).lines();
    assert_all_once(&printed, 50, 2_000);
    for line in &printed {
        for field in ["key", "id", "type", "topic", "member"] {
            assert!(line[field].is_string(), "{field} of {line}");
        }
        for field in ["sequence", "partition", "position", "attempt", "epoch"] {
            assert!(line[field].is_number(), "{field} of {line}");
        }
        assert!(line["headers"].is_object() && line["payload"]["n"] == line["sequence"], "{line}");
        assert!(line["attempt"] == 1 && line["topic"] == "t", "{line}");
    }
    // Receipts and printed lines agree on each envelope's position.
    let mut told: Vec<_> = ran.lines().iter().map(|r| (r["id"].clone(), r["position"].as_u64())).collect();
    let mut found: Vec<_> = printed.iter().map(|l| (l["id"].clone(), l["position"].as_u64())).collect();
    told.sort_by_key(|(_, position)| *position);
    found.sort_by_key(|(_, position)| *position);
    assert!(told.iter().all(|one| found.contains(one)));

    // The group has handled everything.
    let again = world.run("subscribe", &["--topic", "t", "--group", "g", "--idle-exit", "2"]).ends_with(0);
    assert_eq!(again.stdout, "");
}

pub(crate) fn an_existing_topic_keeps_its_partitions(world: &World) {
    world.run_with("publish", &["--topic", "t", "--partitions", "3"], &events(1, 1)).ends_with(0);
    world.run_with("publish", &["--topic", "t"], &events(1, 1)).ends_with(0);
    world.run_with("publish", &["--topic", "t", "--partitions", "3"], &events(1, 1)).ends_with(0);
    let ran = world.run_with("publish", &["--topic", "t", "--partitions", "4"], &events(1, 1));
    ran.ends_with(1).says("it has 3 partitions, and --partitions asks for 4");
    assert_eq!(world.stored("t").len(), 3);
}

pub(crate) fn an_interrupted_publish_reports_what_it_read(world: &World) {
    for signal in ["-INT", "-TERM"] {
        let topic = format!("t{signal}");
        let mut publish = world.start("publish", &["--topic", &topic, "--receipts"]);
        publish.write(&events(10, 500));
        let receipts = publish.take(500);
        assert!(receipts.iter().all(|receipt| receipt["outcome"] == "confirmed"));
        publish.signal(signal);
        let (code, said) = publish.wait();
        assert_eq!(code, Some(130), "{said}");
        assert_all_once(&world.stored(&topic), 10, 500);
    }
}

pub(crate) fn a_record_that_the_broker_does_not_take_is_refused(world: &World) {
    let large = format!("{{\"key\":\"a\",\"type\":\"T\",\"payload\":\"{}\"}}\n", "x".repeat(20 << 20));
    let mut publish = world.start("publish", &["--topic", "t", "--receipts"]);
    publish.write(&event("a", 1));
    publish.write(&large);
    publish.write(&event("b", 1));
    let receipts = publish.take(3);
    // By now the refusal is reported, so the key goes on.
    publish.write(&event("a", 2));
    publish.stdin = None;
    let last = publish.rest();
    let (code, said) = publish.wait();
    assert_eq!(code, Some(1), "{said}");
    let outcome = |line: u64| receipts.iter().chain(&last).find(|r| r["line"] == line).unwrap()["outcome"].clone();
    assert_eq!([1, 2, 3, 4].map(outcome), ["confirmed", "refused", "confirmed", "confirmed"], "{said}");
}

pub(crate) fn what_the_broker_never_answered_is_told_as_unknown(world: &World) {
    let link = Link::to(world);
    let arguments = ["publish", "--url", &link.url, "--topic", "t", "--receipts", "--deadline", "0.5"];
    let mut publish = Running::start(&arguments);
    publish.write(&event("a", 1));
    assert_eq!(publish.take(1)[0]["outcome"], "confirmed");
    link.fall_silent();
    publish.write(&[event("a", 2), event("a", 3)].concat());
    // Only lines read before the interrupt are published: this waits for some.
    link.swallows("HPUB");
    // The end of the input gives up nothing; an interrupt does, at its deadline.
    publish.stdin = None;
    publish.signal("-INT");
    let receipts = publish.rest();
    let (code, said) = publish.wait();
    assert_eq!(code, Some(1), "{said}");
    // Lines that were read by then are reported, never as confirmed.
    for receipt in &receipts {
        assert!(["unknown", "refused"].contains(&receipt["outcome"].as_str().unwrap()), "{receipt}");
        assert!(receipt["error"].is_string() && receipt.get("position").is_none(), "{receipt}");
    }
    assert!([1, 2].contains(&receipts.len()), "{receipts:?}");
}

pub(crate) fn what_a_full_stream_refuses_is_told_while_it_waits_and_refused_at_the_deadline(world: &World) {
    world.publish("t", &events(4, 4));
    world.fill("t");
    for mode in ["confirm", "batch"] {
        let url = format!("{}&notice_after_ms=300", world.url);
        let arguments = ["publish", "--url", &url, "--topic", "t", "--receipts", "--mode", mode, "--deadline", "0.2"];
        let mut publish = Running::start(&arguments);
        publish.write(&events(4, 4));
        let line = publish.hears("it is tried again");
        assert!(line.starts_with("send: topic t, partition ") && line.contains("maximum messages exceeded"), "{line}");
        publish.signal("-INT");
        let receipts = publish.rest();
        assert_eq!((publish.wait().0, receipts.len()), (Some(1), 4));
        for receipt in &receipts {
            assert!(receipt["error"].as_str().unwrap().contains("maximum messages exceeded"), "{receipt}");
        }
        // A send may be on its way just at the deadline, though hardly ever that of all keys.
        assert!(receipts.iter().any(|receipt| receipt["outcome"] == "refused"), "{receipts:?}");
    }
}

pub(crate) fn what_is_printed_and_published_again_is_a_copy_of_the_topic(world: &World) {
    let full = concat!(
        r#"{"key":"k","type":"T","id":"i","source":"/s","time":"2026-01-02T03:04:05.678Z","sequence":7,"version":2,"#,
        r#""headers":{"z":"1","a":"2"},"tenant":"t","correlation_id":"c","causation_id":"d","extensions":{"x":"y"},"#,
        r#""traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","payload":null}"#
    );
    let input = [
        &format!("\u{feff}{full}\n"),
        "{\"key\":\"k\",\"type\":\"T\",\"id\":\"j\",\"content_type\":null,\"payload\":{\"n\": 1.0}}\n",
        "{\"key_base64\":\"/w==\",\"type\":\"T\",\"id\":\"k\",\"content_type\":\"text/plain\",\"payload_base64\":\"AP8=\"}\n",
        "{\"key\":\"k\",\"type\":\"T\",\"id\":\"l\"}\n",
    ];
    world.publish("one", &input.concat());
    let lines = |topic: &str| {
        let printed = world.run("subscribe", &["--topic", topic, "--group", "g", "--count", "4"]).ends_with(0);
        let mut lines = printed.lines();
        lines.sort_by_key(|line| line["id"].to_string());
        (printed.stdout, lines)
    };
    let (printed, first) = lines("one");
    assert!(printed.contains(r#""headers":{"z":"1","a":"2"}"#) && printed.contains(r#""payload":null"#), "{printed}");
    assert!(first[3].get("payload").is_none() && first[3].get("payload_base64").is_none(), "{}", first[3]);
    world.publish("two", &printed);
    let (_, mut second) = lines("two");
    assert_eq!(second.len(), first.len());
    for (copy, original) in second.iter_mut().zip(&first) {
        for of_the_delivery in ["topic", "partition", "position", "member", "epoch", "attempt"] {
            copy[of_the_delivery] = original[of_the_delivery].clone();
        }
        assert_eq!(copy, original);
    }
}
