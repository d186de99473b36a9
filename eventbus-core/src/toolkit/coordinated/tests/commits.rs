//! Commits, and how long they vouch for an ownership (S4, S5).

use tokio::time::Instant;

use super::*;
use crate::toolkit::coordinated::CommitEntry;
use crate::toolkit::coordinated::commits::AGAIN;

const MILLI: Duration = Duration::from_millis(1);

#[tokio::test(start_paused = true)]
async fn a_lease_counts_from_before_the_sending_and_a_third_of_it_in_silence_is_a_probe() {
    let mut rig = Rig::new();
    let given = rig.given(&[0]).await;
    let lease = &given[0].lease;
    assert!(!lease.is_valid(), "nothing may start before the claim");
    assert_eq!(kinds(rig.commits(Ok(()), vec![commit(0, 5, 1).claiming()])), [None]);
    assert!(lease.is_valid());
    assert_eq!(rig.sent(), [[(0, 5)]]);
    let claimed = rig.broker.stored(0);
    advance(LEASE / 3 - MILLI).await;
    let turn = rig.turn_apart(Vec::new());
    rig.committing = Some(turn.await.unwrap());
    assert!(rig.sent().is_empty(), "not yet");
    advance(MILLI).await;
    let (begun, turn) = (Instant::now(), rig.turn_apart(Vec::new()));
    assert_eq!(rig.request().await, [(0, 5)], "its last word");
    // The answer takes a while.
    advance(Duration::from_secs(2)).await;
    rig.answered(Ok(()), turn).await;
    assert_eq!(rig.broker.stored(0), claimed, "unchanged");
    assert_eq!(rig.committing.as_ref().unwrap().probe_at - begun, LEASE / 3, "from before it was sent, as the lease");
    advance(LEASE - Duration::from_secs(2) - MILLI).await;
    assert!(lease.is_valid());
    advance(MILLI).await;
    assert!(!lease.is_valid());
}

#[tokio::test(start_paused = true)]
async fn the_next_probe_is_a_third_after_the_sending_of_the_last_and_soon_after_a_refused_one() {
    let mut rig = Rig::new();
    rig.given(&[0]).await;
    rig.commits(Ok(()), vec![commit(0, 5, 1).claiming()]);
    rig.sent();
    for (answer, after) in [(Ok(()), LEASE / 3), (away(), AGAIN), (Ok(()), LEASE / 3)] {
        advance(rig.committing.as_ref().unwrap().probe_at.duration_since(Instant::now())).await;
        let begun = Instant::now();
        rig.commits(answer, Vec::new());
        assert_eq!(rig.sent().len(), 1);
        assert_eq!(rig.committing.as_ref().unwrap().probe_at - begun, after);
    }
    rig.silent();
}

