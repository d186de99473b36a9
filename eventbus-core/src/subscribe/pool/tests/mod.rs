//! The pool alone, driven by hand: no tasks, no clock of its own. Each test is named for the claim that it refutes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};
use std::time::Duration;

use tokio::time::Instant;

use super::job::{Attempt, AttemptResult, NextAttempt, RecordBox};
use super::partition::Opening;
use crate::backend::Lease;
use crate::model::Position;
use crate::subscribe::progress::finished::{FinishedSet, Run};
use crate::subscribe::progress::note::Trying;

mod outage;
mod properties;
mod rig;
#[cfg(feature = "shuttle")]
mod schedules;

use rig::{Rig, opening};

const SECOND: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Counter(AtomicUsize);

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A waker, and the count of its calls.
fn counting_waker() -> (Arc<Counter>, Waker) {
    let counter = Arc::new(Counter::default());
    (counter.clone(), counter.into())
}

#[test]
fn the_next_of_a_key_never_starts_before_its_head_is_finished() {
    let mut rig = Rig::new(4);
    rig.open(0);
    rig.offer(0, &[(1, "a"), (2, "a"), (3, "b")]);
    assert_eq!(rig.take(0), Some(1));
    assert_eq!(rig.take(1), Some(3));
    assert_eq!(rig.take(2), None);
    rig.finish(0);
    assert_eq!(rig.take(0), Some(2));
}

#[test]
fn a_key_in_backoff_never_holds_a_slot() {
    let mut rig = Rig::new(1);
    rig.open(0);
    rig.offer(0, &[(1, "a"), (2, "a"), (3, "b")]);
    assert_eq!(rig.take(0), Some(1));
    rig.retry(0, SECOND);
    assert_eq!(rig.take(0), Some(3));
    rig.finish(0);
    assert_eq!(rig.take(0), None);
    rig.advance(SECOND);
    assert_eq!(rig.take(0), Some(1), "the head is tried again in place");
    assert_eq!(rig.job(0).attempt, 2);
}

#[test]
fn a_key_with_a_dead_letter_on_its_way_never_starts_nor_holds_a_slot() {
    let mut rig = Rig::new(1);
    rig.open(0);
    rig.offer(0, &[(1, "a"), (2, "a"), (3, "b")]);
    assert_eq!(rig.take(0), Some(1));
    rig.dead_letter(0);
    assert_eq!(rig.take(0), Some(3));
    rig.finish(0);
    assert_eq!(rig.take(0), None);
    assert_eq!(rig.watermark(0), Position::new(1));
    let dead = rig.letters.remove(0);
    assert!(rig.pool.dead_lettered(dead.lane, &dead.context, rig.now));
    assert_eq!(rig.take(0), Some(2));
    assert_eq!(rig.watermark(0), Position::new(2));
}

#[test]
fn a_resume_never_starts_the_next_after_an_abandoned_head() {
    let mut rig = Rig::new(2);
    rig.open(0);
    rig.offer(0, &[(1, "a"), (2, "a"), (3, "b"), (4, "c")]);
    assert_eq!((rig.take(0), rig.take(1)), (Some(1), Some(3)));
    rig.pool.set_paused(true);
    rig.end(0, |_| AttemptResult::Abandoned);
    rig.pool.set_paused(false);
    rig.offer(0, &[(5, "a")]);
    assert_eq!(rig.take(0), None);
    rig.finish(1);
    assert_eq!(rig.watermark(0), Position::new(1), "nothing past the abandoned one is acknowledged");
    assert_eq!(rig.finished_beyond(0), [(3, 3)], "what ran beside it counts");
}

#[test]
fn what_finishes_in_a_drain_never_frees_the_next_of_its_key() {
    let mut rig = Rig::new(2);
    rig.open(0);
    rig.offer(0, &[(1, "a"), (2, "a"), (3, "b")]);
    assert_eq!((rig.take(0), rig.take(1)), (Some(1), Some(3)));
    assert_eq!(rig.pool.drain(0), 2);
    rig.finish(0);
    assert_eq!(rig.take(0), None);
    rig.retry(1, Duration::ZERO);
    assert_eq!(rig.take(1), None);
    assert_eq!(rig.pool.running_in(0), 0);
    assert_eq!(rig.watermark(0), Position::new(2), "what was queued stays unfinished");
}

#[test]
fn what_comes_in_a_drain_hides_what_the_note_says_is_finished() {
    let mut rig = Rig::new(1);
    let lease = rig.leases[0].clone();
    let run = Run { first: Position::new(5), last: Position::new(6) };
    rig.pool.open(Opening { finished: FinishedSet::from_runs([run]), ..rig::opening(0, 1, &lease, None) });
    rig.offer(0, &[(1, "a")]);
    rig.pool.drain(0);
    rig.offer(0, &[(2, "a"), (5, "b"), (8, "c")]);
    assert_eq!(rig.finished_beyond(0), [(5, 6)], "the last commit would forget it");
}

