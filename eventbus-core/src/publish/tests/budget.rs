use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// The default limits of a bus.
const LIMITS: BudgetLimits = BudgetLimits { envelopes: 10_000, bytes: 64 << 20, share: 8, waiting: 100_000 };

/// Lines in which each waiter is known by its own ticket.
type Tickets = Lines<u64>;

fn lines(envelopes: usize, bytes: usize, share: usize, waiting: usize) -> Tickets {
    Lines::new(BudgetLimits { envelopes, bytes, share, waiting })
}

impl Tickets {
    fn ask(&mut self, lane: Option<u64>, bytes: usize, ticket: u64) -> Admission {
        self.admit(BudgetRequest { lane, bytes, ticket }, || ticket)
    }

    /// Asks for room for a batch, whose envelopes take the tickets from `first` on. Returns the tickets that were
    /// granted room.
    fn ask_batch(&mut self, batch: &[(Option<u64>, usize)], first: u64) -> Result<Vec<u64>, BatchUnplaced> {
        let request = |(ticket, &(lane, bytes))| BudgetRequest { lane, bytes, ticket };
        let requests: Vec<_> = (first..).zip(batch).map(request).collect();
        let granted = self.admit_batch(&requests, |index| first + index as u64)?;
        Ok((first..).zip(granted).filter_map(|(ticket, granted)| granted.then_some(ticket)).collect())
    }

    fn released(&mut self, lane: Option<u64>, bytes: usize) -> Vec<u64> {
        let mut granted = Vec::new();
        self.release(BudgetRequest { lane, bytes, ticket: u64::MAX }, &mut granted);
        granted
    }

    fn held(&self, lane: Option<u64>) -> (usize, usize) {
        match lane {
            Some(id) => self.by_lane.get(&id).map_or((0, 0), |line| line.held),
            None => self.keyless.held,
        }
    }

    /// The numbers of keys and of waiters.
    fn counts(&self) -> (usize, usize) {
        (self.by_lane.len(), self.waiters.len())
    }
}

#[test]
fn one_key_does_not_eat_the_budget() {
    let mut lines = lines(16, 1_000, 8, 100);
    let held = (0..50).filter(|ticket| lines.ask(Some(1), 1, *ticket) == Admission::Granted).count();
    assert_eq!((held, lines.used, lines.waiters.len()), (2, (2, 2), 48));
    for key in 2..9 {
        assert_eq!(lines.ask(Some(key), 1, 100 + key), Admission::Granted);
    }
    assert_eq!(lines.released(Some(1), 1), [2]);
    assert!(lines.released(Some(2), 1).is_empty());
}

#[test]
fn keyless_envelopes_are_not_held_to_a_share() {
    let mut lines = lines(16, 1_000, 8, 100);
    assert!((0..16).all(|ticket| lines.ask(None, 1, ticket) == Admission::Granted));
    assert_eq!(lines.ask(None, 1, 16), Admission::Waiting);
    assert_eq!((lines.released(None, 1), lines.held(None)), (vec![16], (16, 16)));
}

#[test]
fn an_envelope_above_its_share_is_granted_only_alone() {
    let mut lines = lines(100, 800, 8, 100);
    assert_eq!(lines.ask(Some(1), 700, 0), Admission::Granted);
    assert_eq!(lines.ask(Some(1), 1, 1), Admission::Waiting);
    assert_eq!(lines.ask(Some(2), 100, 2), Admission::Granted);
    assert_eq!(lines.released(Some(1), 700), [1]);
    assert_eq!(lines.ask(Some(1), 700, 3), Admission::Waiting);
    assert_eq!(lines.released(Some(1), 1), [3]);
}

#[test]
fn a_small_envelope_does_not_pass_an_older_large_one() {
    let mut lines = lines(100, 100, 1, 100);
    assert_eq!(lines.ask(Some(1), 60, 0), Admission::Granted);
    assert_eq!(lines.ask(Some(2), 20, 1), Admission::Granted);
    assert_eq!(lines.ask(Some(3), 90, 2), Admission::Waiting);
    assert_eq!(lines.ask(Some(4), 10, 3), Admission::Waiting);
    assert!(lines.released(Some(1), 60).is_empty());
    assert_eq!(lines.released(Some(2), 20), [2, 3]);
}

#[test]
fn withdrawing_the_one_who_reserves_lets_the_others_in() {
    let mut lines = lines(100, 100, 1, 100);
    for (key, bytes) in [(1, 60), (2, 90), (3, 10), (4, 10)] {
        lines.ask(Some(key), bytes, key - 1);
    }
    let mut granted = Vec::new();
    assert!(lines.withdraw(1, &mut granted));
    assert_eq!(granted, [2, 3]);
    assert!(!lines.withdraw(1, &mut granted) && !lines.withdraw(2, &mut granted));
    assert_eq!(lines.counts(), (3, 0));
}

