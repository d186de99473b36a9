//! O1, O2, O3, O4 and O7: what members do.

use super::dsl::{Tape, tape};
use crate::history::EndOutcome::{Abandoned, DeadLettered, Failed, Ok, Panicked};
use crate::history::{FinishedBy, Kind, SessionCause};
use crate::oracle::{Expectations, Rule};

/// Five records of key `a` at positions 0 to 4, and the first session.
fn five() -> Tape {
    tape().stored("a", 5, 0).assigned()
}

#[test]
fn o1_a_record_that_is_passed_over() {
    let two = || tape().stored("a", 2, 0).assigned();
    two().handle("a", [2], 0).refutes(Rule::O1);
    two().handle("a", [1, 2], 0).passes();
}

#[test]
fn o1_a_record_whose_predecessor_failed_and_is_unfinished() {
    let failed = || five().attempt("a", 1, 0, 1, Failed);
    failed().handle("a", [2], 0).refutes(Rule::O1);
    failed().attempt("a", 1, 0, 2, Ok).handle("a", [2], 0).passes();
    failed().finished(0, FinishedBy::DeadLettered).handle("a", [2], 0).passes();
    failed().finished(0, FinishedBy::Skipped).handle("a", [2], 0).passes();
    five().attempt("a", 1, 0, 1, DeadLettered).handle("a", [2], 0).passes();
    five().attempt("a", 1, 0, 1, Panicked).handle("a", [2], 0).refutes(Rule::O1);
    five().attempt("a", 1, 0, 1, Abandoned).handle("a", [2], 0).refutes(Rule::O1);
    five().finished(0, FinishedBy::DroppedCopy).handle("a", [2], 0).refutes(Rule::O1);
}

#[test]
fn o1_counts_only_what_is_stored() {
    let refused = tape().offer("a", 1).refuse("a", 1, None).returned("a", 1);
    refused.offer("a", 2).confirm("a", 2, 0).assigned().start("a", 2, 0).passes();
    let unknown = || tape().offer("a", 1).offer("a", 2).confirm("a", 2, 1).assigned();
    unknown().start("a", 2, 1).passes();
    unknown().start("a", 2, 1).log("a", 1, 0).refutes(Rule::O1);
}

#[test]
fn o1_holds_for_each_group_alone() {
    let other = |tape: Tape| tape.in_group("h").assigned();
    other(five().handle("a", 1..=5, 0)).handle("a", 1..=5, 0).passes();
    other(five().handle("a", 1..=5, 0)).handle("a", [2], 0).refutes(Rule::O1);
}

#[test]
fn o1_segments_begin_at_start_positions_losses_and_seeks() {
    let start_at = |position| Kind::StartPosition { topic: "t".into(), group: "g".into(), partition: 0, position };
    let at_three = || tape().stored("a", 5, 0).add(start_at(2)).assigned();
    at_three().handle("a", 3..=5, 0).passes();
    at_three().handle("a", 4..=5, 0).refutes(Rule::O1);
    five().handle("a", [1], 0).lost(1, 3).handle("a", 4..=5, 0).passes();
    five().handle("a", [1], 0).lost(1, 2).handle("a", 4..=5, 0).refutes(Rule::O1);
    let back = || five().handle("a", 1..=5, 0).commit(5, &[]).seek(1).by("m1", 0, 2);
    let sought = || back().session(SessionCause::Seek, Some(1));
    sought().handle("a", 2..=5, 0).passes();
    sought().handle("a", 3..=5, 0).refutes(Rule::O1);
}

