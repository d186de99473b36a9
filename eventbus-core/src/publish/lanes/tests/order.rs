//! P1: the order of the calls is kept, whatever comes back and in which order.

use super::*;
use crate::backend::Pipelining;

#[tokio::test(start_paused = true)]
async fn one_per_key_never_has_two_of_a_key_outstanding_and_keys_do_not_wait_for_each_other() {
    let world = start(Pipelining::OnePerKey).await;
    let _keep: Vec<_> = ["a1", "a2", "b1", "b2"].map(|id| world.confirm(&id[..1], id)).into();
    assert_eq!(world.fake.held(), ["a1", "b1"]);
    world.fake.store("b1");
    assert_eq!(world.fake.held(), ["a1", "b2"]);
    world.fake.store("a1");
    assert_eq!(world.fake.held(), ["b2", "a2"]);
}

#[tokio::test(start_paused = true)]
async fn a_pipelined_partition_is_given_everything_in_call_order() {
    let world = start(Pipelining::PerPartition).await;
    let ids: Vec<String> = (0..100).map(|i| format!("{}{i}", i % 7)).collect();
    let kept: Vec<_> = ids.iter().map(|id| world.confirm(&id[..1], id)).collect();
    assert_eq!(world.fake.held(), ids);
    drop(kept);
}

#[tokio::test(start_paused = true)]
async fn what_comes_back_is_sent_again_before_anything_behind_it() {
    for pipelining in BOTH {
        let world = start(pipelining).await;
        let (mut a, mut b) = (world.confirm("k", "a"), world.confirm("k", "b"));
        world.fake.not_stored("a");
        let mut c = world.confirm("k", "c");
        if pipelining == Pipelining::PerPartition {
            assert_eq!(world.fake.held(), ["b"], "nothing goes out before all is back");
            world.fake.lose("b");
        }
        assert_eq!(world.fake.held(), [""; 0], "not before the back-off");
        rest().await;
        for id in ["a", "b", "c"] {
            assert_eq!(world.fake.held().first().map(String::as_str), Some(id));
            world.fake.store(id);
        }
        assert_eq!(world.fake.stored(), ["a", "b", "c"]);
        assert!([&mut a, &mut b, &mut c].into_iter().all(|one| now(one).unwrap().is_ok()));
        assert_eq!(world.told.take(), ["a stored", "b stored", "c stored"]);
    }
}

#[tokio::test(start_paused = true)]
async fn answers_out_of_order_are_told_in_the_keys_order() {
    let world = start(Pipelining::PerPartition).await;
    let (mut a, mut b) = (world.confirm("k", "a"), world.confirm("k", "b"));
    world.fake.store("b");
    assert!(now(&mut b).is_none() && world.told.take().is_empty());
    world.fake.store("a");
    assert!(now(&mut a).unwrap().is_ok() && now(&mut b).unwrap().is_ok());
    assert_eq!(world.told.take(), ["a stored", "b stored"]);
}

#[tokio::test(start_paused = true)]
async fn a_submission_that_crosses_a_fate_no_longer_stands() {
    let world = start(Pipelining::PerPartition).await;
    let _keep = (world.confirm("k", "a"), world.confirm("k", "b"), world.confirm("other", "o"));
    let stands = |id: &str| {
        let state = world.fake.state();
        let index = state.held.iter().position(|(record, _)| record.envelope.id() == id).unwrap();
        state.held[index].1.stands()
    };
    assert!(stands("a") && stands("b") && stands("o"));
    world.fake.not_stored("a");
    assert!(!stands("b"), "it would be stored behind a hole");
    assert!(stands("o"));
}

#[tokio::test(start_paused = true)]
async fn keyless_ones_are_related_to_nothing_and_go_round_the_partitions() {
    let mut plan = Plan::new(Pipelining::OnePerKey);
    plan.fake.spec = plan.fake.spec.partitions(4);
    let world = plan.start().await;
    for i in 0..8 {
        drop(world.lanes.publish(TOPIC, keyless(&i.to_string())));
    }
    let partitions: Vec<u32> = world.fake.state().held.iter().map(|(record, _)| record.partition).collect();
    assert_eq!(partitions, [0, 1, 2, 3, 0, 1, 2, 3]);
    world.fake.refuse("3");
    world.fake.store_all();
    assert_eq!(world.fake.stored().len(), 7);
}

#[tokio::test(start_paused = true)]
async fn a_key_is_sent_to_the_partition_of_its_hash() {
    let mut plan = Plan::new(Pipelining::OnePerKey);
    plan.fake.spec = plan.fake.spec.partitions(16);
    let world = plan.start().await;
    for i in 0..50 {
        drop(world.publish(&format!("key-{i}"), "x"));
    }
    for (record, _) in &world.fake.state().held {
        assert_eq!(record.partition, record.envelope.key().unwrap().partition(16));
    }
}

