//! O8: the log that the bus writes.

use super::dsl::{Tape, tape};
use crate::history::{Kind, PublishOutcome};
use crate::oracle::{AfterRefusal, Expectations, Rule};

#[test]
fn o8_a_publish_that_appears_behind_a_later_one() {
    let unknown = || tape().offer("a", 1).outcome("a", 1, PublishOutcome::Unknown);
    let later = |tape: Tape| tape.offer("a", 2).confirm("a", 2, 5);
    later(unknown()).log("a", 1, 6).log("a", 2, 5).refutes(Rule::O8);
    later(unknown()).log("a", 1, 4).log("a", 2, 5).passes();
    later(unknown()).log("a", 2, 5).passes();
    // Confirmed or not: the line of a key is the order of its calls.
    later(tape().offer("a", 1).confirm("a", 1, 6)).refutes(Rule::O8);
    // Other keys do not wait.
    later(tape()).offer("b", 1).confirm("b", 1, 1).passes();
}

#[test]
fn o8_a_refused_or_withdrawn_publish_that_is_stored() {
    tape().offer("a", 1).refuse("a", 1, None).log("a", 1, 0).refutes(Rule::O8);
    tape().offer("a", 1).outcome("a", 1, PublishOutcome::Withdrawn).log("a", 1, 0).refutes(Rule::O8);
    tape().offer("a", 1).outcome("a", 1, PublishOutcome::Unknown).log("a", 1, 0).passes();
    let withdrawn = tape().offer("a", 1).offer("a", 2).outcome("a", 1, PublishOutcome::Withdrawn);
    withdrawn.confirm("a", 2, 0).passes();
}

#[test]
fn o8_a_refusal_without_cascade() {
    let queued = || tape().offer("a", 1).offer("a", 2).refuse("a", 1, None);
    queued().confirm("a", 2, 0).refutes(Rule::O8);
    queued().refuse("a", 2, Some(1)).passes();
    let free = Expectations::new(2).after_refusal("t", AfterRefusal::Continue);
    queued().confirm("a", 2, 0).expect(free).passes();
}

#[test]
fn o8_a_refusal_without_seal() {
    let refused = || tape().offer("a", 1).refuse("a", 1, None);
    let more = |tape: Tape| tape.offer("a", 2).confirm("a", 2, 0);
    more(refused()).refutes(Rule::O8);
    more(refused()).returned("a", 1).refutes(Rule::O8);
    more(refused().returned("a", 1)).passes();
}

#[test]
fn o8_the_caller_may_learn_of_the_root_from_any_error_that_names_it() {
    let sealed = || tape().offer("a", 1).offer("a", 2).refuse("a", 1, None).refuse("a", 2, Some(1));
    let more = |tape: Tape| tape.offer("a", 3).confirm("a", 3, 0);
    more(sealed().returned("a", 2)).passes();
    more(sealed()).refutes(Rule::O8);
    // An error that names another refusal does not say so.
    let two = sealed().returned("a", 1).offer("a", 4).refuse("a", 4, None);
    let other = two.clone().returned("a", 2);
    more(other).refutes(Rule::O8);
    more(two.returned("a", 4)).passes();
}

#[test]
fn o8_resume_unseals_its_key_from_then_on() {
    let resume = |tape: Tape, key: &str| tape.add(Kind::Resumed { bus: 0, topic: "t".into(), key: key.into() });
    let refused = || tape().offer("a", 1).refuse("a", 1, None);
    let more = |tape: Tape| tape.offer("a", 2).confirm("a", 2, 0);
    more(resume(refused(), "a")).passes();
    more(resume(refused(), "b")).refutes(Rule::O8);
    resume(more(refused()), "a").refutes(Rule::O8);
    let until = || Expectations::new(2).after_refusal("t", AfterRefusal::SealUntilResumed);
    more(refused().returned("a", 1)).expect(until()).refutes(Rule::O8);
    more(resume(refused().returned("a", 1), "a")).expect(until()).passes();
}

#[test]
fn o8_resume_unseals_what_was_refused_before_it_however_late_that_is_told() {
    let resume = |tape: Tape| tape.add(Kind::Resumed { bus: 0, topic: "t".into(), key: "a".into() });
    let told = |tape: Tape| tape.refuse("a", 1, None).returned("a", 1);
    let queued = || tape().offer("a", 1).offer("a", 2);
    // The second fails by the first one's refusal, the third comes after the resume.
    let third = |tape: Tape| told(tape.offer("a", 3)).refuse("a", 2, Some(1)).confirm("a", 3, 0);
    third(resume(queued().sealed("a", 1))).passes();
    third(resume(queued()).sealed("a", 1)).refutes(Rule::O8);
    third(queued().sealed("a", 1)).refutes(Rule::O8);
    resume(third(queued().sealed("a", 1))).refutes(Rule::O8);
    // Without a record of the seal, a publish that was called after the resume and failed all the same tells.
    third(resume(queued())).passes();
    third(resume(tape().offer("a", 1)).offer("a", 2)).refutes(Rule::O8);
    // The same where only a resume unseals.
    let until = || Expectations::new(2).after_refusal("t", AfterRefusal::SealUntilResumed);
    third(resume(queued().sealed("a", 1))).expect(until()).passes();
    third(resume(queued()).sealed("a", 1)).expect(until()).refutes(Rule::O8);
}

#[test]
fn o8_two_copies() {
    let twice = || tape().offer("a", 1).confirm("a", 1, 0).log("a", 1, 0).log("a", 1, 1);
    twice().refutes(Rule::O8);
    twice().expect(Expectations::new(2).copies_allowed()).passes();
    tape().offer("a", 1).confirm("a", 1, 0).log("a", 1, 0).passes();
    // A replay is a publish of its own.
    let replay = tape().offer("a", 1).confirm("a", 1, 0).log("a", 1, 0).replays(true);
    replay.log("a", 1, 1).passes();
}
