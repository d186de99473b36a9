//! An index of a log's stamps: the log is read once for many unknown outcomes (P3).
//!
//! Invariant: an answer covers the log up to its end at the time of the question, whatever is written meanwhile; and it
//! is never about another log under the same name, as far as the ends of the logs tell them apart.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use eventbus_core::backend::LogState;
use eventbus_core::{Position, Result, Stamp, Topic};

/// The most stamps that are kept of a partition.
const KEPT: usize = 200_000;

/// The stamps read from partitions while outcomes were unknown: many records ask at once, and the log is read once for
/// all. For a broker that finds no stamp by itself.
#[derive(Debug, Default)]
pub(crate) struct StampIndex(Mutex<HashMap<(Topic, u32), SharedScan>>);

type SharedScan = Arc<Mutex<Scan>>;

#[derive(Debug, Default)]
struct Scan {
    from: Position,
    to: Position,
    stamps: HashMap<Stamp, Position>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl StampIndex {
    /// Finds the first position at `from` or above whose record has this stamp. `log` asks for the ends of the
    /// partition's log; `read` hands over the stamps of the records in a range, in rising position. Blocks as long as
    /// those two, and questions about one partition wait for each other: for a thread that may block.
    ///
    /// # Errors
    /// Those of `log` and `read`; the range that failed is read again by the next question.
    pub(crate) fn find(
        &self,
        topic: &Topic,
        partition: u32,
        from: Position,
        stamp: Stamp,
        log: impl FnOnce() -> Result<LogState>,
        read: impl FnOnce(Range<Position>, &mut dyn FnMut(Position, Stamp)) -> Result<()>,
    ) -> Result<Option<Position>> {
        let scan = Arc::clone(lock(&self.0).entry((topic.clone(), partition)).or_default());
        let mut scan = lock(&scan);
        // Asked under the lock: an end from before the wait could lie below the part that was read meanwhile.
        let log = log()?;
        let begin = from.max(log.first);
        // Another log under the old name, a gap to the part that was read, or too many stamps: read anew.
        if begin < scan.from || begin > scan.to || log.end < scan.to || scan.stamps.len() > KEPT {
            *scan = Scan { from: begin, to: begin, stamps: HashMap::new() };
        }
        let Scan { to, stamps, .. } = &mut *scan;
        if *to < log.end {
            read(*to..log.end, &mut |position, stamp| {
                stamps.entry(stamp).or_insert(position);
            })?;
            *to = log.end;
        }
        Ok(stamps.get(&stamp).copied().filter(|position| *position >= from))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use eventbus_core::{Error, ErrorKind, ProducerId};

    /// A log whose record at each position has the stamp of that number, modulo 100, and the ranges read of it.
    #[derive(Default)]
    struct Log {
        scans: StampIndex,
        read: RefCell<Vec<(u64, u64)>>,
    }

    fn stamp(number: u64) -> Stamp {
        Stamp::new(ProducerId::new(1), number)
    }

    impl Log {
        fn find(&self, number: u64, from: u64, ends: (u64, u64)) -> Option<u64> {
            let log =
                || Ok(LogState { first: Position::new(ends.0), end: Position::new(ends.1), ..LogState::default() });
            let read = |places: Range<Position>, each: &mut dyn FnMut(Position, Stamp)| {
                let (begin, end) = (places.start.get(), places.end.get());
                self.read.borrow_mut().push((begin, end));
                (begin..end).for_each(|at| each(Position::new(at), stamp(at % 100)));
                Ok(())
            };
            let topic = "t".parse().unwrap();
            let found = self.scans.find(&topic, 0, Position::new(from), stamp(number), log, read);
            found.unwrap().map(Position::get)
        }

        fn read(&self) -> Vec<(u64, u64)> {
            self.read.take()
        }
    }

    #[test]
    fn the_log_is_read_once_for_many_and_only_what_is_new() {
        let log = Log::default();
        assert_eq!(log.find(7, 5, (0, 20)), Some(7));
        assert_eq!(log.find(19, 5, (0, 20)), Some(19));
        assert_eq!(log.find(30, 6, (0, 20)), None);
        assert_eq!(log.read(), [(5, 20)]);
        assert_eq!(log.find(30, 6, (0, 31)), Some(30));
        assert_eq!(log.read(), [(20, 31)]);
    }

    #[test]
    fn a_stamp_below_what_was_asked_for_is_not_found() {
        let log = Log::default();
        assert_eq!((log.find(7, 5, (0, 20)), log.find(7, 8, (0, 20))), (Some(7), None));
    }

    #[test]
    fn another_log_or_a_gap_is_read_anew() {
        let log = Log::default();
        log.find(7, 10, (0, 20));
        for (from, ends, read) in [
            (5, (0, 20), (5, 20)),
            // Shorter than the part that was read: another log.
            (5, (0, 9), (5, 9)),
            // Beyond the part that was read, by the question or by retention.
            (15, (0, 30), (15, 30)),
            (15, (40, 50), (40, 50)),
        ] {
            log.read();
            log.find(0, from, ends);
            assert_eq!(log.read(), [read], "{from} {ends:?}");
        }
    }

    #[test]
    fn too_many_stamps_are_forgotten_and_an_error_promises_nothing() {
        let scans = StampIndex::default();
        let topic: Topic = "t".parse().unwrap();
        let ends = |end| move || Ok(LogState { end: Position::new(end), ..LogState::default() });
        let all = KEPT as u64 + 1;
        let every = |places: Range<Position>, each: &mut dyn FnMut(Position, Stamp)| {
            (places.start.get()..places.end.get()).for_each(|at| each(Position::new(at), stamp(at)));
            Ok(())
        };
        scans.find(&topic, 0, Position::ZERO, stamp(0), ends(all), every).unwrap();
        let from = Position::new(all);
        let found = scans.find(&topic, 0, from, stamp(3), ends(all), |_, _| panic!("nothing is new"));
        assert_eq!(found.unwrap(), None);
        let failed = scans
            .find(&topic, 0, from, stamp(all), ends(all + 1), |_, _| Err(Error::new(ErrorKind::Unavailable, "cut")));
        assert!(failed.is_err());
        let found = scans.find(&topic, 0, from, stamp(all), ends(all + 1), every);
        assert_eq!(found.unwrap(), Some(from));
    }
}
