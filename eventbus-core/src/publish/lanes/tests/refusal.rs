//! P2: a refusal fails everything behind it and seals the key until the refusal was seen.

use super::*;
use crate::backend::Pipelining;
use crate::model::{AfterRefusal, Error, Withdrawal};

fn names(error: &Error) -> &str {
    &error.refusal().expect("names nothing").id
}

#[tokio::test(start_paused = true)]
async fn a_refusal_fails_the_suffix_and_seals_the_key_until_it_was_seen() {
    for pipelining in BOTH {
        let world = start(pipelining).await;
        let [mut a, mut b, mut c, other] =
            ["a", "b", "c", "o"].map(|id| world.confirm(if id == "o" { "other" } else { "k" }, id));
        world.fake.store("a");
        world.fake.refuse("b");
        if pipelining == Pipelining::PerPartition {
            world.fake.not_stored("c");
        }
        world.fake.store("o");
        assert_eq!(world.told.take().len(), 5);
        assert!(now(&mut a).unwrap().is_ok() && now(other).unwrap().is_ok());

        // Published before anybody saw the refusal: never stored, whenever the refusal is seen.
        let mut early = world.publish("k", "early");
        let cascaded = now(&mut c).unwrap().unwrap_err();
        assert_eq!((cascaded.kind(), names(&cascaded)), (ErrorKind::Cascaded, "b"));
        let sealed = now(&mut early).unwrap().unwrap_err();
        assert_eq!((sealed.kind(), names(&sealed)), (ErrorKind::KeySealed, "b"));

        let _late = world.confirm("k", "late");
        world.fake.store("late");
        assert_eq!(now(&mut b).unwrap().unwrap_err().kind(), ErrorKind::Refused);
        assert_eq!(world.fake.stored(), ["a", "o", "late"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_nobody_saw_keeps_the_key_sealed_until_resumed() {
    let world = start(Pipelining::OnePerKey).await;
    drop(world.publish("k", "n"));
    world.fake.refuse("n");
    drop(world.publish("k", "unseen"));
    drop(world.publish("k", "unseen too"));
    assert_eq!(world.told.take(), ["seal k", "n refused", "unseen key_sealed", "unseen too key_sealed"]);
    world.lanes.resume(TOPIC, Some(&key("k"))).unwrap();
    let _keep = world.confirm("k", "resumed");
    assert_eq!(world.fake.held(), ["resumed"]);
}

#[tokio::test(start_paused = true)]
async fn the_error_of_a_sealed_key_unseals_it_once_it_was_returned() {
    let world = start(Pipelining::OnePerKey).await;
    drop(world.publish("k", "n"));
    world.fake.refuse("n");
    assert_eq!(names(&world.fails("k", "x")), "n");
    let _keep = world.confirm("k", "y");
}

#[tokio::test(start_paused = true)]
async fn policies_of_the_topic_decide_what_unseals() {
    for policy in [AfterRefusal::SealUntilResumed, AfterRefusal::Continue] {
        let mut plan = Plan::new(Pipelining::OnePerKey);
        plan.fake.spec = plan.fake.spec.after_refusal(policy);
        let world = plan.start().await;
        let (mut n, mut behind) = (world.confirm("k", "n"), world.confirm("k", "behind"));
        world.fake.refuse("n");
        assert_eq!(kind_of(&mut behind), ErrorKind::Cascaded, "also where the key is not sealed");
        assert_eq!(kind_of(&mut n), ErrorKind::Refused);
        if policy == AfterRefusal::SealUntilResumed {
            assert_eq!(world.fails("k", "x").kind(), ErrorKind::KeySealed);
            assert_eq!(world.fails("k", "y").kind(), ErrorKind::KeySealed);
            world.lanes.resume(TOPIC, Some(&key("k"))).unwrap();
        }
        let _keep = world.confirm("k", "z");
        assert_eq!(world.fake.held(), ["z"]);
    }
}

#[tokio::test(start_paused = true)]
async fn refused_at_the_call_seals_by_itself_and_spares_what_is_queued() {
    let mut plan = Plan::new(Pipelining::OnePerKey);
    plan.fake.capabilities.max_record_bytes = Some(1_000);
    let world = plan.start().await;
    let (mut a, mut b) = (world.confirm("k", "a"), world.confirm("k", "b"));
    let big = Envelope::builder("T", "/").id("big").key("k").payload(vec![0; 2_000]).build().unwrap();
    let mut unseen = world.lanes.publish(TOPIC, big);
    let mut sealed = world.publish("k", "c");
    world.fake.store_all();
    assert!(now(&mut a).unwrap().is_ok() && now(&mut b).unwrap().is_ok());
    let error = now(&mut unseen).unwrap().unwrap_err();
    assert_eq!((error.kind(), names(&error)), (ErrorKind::TooLarge, "big"));
    assert_eq!(names(&now(&mut sealed).unwrap().unwrap_err()), "big");
    let _keep = world.confirm("k", "d");
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_was_raised_refuses_for_ever() {
    let plan = Plan::new(Pipelining::OnePerKey);
    plan.fake.state().limit = Some(1_000);
    let world = plan.start().await;
    let big = |id: &str| Envelope::builder("T", "/").id(id).payload(vec![0; 2_000]).build().unwrap();
    let described = world.fake.state().described;
    let refused = now(world.lanes.publish(TOPIC, big("a"))).unwrap().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::TooLarge);
    world.fake.state().limit = Some(10_000);
    settle().await;
    assert!(now(world.lanes.publish(TOPIC, big("b"))).unwrap().is_ok(), "the limit was raised");
    assert_eq!(world.fake.state().described, described + 1, "asked for more than once");
}

#[tokio::test(start_paused = true)]
async fn too_large_for_a_topic_not_known_at_the_call_is_refused_in_its_place() {
    let mut plan = Plan::new(Pipelining::PerPartition);
    plan.fake.capabilities.max_record_bytes = Some(1_000);
    let (world, driver) = plan.build();
    let big = Envelope::builder("T", "/").id("big").key("k").payload(vec![0; 2_000]).build().unwrap();
    let mut a = world.confirm("k", "a");
    let mut big = now(world.lanes.publish(TOPIC, big)).unwrap().unwrap();
    let mut c = world.confirm("k", "c");
    tokio::spawn(driver.run());
    settle().await;
    world.fake.store("a");
    assert!(now(&mut a).unwrap().is_ok());
    assert_eq!((kind_of(&mut big), kind_of(&mut c)), (ErrorKind::TooLarge, ErrorKind::Cascaded));
    assert_eq!(world.fake.stored(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_resume_unseals_what_was_refused_before_it_though_that_is_told_later() {
    let mut plan = Plan::new(Pipelining::PerPartition);
    plan.fake.capabilities.max_record_bytes = Some(1_000);
    let (world, driver) = plan.build();
    let big = Envelope::builder("T", "/").id("big").key("k").payload(vec![0; 2_000]).build().unwrap();
    let mut a = world.confirm("k", "a");
    let mut big = now(world.lanes.publish(TOPIC, big)).unwrap().unwrap();
    let mut c = world.confirm("k", "c");
    // Nothing is refused yet: this resume has no effect on later refusals.
    world.lanes.resume(TOPIC, Some(&key("k"))).unwrap();
    tokio::spawn(driver.run());
    settle().await;
    let mut sealed = world.publish("k", "d");
    assert_eq!(world.told.take(), ["seal k", "d key_sealed"]);
    world.lanes.resume(TOPIC, Some(&key("k"))).unwrap();
    let mut e = world.confirm("k", "e");
    assert!(now(&mut big).is_none(), "told in the key's order, and the first one is not known yet");
    world.fake.store("a");
    world.fake.store("e");
    assert!(now(&mut a).unwrap().is_ok() && now(&mut e).unwrap().is_ok());
    assert_eq!((kind_of(&mut big), kind_of(&mut c)), (ErrorKind::TooLarge, ErrorKind::Cascaded));
    assert_eq!(names(&now(&mut sealed).unwrap().unwrap_err()), "big");
    assert_eq!(world.fake.stored(), ["a", "e"]);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_topic_refuses_what_waits_and_is_asked_for_again() {
    let (world, driver) = Plan::new(Pipelining::OnePerKey).build();
    world.fake.state().describe_errors.push_back(Error::new(ErrorKind::UnknownTopic, "no such topic"));
    let (mut a, mut b) = (world.confirm("k", "a"), world.confirm("k", "b"));
    tokio::spawn(driver.run());
    settle().await;
    assert_eq!((kind_of(&mut a), kind_of(&mut b)), (ErrorKind::UnknownTopic, ErrorKind::Cascaded));
    let _keep = world.confirm("k", "c");
    settle().await;
    assert_eq!(world.fake.held(), ["c"]);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_topic_is_described_again_before_more_goes_out() {
    let world = start(Pipelining::OnePerKey).await;
    world.lanes.forget_topic(&TOPIC.parse().unwrap());
    let _keep = world.confirm("k", "a");
    assert_eq!(world.fake.held(), [""; 0]);
    settle().await;
    assert_eq!((world.fake.held().len(), world.fake.state().described), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_later_one_stored_behind_a_refusal_is_told_as_stored() {
    let mut plan = Plan::new(Pipelining::PerPartition);
    plan.fake.trusts = true;
    let world = plan.start().await;
    let (mut a, mut b) = (world.confirm("k", "a"), world.confirm("k", "b"));
    world.fake.refuse("a");
    world.fake.store("b");
    assert_eq!(kind_of(&mut a), ErrorKind::Refused);
    assert!(now(&mut b).unwrap().is_ok(), "the log has it, whatever the backend promised");
}

#[tokio::test(start_paused = true)]
async fn past_the_limit_of_sealed_keys_the_topic_is_sealed_and_can_be_resumed() {
    let mut plan = Plan::new(Pipelining::OnePerKey);
    plan.config.sealed_limit = 2;
    let world = plan.start().await;
    for id in ["a", "b", "c"] {
        drop(world.publish(id, id));
        world.fake.refuse(id);
    }
    assert!(world.told.take().contains(&"seal topic".to_string()));
    let mut unseen = world.publish("innocent", "x");
    drop(world.lanes.publish(TOPIC, keyless("keyless")));
    assert_eq!(world.fake.held(), ["keyless"]);
    world.lanes.resume(TOPIC, None).unwrap();
    let _keep = world.confirm("innocent", "y");
    assert_eq!(now(&mut unseen).unwrap().unwrap_err().kind(), ErrorKind::KeySealed);
    assert_eq!(names(&world.fails("a", "z")), "a", "remembered keys stay sealed");
}

#[tokio::test(start_paused = true)]
async fn withdrawing_comes_in_time_only_before_the_backend_has_it_and_seals_nothing() {
    let world = start(Pipelining::OnePerKey).await;
    let (a, mut b, mut c) = (world.confirm("k", "a"), world.confirm("k", "b"), world.confirm("k", "c"));
    assert_eq!(a.cancel(), Withdrawal::TooLate);
    assert_eq!(b.cancel(), Withdrawal::Withdrawn);
    assert_eq!(b.cancel(), Withdrawal::TooLate);
    assert_eq!(kind_of(&mut b), ErrorKind::Withdrawn);
    world.fake.store("a");
    world.fake.store("c");
    assert!(now(&mut c).unwrap().is_ok());
    assert_eq!(world.fake.stored(), ["a", "c"]);
    assert_eq!(world.lanes.pending(), 0);
}

#[tokio::test(start_paused = true)]
async fn dead_letters_are_neither_sealed_nor_seal_and_overtake_their_keys_queue() {
    let world = start(Pipelining::OnePerKey).await;
    drop(world.publish("k", "n"));
    world.fake.refuse("n");
    let stamp = |number| crate::Stamp::new(crate::ProducerId::new(9), number);
    let topic = TOPIC.parse().unwrap();
    let mut first = world.lanes.publish_reserved(&topic, stamp(1), envelope("k", "letter"));
    world.fake.not_stored("letter");
    rest().await;
    world.fake.store("letter");
    assert_eq!(now(&mut first).unwrap().unwrap().stamp, stamp(1));
    let mut second = world.lanes.publish_reserved(&topic, stamp(2), envelope("other", "refused"));
    world.fake.refuse("refused");
    assert_eq!(kind_of(&mut second), ErrorKind::Refused);
    let _keep = world.confirm("other", "fine");
}
