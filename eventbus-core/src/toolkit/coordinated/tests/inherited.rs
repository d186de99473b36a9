//! Partitions that a member with a lasting name has from one before it (S5).

use tokio::time::Instant;

use super::*;

fn inheriting() -> Rig {
    Rig::with(MemberConfig { inherits: true, ..ask() })
}

fn committed_by(rig: &Rig, owners: &[(u32, &str)]) {
    let line = |owner: &str| CommitMetadata { epoch: 4, owner: owner.into(), ..CommitMetadata::default() }.encode();
    let lines = owners.iter().map(|(partition, owner)| (*partition, (7, line(owner))));
    rig.broker.committed.lock().unwrap().extend(lines);
}

async fn given(rig: &Rig) -> Vec<u32> {
    let GroupEvent::Assigned(assigned) = rig.event().await else { panic!("an assignment") };
    let mut given: Vec<u32> = assigned.iter().map(|assigned| assigned.partition).collect();
    given.sort_unstable();
    given
}

#[tokio::test(start_paused = true)]
async fn what_another_did_not_release_is_told_only_when_its_lease_is_over() {
    let rig = inheriting();
    committed_by(&rig, &[(0, "before"), (1, "me"), (2, "")]);
    let begun = Instant::now();
    rig.listener.assigned(&[0, 1, 2, 3]);
    assert_eq!(given(&rig).await, [1, 2, 3], "nobody else can hold these");
    assert!(begun.elapsed() < LEASE, "{:?}", begun.elapsed());
    assert_eq!(given(&rig).await, [0]);
    assert!(begun.elapsed() >= LEASE, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn where_the_coordinator_waits_by_itself_nobody_waits_again() {
    let rig = Rig::new();
    committed_by(&rig, &[(0, "before")]);
    let begun = Instant::now();
    rig.listener.assigned(&[0]);
    assert_eq!(given(&rig).await, [0]);
    assert!(begun.elapsed() < LEASE);
}

#[tokio::test(start_paused = true)]
async fn what_is_wanted_back_before_its_time_is_not_told() {
    let mut rig = inheriting();
    committed_by(&rig, &[(0, "before")]);
    rig.listener.assigned(&[0, 1]);
    assert_eq!(given(&rig).await, [1]);
    assert_eq!(rig.listener.revoked(&[0], false), Revocation::Later);
    rig.turn();
    assert_eq!(rig.broker.said(), ["unassign [0]"]);
    tokio::time::sleep(LEASE * 2).await;
    rig.silent();
}

#[tokio::test(start_paused = true)]
async fn a_release_takes_the_owner_s_name_away_and_keeps_all_else() {
    let mut rig = inheriting();
    rig.given(&[0]).await;
    assert_eq!(kinds(rig.commits(Ok(()), vec![commit(0, 5, 1).claiming()])), [None]);
    let before = rig.broker.stored(0).unwrap();
    assert_eq!(before.1.owner, "me");
    let (reply, released) = oneshot::channel();
    rig.answers.send(Ok(())).unwrap();
    rig.committing.as_mut().unwrap().turn([Order::Release(0, reply)].into_iter());
    released.await.unwrap().unwrap();
    let (next, stored) = rig.broker.stored(0).unwrap();
    assert_eq!((next, stored.owner.as_str()), (5, ""));
    assert_eq!(CommitMetadata { owner: "me".into(), ..stored }, before.1);
    assert!(rig.listener.state().held.is_empty());
}
