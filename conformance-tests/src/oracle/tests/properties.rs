//! Random legal executions pass; with one thing broken they do not.

use std::time::Instant;

use proptest::prelude::*;

use super::model::{expectations, run};
use crate::history::{EndOutcome, Event, History, Kind, SessionCause, Start};
use crate::oracle::{Oracle, Rule};

/// Judges a broken history; at least one of these rules must refute it.
fn is_caught(history: &History, by: &[Rule]) -> Result<(), TestCaseError> {
    let verdict = Oracle::judge(history, &expectations());
    let caught = by.iter().any(|&rule| verdict.count(rule) > 0);
    prop_assert!(caught, "expected one of {:?}:\n{}", by, verdict);
    Ok(())
}

/// The starts of a history, as (index, start).
fn starts(history: &History) -> Vec<(usize, Start)> {
    let start = |(index, event): (usize, &Event)| match &event.kind {
        Kind::Start(start) => Some((index, start.clone())),
        _ => None,
    };
    history.events.iter().enumerate().filter_map(start).collect()
}

fn end_of(history: &History, start: &Start) -> Option<(usize, EndOutcome)> {
    let ends = |(index, event): (usize, &Event)| match event.kind {
        Kind::End { call, outcome } if call == start.call => Some((index, outcome)),
        _ => None,
    };
    history.events.iter().enumerate().find_map(ends)
}

/// Inserts a record as if the process of the record before had written it.
fn insert(history: &mut History, index: usize, kind: Kind) {
    let Event { at, process, .. } = history.events[index - 1];
    history.events.insert(index, Event { at, process, kind });
}

fn pick<T: Clone>(from: &[T], draw: prop::sample::Index) -> Result<T, TestCaseError> {
    if from.is_empty() {
        return Err(TestCaseError::reject("nothing to break"));
    }
    Ok(from[draw.index(from.len())].clone())
}

const CALL: u64 = u64::MAX;

