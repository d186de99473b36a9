//! One member after another.

use super::*;
use crate::model::Error;
use crate::runtime::Mutex;
use crate::toolkit::coordinated::reconnect::ReconnectingMember;

type Listeners = Arc<Mutex<Vec<RebalanceListener<Fake>>>>;

/// Members with threads of their own on one broker, and the listeners that were made.
fn renewed(broker: &Arc<Broker>) -> (ReconnectingMember<Fake>, Listeners) {
    let (broker, listeners) = (Arc::clone(broker), Listeners::default());
    let made = Arc::clone(&listeners);
    let make = move |listener: RebalanceListener<Fake>| {
        listener.assigned(&[]);
        made.lock().push(listener.clone());
        Ok(broker.client(listener))
    };
    (ReconnectingMember::join(move || Member::join(ask(), &make)).unwrap(), listeners)
}

fn over(kind: ErrorKind) -> [Polled<fake::Record>; 1] {
    [Polled::Over(Error::new(kind, "over"))]
}

async fn given(
    member: &ReconnectingMember<Fake>,
    listener: &RebalanceListener<Fake>,
    partitions: &[u32],
) -> Vec<Assignment> {
    listener.assigned(partitions);
    let GroupEvent::Assigned(given) = member.next().await.unwrap() else { panic!("nothing was given") };
    given
}

#[tokio::test]
async fn the_next_member_has_what_the_one_before_owned_only_when_it_is_given_it() {
    let (broker, _sent, _answers) = Broker::new();
    let (member, listeners) = renewed(&broker);
    let first = listeners.lock()[0].clone();
    let before = given(&member, &first, &[0, 1]).await;
    member.release(1).await.unwrap();
    broker.comes(over(ErrorKind::Unavailable));
    assert_eq!(lost(member.next().await.unwrap()), [0]);
    let second = listeners.lock()[1].clone();
    assert!(second.state().held.is_empty() && listeners.lock().len() == 2);
    let after = given(&member, &second, &[0]).await;
    assert_eq!(after[0].partition, 0);
    // The old member leaves by itself.
    while before.iter().any(|given| given.lease.is_valid()) || broker.dropped.lock().unwrap().is_none() {
        yield_now().await;
    }
    broker.comes(over(ErrorKind::PermissionDenied));
    assert_eq!(member.next().await.unwrap_err().kind(), ErrorKind::PermissionDenied, "another would not get further");
}

#[tokio::test]
async fn nobody_takes_the_place_of_a_member_that_was_made_to_leave() {
    let (broker, _sent, _answers) = Broker::new();
    let (member, listeners) = renewed(&broker);
    member.leave().await.unwrap();
    listeners.lock()[0]
        .hand(crate::toolkit::coordinated::rebalance::MemberItem::Over(Error::new(ErrorKind::Unavailable, "over")));
    assert_eq!(member.next().await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(listeners.lock().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_the_coordinator_refuses_for_now_is_told_and_the_member_stays() {
    let mut rig = Rig::new();
    let full = || Polled::Refused(Error::new(ErrorKind::Unavailable, "the group is full"));
    for age in [0, 5, 7, 10, 11] {
        rig.broker.comes([full()]);
        rig.turn();
        if [5, 10].contains(&age) {
            let GroupEvent::Waiting { partition: None, age: told, error } = rig.event().await else { panic!("{age}") };
            assert_eq!((told.as_secs(), error.message()), (age, "the group is full"));
        }
        rig.silent();
        let next = [5, 7, 10, 11, 12].into_iter().find(|next| *next > age).unwrap();
        advance(Duration::from_secs(next - age)).await;
    }
}
