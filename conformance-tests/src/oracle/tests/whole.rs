//! O5, O6, O9, O10, malformed histories, and the uses of a verdict.

use super::dsl::{Tape, tape};
use crate::history::EndOutcome::Ok as Done;
use crate::history::{EndOutcome, Event, FinishedBy, History, Kind, Start};
use crate::oracle::{Expectations, Oracle, Rule, Verdict, write_failure};

fn quiet() -> Expectations {
    Expectations::new(2).quiet().group("t", "g")
}

#[test]
fn o5_a_confirmed_publish_that_is_never_finished() {
    let three = || tape().expect(quiet()).stored("a", 3, 0).assigned();
    three().handle("a", 1..=2, 0).refutes(Rule::O5);
    three().handle("a", 1..=3, 0).passes();
    three().handle("a", 1..=2, 0).finished(2, FinishedBy::Skipped).passes();
    three().handle("a", 1..=2, 0).lost(2, 3).passes();
    three().handle("a", 1..=2, 0).expect(Expectations::new(2)).passes();
    three().handle("a", 1..=2, 0).start("a", 3, 2).kill(0).refutes(Rule::O5);
    tape().expect(quiet()).offer("a", 1).passes();
}

#[test]
fn o5_each_group_that_takes_part() {
    let both = || tape().expect(quiet().group("t", "h")).stored("a", 1, 0).assigned().handle("a", [1], 0);
    both().refutes(Rule::O5);
    both().in_group("h").assigned().handle("a", [1], 0).passes();
}

#[test]
fn o5_a_confirmed_publish_that_the_log_does_not_hold() {
    let read = || Expectations::new(2).log_read();
    tape().expect(read()).stored("a", 2, 0).log("a", 1, 0).refutes(Rule::O5);
    tape().expect(read()).stored("a", 2, 0).log("a", 1, 0).log("a", 2, 1).passes();
    let kept = Kind::LogBounds { topic: "t".into(), partition: 0, first: 1, end: 2 };
    tape().expect(read()).stored("a", 2, 0).add(kept).log("a", 2, 1).passes();
}

#[test]
fn o6_a_delivery_that_was_never_offered() {
    tape().stored("a", 1, 0).assigned().handle("a", [1], 0).start("b", 1, 1).refutes(Rule::O6);
    tape().stored("a", 1, 0).assigned().handle("a", [1], 0).handle("a", [2], 0).refutes(Rule::O6);
    tape().stored("a", 1, 0).stored("b", 1, 1).assigned().start("b", 1, 1).passes();
}

#[test]
fn o6_other_bytes_than_the_offered_ones() {
    let mut changed = tape().stored("a", 1, 0).assigned().start("a", 1, 0);
    let Some(Event { kind: Kind::Start(Start { digest, .. }), .. }) = changed.events.last_mut() else {
        unreachable!("the last record is a start");
    };
    *digest += 1;
    changed.refutes(Rule::O6);
    // The log says that another record is there.
    tape().stored("a", 1, 0).offer("b", 1).log("b", 1, 0).refutes(Rule::O6);
}

#[test]
fn o9_no_two_keys_overlapped() {
    let two = || tape().expect(Expectations::new(2).overlap()).stored("a", 2, 0).stored("b", 1, 2).assigned();
    two().handle("a", [1], 0).handle("b", [1], 2).refutes(Rule::O9);
    two().start("a", 1, 0).start("b", 1, 2).passes();
    two().start("a", 1, 0).end(1, Done).start("b", 1, 2).refutes(Rule::O9);
    // A key does not overlap with itself, nor with a key of another group.
    let groups = two().start("a", 1, 0).in_group("h").assigned().start("b", 1, 2);
    groups.refutes(Rule::O9);
}

#[test]
fn o10_too_few_keys_or_partitions() {
    let spread = |keys, partitions| {
        let tape = tape().expect(Expectations::new(2).spread(keys, partitions));
        let tape = tape.stored("a", 1, 0).assigned().handle("a", [1], 0).in_partition(1);
        tape.stored("b", 1, 0).assigned().handle("b", [1], 0)
    };
    spread(2, 2).passes();
    spread(3, 2).refutes(Rule::O10);
    spread(2, 3).refutes(Rule::O10);
}

#[test]
fn histories_that_contradict_themselves_are_not_believed() {
    let one = || tape().stored("a", 1, 0).assigned();
    one().end(7, EndOutcome::Ok).refutes(Rule::Malformed);
    one().offer("a", 1).refutes(Rule::Malformed);
    one().refuse("a", 1, None).refutes(Rule::Malformed);
    one().returned("b", 1).refutes(Rule::Malformed);
}

#[test]
fn violations_are_capped_in_print_and_counted_exactly() {
    let mut tape = tape().assigned();
    for number in 1..=1_000 {
        tape = tape.attempt("a", number, number, 1, Done);
    }
    let verdict = tape.judge();
    assert_eq!(verdict.count(Rule::O6), 1_000);
    assert_eq!(verdict.violations.len(), Verdict::KEPT);
}

#[test]
fn a_failure_is_written_so_that_it_can_be_judged_again() {
    let dir = tempfile::tempdir().unwrap();
    let tape: Tape = tape().stored("a", 2, 0).assigned().handle("a", [2], 0);
    let (history, verdict) = (History::new(tape.events.clone()), tape.judge());
    let path = write_failure(dir.path(), "case 1/x", 42, &history, &verdict).unwrap();
    assert_eq!(path.file_name().unwrap(), "case_1_x-42.ndjson");
    let read = History::read(&path).unwrap();
    assert_eq!(read, history);
    let again = Oracle::judge(&read, &Expectations::new(2));
    assert_eq!(again.rules(), [Rule::O1]);
    let text = std::fs::read_to_string(path.with_extension("txt")).unwrap();
    assert!(text.contains("seed 42") && text.contains("O1 topic t group g key \"a\""), "{text}");
}