#[tokio::test(start_paused = true)]
async fn a_refused_commit_vouches_for_nothing_and_may_be_made_again() {
    let mut rig = Rig::new();
    let given = rig.given(&[0]).await;
    let claim = commit(0, 5, 1).claiming();
    assert_eq!(kinds(rig.commits(away(), vec![claim.clone()])), [Some(ErrorKind::Unavailable)]);
    assert!(!given[0].lease.is_valid());
    for (refused, kind) in [
        (CommitError::PermissionDenied("no".into()), ErrorKind::PermissionDenied),
        (CommitError::TooLarge("long".into()), ErrorKind::Backend),
    ] {
        assert_eq!(kinds(rig.commits(Err(refused), vec![claim.clone()])), [Some(kind)]);
    }
    rig.silent();
    assert_eq!(kinds(rig.commits(Ok(()), vec![claim])), [None]);
    assert!(given[0].lease.is_valid());
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_not_known_has_lost_its_assignment_and_all_older_ones() {
    let mut rig = Rig::new();
    let mut given = rig.given(&[0]).await;
    given.extend(rig.given(&[1]).await);
    let claims = vec![commit(0, 5, 1).claiming(), commit(1, 5, 1).claiming()];
    assert_eq!(kinds(rig.commits(Ok(()), claims)), [None; 2]);
    rig.sent();
    let (turn, done) = rig.hanging(commit(1, 6, 1)).await;
    // A partition that comes while the request is under way is not affected by it.
    rig.given(&[2]).await;
    rig.answered(fenced(), turn).await;
    assert_eq!(done.await.unwrap().unwrap_err().kind(), ErrorKind::Fenced);
    assert!(given.iter().all(|given| !given.lease.is_valid()));
    assert_eq!(lost(rig.event().await), [0, 1]);
    rig.silent();
    assert_eq!(kinds(rig.commits(Ok(()), vec![commit(2, 5, 1).claiming()])), [None]);
}

#[tokio::test(start_paused = true)]
async fn one_request_holds_the_last_of_each_partition_and_the_others_are_told() {
    let mut rig = Rig::new();
    rig.given(&[0, 1]).await;
    let commits = vec![commit(0, 5, 1).claiming(), commit(1, 3, 1).claiming(), commit(0, 9, 1)];
    assert_eq!(kinds(rig.commits(Ok(()), commits)), [Some(ErrorKind::Unavailable), None, None]);
    assert_eq!(rig.sent(), [[(0, 9), (1, 3)]]);
}

#[tokio::test(start_paused = true)]
async fn only_what_is_owned_is_committed_and_under_no_lower_epoch() {
    let mut rig = Rig::new();
    let text = CommitMetadata { epoch: 4, ..CommitMetadata::default() }.encode();
    rig.broker.committed.lock().unwrap().insert(0, (7, text));
    rig.given(&[0]).await;
    for refused in [commit(1, 9, 9), commit(0, 9, 3), commit(0, 9, 4).claiming()] {
        assert_eq!(kinds(rig.commits(Ok(()), vec![refused])), [Some(ErrorKind::Fenced)]);
    }
    assert!(rig.sent().is_empty());
    assert_eq!(kinds(rig.commits(Ok(()), vec![commit(0, 9, 5).claiming()])), [None]);
    assert_eq!(kinds(rig.commits(Ok(()), vec![commit(0, 9, 4)])), [Some(ErrorKind::Fenced)]);
    let (next, stored) = rig.broker.stored(0).unwrap();
    assert_eq!((next, stored.epoch, stored.owner.as_str(), &stored.note[..]), (9, 5, "me", &b"note"[..]));
}

#[tokio::test(start_paused = true)]
async fn what_is_lost_between_the_look_and_the_word_is_not_committed() {
    let mut rig = Rig::new();
    rig.given(&[0]).await;
    rig.answers.send(Ok(())).unwrap();
    let entries = [0, 1].map(|partition| CommitEntry { partition, next: Position::new(5), text: "" });
    let outcome = rig.listener.send(rig.client.as_ref().unwrap(), &entries);
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(rig.sent().is_empty() && rig.listener.state().committing.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_release_comes_after_the_commits_before_it() {
    let mut rig = Rig::new();
    rig.given(&[0]).await;
    let ((commit, committed), (reply, released)) = (order(commit(0, 5, 1).claiming()), oneshot::channel());
    rig.answers.send(Ok(())).unwrap();
    rig.committing.as_mut().unwrap().turn([commit, Order::Release(0, reply)].into_iter());
    committed.await.unwrap().unwrap();
    released.await.unwrap().unwrap();
    assert!(rig.listener.state().held.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_not_there_breaks_reads_off() {
    let mut rig = Rig::new();
    rig.given(&[0]).await;
    rig.read(0, 0).await.unwrap();
    let outcome = rig.commits(Err(CommitError::UnknownTopic), vec![commit(0, 5, 1).claiming()]);
    assert_eq!(kinds(outcome), [Some(ErrorKind::UnknownTopic)]);
    assert!(matches!(rig.event().await, GroupEvent::Interrupted(broken) if broken == [0]));
}

#[tokio::test(start_paused = true)]
async fn the_print_beside_a_commit_is_of_a_late_record_below_it() {
    let mut rig = Rig::new();
    rig.given(&[0]).await;
    rig.read(0, 0).await.unwrap();
    let print = |rig: &Rig| rig.broker.stored(0).unwrap().1.fingerprint.map(|print| print.offset);
    // Each record that comes alone is kept in mind, and some of many.
    rig.broker.comes([record(0, 3)]);
    rig.turn();
    rig.broker.comes((4..40).map(|position| record(0, position)));
    rig.turn();
    for (next, kept) in [(3, None), (4, Some(3)), (5, Some(4)), (16, Some(4)), (17, Some(16)), (40, Some(32))] {
        rig.commits(Ok(()), vec![commit(0, next, 1)]);
        assert_eq!(print(&rig), kept, "{next}");
    }
    // The position was set back: no fingerprint is of a record above it.
    rig.commits(Ok(()), vec![commit(0, 20, 1)]);
    assert_eq!(print(&rig), None);
}
