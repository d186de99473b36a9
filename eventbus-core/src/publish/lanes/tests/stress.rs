//! Threads that publish at once, with every kind of answer from threads of the backend.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::*;
use crate::backend::{Fate, Pipelining};
use crate::model::Error;

const THREADS: usize = 4;
const KEYS: usize = 25;
const EACH: usize = 40;

/// Answers as a broker of this kind does: in order, without a hole, each copy once.
fn answer(fake: &Fake, pipelining: Pipelining, step: u64) {
    let Some(id) = fake.held().first().cloned() else { return thread::yield_now() };
    match step % 11 {
        0 if pipelining == Pipelining::OnePerKey => fake.lose_answer(&id),
        1 if pipelining == Pipelining::OnePerKey => fake.not_stored(&id),
        2 if pipelining == Pipelining::OnePerKey => fake.lose(&id),
        3 if pipelining == Pipelining::PerPartition => cut(fake),
        _ => fake.store(&id),
    }
}

/// Cuts a connection: everything under way comes back. Nothing of it was stored, and every other ticket is told so.
fn cut(fake: &Fake) {
    let held: Vec<_> = fake.state().held.drain(..).collect();
    for (which, (_, ticket)) in held.into_iter().enumerate() {
        let error = Error::new(ErrorKind::Unavailable, "cut");
        ticket.tell(if which % 2 == 0 { Fate::NotStored(error) } else { Fate::Unknown(error) });
    }
}

/// Publishes the keys of one thread. Every key has one publishing thread, so its order of calls is known.
fn publish_all(lanes: &Arc<Lanes>, thread: usize) -> Vec<crate::Publishing> {
    let key = |k: usize| format!("{thread}-{k}");
    (0..EACH)
        .flat_map(|n| (0..KEYS).map(move |k| (k, n)))
        .map(|(k, n)| lanes.publish(TOPIC, envelope(&key(k), &format!("{} {n:03}", key(k)))))
        .collect()
}

#[test]
fn threads_that_publish_and_threads_that_answer_keep_every_keys_order() {
    for pipelining in BOTH {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let mut plan = Plan::new(pipelining);
        plan.config.budget_envelopes = 400;
        plan.config.retry_first = std::time::Duration::from_micros(50);
        plan.config.retry_max = std::time::Duration::from_micros(200);
        plan.fake.spec = plan.fake.spec.partitions(3);
        plan.fake.capabilities.in_flight = 64;
        let world = runtime.block_on(plan.start());
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let publishers: Vec<_> = (0..THREADS)
                .map(|thread| {
                    scope.spawn({
                        let lanes = &world.lanes;
                        move || publish_all(lanes, thread)
                    })
                })
                .collect();
            // On a pipelining backend one thread fixes places and tells fates, as the interface demands.
            let answerers = if pipelining == Pipelining::OnePerKey { 2 } else { 1 };
            for which in 0..answerers {
                let (fake, over) = (&world.fake, &over);
                scope.spawn(move || {
                    let mut step = which;
                    while !over.load(Ordering::Relaxed) {
                        answer_if_alone(fake, pipelining, &mut step);
                    }
                });
            }
            runtime.block_on(async {
                for publisher in publishers {
                    for publishing in publisher.join().unwrap() {
                        publishing.await.unwrap().await.unwrap();
                    }
                }
            });
            over.store(true, Ordering::Relaxed);
        });
        check(&world);
        assert_eq!(world.lanes.pending(), 0);
    }
}

/// Answers under a lock: two threads could pick the same submission, and one of them would find it gone.
fn answer_if_alone(fake: &Fake, pipelining: Pipelining, step: &mut u64) {
    *step += 1;
    let lock = fake.answering.lock().unwrap();
    answer(fake, pipelining, *step);
    drop(lock);
}

fn check(world: &World) {
    let mut of_key = BTreeMap::<String, Vec<String>>::new();
    for stored in &world.fake.state().log {
        of_key.entry(stored.key.clone().unwrap()).or_default().push(stored.id.clone());
    }
    assert_eq!(of_key.len(), THREADS * KEYS);
    for (key, ids) in of_key {
        let expected: Vec<String> = (0..EACH).map(|n| format!("{key} {n:03}")).collect();
        assert_eq!(ids, expected);
    }
    let told = world.told.take();
    assert_eq!(told.len(), THREADS * KEYS * EACH);
    let mut last = BTreeMap::<String, String>::new();
    for line in told {
        let key = line.split(' ').next().unwrap().to_string();
        let before = last.insert(key, line.clone());
        assert!(before.is_none_or(|before| before < line), "results are told in the key's order");
    }
}
