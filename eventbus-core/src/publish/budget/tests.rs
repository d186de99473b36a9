use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn room(envelopes: usize, bytes: usize, share: usize, waiting: usize) -> Room<u8> {
    Room::new(RoomLimits { envelopes, bytes, share, waiting }).unwrap()
}

fn released(room: &mut Room<u8>, key: u8, bytes: usize) -> Vec<u64> {
    let mut granted = Vec::new();
    room.release(Some(&key), bytes, &mut granted);
    granted
}

#[test]
fn one_key_does_not_eat_the_budget() {
    let mut room = room(16, 1_000, 8, 100);
    let held = (0..50).filter(|ticket| room.admit(Some(&1), 1, *ticket) == Admission::Granted).count();
    assert_eq!((held, room.used(), room.waiting()), (2, (2, 2), 48));
    for key in 2..9 {
        assert_eq!(room.admit(Some(&key), 1, 100 + u64::from(key)), Admission::Granted);
    }
    assert_eq!(released(&mut room, 1, 1), [2]);
    assert!(released(&mut room, 2, 1).is_empty());
}

#[test]
fn keyless_envelopes_are_not_held_to_a_share() {
    let mut room = room(16, 1_000, 8, 100);
    assert!((0..16).all(|ticket| room.admit(None, 1, ticket) == Admission::Granted));
    assert_eq!(room.admit(None, 1, 16), Admission::Waiting);
    let mut granted = Vec::new();
    room.release(None, 1, &mut granted);
    assert_eq!((granted, room.held(None)), (vec![16], (16, 16)));
}

#[test]
fn an_envelope_above_its_share_is_granted_only_alone() {
    let mut room = room(100, 800, 8, 100);
    assert_eq!(room.admit(Some(&1), 700, 0), Admission::Granted);
    assert_eq!(room.admit(Some(&1), 1, 1), Admission::Waiting);
    assert_eq!(room.admit(Some(&2), 100, 2), Admission::Granted);
    assert_eq!(released(&mut room, 1, 700), [1]);
    assert_eq!(room.admit(Some(&1), 700, 3), Admission::Waiting);
    assert_eq!(released(&mut room, 1, 1), [3]);
}

#[test]
fn a_small_envelope_does_not_pass_an_older_large_one() {
    let mut room = room(100, 100, 1, 100);
    assert_eq!(room.admit(Some(&1), 60, 0), Admission::Granted);
    assert_eq!(room.admit(Some(&2), 20, 1), Admission::Granted);
    assert_eq!(room.admit(Some(&3), 90, 2), Admission::Waiting);
    assert_eq!(room.admit(Some(&4), 10, 3), Admission::Waiting);
    assert!(released(&mut room, 1, 60).is_empty());
    assert_eq!(released(&mut room, 2, 20), [2, 3]);
}

#[test]
fn withdrawing_the_one_who_reserves_lets_the_others_in() {
    let mut room = room(100, 100, 1, 100);
    room.admit(Some(&1), 60, 0);
    room.admit(Some(&2), 90, 1);
    room.admit(Some(&3), 10, 2);
    room.admit(Some(&4), 10, 3);
    let mut granted = Vec::new();
    assert!(room.withdraw(1, &mut granted));
    assert_eq!(granted, [2, 3]);
    assert!(!room.withdraw(1, &mut granted) && !room.withdraw(2, &mut granted));
    assert_eq!((room.waiting(), room.keys()), (0, 3));
}

#[test]
fn refusals_leave_no_trace() {
    let mut room = room(1, 10, 1, 1);
    assert_eq!(room.admit(Some(&1), 11, 0), Admission::TooLarge);
    assert_eq!((room.keys(), room.used()), (0, (0, 0)));
    assert_eq!(room.admit(Some(&1), 10, 1), Admission::Granted);
    assert_eq!(room.admit(Some(&2), 1, 2), Admission::Waiting);
    assert_eq!(room.admit(Some(&3), 1, 3), Admission::Overloaded);
    assert_eq!((room.keys(), room.waiting()), (2, 1));
    assert_eq!(released(&mut room, 1, 10), [2]);
}

#[test]
fn a_batch_takes_all_its_places_or_none() {
    let mut room = room(4, 100, 2, 3);
    let mut granted = vec![99];
    let batch = [(Some(&1), 1), (Some(&1), 1), (Some(&1), 1), (Some(&2), 1), (None, 1)];
    assert_eq!(room.admit_batch(batch.into_iter(), 10, &mut granted), Ok(()));
    assert_eq!((&granted[..], room.waiting()), (&[99, 10, 11, 13, 14][..], 1));

    let before = (room.used(), room.waiting(), room.keys());
    let refused = room.admit_batch([(Some(&3), 1), (None, 1), (Some(&1), 1)].into_iter(), 20, &mut granted);
    assert_eq!(refused, Err(BatchRefused { index: 2, admission: Admission::Overloaded }));
    let refused = room.admit_batch([(Some(&3), 1), (None, 101)].into_iter(), 30, &mut granted);
    assert_eq!(refused, Err(BatchRefused { index: 1, admission: Admission::TooLarge }));
    assert_eq!((room.used(), room.waiting(), room.keys()), before);
    assert_eq!(granted.len(), 5);
}