#[test]
fn refusals_leave_no_trace() {
    let mut lines = lines(1, 10, 1, 1);
    assert_eq!(lines.ask(Some(1), 11, 0), Admission::TooLarge);
    assert_eq!((lines.counts(), lines.used), ((0, 0), (0, 0)));
    assert_eq!(lines.ask(Some(1), 10, 1), Admission::Granted);
    assert_eq!(lines.ask(Some(2), 1, 2), Admission::Waiting);
    assert_eq!(lines.ask(Some(3), 1, 3), Admission::Overloaded);
    assert_eq!(lines.counts(), (2, 1));
    assert_eq!(lines.released(Some(1), 10), [2]);
}

#[test]
fn a_batch_takes_all_its_places_or_none() {
    let mut lines = lines(4, 100, 2, 3);
    let batch = [(Some(1), 1), (Some(1), 1), (Some(1), 1), (Some(2), 1), (None, 1)];
    assert_eq!(lines.ask_batch(&batch, 10), Ok(vec![10, 11, 13, 14]));
    assert_eq!(lines.waiters.len(), 1);

    let before = (lines.used, lines.counts());
    let refused = lines.ask_batch(&[(Some(3), 1), (None, 1), (Some(1), 1)], 20);
    assert_eq!(refused, Err(BatchUnplaced { index: 2, admission: Admission::Overloaded }));
    let refused = lines.ask_batch(&[(Some(3), 1), (None, 101)], 30);
    assert_eq!(refused, Err(BatchUnplaced { index: 1, admission: Admission::TooLarge }));
    assert_eq!((lines.used, lines.counts()), before);
}

#[test]
fn one_who_was_granted_room_a_moment_ago_gives_room_back_and_not_a_place() {
    let budget: Budget<u64> = Budget::new(BudgetLimits { envelopes: 1, ..LIMITS });
    let request = |ticket| BudgetRequest { lane: Some(ticket), bytes: 1, ticket };
    assert_eq!(budget.admit(request(1), || 1), Admission::Granted);
    for ticket in [2, 3] {
        assert_eq!(budget.admit(request(ticket), || ticket), Admission::Waiting);
    }
    assert_eq!(budget.leave(request(1), true), [2]);
    assert_eq!(budget.leave(request(2), false), [3]);
    assert_eq!(budget.leave(request(3), false), [0; 0]);
    assert_eq!(budget.0.lock().counts(), (0, 0));
}

#[test]
fn idle_keys_and_the_memory_of_a_crowd_are_not_kept() {
    let mut lines = Lines::new(LIMITS);
    for key in 0..50_000 {
        lines.ask(Some(key), 10, key);
    }
    assert_eq!(lines.counts(), (50_000, 40_000));
    let granted: Vec<u64> = (0..50_000).flat_map(|key| lines.released(Some(key), 10)).collect();
    assert_eq!((lines.counts(), lines.used), ((0, 0), (0, 0)));
    assert_eq!(granted, (10_000..50_000).collect::<Vec<_>>());
    assert!(lines.by_lane.capacity() <= KEPT_CAPACITY && lines.waiters.capacity() <= KEPT_CAPACITY);
    assert_eq!(lines.ask(None, 1, 60_000), Admission::Granted);
}

#[test]
fn a_reserve_is_a_sixteenth_and_never_too_small() {
    assert_eq!(LIMITS.reserve().envelopes, 625);
    let small = BudgetLimits { envelopes: 1, bytes: 1, ..LIMITS }.reserve();
    assert_eq!((small.envelopes, small.bytes), (64, 1));
}

/// A model of the budget: all holders and waiters, in call order, and the rules by their definitions.
struct Model {
    limits: BudgetLimits,
    held: Vec<ModelPlace>,
    waiting: Vec<ModelPlace>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ModelPlace {
    ticket: u64,
    key: Option<u64>,
    bytes: usize,
}

impl Model {
    fn used(&self) -> (usize, usize) {
        (self.held.len(), self.held.iter().map(|place| place.bytes).sum())
    }

    fn held_by(&self, key: Option<u64>) -> (usize, usize) {
        let of_key = || self.held.iter().filter(move |place| place.key == key);
        (of_key().count(), of_key().map(|place| place.bytes).sum())
    }

