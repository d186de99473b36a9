use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::*;

fn counting_clock() -> Clock {
    let ticks = AtomicU64::new(0);
    Arc::new(move || ticks.fetch_add(1, Ordering::Relaxed))
}

fn start(call: u64) -> Start {
    Start {
        call,
        topic: "t".into(),
        group: "g".into(),
        key: "k".into(),
        number: 1,
        digest: 7,
        attempt: 1,
        member: "m".into(),
        epoch: 1,
        partition: 0,
        position: 0,
        replayed: false,
        checked: None,
    }
}

fn sample() -> Vec<Kind> {
    vec![
        Kind::ProcessStarted,
        Kind::Offered {
            call: 1,
            bus: 0,
            topic: "t".into(),
            key: Key::new([0xFF, 0x00]),
            number: u64::MAX,
            id: "i".into(),
            digest: u64::MAX,
        },
        Kind::Published {
            call: 1,
            outcome: PublishOutcome::Confirmed { partition: 3, position: Some(9), duplicate: true },
        },
        Kind::Published { call: 2, outcome: PublishOutcome::Unknown },
        Kind::Published { call: 3, outcome: PublishOutcome::Refused { class: "too-large".into(), root: Some(4) } },
        Kind::Start(start(5)),
        Kind::Start(Start { key: Key::none(), replayed: true, checked: Some(5), ..start(6) }),
        Kind::End { call: 5, outcome: EndOutcome::Panicked },
        Kind::CommitConfirmed(Commit {
            call: 1,
            topic: "t".into(),
            group: "g".into(),
            partition: 0,
            position: 4,
            epoch: 1,
            member: "m".into(),
            beyond: vec![(6, 9)],
        }),
        Kind::ProcessKilled { victim: 2 },
    ]
}

#[test]
fn a_file_gives_back_what_was_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("h.ndjson");
    let file = FileRecorder::append(&path, counting_clock()).unwrap();
    let memory = MemoryRecorder::new(counting_clock());
    for kind in sample() {
        file.record(1, kind.clone());
        memory.record(1, kind);
    }
    file.check().unwrap();
    let read = History::read(&path).unwrap();
    assert_eq!(read, memory.snapshot());
    assert_eq!(read.digest(), memory.snapshot().digest());
    assert_eq!(std::fs::read(&path).unwrap(), read.to_ndjson());
}

#[test]
fn a_torn_last_line_is_left_out_and_any_other_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("h.ndjson");
    let whole = b"{\"at\":1,\"process\":0,\"kind\":\"process_started\"}\n".to_vec();
    let torn = [&whole[..], b"{\"at\":2,\"pro"].concat();
    std::fs::write(&path, &torn).unwrap();
    assert_eq!(History::read(&path).unwrap().events.len(), 1);
    std::fs::write(&path, [&torn[..], b"\n"].concat()).unwrap();
    let error = History::read(&path).unwrap_err().to_string();
    assert!(error.contains("line 2"), "{error}");
}

#[test]
fn merging_keeps_the_order_of_each_part() {
    let event = |at, process| Event { at, process, kind: Kind::ProcessStarted };
    let a = History::new(vec![event(1, 1), event(3, 1), event(3, 7)]);
    let b = History::new(vec![event(2, 2), event(3, 2)]);
    let merged: Vec<_> = History::merge([a, b]).events.iter().map(|e| (e.at, e.process)).collect();
    assert_eq!(merged, [(1, 1), (2, 2), (3, 1), (3, 7), (3, 2)]);
}

#[test]
fn a_dropped_call_records_that_it_was_abandoned_and_an_ended_one_only_its_end() {
    let memory = Arc::new(MemoryRecorder::new(counting_clock()));
    drop(HandlerCall::begin(memory.clone(), 0, start(1)));
    HandlerCall::begin(memory.clone(), 0, start(2)).end(EndOutcome::Ok);
    let ends: Vec<_> = memory
        .take()
        .events
        .into_iter()
        .filter_map(|e| match e.kind {
            Kind::End { call, outcome } => Some((call, outcome)),
            _ => None,
        })
        .collect();
    assert_eq!(ends, [(1, EndOutcome::Abandoned), (2, EndOutcome::Ok)]);
}

#[test]
fn the_host_clock_does_not_fall() {
    let clock = monotonic_clock();
    let first = clock();
    assert!(clock() >= first && first > 0);
}

#[test]
fn an_instant_has_the_time_that_the_recorders_clock_had() {
    let dir = tempfile::tempdir().unwrap();
    let file = FileRecorder::append(dir.path().join("h.ndjson"), monotonic_clock()).unwrap();
    let clock = monotonic_clock();
    let look = || {
        let (before, instant) = (clock(), tokio::time::Instant::now());
        (before, instant, clock())
    };
    // The first instant is older than the recorder's anchor.
    for (before, instant, after) in std::iter::repeat_with(look).take(3) {
        let time = file.time_of(instant).unwrap();
        // Within the time that the recorder's own look at both took.
        assert!((before.saturating_sub(1_000_000)..=after + 1_000_000).contains(&time), "{before} {time} {after}");
    }
    assert_eq!(MemoryRecorder::new(clock).time_of(tokio::time::Instant::now()), None);
}

#[test]
fn first_difference_finds_it() {
    let memory = MemoryRecorder::new(counting_clock());
    sample().into_iter().for_each(|kind| memory.record(0, kind));
    let (one, mut two) = (memory.snapshot(), memory.snapshot());
    assert_eq!(one.first_difference(&two), None);
    two.events[3].at += 1;
    assert_eq!(one.first_difference(&two), Some(3));
    assert_ne!(one.digest(), two.digest());
}

proptest! {
    #[test]
    fn payloads_say_what_they_were_made_for(key in ".{0,9}", number: u64, size in 0_usize..300) {
        let key = Key::new(&key);
        let bytes = make_payload("t", &key, number, size);
        prop_assert_eq!(bytes.len(), size.max(28));
        let parsed = parse_payload(&bytes).unwrap();
        prop_assert_eq!(parsed.number, number);
        prop_assert!(parsed.belongs_to("t", &key));
        prop_assert!(!parsed.belongs_to("u", &key));
    }

    #[test]
    fn a_changed_payload_is_noticed(number: u64, size in 28_usize..200, at: prop::sample::Index, bit in 0..8) {
        let mut bytes = make_payload("t", &"k".into(), number, size).to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        prop_assert!(parse_payload(&bytes).is_err());
    }

    #[test]
    fn no_bytes_make_the_parser_panic(bytes: Vec<u8>) {
        let _ = parse_payload(&bytes);
        let _ = serde_json::from_slice::<Event>(&bytes);
    }
}
