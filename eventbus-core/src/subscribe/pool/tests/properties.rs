//! Random sequences of offers, outcomes, drains, losses, pauses and changes of concurrency, judged by a model.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::rig::{PARTITIONS, Rig};

const WORKERS: usize = 4;

#[derive(Debug, Clone)]
enum Step {
    /// Records for a partition: how far each is beyond the one before, and its key.
    Offer(u32, Vec<(u64, Option<u8>)>),
    Take(usize),
    Finish(usize),
    Retry(usize, u64),
    DeadLetter(usize),
    Abandon(usize),
    Confirm(usize),
    Grant,
    Advance(u64),
    Drain(u32),
    Remove(u32),
    Open(u32, Option<u64>),
    Pause(bool),
    Concurrency(usize),
    Lease(u32, bool),
}

fn step() -> impl Strategy<Value = Step> {
    let partition = 0..PARTITIONS as u32;
    let records = vec((1..3u64, prop::option::weighted(0.9, 0..4u8)), 1..6);
    prop_oneof![
        6 => (partition.clone(), records).prop_map(|(partition, records)| Step::Offer(partition, records)),
        12 => (0..WORKERS).prop_map(Step::Take),
        8 => (0..WORKERS).prop_map(Step::Finish),
        3 => (0..WORKERS, 0..5u64).prop_map(|(worker, wait)| Step::Retry(worker, wait)),
        2 => (0..WORKERS).prop_map(Step::DeadLetter),
        1 => (0..WORKERS).prop_map(Step::Abandon),
        2 => (0..4usize).prop_map(Step::Confirm),
        3 => Just(Step::Grant),
        3 => (0..5u64).prop_map(Step::Advance),
        1 => partition.clone().prop_map(Step::Drain),
        1 => partition.clone().prop_map(Step::Remove),
        2 => (partition.clone(), prop::option::weighted(0.3, 0..12u64)).prop_map(|(p, until)| Step::Open(p, until)),
        1 => any::<bool>().prop_map(Step::Pause),
        1 => (1..=WORKERS).prop_map(Step::Concurrency),
        1 => (partition, any::<bool>()).prop_map(|(partition, valid)| Step::Lease(partition, valid)),
    ]
}

/// Model of one ownership.
#[derive(Default)]
struct Owned {
    next: u64,
    /// Unfinished positions of each key, in order. A record without a key is a key of its own.
    queues: BTreeMap<String, VecDeque<u64>>,
    finished: BTreeSet<u64>,
    attempts: BTreeMap<u64, u32>,
    /// Keys whose dead letter is not confirmed: their heads may not start.
    burying: BTreeSet<String>,
    waiting: BTreeMap<String, u64>,
    draining: bool,
    invalid: bool,
    alone: Option<u64>,
}

impl Owned {
    fn key(position: u64, key: Option<u8>) -> String {
        key.map_or_else(|| format!("none {position}"), |key| key.to_string())
    }

    fn key_of(&self, position: u64) -> Option<String> {
        let mut found = self.queues.iter().filter(|(_, queue)| queue.contains(&position));
        found.next().map(|(key, _)| key.clone())
    }

    fn finish(&mut self, position: u64) {
        let Some(key) = self.key_of(position) else { return };
        let queue = self.queues.get_mut(&key).expect("just found");
        assert_eq!(queue.pop_front(), Some(position), "finished out of order");
        if queue.is_empty() {
            self.queues.remove(&key);
        }
        self.finished.insert(position);
    }

    fn first_unfinished(&self) -> Option<u64> {
        self.queues.values().filter_map(VecDeque::front).min().copied()
    }
}

struct Judge {
    rig: Rig,
    owned: BTreeMap<u32, Owned>,
    /// The running record of each worker: partition, key, position, and whether its ownership still stands.
    running: BTreeMap<usize, (u32, String, u64, bool)>,
    clock: u64,
    paused: bool,
    concurrency: usize,
}