#[test]
fn o1_a_recreated_topic_is_another_line() {
    let again = five()
        .handle("a", 1..=2, 0)
        .commit(2, &[])
        .add(Kind::TopicRecreated { topic: "t".into() })
        .offer("a", 6)
        .confirm("a", 6, 0)
        .offer("a", 7)
        .confirm("a", 7, 1);
    let reset =
        || again.clone().add(Kind::LogReset { topic: "t".into(), group: "g".into(), partition: 0, position: 0 });
    let quiet = || reset().expect(Expectations::new(1).quiet()).assigned();
    let handle = |tape: Tape, number, position| tape.attempt("a", number, position, 1, Ok);
    handle(handle(quiet(), 6, 0), 7, 1).commit(2, &[]).passes();
    handle(quiet(), 7, 1).expect(Expectations::new(1)).refutes(Rule::O1);
    handle(quiet(), 6, 0).refutes(Rule::O5);
}

#[test]
fn o6_what_was_fetched_from_a_replaced_log_leaves_its_position_to_the_new_one() {
    // The publish was never answered, so the delivery first shows where it was stored.
    let old = |key: &str| {
        let tape = tape().offer(key, 1).stored("b", 1, 0).assigned().handle("b", [1], 0);
        tape.add(Kind::TopicRecreated { topic: "t".into() }).attempt(key, 1, 1, 1, Ok)
    };
    let reset = |tape: Tape| {
        let reset = Kind::LogReset { topic: "t".into(), group: "g".into(), partition: 0, position: 0 };
        tape.add(reset).by("m1", 0, 2).session(SessionCause::Seek, Some(0))
    };
    reset(old("a")).stored("c", 2, 0).handle("c", 1..=2, 0).passes();
    // In one log a position holds one record.
    old("a").handle("c", [1], 1).refutes(Rule::O6);
    let twice = reset(old("a")).offer("c", 1).offer("d", 1).attempt("c", 1, 1, 1, Ok);
    twice.attempt("d", 1, 1, 1, Ok).refutes(Rule::O6);
}

#[test]
fn o2_a_replay_without_a_new_session() {
    five().handle("a", 1..=3, 0).handle("a", 2..=5, 0).refutes(Rule::O2);
    let reconnect = |tape: Tape| tape.session(SessionCause::Reconnect, None);
    reconnect(five().handle("a", 1..=3, 0)).handle("a", 2..=5, 0).passes();
    reconnect(five().handle("a", 1..=3, 0)).handle("a", 4..=5, 0).passes();
}

#[test]
fn o2_a_replay_in_reverse_or_with_gaps() {
    let again = || five().handle("a", 1..=4, 0).by("m2", 1, 2).assigned();
    again().handle("a", [4, 3], 0).refutes(Rule::O2);
    again().handle("a", [2, 4], 0).refutes(Rule::O2);
    again().handle("a", [2, 3, 4, 5], 0).passes();
}

#[test]
fn o2_further_attempts_are_no_replay_but_their_number_must_rise() {
    five().attempt("a", 1, 0, 1, Failed).attempt("a", 1, 0, 2, Ok).passes();
    five().attempt("a", 1, 0, 1, Failed).attempt("a", 1, 0, 1, Ok).refutes(Rule::O2);
    five().attempt("a", 1, 0, 1, Ok).attempt("a", 1, 0, 2, Ok).refutes(Rule::O2);
}

#[test]
fn o2_replayed_letters_are_keys_of_their_own() {
    let letter = |tape: Tape, number, position| tape.replays(true).attempt("a", number, position, 1, Ok).replays(false);
    letter(five().handle("a", 1..=5, 0), 2, 5).passes();
    letter(letter(five().handle("a", 1..=5, 0), 2, 5), 2, 6).passes();
    let crossed = letter(letter(five().handle("a", 1..=5, 0), 4, 6), 2, 5);
    assert_eq!(crossed.judge().rules(), [Rule::O1, Rule::O2]);
}

#[test]
fn o2_a_session_needs_a_cause_where_that_is_strict() {
    let strict = || five().expect(Expectations::new(2).strict_sessions(0));
    let reconnect = |tape: Tape| tape.session(SessionCause::Reconnect, None);
    reconnect(strict()).refutes(Rule::O2);
    reconnect(strict().expect(Expectations::new(2))).passes();
    let fault = |lasting| Kind::Fault { name: "cut".into(), lasting };
    reconnect(strict().add(fault(false))).passes();
    reconnect(reconnect(strict().add(fault(false)))).refutes(Rule::O2);
    reconnect(reconnect(strict().add(fault(true)))).passes();
    let joined = |group: &str| Kind::MemberJoined { group: group.into(), member: "m2".into() };
    reconnect(strict().add(joined("g"))).passes();
    reconnect(strict().add(joined("h"))).refutes(Rule::O2);
}

