use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn at(position: u64) -> Position {
    Position::new(position)
}

fn run(first: u64, last: u64) -> Run {
    Run { first: at(first), last: at(last) }
}

#[test]
fn the_watermark_does_not_pass_an_unfinished_head() {
    let mut tracker = Tracker::new(at(10));
    let ordinals: Vec<_> = (10..20).map(|position| tracker.push(at(position)).unwrap()).collect();
    for &ordinal in &ordinals[1..] {
        assert!(!tracker.finish(ordinal));
        assert_eq!(tracker.watermark(), at(10));
    }
    assert_eq!(tracker.finished_beyond().collect::<Vec<_>>(), [run(11, 19)]);
    assert!(tracker.finish(ordinals[0]));
    assert_eq!((tracker.watermark(), tracker.head(), tracker.span()), (at(20), None, 0));
}

#[test]
fn finishing_twice_does_not_count_twice() {
    let mut tracker = Tracker::new(at(0));
    let _head = tracker.push(at(0)).unwrap();
    let second = tracker.push(at(1)).unwrap();
    tracker.finish(second);
    assert!(!tracker.finish(second));
    assert_eq!((tracker.outstanding(), tracker.finished_since_commit()), (1, 1));
}

#[test]
fn an_ordinal_never_given_finishes_nothing() {
    let mut tracker = Tracker::new(at(0));
    let first = tracker.push(at(0)).unwrap();
    assert!(!tracker.finish(Ordinal(first.0 + 1)));
    assert!(!tracker.finish(Ordinal(u64::MAX)));
    assert_eq!((tracker.watermark(), tracker.outstanding()), (at(0), 1));
}

#[test]
fn deliveries_that_do_not_rise_are_refused() {
    let mut tracker = Tracker::new(at(5));
    assert_eq!(tracker.push(at(4)), None);
    tracker.push(at(7)).unwrap();
    assert_eq!(tracker.push(at(7)), None);
    tracker.advance_to(at(20));
    assert_eq!(tracker.push(at(19)), None);
    assert_eq!(tracker.push(Position::MAX), None, "no watermark could pass it");
    assert!(tracker.push(at(20)).is_some());
}

#[test]
fn advancing_stops_at_the_first_unfinished_record_and_is_remembered() {
    let mut tracker = Tracker::new(at(0));
    let first = tracker.push(at(30)).unwrap();
    let second = tracker.push(at(60)).unwrap();
    assert!(tracker.advance_to(at(100)));
    assert_eq!(tracker.watermark(), at(30));
    assert!(tracker.finish(first));
    assert_eq!(tracker.watermark(), at(60));
    assert!(tracker.finish(second));
    assert_eq!(tracker.watermark(), at(100));
    assert!(!tracker.advance_to(at(50)));
    assert_eq!(tracker.watermark(), at(100));
}

#[test]
fn without_a_lift_foreign_positions_are_not_passed() {
    let mut tracker = Tracker::new(at(0));
    let first = tracker.push(at(30)).unwrap();
    tracker.push(at(60)).unwrap();
    assert_eq!(tracker.watermark(), at(0));
    tracker.finish(first);
    assert_eq!(tracker.watermark(), at(31));
}

#[test]
fn what_finishes_while_a_commit_runs_is_left_for_the_next() {
    let mut tracker = Tracker::new(at(0));
    let ordinals: Vec<_> = (0..3).map(|position| tracker.push(at(position)).unwrap()).collect();
    tracker.finish(ordinals[0]);
    tracker.finish(ordinals[1]);
    let taken = tracker.finished_since_commit();
    tracker.finish(ordinals[2]);
    tracker.committed(taken);
    assert_eq!(tracker.finished_since_commit(), 1);
}

#[test]
fn memory_of_a_stall_is_given_back() {
    let mut tracker = Tracker::new(at(0));
    let ordinals: Vec<_> = (0..100_000).map(|p| tracker.push(at(p)).unwrap()).collect();
    for ordinal in ordinals.into_iter().rev() {
        tracker.finish(ordinal);
    }
    assert_eq!(tracker.watermark(), at(100_000));
    assert!(tracker.positions.capacity() <= 2 * KEPT_CAPACITY);
}