impl Judge {
    fn new() -> Self {
        Self {
            rig: Rig::new(WORKERS),
            owned: BTreeMap::new(),
            running: BTreeMap::new(),
            clock: 0,
            paused: false,
            concurrency: WORKERS,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Offer(partition, records) => self.offer(partition, &records),
            Step::Take(worker) => self.take(worker),
            Step::Finish(worker) => self.end(worker, |judge, partition, position| {
                if let Some(owned) = judge.owned.get_mut(&partition) {
                    owned.finish(position);
                }
                judge.rig.finish(worker);
            }),
            Step::Retry(worker, wait) => self.end(worker, |judge, partition, position| {
                let at = judge.clock + wait;
                if let Some(owned) = judge.owned.get_mut(&partition)
                    && let Some(key) = owned.key_of(position)
                {
                    owned.waiting.insert(key, at);
                }
                judge.rig.retry(worker, Duration::from_millis(wait));
            }),
            Step::DeadLetter(worker) => self.end(worker, |judge, partition, position| {
                if let Some(owned) = judge.owned.get_mut(&partition)
                    && let Some(key) = owned.key_of(position)
                {
                    owned.burying.insert(key);
                }
                judge.rig.dead_letter(worker);
            }),
            Step::Abandon(worker) => {
                let stands = self.running.get(&worker).is_some_and(|running| running.3);
                self.end(worker, |judge, partition, _| {
                    if stands && let Some(owned) = judge.owned.get_mut(&partition) {
                        owned.draining = true;
                    }
                    judge.rig.abandon(worker);
                });
            }
            Step::Confirm(letter) => self.confirm(letter),
            Step::Grant => self.rig.grant(),
            Step::Advance(by) => {
                self.clock += by;
                self.rig.advance(Duration::from_millis(by));
            }
            Step::Drain(partition) => {
                self.rig.pool.drain(partition);
                self.rig.turns.retain(|(turn, _)| *turn != partition);
                if let Some(owned) = self.owned.get_mut(&partition) {
                    owned.draining = true;
                }
            }
            Step::Remove(partition) => self.remove(partition),
            Step::Open(partition, until) => self.open(partition, until),
            Step::Pause(paused) => {
                self.paused = paused;
                self.rig.pool.set_paused(paused);
            }
            Step::Concurrency(concurrency) => {
                self.concurrency = concurrency;
                self.rig.pool.set_concurrency(concurrency);
            }
            Step::Lease(partition, valid) => self.lease(partition, valid),
        }
        self.judge_progress();
    }

    fn offer(&mut self, partition: u32, records: &[(u64, Option<u8>)]) {
        for (gap, key) in records {
            let owned = self.owned.get_mut(&partition);
            let position = owned.as_ref().map_or(0, |owned| owned.next) + gap;
            if let Some(owned) = owned.filter(|owned| !owned.draining) {
                owned.next = position;
                owned.queues.entry(Owned::key(position, *key)).or_default().push_back(position);
            }
            self.rig.offer_one(partition, position, key.map(|key| key.to_string()).as_deref());
        }
    }

    /// Takes work for a worker, and checks against the model that the right record was given, or rightly none.
    fn take(&mut self, worker: usize) {
        if self.running.contains_key(&worker) {
            return;
        }
        let Some(position) = self.rig.take(worker) else {
            let idle = self.paused || self.running.len() >= self.concurrency || worker >= self.concurrency;
            assert!(idle || self.startable().is_none(), "{:?} could have started", self.startable());
            return;
        };
        let (partition, attempt) = (self.rig.job(worker).record.partition, self.rig.job(worker).attempt);
        assert!(!self.paused, "started while paused");
        assert!(self.running.len() < self.concurrency, "more handlers than allowed");
        let others = self.running.values().filter(|running| running.0 == partition).count();
        let owned = self.owned.get_mut(&partition).expect("started without an ownership");
        assert!(!owned.draining && !owned.invalid, "started in a partition that must rest");
        let key = owned.key_of(position).expect("started what was not offered, or is finished");
        assert_eq!(owned.queues[&key].front(), Some(&position), "not the head of its key");
        assert!(!self.running.values().any(|running| running.0 == partition && running.1 == key), "two of one key");
        assert!(!owned.burying.contains(&key), "started before its dead letter was confirmed");
        assert!(owned.waiting.remove(&key).is_none_or(|until| until <= self.clock), "started within its back-off");
        let attempts = owned.attempts.entry(position).or_default();
        *attempts += 1;
        assert_eq!(*attempts, attempt, "attempts");
        let first = owned.first_unfinished().expect("this one");
        if owned.alone.is_some_and(|until| first < until) {
            assert_eq!(others, 0, "two at a time where one was asked for");
        }
        self.running.insert(worker, (partition, key, position, true));
    }

    /// Returns a key that could start, if handlers may start at all. A partition that handles one at a time waits for
    /// notes and is judged at the end.
    fn startable(&self) -> Option<(u32, String)> {
        let may = self.owned.iter().filter(|(_, owned)| !owned.draining && !owned.invalid && owned.alone.is_none());
        let mut heads = may.flat_map(|(partition, owned)| owned.queues.keys().map(move |key| (*partition, owned, key)));
        heads
            .find(|(partition, owned, key)| {
                !owned.burying.contains(*key)
                    && owned.waiting.get(*key).is_none_or(|until| *until <= self.clock)
                    && !self.running.values().any(|running| running.0 == *partition && running.1 == **key)
            })
            .map(|(partition, _, key)| (partition, key.clone()))
    }

