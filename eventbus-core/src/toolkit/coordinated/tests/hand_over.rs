//! Partitions that are wanted back, and those that are lost (S5).

use super::*;

#[tokio::test(start_paused = true)]
async fn the_coordinator_is_answered_only_when_all_is_released() {
    let mut rig = Rig::new();
    rig.given(&[0, 1, 2]).await;
    assert_eq!(rig.listener.revoked(&[0, 1], false), Revocation::Later);
    assert_eq!(revoked(rig.event().await), [0, 1]);
    rig.turn();
    rig.listener.release(0);
    rig.turn();
    assert_eq!(rig.broker.said(), [""; 0]);
    rig.listener.release(1);
    rig.turn();
    assert_eq!(rig.broker.said(), ["unassign [0, 1]"]);
    rig.turn();
    rig.silent();
    assert_eq!(rig.broker.said(), [""; 0], "answered once");
}

#[tokio::test(start_paused = true)]
async fn a_hand_over_waits_for_the_commit_under_way() {
    let mut rig = Rig::new();
    rig.given(&[0]).await;
    let (turn, done) = rig.hanging(commit(0, 5, 1).claiming()).await;
    assert_eq!(rig.listener.revoked(&[0], false), Revocation::Later);
    rig.listener.release(0);
    advance(DRAIN + SESSION - Duration::from_millis(1)).await;
    rig.turn();
    assert_eq!(rig.broker.said(), [""; 0]);
    rig.answered(Ok(()), turn).await;
    done.await.unwrap().unwrap();
    rig.turn();
    assert_eq!(rig.broker.said(), ["unassign [0]"]);
}

#[tokio::test(start_paused = true)]
async fn a_commit_of_others_holds_no_hand_over_back() {
    let mut rig = Rig::new();
    rig.given(&[0, 1]).await;
    let (turn, _done) = rig.hanging(commit(1, 5, 1).claiming()).await;
    assert_eq!(rig.listener.revoked(&[0], false), Revocation::Later);
    rig.listener.release(0);
    rig.turn();
    assert_eq!(rig.broker.said(), ["unassign [0]"]);
    rig.answered(Ok(()), turn).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_released_in_time_is_lost() {
    let mut rig = Rig::new();
    let given = rig.given(&[0, 1]).await;
    assert_eq!(kinds(rig.commits(Ok(()), vec![commit(0, 5, 1).claiming(), commit(1, 5, 1).claiming()])), [None; 2]);
    assert_eq!(rig.listener.revoked(&[0, 1], false), Revocation::Later);
    assert_eq!(revoked(rig.event().await), [0, 1]);
    rig.listener.release(1);
    advance(DRAIN - Duration::from_millis(1)).await;
    rig.turn();
    let kept = given.iter().find(|given| given.partition == 0).unwrap();
    assert!(kept.lease.is_valid() && rig.broker.said().is_empty());
    rig.silent();
    advance(Duration::from_millis(1)).await;
    rig.turn();
    assert!(!kept.lease.is_valid());
    assert_eq!(lost(rig.event().await), [0]);
    assert_eq!(rig.broker.said(), ["unassign [0, 1]"]);
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_hangs_longer_than_a_session_is_not_waited_for() {
    let mut rig = Rig::new();
    rig.given(&[0]).await;
    let (turn, _done) = rig.hanging(commit(0, 5, 1).claiming()).await;
    assert_eq!(rig.listener.revoked(&[0], false), Revocation::Later);
    advance(DRAIN + SESSION).await;
    rig.turn();
    assert_eq!(rig.broker.said(), ["unassign [0]"]);
    rig.answered(Ok(()), turn).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_lost_ends_at_once_and_a_late_answer_changes_nothing() {
    let mut rig = Rig::new();
    let given = rig.given(&[0]).await;
    assert_eq!(kinds(rig.commits(Ok(()), vec![commit(0, 1, 1).claiming()])), [None]);
    rig.sent();
    assert!(given[0].lease.is_valid());
    let (turn, done) = rig.hanging(commit(0, 5, 1)).await;
    assert_eq!(rig.listener.revoked(&[0], true), Revocation::Later);
    assert!(!given[0].lease.is_valid());
    assert_eq!(lost(rig.event().await), [0]);
    // The partition comes back before the answer to a request of the first ownership.
    let again = rig.given(&[0]).await;
    rig.answered(Ok(()), turn).await;
    done.await.unwrap().unwrap();
    assert!(!given[0].lease.is_valid() && !again[0].lease.is_valid(), "no lease without a claim");
    let state = rig.listener.state();
    assert!(state.held[&0].last.is_none(), "nothing to be said again");
}

#[tokio::test(start_paused = true)]
async fn lost_partitions_are_given_up_as_soon_as_no_commit_is_under_way() {
    let mut rig = Rig::new();
    rig.given(&[0]).await;
    assert_eq!(rig.listener.revoked(&[0], true), Revocation::Later);
    rig.turn();
    assert_eq!(rig.broker.said(), ["unassign [0]"]);
}

#[tokio::test(start_paused = true)]
async fn of_what_goes_before_the_core_has_heard_of_it_the_core_hears_nothing() {
    let mut rig = Rig::new();
    let (look, looks) = threads::channel();
    *rig.broker.looks.lock().unwrap() = Some(looks);
    rig.listener.assigned(&[0, 1]);
    while rig.broker.said().is_empty() {
        yield_now().await;
    }
    assert_eq!(rig.listener.revoked(&[0], false), Revocation::Later);
    rig.turn();
    assert_eq!(rig.broker.said(), ["unassign [0]"]);
    look.send(()).unwrap();
    let GroupEvent::Assigned(assigned) = rig.event().await else { panic!("an assignment") };
    assert_eq!(assigned.iter().map(|assigned| assigned.partition).collect::<Vec<_>>(), [1]);
    rig.silent();
}

#[tokio::test(start_paused = true)]
async fn an_answer_about_an_earlier_assignment_is_left_out() {
    let rig = Rig::new();
    let (look, looks) = threads::channel();
    *rig.broker.looks.lock().unwrap() = Some(looks);
    rig.listener.assigned(&[0]);
    while rig.broker.said().is_empty() {
        yield_now().await;
    }
    // The partition is lost and given again while the first lookup is under way.
    assert_eq!(rig.listener.revoked(&[0], true), Revocation::Later);
    rig.listener.assigned(&[0]);
    look.send(()).unwrap();
    look.send(()).unwrap();
    let GroupEvent::Assigned(assigned) = rig.event().await else { panic!("nothing was given") };
    assert_eq!(assigned.len(), 1);
    rig.silent();
}

#[tokio::test(start_paused = true)]
async fn a_member_without_partitions_ends_with_its_topic_and_not_before() {
    let mut rig = Rig::new();
    rig.given(&[0]).await;
    for gone in [false, true] {
        rig.broker.gone.store(gone, std::sync::atomic::Ordering::Release);
        assert_eq!(rig.listener.revoked(&[], true), Revocation::Later);
        rig.turn();
        rig.silent();
    }
    assert_eq!(rig.listener.revoked(&[0], true), Revocation::Later);
    assert_eq!(lost(rig.event().await), [0]);
    rig.turn();
    let over = timeout(SESSION, rig.member.next()).await.unwrap().unwrap_err();
    assert_eq!(over.kind(), ErrorKind::UnknownTopic);
}
