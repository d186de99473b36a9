use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn at(position: u64) -> Position {
    Position::new(position)
}

#[test]
fn the_same_position_again_is_no_copy() {
    let mut copies = Copies::default();
    assert_eq!(copies.observe((1, 5), at(10)), Seen::First);
    assert_eq!(copies.observe((1, 5), at(10)), Seen::First);
    assert_eq!(copies.observe((1, 6), at(11)), Seen::First);
    assert_eq!(copies.observe((1, 5), at(10)), Seen::First);
}

#[test]
fn the_same_stamp_at_a_higher_position_is_a_copy() {
    let mut copies = Copies::default();
    assert_eq!(copies.observe((1, 5), at(10)), Seen::First);
    assert_eq!(copies.observe((1, 4), at(11)), Seen::First);
    assert_eq!(copies.observe((1, 5), at(12)), Seen::Copy);
    assert_eq!(copies.observe((1, 5), at(13)), Seen::Copy);
    assert_eq!(copies.observe((2, 5), at(14)), Seen::First);
}

#[test]
fn a_counter_that_starts_again_under_a_new_producer_is_no_copy() {
    let mut copies = Copies::default();
    let mut position = 0;
    for producer in 0..100 {
        for number in 0..50 {
            assert_eq!(copies.observe((producer, number), at(position)), Seen::First);
            position += 1;
        }
    }
}

#[test]
fn a_number_out_of_reach_counts_as_not_seen() {
    let mut copies = Copies::new(100, 8);
    assert_eq!(copies.observe((1, 0), at(0)), Seen::First);
    assert_eq!(copies.observe((1, 1), at(1)), Seen::First);
    assert_eq!(copies.observe((1, 100), at(2)), Seen::First);
    assert_eq!(copies.observe((1, 0), at(3)), Seen::First);
    assert_eq!(copies.observe((1, 0), at(4)), Seen::First);
    assert_eq!(copies.observe((1, 1), at(5)), Seen::Copy);
}

#[test]
fn clearing_forgets_stamps_and_positions() {
    let mut copies = Copies::default();
    copies.observe((1, 5), at(10));
    copies.clear();
    assert_eq!(copies.observe((1, 5), at(3)), Seen::First);
    assert_eq!(copies.observe((1, 5), at(4)), Seen::Copy);
}

#[test]
fn the_least_recently_seen_producer_is_forgotten_first() {
    let mut copies = Copies::new(64, 2);
    copies.observe((1, 0), at(0));
    copies.observe((2, 0), at(1));
    assert_eq!(copies.observe((1, 0), at(2)), Seen::Copy);
    copies.observe((3, 0), at(3));
    assert_eq!(copies.producers(), 2);
    assert_eq!(copies.observe((1, 0), at(4)), Seen::Copy);
    assert_eq!(copies.observe((2, 0), at(5)), Seen::First);
}

#[test]
fn a_handful_of_messages_costs_little_and_a_jump_no_more_than_the_window() {
    let mut copies = Copies::default();
    for number in 1_000_000..1_000_100 {
        copies.observe((1, number), at(number));
    }
    assert!(copies.producers[0].numbers.words.len() <= 3);
    copies.observe((1, u64::MAX), at(2_000_000));
    copies.observe((1, 0), at(2_000_001));
    copies.observe((1, u64::MAX - DEFAULT_WINDOW + 1), at(2_000_002));
    let words = copies.producers[0].numbers.words.len() as u64;
    assert!(words <= DEFAULT_WINDOW / WORD + 1);
    assert_eq!(copies.observe((1, u64::MAX), at(2_000_003)), Seen::Copy);
}

/// All stamps by producer; reach and eviction by their definitions.
#[derive(Default)]
struct Model {
    highest: Option<Position>,
    order: Vec<u128>,
    numbers: BTreeMap<u128, BTreeSet<u64>>,
}

impl Model {
    fn observe(&mut self, (id, number): (u128, u64), position: Position, window: u64, most: usize) -> Seen {
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
        if known && risen { Seen::Copy } else { Seen::First }
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
        let mut copies = Copies::new(window, most);
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
        let mut copies = Copies::default();
        let mut seen = BTreeSet::new();
        for (position, stamp) in stamps.into_iter().enumerate() {
            let expected = if seen.insert(stamp) { Seen::First } else { Seen::Copy };
            prop_assert_eq!(copies.observe(stamp, at(position as u64)), expected);
        }
    }
}
