//! Positions behind what stands at the end of a log and is no record: markers of transactions, and records that a
//! transaction took back (S3, S4).
//!
//! The client tells the end of a partition without its position, and its position only by a round trip to its own
//! thread. So positions are asked for some time after an end, once for all partitions that have ended.
//!
//! Invariant: a position is told only while all that the client took below it has been handed on, and never after a
//! seek or another assignment: [`CaughtUp`] forgets it then.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use eventbus_core::Position;

/// The time from an end to the question for positions.
const ASKED_AFTER: Duration = Duration::from_millis(100);

/// Partitions whose end was told, and whose positions are to be told, too. Used by the polling thread.
#[derive(Debug, Default)]
pub(crate) struct CaughtUp {
    /// Whether there are any: looked at for each record.
    any: AtomicBool,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    ended: BTreeSet<u32>,
    since: Option<Instant>,
    known: Vec<(u32, Position)>,
}

impl CaughtUp {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in that a partition was read to its end.
    pub(crate) fn ended(&self, partition: u32) {
        let mut waiting = self.waiting();
        waiting.ended.insert(partition);
        waiting.since.get_or_insert_with(Instant::now);
        self.any.store(true, Ordering::Relaxed);
    }

    /// Forgets what was asked for: the positions are asked for anew.
    pub(crate) fn forget(&self) {
        let mut waiting = self.waiting();
        let known: Vec<_> = waiting.known.drain(..).map(|(partition, _)| partition).collect();
        waiting.ended.extend(known);
        waiting.since = Some(Instant::now());
    }

    /// Returns the next partition that ended, with the position that the client has reached there.
    pub(crate) fn next(&self, ask: impl FnOnce() -> HashMap<u32, Position>) -> Option<(u32, Position)> {
        if !self.any.load(Ordering::Relaxed) {
            return None;
        }
        let mut waiting = self.waiting();
        if waiting.known.is_empty() && waiting.since.is_some_and(|since| since.elapsed() >= ASKED_AFTER) {
            let reached = ask();
            let ended = std::mem::take(&mut waiting.ended);
            waiting.known = ended.into_iter().filter_map(|one| Some((one, *reached.get(&one)?))).collect();
            waiting.since = None;
        }
        let next = waiting.known.pop();
        if waiting.known.is_empty() && waiting.ended.is_empty() {
            waiting.since = None;
            self.any.store(false, Ordering::Relaxed);
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reached(of: &[(u32, u64)]) -> HashMap<u32, Position> {
        of.iter().map(|(partition, position)| (*partition, Position::new(*position))).collect()
    }

    fn waits_long_enough(caught_up: &CaughtUp) {
        caught_up.waiting().since = Instant::now().checked_sub(ASKED_AFTER);
    }

    #[test]
    fn positions_are_asked_for_once_for_all_that_ended_and_told_once() {
        let caught_up = CaughtUp::default();
        assert_eq!(caught_up.next(|| panic!("nothing ended")), None);
        [3, 1, 1, 7].into_iter().for_each(|partition| caught_up.ended(partition));
        assert_eq!(caught_up.next(|| panic!("not yet")), None);
        waits_long_enough(&caught_up);
        // The client knows nothing of 7 any more.
        let told = caught_up.next(|| reached(&[(1, 5), (2, 9), (3, 4)]));
        let rest = caught_up.next(|| panic!("asked already"));
        assert_eq!((told, rest), (Some((3, Position::new(4))), Some((1, Position::new(5)))));
        assert_eq!(caught_up.next(|| panic!("all told")), None);
        caught_up.ended(1);
        waits_long_enough(&caught_up);
        assert_eq!(caught_up.next(|| reached(&[(1, 6)])), Some((1, Position::new(6))));
    }

    #[test]
    fn a_position_from_before_a_seek_is_not_told_after_it() {
        let caught_up = CaughtUp::default();
        [1, 2].into_iter().for_each(|partition| caught_up.ended(partition));
        waits_long_enough(&caught_up);
        assert!(caught_up.next(|| reached(&[(1, 5), (2, 9)])).is_some());
        caught_up.forget();
        assert_eq!(caught_up.next(|| panic!("not yet")), None);
        waits_long_enough(&caught_up);
        assert_eq!(caught_up.next(|| reached(&[(1, 0)])), Some((1, Position::new(0))));
    }
}