/// Every record with its mark, and the definitions computed from scratch.
#[derive(Default)]
struct Model {
    start: Position,
    advanced: Position,
    watermark: Position,
    records: BTreeMap<Position, bool>,
}

impl Model {
    fn head(&self) -> Option<Position> {
        self.records.iter().find(|(_, finished)| !**finished).map(|(position, _)| *position)
    }

    fn settle(&mut self) {
        let head = self.head();
        let below = |p: &&Position| head.is_none_or(|head| **p < head);
        let contiguous = self.records.keys().rev().find(below).map_or(self.start, |p| p.next());
        let advanced = head.map_or(self.advanced, |head| head.min(self.advanced));
        self.watermark = self.watermark.max(contiguous).max(advanced);
    }

    fn span(&self) -> usize {
        self.head().map_or(0, |head| self.records.range(head..).count())
    }

    fn runs(&self) -> Vec<Run> {
        let Some(head) = self.head() else {
            return Vec::new();
        };
        let mut runs: Vec<Run> = Vec::new();
        let mut open = false;
        for (&position, &finished) in self.records.range(head..) {
            match runs.last_mut() {
                Some(run) if finished && open => run.last = position,
                _ if finished => runs.push(Run { first: position, last: position }),
                _ => {}
            }
            open = finished;
        }
        runs
    }
}

#[derive(Debug, Clone)]
enum Step {
    Push { gap: u64 },
    Finish { pick: usize },
    FinishHead,
    Advance { ahead: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop_oneof![4 => Just(0), 1 => 0..40_u64].prop_map(|gap| Step::Push { gap }),
        5 => any::<usize>().prop_map(|pick| Step::Finish { pick }),
        1 => Just(Step::FinishHead),
        1 => (0..60_u64).prop_map(|ahead| Step::Advance { ahead }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn differs_from_the_naive_model(
        start in 0..1_000_u64,
        steps in prop::collection::vec(step(), 0..900),
    ) {
        let mut tracker = Tracker::new(at(start));
        let mut model = Model { start: at(start), advanced: at(start), watermark: at(start), ..Model::default() };
        let mut ordinals = BTreeMap::new();
        let mut next = at(start);
        for step in steps {
            let before = model.watermark;
            match step {
                Step::Push { gap } => {
                    let position = at(next.get() + gap);
                    ordinals.insert(position, tracker.push(position).unwrap());
                    model.records.insert(position, false);
                    next = position.next();
                }
                Step::Finish { pick } if !ordinals.is_empty() => {
                    let (&position, &ordinal) = ordinals.iter().nth(pick % ordinals.len()).unwrap();
                    model.records.insert(position, true);
                    model.settle();
                    prop_assert_eq!(tracker.finish(ordinal), model.watermark > before);
                }
                Step::FinishHead => {
                    if let Some(head) = model.head() {
                        model.records.insert(head, true);
                        model.settle();
                        prop_assert!(tracker.finish(ordinals[&head]));
                    }
                }
                Step::Finish { .. } => {}
                Step::Advance { ahead } => {
                    // Only positions that were delivered, or that lie before the next delivery, may be advanced over.
                    next = at(next.get() + ahead);
                    model.advanced = model.advanced.max(next);
                    model.settle();
                    prop_assert_eq!(tracker.advance_to(next), model.watermark > before);
                }
            }
            prop_assert_eq!(tracker.watermark(), model.watermark);
            prop_assert_eq!(tracker.head(), model.head());
            prop_assert_eq!(tracker.span(), model.span());
            let unfinished = model.records.values().filter(|finished| !**finished).count();
            prop_assert_eq!(tracker.outstanding(), unfinished);
            prop_assert_eq!(tracker.finished_since_commit() as usize, model.records.len() - unfinished);
        }
        prop_assert_eq!(tracker.finished_beyond().collect::<Vec<_>>(), model.runs());
    }
}
