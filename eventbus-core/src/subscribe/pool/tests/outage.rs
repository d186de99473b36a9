//! The outage guard.

use std::time::Duration;

use tokio::time::Instant;

use super::rig::Rig;
use crate::subscribe::pool::OutageChange;
use crate::subscribe::pool::job::AttemptResult;

const SECOND: Duration = Duration::from_secs(1);
const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// Two workers, and six keys of two records each.
fn rig(keys: usize) -> Rig {
    let mut rig = Rig::guarded(2, keys);
    rig.open(0);
    let records: Vec<(u64, &str)> = (1..).zip(NAMES.iter().chain(&NAMES).copied()).collect();
    rig.offer(0, &records);
    rig
}

/// The attempts that the running record is charged, and since when it fails.
fn charged(rig: &Rig) -> (u32, Option<Instant>) {
    let charge = rig.job(0).charge();
    (charge.attempts, charge.since)
}

/// A rig whose first three heads have failed.
fn suspended() -> Rig {
    let mut rig = rig(3);
    for position in 1..=3 {
        assert_eq!(rig.take(0), Some(position));
        rig.retry(0, SECOND);
    }
    rig.look();
    assert_eq!(rig.outages, [OutageChange::Suspended { keys: 3 }]);
    rig
}

/// A rig that three other heads suspend while the second worker handles a head.
fn suspended_beside_one() -> Rig {
    let mut rig = rig(3);
    assert_eq!((rig.take(0), rig.take(1)), (Some(1), Some(2)));
    rig.retry(0, SECOND);
    for _ in 0..2 {
        assert!(rig.take(0).is_some());
        rig.retry(0, SECOND);
    }
    rig
}

#[test]
fn a_suspended_pool_tries_two_at_once_or_charges_an_attempt() {
    let mut rig = suspended();
    assert_eq!(rig.take(0), None, "nothing starts before the first try is due");
    for position in [4, 5, 6] {
        rig.advance(5 * SECOND);
        assert_eq!(rig.take(0), Some(position), "heads that have not failed come first");
        assert_eq!(rig.take(1), None, "one at a time");
        rig.retry(0, Duration::ZERO);
        assert_eq!(rig.take(0), None, "with a pause between two");
    }
    for _ in 0..20 {
        rig.advance(5 * SECOND);
        let position = rig.take(0).expect("one that has failed is tried again");
        assert!(position <= 6, "{position} overtook the head of its key");
        assert_eq!(charged(&rig), (1, None), "it is charged");
        rig.retry(0, Duration::ZERO);
    }
}

#[test]
fn after_an_outage_a_key_waits_for_its_back_off() {
    let mut rig = suspended();
    rig.advance(SECOND / 2);
    assert_eq!(rig.take(0), Some(4));
    rig.finish(0);
    rig.look();
    assert_eq!(rig.outages[1], OutageChange::Resumed { after: SECOND / 2 });
    let mut handled: Vec<u64> = Vec::new();
    while let Some(position) = rig.take(0) {
        handled.push(position);
        rig.finish(0);
    }
    handled.sort_unstable();
    assert_eq!(handled, [1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12], "at once, whatever their back-offs were");
}

#[test]
fn after_an_outage_all_handlers_start_at_once() {
    let mut rig = Rig::guarded(4, 3);
    rig.open(0);
    let keys: Vec<String> = (0..20).map(|n| format!("k{n}")).collect();
    let records: Vec<(u64, &str)> = (1..).zip(keys.iter().map(String::as_str)).collect();
    rig.offer(0, &records);
    for _ in 0..3 {
        rig.take(0);
        rig.retry(0, SECOND);
    }
    rig.advance(SECOND / 2);
    assert!(rig.take(0).is_some());
    rig.finish(0);
    assert!(rig.take(0).is_some() && rig.take(1).is_some());
    assert_eq!(rig.take(2), None, "two at first");
    rig.finish(0);
    assert!(rig.take(0).is_some() && rig.take(2).is_some() && rig.take(3).is_some(), "then all");
}

#[test]
fn a_success_in_between_does_not_count() {
    let mut rig = rig(3);
    for _ in 0..3 {
        for _ in 0..2 {
            assert!(rig.take(0).is_some());
            rig.retry(0, SECOND);
        }
        assert!(rig.take(0).is_some());
        rig.finish(0);
        rig.advance(SECOND);
    }
    assert_eq!(rig.outages, [], "no three failed without a success in between");
}

#[test]
fn one_key_that_fails_again_and_again_suspends_the_others() {
    let mut rig = Rig::guarded(2, 3);
    rig.open(0);
    rig.offer(0, &[(1, "a"), (2, "b")]);
    assert_eq!((rig.take(0), rig.take(1)), (Some(1), Some(2)));
    for _ in 0..20 {
        rig.retry(0, Duration::ZERO);
        assert_eq!(rig.take(0), Some(1));
    }
    rig.look();
    assert_eq!(rig.outages, []);
}

#[test]
fn a_head_counts_towards_a_second_suspension() {
    let mut rig = suspended();
    rig.advance(SECOND / 2);
    assert_eq!(rig.take(0), Some(4));
    rig.finish(0);
    for _ in 0..3 {
        let position = rig.take(0).expect("it is ready");
        // Only heads that were given back, or that have not failed, are left.
        rig.retry(0, 60 * SECOND);
        assert!(position <= 6);
    }
    rig.look();
    assert_eq!(rig.outages.len(), 2, "those that were given back do not count");
}

#[test]
fn a_success_of_one_that_ran_at_the_trip_ends_nothing() {
    let mut rig = suspended_beside_one();
    rig.look();
    assert_eq!(rig.outages.len(), 1);
    rig.finish(1);
    rig.look();
    assert_eq!(rig.outages.len(), 2);
}

#[test]
fn a_failure_of_one_that_ran_at_the_trip_is_charged_or_delays_the_tries() {
    let mut rig = suspended_beside_one();
    rig.retry(1, SECOND);
    rig.advance(SECOND / 10);
    assert_eq!(rig.take(0), Some(5), "a fresh one is tried");
    rig.finish(0);
    while let Some(position) = rig.take(0) {
        if position == 2 {
            assert_eq!(charged(&rig), (1, None));
            return;
        }
        rig.finish(0);
    }
    panic!("it is not tried again");
}

#[test]
fn an_attempt_that_waits_is_charged() {
    let mut rig = rig(3);
    let start = rig.now;
    for _ in 0..5 {
        assert_eq!(rig.take(0), Some(1));
        assert_eq!(charged(&rig).0, 1);
        let at = rig.now + SECOND;
        rig.end(0, |job| AttemptResult::Wait(at, job.record));
        for position in 2..=6 {
            assert_eq!(rig.take(0), Some(position), "the others go on");
            let at = rig.now + SECOND;
            rig.end(0, |job| AttemptResult::Wait(at, job.record));
        }
        assert_eq!(rig.take(0), None);
        rig.advance(SECOND);
    }
    assert_eq!(rig.take(0), Some(1));
    assert_eq!(charged(&rig).1, Some(start), "since the first wait");
    rig.finish(0);
    for _ in 0..5 {
        let position = rig.take(0).expect("ready");
        rig.finish(0);
        assert!((2..=6).contains(&position));
    }
    assert_eq!(rig.take(0), Some(7), "the next of the key");
    assert_eq!(charged(&rig).1, None, "its time is its own");
}