    fn below_share(&self, place: &ModelPlace) -> bool {
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

    /// Admits all of `places`, or none.
    fn admit(&mut self, places: &[ModelPlace]) -> Result<Vec<u64>, BatchUnplaced> {
        if let Some(index) = places.iter().position(|place| place.bytes > self.limits.bytes) {
            return Err(BatchUnplaced { index, admission: Admission::TooLarge });
        }
        let before = (self.held.clone(), self.waiting.clone());
        let mut granted = Vec::new();
        for (index, place) in places.iter().enumerate() {
            self.waiting.push(*place);
            granted.extend(self.grant());
            if self.waiting.len() > self.limits.waiting {
                (self.held, self.waiting) = before;
                return Err(BatchUnplaced { index, admission: Admission::Overloaded });
            }
        }
        Ok(granted)
    }
}

#[derive(Debug, Clone)]
enum Step {
    Admit(Vec<(Option<u64>, usize)>),
    Release(usize),
    Withdraw(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let key = prop_oneof![1 => Just(None), 3 => Just(Some(0)), 6 => (1..9_u64).prop_map(Some)];
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
        let limits = BudgetLimits { envelopes, bytes: 100, share, waiting };
        let mut lines: Tickets = Lines::new(limits);
        let mut model = Model { limits, held: Vec::new(), waiting: Vec::new() };
        let mut granted = Vec::new();
        let mut next = 0;
        for step in steps {
            granted.clear();
            match step {
                Step::Admit(batch) => {
                    let places: Vec<_> = (next..).zip(&batch).map(|(ticket, &(key, bytes))| ModelPlace { ticket, key, bytes }).collect();
                    let expected = model.admit(&places);
                    let result = match &batch[..] {
                        [(key, bytes)] => match lines.ask(*key, *bytes, next) {
                            Admission::Granted => Ok(vec![next]),
                            Admission::Waiting => Ok(vec![]),
                            admission => Err(BatchUnplaced { index: 0, admission }),
                        },
                        _ => lines.ask_batch(&batch, next),
                    };
                    next += batch.len() as u64;
                    prop_assert_eq!(result, expected);
                }
                Step::Release(pick) if !model.held.is_empty() => {
                    let place = model.held.remove(pick % model.held.len());
                    prop_assert_eq!(lines.released(place.key, place.bytes), model.grant());
                }
                Step::Withdraw(pick) if !model.waiting.is_empty() => {
                    let place = model.waiting.remove(pick % model.waiting.len());
                    prop_assert!(lines.withdraw(place.ticket, &mut granted));
                    prop_assert_eq!(&granted, &model.grant());
                }
                Step::Release(_) | Step::Withdraw(_) => {
                    prop_assert!(!lines.withdraw(next, &mut granted));
                }
            }
            prop_assert_eq!(lines.used, model.used());
            prop_assert_eq!(lines.waiters.len(), model.waiting.len());
            prop_assert!(lines.used.0 <= envelopes && lines.used.1 <= 100 && lines.waiters.len() <= waiting);
            let mut keys: Vec<_> = model.held.iter().chain(&model.waiting).filter_map(|place| place.key).collect();
            keys.sort_unstable();
            keys.dedup();
            prop_assert_eq!(lines.by_lane.len(), keys.len());
            for key in keys {
                let (held, bytes) = lines.held(Some(key));
                prop_assert_eq!((held, bytes), model.held_by(Some(key)));
                prop_assert!(held <= 1 || (held <= (envelopes / share).max(1) && bytes <= 100 / share));
            }
        }
    }

    #[test]
    fn a_waiter_is_left_behind_or_passed_within_its_key(
        share in 1..9_usize,
        calls in prop::collection::vec((prop::option::weighted(0.9, 0..6_u64), 0..=100_usize), 0..200),
        order in prop::collection::vec(any::<prop::sample::Index>(), 200),
    ) {
        let limits = BudgetLimits { envelopes: 10, bytes: 100, share, waiting: 1_000 };
        let mut lines: Tickets = Lines::new(limits);
        let mut held = Vec::new();
        let mut order_of: BTreeMap<Option<u64>, Vec<u64>> = BTreeMap::new();
        for (ticket, &(key, bytes)) in (0..).zip(&calls) {
            if lines.ask(key, bytes, ticket) == Admission::Granted {
                order_of.entry(key).or_default().push(ticket);
                held.push(ticket);
            }
        }
        for pick in order {
            if held.is_empty() {
                break;
            }
            let (key, bytes) = calls[held.swap_remove(pick.index(held.len())) as usize];
            for ticket in lines.released(key, bytes) {
                order_of.entry(calls[ticket as usize].0).or_default().push(ticket);
                held.push(ticket);
            }
        }
        prop_assert_eq!(order_of.values().map(Vec::len).sum::<usize>(), calls.len(), "someone never got in");
        prop_assert!(order_of.values().all(|line| line.is_sorted()));
        prop_assert_eq!((lines.by_lane.len(), lines.waiters.len(), lines.used), (0, 0, (0, 0)));
    }
}
