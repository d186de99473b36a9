//! Stamps that a reader has seen, by which it finds second copies (P3).
//!
//! A re-sent envelope can end up in the log twice. Both copies carry one stamp: the producer's id and
//! a number that the producer counts up. One `StampWindow` belongs to one partition and one session of
//! reading it.
//!
//! # Invariant
//!
//! **A delivery is a copy only if its stamp was seen at a lower position.** A stamp is compared
//! only when the position is above every position observed before it, so the same position
//! delivered again is never a copy; and stamps are remembered exactly, never by a digest, so no two
//! envelopes are confused.
//!
//! Forgetting errs on the side of handling twice. For each producer the last `window` numbers up to
//! its highest are remembered, one bit each; a lower number counts as not seen. Only the most
//! recently seen producers are remembered. A seek, or any return to a lower position, needs a new
//! window and a rebuild from the records before the new start: the guard would otherwise let second
//! copies pass up to the highest position seen.

use std::collections::VecDeque;

use crate::model::Position;

/// The default reach, in stamp numbers, below a producer's highest.
const DEFAULT_WINDOW: u64 = 65_536;

/// The most producers that are remembered by default.
const DEFAULT_PRODUCERS: usize = 128;

const WORD: u64 = 64;

/// Verdict on a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sighting {
    /// Not known to be a second copy: the record is handled.
    First,
    /// A second copy: the record is dropped and counted.
    Copy,
}

/// The stamps seen in one session of one partition. See the [module](self) for the invariant.
#[derive(Debug)]
pub(crate) struct StampWindow {
    window: u64,
    most_producers: usize,
    highest: Option<Position>,
    /// Sorted by id, so that neither lookup nor eviction depends on a hash seed.
    producers: Vec<Producer>,
    /// The index of the producer found last: it mostly sent the next record, too.
    recent: usize,
    /// Observations so far, by which the least recently seen producer is found.
    clock: u64,
}

#[derive(Debug)]
struct Producer {
    id: u128,
    last_seen: u64,
    numbers: NumberWindow,
}

impl Default for StampWindow {
    fn default() -> Self {
        StampWindow::new(DEFAULT_WINDOW, DEFAULT_PRODUCERS)
    }
}

impl StampWindow {
    /// Makes a window over the last `window` numbers (at least one) of each of at most `producers`
    /// producers (at least one). It takes at most `window / 8` bytes for each producer; less while
    /// its numbers lie close together.
    #[must_use]
    pub(crate) fn new(window: u64, producers: usize) -> Self {
        StampWindow {
            window: window.max(1),
            most_producers: producers.max(1),
            highest: None,
            producers: Vec::new(),
            recent: 0,
            clock: 0,
        }
    }

    /// Records a delivery and returns whether it is a second copy. `stamp` is the producer's id and
    /// its number.
    #[inline]
    pub(crate) fn observe(&mut self, stamp: (u128, u64), position: Position) -> Sighting {
        self.clock += 1;
        let (id, number) = stamp;
        let (clock, window) = (self.clock, self.window);
        let producer = match self.producers.get_mut(self.recent) {
            Some(recent) if recent.id == id => recent,
            _ => self.producer(id),
        };
        producer.last_seen = clock;
        let known = producer.numbers.insert(number, window);
        let risen = self.highest.is_none_or(|highest| position > highest);
        if risen {
            self.highest = Some(position);
        }
        if known && risen { Sighting::Copy } else { Sighting::First }
    }

    /// Forgets the highest position, but not the stamps seen: every record that comes again looks
    /// like a copy.
    #[cfg(feature = "mutants")]
    pub(crate) fn forget_place(&mut self) {
        self.highest = None;
    }

    /// Returns the memory of `id`, made if there is none.
    #[cold]
    fn producer(&mut self, id: u128) -> &mut Producer {
        self.recent = self.find(id);
        &mut self.producers[self.recent]
    }

    /// Returns the index of the memory of `id`, made if there is none.
    fn find(&mut self, id: u128) -> usize {
        if let Ok(index) = self.producers.binary_search_by_key(&id, |producer| producer.id) {
            return index;
        }
        self.make_room();
        let index = self.producers.partition_point(|producer| producer.id < id);
        let producer = Producer { id, last_seen: self.clock, numbers: NumberWindow::default() };
        self.producers.insert(index, producer);
        index
    }