#[test]
fn o3_a_replay_of_what_was_committed() {
    let after = |tape: Tape| tape.kill(0).by("m2", 1, 2).assigned();
    let three = || five().handle("a", 1..=3, 0);
    after(three().commit(2, &[])).handle("a", 2..=5, 0).refutes(Rule::O3);
    after(three().commit(2, &[])).handle("a", 3..=5, 0).passes();
    after(three().commit_sent(2)).handle("a", 2..=5, 0).passes();
    after(three().commit(2, &[]).commit(3, &[])).handle("a", 3..=5, 0).refutes(Rule::O3);
}

#[test]
fn o3_a_replay_out_of_the_finished_beyond_set() {
    // Key b is stuck at 0; a is finished behind it.
    let stuck = || tape().stored("b", 1, 0).stored("a", 3, 1).assigned().handle("a", 1..=3, 1);
    let after = |tape: Tape| tape.kill(0).by("m2", 1, 2).assigned();
    after(stuck().commit(0, &[(1, 4)])).handle("a", [3], 1).refutes(Rule::O3);
    after(stuck().commit(0, &[(1, 3)])).handle("a", [3], 1).passes();
    // The set was cut later: records above the horizon may be repeated.
    after(stuck().commit(0, &[(1, 4)]).commit(0, &[(1, 3)])).handle("a", [3], 1).passes();
}

#[test]
fn o3_a_seek_clears_what_was_committed() {
    let sought = five().handle("a", 1..=5, 0).commit(5, &[]).seek(0).by("m1", 0, 2);
    sought.clone().session(SessionCause::Seek, None).handle("a", 1..=5, 0).passes();
    sought.session(SessionCause::Reconnect, None).handle("a", 1..=5, 0).refutes(Rule::O3);
}

#[test]
fn o4_two_intervals_of_one_key() {
    let overlap = five().start("a", 1, 0).start("a", 2, 1).judge();
    assert!(overlap.rules().contains(&Rule::O4));
    // The same record, by two sessions of one epoch.
    let again = |tape: Tape| tape.session(SessionCause::Reconnect, None).start("a", 1, 0);
    again(five().start("a", 1, 0)).refutes(Rule::O4);
    again(five().start("a", 1, 0).end(1, Abandoned)).passes();
    // Different keys, and records without a key, may overlap.
    tape().stored("a", 1, 0).stored("b", 1, 1).assigned().start("a", 1, 0).start("b", 1, 1).passes();
    tape().stored("", 2, 0).assigned().start("", 2, 1).start("", 1, 0).passes();
}

#[test]
fn o4_an_interval_ends_with_its_process() {
    let successor = |tape: Tape| tape.by("m2", 1, 2).assigned().start("a", 1, 0);
    let killed = successor(five().start("a", 1, 0).kill(0));
    assert_eq!(killed.judge().counts.exempt_overlaps, 0);
    killed.passes();
    let superseded = successor(five().start("a", 1, 0));
    assert_eq!(superseded.judge().counts.exempt_overlaps, 1);
    superseded.passes();
}

#[test]
fn o4_a_stale_owner_that_goes_on() {
    let successor = || five().handle("a", [1], 0).by("m2", 1, 2).assigned();
    let stale = successor().handle("a", 2..=3, 0).by("m1", 0, 1).start("a", 2, 1);
    stale.refutes(Rule::O4);
    // Checked before the successor began, started after: late, not stale.
    let late = five().handle("a", [1], 0).check().by("m2", 1, 2).assigned().handle("a", 2..=3, 0);
    late.by("m1", 0, 1).start_as(2, "a", 2, 1).passes();
    // The same where only the time of the check is known: before the successor's first start, or after it.
    let begun = successor().events.len();
    let told = |record| successor().handle("a", 2..=3, 0).by("m1", 0, 1).start_checked_at(record, "a", 2, 1);
    told(begun - 1).passes();
    told(begun).refutes(Rule::O4);
    // Between the successor's session and its first start the old owner may not know yet.
    successor().by("m1", 0, 1).handle("a", [2], 0).by("m2", 1, 2).handle("a", 2..=3, 0).passes();
}

