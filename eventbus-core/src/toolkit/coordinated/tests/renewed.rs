//! One member after another.

use super::*;
use crate::model::Error;
use crate::runtime::Mutex;
use crate::toolkit::coordinated::reconnect::ReconnectingMember;

type Seats = Arc<Mutex<Vec<RebalanceListener<Fake>>>>;

/// Members with threads of their own on one broker, and the listeners that were made.
fn renewed(broker: &Arc<Broker>) -> (ReconnectingMember<Fake>, Seats) {
    let (broker, seats) = (Arc::clone(broker), Seats::default());
    let made = Arc::clone(&seats);
    let make = move |seat: RebalanceListener<Fake>| {
        seat.assigned(&[]);
        made.lock().push(seat.clone());
        Ok(broker.client(seat))
    };
    (ReconnectingMember::join(move || Member::join(ask(), &make)).unwrap(), seats)
}

fn over(kind: ErrorKind) -> [Polled<fake::Record>; 1] {
    [Polled::Over(Error::new(kind, "over"))]
}

async fn given(
    member: &ReconnectingMember<Fake>,
    seat: &RebalanceListener<Fake>,
    partitions: &[u32],
) -> Vec<Assignment> {
    seat.assigned(partitions);
    let GroupEvent::Assigned(given) = member.next().await.unwrap() else { panic!("nothing was given") };
    given
}

#[tokio::test]
async fn the_next_member_has_what_the_one_before_owned_only_when_it_is_given_it() {
    let (broker, _sent, _answers) = Broker::new();
    let (member, seats) = renewed(&broker);
    let first = seats.lock()[0].clone();
    let before = given(&member, &first, &[0, 1]).await;
    member.release(1).await.unwrap();
    broker.comes(over(ErrorKind::Unavailable));
    assert_eq!(lost(member.next().await.unwrap()), [0]);
    let second = seats.lock()[1].clone();
    assert!(second.state().held.is_empty() && seats.lock().len() == 2);
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
    let (member, seats) = renewed(&broker);
    member.leave().await.unwrap();
    seats.lock()[0]
        .hand(crate::toolkit::coordinated::rebalance::MemberItem::Over(Error::new(ErrorKind::Unavailable, "over")));
    assert_eq!(member.next().await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(seats.lock().len(), 1);
}
