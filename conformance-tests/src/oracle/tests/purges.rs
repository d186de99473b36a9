//! Purges: what they took unfinished is told as lost, and nothing else is.

use super::dsl::{Tape, tape};
use crate::history::Kind;
use crate::oracle::{Expectations, Rule};

/// Five records of one key, of which two are finished and committed.
fn two_of_five() -> Tape {
    let quiet = Expectations::new(2).quiet().log_read().group("t", "g");
    tape().expect(quiet).stored("a", 5, 0).assigned().handle("a", 1..=2, 0).commit(2, &[])
}

/// The log as purges have left it.
fn left(tape: Tape, first: u64) -> Tape {
    (first..5).fold(tape, |tape, position| tape.log("a", position + 1, position))
}

#[test]
fn o5_what_a_purge_took_unfinished_is_told() {
    left(two_of_five().purge(4).handle("a", [5], 0), 4).refutes_all(&[Rule::O1, Rule::O2, Rule::O5]);
    left(two_of_five().purge(4).lost(2, 4).handle("a", [5], 0), 4).passes();
    left(two_of_five().purge(4).lost(2, 3).handle("a", [5], 0), 4).refutes_all(&[Rule::O1, Rule::O5]);
    // What was delivered before the purge may still be handled.
    left(two_of_five().purge(4).handle("a", 3..=5, 0), 4).passes();
}

#[test]
fn o5_a_loss_excuses_nothing_that_no_purge_took() {
    left(two_of_five().purge(3).lost(2, 4).handle("a", [5], 0), 3).refutes_all(&[Rule::O1, Rule::O5]);
    left(two_of_five().purge(3), 4).handle("a", 3..=5, 0).refutes(Rule::O5);
}

#[test]
fn o6_a_loss_is_told_and_nothing_unfinished_was_purged() {
    let handled = || two_of_five().handle("a", 3..=5, 0);
    left(handled().purge(2), 2).passes();
    left(handled().purge(2).lost(1, 2), 2).refutes(Rule::O6);
    left(handled().commit(5, &[]).purge(5).lost(2, 5), 5).refutes(Rule::O6);
    // Finished beyond the watermark, and the broker knows it.
    let beyond = || handled().commit(2, &[(2, 4)]);
    left(beyond().purge(4).lost(2, 4), 4).refutes(Rule::O6);
    left(beyond().purge(5).lost(2, 5), 5).passes();
    // A member that is gone had finished it, and nobody can know.
    left(handled().purge(4).lost(2, 4), 4).passes();
}

#[test]
fn o6_a_loss_of_one_partition_is_told_of_another_only_where_they_share_positions() {
    let elsewhere = |expect: Expectations| {
        let other = tape().expect(expect).stored("a", 1, 0).assigned().handle("a", [1], 0);
        other.in_partition(1).stored("b", 2, 1).assigned().purge(2).in_partition(0).lost(1, 2)
    };
    elsewhere(Expectations::new(2)).refutes(Rule::O6);
    elsewhere(Expectations::new(2).shared_positions()).passes();
}

#[test]
fn o1_a_group_that_begins_after_a_purge_has_lost_nothing() {
    let anew = |position| Kind::StartPosition { topic: "t".into(), group: "g".into(), partition: 0, position };
    let again = || left(two_of_five().handle("a", 3..=5, 0).commit(5, &[]).purge(2), 2).add(anew(0)).by("m2", 1, 2);
    again().assigned().handle("a", 3..=5, 0).passes();
    again().assigned().handle("a", 4..=5, 0).refutes_all(&[Rule::O1, Rule::O5]);
}