#[test]
fn what_was_handled_before_and_is_purged_under_the_reading_is_told_as_lost() {
    let rig = Rig::new(1);
    let lease = rig.leases[0].clone();
    let run = Run { first: Position::new(103), last: Position::new(110) };
    let (watermark, finished) = (Position::new(100), FinishedSet::from_runs([run]));
    rig.pool.open(Opening { watermark, finished, ..rig::opening(0, 1, &lease, None) });
    let unhandled =
        |from, to| rig.pool.unhandled_before(0, Position::new(from), Position::new(to)).map(|position| position.get());
    assert_eq!(unhandled(40, 100), None, "read to recognise copies");
    assert_eq!(unhandled(40, 102), Some(100));
    assert_eq!((unhandled(103, 111), unhandled(103, 112)), (None, Some(111)), "beyond the watermark");
    assert_eq!(rig.pool.unhandled_before(1, Position::new(1), Position::new(9)), None, "another's partition");
}

#[test]
fn a_letter_not_yet_taken_is_never_written_after_a_drain() {
    let mut rig = Rig::new(1);
    rig.open(0);
    rig.offer(0, &[(1, "a")]);
    rig.take(0);
    // The rig is bypassed: it takes letters at once, as the session does.
    let job = rig.running[0].take().expect("it runs");
    let letter = rig::letter(&job);
    let _ = rig.pool.next(0, Some((job.lane, AttemptResult::DeadLetter(Box::new(letter)))), rig.now);
    rig.pool.drain(0);
    assert!(rig.pool.duties(rig.now).dead.is_empty());
}

#[test]
fn a_new_ownership_never_finds_the_lanes_of_the_last() {
    let mut rig = Rig::new(2);
    rig.open(0);
    rig.offer(0, &[(1, "a"), (2, "b")]);
    assert_eq!(rig.take(0), Some(1));
    // A claim that ends after its partition was lost and assigned again would do the same.
    rig.open(0);
    assert_eq!(rig.pool.running_in(0), 1, "the handler of the last ownership still runs");
    rig.offer(0, &[(1, "a"), (2, "b")]);
    assert_eq!(rig.take(1), Some(1));
    rig.finish(0);
    assert_eq!(rig.watermark(0), Position::new(1), "what an orphan did counts for nothing");
    rig.finish(1);
    assert_eq!(rig.take(0), Some(2));
    rig.finish(0);
    assert_eq!(rig.pool.running_in(0), 0);
    rig.assert_empty();
}

#[test]
fn an_invalid_lease_never_lets_a_handler_start_nor_strands_its_key() {
    let mut rig = Rig::new(1);
    rig.open(0);
    rig.leases[0].revoke();
    rig.offer(0, &[(1, "a"), (2, "a")]);
    assert_eq!(rig.take(0), None);
    rig.leases[0].extend(Instant::now() + 1_000 * SECOND);
    rig.look();
    assert_eq!(rig.take(0), Some(1));
}

#[test]
fn one_at_a_time_never_means_two_nor_one_without_its_note() {
    let mut rig = Rig::new(4);
    rig.open_suspect(0, 3);
    rig.offer(0, &[(1, "a"), (2, "b"), (3, "c"), (4, "d")]);
    assert_eq!(rig.take(0), None, "no note is written");
    assert_eq!(rig.turns, [(0, Trying { position: Position::new(1), attempts: 1 })]);
    rig.grant();
    assert_eq!((rig.take(0), rig.take(1)), (Some(1), None));
    rig.finish(0);
    rig.grant();
    assert_eq!((rig.take(0), rig.take(1)), (Some(2), None));
    rig.finish(0);
    assert_eq!((rig.take(0), rig.take(1)), (Some(3), Some(4)), "what may have run is passed");
}

#[test]
fn the_time_of_a_start_check_is_not_the_workers_own() {
    let mut rig = Rig::new(1);
    rig.leases[0] = Lease::until(rig.now + 1_000 * SECOND);
    rig.open(0);
    rig.offer(0, &[(1, "a")]);
    let before = Instant::now();
    assert_eq!(rig.take(0), Some(1));
    let checked = rig.job(0).checked;
    assert!((before..=Instant::now()).contains(&checked) && rig.now < checked);
}

#[test]
fn a_lapsed_lease_never_strands_a_granted_turn() {
    let mut rig = Rig::new(1);
    rig.open_suspect(0, 9);
    rig.offer(0, &[(1, "a"), (2, "b")]);
    rig.leases[0].revoke();
    rig.grant();
    assert_eq!(rig.take(0), None);
    rig.look();
    assert!(rig.turns.is_empty(), "no note is written while the ownership is in doubt");
    rig.leases[0].extend(Instant::now() + 1_000 * SECOND);
    rig.look();
    rig.grant();
    assert_eq!(rig.take(0), Some(1));
}

#[test]
fn a_waiting_key_never_keeps_the_turn_of_the_others() {
    for wait in [Rig::dead_letter, |rig: &mut Rig, worker| rig.retry(worker, SECOND)] {
        let mut rig = Rig::new(1);
        rig.open_suspect(0, 9);
        rig.offer(0, &[(1, "a"), (2, "b")]);
        rig.grant();
        assert_eq!(rig.take(0), Some(1));
        wait(&mut rig, 0);
        rig.grant();
        assert_eq!(rig.take(0), Some(2));
    }
}