#[test]
fn idle_keys_and_the_memory_of_a_crowd_are_not_kept() {
    let mut room: Room<u32> = Room::new(RoomLimits::default()).unwrap();
    let mut granted = Vec::new();
    for key in 0..50_000 {
        room.admit(Some(&key), 10, u64::from(key));
    }
    assert_eq!((room.keys(), room.waiting()), (50_000, 40_000));
    for key in 0..50_000 {
        room.release(Some(&key), 10, &mut granted);
    }
    assert_eq!((room.keys(), room.waiting(), room.used()), (0, 0, (0, 0)));
    assert_eq!(granted, (10_000..50_000).collect::<Vec<_>>());
    assert!(room.lines.capacity() <= KEPT_CAPACITY && room.waiters.capacity() <= KEPT_CAPACITY);
    assert_eq!(room.admit(None, 1, 60_000), Admission::Granted);
}

#[test]
fn limits_that_let_nothing_in_are_refused() {
    for (envelopes, bytes, share, name) in [(0, 1, 1, "envelopes"), (1, 0, 1, "bytes"), (1, 1, 0, "share")] {
        let limits = RoomLimits { envelopes, bytes, share, waiting: 0 };
        assert_eq!(Room::<u8>::new(limits).err(), Some(RoomError { name }));
    }
    assert_eq!(RoomLimits::default().reserve().envelopes, 625);
    let small = RoomLimits { envelopes: 1, bytes: 1, ..RoomLimits::default() }.reserve();
    assert_eq!((small.envelopes, small.validate()), (64, Ok(())));
}

/// Everything that holds or waits, in call order; the rules by their definitions.
struct Model {
    limits: RoomLimits,
    held: Vec<Place>,
    waiting: Vec<Place>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    ticket: u64,
    key: Option<u8>,
    bytes: usize,
}

impl Model {
    fn used(&self) -> (usize, usize) {
        (self.held.len(), self.held.iter().map(|place| place.bytes).sum())
    }

    fn held_by(&self, key: Option<u8>) -> (usize, usize) {
        let of_key = || self.held.iter().filter(move |place| place.key == key);
        (of_key().count(), of_key().map(|place| place.bytes).sum())
    }

    fn below_share(&self, place: &Place) -> bool {
        let (envelopes, bytes) = self.held_by(place.key);
        let most = ((self.limits.envelopes / self.limits.share).max(1), self.limits.bytes / self.limits.share);
        place.key.is_none() || envelopes == 0 || (envelopes < most.0 && bytes + place.bytes <= most.1)
    }

    fn grant(&mut self) -> Vec<u64> {
        let mut granted = Vec::new();
        loop {
            let eligible = (0..self.waiting.len()).find(|&index| {
                let place = &self.waiting[index];
                let first = self.waiting[..index].iter().all(|before| before.key != place.key);
                first && self.below_share(place)
            });
            let Some(index) = eligible else {
                return granted;
            };
            let (envelopes, bytes) = self.used();
            if envelopes == self.limits.envelopes || bytes + self.waiting[index].bytes > self.limits.bytes {
                return granted;
            }
            let place = self.waiting.remove(index);
            granted.push(place.ticket);
            self.held.push(place);
        }
    }

    /// All or none of `places`.
    fn admit(&mut self, places: &[Place]) -> Result<Vec<u64>, BatchRefused> {
        if let Some(index) = places.iter().position(|place| place.bytes > self.limits.bytes) {
            return Err(BatchRefused { index, admission: Admission::TooLarge });
        }
        let before = (self.held.clone(), self.waiting.clone());
        let mut granted = Vec::new();
        for (index, place) in places.iter().enumerate() {
            self.waiting.push(*place);
            granted.extend(self.grant());
            if self.waiting.len() > self.limits.waiting {
                (self.held, self.waiting) = before;
                return Err(BatchRefused { index, admission: Admission::Overloaded });
            }
        }
        Ok(granted)
    }
}

