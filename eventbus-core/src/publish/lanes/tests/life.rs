//! S7 for publishers: every publish is resolved, one way or the other, whatever ends.

use std::time::Duration;

use super::*;
use crate::backend::Pipelining;

#[tokio::test(start_paused = true)]
async fn closing_waits_for_what_is_pending_and_takes_no_more() {
    let world = start(Pipelining::OnePerKey).await;
    let mut a = world.confirm("k", "a");
    let lanes = world.lanes.clone();
    let closing = tokio::spawn(async move { lanes.close(Duration::from_secs(9)).await });
    settle().await;
    assert_eq!(world.fails("k", "late").kind(), ErrorKind::Closed);
    let stamp = crate::Stamp::new(crate::ProducerId::new(1), 1);
    let mut letter = world.lanes.publish_reserved(&TOPIC.parse().unwrap(), stamp, envelope("k", "letter"));
    world.fake.store_all();
    assert_eq!(closing.await.unwrap(), 0);
    assert!(now(&mut a).unwrap().is_ok() && now(&mut letter).unwrap().is_ok());
    let mut too_late = world.lanes.publish_reserved(&TOPIC.parse().unwrap(), stamp, envelope("k", "x"));
    assert_eq!(kind_of(&mut too_late), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn at_the_deadline_what_may_be_stored_is_unknown_and_what_is_not_is_closed() {
    for pipelining in BOTH {
        let world = start(pipelining).await;
        let (mut sent, mut queued) = (world.confirm("k", "sent"), world.confirm("k", "queued"));
        let mut lost = world.confirm("other", "lost");
        world.fake.lose("lost");
        let mut failed = world.confirm("third", "failed");
        world.fake.not_stored("failed");
        assert_eq!(world.lanes.close(Duration::from_millis(1)).await, 4);
        assert_eq!((kind_of(&mut sent), kind_of(&mut lost)), (ErrorKind::Unknown, ErrorKind::Unknown));
        assert_eq!(kind_of(&mut failed), ErrorKind::Closed);
        let waited = if pipelining == Pipelining::OnePerKey { ErrorKind::Closed } else { ErrorKind::Unknown };
        assert_eq!(kind_of(&mut queued), waited);
        assert_eq!(world.told.take().len(), 4);
        world.fake.store_all();
        assert_eq!((world.told.take().len(), world.lanes.pending()), (0, 0), "answers that come now change nothing");
        assert_eq!(world.lanes.close(Duration::ZERO).await, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_the_lanes_resolves_everything_also_what_waits_for_room_or_the_topic() {
    let mut plan = Plan::new(Pipelining::OnePerKey);
    plan.config.budget_envelopes = 2;
    plan.config.share = 1;
    let (World { lanes, fake, told }, driver) = plan.build();
    let mut futures: Vec<_> = (0..3).map(|i| lanes.publish(TOPIC, envelope(&i.to_string(), &i.to_string()))).collect();
    let mut admitted = now(&mut futures[0]).unwrap().unwrap();
    drop(lanes);
    assert_eq!(kind_of(&mut admitted), ErrorKind::Closed);
    assert_eq!(now(&mut futures[2]).unwrap().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(told.take().len(), 3);
    tokio::time::timeout(Duration::from_secs(1), driver.run()).await.expect("the driver ends with the lanes");
    assert_eq!((fake.held().len(), Arc::strong_count(&fake)), (0, 2), "only the futures keep the topic");
    drop((futures, admitted));
    assert_eq!(Arc::strong_count(&fake), 1, "nothing keeps the lanes");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_driver_closes_the_lanes() {
    let (world, driver) = Plan::new(Pipelining::OnePerKey).build();
    let mut a = world.confirm("k", "a");
    drop(driver);
    assert_eq!(kind_of(&mut a), ErrorKind::Closed);
    assert_eq!(world.fails("k", "b").kind(), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn futures_dropped_at_every_stage_withdraw_nothing() {
    for pipelining in BOTH {
        let mut plan = Plan::new(pipelining);
        plan.config.budget_envelopes = 2;
        plan.config.share = 1;
        let world = plan.start().await;
        drop(world.publish("k", "never polled"));
        drop(world.confirm("k", "admitted"));
        let mut waiting = world.publish("k", "waiting");
        assert!(now(&mut waiting).is_none());
        drop(waiting);
        let mut batch = world.lanes.publish_batch(TOPIC, vec![envelope("k", "batch"), envelope("k", "batch 2")]);
        assert!(now(&mut batch).is_none());
        drop(batch);
        world.fake.store_all();
        assert_eq!(world.fake.stored(), ["never polled", "admitted", "waiting", "batch", "batch 2"]);
        assert_eq!(world.told.take().len(), 5);
    }
}

#[tokio::test(start_paused = true)]
async fn confirmations_wake_their_tasks_in_whatever_order_they_are_awaited() {
    let world = start(Pipelining::OnePerKey).await;
    let kept: Vec<_> = (0..10).map(|i| world.confirm("k", &i.to_string())).collect();
    let waiter = tokio::spawn(async move {
        for confirmation in kept.into_iter().rev() {
            confirmation.confirmed().await.unwrap();
        }
    });
    settle().await;
    world.fake.store_all();
    waiter.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn invalid_names_fail_before_anything_and_are_not_told() {
    let world = start(Pipelining::OnePerKey).await;
    let error = now(world.lanes.publish("a/b", envelope("k", "a"))).unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidName);
    assert!(now(world.lanes.publish_batch("", vec![envelope("k", "a")])).unwrap().is_err());
    assert!(world.told.take().is_empty());
}

#[tokio::test(start_paused = true)]
async fn keys_that_have_gone_leave_no_memory_behind() {
    let world = start(Pipelining::OnePerKey).await;
    world.fake.state().mode = fake::Mode::StoreAtOnce;
    for i in 0..20_000 {
        drop(world.publish(&format!("key-{i}"), "x"));
    }
    let topic = world.lanes.inner.topic(TOPIC).unwrap();
    for shard in 0..crate::publish::lanes::topic::SHARDS {
        let shard = topic.lock(shard);
        assert!(shard.queues.lanes.is_empty() && shard.queues.envelopes.is_empty());
        assert!(shard.queues.lanes.capacity() <= 256 && shard.queues.envelopes.capacity() <= 256);
    }
}