    /// Forgets the producer that was not seen for the longest time, if there are too many. Times of
    /// observation differ, so there is exactly one.
    fn make_room(&mut self) {
        if self.producers.len() < self.most_producers {
            return;
        }
        let eldest = self.producers.iter().enumerate().min_by_key(|(_, producer)| producer.last_seen);
        if let Some((index, _)) = eldest {
            self.producers.remove(index);
        }
    }
}

/// Numbers last seen of one producer: a bitmap that slides with the highest and grows with the
/// distance from the lowest.
#[derive(Debug, Default)]
struct NumberWindow {
    highest: u64,
    /// The words from the one that holds the lowest remembered number to the one that holds
    /// `highest`, at most as many as the window can touch.
    words: VecDeque<u64>,
}

impl NumberWindow {
    /// Remembers `number` and returns whether it was remembered already. A number out of reach is
    /// neither.
    #[inline]
    fn insert(&mut self, number: u64, window: u64) -> bool {
        // The usual case: the next number, in the word of the highest.
        if number > self.highest
            && number / WORD == self.highest / WORD
            && let Some(word) = self.words.back_mut()
        {
            *word |= 1 << (number % WORD);
            self.highest = number;
            return false;
        }
        self.insert_elsewhere(number, window)
    }

    #[inline(never)]
    fn insert_elsewhere(&mut self, number: u64, window: u64) -> bool {
        if self.words.is_empty() {
            self.words.push_back(0);
            self.highest = number;
        } else if number > self.highest {
            self.slide(number, window);
        } else if self.highest - number >= window {
            return false;
        } else {
            while number / WORD < self.lowest_word() {
                self.words.push_front(0);
            }
        }
        let index = (number / WORD - self.lowest_word()) as usize;
        let bit = 1 << (number % WORD);
        let known = self.words[index] & bit != 0;
        self.words[index] |= bit;
        known
    }

    /// Makes `number` the highest, and forgets the words that the window no longer touches.
    fn slide(&mut self, number: u64, window: u64) {
        let lowest = number.saturating_sub(window - 1) / WORD;
        let (from, to) = (self.highest / WORD, number / WORD);
        if from == to {
            // At most one word too many is kept, until the next slide.
            self.highest = number;
            return;
        }
        if lowest > from {
            self.words.clear();
            self.words.resize((to - lowest + 1) as usize, 0);
        } else {
            let gone = lowest.saturating_sub(self.lowest_word()) as usize;
            self.words.drain(..gone);
            self.words.extend(std::iter::repeat_n(0, (to - from) as usize));
        }
        self.highest = number;
    }

