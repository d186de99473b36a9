//! Schedules of threads over the shipped lanes, explored at every lock and atomic. Run with `cargo test -p
//! eventbus-core --features shuttle --lib lanes::tests::schedules`.

use shuttle::thread;

use super::*;
use crate::backend::{Fate, Pipelining};
use crate::model::{Error, Withdrawal};

const SCHEDULES: usize = 5_000;

/// Builds a world. Its driver is not run, since nothing in these tests needs it.
fn world(pipelining: Pipelining, change: impl FnOnce(&mut Plan)) -> (Arc<World>, LanesDriver) {
    let mut plan = Plan::new(pipelining);
    change(&mut plan);
    let (world, driver) = plan.build();
    world.lanes.topic_ready(&world.fake.description()).unwrap();
    (Arc::new(world), driver)
}

/// Answers `count` submissions, the oldest first.
fn answer(world: &World, mut count: usize) {
    while count > 0 {
        match world.fake.held().first() {
            Some(id) => {
                world.fake.store(id);
                count -= 1;
            }
            None => thread::yield_now(),
        }
    }
}

fn in_order(world: &World, key: &str) -> bool {
    let state = world.fake.state();
    let stamps = state.log.iter().filter(|stored| stored.key.as_deref() == Some(key)).map(|stored| stored.stamp.number);
    stamps.is_sorted()
}

#[test]
fn two_publishers_of_one_key_and_an_answerer_with_little_room() {
    for pipelining in BOTH {
        shuttle::check_random(
            move || {
                let (world, _driver) = world(pipelining, |plan| {
                    plan.config.budget_envelopes = 2;
                    plan.config.share = 1;
                    plan.fake.capabilities.in_flight = 2;
                });
                let publishers: Vec<_> = ["x", "y"]
                    .map(|own| {
                        let world = world.clone();
                        thread::spawn(move || {
                            drop(world.publish("k", &format!("{own}1")));
                            drop(world.publish(own, &format!("{own}2")));
                            drop(world.publish("k", &format!("{own}3")));
                        })
                    })
                    .into();
                answer(&world, 6);
                publishers.into_iter().for_each(|publisher| publisher.join().unwrap());
                assert!(in_order(&world, "k"), "{:?}", world.fake.stored());
                assert_eq!((world.lanes.pending(), world.told.take().len()), (0, 6));
            },
            SCHEDULES,
        );
    }
}

#[test]
fn a_refusal_meets_publishes_of_its_key() {
    shuttle::check_random(
        || {
            let (world, _driver) = world(Pipelining::PerPartition, |_| {});
            drop(world.publish("k", "n"));
            let publisher = {
                let world = world.clone();
                thread::spawn(move || ["a", "b"].map(|id| drop(world.publish("k", id))))
            };
            world.fake.refuse("n");
            publisher.join().unwrap();
            while let Some(id) = world.fake.held().first() {
                world.fake.store(id);
            }
            assert_eq!(world.fake.stored(), [""; 0], "nothing behind an unseen refusal is stored");
            assert_eq!((world.lanes.pending(), world.told.take().len()), (0, 4));
        },
        SCHEDULES,
    );
}

#[test]
fn closing_meets_publishing_answering_and_withdrawing() {
    for pipelining in BOTH {
        shuttle::check_random(
            move || {
                let (world, _driver) = world(pipelining, |plan| plan.config.budget_envelopes = 2);
                let mut first = world.confirm("k", "first");
                let publisher = {
                    let world = world.clone();
                    thread::spawn(move || ["a", "b"].map(|id| world.publish("k", id)))
                };
                let answerer = {
                    let world = world.clone();
                    thread::spawn(move || {
                        let held = world.fake.state().held.pop_front();
                        if let Some((_, ticket)) = held {
                            ticket.tell(Fate::NotStored(Error::new(ErrorKind::Unavailable, "cut")));
                        }
                    })
                };
                world.lanes.inner.end();
                answerer.join().unwrap();
                let [a, mut b] = publisher.join().unwrap();
                assert_eq!(a.cancel(), Withdrawal::TooLate);
                assert!(now(&mut first).unwrap().is_err());
                let ended = match now(&mut b).unwrap() {
                    Ok(mut confirmation) => now(&mut confirmation).unwrap().unwrap_err(),
                    Err(error) => error,
                };
                assert!(matches!(ended.kind(), ErrorKind::Closed | ErrorKind::Unknown));
                assert_eq!((world.lanes.pending(), world.told.take().len()), (0, 3));
            },
            SCHEDULES,
        );
    }
}

#[test]
fn batches_meet_in_several_shards() {
    shuttle::check_random(
        || {
            let (world, _driver) = world(Pipelining::OnePerKey, |plan| plan.config.budget_envelopes = 3);
            let threads: Vec<_> = [["p", "q", "r"], ["r", "q", "p"]]
                .map(|keys| {
                    let world = world.clone();
                    thread::spawn(move || {
                        drop(world.lanes.publish_batch(TOPIC, keys.map(|key| envelope(key, key)).into()));
                    })
                })
                .into();
            answer(&world, 6);
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            assert!(["p", "q", "r"].iter().all(|key| in_order(&world, key)));
            assert_eq!(world.lanes.pending(), 0);
        },
        SCHEDULES,
    );
}