#[derive(Debug, Clone)]
enum Step {
    Admit(Vec<(Option<u8>, usize)>),
    Release(usize),
    Withdraw(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let key = prop_oneof![1 => Just(None), 3 => Just(Some(0)), 6 => (1..9_u8).prop_map(Some)];
    let bytes = prop_oneof![8 => 0..20_usize, 2 => 20..80_usize, 1 => 80..120_usize];
    let one = (key, bytes);
    prop_oneof![
        5 => one.clone().prop_map(|one| Step::Admit(vec![one])),
        1 => prop::collection::vec(one, 0..8).prop_map(Step::Admit),
        4 => any::<usize>().prop_map(Step::Release),
        1 => any::<usize>().prop_map(Step::Withdraw),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn differs_from_the_naive_model(
        envelopes in 1..20_usize,
        share in 1..9_usize,
        waiting in 0..30_usize,
        steps in prop::collection::vec(step(), 0..200),
    ) {
        let limits = RoomLimits { envelopes, bytes: 100, share, waiting };
        let mut room = Room::new(limits).unwrap();
        let mut model = Model { limits, held: Vec::new(), waiting: Vec::new() };
        let mut granted = Vec::new();
        let mut next = 0;
        for step in steps {
            granted.clear();
            match step {
                Step::Admit(batch) => {
                    let places: Vec<_> = (next..).zip(&batch).map(|(ticket, &(key, bytes))| Place { ticket, key, bytes }).collect();
                    let expected = model.admit(&places);
                    let result = match &batch[..] {
                        [(key, bytes)] => match room.admit(key.as_ref(), *bytes, next) {
                            Admission::Granted => { granted.push(next); Ok(()) }
                            Admission::Waiting => Ok(()),
                            admission => Err(BatchRefused { index: 0, admission }),
                        },
                        _ => room.admit_batch(batch.iter().map(|(key, bytes)| (key.as_ref(), *bytes)), next, &mut granted),
                    };
                    next += batch.len() as u64;
                    prop_assert!(result.is_ok() || granted.is_empty(), "a refused batch was granted room");
                    prop_assert_eq!(result.map(|()| granted.clone()), expected);
                }
                Step::Release(pick) if !model.held.is_empty() => {
                    let place = model.held.remove(pick % model.held.len());
                    room.release(place.key.as_ref(), place.bytes, &mut granted);
                    prop_assert_eq!(&granted, &model.grant());
                }
                Step::Withdraw(pick) if !model.waiting.is_empty() => {
                    let place = model.waiting.remove(pick % model.waiting.len());
                    prop_assert!(room.withdraw(place.ticket, &mut granted));
                    prop_assert_eq!(&granted, &model.grant());
                }
                Step::Release(_) | Step::Withdraw(_) => {
                    prop_assert!(!room.withdraw(next, &mut granted));
                }
            }
            prop_assert_eq!(room.used(), model.used());
            prop_assert_eq!(room.waiting(), model.waiting.len());
            prop_assert!(room.used().0 <= envelopes && room.used().1 <= 100 && room.waiting() <= waiting);
            let mut keys: Vec<_> = model.held.iter().chain(&model.waiting).filter_map(|place| place.key).collect();
            keys.sort_unstable();
            keys.dedup();
            prop_assert_eq!(room.keys(), keys.len());
            for key in keys {
                let (held, bytes) = room.held(Some(&key));
                prop_assert_eq!((held, bytes), model.held_by(Some(key)));
                prop_assert!(held <= 1 || (held <= (envelopes / share).max(1) && bytes <= 100 / share));
            }
        }
    }

    #[test]
    fn a_waiter_is_left_behind_or_passed_within_its_key(
        share in 1..9_usize,
        calls in prop::collection::vec((prop::option::weighted(0.9, 0..6_u8), 0..=100_usize), 0..200),
        order in prop::collection::vec(any::<prop::sample::Index>(), 200),
    ) {
        let limits = RoomLimits { envelopes: 10, bytes: 100, share, waiting: 1_000 };
        let mut room = Room::new(limits).unwrap();
        let mut held = Vec::new();
        let mut lines: BTreeMap<Option<u8>, Vec<u64>> = BTreeMap::new();
        for (ticket, &(key, bytes)) in (0..).zip(&calls) {
            if room.admit(key.as_ref(), bytes, ticket) == Admission::Granted {
                lines.entry(key).or_default().push(ticket);
                held.push(ticket);
            }
        }
        let mut granted = Vec::new();
        for pick in order {
            if held.is_empty() {
                break;
            }
            let (key, bytes) = calls[held.swap_remove(pick.index(held.len())) as usize];
            room.release(key.as_ref(), bytes, &mut granted);
            for ticket in granted.drain(..) {
                lines.entry(calls[ticket as usize].0).or_default().push(ticket);
                held.push(ticket);
            }
        }
        prop_assert_eq!(lines.values().map(Vec::len).sum::<usize>(), calls.len(), "someone never got in");
        prop_assert!(lines.values().all(|line| line.is_sorted()));
        prop_assert_eq!((room.keys(), room.waiting(), room.used()), (0, 0, (0, 0)));
    }
}
