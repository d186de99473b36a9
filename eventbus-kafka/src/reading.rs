//! Reading of logs from outside, by a client that blocks and says where a log ends.
//!
//! Invariant: a reading that ends well has seen each partition to its end, or as far as the caller wanted it.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use eventbus_core::{Error, ErrorKind, Result};

/// The next event of a client that reads logs.
#[derive(Debug)]
pub(crate) enum ReadEvent<R> {
    /// A record of this partition.
    Record(u32, R),
    /// The end of this partition's log.
    End(u32),
    /// Nothing, for the moment.
    Nothing,
    /// An obstacle that does not pass: a missing permission.
    Unreadable(Error),
}

/// Reads partitions, each to its end or until `each` returns `false` for it. Blocks: for a thread that may.
///
/// `next` waits a little for an event. Records of partitions that are read no more are passed over.
///
/// # Errors
/// What the client failed with for good; `Unavailable` if no record of these partitions comes for as long as `patience`. Records given to `each` until then
/// were there.
pub(crate) fn read_to_ends<R>(
    partitions: impl IntoIterator<Item = u32>,
    patience: Duration,
    mut next: impl FnMut() -> ReadEvent<R>,
    mut each: impl FnMut(u32, &R) -> bool,
) -> Result<()> {
    let mut left: HashSet<u32> = partitions.into_iter().collect();
    let mut until = Instant::now() + patience;
    while !left.is_empty() {
        if Instant::now() >= until {
            return Err(Error::new(ErrorKind::Unavailable, "the log could not be read to its end in time"));
        }
        match next() {
            ReadEvent::Record(partition, record) if left.contains(&partition) => {
                until = Instant::now() + patience;
                if !each(partition, &record) {
                    left.remove(&partition);
                }
            }
            ReadEvent::End(partition) => drop(left.remove(&partition)),
            ReadEvent::Unreadable(error) => return Err(error),
            ReadEvent::Record(..) | ReadEvent::Nothing => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[test]
    fn each_partition_is_read_to_its_end_or_as_far_as_it_is_wanted() {
        let log = [
            ReadEvent::Record(0, 1),
            ReadEvent::Nothing,
            ReadEvent::Record(1, 2),
            ReadEvent::Record(0, 3),
            ReadEvent::Record(1, 4),
            ReadEvent::Record(7, 5),
            ReadEvent::End(7),
            ReadEvent::End(0),
        ];
        let (mut log, mut found) = (log.into_iter(), Vec::new());
        let next = || log.next().unwrap_or(ReadEvent::Nothing);
        let each = |partition, record: &i32| {
            found.push((partition, *record));
            partition == 0
        };
        read_to_ends([0, 1], PATIENCE, next, each).unwrap();
        assert_eq!((found, log.len()), (vec![(0, 1), (1, 2), (0, 3)], 0));
        read_to_ends([], PATIENCE, || panic!("nothing is read"), |_, _: &()| true).unwrap();
    }

    #[test]
    fn a_log_that_stands_still_is_not_waited_for_without_end() {
        let patience = Duration::from_millis(5);
        let failed = read_to_ends([0], patience, || ReadEvent::Record(1, ()), |_, ()| panic!("of no interest"));
        assert_eq!(failed.unwrap_err().kind(), ErrorKind::Unavailable);
    }

    #[test]
    fn what_the_client_may_not_read_is_not_waited_for() {
        let denied = || ReadEvent::Unreadable(Error::new(ErrorKind::PermissionDenied, "no right to read"));
        let failed = read_to_ends([0], PATIENCE, denied, |_, ()| panic!("no record"));
        assert_eq!(failed.unwrap_err().kind(), ErrorKind::PermissionDenied);
    }
}