#[tokio::test(start_paused = true)]
async fn places_are_taken_before_the_topic_is_known_and_kept_in_order() {
    let (world, driver) = Plan::new(Pipelining::PerPartition).build();
    world.fake.state().describe_errors.push_back(crate::Error::new(ErrorKind::Unavailable, "not now"));
    let _keep: Vec<_> = ["a", "b", "c"].map(|id| world.confirm("k", id)).into();
    assert_eq!(world.fake.held(), [""; 0]);
    tokio::spawn(driver.run());
    rest().await;
    assert_eq!(world.fake.held(), ["a", "b", "c"]);
    assert_eq!(world.fake.state().described, 2);
}

#[tokio::test(start_paused = true)]
async fn answers_within_the_call_of_submit_do_not_deadlock_or_reorder() {
    for pipelining in BOTH {
        let world = start(pipelining).await;
        world.fake.state().mode = fake::Mode::StoreAtOnce;
        let ids: Vec<String> = (0..50).map(|i| i.to_string()).collect();
        let mut all: Vec<_> = ids.iter().map(|id| world.confirm("k", id)).collect();
        assert!(all.iter_mut().all(|one| now(one).unwrap().is_ok()));
        assert_eq!(world.fake.stored(), ids);
        assert_eq!(world.lanes.pending(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_publishes_the_same_key_does_not_deadlock() {
    let fake = Arc::new(Fake::new(Pipelining::OnePerKey));
    fake.state().mode = fake::Mode::StoreAtOnce;
    let cell: Arc<std::sync::OnceLock<Arc<Lanes>>> = Arc::default();
    let again = cell.clone();
    let hook = move |event: &BusEvent<'_>| {
        if let BusEvent::Published { envelope, .. } = event
            && envelope.id() == "first"
        {
            drop(again.get().unwrap().publish(TOPIC, envelope_of("second")));
        }
    };
    fn envelope_of(id: &str) -> Envelope {
        envelope("k", id)
    }
    let hooks = Hooks::new(vec![Arc::new(hook)]);
    let (lanes, driver) = Lanes::new(fake.clone(), Arc::new(TestEnv::default()), PublishConfig::default(), hooks);
    let _ = cell.set(lanes.clone());
    tokio::spawn(driver.run());
    lanes.topic_ready(&fake.description()).unwrap();
    drop(lanes.publish(TOPIC, envelope("k", "first")));
    assert_eq!(fake.stored(), ["first", "second"]);
}

#[tokio::test(start_paused = true)]
async fn stamps_rise_along_every_key_and_name_one_producer() {
    let world = start(Pipelining::PerPartition).await;
    world.fake.state().mode = fake::Mode::StoreAtOnce;
    let envelopes: Vec<_> = (0..9).map(|i| envelope(&(i % 3).to_string(), &i.to_string())).collect();
    drop(world.lanes.publish_batch(TOPIC, envelopes));
    let _keep = world.confirm("0", "last");
    let state = world.fake.state();
    for key in ["0", "1", "2"] {
        let of_key: Vec<_> = state.log.iter().filter(|s| s.key.as_deref() == Some(key)).map(|s| s.stamp).collect();
        assert!(of_key.is_sorted_by(|a, b| a < b && a.producer == world.lanes.producer()), "{of_key:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn permits_bound_what_is_outstanding_and_go_round_the_keys() {
    let mut plan = Plan::new(Pipelining::PerPartition);
    plan.fake.capabilities.in_flight = 3;
    plan.config.share = 1;
    let world = plan.start().await;
    let _keep: Vec<_> = ["a1", "a2", "a3", "b1", "c1"].map(|id| world.confirm(&id[..1], id)).into();
    // One permit of the three is kept for what the bus itself writes.
    assert_eq!(world.fake.held(), ["a1", "a2"]);
    world.fake.store("a1");
    assert_eq!(world.fake.held(), ["a2", "a3"]);
    world.fake.store("a2");
    assert_eq!(world.fake.held(), ["a3", "b1"]);
    let stamp = crate::Stamp::new(crate::ProducerId::new(7), 7);
    let mut letter = world.lanes.publish_reserved(&TOPIC.parse().unwrap(), stamp, envelope("a", "letter"));
    assert_eq!(world.fake.held(), ["a3", "b1", "letter"]);
    world.fake.store("letter");
    assert_eq!(now(&mut letter).unwrap().unwrap().stamp, stamp);
    world.fake.store_all();
    assert_eq!(world.fake.stored().len(), 6);
}