#[test]
fn a_letter_confirmed_late_never_ends_the_turn_of_another() {
    let mut rig = Rig::new(2);
    rig.open_suspect(0, 9);
    rig.offer(0, &[(1, "a"), (2, "b"), (3, "c")]);
    rig.grant();
    rig.take(0);
    rig.dead_letter(0);
    rig.grant();
    assert_eq!(rig.take(0), Some(2));
    let dead = rig.letters.remove(0);
    rig.pool.dead_lettered(dead.lane, &dead.context, rig.now);
    rig.look();
    assert!(rig.turns.is_empty(), "one is running");
}

#[test]
fn a_worker_never_sleeps_while_there_is_work() {
    let mut rig = Rig::new(2);
    rig.open(0);
    let (woken, waker) = counting_waker();
    assert!(rig.pool.sleep(0, &waker));
    rig.offer(0, &[(1, "a")]);
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    assert!(!rig.pool.sleep(1, &waker), "a lane is ready");
    assert_eq!(rig.take(1), Some(1));
    assert!(rig.pool.sleep(0, &waker));
}

#[test]
fn a_retiring_worker_never_leaves_a_ready_lane_to_sleepers() {
    let mut rig = Rig::new(2);
    rig.open(0);
    rig.offer(0, &[(1, "a"), (2, "b")]);
    assert_eq!(rig.take(1), Some(1));
    rig.pool.set_concurrency(1);
    let (woken, waker) = counting_waker();
    assert!(rig.pool.sleep(0, &waker), "the one slot is used by the worker that retires");
    // The retiring worker takes no other lane; the session that it notifies wakes the worker that may.
    let lane = rig.running[1].take().expect("it runs").lane;
    assert!(matches!(
        rig.pool.next(
            1,
            Some((lane, AttemptResult::Finished { emptied: RecordBox::default(), handled: true })),
            rig.now
        ),
        NextAttempt::Exit
    ));
    assert!(rig.told());
    rig.look();
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    assert_eq!(rig.take(0), Some(2));
}

#[test]
fn a_pause_of_intake_never_flaps() {
    let mut rig = Rig::with_window(1, 4);
    rig.open(0);
    let records = [(1, "a"), (2, "b"), (3, "c"), (4, "d"), (5, "e")];
    assert_eq!(rig.offer(0, &records), [0]);
    let mut resumed = Vec::new();
    for expected in 1..=5 {
        assert_eq!(rig.take(0), Some(expected));
        rig.end(0, Attempt::finished);
        resumed.push(rig.pool.duties(rig.now).resume.len());
    }
    assert_eq!(resumed, [0, 0, 1, 0, 0], "once, with half of the window free");
}

#[test]
fn a_commit_is_never_asked_for_twice_for_the_same_records() {
    let mut rig = Rig::new(1);
    rig.open(0);
    rig.offer(0, &[(1, "a"), (2, "b"), (3, "c"), (4, "d")]);
    let mut asked = Vec::new();
    for _ in 0..4 {
        rig.take(0);
        rig.end(0, Attempt::finished);
        asked.push(rig.pool.duties(rig.now).commit);
    }
    assert_eq!(asked, [false, true, false, true]);
}

#[test]
fn a_burst_never_keeps_its_memory() {
    let mut rig = Rig::new(1);
    rig.open(0);
    for position in 1..=50_000 {
        rig.offer_one(0, position, Some(&position.to_string()));
    }
    while rig.take(0).is_some() {
        rig.finish(0);
    }
    rig.look();
    let state = rig.pool.state.lock();
    let kept = [state.items.capacity(), state.lanes.capacity(), state.index.capacity(), state.ready.capacity()];
    assert!(kept.iter().all(|capacity| *capacity <= 20_000), "{kept:?}");
}

#[test]
fn a_delivery_below_the_last_is_never_handled_again() {
    let mut rig = Rig::new(1);
    let pool = &rig.pool;
    pool.open(opening(0, 7, &rig.leases[0], None));
    let offered = pool.offer(vec![rig::record(0, 2, Some("a")), rig::record(0, 2, Some("a"))], rig.now);
    assert_eq!(offered.broken, None);
    assert_eq!(rig.take(0), Some(2));
    rig.finish(0);
    assert_eq!(rig.take(0), None);
}

#[test]
fn a_delivery_that_the_watermark_has_passed_is_told_not_dropped() {
    let rig = Rig::new(1);
    rig.pool.open(opening(0, 7, &rig.leases[0], None));
    rig.pool.advance_to(0, Position::new(10));
    let offered = rig.pool.offer(vec![rig::record(0, 4, Some("a"))], rig.now);
    assert_eq!(offered.broken, Some((0, Position::new(4))));
}

#[test]
fn what_was_lifted_over_is_expected_no_more() {
    let rig = Rig::new(1);
    rig.pool.open(opening(0, 7, &rig.leases[0], None));
    rig.pool.advance_to(0, Position::new(10));
    assert_eq!(rig.pool.expected(0), Some(Position::new(10)));
}