proptest! {
    #![proptest_config(ProptestConfig { max_global_rejects: 10_000, ..ProptestConfig::default() })]

    #[test]
    fn a_perfect_bus_is_never_refuted(seed: u64, steps in 0_usize..1_500) {
        let verdict = Oracle::judge(&run(seed, steps), &expectations());
        prop_assert!(verdict.is_legal(), "seed {seed}, {steps} steps:\n{verdict}");
    }

    #[test]
    fn two_deliveries_of_a_key_swapped_in_a_session(seed: u64, draw: prop::sample::Index) {
        let mut history = run(seed, 200);
        let starts = starts(&history);
        let mut pairs = Vec::new();
        for (place, (index, start)) in starts.iter().enumerate() {
            let next = starts[place + 1..].iter().find(|(_, next)| next.key == start.key);
            if let Some((other, next)) = next.filter(|(_, next)| next.number > start.number && next.epoch == start.epoch) {
                pairs.push((*index, start.clone(), *other, next.clone()));
            }
        }
        let (index, start, other, next) = pick(&pairs, draw)?;
        let as_other = |mine: &Start, other: &Start| Kind::Start(Start {
            number: other.number,
            digest: other.digest,
            position: other.position,
            ..mine.clone()
        });
        history.events[index].kind = as_other(&start, &next);
        history.events[other].kind = as_other(&next, &start);
        is_caught(&history, &[Rule::O2])?;
    }

    #[test]
    fn a_delivery_left_out(seed: u64, draw: prop::sample::Index) {
        let mut history = run(seed, 200);
        let all = starts(&history);
        let only: Vec<_> = all
            .iter()
            .filter(|(_, s)| all.iter().filter(|(_, t)| (&t.key, t.number) == (&s.key, s.number)).count() == 1)
            .cloned()
            .collect();
        let (start_at, start) = pick(&only, draw)?;
        // A seek past it may be what the user wanted.
        let seeks = |event: &Event| matches!(event.kind, Kind::Seek { partition, .. } if partition == start.partition);
        if history.events[start_at..].iter().any(seeks) {
            return Err(TestCaseError::reject("a later seek excuses it"));
        }
        let Some((end_at, EndOutcome::Ok)) = end_of(&history, &start) else {
            return Err(TestCaseError::reject("not finished by it"));
        };
        history.events.remove(end_at);
        history.events.remove(start_at);
        is_caught(&history, &[Rule::O1, Rule::O5, Rule::O7])?;
    }

    #[test]
    fn a_record_stored_twice(seed: u64, draw: prop::sample::Index) {
        let mut history = run(seed, 200);
        let records: Vec<Kind> = history.events.iter().map(|e| e.kind.clone())
            .filter(|kind| matches!(kind, Kind::LogRecord { .. })).collect();
        let mut copy = pick(&records, draw)?;
        if let Kind::LogRecord { position, .. } = &mut copy {
            *position += 1_000_000;
        }
        let end = history.events.len();
        insert(&mut history, end, copy);
        is_caught(&history, &[Rule::O8])?;
    }

    #[test]
    fn a_commit_past_what_runs(seed: u64, draw: prop::sample::Index) {
        let mut history = run(seed, 200);
        // The commits of an owner that was superseded or replaced while it ran say too much, too.
        let (index, start) = pick(&starts(&history), draw)?;
        let commit = crate::history::Commit {
            call: CALL,
            topic: start.topic,
            group: start.group,
            partition: start.partition,
            position: start.position + 1,
            epoch: start.epoch,
            member: start.member,
            beyond: Vec::new(),
        };
        insert(&mut history, index + 1, Kind::CommitConfirmed(commit));
        let caught = is_caught(&history, &[Rule::O7, Rule::O3]);
        // A replay of a record that had been finished once is no hole in the group's progress.
        let first = starts(&history).iter().find(|(_, s)| s.position == start.position && s.partition == start.partition).map(|f| f.0);
        if first == Some(index) {
            caught?;
        }
    }

    #[test]
    fn a_position_read_past_the_end_of_what_is_finished(seed: u64) {
        let mut history = run(seed, 200);
        let Some(last) = starts(&history).pop() else {
            return Err(TestCaseError::reject("nothing handled"));
        };
        let read = Kind::CommittedRead { topic: "t".into(), group: "g".into(), partition: last.1.partition, position: last.1.position + 1 };
        let once = starts(&history).iter().filter(|(_, s)| s.position == last.1.position && s.partition == last.1.partition).count() == 1;
        insert(&mut history, last.0 + 1, read);
        if once {
            is_caught(&history, &[Rule::O7])?;
        }
    }

    #[test]
    fn bytes_changed_on_the_way(seed: u64, draw: prop::sample::Index) {
        let mut history = run(seed, 200);
        let (index, start) = pick(&starts(&history), draw)?;
        history.events[index].kind = Kind::Start(Start { digest: start.digest ^ 1, ..start });
        is_caught(&history, &[Rule::O6])?;
    }

    #[test]
    fn handled_again_in_the_same_session(seed: u64, draw: prop::sample::Index) {
        let mut history = run(seed, 200);
        let (_, start) = pick(&starts(&history), draw)?;
        let Some((end, EndOutcome::Ok)) = end_of(&history, &start) else {
            return Err(TestCaseError::reject("not finished by it"));
        };
        insert(&mut history, end + 1, Kind::Start(Start { call: CALL, ..start }));
        insert(&mut history, end + 2, Kind::End { call: CALL, outcome: EndOutcome::Ok });
        is_caught(&history, &[Rule::O2, Rule::O4])?;
    }

    #[test]
    fn handled_twice_at_once(seed: u64, draw: prop::sample::Index) {
        let mut history = run(seed, 200);
        let (index, start) = pick(&starts(&history), draw)?;
        insert(&mut history, index + 1, Kind::Start(Start { call: CALL, ..start }));
        is_caught(&history, &[Rule::O4])?;
    }

    #[test]
    fn handled_again_after_it_was_committed(seed: u64, draw: prop::sample::Index) {
        let mut history = run(seed, 200);
        let (_, start) = pick(&starts(&history), draw)?;
        let session = Kind::SessionStart {
            topic: start.topic.clone(),
            group: start.group.clone(),
            partition: start.partition,
            member: "again".into(),
            epoch: 1_000,
            cause: SessionCause::Assigned,
            from: None,
        };
        history.events.push(Event { at: u64::MAX, process: 9_999, kind: Kind::ProcessStarted });
        let end = history.events.len();
        insert(&mut history, end, session);
        insert(&mut history, end + 1, Kind::Start(Start { call: CALL, epoch: 1_000, member: "again".into(), ..start }));
        is_caught(&history, &[Rule::O3])?;
    }

    #[test]
    fn a_session_that_nothing_explains(seed: u64) {
        let mut history = run(seed, 200);
        let end = history.events.len();
        let Some((_, start)) = starts(&history).pop() else {
            return Err(TestCaseError::reject("nothing handled"));
        };
        let session = |epoch| Kind::SessionStart {
            topic: "t".into(), group: "g".into(), partition: start.partition,
            member: "again".into(), epoch, cause: SessionCause::Assigned, from: None,
        };
        insert(&mut history, end, Kind::ProcessStarted);
        insert(&mut history, end + 1, session(1_000));
        prop_assert!(Oracle::judge(&history, &expectations()).is_legal());
        insert(&mut history, end + 2, session(1_001));
        is_caught(&history, &[Rule::O2])?;
    }
}

/// Prints the time that judging takes, and asserts nothing about it: `cargo test -- --ignored --nocapture`.
#[test]
#[ignore = "prints figures"]
fn how_long_judging_takes() {
    for steps in [500, 100_000] {
        let history = run(7, steps);
        let began = Instant::now();
        let times = if steps > 1_000 { 1 } else { 1_000 };
        for _ in 0..times {
            assert!(Oracle::judge(&history, &expectations()).is_legal());
        }
        println!("{} records: {:?}", history.events.len(), began.elapsed() / times);
    }
}