    fn end(&mut self, worker: usize, outcome: impl FnOnce(&mut Self, u32, u64)) {
        let Some((partition, _, position, stands)) = self.running.remove(&worker) else { return };
        // A record of an ownership that is over is named by a partition that nobody owns.
        outcome(self, if stands { partition } else { u32::MAX }, position);
    }

    fn confirm(&mut self, letter: usize) {
        if letter >= self.rig.letters.len() {
            return;
        }
        let letter = self.rig.letters.remove(letter);
        let known = self.rig.pool.dead_lettered(letter.lane, &letter.context, self.rig.now);
        if known {
            let owned = self.owned.get_mut(&letter.context.partition).expect("owned");
            let position = letter.record.position.get();
            let key = owned.key_of(position).expect("unfinished until now");
            assert!(owned.burying.remove(&key), "finished by a letter of another");
            owned.finish(position);
        }
        self.rig.look();
    }

    fn remove(&mut self, partition: u32) {
        self.rig.pool.remove(partition);
        self.rig.turns.retain(|(turn, _)| *turn != partition);
        self.owned.remove(&partition);
        self.running.values_mut().filter(|running| running.0 == partition).for_each(|running| running.3 = false);
    }

    /// Opens a partition as the session does: after the last ownership is over and its handlers have ended.
    fn open(&mut self, partition: u32, until: Option<u64>) {
        self.remove(partition);
        let left = self.running.values().filter(|running| running.0 == partition).count();
        assert_eq!(self.rig.pool.running_in(partition), left, "handlers of earlier ownerships");
        if left > 0 {
            return;
        }
        self.rig.leases[partition as usize].extend(tokio::time::Instant::now() + Duration::from_secs(1_000));
        self.rig.open_with(partition, until);
        self.owned.insert(partition, Owned { alone: until, ..Owned::default() });
        self.rig.look();
    }

    fn lease(&mut self, partition: u32, valid: bool) {
        let lease = &self.rig.leases[partition as usize];
        if valid {
            lease.extend(tokio::time::Instant::now() + Duration::from_secs(1_000));
        } else {
            lease.revoke();
        }
        if let Some(owned) = self.owned.get_mut(&partition) {
            owned.invalid = !valid;
        }
        self.rig.look();
    }

    /// Checks S4, after every step.
    fn judge_progress(&mut self) {
        for (partition, owned) in &self.owned {
            let watermark = self.rig.watermark(*partition).get();
            match owned.first_unfinished() {
                Some(first) => assert!(watermark <= first, "the watermark {watermark} is past the unfinished {first}"),
                None => assert_eq!(watermark, owned.finished.last().map_or(1, |last| last + 1)),
            }
            for (first, last) in self.rig.finished_beyond(*partition) {
                let unfinished = owned.queues.values().flatten().find(|position| (first..=last).contains(position));
                assert_eq!(unfinished, None, "in the finished set");
            }
        }
        let stands: usize = self.owned.keys().map(|partition| self.rig.pool.running_in(*partition)).sum();
        let running = self.running.values().filter(|running| self.owned.contains_key(&running.0)).count();
        assert_eq!(stands, running, "running handlers");
    }

    /// Heals all faults and lets all records run to their end. Nothing that can be finished may be left, and no memory
    /// kept.
    fn settle(&mut self) {
        self.step(Step::Pause(false));
        self.step(Step::Concurrency(WORKERS));
        (0..PARTITIONS as u32).for_each(|partition| self.step(Step::Lease(partition, true)));
        loop {
            let before: usize = self.owned.values().map(|owned| owned.finished.len()).sum();
            (0..WORKERS).for_each(|worker| self.step(Step::Finish(worker)));
            (0..self.rig.letters.len()).for_each(|_| self.step(Step::Confirm(0)));
            self.step(Step::Advance(10));
            self.step(Step::Grant);
            (0..WORKERS).for_each(|worker| self.step(Step::Take(worker)));
            let after: usize = self.owned.values().map(|owned| owned.finished.len()).sum();
            if before == after && self.running.is_empty() {
                break;
            }
        }
        for (partition, owned) in &self.owned {
            assert!(owned.draining || owned.queues.is_empty(), "left in partition {partition}: {:?}", owned.queues);
        }
        (0..PARTITIONS as u32).for_each(|partition| self.rig.pool.remove(partition));
        self.rig.assert_empty();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_of_events_breaks_a_key_s_order_or_leaves_anything_behind(steps in vec(step(), 1..80)) {
        let mut judge = Judge::new();
        (0..PARTITIONS as u32).for_each(|partition| judge.open(partition, None));
        steps.into_iter().for_each(|step| judge.step(step));
        judge.settle();
    }
}