    fn lowest_word(&self) -> u64 {
        self.highest / WORD + 1 - self.words.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    fn at(position: u64) -> Position {
        Position::new(position)
    }

    #[test]
    fn the_same_position_again_is_no_copy() {
        let mut copies = StampWindow::default();
        assert_eq!(copies.observe((1, 5), at(10)), Sighting::First);
        assert_eq!(copies.observe((1, 5), at(10)), Sighting::First);
        assert_eq!(copies.observe((1, 6), at(11)), Sighting::First);
        assert_eq!(copies.observe((1, 5), at(10)), Sighting::First);
    }

    #[test]
    fn the_same_stamp_at_a_higher_position_is_a_copy() {
        let mut copies = StampWindow::default();
        assert_eq!(copies.observe((1, 5), at(10)), Sighting::First);
        assert_eq!(copies.observe((1, 4), at(11)), Sighting::First);
        assert_eq!(copies.observe((1, 5), at(12)), Sighting::Copy);
        assert_eq!(copies.observe((1, 5), at(13)), Sighting::Copy);
        assert_eq!(copies.observe((2, 5), at(14)), Sighting::First);
    }

    #[test]
    fn a_counter_that_starts_again_under_a_new_producer_is_no_copy() {
        let mut copies = StampWindow::default();
        let mut position = 0;
        for producer in 0..100 {
            for number in 0..50 {
                assert_eq!(copies.observe((producer, number), at(position)), Sighting::First);
                position += 1;
            }
        }
    }

    #[test]
    fn a_number_out_of_reach_counts_as_not_seen() {
        let mut copies = StampWindow::new(100, 8);
        assert_eq!(copies.observe((1, 0), at(0)), Sighting::First);
        assert_eq!(copies.observe((1, 1), at(1)), Sighting::First);
        assert_eq!(copies.observe((1, 100), at(2)), Sighting::First);
        assert_eq!(copies.observe((1, 0), at(3)), Sighting::First);
        assert_eq!(copies.observe((1, 0), at(4)), Sighting::First);
        assert_eq!(copies.observe((1, 1), at(5)), Sighting::Copy);
    }

    #[test]
    fn the_least_recently_seen_producer_is_forgotten_first() {
        let mut copies = StampWindow::new(64, 2);
        copies.observe((1, 0), at(0));
        copies.observe((2, 0), at(1));
        assert_eq!(copies.observe((1, 0), at(2)), Sighting::Copy);
        copies.observe((3, 0), at(3));
        assert_eq!(copies.producers.len(), 2);
        assert_eq!(copies.observe((1, 0), at(4)), Sighting::Copy);
        assert_eq!(copies.observe((2, 0), at(5)), Sighting::First);
    }

    #[test]
    fn a_handful_of_messages_costs_little_and_a_jump_no_more_than_the_window() {
        let mut copies = StampWindow::default();
        for number in 1_000_000..1_000_100 {
            copies.observe((1, number), at(number));
        }
        assert!(copies.producers[0].numbers.words.len() <= 3);
        copies.observe((1, u64::MAX), at(2_000_000));
        copies.observe((1, 0), at(2_000_001));
        copies.observe((1, u64::MAX - DEFAULT_WINDOW + 1), at(2_000_002));
        let words = copies.producers[0].numbers.words.len() as u64;
        assert!(words <= DEFAULT_WINDOW / WORD + 1);
        assert_eq!(copies.observe((1, u64::MAX), at(2_000_003)), Sighting::Copy);
    }

    /// All stamps by producer, with reach and eviction by their definitions.
    #[derive(Default)]
    struct Model {
        highest: Option<Position>,
        order: Vec<u128>,
        numbers: BTreeMap<u128, BTreeSet<u64>>,
    }

    impl Model {
        fn observe(&mut self, (id, number): (u128, u64), position: Position, window: u64, most: usize) -> Sighting {
            self.order.retain(|known| *known != id);
            if self.order.len() == most {
                self.numbers.remove(&self.order.remove(0));
            }
            self.order.push(id);
            let numbers = self.numbers.entry(id).or_default();
            let known = !numbers.insert(number);
            let highest = numbers.last().copied().unwrap_or(0);
            numbers.retain(|number| highest - number < window);
            let risen = self.highest.is_none_or(|highest| position > highest);
            self.highest = self.highest.max(Some(position));
            if known && risen { Sighting::Copy } else { Sighting::First }
        }
    }

    proptest! {
        #[test]
        fn differs_from_the_naive_model(
            window in 1..400_u64,
            most in 1..6_usize,
            start in prop_oneof![Just(0), Just(u64::MAX - 5_000), 0..1_000_u64],
            steps in prop::collection::vec(
                (0..7_u128, prop_oneof![6 => 0..200_u64, 2 => 0..1_200_u64, 1 => 0..5_000_u64], 0..4_u64, prop::bool::weighted(0.1)),
                0..400,
            ),
        ) {
            let mut copies = StampWindow::new(window, most);
            let mut model = Model::default();
            let mut position = 100;
            for (id, number, gap, again) in steps {
                position += if again { 0 } else { gap };
                let back = if again { gap } else { 0 };
                let (stamp, position) = ((id, start + number), at(position - back));
                prop_assert_eq!(copies.observe(stamp, position), model.observe(stamp, position, window, most));
                for producer in &copies.producers {
                    prop_assert!(producer.numbers.words.len() as u64 <= window.div_ceil(WORD) + 1);
                }
            }
        }

        #[test]
        fn first_or_copy_is_as_defined_within_the_window(
            stamps in prop::collection::vec((0..3_u128, 0..60_u64), 0..300),
        ) {
            let mut copies = StampWindow::default();
            let mut seen = BTreeSet::new();
            for (position, stamp) in stamps.into_iter().enumerate() {
                let expected = if seen.insert(stamp) { Sighting::First } else { Sighting::Copy };
                prop_assert_eq!(copies.observe(stamp, at(position as u64)), expected);
            }
        }
    }
}