#[test]
fn o4_more_left_behind_than_could_run() {
    let keys = tape().stored("a", 1, 0).stored("b", 1, 1).stored("c", 1, 2).assigned();
    let run = |tape: Tape| tape.start("a", 1, 0).start("b", 1, 1).start("c", 1, 2);
    let twice = run(run(keys).by("m2", 1, 2).assigned());
    twice.clone().refutes(Rule::O4);
    twice.expect(Expectations::new(3)).passes();
}

#[test]
fn o4_an_owner_whose_epoch_does_not_rise() {
    five().by("m2", 1, 1).assigned().refutes(Rule::O4);
    five().by("m2", 1, 0).assigned().refutes(Rule::O4);
    five().by("m2", 1, 2).assigned().passes();
    five().session(SessionCause::Reconnect, None).passes();
}

#[test]
fn o7_a_commit_past_what_is_unfinished() {
    five().handle("a", [1], 0).commit(2, &[]).refutes(Rule::O7);
    five().handle("a", [1], 0).commit(1, &[]).passes();
    five().start("a", 1, 0).commit(1, &[]).end(1, Ok).refutes(Rule::O7);
    five().attempt("a", 1, 0, 1, Failed).commit(1, &[]).refutes(Rule::O7);
    five().attempt("a", 1, 0, 1, Failed).finished(0, FinishedBy::Skipped).commit(1, &[]).passes();
    five().commit_sent(1).handle("a", [1], 0).commit(1, &[]).refutes(Rule::O7);
    five().commit_sent(1).handle("a", [1], 0).passes();
}

#[test]
fn o7_the_position_read_after_the_run_counts() {
    let read = |position| Kind::CommittedRead { topic: "t".into(), group: "g".into(), partition: 0, position };
    five().handle("a", 1..=2, 0).add(read(2)).passes();
    five().handle("a", 1..=2, 0).add(read(3)).refutes(Rule::O7);
}

#[test]
fn o7_a_late_commit_of_a_former_owner() {
    let successor = || five().handle("a", 1..=3, 0).by("m2", 1, 2).assigned().start("a", 1, 0);
    successor().by("m1", 0, 1).commit(3, &[]).refutes(Rule::O7);
    successor().by("m1", 0, 1).commit_sent(3).passes();
    // Sent in time: the answer came late, not the commit.
    let sent_before = five().handle("a", 1..=3, 0).commit_sent(3).by("m2", 1, 2).assigned();
    sent_before.by("m1", 0, 1).commit(3, &[]).passes();
}

#[test]
fn o7_begins_anew_with_a_seek() {
    let sought = || {
        let five = five().handle("a", 1..=5, 0).commit(5, &[]).seek(1).by("m1", 0, 2);
        five.session(SessionCause::Seek, Some(1))
    };
    sought().handle("a", [2], 0).commit(3, &[]).refutes(Rule::O7);
    sought().handle("a", [2], 0).commit(2, &[]).passes();
    five().handle("a", [1], 0).lost(1, 3).commit(3, &[]).passes();
}

#[test]
fn o7_a_replay_concerns_the_group_that_it_is_handed_to() {
    let replayed = || five().handle("a", 1..=5, 0).replays(true).log("a", 2, 5);
    replayed().commit(6, &[]).passes();
    replayed().start("a", 2, 5).commit(6, &[]).refutes(Rule::O7);
    replayed().start("a", 2, 5).end(6, Ok).commit(6, &[]).passes();
}
