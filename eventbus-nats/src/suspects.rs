//! Suspected records: places at which reads ended together with the connection (S2).
//!
//! Invariant: a place at which two reads ended is stepped over, whatever is there, so that every read gets on.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use eventbus_core::Position;

/// The shortest and the longest stretch of good records behind a refused one, before they are pulled again.
const STRETCH: (u32, u32) = (64, 4_096);

/// The most positions below a known refused record that are read one by one, rather than lose the connection to it.
const NEAR: u64 = 20_000;

/// The number of partitions above which those without a refused record are forgotten: topics come and go.
const REMEMBERED: usize = 10_000;

/// What is known of the partitions whose reads ended with the connection; nothing, as long as it never broke.
#[derive(Debug, Default)]
pub(crate) struct Suspects(Mutex<HashMap<String, Suspect>>);

#[derive(Debug, Clone, Copy, Default)]
struct Suspect {
    /// Where the latest read began, and how often the connection had broken by then.
    began: Option<(Position, u64)>,
    /// The highest refused record.
    last: Option<Position>,
    stretch: u32,
    /// Good records until the stretch is over.
    left: u32,
}

/// How the records of a read come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Road {
    /// Pulled, many at once.
    Pulled,
    /// Pulled, unless the first is refused.
    Unknown,
    /// One by one, if there is one.
    Suspected,
    /// One by one, also those that are stored later.
    Single,
}

impl Suspects {
    fn all(&self) -> MutexGuard<'_, HashMap<String, Suspect>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Chooses the road of a read.
    pub(crate) fn road(&self, subject: &str, from: Position, breaks: u64) -> Road {
        if breaks == 0 {
            return Road::Pulled;
        }
        let suspect = self.all().get(subject).copied().unwrap_or_default();
        let near = suspect.last.is_some_and(|last| from <= last && last.get() - from.get() <= NEAR);
        match suspect.began {
            _ if suspect.left > 0 => Road::Single,
            _ if near => Road::Suspected,
            Some((_, known)) if known == breaks => Road::Pulled,
            Some((at, _)) if at == from => Road::Suspected,
            _ => Road::Unknown,
        }
    }

    /// Notes the start of a read: not before it is made, since a look that fails has seen nothing.
    pub(crate) fn began(&self, subject: &str, from: Position, breaks: u64) {
        if breaks == 0 {
            return;
        }
        let mut all = self.all();
        if all.len() >= REMEMBERED && !all.contains_key(subject) {
            all.retain(|_, suspect| suspect.last.is_some());
        }
        all.entry(subject.to_owned()).or_default().began = Some((from, breaks));
    }

    /// Notes a record that came by the single road. Returns whether the next one has to come by it, too.
    pub(crate) fn passed(&self, subject: &str, position: Position, refused: bool) -> bool {
        let mut all = self.all();
        if !refused && !all.contains_key(subject) {
            return false;
        }
        let suspect = all.entry(subject.to_owned()).or_default();
        if refused {
            if suspect.left == 0 && suspect.last < Some(position) {
                suspect.stretch = (suspect.stretch * 2).clamp(STRETCH.0, STRETCH.1);
            }
            suspect.left = suspect.stretch;
            suspect.last = suspect.last.max(Some(position));
        } else {
            suspect.left = suspect.left.saturating_sub(1);
        }
        suspect.left > 0 || suspect.last > Some(position)
    }

    /// Notes that there is no further record. Returns whether the next one has to come by the single road nevertheless.
    pub(crate) fn reached_the_end(&self, subject: &str) -> bool {
        let mut all = self.all();
        let Some(suspect) = all.get_mut(subject) else { return false };
        if suspect.left == 0 {
            // The refused record is gone.
            suspect.last = None;
        }
        suspect.left > 0
    }

    pub(crate) fn has_refused(&self, subject: &str) -> bool {
        self.all().get(subject).is_some_and(|suspect| suspect.last.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: fn(u64) -> Position = Position::new;

    #[test]
    fn a_read_looks_first_only_where_the_connection_broke_since_the_one_before() {
        let suspects = Suspects::default();
        assert_eq!(suspects.road("s", AT(5), 0), Road::Pulled);
        suspects.began("s", AT(5), 0);
        assert_eq!(suspects.road("s", AT(5), 1), Road::Unknown);
        assert_eq!(suspects.road("s", AT(5), 1), Road::Unknown, "a look that failed has seen nothing");
        suspects.began("s", AT(5), 1);
        assert_eq!(suspects.road("s", AT(5), 1), Road::Pulled);
        assert_eq!(suspects.road("s", AT(6), 2), Road::Unknown);
        // Twice at one place: the record is taken by itself, whatever it is.
        suspects.began("s", AT(6), 2);
        assert_eq!(suspects.road("s", AT(6), 3), Road::Suspected);
        assert_eq!(suspects.road("other", AT(6), 3), Road::Unknown);
    }

    #[test]
    fn a_stretch_of_good_records_ends_the_single_road_and_doubles_with_each_connection_lost() {
        let suspects = Suspects::default();
        let mut position = 0;
        for stretch in [64, 128, 256, 512, 1_024, 2_048, 4_096, 4_096] {
            position += 1;
            assert!(suspects.passed("s", AT(position), true));
            let mut good = 1;
            position += 1;
            while suspects.passed("s", AT(position), false) {
                assert_eq!(suspects.road("s", AT(position + 1), 2), Road::Single, "also in another read");
                (good, position) = (good + 1, position + 1);
            }
            assert_eq!(good, stretch);
        }
        assert_eq!(suspects.road("s", AT(1), 2), Road::Suspected, "below a record that is known to be refused");
        assert!(suspects.passed("s", AT(1), false));
        assert!(!suspects.reached_the_end("s"));
        assert_eq!(suspects.road("s", AT(1), 2), Road::Unknown, "the refused record is gone");
    }
}
